//! Where what was obtained from an ACME authority is kept, shared by replicas: accounts, certificates with their
//! keys, challenges and orders that are under way, and what became of attempts.
//!
//! ```text
//! STATE/acme-v02.api.letsencrypt.org-1f2e3d4c/     one for each directory URL
//!     lock                      held by the one process that orders
//!     account.json              the account, with its key
//!     certificates/NAME.pem     key and chain; NAME is a domain, the first by the alphabet, and a hash of all
//!     attempts/NAME.json        failures, and when to try again
//!     orders/NAME.json          an order that is to be fetched still, with its key
//!     challenges/…              what every replica answers meanwhile
//! ```
//!
//! Everything in it is written by whoever holds the lock, and replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::certificate::{fingerprint, hex};
use crate::disk::{self, UNFINISHED};

/// An account, an attempt or a challenge has less than 2 KiB, a certificate with its chain some more.
const MAX_FILE: u64 = 256 * 1024;
/// More names in one folder than that are not ours: 100 domains of one order, and certificates of some years.
const MAX_NAMES: usize = 4096;
/// Of a name in a folder, which may have 255 bytes with its hash and end.
const MAX_STEM: usize = 200;

/// The part of a state directory that belongs to one authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vault {
    state: PathBuf,
    own: PathBuf,
}

/// The folders below [`Vault`]'s own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Keys and chains.
    Certificates,
    /// What became of attempts.
    Attempts,
    /// What is answered while an order is under way.
    Challenges,
    /// Orders whose certificates are still to come.
    Orders,
}

impl Folder {
    const ALL: [Folder; 4] =
        [Folder::Certificates, Folder::Attempts, Folder::Challenges, Folder::Orders];

    fn name(self) -> &'static str {
        match self {
            Folder::Certificates => "certificates",
            Folder::Attempts => "attempts",
            Folder::Challenges => "challenges",
            Folder::Orders => "orders",
        }
    }
}

/// The right to write in a vault, given back when it is dropped, or by the system when the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Vault {
    /// In a state directory, for the authority with this directory URL.
    pub fn new(state: &Path, directory: &str) -> Vault {
        let host = directory.split("://").last().unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        let hash = hex(&fingerprint(&[directory.as_bytes()]));
        let own = state.join(format!("{}-{}", plain(host), &hash[..8]));
        Vault { state: state.to_owned(), own }
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The file of a certificate for these domains, in any order.
    pub fn certificate(&self, domains: &[String]) -> PathBuf {
        self.path(Folder::Certificates, &format!("{}.pem", stem(domains)))
    }

    /// The file of what became of attempts at it.
    pub fn attempts(&self, domains: &[String]) -> PathBuf {
        self.path(Folder::Attempts, &format!("{}.json", stem(domains)))
    }

    /// The file of an order of it that is to be fetched still.
    pub fn order(&self, domains: &[String]) -> PathBuf {
        self.path(Folder::Orders, &format!("{}.json", stem(domains)))
    }

    /// The file of the account.
    pub fn account(&self) -> PathBuf {
        self.own.join("account.json")
    }

    /// A file in a folder.
    pub fn path(&self, folder: Folder, name: &str) -> PathBuf {
        self.own.join(folder.name()).join(name)
    }

    /// Looks whether everything that exists is safe for this user. What does not exist is no fault.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> io::Result<()> {
        let me = Some(rustix::process::geteuid().as_raw());
        self.places().iter().try_for_each(|path| check(path, me))
    }

    /// The same for whoever looks at a configuration for another user: ownership is that one's matter, and so is
    /// what cannot be seen.
    ///
    /// # Errors
    /// What to change.
    pub fn check_for_another(&self) -> io::Result<()> {
        let found = self.places().iter().try_for_each(|path| check(path, None));
        match found {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            found => found,
        }
    }

    fn places(&self) -> Vec<PathBuf> {
        let folders = Folder::ALL.iter().map(|folder| self.own.join(folder.name()));
        [self.state.clone(), self.own.clone()].into_iter().chain(folders).collect()
    }

    /// Makes what is missing, for this user alone, and looks at the rest.
    ///
    /// # Errors
    /// What to change.
    pub fn open(&self) -> io::Result<()> {
        self.check()?;
        for folder in Folder::ALL {
            let path = self.own.join(folder.name());
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&path).map_err(|error| {
                let path = path.display();
                io::Error::other(format!("{path} cannot be made: {error}"))
            })?;
        }
        self.check()
    }

    /// Takes the right to write. `None`: another process has it.
    ///
    /// # Errors
    /// The system's.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.own.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a file. `None`: there is none.
    ///
    /// # Errors
    /// The system's, or that it is too large to be ours.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        disk::read(path, MAX_FILE)
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, _held: &Lock, path: &Path, bytes: &[u8]) -> io::Result<()> {
        disk::replace(path, bytes)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, _held: &Lock, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The finished files of a folder, up to a bound; none if there is no folder.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self, folder: Folder) -> io::Result<Vec<PathBuf>> {
        let paths = names(&self.own.join(folder.name()))?;
        Ok(paths.into_iter().filter(|path| !is_unfinished(path)).collect())
    }

    /// Removes what was left by processes that ended while they wrote: it may hold keys.
    ///
    /// # Errors
    /// The system's.
    pub fn tidy(&self, held: &Lock) -> io::Result<()> {
        let folders = Folder::ALL.iter().map(|folder| self.own.join(folder.name()));
        for folder in folders.chain([self.own.clone()]) {
            let left = names(&folder)?.into_iter().filter(|path| is_unfinished(path));
            for path in left {
                self.remove(held, &path)?;
            }
        }
        Ok(())
    }
}

