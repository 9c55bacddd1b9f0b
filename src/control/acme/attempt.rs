//! One attempt: take the lock, look again, order, note what came of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::now;
use super::order::{Job, Obtained, state};
use super::plan::{Attempts, Failure, Kind, Step, step};
use super::sent::Sent;
use super::watched::Watched;
use crate::tls::vault::{Folder, Lock};
use crate::tls::{Certificate, Problem};

/// Two waits of two minutes for the authority, and what lies between.
const WITHIN: Duration = Duration::from_secs(360);
/// Somebody may want to look at a certificate that is over; after so many seconds nobody does.
const KEEP_EXPIRED_S: i64 = 30 * 86_400;

/// How an attempt ended.
pub(in crate::control) enum Outcome {
    /// With a certificate that is good for so many days.
    Obtained { days: i64 },
    /// Somebody else has obtained one, or failed, in the meantime.
    NotDue,
    /// Another process is at it.
    Busy,
    /// Without one; `noted` where replicas and later processes can read it.
    Failed { attempts: Attempts, noted: bool },
}

impl Outcome {
    /// A defect of ours ended it.
    pub(super) fn panicked(what: &str) -> Outcome {
        Outcome::unnoted(&Failure::new(Kind::State, format!("an order ended: {what}")))
    }

    fn unnoted(failure: &Failure) -> Outcome {
        Outcome::Failed {
            attempts: Attempts::after(None, failure, now(), fastrand::f64()),
            noted: false,
        }
    }
}

/// Tries once.
pub(super) async fn attempt(job: Job, name: String) -> Outcome {
    let job = Arc::new(job);
    let (begun, watched) = (job.clone(), Watched::new(name.clone(), job.asked.clone()));
    let (held, before) = match blocking(move || begin(&begun, watched)).await {
        Ok(Begun::Ours(held, before)) => (held, before),
        Ok(Begun::NotDue) => return Outcome::NotDue,
        Ok(Begun::Busy) => return Outcome::Busy,
        Err(failure) => return Outcome::unnoted(&failure),
    };
    tracing::info!(target: "cobalance::acme", certificate = name, authority = job.authority.name,
        domains = job.asked.domains.join(", "), challenge = job.authority.challenge.as_str(),
        "a certificate is ordered");
    let held = Arc::new(held);
    let (ordered, lock) = (job.clone(), held.clone());
    // Between its questions an order reads and writes files, which may be on a network: probes must not wait for it.
    let result = blocking(move || Handle::current().block_on(within(&ordered, &lock))).await;
    let ended = blocking(move || Ok(end(&job, &held, before, result))).await;
    ended.unwrap_or_else(|failure| Outcome::unnoted(&failure))
}

async fn within(job: &Job, held: &Lock) -> Result<Obtained, Failure> {
    tokio::time::timeout(WITHIN, job.run(held)).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Unreachable, "the authority took longer than six minutes"))
    })
}

enum Begun {
    Ours(Lock, Option<Attempts>),
    NotDue,
    Busy,
}

/// Takes the lock; what was due before may be done by now. Nothing is asked for that cannot be noted first: where
/// nothing can be kept, certificates would be ordered and lost until the authority gives no more.
fn begin(job: &Job, mut watched: Watched) -> Result<Begun, Failure> {
    let vault = &job.asked.vault;
    vault.open().map_err(|error| state(&error))?;
    let Some(held) = vault.lock().map_err(|error| state(&error))? else { return Ok(Begun::Busy) };
    watched.look();
    let attempts = watched.attempts.get();
    if step(watched.stored.get(), attempts, &job.asked.domains, now()) != Step::Due {
        return Ok(Begun::NotDue);
    }
    let begun = Attempts::begun(attempts, now(), fastrand::f64());
    vault.tidy(&held).and_then(|()| note(job, &held, &begun)).map_err(|error| state(&error))?;
    Ok(Begun::Ours(held, attempts.cloned()))
}

fn note(job: &Job, held: &Lock, attempts: &Attempts) -> io::Result<()> {
    let vault = &job.asked.vault;
    let text = serde_json::to_vec_pretty(attempts)?;
    vault.write(held, &vault.attempts(&job.asked.domains), &text)
}

/// Keeps what was obtained, or notes why nothing was.
fn end(
    job: &Job,
    held: &Lock,
    before: Option<Attempts>,
    result: Result<Obtained, Failure>,
) -> Outcome {
    let (vault, domains) = (&job.asked.vault, &job.asked.domains);
    let (noted, now) = (vault.attempts(domains), now());
    // Also what an order has left that was cut off.
    job.clear(held);
    let kept = result.and_then(|Obtained { pem, certificate }| {
        let path = vault.certificate(domains);
        vault.write(held, &path, pem.as_bytes()).map_err(|error| state(&error))?;
        // As everybody will: what cannot be read would be ordered again at once.
        Certificate::read(&path, &path).map_err(|problems| state(&unreadable(&problems)))?;
        // It is here, so the order is done with; one that stays would be fetched again within its time, no later.
        let _ = vault.remove(held, &vault.order(domains));
        lasts(&certificate, domains, now).then_some(certificate).ok_or_else(over)
    });
    match kept {
        Ok(certificate) => {
            // One that stays counts for nothing while the certificate is good, and is too old afterwards.
            let _ = vault.remove(held, &noted);
            sweep(job, held);
            Outcome::Obtained { days: (certificate.validity().1 - now) / 86_400 }
        }
        Err(failure) => {
            let attempts = Attempts::after(before.as_ref(), &failure, now, fastrand::f64());
            let noted = note(job, held, &attempts).is_ok();
            Outcome::Failed { attempts, noted }
        }
    }
}

