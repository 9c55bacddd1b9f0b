//! Nodes, the connections to them, and what is known of both.
//!
//! What outlives a snapshot lives here, keyed by upstream, node name and address: a reload neither resets
//! a node's health nor forgets its latency.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::health::outlier::FailureKind;
use crate::limit::RetryBudget;
use crate::net::Address;
use crate::telemetry::metrics::Metrics;

pub mod affinity;
pub mod claim;
pub mod heads;
mod http2;
pub mod line;
pub mod maintenance;
pub mod node;
pub mod parking;
pub mod pool;
pub mod queue;
pub mod quiet;

pub use affinity::Affinity;
pub use heads::HeadTimes;
pub use maintenance::Maintenance;
pub use node::Node;
pub use parking::Parking;
pub use pool::{Connection, Dial, LocalNode, Note, PoolLimits};
pub use queue::Queue;
pub use quiet::Quiet;

/// What control is told by data threads. Sent without waiting; what finds no room is counted and dropped,
/// because the next failure will say the same.
#[derive(Debug)]
pub enum Signal {
    /// A node was refused, or refused: look at it now.
    ProbeNow(Arc<Node>),
    /// A node failed so often in a row that it should be ejected.
    Failing(Arc<Node>, FailureKind),
    /// The one real request of a node on probation ended.
    Probation(Arc<Node>, bool),
    /// A peer that is not trusted sent forwarding fields.
    UntrustedForwarding {
        /// Name of the listener.
        listener: String,
        /// Who sent them.
        peer: std::net::IpAddr,
        /// Which field.
        field: &'static str,
    },
}

/// Where data threads leave their signals.
pub type Signals = tokio::sync::mpsc::Sender<Signal>;

/// What the threads share of one upstream, whatever the snapshot.
pub struct Shared {
    /// Bounds repeats of what was sent.
    pub budget: RetryBudget,
    /// What it was made with.
    budget_share: f64,
    /// Median of the nodes' latencies in nanoseconds, renewed by control; 0 while none is known.
    pub median_latency_ns: AtomicU64,
    /// Whether any of its nodes starts slowly, so that a pick need not ask each of them.
    pub slow_starts: AtomicBool,
    /// What waits while all nodes have as many requests as they may.
    pub queue: Arc<Queue>,
    /// What is parked.
    pub parking: Arc<Parking>,
    /// How long heads take, for hedging.
    pub heads: Arc<HeadTimes>,
    /// Which node took what must be followed there.
    pub affinity: Arc<Affinity>,
    /// Kept even if the budget is configured anew.
    pub maintenance: Arc<Maintenance>,
    /// On while a node is pinned that has not served for longer than exchanges are parked.
    pub outage: Arc<Maintenance>,
    /// Whose pages saw, or are to see, what becomes of a node.
    pub quiet: Arc<Quiet>,
}

impl Shared {
    /// Whether exchanges are to ask first before they go to a node.
    pub fn is_closed(&self) -> bool {
        self.maintenance.is_on() || self.outage.is_on()
    }
}

/// All nodes and upstreams that live. Owned by control.
pub struct Registry {
    threads: usize,
    metrics: Arc<Metrics>,
    shared: HashMap<String, Arc<Shared>>,
    nodes: HashMap<NodeKey, Arc<Node>>,
}

/// What makes a node the same node in the next snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeKey {
    /// Name of the upstream.
    pub upstream: String,
    /// Name of the node as configured.
    pub name: String,
    /// Where it is; none while its name has never resolved.
    pub address: Option<Address>,
}

impl Registry {
    /// An empty registry for so many data threads.
    pub fn new(threads: usize, metrics: Arc<Metrics>) -> Registry {
        Registry { threads, metrics, shared: HashMap::new(), nodes: HashMap::new() }
    }

    /// Data threads that write counters.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The metrics that new nodes resolve their handles from.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The shared part of an upstream, made when first asked for, and anew when its
    /// budget was configured anew.
    pub fn shared(&mut self, upstream: &str, budget_share: f64) -> Arc<Shared> {
        let known = self.shared.get(upstream);
        let same = known.filter(|known| known.budget_share == budget_share);
        let shared = same.cloned().unwrap_or_else(|| {
            Arc::new(Shared {
                budget: RetryBudget::new(budget_share),
                budget_share,
                median_latency_ns: AtomicU64::new(0),
                slow_starts: AtomicBool::new(false),
                // What waits goes on to, whatever the budget.
                queue: known.map(|known| known.queue.clone()).unwrap_or_default(),
                parking: known.map(|known| known.parking.clone()).unwrap_or_default(),
                heads: known.map(|known| known.heads.clone()).unwrap_or_default(),
                affinity: known.map(|known| known.affinity.clone()).unwrap_or_default(),
                maintenance: known.map(|known| known.maintenance.clone()).unwrap_or_default(),
                outage: known.map(|known| known.outage.clone()).unwrap_or_default(),
                quiet: known.map(|known| known.quiet.clone()).unwrap_or_default(),
            })
        });
        self.shared.insert(upstream.to_owned(), shared.clone());
        shared
    }

    /// The node of a key, made when first asked for. `label` names it in metrics and status.
    pub fn node(&mut self, key: NodeKey, label: String) -> Arc<Node> {
        let (threads, metrics) = (self.threads, &self.metrics);
        let make = |key: &NodeKey| {
            let handles = metrics.node(&key.upstream, &label);
            Arc::new(Node::new(key.clone(), label.clone(), threads, handles))
        };
        self.nodes.entry(key.clone()).or_insert_with_key(make).clone()
    }

    /// Forgets nodes and upstreams that `keep` does not name; returns the forgotten nodes.
    pub fn retain(&mut self, keep: impl Fn(&NodeKey) -> bool) -> Vec<Arc<Node>> {
        let gone: Vec<NodeKey> = self.nodes.keys().filter(|key| !keep(key)).cloned().collect();
        let gone: Vec<_> = gone.iter().filter_map(|key| self.nodes.remove(key)).collect();
        let live: Vec<&str> = self.nodes.keys().map(|key| key.upstream.as_str()).collect();
        self.shared.retain(|name, _| live.contains(&name.as_str()));
        gone
    }
}
