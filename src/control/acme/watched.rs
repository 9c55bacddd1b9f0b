//! What is looked at twice a second: the state directories that this process shares with its replicas.

use std::path::Path;
use std::sync::Arc;

use super::plan::Attempts;
use crate::config::{Config, Order};
use crate::control::file::{Identity, identity};
use crate::tls::challenges::{Answers, Challenge, Challenges, MOST};
use crate::tls::vault::Folder;
use crate::tls::{Certificate, Vault};

/// All certificates that are ordered, as they were seen last.
#[derive(Default)]
pub(in crate::control) struct Watch {
    pub(super) all: Vec<Watched>,
}

/// One of them.
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) order: Order,
    pub(super) stored: Cached<Certificate>,
    pub(super) attempts: Cached<Attempts>,
    /// What keeps its state directory from being used.
    pub(super) fault: Option<String>,
}

/// A file, read again when it is another.
#[derive(Debug)]
pub(super) struct Cached<T> {
    seen: Option<Identity>,
    value: Option<Arc<T>>,
}

impl<T> Default for Cached<T> {
    fn default() -> Cached<T> {
        Cached { seen: None, value: None }
    }
}

impl<T> Cached<T> {
    /// What is in it; none if there is none, or none that makes sense.
    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_deref()
    }

    fn look(&mut self, path: &Path, read: impl FnOnce(&Path) -> Option<T>) {
        let found = identity(path).ok();
        if found != self.seen || found.is_none() {
            self.value = found.as_ref().and_then(|_| read(path)).map(Arc::new);
            // What made no sense may have been a file system that could not be read for a moment.
            self.seen = found.filter(|_| self.value.is_some());
        }
    }
}

impl Watch {
    /// Takes those of a configuration; what was seen of each is kept.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.all);
        for certificate in &config.certificates {
            let Some(order) = &certificate.order else { continue };
            let same = |one: &Watched| one.name == certificate.name && one.order == *order;
            self.all.push(match before.iter().position(same) {
                Some(at) => before.swap_remove(at),
                None => Watched::new(certificate.name.clone(), order.clone()),
            });
        }
    }

    /// Looks once, and has the challenges answered that are found.
    pub(super) fn look(&mut self, challenges: &Challenges) {
        for one in &mut self.all {
            one.look();
        }
        let mut vaults: Vec<&Vault> = Vec::new();
        for one in self.all.iter().filter(|one| one.fault.is_none()) {
            if !vaults.contains(&&one.order.vault) {
                vaults.push(&one.order.vault);
            }
        }
        let found: Vec<Challenge> = vaults.into_iter().flat_map(read_challenges).collect();
        if !challenges.are(&found) {
            challenges.put(Answers::new(found));
        }
    }
}

impl Watched {
    pub(super) fn new(name: String, order: Order) -> Watched {
        Watched { name, order, stored: Cached::default(), attempts: Cached::default(), fault: None }
    }

    /// Looks at its files.
    pub(super) fn look(&mut self) {
        let Order { vault, domains, .. } = &self.order;
        self.fault = vault.check().err().map(|error| error.to_string());
        if self.fault.is_some() {
            return;
        }
        self.stored.look(&vault.certificate(domains), |path| Certificate::read(path, path).ok());
        let read = |path: &Path| Attempts::parse(&vault.read(path).ok()??);
        self.attempts.look(&vault.attempts(domains), read);
    }
}

/// Those that somebody has asked an authority to look at. One that cannot be read is none: it is just being put
/// there or taken away.
fn read_challenges(vault: &Vault) -> Vec<Challenge> {
    let mut paths = vault.list(Folder::Challenges).unwrap_or_default();
    // The same in every look, as long as they are the same.
    paths.sort_unstable();
    let read = |path: &std::path::PathBuf| serde_json::from_slice(&vault.read(path).ok()??).ok();
    paths.iter().take(MOST).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;
    use crate::tls::challenges::Kind;

    #[test]
    fn what_could_not_be_read_once_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"x").unwrap();
        let mut cached = Cached::default();
        cached.look(&path, |_| None);
        assert_eq!(cached.get(), None);
        cached.look(&path, |_| Some(1));
        assert_eq!(cached.get(), Some(&1));
        cached.look(&path, |_| panic!("it is the same"));
        std::fs::remove_file(&path).unwrap();
        cached.look(&path, |_| Some(2));
        assert_eq!(cached.get(), None);
    }

    #[test]
    fn what_another_process_puts_there_is_answered_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path(), "https://ca.test/dir");
        vault.open().unwrap();
        let order =
            Order { authority: "ca".into(), domains: vec!["a.test".into()], vault: vault.clone() };
        let mut watch = Watch::default();
        watch.all.push(Watched::new("a".into(), order.clone()));
        watch.all.push(Watched::new("b".into(), order));
        let challenges = Challenges::new(Metrics::new().acme.answered.clone());
        watch.look(&challenges);
        assert!(!challenges.any());
        let challenge = Challenge {
            kind: Kind::Http01,
            domain: "a.test".into(),
            token: "t".into(),
            key_authorization: "t.x".into(),
        };
        let lock = vault.lock().unwrap().unwrap();
        let path = vault.path(Folder::Challenges, "t");
        vault.write(&lock, &path, &serde_json::to_vec(&challenge).unwrap()).unwrap();
        vault.write(&lock, &vault.path(Folder::Challenges, "u"), b"nonsense").unwrap();
        watch.look(&challenges);
        assert!(challenges.are(&[challenge]), "{challenges:?}");
        vault.remove(&lock, &path).unwrap();
        watch.look(&challenges);
        assert!(!challenges.any());
    }
}
