//! How nodes are spoken to over TLS, and how it is made sure that they are who they should be.

use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SignatureScheme};

use super::clients::read_roots;
use super::{Problem, Slot, provider};

/// Who vouches for nodes.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    fingerprint: [u8; 32],
}

impl Roots {
    /// The operator's own.
    ///
    /// # Errors
    /// The file is none of roots.
    pub fn read(ca: &Path) -> Result<Roots, Problem> {
        let (store, fingerprint) = read_roots(ca)?;
        Ok(Roots { store: Arc::new(store), fingerprint })
    }

    /// Those of this system; none if it has none.
    pub fn of_system() -> Option<Roots> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let roots = Roots { store: Arc::new(store), fingerprint: [0; 32] };
        (!roots.store.is_empty()).then_some(roots)
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Roots) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} roots", self.store.len())
    }
}

/// For handshakes with the nodes of one upstream. `own` is what it shows to nodes that ask; with `http2` that
/// is what is spoken, and nothing else.
pub fn client(roots: &Roots, own: Option<Arc<Slot>>, http2: bool) -> Arc<ClientConfig> {
    #[allow(clippy::expect_used)] // both are constants: the first handshake of any test proves them
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites for both versions")
        .with_root_certificates(roots.store.clone());
    let mut config = match own {
        Some(slot) => builder.with_client_cert_resolver(Arc::new(Own(slot))),
        None => builder.with_no_client_auth(),
    };
    let spoken = if http2 { super::server::HTTP_2 } else { super::server::HTTP_1_1 };
    config.alpn_protocols = vec![spoken.to_vec()];
    Arc::new(config)
}

/// What is shown follows the file.
#[derive(Debug)]
struct Own(Arc<Slot>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.get()?.key().clone();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// One node over TLS.
#[derive(Clone, Debug)]
pub struct Towards {
    /// What is asked of it, and shown to it.
    pub config: Arc<ClientConfig>,
    /// Who it must be.
    pub name: ServerName<'static>,
}

impl PartialEq for Towards {
    fn eq(&self, other: &Towards) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Towards {}

/// Who must be at a node's address, if nothing else is said: the host in it. `None`: it cannot be in a
/// certificate.
pub fn name_of(address: &str) -> Option<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_host() {
        for (address, name) in
            [("app_1:13000", "app_1"), ("10.0.0.1:80", "10.0.0.1"), ("[::1]:80", "::1")]
        {
            assert_eq!(name_of(address).unwrap().to_str(), name);
        }
        assert_eq!(name_of("-:80"), None);
    }
}
