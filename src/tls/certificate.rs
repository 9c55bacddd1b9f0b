//! A certificate with its chain and key, read from PEM files and checked against each other.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider;

/// Files of certificates and keys have some kilobytes; a bundle of all roots has 250.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What is shown to clients: a chain, its key, and what is known of both.
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    out_of_order: Option<usize>,
    fingerprint: [u8; 32],
}

/// Which of the two files a problem is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The chain.
    Chain,
    /// The key.
    Key,
}

/// Why a certificate cannot be used. Repeats nothing of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub part: Part,
    /// What is wrong there.
    pub what: String,
    /// The remedy.
    pub help: String,
}

impl Problem {
    fn new(part: Part, what: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem { part, what: what.into(), help: help.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = match self.part {
            Part::Chain => "chain",
            Part::Key => "key",
        };
        write!(f, "{part}: {}", self.what)
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// All that keeps them from being used together.
    pub fn read(chain: &Path, key: &Path) -> Result<Certificate, Vec<Problem>> {
        let unreadable = |part, error: io::Error| {
            let help = "write the path of a PEM file that this user may read";
            Problem::new(part, format!("it cannot be read: {error}"), help)
        };
        let chain = read_file(chain).map_err(|error| unreadable(Part::Chain, error));
        let key = read_file(key).map_err(|error| unreadable(Part::Key, error));
        match (chain, key) {
            (Ok(chain), Ok(key)) => Certificate::from_pem(&chain, &key),
            (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
        }
    }

    /// The same from what is in the files.
    ///
    /// # Errors
    /// All that keeps them from being used together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, Vec<Problem>> {
        let fingerprint = fingerprint(&[chain, key]);
        let (chain, key) = match (certificates(chain), private_key(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let facts = Facts::of(&chain).map_err(|problem| vec![problem])?;
        let key = certified(chain, key).map_err(|problem| vec![problem])?;
        let Facts { names, not_before, not_after, out_of_order } = facts;
        let key = Arc::new(key);
        Ok(Certificate { key, names, not_before, not_after, out_of_order, fingerprint })
    }

    /// For handshakes.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The DNS names it is for, in lower case; `*.example.com` is one label before it.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Begin and end of its validity, in Unix seconds.
    pub fn validity(&self) -> (i64, i64) {
        (self.not_before, self.not_after)
    }

    /// Whether it is for the same names as another and was issued after it.
    pub fn outlives(&self, other: &Certificate) -> bool {
        self.names == other.names && self.not_before > other.not_before
    }

    /// Whether it is for all of these domains.
    pub fn covers(&self, domains: &[String]) -> bool {
        domains.iter().all(|domain| self.names.contains(domain))
    }

    /// The first certificate of the chain (1 is the second) that did not sign the one before it.
    pub fn out_of_order(&self) -> Option<usize> {
        self.out_of_order
    }

    /// SHA-256 of both files.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Certificate) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Reads a file of PEM, up to a bound.
///
/// # Errors
/// The system's, or that it is too large.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE {
        return Err(io::Error::other("larger than any file of certificates"));
    }
    std::fs::read(path)
}

/// All certificates of a PEM file; at least one.
///
/// # Errors
/// Nothing in it is one, or it is broken.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let help = "write the path of a PEM file that begins with `-----BEGIN CERTIFICATE-----`";
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if found.is_empty() => {
            Err(Problem::new(Part::Chain, "there is no certificate in it", help))
        }
        Ok(found) => Ok(found),
        Err(_) => Err(Problem::new(Part::Chain, "it is no whole PEM file", help)),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    if memchr::memmem::find(pem, b"ENCRYPTED").is_some() {
        let help = "decrypt it: `openssl pkey -in KEY -out PLAIN_KEY`, and protect that file";
        return Err(Problem::new(Part::Key, "it is encrypted with a passphrase", help));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let what = match error {
            pem::Error::NoItemsFound => "there is no private key in it",
            _ => "it is no whole PEM file",
        };
        let help = "write the path of a PEM file that has `-----BEGIN PRIVATE KEY-----`";
        Problem::new(Part::Key, what, help)
    })
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Problem> {
    use rustls::Error::InconsistentKeys;
    let key = provider().key_provider.load_private_key(key).map_err(|_| {
        let help = "use a key of RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or Ed25519";
        Problem::new(Part::Key, "it is no private key of a known kind", help)
    })?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        // Some signers do not tell their public key, and then it cannot be compared.
        Ok(()) | Err(InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(_) => {
            let other = (1..key.cert.len()).find(|nth| {
                let one = CertifiedKey::new(vec![key.cert[*nth].clone()], key.key.clone());
                one.keys_match().is_ok()
            });
            Err(match other {
                Some(nth) => Problem::new(
                    Part::Chain,
                    format!("the key belongs to certificate {} of it, not to the first", nth + 1),
                    "put the server's own certificate first, then the one that signed it",
                ),
                None => Problem::new(
                    Part::Key,
                    "it does not belong to the first certificate of the chain",
                    "write the key that this certificate was requested with",
                ),
            })
        }
    }
}

/// What a chain says of itself.
struct Facts {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    out_of_order: Option<usize>,
}

impl Facts {
    fn of(chain: &[CertificateDer<'_>]) -> Result<Facts, Problem> {
        let mut parsed = Vec::with_capacity(chain.len());
        for (nth, der) in chain.iter().enumerate() {
            let (_, one) = X509Certificate::from_der(der).map_err(|_| {
                let what = format!("certificate {} of it is no X.509 certificate", nth + 1);
                Problem::new(Part::Chain, what, "fetch it again from whoever issued it")
            })?;
            parsed.push(one);
        }
        let leaf = &parsed[0];
        let names = leaf.subject_alternative_name().ok().flatten();
        let names = names.into_iter().flat_map(|names| &names.value.general_names);
        let validity = leaf.validity();
        Ok(Facts {
            names: names.filter_map(dns_name).collect(),
            not_before: validity.not_before.timestamp(),
            // A chain ends with the first of its certificates.
            not_after: parsed
                .iter()
                .map(|one| one.validity().not_after.timestamp())
                .min()
                .unwrap_or(i64::MAX),
            out_of_order: (1..parsed.len())
                .find(|nth| parsed[nth - 1].issuer() != parsed[*nth].subject()),
        })
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

/// SHA-256 of texts one after the other, each with its length.
pub fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA-256 of a certificate as it is, which is what others call its fingerprint.
pub fn fingerprint_of(der: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(der).into()
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
