//! The admin listener as a socket in the file system: made under another name, given its mode, and only then
//! put in its place, so that it is never there with more rights than it should have, and never half.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// As many as [`super::MAX_CONNECTIONS`] may wait.
const BACKLOG: i32 = 64;

/// A socket, and its place. Dropping it takes the name away, unless that is another's by now.
#[derive(Debug)]
pub(super) struct Place {
    listener: UnixListener,
    path: PathBuf,
    /// Where it is until it is put in its place.
    interim: PathBuf,
    /// Device and inode, by which it is known again.
    identity: (u64, u64),
}

impl Place {
    /// Listens, but not yet at `path`: [`Place::put`] comes next.
    ///
    /// # Errors
    /// The directory is not there or not ours to write, or something stands at `path` that is no socket.
    pub(super) fn listen(path: &Path, mode: u32) -> io::Result<Place> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("unix:{}: {}", path.display(), remedy(error)))
        };
        Place::make(path, mode).map_err(named)
    }

    fn make(path: &Path, mode: u32) -> io::Result<Place> {
        if let Ok(there) = fs::symlink_metadata(path)
            && !there.file_type().is_socket()
        {
            return Err(io::Error::other("something is there that is no socket"));
        }
        let mut interim = path.as_os_str().to_owned();
        interim.push(format!(".{}", std::process::id()));
        let interim = PathBuf::from(interim);
        // Of an earlier process of this number that was killed in between.
        if fs::symlink_metadata(&interim).is_ok_and(|there| there.file_type().is_socket()) {
            fs::remove_file(&interim)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&interim)?)?;
        let listening = || {
            fs::set_permissions(&interim, PermissionsExt::from_mode(mode))?;
            let there = fs::symlink_metadata(&interim)?;
            // Not before: until now nobody could connect.
            socket.listen(BACKLOG)?;
            Ok((there.dev(), there.ino()))
        };
        let identity = listening().inspect_err(|_: &io::Error| drop(fs::remove_file(&interim)))?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Place { listener, path: path.to_owned(), interim, identity })
    }

    /// Whether another process answers there.
    pub(super) fn is_taken(path: &Path) -> bool {
        let Ok(address) = SockAddr::unix(path) else { return false };
        let Ok(socket) = Socket::new(Domain::UNIX, Type::STREAM, None) else { return false };
        // One with a full queue would make us wait; it is there.
        let connected = socket.set_nonblocking(true).and_then(|()| socket.connect(&address));
        match connected {
            Ok(()) => true,
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied)
            }
        }
    }

    /// From now on whoever connects to the path comes here.
    pub(super) fn put(&self) -> io::Result<()> {
        fs::rename(&self.interim, &self.path)
    }

    /// Whether it still is in its place, or on its way there: somebody may have tidied up.
    pub(super) fn is_there(&self) -> bool {
        [&self.interim, &self.path].into_iter().any(|path| self.is_ours(path))
    }

    fn is_ours(&self, path: &Path) -> bool {
        let ours = |there: fs::Metadata| (there.dev(), there.ino()) == self.identity;
        fs::symlink_metadata(path).is_ok_and(ours)
    }

    /// Where.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in [&self.interim, &self.path] {
            if self.is_ours(path) {
                // What stays is found to be nobody's by the next process.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn remedy(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "its directory is not there: make one (`RuntimeDirectory=cobalance` in systemd's unit)"
                .into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn it_is_there_with_its_mode_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let place = Place::listen(&path, 0o600).unwrap();
        assert!(!path.exists() && !Place::is_taken(&path));
        place.put().unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(Place::is_taken(&path));
        // Of another process that takes over: the name is its own by then.
        let next = Place::listen(&path, 0o660).unwrap();
        next.put().unwrap();
        drop(place);
        assert_eq!(mode(&path), 0o660);
        drop(next);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn a_socket_of_a_dead_process_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists() && !Place::is_taken(&path));
        let place = Place::listen(&path, 0o600).unwrap();
        place.put().unwrap();
        assert!(Place::is_taken(&path));
        drop(place);
        fs::write(&path, "precious").unwrap();
        let error = Place::listen(&path, 0o600).unwrap_err().to_string();
        assert!(error.contains("no socket") && error.contains("unix:/"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let error = Place::listen(&dir.path().join("none/a.sock"), 0o600).unwrap_err();
        assert!(error.to_string().contains("RuntimeDirectory=cobalance"), "{error}");
    }
}
