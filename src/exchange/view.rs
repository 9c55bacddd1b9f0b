//! A snapshot as one data thread uses it: with its balancers, pools and queues.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::balance::sticky::Signer;
use crate::balance::{Balancer, Load};
use crate::config::{self, Role};
use crate::snapshot::{Snapshot, Upstream};
use crate::upstream::LocalNode;

/// Refusals that are remembered for single apps; more apps at once than that are somebody's game.
const MAX_PASSED_OVER: usize = 64;

/// A snapshot and what belongs to it on this thread.
pub struct View {
    /// The immutable whole.
    pub snapshot: Arc<Snapshot>,
    /// In the order of the snapshot.
    pub upstreams: Vec<LocalUpstream>,
}

/// One upstream on this thread.
pub struct LocalUpstream {
    /// The immutable part.
    pub upstream: Arc<Upstream>,
    /// The nodes that may be picked (no task nodes).
    pub nodes: Vec<LocalMember>,
    /// Chooses among them.
    pub balancer: RefCell<Balancer>,
    /// Exchanges that wait for a node below its limit.
    pub queue: Rc<Queue>,
    /// Signs sticky cookies.
    pub signer: Option<Signer>,
    /// Room for one pick's loads, by node.
    pub loads: RefCell<Vec<Load>>,
    /// Room for one pick's eligible nodes.
    pub eligible: RefCell<Vec<usize>>,
    /// Requests since the budget was last told of them.
    requests: Cell<u32>,
    passed_over: RefCell<VecDeque<PassedOver>>,
}

/// One node that may be picked.
pub struct LocalMember {
    /// Its pool and counters.
    pub local: Rc<LocalNode>,
    /// 1 to 1000.
    pub weight: u32,
    /// Picked only when no primary node is eligible.
    pub backup: bool,
    /// Requests in flight at most; 0 is no limit.
    pub max_requests: u32,
    /// What stands for it in a sticky cookie.
    pub sticky_key: u64,
}

/// A node that refused an app a moment ago.
struct PassedOver {
    node: usize,
    app: u64,
    at_ns: u64,
}

impl View {
    /// Compiles the thread's part. Pools of nodes that stay are taken over from the previous view.
    pub fn new(thread: usize, snapshot: Arc<Snapshot>, previous: Option<&View>) -> View {
        let upstreams = snapshot.upstreams.iter();
        let upstreams =
            upstreams.map(|u| LocalUpstream::new(thread, u.clone(), previous)).collect();
        View { snapshot, upstreams }
    }

    /// Every node that may be picked.
    pub fn nodes(&self) -> impl Iterator<Item = &Rc<LocalNode>> {
        self.upstreams.iter().flat_map(|upstream| &upstream.nodes).map(|member| &member.local)
    }

    /// Whether a node is among them.
    pub fn has(&self, local: &LocalNode) -> bool {
        self.nodes().any(|known| Arc::ptr_eq(&known.node, &local.node))
    }

    fn local(&self, node: &Arc<crate::upstream::Node>) -> Option<Rc<LocalNode>> {
        self.nodes().find(|local| Arc::ptr_eq(&local.node, node)).cloned()
    }
}

impl LocalUpstream {
    fn new(thread: usize, upstream: Arc<Upstream>, previous: Option<&View>) -> LocalUpstream {
        let settings = &upstream.settings;
        let signer = settings.sticky.as_ref().map(|sticky| Signer::new(&sticky.secret));
        let member = |member: &crate::snapshot::Member| LocalMember {
            local: previous
                .and_then(|view| view.local(&member.node))
                .unwrap_or_else(|| Rc::new(LocalNode::new(member.node.clone(), thread))),
            weight: member.weight,
            backup: member.backup,
            max_requests: member.max_requests,
            sticky_key: signer.as_ref().map_or(0, |signer| signer.node_key(&member.node.label)),
        };
        let serving = upstream.nodes.iter().filter(|member| member.role == Role::Serve);
        let nodes: Vec<LocalMember> = serving.map(member).collect();
        let same = |old: &&LocalUpstream| old.upstream.settings.name == settings.name;
        let old = previous.and_then(|view| view.upstreams.iter().find(same));
        let queue = old.map_or_else(Rc::default, |old| old.queue.clone());
        queue.set_limit(settings.queue);
        LocalUpstream {
            balancer: RefCell::new(balancer(settings, &nodes, old)),
            queue,
            requests: Cell::new(0),
            signer,
            eligible: RefCell::default(),
            loads: RefCell::new(vec![Load::default(); nodes.len()]),
            passed_over: RefCell::default(),
            nodes,
            upstream,
        }
    }

