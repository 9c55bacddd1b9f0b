//! The nodes under watch: who is asked when, and what was found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::UnboundedSender;

use super::core::Event;
use super::drains::{Drained, Drains};
use super::pin::Pinned;
use super::probe::{Finding, Kept, Target, probe};
use super::slow_start::SlowStart;
use super::watch::Watching;
use crate::clock;
use crate::config::Role;
use crate::health::lag::LagMeter;
use crate::health::outlier::{Ejector, FailureKind, ratio};
use crate::health::{Checker, HealthState, OperatorState, OutlierState, Shown, Verdict};
use crate::snapshot::{Member, Snapshot, Upstream};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Node, NodeKey};

/// A node is asked at most once in this time, whatever the number of kicks.
const KICK_GAP: Duration = Duration::from_millis(100);
/// First probes begin this far apart, so that a hundred nodes are not asked in the same instant.
const START_GAP: Duration = Duration::from_millis(5);

/// All nodes of the snapshot in use.
pub(super) struct Roster {
    pub(super) metrics: Arc<Metrics>,
    pub(super) nodes: HashMap<NodeKey, Watched>,
    pub(super) ejectors: HashMap<String, Ejector>,
    /// When the nodes' shares of failures were last compared.
    pub(super) compared: Duration,
    /// The first snapshot has been followed.
    started: bool,
    pub(super) drains: Drains,
}

/// What a snapshot leaves to do.
#[derive(Default)]
pub(super) struct Followed {
    /// Nodes that are in it no more.
    pub(super) gone: Vec<Arc<Node>>,
    /// Nodes that served and are disabled by it.
    pub(super) disabled: Vec<Arc<Node>>,
}

/// One node under watch.
pub(super) struct Watched {
    pub(super) node: Arc<Node>,
    pub(super) role: Role,
    pub(super) backup: bool,
    pub(super) checker: Option<Checker>,
    pub(super) slow: SlowStart,
    /// What real requests met here lately.
    pub(super) conduct: ratio::Window,
    pub(super) lag: LagMeter,
    pub(super) watching: Watching,
    target: Option<Target>,
    schedule: Schedule,
    kept: Option<Kept>,
    /// Counts the processes that an operator has put there: what was found of an earlier one is old.
    life: u64,
    pub(super) last: Option<LastCheck>,
    /// Why live traffic last took it out.
    pub(super) ejected_for: FailureKind,
    pub(super) shown: Shown,
    pub(super) since: SystemTime,
    pub(super) cause: String,
    /// When and by what its state last changed without anybody's word.
    pub(super) by_itself: Option<(Duration, &'static str)>,
}

/// The last probe.
pub(super) struct LastCheck {
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    pub(super) at: SystemTime,
}

/// When the next probe is due. Times are since the start of the clock.
#[derive(Debug, Default)]
struct Schedule {
    due: Duration,
    begun: Duration,
    running: bool,
    again: bool,
}

impl Schedule {
    fn kick(&mut self, now: Duration) {
        self.again = self.running;
        self.due = self.due.min(now.max(self.begun + KICK_GAP));
    }

    fn begin(&mut self, now: Duration) {
        (self.begun, self.running, self.again) = (now, true, false);
    }

    fn hasten(&mut self, due: Duration) {
        self.due = self.due.min(due);
    }

    /// The next probe begins `pause` after the last began; a probe that took longer is followed at once.
    fn end(&mut self, pause: Duration, now: Duration) {
        let pause = if self.again { KICK_GAP } else { pause.max(KICK_GAP) };
        self.running = false;
        self.due = now.max(self.begun + pause);
    }
}

/// Now, on the clock that all checkers and ejectors share.
pub(super) fn now() -> Duration {
    Duration::from_nanos(clock::now_ns())
}

impl Roster {
    pub(super) fn new(metrics: Arc<Metrics>) -> Roster {
        Roster {
            metrics,
            nodes: HashMap::new(),
            ejectors: HashMap::new(),
            compared: Duration::ZERO,
            started: false,
            drains: Drains::default(),
        }
    }

