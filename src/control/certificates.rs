//! Certificates that are renewed: their files are looked at twice a second, and a newer pair is put in use
//! beside everything that runs. Neither a reload nor a connection notices.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::core::{Core, Event};
use super::file::{Identity, identity};
use super::status::{CertificateStatus, unix};
use super::warnings::Kind;
use crate::config::{Certificate, Config, defaults};
use crate::snapshot::Snapshot;
use crate::tls;

const DAY_S: i64 = 86_400;

/// The two files of a certificate, as they were seen last.
#[derive(Debug)]
pub(super) struct Files {
    name: String,
    chain: PathBuf,
    key: PathBuf,
    settled: Option<[Identity; 2]>,
    moving: Option<[Identity; 2]>,
    /// What was last read of them, good or not.
    tried: Option<[u8; 32]>,
    /// What was in use when that was looked at last.
    in_use: Option<[u8; 32]>,
    gone: bool,
}

/// What is new of a certificate.
pub(super) struct News {
    name: String,
    /// Of which files; those of the configuration may be others by now.
    files: [PathBuf; 2],
    found: Result<tls::Certificate, String>,
}

impl Files {
    fn of(certificate: &Certificate) -> Files {
        Files {
            name: certificate.name.clone(),
            chain: certificate.chain.clone(),
            key: certificate.key.clone(),
            settled: None,
            moving: None,
            tried: certificate.loaded.as_ref().map(|loaded| *loaded.fingerprint()),
            in_use: certificate.loaded.as_ref().map(|loaded| *loaded.fingerprint()),
            // What has to be ordered first is missed by nobody.
            gone: certificate.loaded.is_none(),
        }
    }

    fn is_of(&self, certificate: &Certificate) -> bool {
        (&self.name, &self.chain, &self.key)
            == (&certificate.name, &certificate.chain, &certificate.key)
    }

    /// Takes note of what is in use. A snapshot may have brought another one, as a rollback does with the one
    /// that its configuration was read with: then what is in the files has to be read again.
    fn compare(&mut self, in_use: Option<[u8; 32]>) {
        if std::mem::replace(&mut self.in_use, in_use) != in_use {
            self.tried = in_use;
            (self.settled, self.moving) = (None, None);
        }
    }

    fn news(&mut self) -> Option<News> {
        let found = self.look()?;
        let files = [self.chain.clone(), self.key.clone()];
        Some(News { name: self.name.clone(), files, found })
    }

    /// Looks once. A change counts when both files have been the same for two looks: one is written after
    /// the other.
    fn look(&mut self) -> Option<Result<tls::Certificate, String>> {
        let found = match (identity(&self.chain), identity(&self.key)) {
            (Ok(chain), Ok(key)) => [chain, key],
            (Err(error), _) | (_, Err(error)) => {
                self.settled = None;
                let said = std::mem::replace(&mut self.gone, true);
                return (!said).then(|| Err(format!("its files cannot be read: {error}")));
            }
        };
        if self.settled.as_ref() == Some(&found) {
            return None;
        }
        if self.moving.as_ref() != Some(&found) {
            self.moving = Some(found);
            return None;
        }
        (self.settled, self.moving) = (Some(found), None);
        let was_gone = std::mem::take(&mut self.gone);
        match tls::Certificate::read(&self.chain, &self.key) {
            Ok(read) => {
                let seen = self.tried.replace(*read.fingerprint()) == Some(*read.fingerprint());
                (!seen || was_gone).then_some(Ok(read))
            }
            Err(problems) => {
                self.tried = None;
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Some(Err(all.join("; ")))
            }
        }
    }
}

/// Those that the configuration names; what was seen of each before is kept.
fn follow(files: &mut Vec<Files>, config: &Config, slots: &[Arc<tls::Slot>]) {
    files.retain(|files| config.certificates.iter().any(|one| files.is_of(one)));
    for certificate in &config.certificates {
        if !files.iter().any(|files| files.is_of(certificate)) {
            files.push(Files::of(certificate));
        }
    }
    for files in files {
        if let Some(slot) = slots.iter().find(|slot| slot.name == files.name) {
            files.compare(slot.get().map(|one| *one.fingerprint()));
        }
    }
}

