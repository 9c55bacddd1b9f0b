//! One request and its response, from the head that was read to the last byte of the answer.
//!
//! [`exchange`] observes: it counts, logs and answers for what went wrong. `serve` does the work and reads
//! top to bottom: route → admit → read a small body → attempt at one node after the other → pass the
//! answer on. Each attempt is `attempt_at`. docs/life-of-a-request.md tells the whole story.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock;
use crate::config::{Preset, Role};
use crate::error::{Cause, Side};
use crate::headers::forwarded::Forwarding;
use crate::headers::{self, ForNode};
use crate::health::HealthState;
use crate::http1::body::Framing;
use crate::http1::deadline::Deadline;
use crate::http1::field::Known;
use crate::http1::request::RequestHead;
use crate::nocobase;
use crate::telemetry::metrics::RetryReason;
use crate::upstream::Signal;

pub mod answer;
pub mod at_node;
pub mod attempt;
pub mod client;
pub mod maintenance;
pub mod pick;
pub mod record;
mod rescue;
pub mod respond;
pub mod thread;
pub mod tunnel;
pub mod upload;
mod verdict;
pub mod view;

use client::{Client, Unread};
use maintenance::is_api;
use pick::{Wish, pick};
use record::Record;
use tunnel::Tunnel;
use upload::Upload;
use view::{LocalUpstream, View};

/// A wait for a node that may have outlasted the client's patience.
const NOTICEABLE_NS: u64 = 100_000_000;

/// What becomes of the client's connection.
pub enum Next {
    /// The next request may follow.
    KeepAlive,
    /// Everything was said; the connection ends.
    Close,
    /// An answer was sent although the request was not read to its end: read on a little, so that the
    /// answer is not lost to a reset.
    Linger,
    /// The answer cannot be completed: the client must not take it for whole.
    Cut,
    /// The sockets belong to each other now; the client's is to be put in.
    Tunnel(Box<Join>),
    /// The client's socket is a WebSocket that we hold ourselves.
    Held(Box<maintenance::Hold>),
}

/// Makes a tunnel of the client's socket, the place that its connection has, and what was read early.
pub type Join = dyn FnOnce(crate::net::Socket, Box<dyn std::any::Any>, Vec<u8>) -> Tunnel;

/// The two deadlines of an exchange: of what comes from the client, and of everything else.
pub struct Deadlines {
    /// Reading the request's body and writing it to the node.
    pub up: Deadline,
    /// Connecting, awaiting the head, passing the answer on.
    pub down: Deadline,
}

/// Runs one exchange to its end, counts and logs it.
pub async fn exchange(
    client: &Client<'_>,
    head: RequestHead,
    unread: &mut Unread,
    deadlines: &Deadlines,
    begun_ns: u64,
) -> Next {
    let view = client.thread.view();
    let mut record = Record::begin(client.thread, client.peer, begun_ns);
    let counted = client.listener.metrics.count_in_flight();
    let next = {
        let mut exchange = Exchange {
            client,
            view: &view,
            head: &head,
            deadlines,
            record: &mut record,
            begun: false,
            body_done: head.framing == Framing::Empty,
        };
        match exchange.serve(unread).await {
            Ok(next) => next,
            // What is rare is boxed: every exchange would have to hold room for it.
            Err(cause) => Box::pin(exchange.fail(cause)).await,
        }
    };
    drop(counted);
    record.finish(client.thread, &view, &client.listener, Some(&head));
    head.recycle(&client.thread.buffers);
    next
}

/// The state of one exchange.
struct Exchange<'a> {
    client: &'a Client<'a>,
    view: &'a Rc<View>,
    head: &'a RequestHead,
    deadlines: &'a Deadlines,
    record: &'a mut Record,
    /// Something of an answer has gone to the client.
    begun: bool,
    /// The request was read to its end.
    body_done: bool,
}

/// What stays the same over all attempts.
struct Plan<'a> {
    upstream: &'a LocalUpstream,
    wish: Wish,
    /// The head for the nodes.
    node_head: Vec<u8>,
    /// End of the time for all attempts.
    until_ns: u64,
    /// Whether the head time feeds the node's average.
    feeds_latency: bool,
    /// Sent attempts that were repeated.
    repeats: u32,
    /// The free repeat of a request that was lost on a kept connection was used.
    race_lost: bool,
    /// It was moved away from a node that fell silent.
    rescued: bool,
}

