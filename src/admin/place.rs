//! The admin listener as a socket in the file system.

use std::io;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use crate::net::SocketFile;

/// As many as [`super::MAX_CONNECTIONS`] may wait.
const BACKLOG: i32 = 64;

/// A socket, and its place. Dropping it takes the name away, unless that is another's by now.
#[derive(Debug)]
pub(super) struct Place {
    file: SocketFile,
    listener: UnixListener,
}

impl Place {
    /// Listens, but not yet at `path`: [`Place::put`] comes next. `ours`: whoever is there gives way.
    ///
    /// # Errors
    /// Another process serves there, the directory is not there or not ours to write to, or something stands
    /// at `path` that is no socket.
    pub(super) fn listen(path: &Path, mode: u32, ours: bool) -> io::Result<Place> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("unix:{}: {}", path.display(), remedy(error)))
        };
        let free = if ours { Ok(()) } else { SocketFile::is_free(path) };
        let listening = free.and_then(|()| SocketFile::listen(path, mode, BACKLOG));
        let (listener, file) = listening.map_err(named)?;
        Ok(Place { file, listener: UnixListener::from_std(listener)? })
    }

    /// From now on whoever connects to the path comes here.
    pub(super) fn put(&self) -> io::Result<()> {
        if self.file.is_put() { Ok(()) } else { self.file.put() }
    }

    /// Whether who connects to the path still comes here.
    pub(super) fn is_put(&self) -> bool {
        self.file.is_put()
    }

    /// Whether it still is in its place, or on its way there: somebody may have tidied up.
    pub(super) fn is_there(&self) -> bool {
        self.file.is_there()
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

fn remedy(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process serves there".into(),
        io::ErrorKind::NotFound => {
            "its directory is not there: make one (`RuntimeDirectory=cobalance` in systemd's unit)"
                .into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn it_is_there_with_its_mode_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let place = Place::listen(&path, 0o600, false).unwrap();
        assert!(!path.exists());
        place.put().unwrap();
        assert_eq!(mode(), 0o600);
        let error = Place::listen(&path, 0o600, false).unwrap_err();
        assert!(error.to_string().contains("another process serves there"), "{error}");
        // A process that takes over: the name is its own from then on.
        let next = Place::listen(&path, 0o660, true).unwrap();
        assert!(place.is_there());
        next.put().unwrap();
        assert!(next.is_there() && !place.is_there());
        drop(place);
        assert_eq!(mode(), 0o660);
    }

    #[tokio::test]
    async fn what_cannot_be_is_told_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = Place::listen(&path, 0o600, false).unwrap_err().to_string();
        assert!(error.contains("no socket") && error.contains("unix:/"), "{error}");
        let error = Place::listen(&dir.path().join("none/a.sock"), 0o600, false).unwrap_err();
        assert!(error.to_string().contains("RuntimeDirectory=cobalance"), "{error}");
    }
}
