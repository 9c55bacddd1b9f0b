//! Names in `nodes`: what they stand for, and how the set may change.
//!
//! `getaddrinfo` runs on the runtime's blocking threads. An error or an empty answer never shrinks a
//! set; a new address counts at once; an address goes when two answers in a row lack it, because a
//! resolver that rotates or truncates its answers must not make nodes flap.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::{Core, Event};
use super::reload::followed;
use crate::config::Config;
use crate::net::Address;
use crate::snapshot::{Resolved, Upstream};

/// glibc tries for 5 s per server; a longer wait would only delay a start or a reload.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One name's answer.
pub(super) type Answer = (String, Result<Vec<SocketAddr>, String>);

/// What is known of all names.
#[derive(Debug, Default)]
pub(super) struct Names {
    resolved: Resolved,
    /// Addresses that the last answer lacked, by name.
    missing: HashMap<String, BTreeSet<SocketAddr>>,
}

impl Names {
    /// The sets in use.
    pub(super) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// Takes an answer; true when the set has changed.
    pub(super) fn learn(&mut self, (name, answer): Answer) -> bool {
        let old = self.resolved.get(&name);
        let answer = match (old, answer) {
            (Some(Ok(_)), Err(_)) => return false,
            (Some(Ok(old)), Ok(answer)) => {
                let missing = self.missing.entry(name.clone()).or_default();
                Ok(merge(old, missing, &answer))
            }
            (_, answer) => answer.map(|found| merge(&[], &mut BTreeSet::new(), &found)),
        };
        // Another text of an error is no other set, but `status` should tell the newest.
        let changed = old.and_then(|old| old.as_ref().ok()) != answer.as_ref().ok();
        self.resolved.insert(name, answer);
        changed
    }

    /// All names that have an address, with what they stand for.
    pub(super) fn known(&self) -> HashMap<String, Vec<SocketAddr>> {
        let known = |(name, found): (&String, &Result<Vec<SocketAddr>, String>)| {
            Some((name.clone(), found.clone().ok()?))
        };
        self.resolved.iter().filter_map(known).collect()
    }

    /// Forgets names that the configuration no longer has.
    pub(super) fn retain(&mut self, config: &Config) {
        let names = names(config);
        self.resolved.retain(|name, _| names.contains(name));
        self.missing.retain(|name, _| names.contains(name));
    }
}

/// The names among the addresses of all nodes, each once.
pub(super) fn names(config: &Config) -> BTreeSet<String> {
    let addresses = config.upstreams.iter().flat_map(|u| &u.nodes).map(|node| &node.address);
    addresses.filter(|address| address.parse::<Address>().is_err()).cloned().collect()
}

/// The new set: the answer, and what only this answer lacks. Sorted, so that replicas agree.
fn merge(
    old: &[SocketAddr],
    missing: &mut BTreeSet<SocketAddr>,
    answer: &[SocketAddr],
) -> Vec<SocketAddr> {
    let answer: BTreeSet<SocketAddr> = answer.iter().copied().collect();
    let lacking: BTreeSet<_> = old.iter().copied().filter(|one| !answer.contains(one)).collect();
    let spared = lacking.difference(missing).copied();
    let set: BTreeSet<_> = answer.iter().copied().chain(spared).collect();
    *missing = lacking;
    set.into_iter().collect()
}

/// Looks all `names` up at once.
pub(super) async fn look_up(names: impl IntoIterator<Item = String>) -> Vec<Answer> {
    let mut tasks = tokio::task::JoinSet::new();
    for name in names {
        tasks.spawn(look_up_one(name));
    }
    tasks.join_all().await
}

async fn look_up_one(name: String) -> Answer {
    let answer = match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host(&name)).await {
        Ok(Ok(found)) => one_family(found.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the resolver did not answer in time".into()),
    };
    (name, answer)
}

/// IPv4 if there is any: a name with both families means one process twice, and NocoBase listens on
/// `0.0.0.0` unless told otherwise.
fn one_family(mut found: BTreeSet<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    match found.is_empty() {
        true => Err("the name has no address".into()),
        false => Ok(found.into_iter().collect()),
    }
}