    /// Follows a snapshot: new nodes are watched, nodes that stay keep what is known of them.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) -> Followed {
        let keys: HashSet<&NodeKey> = snapshot.keys().collect();
        let gone: Vec<NodeKey> =
            self.nodes.keys().filter(|key| !keys.contains(key)).cloned().collect();
        let gone = gone.iter().filter_map(|key| self.nodes.remove(key)).map(|w| w.node).collect();
        let mut followed = Followed { gone, disabled: Vec::new() };
        for upstream in &snapshot.upstreams {
            self.follow_outliers(upstream);
            for member in &upstream.nodes {
                if self.follow_node(upstream, member) {
                    followed.disabled.push(member.node.clone());
                }
            }
        }
        let names: HashSet<&str> =
            snapshot.upstreams.iter().map(|u| u.settings.name.as_str()).collect();
        self.ejectors.retain(|name, _| names.contains(name.as_str()));
        self.started = true;
        followed
    }

    fn follow_outliers(&mut self, upstream: &Upstream) {
        let settings = &upstream.settings.outlier_detection;
        let (time, most) = (settings.ejection_time, settings.max_ejected);
        let ejector = self
            .ejectors
            .entry(upstream.settings.name.clone())
            .or_insert_with(|| Ejector::new(settings.enabled, time, most));
        ejector.reconfigure(settings.enabled, time, most);
        let labels: HashSet<&str> =
            upstream.nodes.iter().map(|member| member.node.label.as_str()).collect();
        ejector.retain(|label| labels.contains(label));
    }

    /// True for a node that served until now and is disabled.
    fn follow_node(&mut self, upstream: &Upstream, member: &Member) -> bool {
        let known = self.nodes.contains_key(&member.node.key);
        let served = known && member.node.operator() == OperatorState::Ready;
        if let Some(ejector) = self.ejectors.get_mut(&upstream.settings.name).filter(|_| !known) {
            // What the machine did that had the name before says nothing of this one.
            ejector.forget(&member.node.label);
        }
        let wanted = self.wanted(upstream, member);
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let slow = SlowStart::new(upstream, !self.started);
        let new = || Watched::new(member, slow, now() + START_GAP * count);
        let watched = self.nodes.entry(member.node.key.clone()).or_insert_with(new);
        watched.role = member.role;
        watched.backup = member.backup;
        watched.slow.follow(upstream);
        watched.follow_check(upstream);
        if wanted != member.node.operator() {
            member.node.set_operator(wanted);
        }
        watched.follow_watch(upstream);
        let unresolved = upstream.unresolved.iter().find(|(name, _)| *name == member.node.key.name);
        if let Some((_, reason)) = unresolved {
            watched.node.set_health(HealthState::Down);
            watched.cause = format!("its name does not resolve: {reason}");
        }
        let label = if unresolved.is_some() { "unresolved" } else { "config" };
        match member.node.operator() {
            OperatorState::Draining | OperatorState::Aside => self.note_operator(upstream, member),
            _ => self.note(&member.node.key, label, "configured"),
        }
        if let Some(watched) = self.nodes.get(&member.node.key) {
            watched.publish(&self.metrics);
        }
        served && member.node.operator() == OperatorState::Disabled
    }

    /// Notes what the operator wants of a node, and who that is.
    pub(super) fn note_operator(&mut self, upstream: &Upstream, member: &Member) {
        let pinned = || self.pinned(&upstream.settings.name);
        let cause = match member.node.operator() {
            OperatorState::Draining => self.drains.of(&member.node).map(Drained::cause),
            OperatorState::Aside => pinned().map(Pinned::cause),
            // Pinned itself, perhaps in the place of another.
            OperatorState::Ready => pinned().map(Pinned::cause),
            OperatorState::Disabled => None,
        };
        let (Some(cause), key) = (cause, &member.node.key) else { return };
        self.note(key, "operator", &cause);
        let is_out = member.node.operator() != OperatorState::Ready;
        if let Some(watched) = self.nodes.get_mut(key).filter(|_| is_out) {
            watched.cause = cause;
        }
    }

