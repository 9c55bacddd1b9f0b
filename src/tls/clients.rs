//! Who may connect: certificates of clients, verified against roots of the operator's own.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::certificate::{Part, Problem, certificates, fingerprint, read_file};
use super::provider;

/// Verifies certificates of clients.
#[derive(Clone)]
pub struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    fingerprint: [u8; 32],
}

impl Clients {
    /// Who has a certificate that one of these roots vouches for. Not `required`: clients without any are let
    /// in too, and those with a bad one are not.
    ///
    /// # Errors
    /// The file is none of roots.
    pub fn read(ca: &Path, required: bool) -> Result<Clients, Problem> {
        let (roots, hash) = read_roots(ca)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| bad_roots(&error.to_string()))?;
        Ok(Clients { verifier, fingerprint: fingerprint(&[&[u8::from(required)], &hash]) })
    }

    /// For handshakes.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }
}

impl PartialEq for Clients {
    fn eq(&self, other: &Clients) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

/// The roots in a PEM file, and its SHA-256.
///
/// # Errors
/// It cannot be read, or nothing in it is a root.
pub fn read_roots(path: &Path) -> Result<(RootCertStore, [u8; 32]), Problem> {
    let pem = read_file(path).map_err(|error| Problem {
        part: Part::Chain,
        what: format!("it cannot be read: {error}"),
        help: "write the path of a PEM file that this user may read".into(),
    })?;
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(certificates(&pem)?);
    if roots.is_empty() {
        return Err(bad_roots(&format!("none of its {ignored} certificates can be a root")));
    }
    Ok((roots, fingerprint(&[&pem])))
}

fn bad_roots(what: &str) -> Problem {
    Problem {
        part: Part::Chain,
        what: what.to_owned(),
        help: "write the path of a PEM file with the certificates that sign others".into(),
    }
}
