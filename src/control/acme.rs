//! Certificates that are ordered from ACME authorities (RFC 8555): who orders, and when.
//!
//! All that is known is in a state directory, which replicas share: whoever has its lock orders, and the others use
//! what it got. So this process only looks there, twice a second, and what it finds is put in use by `certificates`
//! as any renewed file is.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::core::{Core, Event};
use super::status::{AcmeStatus, CertificateStatus, unix};
use super::warnings;
use super::words::span;
use crate::config::Config;
use crate::tls;
use crate::tls::Vault;

mod attempt;
mod http;
mod order;
mod plan;
mod sent;
mod watched;

use attempt::Outcome;
use order::Job;
use plan::{ASK_AGAIN_S, Attempts, Kind, Step, step};
use watched::{Watch, Watched};

/// The label of an attempt that went well.
const OK: &str = "ok";

/// How it goes.
#[derive(Default)]
pub(super) struct Acme {
    /// None while it is looked at.
    watch: Option<Box<Watch>>,
    looking: bool,
    /// Certificates that this process orders now, by where they are kept: one at a time there.
    under_way: HashMap<Vault, String>,
    /// Until when others are left alone.
    holds: HashMap<String, Hold>,
    told: BTreeMap<String, AcmeStatus>,
}

/// Why a certificate is not ordered yet although it is due.
struct Hold {
    until: i64,
    /// Another process orders it; else its attempts cannot even be noted.
    busy: bool,
}

/// What the loop is told.
pub(super) enum Told {
    Looked(Box<Watch>),
    /// An attempt, at a certificate of this name.
    Ended(String, Vault, Outcome),
}

impl Core {
    /// Looks at the state directories, on a blocking thread: they may be on a network.
    pub(super) fn look_at_acme(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        let orders = snapshot.config.certificates.iter().any(|one| one.order.is_some());
        // What was ordered until now is taken back by one more look.
        let ordered = snapshot.challenges.any() || !self.acme.told.is_empty();
        if self.acme.looking || !(orders || ordered) {
            return;
        }
        self.acme.looking = true;
        let mut watch = self.acme.watch.take().unwrap_or_default();
        watch.follow(&snapshot.config);
        let (challenges, events) = (snapshot.challenges.clone(), self.inner.events.clone());
        tokio::task::spawn_blocking(move || {
            watch.look(&challenges);
            let _ = events.send(Event::Acme(Box::new(Told::Looked(watch))));
        });
    }

    pub(super) fn acme_told(&mut self, told: Told) {
        match told {
            Told::Looked(watch) => {
                self.acme.looking = false;
                self.decide(&watch);
                self.acme.watch = Some(watch);
            }
            Told::Ended(name, vault, outcome) => self.attempt_ended(&name, &vault, outcome),
        }
    }

    /// Orders what is due, and tells how each goes.
    fn decide(&mut self, watch: &Watch) {
        let snapshot = self.inner.snapshot.load_full();
        let now = now();
        self.acme.holds.retain(|_, hold| now < hold.until);
        let mut told = BTreeMap::new();
        for one in &watch.all {
            let attempts = one.attempts.get();
            let step = step(one.stored.get(), attempts, &one.order.domains, now);
            if step == Step::Due && one.fault.is_none() {
                self.begin_order(one, &snapshot.config);
            }
            let status = self.acme.status(one, step, now);
            let failures = i64::from(status.failures);
            self.inner.metrics.acme.failures.with_label_values(&[&one.name]).set(failures);
            self.tell_trouble(one, &status, now);
            told.insert(one.name.clone(), status);
        }
        self.count_all(&told);
        self.warnings.retain(warnings::Kind::CertificateOrder, |name| told.contains_key(name));
        self.acme.told = told;
    }

    /// A rate of what has never been counted would be none, not zero; and what is gone is counted no more.
    fn count_all(&self, told: &BTreeMap<String, AcmeStatus>) {
        let metrics = &self.inner.metrics.acme;
        let results = || Kind::ALL.map(Kind::as_str).into_iter().chain([OK]);
        for name in told.keys().filter(|name| !self.acme.told.contains_key(*name)) {
            results().for_each(|result| drop(metrics.orders.with_label_values(&[name, result])));
        }
        for name in self.acme.told.keys().filter(|name| !told.contains_key(*name)) {
            // An error says that it is gone already.
            let _ = metrics.failures.remove_label_values(&[name]);
            results().for_each(|result| drop(metrics.orders.remove_label_values(&[name, result])));
        }
    }

    fn begin_order(&mut self, one: &Watched, config: &Config) {
        let authority = config.authorities.iter().find(|a| a.name == one.order.authority);
        let busy = self.acme.under_way.contains_key(&one.order.vault)
            || self.acme.holds.contains_key(&one.name);
        // A process that ends, or that has not begun, leaves it to the other.
        let Some(authority) =
            authority.filter(|_| !busy && !self.is_ending() && self.inner.is_here())
        else {
            return;
        };
        let vault = one.order.vault.clone();
        self.acme.under_way.insert(vault.clone(), one.name.clone());
        let challenges = self.inner.snapshot.load().challenges.clone();
        let job = Job { authority: authority.clone(), asked: one.order.clone(), challenges };
        let (name, events) = (one.name.clone(), self.inner.events.clone());
        tokio::spawn(async move {
            let attempt = tokio::spawn(attempt::attempt(job, name.clone()));
            let outcome =
                attempt.await.unwrap_or_else(|panic| Outcome::panicked(&panic.to_string()));
            let _ = events.send(Event::Acme(Box::new(Told::Ended(name, vault, outcome))));
        });
    }

