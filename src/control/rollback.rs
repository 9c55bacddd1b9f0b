//! Going back to the last configuration that passed its probation.
//!
//! It is put in use as a file is: names are looked up beside the loop, and everything that can fail comes
//! first. The file on disk stays as it is, and is read when it changes next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::core::{Core, Event};
use super::drains::Drains;
use super::probation::SUBJECT;
use super::reload::followed;
use super::resolve::{self, Answer};
use super::status::unix;
use super::warnings::Kind;
use super::who::Who;
use crate::config::Config;

/// Who goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Somebody.
    Operator(Who),
    /// Cobalance itself, because `auto_rollback` says so, from this generation.
    Probation(u64),
}

impl By {
    pub(super) const LABELS: [&'static str; 2] = ["operator", "probation"];

    fn label(&self) -> &'static str {
        match self {
            By::Operator(_) => By::LABELS[0],
            By::Probation(_) => By::LABELS[1],
        }
    }

    fn words(&self) -> String {
        match self {
            By::Operator(who) => format!("the operator, from {who}"),
            By::Probation(_) => "its probation".into(),
        }
    }
}

/// A rollback that is in force: what runs is not what the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The generation that was in use before.
    pub from: u64,
    /// The generation that first had the configuration which is in use again.
    pub to: u64,
    /// The generation in use.
    pub generation: u64,
    /// Who asked.
    pub by: String,
    /// What spoke against the one before, if that is known.
    pub found: Vec<String>,
    /// In Unix seconds.
    pub at: u64,
}

impl RolledBack {
    /// What everybody must know.
    pub(super) fn message(&self) -> String {
        let RolledBack { from, to, by, .. } = self;
        format!(
            "the file on disk is not what runs: configuration {from} was rolled back to {to} by {by}. \
             Correct the file: a restart, or `cobalance reload`, takes it as it is; until then `cobalance \
             upgrade` is refused"
        )
    }
}

/// Why nothing was rolled back. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// No other one is known.
    #[error("there is nothing to go back to: no earlier configuration of this process has passed")]
    Nothing,
    /// Two who see the same trouble must not go back two steps.
    #[error(
        "configuration {from} was rolled back to {to} already, and the file has not been reloaded since"
    )]
    Already {
        /// The generation that was in use before.
        from: u64,
        /// The one that is in use again.
        to: u64,
    },
    /// What was handed over to another process must hold.
    #[error("an upgrade is under way; ask again in a moment")]
    Upgrading,
    /// Listeners are closing.
    #[error("the process is ending")]
    Ending,
    /// It cannot be put in use any more.
    #[error("configuration {0} cannot be put in use: {1}")]
    Failed(u64, String),
}

/// Who waits for a rollback.
pub(super) type Reply = oneshot::Sender<Result<RolledBack, RollbackError>>;

/// A rollback under way.
pub(super) struct Rollback {
    by: By,
    to: u64,
    config: Arc<Config>,
    answers: Vec<Answer>,
    reply: Option<Reply>,
}

impl Core {
    /// Begins a rollback. One that is asked for while a reload is under way comes after it.
    pub(super) fn roll_back(&mut self, by: By, reply: Option<Reply>) {
        match &by {
            By::Operator(_) if self.upgrade.under_way => {
                return answer(reply, Err(RollbackError::Upgrading));
            }
            // Whether it is still wanted is known when these are over: another file may be right.
            By::Probation(_) if self.upgrade.under_way || self.reloads.again => {
                return self.reloads.rollbacks.push((by, reply));
            }
            _ if self.reloads.busy => return self.reloads.rollbacks.push((by, reply)),
            By::Probation(judged) if !self.probation.is_unproven(*judged) => return,
            // It may have waited since the verdict.
            By::Probation(_) if self.keeps_disturbed() => return,
            _ => {}
        }
        let target = self.probation.target().and_then(|at| self.probation.passed.get(at));
        let target = match target {
            _ if self.inner.draining.load(Ordering::Acquire) => Err(RollbackError::Ending),
            _ if let Some(RolledBack { from, to, .. }) = self.probation.rolled_back => {
                Err(RollbackError::Already { from, to })
            }
            None => Err(RollbackError::Nothing),
            Some(target) => Ok(target),
        };
        let (to, config) = match target {
            Ok(target) => (target.generation, target.config.clone()),
            Err(error) => return answer(reply, Err(error)),
        };
        self.reloads.busy = true;
        let known = self.names.resolved();
        let names = resolve::names(&config);
        let names: Vec<String> = names.into_iter().filter(|n| !known.contains_key(n)).collect();
        let events = self.inner.events.clone();
        tokio::spawn(async move {
            let answers = resolve::look_up(names).await;
            let rollback = Rollback { by, to, config, answers, reply };
            let _ = events.send(Event::RollingBack(Box::new(rollback)));
        });
    }

