//! What an exchange claims of a node for itself when the node is picked, so that no other thread can pick it
//! for the same: the one request of a node on probation, a place among its exports and imports, and one among
//! the requests that it may have at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use super::{Node, Queue};

/// The one request of each probation, over all threads: the number of the probation, and in the lowest bit
/// whether its request is taken. The number keeps a claim of an earlier probation from freeing a later one.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// The next probation begins, with its request free.
    pub(super) fn renew(&self) {
        let next = |word: u64| Some((word | 1).wrapping_add(1));
        // The closure never refuses.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    /// Whether the request is free.
    pub(super) fn is_free(&self) -> bool {
        self.0.load(Relaxed) & 1 == 0
    }

    /// Takes it; none if somebody else was first.
    fn take(&self) -> Option<u64> {
        let free = self.0.load(Relaxed) & !1;
        self.0.compare_exchange(free, free | 1, Relaxed, Relaxed).ok()
    }

    fn give_back(&self, free: u64) {
        // Refused when another probation has begun meanwhile.
        let _ = self.0.compare_exchange(free | 1, free, Relaxed, Relaxed);
    }
}

/// The one request of a node on probation. It goes back to whoever is next when this is dropped before a
/// verdict, whatever ends the exchange.
#[derive(Debug)]
pub struct Probation {
    node: Arc<Node>,
    turn: Option<u64>,
}

impl Probation {
    /// The request of a node on probation; none if another exchange has it.
    pub fn claim(node: &Arc<Node>) -> Option<Probation> {
        let turn = node.probation().take()?;
        Some(Probation { node: node.clone(), turn: Some(turn) })
    }

    /// It ended with a verdict: nobody else is to be asked.
    pub fn decide(mut self) {
        self.turn = None;
    }
}

impl Drop for Probation {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.node.probation().give_back(turn);
        }
    }
}

/// One export or import at a node while this lives. NocoBase's process does one at a time, and fails a
/// second one at once.
#[derive(Debug)]
pub struct Bulk(Arc<Node>);

impl Bulk {
    /// One more at a node that had `seen` of them; none if others came or went meanwhile.
    pub fn claim(node: &Arc<Node>, seen: u32) -> Option<Bulk> {
        let count: &AtomicU32 = node.bulk_count();
        count.compare_exchange(seen, seen + 1, Relaxed, Relaxed).ok()?;
        Some(Bulk(node.clone()))
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.0.bulk_count().fetch_sub(1, Relaxed);
    }
}

/// One of the requests that a node with a limit may have at once, over all threads. When it is dropped, whoever
/// is first in the queue looks again.
#[derive(Debug)]
pub struct Slot {
    node: Arc<Node>,
    queue: Arc<Queue>,
}

impl Slot {
    /// One more at a node that may have `limit`; none if it has them.
    pub fn claim(node: &Arc<Node>, limit: u32, queue: &Arc<Queue>) -> Option<Slot> {
        let next = |taken: u32| (taken < limit).then(|| taken + 1);
        node.slots().fetch_update(SeqCst, SeqCst, next).ok()?;
        Some(Slot { node: node.clone(), queue: queue.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Before the look at the queue, and in one order with what those do that enter it.
        self.node.slots().fetch_sub(1, SeqCst);
        self.queue.wake_first();
    }
}

/// Whether a node has as many requests as `limit`. Those that began when it had none took no slot. The slots
/// are looked at first: who sees that one was given back sees the other count without its exchange as well.
pub fn is_full(node: &Node, limit: u32) -> bool {
    node.slots().load(SeqCst) >= limit || node.in_flight() >= limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::OutlierState;
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::{NodeKey, Registry};

    fn node() -> Arc<Node> {
        let key = NodeKey { upstream: "u".into(), name: "n".into(), address: None };
        Registry::new(1, Metrics::new()).node(key, "n".into())
    }

    #[test]
    fn a_probation_has_one_request_over_all_threads() {
        let node = node();
        for _ in 0..200 {
            node.set_outlier(OutlierState::Probation);
            let claimed = std::thread::scope(|scope| {
                let claim = || scope.spawn(|| Probation::claim(&node));
                let threads = [claim(), claim(), claim(), claim()];
                threads.map(|thread| thread.join().unwrap())
            });
            assert_eq!(claimed.iter().flatten().count(), 1);
            assert!(!node.awaits_probation());
        }
    }

    #[test]
    fn a_claim_without_a_verdict_goes_back_and_an_old_one_frees_nothing() {
        let node = node();
        node.set_outlier(OutlierState::Probation);
        let old = Probation::claim(&node).unwrap();
        assert!(Probation::claim(&node).is_none());
        drop(old);
        let old = Probation::claim(&node).unwrap();
        node.set_outlier(OutlierState::Ejected);
        node.set_outlier(OutlierState::Probation);
        let new = Probation::claim(&node).unwrap();
        drop(old);
        assert!(!node.awaits_probation(), "the later one is still taken");
        new.decide();
        assert!(!node.awaits_probation(), "it was decided");
        node.set_outlier(OutlierState::Ejected);
        assert!(Probation::claim(&node).is_none(), "the end of a probation frees nothing");
    }

    #[test]
    fn exports_are_counted_while_they_live() {
        let node = node();
        let first = Bulk::claim(&node, 0).unwrap();
        assert!(Bulk::claim(&node, 0).is_none(), "somebody was faster");
        let second = Bulk::claim(&node, 1).unwrap();
        assert_eq!(node.bulk(), 2);
        drop(first);
        drop(second);
        assert_eq!(node.bulk(), 0);
    }

    #[test]
    fn a_limit_is_never_exceeded_whatever_threads_claim_at_once() {
        const LIMIT: u32 = 3;
        let (node, queue) = (node(), Arc::<Queue>::default());
        let (held, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let claim = || {
            for _ in 0..2_000 {
                if is_full(&node, LIMIT) {
                    continue;
                }
                // Others may have been faster since.
                let Some(slot) = Slot::claim(&node, LIMIT, &queue) else { continue };
                most.fetch_max(held.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::yield_now();
                held.fetch_sub(1, SeqCst);
                drop(slot);
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(claim))));
        assert!(most.load(SeqCst) <= LIMIT, "{most:?} at once");
        assert_eq!(node.slots().load(SeqCst), 0);
    }

    #[test]
    fn a_node_is_full_of_what_began_before_it_had_a_limit() {
        let (node, queue) = (node(), Arc::<Queue>::default());
        super::super::node::Cell::add(&node.cell(0).in_flight, 2);
        assert!(is_full(&node, 2) && !is_full(&node, 3));
        super::super::node::Cell::add(&node.cell(0).in_flight, -2);
        let slots = [Slot::claim(&node, 2, &queue), Slot::claim(&node, 2, &queue)];
        assert!(slots.iter().all(Option::is_some));
        // By a reload it may be less than they are.
        assert!(is_full(&node, 1) && Slot::claim(&node, 1, &queue).is_none());
        drop(slots);
        assert!(!is_full(&node, 1));
    }

    #[test]
    fn who_waits_looks_again_when_a_slot_is_given_back() {
        let (node, queue) = (node(), Arc::<Queue>::default());
        let slot = Slot::claim(&node, 1, &queue).unwrap();
        let place = queue.enter(true, 1).unwrap();
        let cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(place.poll_turn(&cx).is_pending());
        drop(slot);
        assert!(place.poll_turn(&cx).is_ready() && !is_full(&node, 1));
    }
}