    fn attempt_ended(&mut self, name: &str, vault: &Vault, outcome: Outcome) {
        self.acme.under_way.remove(vault);
        let orders = &self.inner.metrics.acme.orders;
        let count = |result: &str| orders.with_label_values(&[name, result]).inc();
        match outcome {
            Outcome::Obtained { days } => {
                count(OK);
                tracing::info!(target: "cobalance::acme", certificate = name, days,
                    "a certificate was obtained");
            }
            Outcome::NotDue => {}
            Outcome::Busy => {
                let until = now() + ASK_AGAIN_S;
                self.acme.holds.insert(name.to_owned(), Hold { until, busy: true });
            }
            Outcome::Failed { attempts, noted } => {
                count(attempts.kind.as_str());
                let Attempts { failures, next_at, error, .. } = &attempts;
                let wait = span(seconds(next_at - now()));
                tracing::error!(target: "cobalance::acme", certificate = name, failures, kind = attempts.kind.as_str(),
                    "no certificate was obtained: {error}. Next attempt in {wait}");
                if !noted {
                    let hold = Hold { until: *next_at, busy: false };
                    self.acme.holds.insert(name.to_owned(), hold);
                    self.order_trouble(name, &attempts);
                }
            }
        }
    }

    /// The warning that stands as long as orders of a certificate fail, here or at a replica.
    fn tell_trouble(&mut self, one: &Watched, status: &AcmeStatus, now: i64) {
        let Some(error) = &status.error else {
            // What could not be noted is only known here.
            if self.acme.holds.get(&one.name).is_none_or(|hold| hold.busy) {
                self.warnings.settle(warnings::Kind::CertificateOrder, &one.name);
            }
            return;
        };
        let name = &one.name;
        let next = match one.attempts.get() {
            Some(attempts) if one.fault.is_none() => {
                let file = one.order.vault.attempts(&one.order.domains);
                let wait = span(seconds(attempts.next_at - now));
                format!("Next attempt in {wait}; at once if {} is removed", file.display())
            }
            _ => "It is looked at again twice a second".to_owned(),
        };
        let message = format!("certificate `{name}` cannot be ordered: {error}. {next}");
        self.warn(warnings::Kind::CertificateOrder, name, message);
    }

    fn order_trouble(&mut self, name: &str, attempts: &Attempts) {
        let wait = span(seconds(attempts.next_at - now()));
        let message = format!(
            "certificate `{name}` cannot be ordered: {}. Next attempt in {wait}",
            attempts.error
        );
        self.warn(warnings::Kind::CertificateOrder, name, message);
    }

    /// For `status`: what is in use, and how its orders go.
    pub(super) fn certificate(&self, slot: &tls::Slot) -> CertificateStatus {
        let acme = self.acme.told.get(&slot.name).cloned();
        let snapshot = self.inner.snapshot.load();
        let configured = snapshot.config.certificates.iter().find(|one| one.name == slot.name);
        let order = configured.and_then(|one| one.order.as_ref());
        let none_yet = || CertificateStatus {
            name: slot.name.clone(),
            hosts: order.map(|order| order.domains.clone()).unwrap_or_default(),
            not_before: 0,
            not_after: 0,
            acme: None,
        };
        let found = super::certificates::status(slot).unwrap_or_else(none_yet);
        CertificateStatus { acme: acme.filter(|_| order.is_some()), ..found }
    }
}

impl Acme {
    fn status(&self, one: &Watched, step: Step, now: i64) -> AcmeStatus {
        let attempts = one.attempts.get();
        let hold = self.holds.get(&one.name);
        let (state, next_at) = match step {
            _ if one.fault.is_some() => ("failing", 0),
            _ if self.under_way.get(&one.order.vault) == Some(&one.name) => ("ordering", 0),
            Step::Valid(at) => ("valid", at),
            Step::Failed(_) if attempts.is_some_and(Attempts::is_begun) => ("waiting", 0),
            Step::Failed(at) => ("failing", at),
            Step::Due => match hold {
                Some(Hold { busy: true, .. }) => ("waiting", 0),
                Some(hold) => ("failing", hold.until),
                None => ("due", now),
            },
        };
        AcmeStatus {
            authority: one.order.authority.clone(),
            state: state.to_owned(),
            next_at,
            failures: attempts.map_or(0, |attempts| attempts.failures),
            error: one.fault.clone().or_else(|| attempts.and_then(Attempts::trouble)),
        }
    }
}

fn now() -> i64 {
    i64::try_from(unix(SystemTime::now())).unwrap_or(i64::MAX)
}

/// Seconds from 0 on, for people.
fn seconds(left: i64) -> Duration {
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}