/// How an attempt ended.
enum Attempted {
    /// The exchange is over.
    Done(Next),
    /// Try again, at another node or (after a race that was lost) at the same one.
    Again,
}

impl<'a> Exchange<'a> {
    async fn serve(&mut self, unread: &mut Unread) -> Result<Next, Cause> {
        let view = self.view.clone();
        let (route, upstream) = self.route(&view)?;
        self.record.route = Some(route);
        self.record.upstream = Some(upstream);
        let upstream = &view.upstreams[upstream];
        let mut upload = Upload::new(self.head.framing, self.client.listener.settings.max_body)?;
        let mut plan = self.plan(upstream);
        if !self.head.expect_continue {
            let read = upload.buffer(self.client, unread, &self.deadlines.up).await;
            self.note_upload(&upload);
            read?;
            if self.head.framing != Framing::Empty {
                // The client's time is not the node's.
                self.client.thread.look_at_clock();
            }
        }
        if upstream.upstream.shared.maintenance.is_on()
            && let Some(next) = Box::pin(self.maintain(&mut plan)).await
        {
            return next;
        }
        upstream.count_request();
        let result = self.attempts(&mut plan, &mut upload, unread).await;
        self.note_upload(&upload);
        self.client.thread.buffers.give_back(plan.node_head);
        result
    }

    fn note_upload(&mut self, upload: &Upload) {
        self.record.bytes_in = upload.received();
        self.body_done = upload.is_done();
    }

    /// Which route and which upstream.
    fn route(&self, view: &View) -> Result<(usize, usize), Cause> {
        let snapshot = &view.snapshot;
        if snapshot.config.routes.is_empty() {
            return Ok((0, 0));
        }
        let host = host_name(self.head.host());
        let path = str::from_utf8(self.head.path()).map_err(|_| Cause::NoRoute)?;
        let route = snapshot.router.find(&host, path).ok_or(Cause::NoRoute)?;
        Ok((route, snapshot.upstream_of(route)))
    }

