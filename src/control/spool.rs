//! Whether slow uploads could be spooled: an operator should not learn it from the first that could not.

use std::path::Path;

use super::core::{Core, Event};
use crate::spool;

/// What a warning about it is about.
const SPOOL: &str = "spool";

impl Core {
    /// Looks, on a blocking thread, whether a file can be made where they go. What comes of it is a standing
    /// warning, or none.
    pub(super) fn look_at_spool(&mut self) {
        // A disk that hangs is not asked twice.
        if self.spool_look.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        let config = self.inner.snapshot.load().config.clone();
        let wanted = config.upstreams.iter().any(|upstream| !upstream.stream_within.is_zero());
        let events = self.inner.events.clone();
        self.spool_look = Some(tokio::task::spawn_blocking(move || {
            let directory = &config.spool.directory;
            let told = wanted.then(|| spool::look(directory).err()).flatten();
            let told = told.map(|error| not_written(directory, &error.to_string()));
            // Control may have ended in the meantime.
            let _ = events.send(Event::Degraded(SPOOL, told));
        }));
    }
}

fn not_written(directory: &Path, error: &str) -> String {
    format!(
        "slow uploads cannot be spooled in {}: {error}. They will go to nodes as they come: write \
         `directory` in `[spool]`, or `stream_within = \"0s\"` if that is meant",
        directory.display()
    )
}
