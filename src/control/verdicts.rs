//! What follows from a probe, from live traffic, and from time, for the nodes' states.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::probe::{self, Finding};
use super::roster::{Roster, Watched, now};
use super::slow_start;
use super::unasked;
use crate::clock;
use crate::config::Role;
use crate::health::outlier::{Decision, FailureKind, KeepReason, Tier, most_ejected};
use crate::health::{
    Checker, Circumstances, OperatorState, OutlierState, Shown, Verdict, may_fail_open,
};
use crate::snapshot::{Snapshot, Upstream};
use crate::upstream::{Node, NodeKey};

/// A head to real traffic within this time says more than a probe that timed out.
const RECENT: Duration = Duration::from_secs(2);

/// Why states change, as labels; with the labels of verdicts this is the whole list.
const CAUSES: [&str; 14] = [
    "good",
    "timeout",
    "refused",
    "status",
    "body",
    "not_serving",
    "watch",
    "garbage",
    "ejection",
    "probation",
    "config",
    "unresolved",
    "operator",
    unasked::LABEL,
];

impl Roster {
    /// Applies what a probe found. Returns the verdict for those who warn about it.
    pub(super) fn apply(&mut self, key: &NodeKey, finding: Finding, most: f64) -> Option<Verdict> {
        let circumstances = self.circumstances(key, most)?;
        let watched = self.nodes.get_mut(key)?;
        let verdict = finding.verdict.clone();
        let label = probe::label(&verdict);
        let names = [key.upstream.as_str(), &watched.node.label];
        self.metrics.checks.with_label_values(&[names[0], names[1], label]).inc();
        let took = finding.took;
        self.metrics.check_duration.with_label_values(&names).set(took.as_secs_f64());
        watched.receive(finding);
        let change = watched
            .checker
            .as_mut()
            .and_then(|checker| checker.record(verdict.clone(), &circumstances, now()));
        watched.plan();
        // Before its health, so that no thread sees a node that refuses as one that may be tried.
        watched.allow_fail_open();
        if let Some(change) = &change {
            watched.node.set_health(change.to);
        }
        match verdict {
            Verdict::NotServing(_) => watched.node.set_not_serving(),
            Verdict::Refused { .. } => watched.node.set_port_closed(),
            _ => {}
        }
        if matches!(verdict, Verdict::Timeout | Verdict::Refused { .. }) {
            let now_ns = clock::now_ns();
            let begun_ns = now_ns.saturating_sub(clock::nanos(took));
            watched.node.lost_probe(now_ns, (verdict == Verdict::Timeout).then_some(begun_ns));
        }
        if verdict == Verdict::Good {
            watched.node.good_probe(clock::now_ns());
            let label = watched.node.label.clone();
            self.good_probe(key, &label);
        }
        tracing::debug!(target: "cobalance::health", upstream = key.upstream, node = key.name, %verdict, "probe");
        let cause = change.map_or_else(|| verdict.to_string(), |change| change.cause);
        self.note(key, label, &cause);
        Some(verdict)
    }

    fn good_probe(&mut self, key: &NodeKey, label: &str) {
        let ended =
            self.ejectors.get_mut(&key.upstream).is_some_and(|e| e.good_probe(label, now()));
        if ended && let Some(watched) = self.nodes.get(key) {
            watched.node.set_outlier(OutlierState::In);
        }
    }

    /// What else counts for a verdict; none for a node that is no longer watched.
    fn circumstances(&self, key: &NodeKey, most: f64) -> Option<Circumstances> {
        let watched = self.nodes.get(key)?;
        let head = Duration::from_nanos(watched.node.last_traffic_head_ns());
        let tier: Vec<&Watched> = self.tier(&key.upstream, watched.backup).collect();
        let others = tier.iter().filter(|other| other.node.key != *key);
        let out = tier.iter().filter(|other| other.is_softly_out()).count();
        Some(Circumstances {
            answered_traffic_recently: !head.is_zero() && now().saturating_sub(head) < RECENT,
            last_eligible: watched.role == Role::Serve
                && !others.clone().any(|other| other.shown.is_eligible()),
            may_take_out: out < most_ejected(tier.len(), most),
        })
    }

    /// A node has failed too often in a row.
    pub(super) fn failing(&mut self, node: &Node, kind: FailureKind) {
        if kind == FailureKind::GatewayError && self.is_like_the_others(&node.key) {
            let (upstream, node) = (&node.key.upstream, &node.label);
            tracing::debug!(target: "cobalance::health", upstream, node,
                "a node with failures in a row is like the others");
            return;
        }
        let what = format!("failures in a row ({})", kind.as_str());
        self.eject_if_allowed(&node.key, kind, &what);
    }

