//! Quiet restarts, as far as exchanges are concerned: whose page a tunnel is, who works on the app, and who is
//! owed the end of NocoBase's dialog.

use std::cell::Cell;

use xxhash_rust::xxh3::xxh3_64;

use super::tunnel::frames;
use super::tunnel::quiet::{Page, Under};
use super::view::LocalUpstream;
use super::{Exchange, Plan};
use crate::error::Cause;
use crate::headers;
use crate::health::HealthState;
use crate::nocobase;
use crate::upstream::Node;

/// What a client is known by.
struct Client {
    /// That its cookie's token, which a browser sends with everything, stands for.
    cookie: Option<u64>,
    /// The same of the token that its scripts send.
    token: Option<u64>,
    address: u64,
}

impl Client {
    /// A page's tunnel is known by its session, if it can be.
    fn of_page(&self) -> u64 {
        self.cookie.or(self.token).unwrap_or(self.address)
    }
}

impl Exchange<'_> {
    /// Remembers who works on the app itself, as it says. [`Exchange::accept_work`] is told what came of it.
    pub(super) fn note_work(&mut self, upstream: &LocalUpstream, method: &str, target: &str) {
        let settings = &upstream.upstream.settings;
        if !settings.quiet_restarts || !nocobase::is_work_on_app(method, target, &settings.api_path)
        {
            return;
        }
        let (client, now_ns) = (self.identify(&settings.api_path), self.client.thread.now_ns());
        // Where the browser's cookie came along, it came with the handshakes of its pages as well.
        let address = client.cookie.is_none().then_some(client.address);
        let known = [client.cookie, client.token, address].into_iter().flatten();
        let quiet = &upstream.upstream.shared.quiet;
        // Those of an earlier plan end with this one's beginning.
        self.worked = known.map(|client| quiet.works(client, now_ns)).collect();
    }

    /// A node accepts what was asked for, as far as its head says: whatever becomes of the rest of its answer.
    pub(super) fn accept_work(&mut self) {
        if !self.worked.is_empty() {
            let now_ns = self.client.thread.now_ns();
            self.worked.iter_mut().for_each(|claim| claim.accept(now_ns));
        }
    }

    /// Of what no node has accepted nothing is remembered, as anybody can ask for it; but a restart may have
    /// ended its node before the answer was there.
    pub(super) fn settle_work(&mut self) {
        let cut =
            matches!(self.record.cause, Some(Cause::ConnectionTerminated | Cause::ResponseTimeout));
        if cut && !self.record.from_node {
            self.accept_work();
        }
        self.worked.clear();
    }

    /// The page at the other end, if its restarts are to be quiet, and what it gets first.
    pub(super) fn page(&self, plan: &Plan<'_>, node: &Node) -> (Option<Page>, Vec<u8>) {
        let upstream = &plan.upstream.upstream;
        let settings = &upstream.settings;
        if !settings.quiet_restarts || !self.is_ws(plan.upstream) {
            return (None, Vec::new());
        }
        let now_ns = self.client.thread.now_ns();
        let (client, quiet) = (self.identify(&settings.api_path), &upstream.shared.quiet);
        let known = [client.cookie, client.token, Some(client.address)].into_iter().flatten();
        let owed = known.into_iter().any(|client| quiet.owes(client, now_ns));
        let page = Page {
            quiet: quiet.clone(),
            client: client.of_page(),
            sub_app: self.app_name(&settings.api_path).is_some(),
            opened_ns: now_ns,
            under: Cell::new(Under::Nothing),
        };
        // Of a node that is used for want of a better one nobody knows whether it serves.
        let words = if owed && node.health() == HealthState::Up {
            upstream.metrics.dialogs_closed.inc();
            frames::text(&nocobase::closing_frame())
        } else {
            Vec::new()
        };
        (Some(page), words)
    }

    /// A page whose tunnel did not come about may take that for maintenance after some attempts.
    pub(super) fn owe_refused_page(&self) {
        let upstream = self.record.upstream.map(|index| &self.view.upstreams[index]);
        let Some(upstream) = upstream.filter(|upstream| self.is_ws(upstream)) else { return };
        let settings = &upstream.upstream.settings;
        if settings.quiet_restarts {
            let client = self.identify(&settings.api_path).of_page();
            upstream.upstream.shared.quiet.owe(client, false, self.client.thread.now_ns());
        }
    }

    /// Whether it is the handshake of NocoBase's client.
    fn is_ws(&self, upstream: &LocalUpstream) -> bool {
        let api_path = &upstream.upstream.settings.api_path;
        self.head.websocket && nocobase::is_ws_path(self.head.path(), api_path)
    }

    fn identify(&self, api_path: &str) -> Client {
        let head = self.head;
        let cookie = nocobase::token_cookie(self.app_name(api_path));
        let bearer = head.value_named(b"authorization").and_then(nocobase::bearer);
        let query = || {
            let target = str::from_utf8(head.target()).ok()?;
            Some(nocobase::query_token(target.split_once('?')?.1)?.as_bytes())
        };
        Client {
            cookie: headers::cookie(head, &cookie).and_then(nocobase::session),
            token: bearer.or_else(query).and_then(nocobase::session),
            address: xxh3_64(self.record.client.to_string().as_bytes()).max(1),
        }
    }
}
