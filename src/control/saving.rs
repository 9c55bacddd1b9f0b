//! The state file: what operators asked of nodes and upstreams, kept over a restart.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::StartError;
use super::core::{Core, Event};
use super::drains::{self, Drains};
use super::upgrade::Estate;
use crate::config::Config;

/// The subject of warnings about the state file.
const STATE_FILE: &str = "state_file";

/// One at a time writes the state file, and never an older state over a newer one.
#[derive(Default)]
pub(super) struct Saving {
    asked: u64,
    written: Arc<Mutex<Written>>,
}

/// The newest state that was to be written, and whether it was.
#[derive(Default)]
struct Written {
    number: u64,
    well: bool,
}

impl Core {
    /// Takes what another process has handed over, else reads the state file of the first configuration. One
    /// that is unusable is told, and gone without.
    ///
    /// # Errors
    /// What was handed over cannot be used, or has a node pinned that the configuration takes away: the
    /// process that has it goes on.
    pub(super) fn load_state(
        &mut self,
        config: &Config,
        estate: Option<&Estate>,
    ) -> Result<(), StartError> {
        match estate {
            Some(estate) => self.take_state(config, estate).map_err(StartError::Estate),
            None => {
                self.read_state(config);
                Ok(())
            }
        }
    }

    fn take_state(&mut self, config: &Config, estate: &Estate) -> io::Result<()> {
        let unusable = |error| {
            io::Error::other(format!("what operators have said cannot be understood: {error}"))
        };
        self.roster.drains = Drains::parse(&estate.state).map_err(unusable)?;
        self.unpins(config, "upgrade").map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    fn read_state(&mut self, config: &Config) {
        let Some(path) = &config.server.state_file else { return };
        match Drains::load(path) {
            Ok(drains) => self.roster.drains = drains,
            Err(error) => {
                let path = path.display();
                let message = format!(
                    "`state_file` {path} cannot be used ({error}): nodes that were drained before \
                     this start are ready, nothing is pinned, and maintenance is off; the next `drain` \
                     replaces the file"
                );
                self.degraded(STATE_FILE, Some(message));
            }
        }
    }

    /// Forgets drained nodes that are configured no more, and keeps the state where the configuration wants
    /// it now.
    pub(super) fn keep_state(&mut self, config: &Config, moved: bool) {
        let before = self.roster.drains.clone();
        let gone = self.roster.drains.retain(config);
        let ended = self.keep_maintenance(config) | self.keep_pins(config);
        for drained in &gone {
            tracing::info!(target: "cobalance::health", upstream = drained.upstream, node = drained.node,
                "configured no more, and drained no more");
        }
        if !gone.is_empty() || ended {
            // It is wanted again if the configuration turns out to be a mistake.
            self.probation.forgotten.take_back(&before.without(&self.roster.drains));
        }
        if !gone.is_empty() || ended || moved {
            // What comes of it is a warning, or none. Also nothing is written: the new place may hold what
            // was drained long ago.
            drop(self.save());
        }
    }

    /// Writes the state file on a blocking thread, if there is one; the result says whether it was written.
    pub(super) fn save(&mut self) -> Option<JoinHandle<bool>> {
        let path = self.inner.snapshot.load().config.server.state_file.clone()?;
        if !self.inner.is_here() {
            self.upgrade.owes_save = true;
            return None;
        }
        self.saving.asked += 1;
        let (asked, written) = (self.saving.asked, self.saving.written.clone());
        let (text, events) = (self.roster.drains.render(), self.inner.events.clone());
        Some(tokio::task::spawn_blocking(move || {
            write_newest(&written, asked, || {
                let saved = drains::save(&path, &text);
                let told = saved.as_ref().err().map(|error| not_saved(&path, error));
                // Control may have ended in the meantime.
                let _ = events.send(Event::Degraded(STATE_FILE, told));
                saved.is_ok()
            })
        }))
    }
}

/// Writes a state unless a newer one was to be written before; whether it is kept.
fn write_newest(written: &Mutex<Written>, asked: u64, write: impl FnOnce() -> bool) -> bool {
    let mut newest = written.lock();
    // A newer state holds what this one does, if it is there.
    if newest.number < asked {
        *newest = Written { number: asked, well: write() };
    }
    newest.well
}

/// Whether the state file was written.
pub(super) async fn saved(saving: Option<JoinHandle<bool>>) -> bool {
    match saving {
        Some(saving) => saving.await.unwrap_or(false),
        None => false,
    }
}

fn not_saved(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!(
        "`state_file` {path} cannot be written ({error}): a restart of cobalance makes drained \
         nodes ready, and ends maintenance and pins"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_state_is_not_written_and_is_as_safe_as_the_newer_one() {
        for well in [true, false] {
            let written = Mutex::default();
            assert_eq!(write_newest(&written, 2, || well), well);
            assert_eq!(write_newest(&written, 1, || panic!("it is older")), well);
            assert!(write_newest(&written, 3, || true));
        }
    }
}
