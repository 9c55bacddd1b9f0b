//! A snapshot as one data thread uses it: with its balancers, pools and queues.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::balance::Balancer;
use crate::balance::sticky::Signer;
use crate::config::Role;
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
    pub queue: Queue,
    /// Signs sticky cookies.
    pub signer: Option<Signer>,
    /// Room for one pick's eligible nodes.
    pub eligible: RefCell<Vec<usize>>,
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

    fn local(&self, node: &Arc<crate::upstream::Node>) -> Option<Rc<LocalNode>> {
        let members = self.upstreams.iter().flat_map(|upstream| &upstream.nodes);
        members.map(|member| &member.local).find(|local| Arc::ptr_eq(&local.node, node)).cloned()
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
        let identities = nodes.iter().map(|member| member.local.node.identity).collect();
        LocalUpstream {
            balancer: RefCell::new(Balancer::new(
                settings.balance,
                settings.hash_balance_factor,
                identities,
            )),
            queue: Queue::new(settings.queue),
            signer,
            eligible: RefCell::default(),
            passed_over: RefCell::default(),
            nodes,
            upstream,
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

/// First come, first served: exchanges that wait while all eligible nodes are at their limits.
pub struct Queue {
    limit: usize,
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
    /// An empty queue with so many places.
    pub fn new(limit: usize) -> Queue {
        Queue { limit, waiting: RefCell::default() }
    }

    /// Whether anybody waits: who comes now waits behind them.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// A place at the end; none when it is full.
    pub fn enter(&self) -> Option<Place<'_>> {
        let mut all = self.waiting.borrow_mut();
        if all.len() >= self.limit {
            return None;
        }
        let waiting = Rc::<Waiting>::default();
        all.push_back(waiting.clone());
        Some(Place { queue: self, waiting })
    }

    /// Lets the first look again whether a node is free.
    pub fn wake_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.woken.set(true);
            if let Some(waker) = first.waker.borrow_mut().take() {
                waker.wake();
            }
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
        let queue = Queue::new(2);
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
