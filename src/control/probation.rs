//! A reload on probation: what is watched of it, and what follows from the verdict.
//!
//! The baseline is what was usual before the first configuration that has not passed: another reload
//! meanwhile is compared with the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::core::Core;
use super::drains::Drains;
use super::rollback::{By, RolledBack};
use super::roster::{Watched, now};
use super::status::{ProbationStatus, unix};
use super::warnings::Kind;
use crate::config::Config;
use crate::health::Shown;
use crate::probation::{Counts, Fate, Past, Rise, Rules, Trial, Verdict};
use crate::snapshot::Snapshot;

/// So many configurations that passed are kept; whoever wants to go back further has a file.
const MOST_PASSED: usize = 8;
/// The subject of warnings.
pub(super) const SUBJECT: &str = "configuration";
/// Verdicts of probes that another health check can be the cause of.
const OF_THE_CHECK: [&str; 5] = ["good", "timeout", "status", "body", "garbage"];
/// How probations end, as labels. `replaced`: by another reload, or by a rollback.
const RESULTS: [&str; 4] = ["passed", "too_little_traffic", "worse", "replaced"];

/// What is known of the configurations that were in use.
pub(super) struct Probation {
    past: Past,
    looked: Duration,
    /// The latest last; never empty, because the first one has nothing to be compared with.
    pub(super) passed: VecDeque<Passed>,
    pub(super) unproven: Option<Unproven>,
    /// How the last one ended that is over.
    ended: Option<ProbationStatus>,
    /// Holds while the file is not what runs.
    pub(super) rolled_back: Option<RolledBack>,
    /// What operators had said of what is configured no more since the last one that passed.
    pub(super) forgotten: Drains,
    /// When a name last came to stand for other addresses.
    renamed: Option<Duration>,
}

/// A configuration that passed.
pub(super) struct Passed {
    pub(super) generation: u64,
    pub(super) config: Arc<Config>,
}

/// The configuration in use, while it has not passed.
pub(super) struct Unproven {
    generation: u64,
    rules: Rules,
    pub(super) trial: Trial,
    nodes: Vec<Concerned>,
    since: SystemTime,
    /// Another one was replaced by it that had not passed.
    follows: bool,
    /// What speaks against it, once that is known.
    pub(super) worse: Option<Vec<String>>,
    /// Why it was not rolled back without asking.
    kept: Option<String>,
}

/// A node whose place the reload has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Concerned {
    upstream: String,
    name: String,
    /// Else it was there, and its upstream's health check is another.
    added: bool,
}

impl Probation {
    pub(super) fn new(config: Arc<Config>) -> Probation {
        let mut past = Past::default();
        past.add(Counts::default(), now());
        Probation {
            past,
            looked: Duration::ZERO,
            passed: [Passed { generation: 1, config }].into(),
            unproven: None,
            ended: None,
            rolled_back: None,
            forgotten: Drains::default(),
            renamed: None,
        }
    }

    fn remember(&mut self, generation: u64, config: Arc<Config>) {
        // The same again is no other.
        match self.passed.back_mut().filter(|last| last.config == config) {
            Some(last) => last.generation = generation,
            None => self.passed.push_back(Passed { generation, config }),
        }
        if self.passed.len() > MOST_PASSED {
            self.passed.pop_front();
        }
    }

    /// A name stands for other addresses than before: nodes came or went by themselves.
    pub(super) fn note_renamed(&mut self) {
        self.renamed = Some(now());
    }

    /// The configuration that a rollback would put in use, by its place among those that passed.
    pub(super) fn target(&self) -> Option<usize> {
        self.passed.len().checked_sub(if self.unproven.is_some() { 1 } else { 2 })
    }

    /// The generation of that.
    pub(super) fn target_generation(&self) -> Option<u64> {
        self.target().and_then(|at| self.passed.get(at)).map(|passed| passed.generation)
    }

    /// Whether this generation is in use and has not passed.
    pub(super) fn is_unproven(&self, generation: u64) -> bool {
        self.unproven.as_ref().is_some_and(|one| one.generation == generation)
    }

    /// Why no new process may read the file: for it the first configuration is good, whatever is known here.
    pub(super) fn against_upgrade(&self) -> Option<String> {
        if let Some(RolledBack { from, to, .. }) = &self.rolled_back {
            return Some(format!(
                "configuration {from} was rolled back to {to}, and the new process would take the file as it \
                 is: correct it and say `cobalance reload` first"
            ));
        }
        let worse = self.unproven.as_ref().filter(|one| one.worse.is_some())?;
        Some(format!(
            "configuration {} does worse than what was in use before, and the new process would know nothing \
             to go back to: correct the file and say `cobalance reload` first (with `probation = \"0s\"` it is \
             taken as it is)",
            worse.generation
        ))
    }

