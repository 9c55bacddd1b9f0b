//! What is known of nodes, out of one process and into the next: no node begins as `unchecked`, nobody who
//! was out is in, and none loses the time that it has been out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::heir::Estate;
use super::message::KeptNode;
use super::predecessor::Predecessor;
use crate::clock;
use crate::control::core::Core;
use crate::control::roster::{Roster, Watched, now};
use crate::control::status::unix;
use crate::health::outlier::Ejector;
use crate::upstream::NodeKey;

impl Roster {
    /// What is known of all nodes.
    pub(super) fn keep_nodes(&self) -> Vec<KeptNode> {
        let (now, now_ns) = (now(), clock::now_ns());
        let keep = |watched: &Watched| {
            let node = &watched.node;
            let ejector = self.ejectors.get(&node.key.upstream);
            let slow_since = Some(node.slow_since_ns()).filter(|since| *since != 0);
            KeptNode {
                upstream: node.key.upstream.clone(),
                name: node.key.name.clone(),
                address: node.key.address.clone(),
                health: watched.checker.as_ref().map(|checker| checker.keep(now)),
                outlier: ejector.and_then(|ejector| ejector.keep(&node.label, now)),
                since: unix(watched.since),
                cause: watched.cause.clone(),
                slow_for_ns: slow_since.map(|since| now_ns.saturating_sub(since)),
                latency_ns: node.latency_ns(),
            }
        };
        self.nodes.values().map(keep).collect()
    }
}

impl Core {
    /// Goes on with what the old process knew of nodes that are still configured. Before any data thread
    /// runs.
    pub(in crate::control) fn inherit(&mut self, estate: &Estate) {
        for kept in &estate.nodes {
            let key = NodeKey {
                upstream: kept.upstream.clone(),
                name: kept.name.clone(),
                address: kept.address.clone(),
            };
            let ejector = self.roster.ejectors.get_mut(&kept.upstream);
            if let Some(watched) = self.roster.nodes.get_mut(&key) {
                watched.inherit(kept, ejector);
                watched.publish(&self.roster.metrics);
            }
        }
        let all = estate.predecessors.iter().chain([&estate.pid]);
        self.upgrade.predecessors = all.filter_map(|pid| Predecessor::of(*pid)).collect();
        let (pid, program) = (estate.pid, &estate.program);
        tracing::info!("taking over from process {pid}, cobalance {program}");
    }
}

impl Watched {
    fn inherit(&mut self, kept: &KeptNode, ejector: Option<&mut Ejector>) {
        let node = self.node.clone();
        if let (Some(checker), Some(health)) = (&mut self.checker, &kept.health) {
            checker.resume(health.clone(), now());
            node.set_health(health.state);
        }
        if let (Some(ejector), Some(outlier)) = (ejector, &kept.outlier) {
            ejector.resume(&node.label, outlier, now());
            node.set_outlier(outlier.state);
            self.ejected_for = outlier.kind;
        }
        // After these, which forget it.
        let now_ns = clock::now_ns();
        node.inherit_latency(kept.latency_ns, now_ns);
        self.resume_slow_start(kept.slow_for_ns.map(|age| now_ns.saturating_sub(age).max(1)));
        self.allow_fail_open();
        self.shown = node.shown();
        self.since = UNIX_EPOCH + Duration::from_secs(kept.since).min(longest());
        self.cause.clone_from(&kept.cause);
    }
}

/// A time that cannot be added to would end the process.
fn longest() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