    /// Takes a node out, if its tier can do without it; `what` speaks against it.
    pub(super) fn eject_if_allowed(&mut self, key: &NodeKey, kind: FailureKind, what: &str) {
        let Some(watched) = self.nodes.get(key) else { return };
        let label = watched.node.label.clone();
        let tier = self.tier_counts(&key.upstream, watched.backup);
        let Some(ejector) = self.ejectors.get_mut(&key.upstream) else { return };
        match ejector.consider(&label, kind, &tier, now(), fastrand::f64()) {
            Decision::Eject { until, count } => {
                let time = until.saturating_sub(now()).as_secs_f64();
                let cause = format!("{what}; out for {time:.1} s, number {count}");
                self.ejected(key, &cause, kind);
            }
            Decision::Keep { reason: KeepReason::AlreadyOut | KeepReason::Off } => {}
            Decision::Keep { reason } => {
                let (upstream, reason, kind) = (&key.upstream, reason.as_str(), kind.as_str());
                tracing::debug!(target: "cobalance::health", upstream, node = label, kind, reason,
                    "a failing node is kept");
            }
        }
    }

    fn ejected(&mut self, key: &NodeKey, cause: &str, kind: FailureKind) {
        if let Some(watched) = self.nodes.get_mut(key) {
            watched.ejected_for = kind;
            watched.node.set_outlier(OutlierState::Ejected);
        }
        self.note(key, "ejection", cause);
    }

    /// The one request of a node on probation has ended.
    pub(super) fn probation_ended(&mut self, node: &Node, good: bool) {
        let Some(watched) = self.nodes.get(&node.key) else { return };
        let result = if good { Ok(()) } else { Err(watched.ejected_for) };
        let Some(ejector) = self.ejectors.get_mut(&node.key.upstream) else { return };
        let jitter = fastrand::f64();
        let Some(state) = ejector.probation_result(&node.label, result, now(), jitter) else {
            return;
        };
        watched.node.set_outlier(state);
        let cause = if good { "a real request went well" } else { "a real request failed again" };
        self.note(&node.key, "probation", cause);
    }

    /// Everything that time alone changes: ends of ejections, who may fail open, merged latencies.
    pub(super) fn tick(&mut self, snapshot: &Snapshot) {
        for upstream in &snapshot.upstreams {
            self.pass_time(upstream);
            merge_latencies(upstream);
            slow_start::end_those_over(upstream, clock::now_ns());
            if let Some(hedge) = &upstream.settings.hedge {
                let floor = clock::nanos(hedge.at_least);
                upstream.shared.heads.renew(hedge.after, floor, clock::now_ns());
            }
        }
        self.compare(snapshot);
        // Also by time: an unchecked node may be asked after its first seconds.
        self.nodes.values().for_each(Watched::allow_fail_open);
    }

    fn pass_time(&mut self, upstream: &Upstream) {
        let Some(ejector) = self.ejectors.get_mut(&upstream.settings.name) else { return };
        let passed =
            |node: &Arc<Node>| ejector.tick(&node.label, now()).map(|state| (node.clone(), state));
        let changed: Vec<_> = upstream.nodes.iter().map(|m| &m.node).filter_map(passed).collect();
        for (node, state) in changed {
            node.set_outlier(state);
            self.note(&node.key, "probation", "nothing spoke against it on probation");
        }
    }

    pub(super) fn tier(&self, upstream: &str, backup: bool) -> impl Iterator<Item = &Watched> {
        self.nodes.values().filter(move |other| other.is_of_tier(upstream, backup))
    }

    fn tier_counts(&self, upstream: &str, backup: bool) -> Tier {
        let mut tier = Tier { eligible: 0, configured: 0, ejected: 0 };
        for other in self.tier(upstream, backup) {
            tier.configured += 1;
            tier.eligible += usize::from(other.shown.is_eligible());
            tier.ejected += usize::from(other.is_softly_out());
        }
        tier
    }

    /// Forgets the series of a node that is gone, unless another one bears its name.
    pub(super) fn forget_series(&self, node: &Node) {
        let (upstream, label) = (node.key.upstream.as_str(), node.label.as_str());
        let borne = |w: &Watched| w.node.key.upstream == upstream && w.node.label == label;
        if self.nodes.values().any(borne) {
            return;
        }
        self.metrics.remove_node(upstream, label);
        for cause in CAUSES {
            let _ = self.metrics.checks.remove_label_values(&[upstream, label, cause]);
            for to in SHOWN {
                let labels = [upstream, label, to.as_str(), cause];
                let _ = self.metrics.state_changes.remove_label_values(&labels);
            }
        }
    }
}

/// All states, for what is counted by state.
pub(crate) const SHOWN: [Shown; 8] = [
    Shown::Down,
    Shown::Unchecked,
    Shown::Starting,
    Shown::Maintaining,
    Shown::Ejected,
    Shown::Draining,
    Shown::Disabled,
    Shown::Up,
];

impl Watched {
    /// Only primary nodes that serve; which of them, their probes tell.
    pub(super) fn allow_fail_open(&self) {
        let checked = self.checker.as_ref().is_none_or(|c| c.may_fail_open(now()));
        let allowed = self.serves(false) && may_fail_open(self.node.operator(), checked);
        self.node.set_fail_open(allowed && self.node.address().is_some());
    }

