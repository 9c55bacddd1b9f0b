//! Listening on a Unix socket: its file, who may connect, and what becomes of the file.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

use super::BACKLOG;

/// The file of a socket. Dropping it removes the file, if that is this process's to do and still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Which file it is; none if it could not be looked at.
    identity: Option<(u64, u64)>,
    ours: AtomicBool,
}

/// Listens at `path`, with the permissions `mode` from the first moment on. What a process has left there that
/// is gone is replaced.
///
/// # Errors
/// Somebody listens there (`AddrInUse`), something else is there (`AlreadyExists`), or the directory is not
/// there or not ours to write to.
pub(super) fn bind(path: &str, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let path = Path::new(path);
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the socket's own permissions, less the umask: nobody can connect in between who may not
    // later. (unix(7) does not tell; `unix_bind_bsd` in the kernel's net/unix/af_unix.c does.)
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path, true);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Removes a socket's file that nobody listens on. Between this and the bind lie some microseconds in which
/// two processes that start at once could both succeed; they would have raced for the path anyway.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            let what = "something that is no socket is there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) => {}
    }
    let asking = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full says so, instead of letting us wait.
    asking.set_nonblocking(true)?;
    match asking.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!("{} was left by a process that is gone: replaced", path.display());
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // It listens, or is of another kind: somebody's in either case.
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl SocketFile {
    fn of(path: &Path, ours: bool) -> SocketFile {
        let identity = identity(path);
        SocketFile { path: path.into(), identity, ours: AtomicBool::new(ours) }
    }

    /// One of a process that has handed it over and may yet go on.
    pub(super) fn of_other(path: &Path) -> SocketFile {
        SocketFile::of(path, false)
    }

    /// Whether it is this process that removes it at the end.
    pub(super) fn own(&self, ours: bool) {
        self.ours.store(ours, Relaxed);
    }

    /// Sets who may connect.
    pub(super) fn set_mode(&self, mode: u32) {
        if !self.is_there() {
            return;
        }
        if let Err(error) = fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)) {
            tracing::warn!(%error, "{} keeps its permissions", self.path.display());
        }
    }

    /// Whether what is at the path is still this file, and not another's.
    fn is_there(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours.load(Relaxed) && self.is_there() {
            // If it cannot be removed, the next start finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn path() -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock").to_str().unwrap().to_owned();
        (directory, path)
    }

    fn mode(path: &str) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_its_listener() {
        let (_directory, path) = path();
        let (socket, file) = bind(&path, 0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
        file.set_mode(0o600);
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(fs::exists(&path).unwrap());
        drop(file);
        assert!(!fs::exists(&path).unwrap());
    }

    #[test]
    fn a_stale_file_is_replaced_and_one_in_use_is_not() {
        let (_directory, path) = path();
        let (socket, file) = bind(&path, 0o600).unwrap();
        let error = bind(&path, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // As a process that was killed leaves it.
        file.own(false);
        drop((socket, file));
        assert!(fs::exists(&path).unwrap());
        let (_socket, _file) = bind(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let (_directory, path) = path();
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(bind("/nowhere/x", 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_file_of_somebody_else_is_left_alone() {
        let (_directory, path) = path();
        let (_socket, file) = bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        file.set_mode(0o777);
        assert_ne!(mode(&path), 0o777);
        drop(file);
        assert!(fs::exists(&path).unwrap());
    }
}
