//! What is remembered of an exchange while it runs, and written when its last byte has left.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::thread::{RequestId, Thread};
use super::view::View;
use crate::error::Cause;
use crate::http1::field::Known;
use crate::http1::request::RequestHead;
use crate::net::Peer;
use crate::nocobase::{self, Flow};
use crate::snapshot::Listener;
use crate::telemetry::access_log::{Attempt as LoggedAttempt, Line};
use crate::telemetry::metrics::{AffinityOutcome, AttemptResult, Source, method_index};
use crate::upstream::LocalNode;

/// One exchange, for metrics and the access log.
pub struct Record {
    /// Its ID.
    pub id: RequestId,
    /// The client, after trusted proxies.
    pub client: IpAddr,
    /// Index of the route; none before one was found.
    pub route: Option<usize>,
    /// Index of the upstream.
    pub upstream: Option<usize>,
    /// The status that was sent, or the one of the cause.
    pub status: u16,
    /// Why we answered ourselves or cut the connection.
    pub cause: Option<Cause>,
    /// A node's answer was passed on.
    pub from_node: bool,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Time in the queue.
    pub queue_ns: u64,
    /// Time parked; none if it never was.
    pub parked_ns: Option<u64>,
    /// Bytes of a slow upload that were kept before a node was asked, and the time that took; none if it
    /// was not slow.
    pub spooled: Option<(u64, u64)>,
    /// The state of maintenance that its client is let through; 0 while there is none.
    pub let_through: u64,
    /// Time to connect, of the last attempt that did.
    pub connect_ns: Option<u64>,
    /// The flow that it belongs to, and whether it came to that flow's node.
    pub affinity: Option<(Flow, AffinityOutcome)>,
    /// From the last attempt's send to its head.
    pub header_ns: Option<u64>,
    /// The node's own ID.
    pub upstream_request_id: Vec<u8>,
    /// All attempts.
    pub attempts: Vec<Attempt>,
    begun_ns: u64,
    unix_ms: u64,
    peer: Peer,
}

/// One try at one node.
pub struct Attempt {
    /// The node.
    pub node: Rc<LocalNode>,
    /// How it ended.
    pub result: AttemptResult,
    /// Bytes of the request that the kernel took.
    pub sent: u64,
    /// On a kept connection.
    pub reused: bool,
    /// Made beside another one that was late.
    pub hedge: bool,
    /// Its length.
    pub ns: u64,
}

impl Record {
    /// At the first byte of a request, whether it turns out well formed or not.
    pub fn begin(thread: &Thread, peer: Peer, begun_ns: u64) -> Record {
        let unix_ms = thread.unix_ms();
        Record {
            id: RequestId::new(unix_ms, &mut thread.rng.borrow_mut()),
            client: peer.ip(),
            route: None,
            upstream: None,
            status: 0,
            cause: None,
            from_node: false,
            bytes_in: 0,
            bytes_out: 0,
            queue_ns: 0,
            parked_ns: None,
            spooled: None,
            let_through: 0,
            connect_ns: None,
            header_ns: None,
            affinity: None,
            upstream_request_id: Vec::new(),
            attempts: Vec::new(),
            begun_ns,
            unix_ms,
            peer,
        }
    }

    /// When the first byte of the request came.
    pub fn begun_ns(&self) -> u64 {
        self.begun_ns
    }

    /// Counts and logs. `head` is missing when there was none that could be read.
    pub fn finish(
        &self,
        thread: &Thread,
        view: &View,
        listener: &Arc<Listener>,
        head: Option<&RequestHead>,
    ) {
        let took = thread.now_ns().saturating_sub(self.begun_ns);
        let no_route = listener.routes.len() - 1;
        let handles = &listener.routes[self.route.unwrap_or(no_route).min(no_route)];
        let method = method_index(head.map_or(&b""[..], RequestHead::method));
        let source = if self.from_node { Source::Upstream } else { Source::Proxy };
        handles.count(method, self.status, source);
        handles.duration.observe(took as f64 / 1e9);
        handles.request_bytes.inc_by(self.bytes_in);
        handles.response_bytes.inc_by(self.bytes_out);
        if let Some(cause) = &self.cause {
            handles.error(cause);
        }
        if thread.log.borrow().enabled() {
            self.log(thread, view, listener, head, took);
        }
    }

    fn log(
        &self,
        thread: &Thread,
        view: &View,
        listener: &Arc<Listener>,
        head: Option<&RequestHead>,
        took: u64,
    ) {
        let attempts: Vec<LoggedAttempt<'_>> = self.attempts.iter().map(Attempt::logged).collect();
        let upstream = self.upstream.map(|index| &view.snapshot.upstreams[index].settings);
        let target = head.map_or(&b""[..], RequestHead::target);
        let text = str::from_utf8(target).unwrap_or_default();
        let method = head.map_or(&b""[..], RequestHead::method);
        let action = upstream.and_then(|upstream| {
            nocobase::action(str::from_utf8(method).ok()?, text, &upstream.api_path)
        });
        let action = action.map(|action| format!("{}:{}", action.resource, action.action));
        let value = |known| head.and_then(|head| head.value(known)).unwrap_or_default();
        thread.log.borrow_mut().push(&Line {
            unix_ms: self.unix_ms,
            request_id: self.id.as_bytes(),
            upstream_request_id: &self.upstream_request_id,
            client: self.client,
            peer: self.peer,
            method,
            host: head.map_or(&b""[..], RequestHead::host),
            path: target,
            protocol: head.map_or("", RequestHead::protocol),
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_us: took / 1000,
            queue_us: self.queue_ns / 1000,
            parked_us: self.parked_ns.map(|ns| ns / 1000),
            spooled: self.spooled.map(|(bytes, ns)| (bytes, ns / 1000)),
            connect_us: self.connect_ns.map(|ns| ns / 1000),
            header_us: self.header_ns.map(|ns| ns / 1000),
            listener: &listener.settings.name,
            route: self.route_name(view),
            upstream: upstream.map_or("", |upstream| &upstream.name),
            node: self.attempts.last().map_or("", |attempt| &attempt.node.node.label),
            app: value(Known::XApp),
            action: action.as_deref().unwrap_or_default().as_bytes(),
            affinity: self.affinity.map_or("", |(_, outcome)| outcome.as_str()),
            user_agent: value(Known::UserAgent),
            referer: value(Known::Referer),
            reason: self.cause.as_ref().map_or("", Cause::reason),
            detail: self.cause.as_ref().map_or("", cause_detail),
            retried: attempts.len() > 1,
            attempts: &attempts,
        });
    }

    fn route_name<'v>(&self, view: &'v View) -> &'v str {
        match (self.route, view.snapshot.config.routes.is_empty()) {
            (None, _) => "none",
            (Some(_), true) => "all",
            (Some(route), false) => &view.snapshot.config.routes[route].name,
        }
    }
}

/// What the closed list of reasons leaves out.
fn cause_detail(cause: &Cause) -> &str {
    match cause {
        Cause::BadRequest(what)
        | Cause::BadBody(what)
        | Cause::NotImplemented(what)
        | Cause::BadResponse(what)
        | Cause::Internal(what) => what,
        Cause::ConnectFailed(what) | Cause::NodeTls(what) => what,
        _ => "",
    }
}

impl Attempt {
    fn logged(&self) -> LoggedAttempt<'_> {
        LoggedAttempt {
            node: &self.node.node.label,
            result: self.result.as_str(),
            sent: self.sent,
            reused: self.reused,
            hedge: self.hedge,
            us: self.ns / 1000,
        }
    }
}