impl Core {
    /// Looks at all files, on a blocking thread: they may be on a network.
    pub(super) fn look_at_certificates(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        self.tell_expiry(&snapshot);
        if snapshot.config.certificates.is_empty() {
            return;
        }
        // None while a look is under way.
        let Some(mut files) = self.certificates.take() else { return };
        follow(&mut files, &snapshot.config, &snapshot.certificates);
        let events = self.inner.events.clone();
        tokio::task::spawn_blocking(move || {
            let news = files.iter_mut().filter_map(Files::news).collect();
            let _ = events.send(Event::Certificates(files, news));
        });
    }

    /// Puts what is new in use; what is bad changes nothing.
    pub(super) fn certificates_seen(&mut self, files: Vec<Files>, news: Vec<News>) {
        self.certificates = Some(files);
        let snapshot = self.inner.snapshot.load_full();
        for News { name, files, found } in news {
            let Some(slot) = slot_of(&snapshot, &name, &files) else { continue };
            match found {
                Ok(certificate) => {
                    let days = days_left(&certificate);
                    let what = match slot.get() {
                        Some(_) => "a newer certificate is in use",
                        None => "the first certificate is in use",
                    };
                    slot.put(Arc::new(certificate));
                    let servers = snapshot.listeners.iter().filter_map(|one| one.tls.as_ref());
                    servers.for_each(|tls| tls.server.resolver.renew());
                    self.warnings.settle(Kind::CertificateFile, &name);
                    tracing::info!(target: "cobalance::tls", certificate = name, days, "{what}");
                }
                Err(error) => {
                    let left = match slot.get() {
                        Some(current) => {
                            format!("the one in use is good for {} more days", days_left(&current))
                        }
                        None => "there is no other".to_owned(),
                    };
                    let message = format!(
                        "certificate `{name}` cannot be renewed from its files ({error}); {left}"
                    );
                    self.warn(Kind::CertificateFile, &name, message);
                }
            }
        }
        self.tell_expiry(&snapshot);
    }

    /// The metric, and the warning when it is time.
    fn tell_expiry(&mut self, snapshot: &Snapshot) {
        let now = now();
        let of = |slot: &Arc<tls::Slot>| {
            let (from, until) = slot.get()?.validity();
            let certificates = &snapshot.config.certificates;
            let ordered = certificates.iter().any(|c| c.name == slot.name && c.order.is_some());
            let short = until - now < warn_before(ordered.then_some(until - from));
            Some(Expiry { name: slot.name.clone(), left: until - now, short, ordered })
        };
        let all: Vec<Expiry> = snapshot.certificates.iter().filter_map(of).collect();
        self.inner.metrics.certificates(all.iter().map(|one| (&*one.name, one.left as f64)));
        self.warnings.retain(Kind::CertificateExpiry, |subject| {
            all.iter().any(|one| one.name == subject && one.short)
        });
        let known = |subject: &str| snapshot.certificates.iter().any(|slot| slot.name == subject);
        self.warnings.retain(Kind::CertificateFile, known);
        for Expiry { name, left, ordered, .. } in all.into_iter().filter(|one| one.short) {
            let todo = match ordered {
                true => "its orders have failed for long, see there",
                false => "renew it",
            };
            let message = match left {
                ..=0 => format!("certificate `{name}` has expired, clients refuse it: {todo}"),
                _ => format!("certificate `{name}` expires in {} days: {todo}", left / DAY_S),
            };
            self.warn(Kind::CertificateExpiry, &name, message);
        }
    }
}

/// The slot that these files are for, unless the configuration has named others since they were looked at.
fn slot_of<'a>(
    snapshot: &'a Snapshot,
    name: &str,
    [chain, key]: &[PathBuf; 2],
) -> Option<&'a Arc<tls::Slot>> {
    let of_these = |one: &Certificate| one.name == name && one.chain == *chain && one.key == *key;
    let named = snapshot.config.certificates.iter().any(of_these);
    snapshot.certificates.iter().find(|slot| named && slot.name == name)
}

/// How long a certificate in use is still good.
struct Expiry {
    name: String,
    /// Seconds.
    left: i64,
    /// Time to warn.
    short: bool,
    /// From an ACME authority, by us.
    ordered: bool,
}

