//! Nodes that are gone from the configuration, until nothing runs on them any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use crate::exchange::tunnel::DRAIN_WINDOW;
use crate::health::OperatorState;
use crate::upstream::{Node, NodeKey};

/// A node that is gone stays this long at least, so that scrapers see its last counts,
const LINGER: Duration = Duration::from_secs(60);
/// and this long at most, whatever still runs on it.
const LINGER_MOST: Duration = Duration::from_secs(600);

/// A node that is gone.
pub(super) struct Leaving {
    node: Arc<Node>,
    since: Instant,
    /// The swap that removed it.
    swap: u64,
}

impl Core {
    /// Remembers nodes that are no longer configured, and forgets of them what is configured again.
    pub(super) fn leave(&mut self, gone: Vec<Arc<Node>>) {
        self.leaving.retain(|one| !self.roster.nodes.contains_key(&one.node.key));
        for node in gone {
            // One that never had an address has been replaced by those that its name stands for.
            if node.address().is_some() {
                let (upstream, label) = (&node.key.upstream, &node.label);
                tracing::info!(target: "cobalance::health", upstream, node = label, "node removed");
            }
            self.leaving.push(Leaving { node, since: Instant::now(), swap: self.swaps });
        }
        self.show_leaving();
    }

    /// Takes nodes out of work that all data threads know to be gone since this swap. Before, a request that
    /// began with an earlier snapshot might find nobody else.
    pub(super) fn retire(&mut self, swap: u64) {
        for one in self.leaving.iter().filter(|one| one.swap <= swap) {
            // What an operator took out is on its way already.
            if one.node.operator() == OperatorState::Ready {
                one.node.set_operator(OperatorState::Draining);
                // Nobody waits for it: the snapshot is in use all the same.
                drop(self.drain_node(&one.node, DRAIN_WINDOW));
            }
        }
    }

    fn show_leaving(&self) {
        *self.inner.leaving.write() = self.leaving.iter().map(|one| one.node.clone()).collect();
    }

    /// Forgets nodes that are gone, when nothing runs on them any more.
    pub(super) fn forget_nodes(&mut self) {
        let over = |one: &Leaving| {
            may_forget(one.since.elapsed(), one.node.in_flight() + one.node.tunnels())
        };
        if !self.leaving.iter().any(over) {
            return;
        }
        self.leaving.retain(|one| !over(one));
        self.show_leaving();
        let kept: Vec<NodeKey> = self.leaving.iter().map(|one| one.node.key.clone()).collect();
        let watched = &self.roster.nodes;
        let forgotten = self.registry.retain(|key| watched.contains_key(key) || kept.contains(key));
        for node in forgotten {
            self.roster.forget_series(&node);
        }
    }
}

/// Whether a node that has been gone for so long, with so much still running on it, is forgotten.
fn may_forget(gone: Duration, work: u32) -> bool {
    gone >= LINGER_MOST || (gone >= LINGER && work == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_stays_for_scrapers_and_for_its_work() {
        let cases = [(0, 0, false), (59, 0, false), (60, 0, true), (60, 1, false), (600, 9, true)];
        for (seconds, work, forgotten) in cases {
            assert_eq!(may_forget(Duration::from_secs(seconds), work), forgotten, "{seconds} s");
        }
    }
}
