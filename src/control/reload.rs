//! Putting a changed file in use, as a whole or not at all.
//!
//! Reading and resolving happen beside the loop, binding and swapping in it, and waiting for the data
//! threads beside it again: probes go on all the while.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::core::{Core, Event, open_log};
use super::file::{Seen, Watch};
use super::resolve::{self, Answer};
use super::rollback::{self, By};
use super::sockets::{Bound, bind_all, of_thread};
use super::status::{ReloadResult, unix};
use super::warnings::Kind;
use super::{ConfigSource, Outcome, StartError};
use crate::config::{self, Config, Diagnostic, Source};

/// Data threads follow between two events of theirs; one that takes longer is in trouble, and a reload
/// that has been swapped is in use all the same.
const FOLLOW_WITHIN: Duration = Duration::from_secs(5);

/// A file as read.
pub struct Read {
    /// Its text.
    pub source: Source,
    /// What it means, or what is wrong with it.
    pub found: Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>>,
}

/// Reads a file with the environment of this process.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> io::Result<Read> {
    let text = std::fs::read_to_string(path)?;
    Ok(understand(path, text))
}

fn understand(path: &Path, text: String) -> Read {
    let source = Source { name: path.display().to_string(), text };
    let found = config::load(&source, &|name| std::env::var(name).ok());
    Read { source, found }
}

/// How reloads are going.
pub(super) struct Reloads {
    pub(super) source: ConfigSource,
    /// None while a look is under way.
    watch: Option<Box<Watch>>,
    pub(super) busy: bool,
    /// Who waits for the one under way, and who for the next.
    replies: Vec<oneshot::Sender<Outcome>>,
    next: Vec<oneshot::Sender<Outcome>>,
    pub(super) again: bool,
    /// Rollbacks that come when it, or an upgrade, is over.
    pub(super) rollbacks: Vec<(By, Option<rollback::Reply>)>,
    /// The last text that was tried, by whatever trigger.
    tried: Option<String>,
    pub(super) last: Option<Outcome>,
}

impl Reloads {
    /// `text` is what was loaded. It is no change; if the file has changed since, that is one.
    pub(super) fn new(source: ConfigSource, text: Option<String>) -> Reloads {
        let on_disk = || match &source {
            ConfigSource::File(path) => std::fs::read_to_string(path).ok(),
            ConfigSource::Flags => None,
        };
        let tried = text.or_else(on_disk);
        Reloads {
            source,
            watch: Some(Box::default()),
            busy: false,
            replies: Vec::new(),
            next: Vec::new(),
            again: false,
            rollbacks: Vec::new(),
            tried,
            last: None,
        }
    }
}

/// What a reload needs beside the loop.
pub(super) struct Loaded {
    read: io::Result<Read>,
    answers: Vec<Answer>,
}

impl Core {
    /// Looks whether the file has changed, on a blocking thread: it may be on a network.
    pub(super) fn look_at_file(&mut self) {
        let ConfigSource::File(path) = &self.reloads.source else { return };
        let Some(mut watch) = self.reloads.watch.take() else { return };
        let (path, events) = (path.clone(), self.inner.events.clone());
        // A reload that somebody asked for may have read another content than the last look.
        if let Some(text) = &self.reloads.tried {
            watch.tried(text);
        }
        tokio::task::spawn_blocking(move || {
            let seen = watch.look(&path);
            let _ = events.send(Event::Seen(watch, seen));
        });
    }

    pub(super) fn seen(&mut self, watch: Watch, seen: Seen) {
        self.reloads.watch = Some(Box::new(watch));
        match seen {
            Seen::Same => {}
            Seen::Changed(text) if self.reloads.tried.as_ref() == Some(&text) => {}
            Seen::Changed(_) => self.reload(None),
            Seen::Gone(error) => {
                let generation = self.inner.snapshot.load().generation;
                tracing::error!(target: "cobalance::config",
                    "the configuration cannot be read ({error}); generation {generation} stays in use");
            }
        }
    }

