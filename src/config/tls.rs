//! What the operator meant of certificates: loaded already, because a configuration cannot hold a bad one.

use std::path::PathBuf;
use std::sync::Arc;

use crate::tls::clients::Clients;
use crate::tls::{self, Roots, Secrets};

/// `[[certificate]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// Unique.
    pub name: String,
    /// PEM: the certificate, and those that signed it.
    pub chain: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// As it was when the file was read.
    pub loaded: Arc<tls::Certificate>,
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
