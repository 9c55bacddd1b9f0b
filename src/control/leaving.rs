//! Nodes that are gone from the configuration, until nothing runs on them any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use crate::health::OperatorState;
use crate::upstream::{Node, NodeKey};

/// A node that is gone stays this long at least, so that scrapers see its last counts,
const LINGER: Duration = Duration::from_secs(60);
/// and this long at most, whatever still runs on it.
const LINGER_MOST: Duration = Duration::from_secs(600);

impl Core {
    /// Remembers nodes that are no longer configured, and forgets of them what is configured again.
    pub(super) fn leave(&mut self, gone: Vec<Arc<Node>>) {
        self.leaving.retain(|(node, _)| !self.roster.nodes.contains_key(&node.key));
        for node in gone {
            node.set_operator(OperatorState::Draining);
            // One that never had an address has been replaced by those that its name stands for.
            if node.address().is_some() {
                let (upstream, label) = (&node.key.upstream, &node.label);
                tracing::info!(target: "cobalance::health", upstream, node = label, "node removed");
            }
            self.leaving.push((node, Instant::now()));
        }
        self.show_leaving();
    }

    fn show_leaving(&self) {
        *self.inner.leaving.write() = self.leaving.iter().map(|(node, _)| node.clone()).collect();
    }

    /// Forgets nodes that are gone, when nothing runs on them any more.
    pub(super) fn forget_nodes(&mut self) {
        let over = |(node, since): &(Arc<Node>, Instant)| {
            may_forget(since.elapsed(), node.in_flight() + node.tunnels())
        };
        if !self.leaving.iter().any(over) {
            return;
        }
        self.leaving.retain(|one| !over(one));
        self.show_leaving();
        let kept: Vec<NodeKey> = self.leaving.iter().map(|(node, _)| node.key.clone()).collect();
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
