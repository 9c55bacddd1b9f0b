//! One attempt: take the lock, look again, order, note what came of it.

use std::sync::Arc;
use std::time::Duration;

use super::now;
use super::order::{Job, Obtained, state};
use super::plan::{Attempts, Failure, Kind, Step, step};
use super::watched::Watched;
use crate::tls::Certificate;
use crate::tls::vault::{Folder, Lock};

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
    let result = tokio::time::timeout(WITHIN, job.run(&held)).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Unreachable, "the authority took longer than six minutes"))
    });
    let ended = blocking(move || Ok(end(&job, &held, before, result))).await;
    ended.unwrap_or_else(|failure| Outcome::unnoted(&failure))
}

enum Begun {
    Ours(Lock, Option<Attempts>),
    NotDue,
    Busy,
}

/// Takes the lock; what was due before may be done by now.
fn begin(job: &Job, mut watched: Watched) -> Result<Begun, Failure> {
    let vault = &job.asked.vault;
    vault.open().map_err(|error| state(&error))?;
    let Some(held) = vault.lock().map_err(|error| state(&error))? else { return Ok(Begun::Busy) };
    watched.look();
    let attempts = watched.attempts.get();
    Ok(match step(watched.stored.get(), attempts, &job.asked.domains, now()) {
        Step::Due => Begun::Ours(held, attempts.cloned()),
        _ => Begun::NotDue,
    })
}

/// Keeps what was obtained, or notes why nothing was.
fn end(
    job: &Job,
    held: &Lock,
    before: Option<Attempts>,
    result: Result<Obtained, Failure>,
) -> Outcome {
    let (vault, domains) = (&job.asked.vault, &job.asked.domains);
    let noted = vault.attempts(domains);
    let kept = result.and_then(|Obtained { pem, certificate }| {
        let path = vault.certificate(domains);
        vault.write(held, &path, pem.as_bytes()).map_err(|error| state(&error))?;
        Ok(certificate)
    });
    match kept {
        Ok(certificate) => {
            // One that stays counts for nothing while the certificate is good, and is too old afterwards.
            let _ = vault.remove(held, &noted);
            sweep(job, held);
            Outcome::Obtained { days: (certificate.validity().1 - now()) / 86_400 }
        }
        Err(failure) => {
            let attempts = Attempts::after(before.as_ref(), &failure, now(), fastrand::f64());
            let text = serde_json::to_vec_pretty(&attempts).unwrap_or_default();
            let noted = vault.write(held, &noted, &text).is_ok();
            Outcome::Failed { attempts, noted }
        }
    }
}

/// Removes what nobody uses any more: certificates that have been over for long, as those of domains that are not
/// ordered now, with what was noted of them.
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
}

/// File work is done where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Failure::new(Kind::State, format!("file work: {panic}"))))
}
