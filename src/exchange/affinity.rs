//! Flows that live in one node's memory: which node an exchange follows, and what is remembered of it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::pick::{Wish, is_full};
use super::view::{LocalMember, LocalUpstream};
use super::{Exchange, Plan};
use crate::headers;
use crate::health::{HealthState, OperatorState};
use crate::nocobase::{self, Flow, Traits};
use crate::telemetry::metrics::AffinityOutcome;
use crate::upstream::Node;

/// What an exchange has to do with those before it.
pub struct Follow {
    flow: Flow,
    /// What follows must come to the same node.
    begins: bool,
    /// It belongs to the flow by itself, not only by its session.
    own: bool,
    key: u64,
    /// For the WebSocket of a session whose handshake has no token.
    by_address: Option<u64>,
    /// Identity of the node that is remembered.
    node: Option<u64>,
}

impl Follow {
    /// What goes on at a node.
    #[cfg(test)]
    pub(super) fn on(flow: Flow, node: &Node) -> Follow {
        let (key, node) = (1, Some(node.identity));
        Follow { flow, begins: false, own: true, key, by_address: None, node }
    }

    /// The node that is remembered, by index, if it takes the exchange. One that is drained finishes what it
    /// runs, and telling of that is part of it.
    pub fn node(&self, upstream: &LocalUpstream, wish: &Wish, now_ns: u64) -> Option<usize> {
        let identity = self.node?;
        let of_it = |member: &LocalMember| member.local.node.identity == identity;
        let index = upstream.nodes.iter().position(of_it)?;
        let member = &upstream.nodes[index];
        let finishes = self.flow.runs_on() && !self.begins && is_finishing(&member.local.node);
        let takes = finishes || member.local.node.eligible(wish.safe_to_repeat);
        let open = takes && !is_full(member) && !wish.tried.contains(&index);
        (open && !upstream.is_passed_over(index, wish.app, now_ns)).then_some(index)
    }

    /// What names a node where none is remembered, so that replicas, and requests at the same time, agree.
    pub fn steady_key(&self) -> Option<u64> {
        self.own.then_some(self.key)
    }

    /// What it came to at this node.
    pub fn outcome(&self, node: &Node) -> (Flow, AffinityOutcome) {
        let outcome = match self.node {
            None => AffinityOutcome::New,
            Some(identity) if identity == node.identity => AffinityOutcome::Kept,
            Some(_) => AffinityOutcome::Lost,
        };
        (self.flow, outcome)
    }
}

impl Exchange<'_> {
    /// What an exchange of this app has to follow; nothing for nearly all.
    pub(super) fn follow(
        &self,
        upstream: &LocalUpstream,
        traits: &Traits,
        (app, app_name): (u64, Option<&str>),
    ) -> Option<Box<Follow>> {
        let (affinity, now) = (&upstream.upstream.shared.affinity, self.client.thread.now_ns());
        let own = traits.flow.is_some();
        if !own && !affinity.follows_sessions(now) {
            return None;
        }
        let (flow, begins) = traits.flow.unwrap_or((Flow::Admin, false));
        let key_of = |who: &[u8]| xxh3_64_with_seed(&[&[flow as u8], who].concat(), app);
        // What is formatted, and which token is read, is paid for by every request of some minutes.
        let of_address = || key_of(self.record.client.to_string().as_bytes());
        let key = match flow.is_of_a_session() {
            false => key_of(b""),
            true => match self.session(app_name) {
                Some(session) => key_of(&session.to_be_bytes()),
                // An address may be that of many: it stands only for what cannot have a token.
                None if own || self.head.websocket => of_address(),
                None => return None,
            },
        };
        let node = match own {
            true => affinity.node_of(key, now),
            false => affinity.node_of_session(key, now),
        };
        let by_address = (begins && flow == Flow::Admin).then(of_address);
        let follow = Follow { flow, begins, own, key, by_address, node };
        (own || node.is_some()).then(|| Box::new(follow))
    }

    /// The session, by its token: in a field from scripts, in a cookie from what browsers ask for themselves.
    fn session(&self, app: Option<&str>) -> Option<u64> {
        let field = self.head.value_named(b"authorization").and_then(nocobase::bearer);
        let token = field.or_else(|| headers::cookie(self.head, &nocobase::token_cookie(app)));
        token.and_then(|token| self.client.thread.session(token))
    }

    /// A node has taken a request: what follows it comes there as well.
    pub(super) fn remember(&self, plan: &Plan<'_>, node: &Node) {
        let Some(follow) = plan.wish.follow.as_ref().filter(|follow| follow.begins) else { return };
        let affinity = &plan.upstream.upstream.shared.affinity;
        let now = self.client.thread.now_ns();
        if follow.flow != Flow::Admin {
            return affinity.remember(follow.key, node.identity, now);
        }
        for key in [Some(follow.key), follow.by_address].into_iter().flatten() {
            affinity.remember_session(key, node.identity, now);
        }
    }

    /// Counts what became of it, once for each exchange.
    pub(super) fn count_affinity(&self, plan: &Plan<'_>) {
        if let Some((flow, outcome)) = self.record.affinity {
            plan.upstream.upstream.metrics.affinity[flow as usize][outcome as usize].inc();
        }
    }
}

/// Whether a node that is drained still finishes what it runs.
fn is_finishing(node: &Node) -> bool {
    node.operator() == OperatorState::Draining
        && node.health() == HealthState::Up
        && node.address().is_some()
}

/// Hash of an app by its name and the host: plugins map hosts to apps.
pub(super) fn app_key(name: Option<&str>, host: &[u8]) -> u64 {
    xxh3_64_with_seed(name.unwrap_or_default().as_bytes(), xxh3_64(host))
}
