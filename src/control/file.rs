//! Noticing that the file of the configuration has changed.
//!
//! Watchers of the kernel miss renames and the symlink swaps of Kubernetes, so the file behind the path
//! is looked at twice a second: device, inode, time, size; then its content. A change counts once it has
//! been the same for two looks, so that a file which is just being written is not read half.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells one state of a file from another without reading it. Follows symlinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing to do.
    Same,
    /// Another content than the last one that was tried.
    Changed(String),
    /// The file can no longer be read. Said once.
    Gone(String),
}

/// Remembers what was seen of a file.
#[derive(Debug, Default)]
pub(super) struct Watch {
    settled: Option<Identity>,
    moving: Option<Identity>,
    tried: Option<u64>,
    gone: bool,
}

impl Watch {
    /// Notes that this content was the last that was tried, by whatever trigger.
    pub(super) fn tried(&mut self, text: &str) {
        self.tried = Some(hash(text));
    }

    /// Looks once. Reads the file only when its identity has changed and stayed.
    pub(super) fn look(&mut self, path: &Path) -> Seen {
        match identity(path) {
            Ok(found) if self.settled.as_ref() == Some(&found) => Seen::Same,
            Ok(found) if self.moving.as_ref() == Some(&found) => self.settle(path, found),
            Ok(found) => {
                self.moving = Some(found);
                Seen::Same
            }
            Err(error) => self.missing(&error),
        }
    }

    fn settle(&mut self, path: &Path, found: Identity) -> Seen {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.missing(&error),
        };
        self.moving = None;
        self.settled = Some(found);
        self.gone = false;
        if self.tried == Some(hash(&text)) {
            return Seen::Same;
        }
        self.tried = Some(hash(&text));
        Seen::Changed(text)
    }

    fn missing(&mut self, error: &io::Error) -> Seen {
        self.settled = None;
        if std::mem::replace(&mut self.gone, true) {
            return Seen::Same;
        }
        Seen::Gone(error.to_string())
    }
}

pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::metadata(path)?;
    Ok(Identity {
        device: found.dev(),
        inode: found.ino(),
        modified: (found.mtime(), found.mtime_nsec()),
        size: found.size(),
    })
}

fn hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn settled(path: &Path, text: &str) -> Watch {
        let mut watch = Watch::default();
        watch.tried(text);
        assert_eq!([watch.look(path), watch.look(path)], [Seen::Same, Seen::Same]);
        watch
    }

    #[test]
    fn a_change_counts_when_it_has_stayed_for_two_looks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = settled(&path, "one");
        fs::write(&path, "two, half").unwrap();
        assert_eq!(watch.look(&path), Seen::Same);
        fs::write(&path, "two, the whole of it").unwrap();
        assert_eq!(watch.look(&path), Seen::Same);
        assert_eq!(watch.look(&path), Seen::Changed("two, the whole of it".into()));
        assert_eq!(watch.look(&path), Seen::Same);
    }

    #[test]
    fn a_touched_file_of_the_same_content_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = settled(&path, "one");
        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::write(&path, "one").unwrap();
        assert_eq!([watch.look(&path), watch.look(&path)], [Seen::Same, Seen::Same]);
    }

    #[test]
    fn a_swapped_symlink_of_a_directory_is_a_change() {
        // As Kubernetes mounts a ConfigMap: c.toml -> ..data/c.toml, ..data -> ..2026_1.
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("c.toml"), text).unwrap();
        }
        symlink("..1", dir.path().join("..data")).unwrap();
        let path = dir.path().join("c.toml");
        symlink("..data/c.toml", &path).unwrap();
        let mut watch = settled(&path, "one");
        symlink("..2", dir.path().join("..tmp")).unwrap();
        fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        assert_eq!(watch.look(&path), Seen::Same);
        assert_eq!(watch.look(&path), Seen::Changed("two".into()));
    }

    #[test]
    fn a_lost_file_is_said_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = settled(&path, "one");
        fs::remove_file(&path).unwrap();
        assert!(matches!(watch.look(&path), Seen::Gone(_)));
        assert_eq!(watch.look(&path), Seen::Same);
        fs::write(&path, "two").unwrap();
        assert_eq!(watch.look(&path), Seen::Same);
        assert_eq!(watch.look(&path), Seen::Changed("two".into()));
    }
}