    /// Begins a reload. One that is asked for while another is under way begins after it.
    pub(super) fn reload(&mut self, reply: Option<oneshot::Sender<Outcome>>) {
        let refusal = match &self.reloads.source {
            _ if self.is_ending() => Some("the process is ending"),
            ConfigSource::File(_) if self.upgrade.under_way => {
                // If it fails, nothing has read the file.
                self.upgrade.reload_after = true;
                Some("an upgrade is under way, which reads the file")
            }
            ConfigSource::Flags => Some("started without a file: there is nothing to reload"),
            ConfigSource::File(_) => None,
        };
        if let Some(refusal) = refusal {
            tracing::warn!(target: "cobalance::config", "no reload: {refusal}");
            let outcome = self.outcome(ReloadResult::Invalid, Some(refusal.into()));
            return drop(reply.map(|reply| reply.send(outcome)));
        }
        if self.reloads.busy {
            self.reloads.again = true;
            self.reloads.next.extend(reply);
            return;
        }
        self.reloads.replies.extend(reply);
        self.begin();
    }

    fn begin(&mut self) {
        let ConfigSource::File(path) = self.reloads.source.clone() else { return };
        self.reloads.busy = true;
        let known: HashSet<String> = self.names.resolved().keys().cloned().collect();
        let events = self.inner.events.clone();
        tokio::spawn(async move {
            let loaded = load(path, &known).await;
            let _ = events.send(Event::Loaded(Box::new(loaded)));
        });
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        self.reloads.tried = loaded.read.as_ref().ok().map(|read| read.source.text.clone());
        if self.inner.draining.load(Ordering::Acquire) {
            // New listeners would open while the old ones close.
            return self.refuse("the process is ending".into());
        }
        let (config, warnings) = match loaded.read {
            Ok(Read { source, found: Ok((config, found)) }) => {
                (config, config::render(&found, &source, false))
            }
            Ok(Read { source, found: Err(found) }) => {
                return self.refuse(config::render(&found, &source, false));
            }
            Err(error) => return self.refuse(format!("the file cannot be read: {error}")),
        };
        for answer in loaded.answers {
            self.names.learn(answer);
        }
        let config = self.keep_threads(config);
        if config == *self.inner.snapshot.load().config {
            self.file_is_in_use();
            let outcome = self.outcome(ReloadResult::Unchanged, None);
            return self.reload_ended(outcome);
        }
        if let Some(error) = self.unpins(&config, "reload") {
            return self.refuse(error);
        }
        if !warnings.is_empty() {
            tracing::warn!(target: "cobalance::config", "the configuration has warnings\n{warnings}");
        }
        let waiting = match self.put_in_use(config) {
            Ok(waiting) => waiting,
            Err(error) => return self.refuse(error.to_string()),
        };
        self.file_is_in_use();
        self.begin_probation();
        let outcome = self.outcome(ReloadResult::Ok, None);
        let (swap, events) = (self.swaps, self.inner.events.clone());
        tokio::spawn(async move {
            followed(waiting).await;
            let _ = events.send(Event::Renewed(swap));
            let _ = events.send(Event::Followed(outcome));
        });
    }

    /// The number of data threads cannot change while they run.
    pub(super) fn keep_threads(&mut self, mut config: Config) -> Config {
        let (threads, asked) = (self.commands.len(), config.server.threads);
        if asked == threads {
            self.warnings.settle(Kind::NeedsRestart, "server.threads");
        } else {
            let message = format!(
                "`threads` is now {asked}, and {threads} run: it changes when the process is \
                 started again"
            );
            self.warn(Kind::NeedsRestart, "server.threads", message);
        }
        config.server.threads = threads;
        config
    }