impl Core {
    /// Asks for all names, unless the last answers are still waited for.
    pub(super) fn resolve(&mut self) {
        let names = names(&self.inner.snapshot.load().config);
        if names.is_empty() || self.resolving {
            return;
        }
        self.resolving = true;
        let events = self.inner.events.clone();
        tokio::spawn(async move {
            let _ = events.send(Event::Resolved(look_up(names).await));
        });
    }

    /// Puts answers in use.
    pub(super) fn resolved(&mut self, answers: Vec<Answer>) {
        self.resolving = false;
        let mut changed = false;
        for answer in answers {
            self.count_discovery(&answer);
            changed |= self.names.learn(answer);
        }
        if changed && !self.inner.draining.load(Ordering::Acquire) {
            self.probation.note_renamed();
            let current = self.inner.snapshot.load_full();
            self.swap(current.config.clone(), current.access_log.clone(), Some(current.generation));
            let waiting = self.renew(Vec::new());
            let (swap, events) = (self.swaps, self.inner.events.clone());
            tokio::spawn(async move {
                followed(waiting).await;
                let _ = events.send(Event::Renewed(swap));
            });
            self.sweep_drains();
        }
    }

    fn count_discovery(&self, (name, answer): &Answer) {
        let result = if answer.is_ok() { "ok" } else { "error" };
        if let Err(error) = answer {
            tracing::debug!(target: "cobalance::discovery", name, error, "the last addresses stay");
        }
        let snapshot = self.inner.snapshot.load();
        let has = |u: &&Arc<Upstream>| u.settings.nodes.iter().any(|node| node.address == *name);
        for upstream in snapshot.upstreams.iter().filter(has) {
            let labels = [upstream.settings.name.as_str(), "dns", result];
            self.inner.metrics.discovery.with_label_values(&labels).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> Vec<SocketAddr> {
        last.iter().map(|n| SocketAddr::from(([10, 0, 0, *n], 13000))).collect()
    }

    fn learn(names: &mut Names, answer: Result<&[u8], &str>) -> bool {
        names.learn(("app:13000".into(), answer.map(addresses).map_err(String::from)))
    }

    #[test]
    fn an_address_goes_after_two_answers_without_it_and_comes_at_once() {
        let mut names = Names::default();
        let set = |names: &Names| names.resolved()["app:13000"].clone().unwrap();
        assert!(learn(&mut names, Ok(&[2, 1])));
        assert_eq!(set(&names), addresses(&[1, 2]));
        assert!(learn(&mut names, Ok(&[2, 3])));
        assert_eq!(set(&names), addresses(&[1, 2, 3]));
        assert!(learn(&mut names, Ok(&[2, 3])));
        assert_eq!(set(&names), addresses(&[2, 3]));
        // Back in between: the count begins anew.
        for (answer, changed) in [([2, 2], false), ([2, 3], false), ([2, 2], false)] {
            assert_eq!(learn(&mut names, Ok(&answer)), changed);
        }
        assert_eq!(set(&names), addresses(&[2, 3]));
    }

    #[test]
    fn an_error_keeps_the_last_set_and_is_the_reason_before_the_first() {
        let mut names = Names::default();
        assert!(!learn(&mut names, Err("no such host")));
        assert_eq!(names.resolved()["app:13000"], Err("no such host".into()));
        assert!(learn(&mut names, Ok(&[1])));
        assert!(!learn(&mut names, Err("server failure")));
        assert_eq!(names.resolved()["app:13000"], Ok(addresses(&[1])));
    }

    #[test]
    fn of_two_families_ipv4_is_used() {
        let both: BTreeSet<SocketAddr> =
            ["[::1]:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()].into();
        assert_eq!(one_family(both), Ok(vec!["127.0.0.1:80".parse().unwrap()]));
        assert!(one_family(BTreeSet::new()).is_err());
    }

    #[tokio::test]
    async fn a_real_name_is_looked_up() {
        let answers = look_up(["localhost:13000".into(), "no such host:1".into()]).await;
        let of = |name: &str| answers.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert!(of("localhost:13000").unwrap().iter().all(|a| a.ip().is_loopback()));
        assert!(of("no such host:1").is_err());
    }
}