/// What is in a directory, up to a bound; nothing if there is none.
fn names(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.take(MAX_NAMES).map(|entry| Ok(entry?.path())).collect()
}

fn is_unfinished(path: &Path) -> bool {
    path.to_string_lossy().ends_with(UNFINISHED)
}

/// Whoever can write in a directory can have us show a certificate of theirs, or answer challenges for them.
fn check(path: &Path, me: Option<u32>) -> io::Result<()> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let path = path.display();
    let fault = |what: String| Err(io::Error::other(what));
    let owner = found.uid();
    if !found.is_dir() {
        return fault(format!("{path} is no directory"));
    }
    if let Some(me) = me.filter(|me| *me != owner) {
        return fault(format!(
            "{path} belongs to user {owner}, and cobalance runs as {me}: `chown {me} {path}`"
        ));
    }
    if found.mode() & 0o022 != 0 {
        return fault(format!("others can write in {path}: `chmod 700 {path}`"));
    }
    Ok(())
}

/// The same for the same domains, whatever their order; no two others have the same.
fn stem(domains: &[String]) -> String {
    let mut sorted: Vec<&[u8]> = domains.iter().map(String::as_bytes).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let hash = hex(&fingerprint(&sorted));
    let first = domains.iter().min().map_or("", String::as_str);
    format!("{}-{}", plain(first), &hash[..16])
}

/// What can be in a name of a file.
fn plain(text: &str) -> String {
    let text = text.trim_start_matches('.').chars().take(MAX_STEM);
    text.map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn domains(all: &[&str]) -> Vec<String> {
        all.iter().map(|domain| (*domain).to_owned()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn names_follow_from_the_directory_and_from_the_domains_in_any_order() {
        let at = |url: &str| Vault::new(Path::new("/s"), url);
        let vault = at("https://ca.test:14000/dir");
        let own = vault.own.to_str().unwrap();
        assert!(own.starts_with("/s/ca.test_14000-") && own.len() == 25, "{own}");
        assert_ne!(vault, at("https://ca.test:14000/other"));
        let path = vault.certificate(&domains(&["b.test", "a.test"]));
        assert_eq!(path, vault.certificate(&domains(&["a.test", "b.test", "a.test"])));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("a.test-") && name.ends_with(".pem"), "{name}");
        let end = |all: &[&str]| stem(&domains(all)).rsplit_once('-').unwrap().1.to_owned();
        assert_ne!(end(&["a.test", "b.test"]), end(&["a.testb.test"]));
        assert_eq!(plain("../../etc"), "_.._etc");
        let long = stem(&[format!("{}.test", "a".repeat(250))]);
        assert!(long.len() + ".json.4294967295.new".len() <= 255, "{}", long.len());
    }

    #[test]
    fn it_is_made_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&dir.path().join("made/here"), "https://ca.test/dir");
        vault.check().unwrap();
        vault.open().unwrap();
        vault.open().unwrap();
        assert_eq!(mode(vault.state()), 0o700);
        assert_eq!(mode(&vault.path(Folder::Challenges, "")), 0o700);
        let lock = vault.lock().unwrap().unwrap();
        vault.write(&lock, &vault.account(), b"x").unwrap();
        assert_eq!((mode(&vault.account()), mode(&vault.own.join("lock"))), (0o600, 0o600));
        let challenge = vault.path(Folder::Challenges, "a");
        vault.write(&lock, &challenge, b"x").unwrap();
        let left =
            [vault.path(Folder::Challenges, "b.7.new"), vault.own.join("account.json.7.new")];
        left.iter().for_each(|path| fs::write(path, b"").unwrap());
        assert_eq!(vault.list(Folder::Challenges).unwrap(), std::slice::from_ref(&challenge));
        vault.tidy(&lock).unwrap();
        assert!(left.iter().all(|path| !path.exists()) && vault.account().exists());
        vault.remove(&lock, &challenge).unwrap();
        vault.remove(&lock, &challenge).unwrap();
        assert_eq!(vault.read(&challenge).unwrap(), None);
    }

    #[test]
    fn a_place_that_others_can_write_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path(), "https://ca.test/dir");
        vault.open().unwrap();
        for path in [vault.state().to_owned(), vault.own.clone(), vault.own.join("challenges")] {
            for (bits, good) in [(0o755, true), (0o770, false), (0o707, false), (0o700, true)] {
                fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
                let said = vault.open().map_err(|error| error.to_string());
                let remedy = format!("`chmod 700 {}`", path.display());
                assert_eq!(vault.check_for_another().is_ok(), good);
                assert_eq!(said.is_ok(), good, "{said:?}");
                assert!(said.err().is_none_or(|said| said.contains(&remedy)));
            }
        }
        let other = check(dir.path(), Some(rustix::process::geteuid().as_raw() + 1));
        assert!(other.unwrap_err().to_string().contains("belongs to user"));
        fs::write(dir.path().join("file"), b"").unwrap();
        let file = Vault::new(&dir.path().join("file"), "https://ca.test/dir");
        assert!(file.open().unwrap_err().to_string().contains("is no directory"));
    }

    #[test]
    fn one_holds_the_lock_and_the_next_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path(), "https://ca.test/dir");
        vault.open().unwrap();
        let held = vault.lock().unwrap();
        assert!(held.is_some() && vault.lock().unwrap().is_none());
        drop(held);
        assert!(vault.lock().unwrap().is_some());
    }
}
