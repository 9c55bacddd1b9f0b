//! Unix sockets whose file somebody has removed or replaced: who connects comes to nobody, or to somebody else.

use std::path::Path;
use std::sync::Arc;

use super::{Bound, bind_unix, of_thread, remedy};
use crate::config;
use crate::control::core::Core;
use crate::control::warnings::Kind;
use crate::net::{ListenSocket, SocketFile};

/// Before the listener's name, where a warning stands.
const SUBJECT: &str = "socket of listener ";

impl Core {
    /// Listens anew where the file of a listener's socket is gone; where something else has taken its place, a
    /// warning stands until that is gone.
    pub(in crate::control) fn look_at_socket_files(&mut self) {
        if self.is_ending() || self.upgrade.under_way || !self.inner.is_here() {
            return;
        }
        let snapshot = self.inner.snapshot.load_full();
        let mut found = Vec::new();
        let mut refused = Vec::new();
        for listener in &snapshot.config.listeners {
            let lost = |bound: &&mut Bound| bound.name == listener.name && bound.is_lost();
            let Some(bound) = self.bound.iter_mut().find(lost) else { continue };
            match bound.listen_anew(listener) {
                Ok(()) => found.push(listener.name.clone()),
                Err(message) => refused.push((format!("{SUBJECT}{}", listener.name), message)),
            }
        }
        let stands = |subject: &str| refused.iter().any(|(other, _)| other == subject);
        self.warnings
            .retain(Kind::Degraded, |subject| !subject.starts_with(SUBJECT) || stands(subject));
        for (subject, message) in refused {
            self.warn(Kind::Degraded, &subject, message);
        }
        if !found.is_empty() {
            self.accept_anew(&found);
        }
    }

    /// Gives the data threads the sockets of these listeners, in place of those they have.
    fn accept_anew(&mut self, listeners: &[String]) {
        let threads = self.commands.len();
        let new = || self.bound.iter().filter(|bound| listeners.contains(&bound.name));
        let sockets = (0..threads).map(|thread| of_thread(new(), thread, threads)).collect();
        match sockets {
            // Nobody waits for that: what is in the queues of the old sockets is served.
            Ok(sockets) => drop(self.renew(sockets)),
            Err(error) => {
                tracing::error!(%error, "sockets that were taken away cannot be accepted on again");
                let new = self.bound.iter_mut().filter(|bound| listeners.contains(&bound.name));
                new.for_each(Bound::lose);
            }
        }
    }
}

impl Bound {
    /// Whether who connects to the path of a Unix socket does not come here.
    fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|file| !file.is_there())
    }

    /// Takes the file away, which leads to nobody: the next look finds it gone.
    fn lose(&mut self) {
        self.file = None;
        self.file = self.asked.unix().map(|path| Arc::new(SocketFile::of_other(path, None)));
    }

    /// A new socket at the same path.
    ///
    /// # Errors
    /// For people: what is in the way, and what to do about it.
    fn listen_anew(&mut self, listener: &config::Listener) -> Result<(), String> {
        let path = self.asked.unix().unwrap_or_else(|| Path::new(""));
        let (socket, file) = bind_unix(path, listener.socket_mode).map_err(|error| {
            let remedy = remedy::of(&self.asked, &error);
            format!(
                "listener `{}` is reached by nobody: its socket at {} was taken away, and it cannot be bound \
                 again: {error}{remedy}; it is tried again twice a second",
                self.name, self.address
            )
        })?;
        tracing::warn!(
            listener = self.name,
            "its socket at {} was taken away: bound again",
            self.address
        );
        // The old file first, while its socket lives: see there.
        self.file = Some(Arc::new(file));
        self.sockets = vec![ListenSocket::Unix(socket)];
        Ok(())
    }
}
