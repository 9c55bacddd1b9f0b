//! Session tickets: what a client may come back with instead of a whole handshake.
//!
//! Keys follow from a secret and the time, so all threads have them without a word between them, and so have
//! replicas with the same secret. Every `EPOCH_S` another key is in use; the one before and, for replicas
//! whose clocks differ, the one after are accepted too.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use rustls::server::ProducesTickets;

use super::certificate::read_file;

/// Life of a key. Nonces are drawn at random: 2^32 tickets with one key would be too many, and no six hours
/// have them.
const EPOCH_S: u64 = 6 * 3600;
/// Bytes of the name of a key, at the begin of each ticket.
const NAME: usize = 16;
/// A secret has at least so many characters; `openssl rand -hex 32` prints 64.
const MIN_SECRET: usize = 32;
/// Secrets in one file: the one in use, and some that were.
const MAX_SECRETS: usize = 8;

/// What keys follow from. The first makes tickets, all are accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// A new one that nobody else has. None if the system has no random bytes: then there are no tickets.
    pub fn random() -> Option<Secrets> {
        let mut secret = vec![0; 32];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Some(Secrets(vec![secret]))
    }

    /// From a file: one secret in each line.
    ///
    /// # Errors
    /// What is wrong with it, without a word of what is in it.
    pub fn read(path: &Path) -> Result<Secrets, String> {
        let text = read_file(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let secrets: Vec<Vec<u8>> =
            lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        if secrets.is_empty() {
            return Err("there is no secret in it".into());
        }
        if secrets.iter().any(|secret| secret.len() < MIN_SECRET) {
            return Err(format!("a secret in it has fewer than {MIN_SECRET} characters"));
        }
        if secrets.len() > MAX_SECRETS {
            return Err(format!("there are more than {MAX_SECRETS} secrets in it"));
        }
        Ok(Secrets(secrets))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Seals and opens the tickets of listeners that ask their clients for no certificate.
pub struct Tickets {
    secrets: Secrets,
    keys: ArcSwap<Keys>,
}

/// The keys of one moment.
struct Keys {
    epoch: u64,
    /// The first seals.
    all: Vec<Key>,
}

struct Key {
    name: [u8; NAME],
    aead: RandomizedNonceKey,
}

impl Tickets {
    /// With keys that follow from these secrets.
    pub fn new(secrets: Secrets) -> Tickets {
        let keys = ArcSwap::from_pointee(Keys { epoch: u64::MAX, all: Vec::new() });
        Tickets { secrets, keys }
    }

    fn keys(&self, unix_s: u64) -> Arc<Keys> {
        let epoch = unix_s / EPOCH_S;
        let known = self.keys.load_full();
        if known.epoch == epoch {
            return known;
        }
        let epochs = [epoch, epoch.saturating_sub(1), epoch + 1];
        let all = self
            .secrets
            .0
            .iter()
            .flat_map(|secret| epochs.iter().filter_map(|epoch| Key::derive(secret, *epoch)));
        let keys = Arc::new(Keys { epoch, all: all.collect() });
        self.keys.store(keys.clone());
        keys
    }

    fn seal(&self, plain: &[u8], unix_s: u64) -> Option<Vec<u8>> {
        let keys = self.keys(unix_s);
        let key = keys.all.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + sealed.len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], unix_s: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys(unix_s);
        // Names are no secrets: every ticket shows one.
        let key = keys.all.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.aead.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

impl Key {
    fn derive(secret: &[u8], epoch: u64) -> Option<Key> {
        let prk = Salt::new(HKDF_SHA256, b"cobalance session tickets 2").extract(secret);
        let epoch = epoch.to_be_bytes();
        let expand = |what: &[u8], out: &mut [u8]| {
            let info = [what, &epoch[..]];
            // HKDF-SHA256 gives 32 bytes; a name is the first of them.
            let okm = prk.expand(&info, HKDF_SHA256).ok()?;
            let mut bytes = [0; 32];
            okm.fill(&mut bytes).ok()?;
            out.copy_from_slice(&bytes[..out.len()]);
            Some(())
        };
        let (mut name, mut key) = ([0; NAME], [0; 32]);
        expand(b"name", &mut name)?;
        expand(b"key", &mut key)?;
        Some(Key { name, aead: RandomizedNonceKey::new(&AES_256_GCM, &key).ok()? })
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        EPOCH_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, unix_s())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, unix_s())
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn secrets(lines: &[&str]) -> Secrets {
        Secrets(lines.iter().map(|line| line.as_bytes().to_vec()).collect())
    }

    fn tickets(lines: &[&str]) -> Tickets {
        Tickets::new(secrets(lines))
    }

    #[test]
    fn replicas_with_one_secret_open_each_others_tickets_for_two_epochs() {
        let (here, there) = (tickets(&["a"]), tickets(&["a"]));
        let ticket = here.seal(b"state", NOW).unwrap();
        for (at, opens) in [
            (NOW, true),
            (NOW + EPOCH_S, true),
            (NOW + 2 * EPOCH_S, false),
            (NOW - EPOCH_S, true),
            (NOW, true),
        ] {
            assert_eq!(there.open(&ticket, at).as_deref() == Some(b"state"), opens, "{at}");
        }
    }

    #[test]
    fn a_ticket_is_bound_to_its_secret() {
        let ticket = tickets(&["a"]).seal(b"state", NOW).unwrap();
        assert_eq!(tickets(&["b"]).open(&ticket, NOW), None);
        assert!(tickets(&["b", "a"]).open(&ticket, NOW).is_some(), "an older secret still opens");
        assert_ne!(ticket, tickets(&["a"]).seal(b"state", NOW).unwrap(), "nonces differ");
    }

    #[test]
    fn what_a_stranger_brings_opens_nothing() {
        let tickets = tickets(&["a"]);
        let ticket = tickets.seal(b"state", NOW).unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..length], NOW), None, "{length}");
        }
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, NOW), None, "{at}");
        }
    }

    #[test]
    fn a_file_of_secrets_is_read_by_lines_and_its_faults_name_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Secrets::read(&path)
        };
        let long = "0123456789abcdef0123456789abcdef";
        assert_eq!(read(&format!("{long}\n\n {long}x \n")).unwrap().0.len(), 2);
        for (text, fault) in [
            (String::new(), "no secret"),
            ("hunter2".to_owned(), "fewer than 32"),
            (format!("{long}\n").repeat(9), "more than 8"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(fault) && !error.contains("hunter2"), "{error}");
        }
        assert!(Secrets::read(&dir.path().join("none")).unwrap_err().contains("cannot be read"));
    }
}