    /// Says what an upgrade means for a configuration that is watched.
    pub(super) fn warn_of_upgrade(&self) {
        if let Some(Unproven { generation, .. }) = self.unproven {
            tracing::warn!(target: "cobalance::config", generation,
                "its probation is not over: the new process takes it as passed, and cannot go back");
        }
    }

    /// What `status` shows: the one under watch, else how the last one ended.
    pub(super) fn status(&self) -> Option<ProbationStatus> {
        let Some(unproven) = &self.unproven else { return self.ended.clone() };
        let state = if unproven.worse.is_some() { "worse" } else { "watched" };
        Some(unproven.status(state))
    }
}

impl Unproven {
    fn status(&self, state: &str) -> ProbationStatus {
        ProbationStatus {
            generation: self.generation,
            state: state.into(),
            since: unix(self.since),
            left_s: self.trial.left(now()).as_secs(),
            requests: self.trial.after().requests,
            enough: self.rules.requests,
            found: self.worse.clone().unwrap_or_default(),
            kept: self.kept.clone(),
        }
    }

    fn concerns(&self, watched: &Watched) -> Option<&Concerned> {
        let key = &watched.node.key;
        self.nodes.iter().find(|one| one.upstream == key.upstream && one.name == key.name)
    }
}

impl Core {
    /// The configuration that was just read from the file begins its probation.
    pub(super) fn begin_probation(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        let (now, totals) = (now(), self.totals());
        let earlier = self.end_unproven();
        let Some(proven) = self.probation.passed.back() else { return };
        let (config, generation) = (&snapshot.config, snapshot.generation);
        if config.server.probation.is_zero() || proven.config == *config {
            if let Some(earlier) = earlier {
                self.probation.past.resume(&earlier.trial.before(), &totals, now);
            }
            return self.keep_passed(generation);
        }
        let was_up = |upstream: &str, name: &str| {
            let known = earlier.iter().flat_map(|earlier| &earlier.nodes);
            known.filter(|one| !one.added).any(|one| one.upstream == upstream && one.name == name)
                || fate(&snapshot, upstream, name) == Fate::Up
        };
        let rules = Rules {
            time: config.server.probation,
            requests: config.server.probation_requests,
            routes_changed: proven.config.routes != config.routes,
        };
        let nodes = concerned(&proven.config, config, was_up);
        let before = match &earlier {
            Some(earlier) => earlier.trial.before(),
            None => self.probation.past.counts(&totals),
        };
        self.probation.unproven = Some(Unproven {
            generation,
            rules,
            trial: Trial::new(rules, before, totals, now),
            nodes,
            since: SystemTime::now(),
            follows: earlier.is_some(),
            worse: None,
            kept: None,
        });
        self.inner.metrics.config_probation.set(1);
    }

    /// Looks whether there is a verdict.
    pub(super) fn look_at_probation(&mut self) {
        let now = now();
        let watched = |one: &&Unproven| one.worse.is_none();
        let pause = self.probation.unproven.as_ref().filter(watched).map(|one| one.rules.pause());
        if now < self.probation.looked + pause.unwrap_or(Past::SLICE) {
            return;
        }
        let (totals, snapshot) = (self.totals(), self.inner.snapshot.load_full());
        let probation = &mut self.probation;
        probation.looked = now;
        probation.past.add(totals, now);
        let ending = self.inner.draining.load(Ordering::Acquire);
        let Some(unproven) = probation.unproven.as_mut().filter(|one| one.worse.is_none()) else {
            return self.repeat_warnings();
        };
        let fates = unproven.nodes.iter().map(|one| fate(&snapshot, &one.upstream, &one.name));
        let fates: Vec<Fate> = fates.collect();
        match unproven.trial.look(&totals, &fates, now) {
            _ if ending => {}
            None => {}
            Some(Verdict::Passed) => self.pass("passed"),
            Some(Verdict::TooLittleTraffic) => self.pass("too_little_traffic"),
            Some(Verdict::Worse { rises, nodes }) => self.found_worse(&rises, &nodes),
        }
    }

    fn pass(&mut self, result: &str) {
        let Some(unproven) = self.probation.unproven.take() else { return };
        if unproven.follows {
            // What came in between was of one that did not pass.
            let (before, totals) = (unproven.trial.before(), self.totals());
            self.probation.past.resume(&before, &totals, now());
        }
        let status = unproven.status(result);
        let (generation, requests) = (status.generation, status.requests);
        tracing::info!(target: "cobalance::config", generation, requests, result, "probation is over");
        self.inner.metrics.config_probations.with_label_values(&[result]).inc();
        self.probation.ended = Some(status);
        self.keep_passed(generation);
    }