    /// Decides what does not change between attempts.
    fn plan<'u>(&mut self, upstream: &'u LocalUpstream) -> Plan<'u> {
        let (head, settings) = (self.head, &upstream.upstream.settings);
        let forwarding = Forwarding::new(
            self.client.peer.ip(),
            &self.client.listener.settings.trusted_proxies,
            head,
        );
        self.warn_untrusted(&forwarding);
        self.record.client = forwarding.client;
        if forwarding.trusted
            && let Some(id) = head.value(Known::XRequestId).and_then(thread::RequestId::given)
        {
            self.record.id = id;
        }
        let method = str::from_utf8(head.method()).unwrap_or_default();
        // A target that is no text can be anything: it is not safe to repeat.
        let target = str::from_utf8(head.target()).unwrap_or("\u{fffd}");
        let is_text = str::from_utf8(head.target()).is_ok();
        let sticky = settings.sticky.as_ref();
        let mut node_head = self.client.thread.buffers.small();
        let parts = ForNode {
            forwarding: &forwarding,
            request_id: self.record.id.as_str(),
            default_host: &settings.name,
            hidden_cookie: sticky.map(|sticky| sticky.cookie.as_str()),
        };
        headers::write_request(&mut node_head, head, &parts);
        let now = self.client.thread.now_ns();
        Plan {
            upstream,
            wish: Wish {
                safe_to_repeat: is_text
                    && nocobase::safe_to_repeat(
                        method,
                        target,
                        settings.preset,
                        &settings.api_path,
                    ),
                tunnel: head.websocket,
                app: self.app(&settings.api_path),
                hash: Wish::hash_key(upstream, head, forwarding.client),
                sticky: self.sticky(upstream),
                tried: Vec::new(),
            },
            node_head,
            until_ns: match settings.deadline.is_zero() {
                true => u64::MAX,
                false => now.saturating_add(clock::nanos(settings.deadline)),
            },
            feeds_latency: settings.preset == Preset::None
                || nocobase::feeds_latency(method, target, &settings.api_path),
            repeats: 0,
            race_lost: false,
            rescued: false,
        }
    }

    /// Tells control of a peer that looks like an outer proxy nobody has listed.
    fn warn_untrusted(&self, forwarding: &Forwarding<'_>) {
        if forwarding.trusted || !crate::net::is_private(forwarding.peer) {
            return;
        }
        let field = match (
            self.head.value(Known::XForwardedProto),
            self.head.value(Known::XForwardedFor),
        ) {
            (Some(_), _) => "X-Forwarded-Proto",
            (None, Some(_)) => "X-Forwarded-For",
            (None, None) => return,
        };
        if !self.client.thread.may_warn_of(forwarding.peer) {
            return;
        }
        let listener = self.client.listener.settings.name.clone();
        self.client.thread.signal(Signal::UntrustedForwarding {
            listener,
            peer: forwarding.peer,
            field,
        });
    }

    /// Hash of the app that the request names. The host is part of it: plugins map hosts to apps.
    fn app(&self, api_path: &str) -> u64 {
        let text = |bytes| str::from_utf8(bytes).ok();
        let x_app = self.head.value(Known::XApp).and_then(text);
        let target = text(self.head.target()).unwrap_or_default();
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let name = nocobase::app_name(x_app, path, query, api_path).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64_with_seed(
            name.as_bytes(),
            xxhash_rust::xxh3::xxh3_64(self.head.host()),
        )
    }

    /// The node that a valid sticky cookie names.
    fn sticky(&self, upstream: &LocalUpstream) -> Option<u64> {
        let settings = upstream.upstream.settings.sticky.as_ref()?;
        let value = headers::cookie(self.head, &settings.cookie)?;
        upstream.signer.as_ref()?.verify(value, unix_s(), settings.max_life)
    }

    /// One attempt after the other, until one is answered or there is nobody left to ask.
    async fn attempts(
        &mut self,
        plan: &mut Plan<'_>,
        upload: &mut Upload,
        unread: &mut Unread,
    ) -> Result<Next, Cause> {
        let mut last: Option<(Cause, RetryReason)> = None;
        loop {
            let asked = self.client.thread.now_ns();
            if asked >= plan.until_ns {
                return Err(last.map_or(Cause::Deadline, |(cause, _)| cause));
            }
            let picked = pick(
                self.client.thread,
                plan.upstream,
                &plan.wish,
                &self.deadlines.down,
                plan.until_ns,
            )
            .await;
            let waited = self.client.thread.now_ns() - asked;
            self.record.queue_ns += waited;
            // Nobody watched the client meanwhile.
            if waited > NOTICEABLE_NS && self.client.socket.peek_idle() == crate::net::Idle::Closed
            {
                return Err(Cause::ClientLeft);
            }
            let node = match picked {
                Ok(node) => node,
                // Whoever was asked before knows more of the reason than "nobody is left".
                Err(cause) => return Err(last.map_or(cause, |(cause, _)| cause)),
            };
            if let Some((cause, reason)) = last.take() {
                // Paid for only now that there is somebody to ask.
                if !pay(plan, reason) {
                    return Err(cause);
                }
            }
            match self.attempt_at(node, plan, upload, unread).await {
                Ok(Attempted::Done(next)) => return Ok(next),
                Ok(Attempted::Again) => {}
                Err(failure) => match self.may_repeat(&failure, plan, upload) {
                    Some(reason) => {
                        if reason != RetryReason::StaleRace {
                            plan.wish.tried.push(node);
                        }
                        last = Some((failure.cause, reason));
                    }
                    None => return Err(failure.cause),
                },
            }
        }
    }

    /// Design: unsent, any request. Sent and no byte of a head back, what is safe to repeat, within
    /// `retries` and the budget, and once if its node fell silent (`may_rescue`); once for free when a kept connection was closed at the moment of reuse.
    fn may_repeat(
        &self,
        failure: &Failure,
        plan: &mut Plan<'_>,
        upload: &Upload,
    ) -> Option<RetryReason> {
        if self.begun || !upload.is_replayable() || failure.cause.side() != Side::Node {
            return None;
        }
        if failure.rescue {
            plan.rescued = true;
            return Some(RetryReason::Rescue);
        }
        let terminated = failure.cause == Cause::ConnectionTerminated;
        let unsent = failure.sent == 0;
        if terminated && failure.reused && !plan.race_lost && (unsent || plan.wish.safe_to_repeat) {
            // The same node, on a new connection: it only closed an old one.
            plan.race_lost = true;
            return Some(RetryReason::StaleRace);
        }
        if unsent {
            return Some(RetryReason::Unsent);
        }
        if !plan.wish.safe_to_repeat || !terminated {
            return None;
        }
        (plan.repeats < plan.upstream.upstream.settings.retries).then_some(RetryReason::Reset)
    }

    /// Answers for what went wrong, if the client can still be told.
    async fn fail(&mut self, cause: Cause) -> Next {
        self.client.thread.look_at_clock();
        self.record.status = cause.status();
        let told = !self.begun && !matches!(cause, Cause::ClientLeft | Cause::ClientStalled);
        let next = match told {
            true => self.answer(&cause).await,
            false => {
                // Where the end of the stream is the end of the answer, and where the client takes nothing
                // that the kernel still holds, only a reset ends it.
                if cause == Cause::ClientStalled || self.begun && !self.head.version_11 {
                    self.client.socket.reset_on_drop();
                }
                Next::Cut
            }
        };
        if let Cause::Internal(what) = cause {
            tracing::error!(request_id = self.record.id.as_str(), what, "internal error");
        }
        self.record.cause = Some(cause);
        next
    }

    async fn answer(&mut self, cause: &Cause) -> Next {
        let keep_alive = self.body_done && self.keeps_alive();
        let upstream = self.record.upstream.map(|index| &self.view.upstreams[index]);
        let shape = answer::Shape {
            json: upstream.is_some_and(|upstream| is_api(upstream, self.head)),
            to_head: self.head.method() == b"HEAD",
            keep_alive,
            maintaining: *cause == Cause::NoEligibleNode && upstream.is_some_and(all_maintaining),
            request_id: self.record.id.as_str(),
        };
        self.record.from_node = false;
        let mut out = self.client.thread.buffers.small();
        answer::write(&mut out, cause, &shape);
        self.deliver(out, keep_alive).await
    }

    /// Whether the client's connection may be used again, as far as the exchange can say.
    fn keeps_alive(&self) -> bool {
        self.head.keep_alive && !self.client.last && !self.client.thread.draining.get()
    }
}

