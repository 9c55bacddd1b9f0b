//! Listening on a Unix socket: its file, who may connect, and what becomes of the file.
//!
//! A socket is made under another name, given its mode, and only then put in its place, by a rename: so it is
//! never there with more rights than it should have, never half, and takes the place of an earlier one in one
//! step.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a socket. Dropping it removes the file, if that is this process's to do and still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Where it is until it is put in its place.
    interim: PathBuf,
    /// Device and inode, by which it is known again; none if it could not be looked at.
    identity: Option<(u64, u64)>,
    ours: AtomicBool,
}

impl SocketFile {
    /// Listens, but not yet at `path`: [`SocketFile::put`] comes next. The socket does not block.
    ///
    /// # Errors
    /// Something that is no socket is there (`AlreadyExists`), or the directory is not there or not ours to
    /// write to.
    pub fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, SocketFile)> {
        no_other_file(path)?;
        sweep(path);
        let interim = interim(path);
        // Of an earlier process of this number that was killed in between.
        if is_socket(&interim) {
            fs::remove_file(&interim)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&interim)?)?;
        let identity = identity(&interim);
        let ours = AtomicBool::new(true);
        let file = SocketFile { path: path.to_owned(), interim, identity, ours };
        fs::set_permissions(&file.interim, fs::Permissions::from_mode(mode))?;
        // Not before: until now nobody could connect.
        socket.listen(backlog)?;
        Ok((socket.into(), file))
    }

    /// Of a socket that another process has handed over and may yet go on with. `known` is what it says which
    /// file that is; one that does not say has what is there.
    pub fn of_other(path: &Path, known: Option<(u64, u64)>) -> SocketFile {
        let (identity, ours) = (known.or_else(|| identity(path)), AtomicBool::new(false));
        SocketFile { path: path.to_owned(), interim: interim(path), identity, ours }
    }

    /// Whether a socket can be put there. Between this and that lie some microseconds in which two processes
    /// that start at once could both succeed; they would have raced for the path anyway.
    ///
    /// # Errors
    /// Somebody listens there (`AddrInUse`), there is a socket that may not be asked (`PermissionDenied`), or
    /// something that is no socket (`AlreadyExists`).
    pub fn is_free(path: &Path) -> io::Result<()> {
        no_other_file(path)?;
        let asking = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // One whose queue is full says so, instead of letting us wait.
        asking.set_nonblocking(true)?;
        match asking.connect(&SockAddr::unix(path)?) {
            Err(error) => match error.kind() {
                // Left by a process that is gone, or nothing.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
                io::ErrorKind::PermissionDenied => Err(error),
                // It listens, or is of another kind: somebody's in either case.
                _ => Err(io::ErrorKind::AddrInUse.into()),
            },
            Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        }
    }

    /// From now on whoever connects to the path comes here.
    ///
    /// # Errors
    /// The directory is gone, or not ours to write to any more.
    pub fn put(&self) -> io::Result<()> {
        fs::rename(&self.interim, &self.path)
    }

    /// Whether whoever connects to the path comes here.
    pub fn is_put(&self) -> bool {
        self.is_at(&self.path)
    }

    /// Whether it still is in its place, or on its way there: somebody may have tidied up.
    pub fn is_there(&self) -> bool {
        [&self.interim, &self.path].into_iter().any(|path| self.is_at(path))
    }

    fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && identity(path) == self.identity
    }

    /// Which file it is, by device and inode: what another process has to be told that goes on with it.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.identity
    }

    /// Whether it is this process that removes it at the end.
    pub fn own(&self, ours: bool) {
        self.ours.store(ours, Relaxed);
    }

    /// Sets who may connect, if it is in its place and this process's to change.
    ///
    /// # Errors
    /// It is not ours to change.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.ours.load(Relaxed) && self.is_put() {
            true => fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)),
            false => Ok(()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        for path in [&self.interim, &self.path] {
            if self.ours.load(Relaxed) && self.is_at(path) {
                // If it cannot be removed, the next start finds it to be nobody's.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Longer by [`super::address::INTERIM`] at most, so that it fits wherever a path does.
fn interim(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

/// Removes what processes have left on the way to `path` that were killed there: their numbers are nobody's now.
/// One of another container, whose numbers are others, is known by listening.
fn sweep(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let found = entry.file_name();
        let number = found.as_bytes().strip_prefix(name.as_bytes());
        let number = number.and_then(|rest| rest.strip_prefix(b"."));
        let number = number.and_then(|rest| std::str::from_utf8(rest).ok()?.parse().ok());
        let Some(process) = number.and_then(Pid::from_raw) else { continue };
        let ended = test_kill_process(process) == Err(Errno::SRCH);
        let there = entry.path();
        if ended && is_socket(&there) && SocketFile::is_free(&there).is_ok() {
            // If it cannot be removed, it is in nobody's way.
            let _ = fs::remove_file(there);
        }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

fn no_other_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            let what = "something that is no socket is there";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
        }
        _ => Ok(()),
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
    use crate::net::MAX_PATH;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        (directory, path)
    }

    fn listen(path: &Path, mode: u32) -> (UnixListener, SocketFile) {
        let (socket, file) = SocketFile::listen(path, mode, 8).unwrap();
        file.put().unwrap();
        (socket, file)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn kind(result: io::Result<()>) -> Option<io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn it_is_there_with_its_mode_or_not_at_all_and_goes_with_its_listener() {
        let (directory, path) = path();
        let (socket, file) = SocketFile::listen(&path, 0o666, 8).unwrap();
        assert!(!path.exists() && file.is_there() && kind(SocketFile::is_free(&path)).is_none());
        file.put().unwrap();
        assert_eq!((mode(&path), file.is_there()), (0o666, true));
        file.set_mode(0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn a_stale_file_is_replaced_and_one_in_use_is_known() {
        let (_directory, path) = path();
        let (socket, file) = listen(&path, 0o600);
        assert_eq!(kind(SocketFile::is_free(&path)), Some(io::ErrorKind::AddrInUse));
        // As a process that was killed leaves it.
        file.own(false);
        drop((socket, file));
        assert!(path.exists() && SocketFile::is_free(&path).is_ok());
        let (_socket, _file) = listen(&path, 0o600);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let (directory, path) = path();
        fs::write(&path, "precious").unwrap();
        let already = Some(io::ErrorKind::AlreadyExists);
        assert_eq!(kind(SocketFile::is_free(&path)), already);
        assert_eq!(kind(SocketFile::listen(&path, 0o600, 8).map(drop)), already);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let nowhere = directory.path().join("none/x.sock");
        let error = kind(SocketFile::listen(&nowhere, 0o600, 8).map(drop));
        assert_eq!(error, Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn the_file_of_somebody_else_is_left_alone() {
        let (_directory, path) = path();
        let (_socket, file) = listen(&path, 0o600);
        let (_other, other) = listen(&path, 0o660);
        file.set_mode(0o777).unwrap();
        assert!(!file.is_there() && mode(&path) == 0o660);
        drop(file);
        assert!(other.is_there() && path.exists());
    }

    #[test]
    fn what_a_process_left_on_its_way_is_swept_and_what_lives_stays() {
        let (directory, path) = path();
        let interim = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
        // No process has a number beyond the kernel's bound (proc(5), pid_max).
        let (dead, alive, listening, file) = (9_999_999, 1, 9_999_998, 9_999_997);
        drop(UnixListener::bind(interim(dead)).unwrap());
        drop(UnixListener::bind(interim(alive)).unwrap());
        let _other = UnixListener::bind(interim(listening)).unwrap();
        fs::write(interim(file), "precious").unwrap();
        drop(UnixListener::bind(directory.path().join("x.sock.old")).unwrap());
        let (_socket, _file) = listen(&path, 0o600);
        assert!(!interim(dead).exists());
        for left in
            [interim(alive), interim(listening), interim(file), path.with_extension("sock.old")]
        {
            assert!(left.exists(), "{}", left.display());
        }
    }

    #[test]
    fn the_longest_path_has_room_for_the_name_before() {
        let (directory, _) = path();
        let directory = directory.path().to_str().unwrap();
        let name = "x".repeat(MAX_PATH - directory.len() - 1);
        let longest = PathBuf::from(format!("{directory}/{name}"));
        listen(&longest, 0o600);
        // The largest number that a process can have.
        let interim = format!("{}.4194304", longest.display());
        assert!(SockAddr::unix(interim).is_ok());
    }
}
