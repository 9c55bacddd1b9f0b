//! What an exchange claims of a node for itself when the node is picked, so that no other thread can pick it
//! for the same: the one request of a node on probation, and a place among its exports and imports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::Node;

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
}
