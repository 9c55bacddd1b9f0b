//! Tunnels on their way off a node: each at a moment of its own, so that their clients come back in small
//! groups.

use std::rc::Rc;
use std::sync::Arc;

use crate::exchange::slices::Slices;
use crate::health::OperatorState;
use crate::upstream::Node;

/// The moves of one data thread. `T` is what a tunnel is told by.
pub(super) struct Moves<T> {
    all: Vec<Move<T>>,
}

/// The tunnels of one node, until the operator wants it to serve again or nobody knows it any more.
struct Move<T> {
    node: Arc<Node>,
    until_ns: u64,
    due: Slices<T>,
}

impl<T> Default for Moves<T> {
    fn default() -> Self {
        Moves { all: Vec::new() }
    }
}

impl<T> Moves<T> {
    /// Spreads these tunnels over the window, evenly but for chance. What was planned for the node before
    /// is void.
    pub(super) fn begin(
        &mut self,
        node: Arc<Node>,
        tunnels: impl Iterator<Item = Rc<T>>,
        (now_ns, window_ns): (u64, u64),
        rng: &mut fastrand::Rng,
    ) {
        self.all.retain(|one| !Arc::ptr_eq(&one.node, &node));
        let mut due = Slices::default();
        due.add(tunnels, (now_ns, window_ns), rng);
        self.all.push(Move { node, until_ns: now_ns.saturating_add(window_ns), due });
    }

    /// Whether the node's tunnels are being moved.
    pub(super) fn has(&self, node: &Arc<Node>) -> bool {
        self.all.iter().any(|one| Arc::ptr_eq(&one.node, node))
    }

    /// Puts a tunnel that was in its handshake among the others.
    pub(super) fn join(
        &mut self,
        node: &Arc<Node>,
        tunnel: &Rc<T>,
        now_ns: u64,
        rng: &mut fastrand::Rng,
    ) {
        let Some(one) = self.all.iter_mut().find(|one| Arc::ptr_eq(&one.node, node)) else {
            return;
        };
        let left_ns = one.until_ns.saturating_sub(now_ns);
        one.due.add([tunnel.clone()], (now_ns, left_ns), rng);
    }

    /// Closes the tunnels whose moment has come, as many as `may` allows; the others wait for the next time.
    pub(super) fn tick(&mut self, now_ns: u64, may: impl Fn() -> bool, close: impl Fn(&T)) {
        // A node that is ready again keeps what it still has.
        self.all.retain(|one| {
            one.node.operator() != OperatorState::Ready
                && (!one.due.is_empty() || Arc::strong_count(&one.node) > 1)
        });
        for one in &mut self.all {
            one.due.tick(now_ns, &may, &close);
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::{NodeKey, Registry};

    const SECOND: u64 = 1_000_000_000;

    fn node(registry: &mut Registry, name: &str) -> Arc<Node> {
        let key = NodeKey { upstream: "u".into(), name: name.into(), address: None };
        let node = registry.node(key, name.into());
        node.set_operator(OperatorState::Draining);
        node
    }

    struct Rig {
        registry: Registry,
        moves: Moves<u32>,
        rng: fastrand::Rng,
        closed: RefCell<Vec<u32>>,
    }

    impl Rig {
        fn new() -> Rig {
            Rig {
                registry: Registry::new(1, Metrics::new()),
                moves: Moves::default(),
                rng: fastrand::Rng::with_seed(7),
                closed: RefCell::default(),
            }
        }

        fn tick(&mut self, now_ns: u64) -> usize {
            self.tick_while(now_ns, || true)
        }

        fn tick_while(&mut self, now_ns: u64, may: impl Fn() -> bool) -> usize {
            self.moves.tick(now_ns, may, |tunnel| self.closed.borrow_mut().push(*tunnel));
            self.closed.borrow().len()
        }
    }

    #[test]
    fn tunnels_are_spread_over_the_window_and_each_is_closed_once() {
        let mut rig = Rig::new();
        let node = node(&mut rig.registry, "n");
        let tunnels: Vec<Rc<u32>> = (0..600).map(Rc::new).collect();
        let window = (5 * SECOND, 60 * SECOND);
        rig.moves.begin(node, tunnels.iter().cloned(), window, &mut rig.rng);
        let mut before = 0;
        for second in 1..=6 {
            let closed = rig.tick((5 + 10 * second) * SECOND);
            assert!((60..=140).contains(&(closed - before)), "{}", closed - before);
            before = closed;
        }
        let mut closed = rig.closed.take();
        assert_ne!(closed, (0..600).collect::<Vec<_>>(), "in no order");
        closed.sort_unstable();
        assert_eq!(closed, (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn a_node_that_is_ready_again_keeps_the_rest() {
        let mut rig = Rig::new();
        let node = node(&mut rig.registry, "n");
        let tunnels: Vec<Rc<u32>> = (0..100).map(Rc::new).collect();
        rig.moves.begin(node.clone(), tunnels.iter().cloned(), (0, 10 * SECOND), &mut rig.rng);
        let closed = rig.tick(5 * SECOND);
        assert!((20..80).contains(&closed), "{closed}");
        node.set_operator(OperatorState::Ready);
        assert_eq!(rig.tick(20 * SECOND), closed);
        node.set_operator(OperatorState::Draining);
        assert_eq!(rig.tick(20 * SECOND), closed, "an old plan does not come back");
    }

    #[test]
    fn without_leave_they_wait_and_those_that_ended_cost_none() {
        let mut rig = Rig::new();
        let node = node(&mut rig.registry, "n");
        let mut tunnels: Vec<Rc<u32>> = (0..10).map(Rc::new).collect();
        rig.moves.begin(node, tunnels.iter().cloned(), (0, 0), &mut rig.rng);
        assert_eq!(rig.tick_while(SECOND, || false), 0);
        tunnels.truncate(5);
        let left = std::cell::Cell::new(5_u32);
        let may = || left.replace(left.get().saturating_sub(1)) > 0;
        assert_eq!(rig.tick_while(SECOND, may), 5);
    }

    #[test]
    fn who_was_in_a_handshake_joins_and_a_second_begin_replaces_the_first() {
        let mut rig = Rig::new();
        let (node, other) = (node(&mut rig.registry, "n"), node(&mut rig.registry, "o"));
        let (early, late) = (Rc::new(1), Rc::new(2));
        let tunnels = || std::iter::once(early.clone());
        rig.moves.begin(node.clone(), tunnels(), (0, 3600 * SECOND), &mut rig.rng);
        rig.moves.begin(node.clone(), tunnels(), (0, SECOND), &mut rig.rng);
        rig.moves.join(&other, &late, 0, &mut rig.rng);
        rig.moves.join(&node, &late, 5 * SECOND, &mut rig.rng);
        assert!(rig.moves.has(&node) && !rig.moves.has(&other));
        rig.tick(5 * SECOND);
        assert_eq!(*rig.closed.borrow(), [1, 2], "after the window nobody waits");
    }

    #[test]
    fn a_node_that_nobody_knows_is_forgotten() {
        let mut rig = Rig::new();
        let node = node(&mut rig.registry, "n");
        rig.moves.begin(node.clone(), std::iter::empty(), (0, SECOND), &mut rig.rng);
        rig.tick(SECOND);
        assert!(rig.moves.has(&node), "late handshakes find the plan");
        rig.registry.retain(|_| false);
        drop(node);
        rig.tick(SECOND);
        assert!(rig.moves.all.is_empty());
    }
}