    /// Asks for a probe now.
    pub(super) fn kick(&mut self, key: &NodeKey, events: &UnboundedSender<Event>) {
        if let Some(watched) = self.nodes.get_mut(key) {
            watched.schedule.kick(now());
            watched.launch(now(), events);
        }
    }

    /// Whether a probe that has come back is of an earlier process; the one that is there now is asked then.
    pub(super) fn asks_again(
        &mut self,
        key: &NodeKey,
        life: u64,
        events: &UnboundedSender<Event>,
    ) -> bool {
        let old = self.nodes.get_mut(key).filter(|watched| watched.life != life);
        let Some(watched) = old else { return false };
        watched.schedule.again = true;
        watched.plan();
        watched.launch(now(), events);
        true
    }

    /// Begins the probes that are due.
    pub(super) fn launch_due(&mut self, events: &UnboundedSender<Event>) {
        for watched in self.nodes.values_mut() {
            watched.launch(now(), events);
        }
    }

    /// Notes a state that has changed: one line in the log, one count, the gauge.
    pub(super) fn note(&mut self, key: &NodeKey, label: &'static str, cause: &str) {
        let Some(watched) = self.nodes.get_mut(key) else { return };
        let (from, to) = (watched.shown, watched.node.shown());
        if from == to {
            return;
        }
        watched.shown = to;
        watched.follow_slow_start(from, to);
        // Where counting begins, so that its first failures can be compared.
        watched.look_at_conduct(now());
        watched.since = SystemTime::now();
        // That something was found out for the first time is no change.
        if from != Shown::Unchecked && !matches!(label, "config" | "unresolved" | "operator") {
            watched.by_itself = Some((now(), label));
        }
        if watched.node.address().is_some() {
            cause.clone_into(&mut watched.cause);
        }
        let (upstream, node) = (&watched.node.key.upstream, &watched.node.label);
        log_change(upstream, node, (from, to), &watched.cause);
        let labels = [upstream.as_str(), node, to.as_str(), label];
        self.metrics.state_changes.with_label_values(&labels).inc();
        watched.publish(&self.metrics);
    }
}

fn log_change(upstream: &str, node: &str, (from, to): (Shown, Shown), cause: &str) {
    let (from, to) = (from.as_str(), to.as_str());
    let calm = matches!(to, "up" | "disabled" | "draining");
    if calm {
        tracing::info!(target: "cobalance::health", upstream, node, from, to, cause, "node state");
    } else {
        tracing::warn!(target: "cobalance::health", upstream, node, from, to, cause, "node state");
    }
}

impl Watched {
    /// Nothing is known of it, though it may be a node that had left and is back before it was forgotten:
    /// what was known then is old.
    fn new(member: &Member, slow: SlowStart, due: Duration) -> Watched {
        member.node.set_health(HealthState::Unchecked);
        member.node.set_outlier(OutlierState::In);
        Watched {
            node: member.node.clone(),
            role: member.role,
            backup: member.backup,
            checker: None,
            slow,
            conduct: ratio::Window::default(),
            lag: LagMeter::default(),
            watching: Watching::default(),
            target: None,
            schedule: Schedule { due, ..Schedule::default() },
            kept: None,
            life: 0,
            last: None,
            ejected_for: FailureKind::Connect,
            shown: member.node.shown(),
            since: SystemTime::now(),
            cause: "not checked yet".into(),
            by_itself: None,
        }
    }

    /// Without a health check a node counts as up, and live traffic alone judges it. A check that is
    /// added by a reload takes nobody out before it has found something.
    fn follow_check(&mut self, upstream: &Upstream) {
        let check = upstream.settings.health_check.as_ref();
        let tls = upstream.tls_of(&self.node);
        let http2 = upstream.settings.http2;
        if self.target.as_ref().is_some_and(|target| (&target.tls, target.http2) != (&tls, http2)) {
            // It speaks otherwise from now on.
            self.kept = None;
        }
        self.target = check.zip(self.node.address().cloned()).map(|(check, address)| Target {
            address,
            check: Arc::new(check.clone()),
            preset: upstream.settings.preset,
            tls,
            http2,
        });
        let Some(check) = check else {
            self.checker = None;
            self.last = None;
            self.lag = LagMeter::default();
            self.node.set_health(HealthState::Up);
            return;
        };
        let fresh = || Checker::new(check.rise, check.fall, check.interval, now());
        let checker = self.checker.get_or_insert_with(fresh);
        checker.reconfigure(check.rise, check.fall, check.interval);
    }