    /// Counts a request for the retry budget, which all threads share: it is told by [`Self::settle`].
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Tells the budget what was counted.
    pub fn settle(&self, now_ns: u64) {
        let requests = self.requests.take();
        if requests > 0 {
            self.upstream.shared.budget.deposit(requests, now_ns / 1_000_000_000);
        }
    }

    /// Remembers that a node refused an app.
    pub fn pass_over(&self, node: usize, app: u64, now_ns: u64) {
        let mut list = self.passed_over.borrow_mut();
        if list.len() == MAX_PASSED_OVER {
            list.pop_front();
        }
        list.push_back(PassedOver { node, app, at_ns: now_ns });
    }

    /// Whether a node refused this app within the last second, and no good probe came since: a good probe
    /// says that only the app is missing there, and it may be back.
    pub fn is_passed_over(&self, node: usize, app: u64, now_ns: u64) -> bool {
        let list = self.passed_over.borrow();
        if list.is_empty() {
            return false;
        }
        list.iter().any(|entry| {
            entry.node == node
                && entry.app == app
                && now_ns.saturating_sub(entry.at_ns) < 1_000_000_000
                && self.nodes[node].local.node.last_good_probe_ns() < entry.at_ns
        })
    }
}

/// Goes on where the last one was when nothing changed that it knows of: reloads would otherwise favour the
/// first node.
fn balancer(
    settings: &config::Upstream,
    nodes: &[LocalMember],
    old: Option<&LocalUpstream>,
) -> Balancer {
    let known = |old: &&LocalUpstream| {
        let before = &old.upstream.settings;
        let (a, b) = (old.nodes.iter(), nodes.iter());
        before.balance == settings.balance
            && before.hash_balance_factor == settings.hash_balance_factor
            && a.map(|m| m.local.node.identity).eq(b.map(|m| m.local.node.identity))
    };
    if let Some(old) = old.filter(known) {
        return old.balancer.borrow().clone();
    }
    let identities = nodes.iter().map(|member| member.local.node.identity).collect();
    Balancer::new(settings.balance, settings.hash_balance_factor, identities)
}

/// First come, first served: exchanges that wait while all eligible nodes are at their limits.
#[derive(Default)]
pub struct Queue {
    limit: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiting>>>,
}

#[derive(Default)]
struct Waiting {
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A place in the queue; dropping it leaves.
pub struct Place<'a> {
    queue: &'a Queue,
    waiting: Rc<Waiting>,
}

impl Queue {
    /// How many may wait; who waits already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// Whether anybody waits: who comes now waits behind them.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// A place at the end; none when it is full.
    pub fn enter(&self) -> Option<Place<'_>> {
        let mut all = self.waiting.borrow_mut();
        if all.len() >= self.limit.get() {
            return None;
        }
        let waiting = Rc::<Waiting>::default();
        all.push_back(waiting.clone());
        Some(Place { queue: self, waiting })
    }

    /// Lets the first look again whether a node is free.
    pub fn wake_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.wake();
        }
    }
}

impl Waiting {
    fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Place<'_> {
    /// Ready when it is this place's turn to look again.
    pub fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        if self.waiting.woken.replace(false) {
            return Poll::Ready(());
        }
        *self.waiting.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Place<'_> {
    /// Lets the next in line look: what is full for this one may be free for others.
    pub fn pass_on(&self) {
        let all = self.queue.waiting.borrow();
        let own = all.iter().position(|other| Rc::ptr_eq(other, &self.waiting));
        if let Some(next) = own.and_then(|own| all.get(own + 1)) {
            next.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiting));
        // Whoever is first now may find a node free as well.
        self.queue.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_in_order() {
        let queue = Queue::default();
        queue.set_limit(2);
        let (first, second) = (queue.enter().unwrap(), queue.enter().unwrap());
        assert!(queue.enter().is_none());
        let cx = Context::from_waker(Waker::noop());
        queue.wake_first();
        assert!(first.poll_turn(&cx).is_ready());
        assert!(second.poll_turn(&cx).is_pending());
        drop(first);
        assert!(second.poll_turn(&cx).is_ready(), "the next one is woken when the first leaves");
        drop(second);
        assert!(queue.is_empty());
    }
}