    /// The configuration in use is one to go back to.
    fn keep_passed(&mut self, generation: u64) {
        self.probation.remember(generation, self.inner.snapshot.load().config.clone());
        self.probation.forgotten = Drains::default();
        self.inner.metrics.config_probation.set(0);
        self.warnings.settle(Kind::WorseReload, SUBJECT);
    }

    /// Ends the one that has not passed, because another takes its place.
    pub(super) fn end_unproven(&mut self) -> Option<Unproven> {
        let unproven = self.probation.unproven.take()?;
        let result = if unproven.worse.is_some() { "worse" } else { "replaced" };
        if unproven.worse.is_none() {
            self.inner.metrics.config_probations.with_label_values(&[result]).inc();
        }
        self.probation.ended = Some(unproven.status(result));
        self.inner.metrics.config_probation.set(0);
        self.warnings.settle(Kind::WorseReload, SUBJECT);
        Some(unproven)
    }

    /// What is usual again once the configuration that was in use is gone.
    pub(super) fn resume_past(&mut self, before: &Counts) {
        let totals = self.totals();
        self.probation.past.resume(before, &totals, now());
    }

    fn found_worse(&mut self, rises: &[Rise], nodes: &[usize]) {
        let Some(unproven) = &self.probation.unproven else { return };
        let lost = nodes.iter().filter_map(|at| unproven.nodes.get(*at)).map(|one| self.lost(one));
        let found: Vec<String> = rises.iter().map(Rise::to_string).chain(lost).collect();
        let generation = unproven.generation;
        let asked = self.inner.snapshot.load().config.server.auto_rollback;
        let kept = if asked { self.disturbed(unproven) } else { None };
        self.inner.metrics.config_probations.with_label_values(&["worse"]).inc();
        self.inner.metrics.config_probation.set(2);
        if let Some(unproven) = &mut self.probation.unproven {
            (unproven.worse, unproven.kept) = (Some(found), kept.clone());
        }
        let message = self.worse_message().unwrap_or_default();
        tracing::error!(target: "cobalance::config", generation, "{message}");
        self.warnings.raise(Kind::WorseReload, SUBJECT, message, SystemTime::now());
        if asked && kept.is_none() {
            self.roll_back(By::Probation(generation), None);
        }
    }

    /// Whether something else may be the cause by now; then nothing is done by itself, and `status` says why.
    pub(super) fn keeps_disturbed(&mut self) -> bool {
        let why = self.probation.unproven.as_ref().and_then(|unproven| self.disturbed(unproven));
        let disturbed = why.is_some();
        if let Some(unproven) = self.probation.unproven.as_mut().filter(|_| disturbed) {
            unproven.kept = why;
        }
        disturbed
    }

    /// What is said of a configuration that is worse.
    fn worse_message(&self) -> Option<String> {
        let unproven = self.probation.unproven.as_ref()?;
        let (generation, found) = (unproven.generation, unproven.worse.as_ref()?.join("; "));
        let back = match self.probation.target_generation() {
            Some(target) => format!(". `cobalance rollback` goes back to configuration {target}"),
            None => String::new(),
        };
        let kept = unproven.kept.as_ref();
        let kept = kept.map_or_else(String::new, |why| format!("; not rolled back: {why}"));
        Some(format!(
            "configuration {generation} does worse than what was in use before: {found}{kept}{back}"
        ))
    }

    /// Once an hour each, for as long as they hold.
    fn repeat_warnings(&mut self) {
        if let Some(message) = self.worse_message() {
            self.warn(Kind::WorseReload, SUBJECT, message);
        }
        if let Some(rolled_back) = &self.probation.rolled_back {
            let message = rolled_back.message();
            self.warn(Kind::RolledBack, SUBJECT, message);
        }
    }

    fn lost(&self, concerned: &Concerned) -> String {
        let Concerned { upstream, name, added } = concerned;
        let of = |watched: &&Watched| {
            watched.node.key.upstream == *upstream && watched.node.key.name == *name
        };
        let watched = self.roster.nodes.values().find(of);
        let (state, cause) = watched.map_or(("gone", ""), |w| (w.shown.as_str(), &w.cause));
        let what = if *added { "which it added" } else { "whose health check it changed" };
        format!("node `{name}` of upstream `{upstream}`, {what}, is {state} ({cause})")
    }

    /// What has changed by itself since shortly before the reload: it may be the cause as well.
    fn disturbed(&self, unproven: &Unproven) -> Option<String> {
        let from = unproven.trial.begun().saturating_sub(unproven.rules.time);
        if self.probation.renamed.is_some_and(|at| at >= from) {
            return Some("a name stands for other nodes meanwhile".into());
        }
        let by_itself = |watched: &&Watched| {
            let Some((at, label)) = watched.by_itself else { return false };
            at >= from
                && match unproven.concerns(watched) {
                    None => true,
                    Some(one) => !one.added && !OF_THE_CHECK.contains(&label),
                }
        };
        let node = &self.roster.nodes.values().find(by_itself)?.node;
        Some(format!("node `{}` changed its state by itself meanwhile", node.label))
    }