    /// Everything that can fail comes first, so that nothing is half done. Returns what the data threads
    /// answer when they have followed.
    pub(super) fn put_in_use(
        &mut self,
        config: Config,
    ) -> Result<Vec<oneshot::Receiver<()>>, StartError> {
        let current = self.inner.snapshot.load_full();
        let log = open_log(&config, current.access_log.as_ref(), &self.inner.metrics)?;
        let bound = bind_all(&config.listeners, &self.bound, self.commands.len())?;
        let fresh = |new: &&Bound| {
            !self.bound.iter().any(|old| old.name == new.name && old.asked == new.asked)
        };
        let threads = self.commands.len();
        let sockets = (0..threads)
            .map(|thread| of_thread(bound.iter().filter(fresh), thread, threads))
            .collect::<io::Result<_>>()?;
        let config = Arc::new(config);
        self.names.retain(&config);
        // Copies of sockets that are no longer wanted end here, before the data threads' own.
        self.bound = bound;
        self.swap(config, log, None);
        self.announce();
        Ok(self.renew(sockets))
    }

    fn refuse(&mut self, error: String) {
        let generation = self.inner.snapshot.load().generation;
        tracing::error!(target: "cobalance::config",
            "the configuration is refused; generation {generation} stays in use\n{}", error.trim_end());
        let outcome = self.outcome(ReloadResult::Invalid, Some(error));
        self.reload_ended(outcome);
    }

    pub(super) fn reload_ended(&mut self, outcome: Outcome) {
        let result = outcome.result;
        self.inner.metrics.config_reloads.with_label_values(&[result.as_str()]).inc();
        if result == ReloadResult::Ok {
            let generation = outcome.generation;
            tracing::info!(target: "cobalance::config", generation, "the configuration is in use");
        }
        if result != ReloadResult::Invalid {
            self.inner.reloads.send_modify(|count| *count += 1);
        }
        for reply in mem::take(&mut self.reloads.replies) {
            // Whoever asked may have left.
            let _ = reply.send(outcome.clone());
        }
        self.reloads.last = Some(outcome);
        self.next_reload();
    }

    /// Others follow the configuration, as after a reload.
    pub(super) fn rollback_ended(&mut self) {
        self.inner.reloads.send_modify(|count| *count += 1);
        self.next_reload();
    }

    /// Begins what was asked for while another was under way. An operator's rollbacks come first, because a
    /// file that was written after them comes after them; those of the probation come last, because such a
    /// file may be right.
    pub(super) fn next_reload(&mut self) {
        self.reloads.busy = false;
        for (by, reply) in mem::take(&mut self.reloads.rollbacks) {
            // The second of two waits for the first.
            self.roll_back(by, reply);
        }
        if !self.reloads.busy && mem::take(&mut self.reloads.again) {
            self.reloads.replies = mem::take(&mut self.reloads.next);
            self.begin();
        }
    }

    fn outcome(&self, result: ReloadResult, error: Option<String>) -> Outcome {
        let generation = self.inner.snapshot.load().generation;
        Outcome { result, error, generation, at: unix(SystemTime::now()) }
    }
}

async fn load(path: PathBuf, known: &HashSet<String>) -> Loaded {
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let read = read.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    let answers = match &read {
        Ok(Read { found: Ok((config, _)), .. }) => {
            let names = resolve::names(config).into_iter().filter(|name| !known.contains(name));
            resolve::look_up(names).await
        }
        _ => Vec::new(),
    };
    Loaded { read, answers }
}

/// Returns when all threads have followed, or would have if they were well.
pub(super) async fn followed(waiting: Vec<oneshot::Receiver<()>>) {
    let all = async {
        for followed in waiting {
            // A thread that has died is noticed by the loop.
            let _ = followed.await;
        }
    };
    if tokio::time::timeout(FOLLOW_WITHIN, all).await.is_err() {
        tracing::error!(target: "cobalance::config", "a data thread has not followed yet");
    }
}