    /// Out by silence or by live traffic, which `max_ejected` bounds; a statement of the node does not
    /// count.
    fn is_softly_out(&self) -> bool {
        let silent = self.checker.as_ref().is_some_and(Checker::is_out_softly);
        let ejected = self.node.outlier() != OutlierState::In;
        self.node.operator() == OperatorState::Ready && (silent || ejected)
    }
}

/// Merges the threads' averages and publishes the median that stands in for unknown ones.
fn merge_latencies(upstream: &Upstream) {
    let now_ns = clock::now_ns();
    let merged = upstream.nodes.iter().map(|member| member.node.merge_latency(now_ns));
    let mut known: Vec<u64> = merged.filter(|latency| *latency != 0).collect();
    known.sort_unstable();
    let median = known.get(known.len() / 2).copied().unwrap_or(0);
    upstream.shared.median_latency_ns.store(median, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::tests::support;
    use crate::snapshot::{Parts, compile};
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::Registry;

    fn compiled(config: Config, registry: &mut Registry) -> Snapshot {
        compile(Arc::new(config), Parts::bare(registry))
    }

    /// Three nodes under watch, and their keys.
    fn three() -> (Roster, [NodeKey; 3]) {
        let metrics = Metrics::new();
        let nodes = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        let snapshot = compiled(support::config(&nodes), &mut Registry::new(1, metrics.clone()));
        let mut roster = Roster::new(metrics);
        roster.follow(&snapshot);
        let key = |index: usize| snapshot.upstreams[0].nodes[index].node.key.clone();
        (roster, [0, 1, 2].map(key))
    }

    fn find(roster: &mut Roster, key: &NodeKey, verdict: Verdict) {
        let (took, trip) = (Duration::ZERO, probe::Trip::default());
        roster.apply(key, Finding { verdict, took, trip, kept: None }, 0.5);
    }

    #[test]
    fn a_node_that_is_silent_but_for_single_probes_counts_as_out() {
        for last in [Verdict::Good, Verdict::Status(500)] {
            let (mut roster, keys) = three();
            keys.iter().for_each(|key| find(&mut roster, key, Verdict::Good));
            let silent = |roster: &mut Roster, key| {
                (0..3).for_each(|_| find(roster, key, Verdict::Timeout));
                roster.nodes[key].shown
            };
            assert_eq!(silent(&mut roster, &keys[0]), Shown::Down);
            find(&mut roster, &keys[0], last.clone());
            // Of three nodes one may be out.
            assert_eq!(silent(&mut roster, &keys[1]), Shown::Up, "{last}");
        }
    }

    #[test]
    fn a_machine_that_takes_the_place_of_an_ejected_one_is_not_ejected() {
        let metrics = Metrics::new();
        let mut registry = Registry::new(1, metrics.clone());
        let mut with_first_at = |address: &str| {
            let mut config = support::unchecked(&[address, "127.0.0.1:2"]);
            config.upstreams[0].nodes[0].name = "n1".into();
            config.upstreams[0].outlier_detection.ejection_time = Duration::from_millis(1);
            compiled(config, &mut registry)
        };
        let (before, after) = (with_first_at("127.0.0.1:1"), with_first_at("127.0.0.1:3"));
        let node = |snapshot: &Snapshot| snapshot.upstreams[0].nodes[0].node.clone();
        let (old, new) = (node(&before), node(&after));
        assert_eq!((&*old.label, &*new.label), ("n1", "n1"));
        let mut roster = Roster::new(metrics);
        let eject = |roster: &mut Roster, node: &Node| {
            roster.eject_if_allowed(&node.key, FailureKind::GatewayError, "test");
            node.outlier()
        };
        roster.follow(&before);
        assert_eq!(eject(&mut roster, &old), OutlierState::Ejected);
        roster.follow(&after);
        // Until the ejection of the other would be over, jitter included.
        let over = now() + Duration::from_millis(10);
        while now() < over {
            roster.tick(&after);
            assert_eq!(new.outlier(), OutlierState::In);
        }
        assert_eq!(eject(&mut roster, &new), OutlierState::Ejected, "for what it does itself");
    }

    #[test]
    fn a_forgotten_node_leaves_no_series() {
        let metrics = Metrics::new();
        let key = NodeKey { upstream: "app".into(), name: "gone".into(), address: None };
        let node = Registry::new(1, metrics.clone()).node(key, "gone".into());
        metrics.checks.with_label_values(&["app", "gone", "timeout"]).inc();
        metrics.state_changes.with_label_values(&["app", "gone", "ejected", "ejection"]).inc();
        metrics.check_duration.with_label_values(&["app", "gone"]).set(1.0);
        let of_node = || {
            let families = metrics.registry.gather();
            let all = families.iter().flat_map(|family| family.get_metric());
            all.filter(|one| one.get_label().iter().any(|label| label.value() == "gone")).count()
        };
        assert!(of_node() > 3);
        Roster::new(metrics.clone()).forget_series(&node);
        assert_eq!(of_node(), 0);
    }
}