/// A failed attempt.
struct Failure {
    cause: Cause,
    /// Bytes of the request that a node may have seen.
    sent: u64,
    reused: bool,
    /// Given up because its node fell silent; the budget has paid for it.
    rescue: bool,
}

/// Counts a retry, and takes it from the budget if something had been sent. False: the budget is spent.
fn pay(plan: &mut Plan<'_>, reason: RetryReason) -> bool {
    let upstream = &plan.upstream.upstream;
    if reason == RetryReason::Reset {
        if !upstream.shared.budget.withdraw(clock::now_ns() / 1_000_000_000) {
            return false;
        }
        plan.repeats += 1;
    }
    upstream.metrics.retries[reason as usize].inc();
    true
}

/// The host without its port and final dot, in lower case, as routes are written.
fn host_name(host: &[u8]) -> String {
    let text = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6.to_owned(),
        None => text.split(':').next().unwrap_or_default().to_owned(),
    };
    name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
}

/// Every node that serves says that it is starting or under maintenance.
fn all_maintaining(upstream: &LocalUpstream) -> bool {
    let says_so = |member: &crate::snapshot::Member| {
        matches!(member.node.health(), HealthState::Maintaining | HealthState::Starting)
    };
    let mut serving = upstream.upstream.nodes.iter().filter(|m| m.role == Role::Serve).peekable();
    serving.peek().is_some() && serving.all(says_so)
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_as_routes_write_them() {
        for (host, name) in
            [("A.b:80", "a.b"), ("a.b.", "a.b"), ("[::1]:80", "::1"), ("", ""), ("x:", "x")]
        {
            assert_eq!(host_name(host.as_bytes()), name);
        }
    }
}