    fn totals(&self) -> Counts {
        let ended = self.inner.metrics.ended();
        Counts::of(ended.all, ended.reasons.iter().map(|(reason, n)| (reason.as_str(), *n)))
    }

    /// A rate of what has never been counted would be none, not zero.
    pub(super) fn show_probations(&self) {
        for result in RESULTS {
            self.inner.metrics.config_probations.with_label_values(&[result]);
        }
        for by in [By::LABELS[0], By::LABELS[1]] {
            self.inner.metrics.config_rollbacks.with_label_values(&[by]);
        }
    }
}

/// The nodes whose place is another than in the configuration that passed: they were added or enabled, or
/// were up, which `was_up` says, and are judged by another health check now.
fn concerned(passed: &Config, new: &Config, was_up: impl Fn(&str, &str) -> bool) -> Vec<Concerned> {
    let mut all = Vec::new();
    for upstream in &new.upstreams {
        let old = passed.upstreams.iter().find(|old| old.name == upstream.name);
        let rechecked = upstream.health_check.is_some()
            && old.is_some_and(|old| old.health_check != upstream.health_check);
        for node in upstream.nodes.iter().filter(|node| !node.disabled) {
            let mut same = old.iter().flat_map(|old| &old.nodes).filter(|old| !old.disabled);
            let added = !same.any(|old| old.name == node.name && old.address == node.address);
            if added || (rechecked && was_up(&upstream.name, &node.name)) {
                let (upstream, name) = (upstream.name.clone(), node.name.clone());
                all.push(Concerned { upstream, name, added });
            }
        }
    }
    all
}

/// What has become of a configured node: of the addresses that its name stands for, the best counts.
fn fate(snapshot: &Snapshot, upstream: &str, name: &str) -> Fate {
    let upstream = snapshot.upstreams.iter().find(|one| one.settings.name == upstream);
    let members = upstream.iter().flat_map(|one| &one.nodes);
    let fates = members.filter(|one| one.node.key.name == name).map(|one| match one.node.shown() {
        Shown::Up => Fate::Up,
        Shown::Starting | Shown::Maintaining => Fate::Starting,
        Shown::Draining | Shown::Disabled => Fate::Excused,
        Shown::Down | Shown::Unchecked | Shown::Ejected => Fate::Out,
    });
    let rank = |fate: &Fate| match fate {
        Fate::Up => 3,
        Fate::Starting => 2,
        Fate::Out => 1,
        Fate::Excused => 0,
    };
    fates.max_by_key(rank).unwrap_or(Fate::Excused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::support::parse;

    fn config(nodes: &str, check: &str) -> Config {
        parse(&format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.app]\nnodes = [{nodes}]\n\
             [upstream.app.health_check]\n{check}\n"
        ))
    }

    #[test]
    fn so_many_that_passed_are_kept() {
        let mut probation = Probation::new(Arc::new(config("\"a:1\"", "")));
        assert_eq!(probation.target(), None);
        for generation in 2..100 {
            let nodes = format!("\"a:{generation}\"");
            probation.remember(generation, Arc::new(config(&nodes, "")));
            assert_eq!(probation.target_generation(), Some(generation - 1));
            assert!(probation.passed.len() <= MOST_PASSED);
        }
        let same = probation.passed.back().unwrap().config.clone();
        probation.remember(100, same);
        assert_eq!(
            (probation.target_generation(), probation.passed.len()),
            (Some(98), MOST_PASSED)
        );
    }

    #[test]
    fn nodes_whose_place_is_another_are_concerned() {
        let old = config("\"a:1\", { name = \"b\", address = \"b:1\" }, \"c:1\"", "");
        let of = |nodes: &str, check: &str| -> Vec<(String, bool)> {
            let up = |_: &str, name: &str| name != "c:1";
            let all = concerned(&old, &config(nodes, check), up);
            all.into_iter().map(|one| (one.name, one.added)).collect()
        };
        let added = |name: &str| vec![(name.to_owned(), true)];
        assert_eq!(of("\"a:1\"", ""), []);
        assert_eq!(of("\"c:1\", { address = \"a:1\", weight = 7 }", ""), []);
        assert_eq!(of("\"a:1\", \"d:1\"", ""), added("d:1"));
        assert_eq!(of("{ name = \"b\", address = \"b:2\" }", ""), added("b"));
        assert_eq!(of("\"a:1\", { address = \"d:1\", disabled = true }", ""), []);
        let rechecked = vec![("a:1".to_owned(), false)];
        assert_eq!(of("\"a:1\", \"c:1\"", "path = \"/other\""), rechecked);
        assert_eq!(of("\"a:1\"", "enabled = false"), []);
    }
}