/// Seconds before its end that a certificate is spoken of. One that we order, of this `lifetime`, is renewed at
/// two thirds of it: when half of the rest is over, that does not work.
fn warn_before(lifetime: Option<i64>) -> i64 {
    let always = i64::try_from(defaults::CERTIFICATE_WARNING.as_secs()).unwrap_or(i64::MAX);
    lifetime.map_or(always, |lifetime| (lifetime / 6).min(always))
}

fn days_left(certificate: &tls::Certificate) -> i64 {
    (certificate.validity().1 - now()) / DAY_S
}

fn now() -> i64 {
    i64::try_from(unix(SystemTime::now())).unwrap_or(i64::MAX)
}

/// For `status`. `None`: there is none yet.
pub(super) fn status(slot: &tls::Slot) -> Option<CertificateStatus> {
    let certificate = slot.get()?;
    let (not_before, not_after) = certificate.validity();
    Some(CertificateStatus {
        name: slot.name.clone(),
        hosts: certificate.names().to_vec(),
        not_before,
        not_after,
        acme: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(one: &Certificate) -> [u8; 32] {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        std::fs::write(&one.chain, made.cert.pem()).unwrap();
        std::fs::write(&one.key, made.signing_key.serialize_pem()).unwrap();
        *tls::Certificate::read(&one.chain, &one.key).unwrap().fingerprint()
    }

    /// A certificate of the configuration whose files are in `dir`.
    fn certificate(dir: &std::path::Path) -> Certificate {
        let (chain, key) = (dir.join("a.pem"), dir.join("a.key"));
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (pem, secret) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(&chain, &pem).unwrap();
        std::fs::write(&key, &secret).unwrap();
        let loaded = tls::Certificate::from_pem(pem.as_bytes(), secret.as_bytes()).unwrap();
        Certificate { name: "a".into(), chain, key, loaded: Some(Arc::new(loaded)), order: None }
    }

    /// What is new after two looks.
    fn found(files: &mut Files) -> Option<[u8; 32]> {
        assert!(files.look().is_none(), "one look is not enough");
        files.look().map(|found| *found.unwrap().fingerprint())
    }

    #[test]
    fn what_a_snapshot_puts_back_is_renewed_again() {
        let dir = tempfile::tempdir().unwrap();
        let configured = certificate(dir.path());
        let first = configured.loaded.as_ref().map(|loaded| *loaded.fingerprint());
        let mut files = Files::of(&configured);
        files.compare(first);
        assert_eq!(found(&mut files), None, "it is in use");
        let second = write(&configured);
        assert_eq!(found(&mut files), Some(second));
        files.compare(Some(second));
        assert_eq!(found(&mut files), None);
        // A rollback brings the one that its configuration was read with.
        files.compare(first);
        assert_eq!(found(&mut files), Some(second));
        files.compare(Some(second));
        assert_eq!(found(&mut files), None);
        assert_eq!((files.look().is_none(), files.look().is_none()), (true, true));
    }

    #[test]
    fn what_was_found_at_other_paths_is_not_put_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let configured = certificate(dir.path());
        let text = format!(
            "[[certificate]]\nname = \"a\"\nchain = \"{}\"\nkey = \"{}\"\n[[listener]]\n\
             bind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n[upstream.u]\nnodes = [\"127.0.0.1:9\"]\n",
            configured.chain.display(),
            configured.key.display()
        );
        let source = crate::config::Source { name: "x".into(), text };
        let (config, _) = crate::config::load(&source, &|_| None).unwrap();
        let mut registry =
            crate::upstream::Registry::new(1, crate::telemetry::metrics::Metrics::new());
        let snapshot =
            crate::snapshot::compile(Arc::new(config), crate::snapshot::Parts::bare(&mut registry));
        let here = [configured.chain.clone(), configured.key.clone()];
        let elsewhere = [dir.path().join("old.pem"), configured.key];
        assert!(slot_of(&snapshot, "a", &here).is_some());
        assert!(slot_of(&snapshot, "a", &elsewhere).is_none());
        assert!(slot_of(&snapshot, "b", &here).is_none());
    }

    #[test]
    fn what_lives_shortly_is_spoken_of_late() {
        assert_eq!(warn_before(None), 14 * DAY_S);
        assert_eq!(warn_before(Some(90 * DAY_S)), 14 * DAY_S);
        assert_eq!(warn_before(Some(6 * DAY_S)), DAY_S);
    }
}
