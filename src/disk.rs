//! Files that are replaced as a whole, and read up to a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The end of the name of a file that is not in its place yet.
pub const UNFINISHED: &str = ".new";

/// Replaces a file, for this user alone: a process that dies in the middle leaves the old one.
///
/// # Errors
/// What the system says; the old file stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Of this process alone: another one with the same file, as during an upgrade, must not fill it as well.
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}{UNFINISHED}", std::process::id()));
    let new = PathBuf::from(new);
    let written = write(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What is left of it helps nobody; that it is not there is no other error.
        let _ = fs::remove_file(&new);
    }
    written?;
    // Else a machine that loses power may find the old name of the old file.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    // Else a machine that loses power may keep the name and not the content.
    file.sync_all()
}

/// Reads a whole file. `None`: there is none.
///
/// # Errors
/// The system's, or that it has more than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other("it is larger than any that cobalance writes"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(read(&path, 10).unwrap(), None);
        for bytes in [&b"first"[..], b"second"] {
            replace(&path, bytes).unwrap();
            assert_eq!(read(&path, 6).unwrap().as_deref(), Some(bytes));
        }
        assert!(read(&path, 5).is_err(), "one byte too many");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(replace(&dir.path().join("none/a"), b"x").is_err());
    }
}
