//! What the operator meant of certificates: loaded already, because a configuration cannot hold a bad one.

use std::path::PathBuf;
use std::sync::Arc;

use crate::tls::challenges::Kind;
use crate::tls::clients::Clients;
use crate::tls::{self, Roots, Secrets, Vault};

/// `[[certificate]]`
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Unique.
    pub name: String,
    /// PEM: the certificate, and those that signed it.
    pub chain: PathBuf,
    /// PEM: its private key. The same file where cobalance has written it.
    pub key: PathBuf,
    /// As it was when the file was read; none only where it has to be ordered first.
    pub loaded: Option<Arc<tls::Certificate>>,
    /// How it is ordered; `None`: somebody else keeps the files.
    pub order: Option<Order>,
}

impl PartialEq for Certificate {
    /// What was obtained from an authority since is no change of the configuration.
    fn eq(&self, other: &Certificate) -> bool {
        let same = |one: &Certificate| {
            (one.name.clone(), one.chain.clone(), one.key.clone(), one.order.clone())
        };
        same(self) == same(other) && (self.order.is_some() || self.loaded == other.loaded)
    }
}

/// What is asked of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Name of the authority.
    pub authority: String,
    /// 1 to 100, in lower case.
    pub domains: Vec<String>,
    /// Where it is kept.
    pub vault: Vault,
}

/// `[acme.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// The table's name.
    pub name: String,
    /// Its directory (RFC 8555, 7.1.1): an https URL.
    pub directory: String,
    /// Who is told if something is wrong: `mailto:` URLs.
    pub contact: Vec<String>,
    /// How it looks whether a name is ours.
    pub challenge: Kind,
    /// Where all that is obtained is kept; shared by replicas.
    pub state: PathBuf,
    /// PEM: who vouches for the authority's own server; `None`: whom this system trusts.
    pub ca: Option<PathBuf>,
    /// As they were when the file was read.
    pub roots: Roots,
    /// Which of its customers this is.
    pub external_account: Option<ExternalAccount>,
}

/// `external_account` of an authority (RFC 8555, 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// As the authority calls it.
    pub key_id: String,
    /// Holds the key, in base64url.
    pub key_file: PathBuf,
    /// As it was when the file was read.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// What keys of session tickets follow from, shared by replicas; `None`: a secret of this process.
    pub tickets: Option<TicketSecrets>,
    /// Clients that come without TLS are sent to HTTPS, and those that come with it are told to stay (HSTS).
    pub https_only: bool,
}

/// A file of secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct TicketSecrets {
    /// Where they are.
    pub file: PathBuf,
    /// As they were when the file was read.
    pub loaded: Secrets,
}

/// `client_auth` of a listener, unless it is `"none"`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuth {
    /// Without a certificate nobody is let in.
    pub required: bool,
    /// PEM: whose certificates are good.
    pub ca: PathBuf,
    /// As they were when the file was read.
    pub loaded: Clients,
}

/// `[upstream.NAME.tls]`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// PEM: who vouches for the nodes; `None`: whom this system trusts.
    pub ca: Option<PathBuf>,
    /// Who all nodes must be; `None`: each the host in its address.
    pub server_name: Option<String>,
    /// Name of the certificate that is shown to nodes which ask.
    pub certificate: Option<String>,
    /// As they were when the file was read.
    pub roots: Roots,
}