/// Whether a certificate is for some time, or would be ordered again at once, and again.
fn lasts(certificate: &Certificate, domains: &[String], now: i64) -> bool {
    step(Some(certificate), None, domains, now) != Step::Due
}

fn unreadable(problems: &[Problem]) -> io::Error {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    io::Error::other(format!("a certificate cannot be read back: {}", all.join("; ")))
}

/// It is kept all the same: clients may see it with other eyes.
fn over() -> Failure {
    let text = "the authority gave a certificate that is due already: see that the clock of this machine is right";
    Failure::new(Kind::Refused, text)
}

/// Removes what nobody uses any more: certificates that have been over for long, as those of domains that are not
/// ordered now, with what was noted of them, and orders of long ago.
fn sweep(job: &Job, held: &Lock) {
    let vault = &job.asked.vault;
    for path in vault.list(Folder::Certificates).unwrap_or_default() {
        let Ok(found) = Certificate::read(&path, &path) else { continue };
        if found.validity().1 + KEEP_EXPIRED_S < now() {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let attempts = vault.path(Folder::Attempts, &format!("{stem}.json"));
            for path in [&path, &attempts] {
                // It is looked at again after the next order.
                let _ = vault.remove(held, path);
            }
        }
    }
    for path in vault.list(Folder::Orders).unwrap_or_default() {
        let known = vault.read(&path).ok().flatten();
        if known.is_none_or(|bytes| Sent::parse(&bytes, now()).is_none()) {
            let _ = vault.remove(held, &path);
        }
    }
}

/// File work is done where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Failure::new(Kind::State, format!("file work: {panic}"))))
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::pem;
    use super::*;
    use crate::config::{Authority, Order};
    use crate::telemetry::metrics::Metrics;
    use crate::tls::challenges::Kind as Challenge;
    use crate::tls::{Challenges, Roots, Vault};

    const DAY: i64 = 86_400;

    fn job(dir: &tempfile::TempDir) -> Job {
        let (directory, state) = ("https://ca.test/dir".to_owned(), dir.path().join("state"));
        let (vault, ca) = (Vault::new(&state, &directory), dir.path().join("ca.pem"));
        std::fs::write(&ca, pem(&["ca.test"], now(), now() + DAY)).unwrap();
        let asked = Order { authority: "ca".into(), domains: vec!["a.test".into()], vault };
        let authority = Authority {
            name: "ca".into(),
            directory,
            contact: Vec::new(),
            challenge: Challenge::Http01,
            state,
            roots: Roots::read(&ca).unwrap(),
            ca: Some(ca),
            external_account: None,
        };
        let challenges = Arc::new(Challenges::new(Metrics::new().acme.answered.clone()));
        Job { authority, asked, challenges }
    }

    fn begun(job: &Job) -> Result<Begun, Failure> {
        begin(job, Watched::new("public".into(), job.asked.clone()))
    }

    fn attempts(job: &Job) -> Option<Attempts> {
        let vault = &job.asked.vault;
        Attempts::parse(&vault.read(&vault.attempts(&job.asked.domains)).unwrap()?)
    }

    fn obtained(from: i64, until: i64) -> Obtained {
        let pem = pem(&["a.test"], from, until);
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
        Obtained { pem, certificate }
    }

    #[test]
    fn what_cannot_be_noted_is_not_ordered() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir);
        let vault = &job.asked.vault;
        vault.open().unwrap();
        // No file can take the place of a directory.
        let noted = vault.attempts(&job.asked.domains);
        std::fs::create_dir(&noted).unwrap();
        let failure = begun(&job).err().unwrap();
        assert_eq!(failure.kind, Kind::State);
        std::fs::remove_dir(noted).unwrap();
        assert!(matches!(begun(&job), Ok(Begun::Ours(..))));
    }

    #[test]
    fn an_order_whose_process_ended_is_not_begun_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir);
        assert!(matches!(begun(&job), Ok(Begun::Ours(_, None))));
        // The lock is free, as when the process was killed.
        assert!(matches!(begun(&job), Ok(Begun::NotDue)));
        assert!(attempts(&job).unwrap().is_begun());
    }

    #[test]
    fn a_certificate_that_is_due_when_it_comes_is_not_ordered_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir);
        let vault = &job.asked.vault;
        let Ok(Begun::Ours(held, before)) = begun(&job) else { panic!("it is due") };
        let challenge = vault.path(Folder::Challenges, "left");
        vault.write(&held, &challenge, b"{}").unwrap();
        let old = obtained(now() - 80 * DAY, now() + 10 * DAY);
        let ended = end(&job, &held, before, Ok(old));
        assert!(
            matches!(&ended, Outcome::Failed { attempts, noted: true } if attempts.failures == 1)
        );
        assert!(attempts(&job).unwrap().error.contains("clock of this machine"));
        let kept = vault.certificate(&job.asked.domains);
        assert!(kept.exists() && !challenge.exists(), "it is used, and nothing is asked any more");
        drop(held);
        assert!(matches!(begun(&job), Ok(Begun::NotDue)));
        // The next one is better.
        let held = vault.lock().unwrap().unwrap();
        let new = obtained(now() - DAY, now() + 89 * DAY);
        assert!(matches!(end(&job, &held, None, Ok(new)), Outcome::Obtained { days: 88..=89 }));
        assert_eq!(attempts(&job), None);
    }
}