    /// Names are known: puts it in use.
    pub(super) fn rolling_back(&mut self, rollback: Rollback) {
        let Rollback { by, to, config, answers, reply } = rollback;
        for answer in answers {
            self.names.learn(answer);
        }
        let from = self.inner.snapshot.load().generation;
        let config = self.keep_threads(Arc::unwrap_or_clone(config));
        let waiting = match self.put_back(config, to) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(target: "cobalance::config", "no rollback: {error}");
                answer(reply, Err(error));
                return self.next_reload();
            }
        };
        let rolled_back = self.rolled_back(by, from, to);
        let (swap, events) = (self.swaps, self.inner.events.clone());
        tokio::spawn(async move {
            followed(waiting).await;
            let _ = events.send(Event::Renewed(swap));
            answer(reply, Ok(rolled_back));
            let _ = events.send(Event::RolledBack);
        });
    }

    /// Puts the configuration of an earlier generation in use. Returns what the data threads answer.
    fn put_back(
        &mut self,
        config: Config,
        to: u64,
    ) -> Result<Vec<oneshot::Receiver<()>>, RollbackError> {
        if self.is_ending() {
            return Err(RollbackError::Ending);
        }
        if let Some(error) = self.unpins(&config, "rollback") {
            return Err(RollbackError::Failed(to, error));
        }
        // What operators had said holds again, as if the configuration had never been gone.
        let before = self.roster.drains.clone();
        self.roster.drains.take_back(&self.probation.forgotten);
        match self.put_in_use(config) {
            Ok(waiting) => {
                self.probation.forgotten = Drains::default();
                // `put_in_use` has written the state file only if something was forgotten.
                drop(self.save());
                Ok(waiting)
            }
            Err(error) => {
                self.roster.drains = before;
                Err(RollbackError::Failed(to, error.to_string()))
            }
        }
    }

    /// Notes it, loudly.
    fn rolled_back(&mut self, by: By, from: u64, to: u64) -> RolledBack {
        let generation = self.inner.snapshot.load().generation;
        let target = self.probation.target();
        let ended = self.end_unproven();
        if let Some(ended) = &ended {
            self.resume_past(&ended.trial.before());
        }
        if let Some(at) = target {
            self.probation.passed.truncate(at + 1);
        }
        if let Some(passed) = self.probation.passed.back_mut() {
            passed.generation = generation;
        }
        let found = ended.and_then(|ended| ended.worse).unwrap_or_default();
        let at = unix(SystemTime::now());
        let rolled_back = RolledBack { from, to, generation, by: by.words(), found, at };
        let message = rolled_back.message();
        tracing::error!(target: "cobalance::config", generation, "{message}");
        self.warnings.raise(Kind::RolledBack, SUBJECT, message, SystemTime::now());
        self.inner.metrics.config_rollbacks.with_label_values(&[by.label()]).inc();
        self.inner.metrics.config_rolled_back.set(1);
        self.probation.rolled_back = Some(rolled_back.clone());
        rolled_back
    }

    /// What the file says is what runs.
    pub(super) fn file_is_in_use(&mut self) {
        if self.probation.rolled_back.take().is_some() {
            tracing::info!(target: "cobalance::config", "the file on disk is what runs again");
            self.warnings.settle(Kind::RolledBack, SUBJECT);
            self.inner.metrics.config_rolled_back.set(0);
        }
    }
}

fn answer(reply: Option<Reply>, result: Result<RolledBack, RollbackError>) {
    // Whoever asked may have left.
    drop(reply.map(|reply| reply.send(result)));
}