    fn launch(&mut self, now: Duration, events: &UnboundedSender<Event>) {
        let Some(target) = self.target.clone() else { return };
        if self.schedule.running || now < self.schedule.due {
            return;
        }
        self.schedule.begin(now);
        let (key, kept, events) = (self.node.key.clone(), self.kept.take(), events.clone());
        let life = self.life;
        tokio::spawn(async move {
            let found = probe(&target, kept).await;
            // Control may have ended in the meantime.
            let _ = events.send(Event::Probed(key, life, Box::new(found)));
        });
    }

    /// What is under way, and the connection to an earlier process, tell nothing of the one that is there now.
    pub(super) fn forget_probes(&mut self) {
        self.life += 1;
        self.kept = None;
    }

    /// Takes what a probe brought back, and plans the next one.
    pub(super) fn receive(&mut self, finding: Finding) {
        self.kept = finding.kept;
        let (took, at) = (finding.took, SystemTime::now());
        self.last = Some(LastCheck { verdict: finding.verdict, took, at });
    }

    /// Its state has changed between two probes: the next one is not later than that state asks for.
    pub(super) fn hasten(&mut self) {
        if let Some(checker) = &self.checker {
            self.schedule.hasten(now() + checker.next_in(fastrand::f64()));
        }
    }

    /// Good probes count again, whatever it said.
    pub(super) fn believe_probes(&mut self) {
        if let Some(checker) = &mut self.checker {
            checker.believe_probes();
        }
    }

    /// It cannot say any more what becomes of it.
    pub(super) fn unheard(&mut self) {
        if let Some(checker) = &mut self.checker {
            checker.unheard(now());
        }
    }

    pub(super) fn plan(&mut self) {
        let pause = self.checker.as_ref().map_or(Duration::ZERO, |c| c.next_in(fastrand::f64()));
        self.schedule.end(pause, now());
    }

    /// Whether this is one of the nodes that ejection and fail open are about.
    pub(super) fn serves(&self, backup: bool) -> bool {
        self.role == Role::Serve && self.backup == backup
    }

    /// Whether it is one of those of this tier.
    pub(super) fn is_of_tier(&self, upstream: &str, backup: bool) -> bool {
        self.node.key.upstream == upstream && self.serves(backup)
    }

    pub(super) fn publish(&self, metrics: &Metrics) {
        let labels = [self.node.key.upstream.as_str(), &self.node.label];
        metrics.node_state.with_label_values(&labels).set(i64::from(self.shown.metric()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn kicks_bring_a_probe_forward_but_not_closer_than_the_gap() {
        let mut schedule = Schedule { due: ms(5_000), ..Schedule::default() };
        schedule.kick(ms(1_000));
        assert_eq!(schedule.due, ms(1_000));
        schedule.begin(ms(1_000));
        // While one is under way, a kick asks for another right after it.
        schedule.kick(ms(1_010));
        schedule.end(ms(2_000), ms(1_020));
        assert_eq!(schedule.due, ms(1_100));
        schedule.begin(ms(1_100));
        schedule.end(ms(2_000), ms(1_105));
        assert_eq!(schedule.due, ms(3_100));
        schedule.kick(ms(1_110));
        assert_eq!(schedule.due, ms(1_200));
    }

    #[test]
    fn a_slow_probe_is_followed_at_once() {
        let mut schedule = Schedule::default();
        schedule.begin(ms(1_000));
        schedule.end(ms(500), ms(3_000));
        assert_eq!(schedule.due, ms(3_000));
    }
}
