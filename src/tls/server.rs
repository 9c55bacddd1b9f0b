//! What a TLS listener offers.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

use super::clients::Clients;
use super::tickets::Tickets;
use super::{Resolver, Secrets, Slot, provider};

/// The protocol that is spoken above TLS, as a client names it (RFC 7301).
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";
/// The same for HTTP/2.
pub const HTTP_2: &[u8] = b"h2";

/// A TLS listener as run.
#[derive(Debug)]
pub struct Server {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// Which certificate a client gets.
    pub resolver: Arc<Resolver>,
}

impl Server {
    /// `slots` are its certificates, the first for whoever names none. Without `secrets` there are no
    /// tickets, and none where clients are asked for certificates; without `clients` nobody is. `h1` and `h2`
    /// say what is spoken; who speaks both gets HTTP/2.
    pub fn new(
        slots: Vec<Arc<Slot>>,
        secrets: Option<Secrets>,
        clients: Option<&Clients>,
        (h1, h2): (bool, bool),
    ) -> Server {
        let resolver = Arc::new(Resolver::new(slots));
        #[allow(clippy::expect_used)]
        // both are constants: the first handshake of any test proves them
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites for both versions");
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver.clone());
        let spoken = [(h2, HTTP_2), (h1, HTTP_1_1)].into_iter().filter(|(spoken, _)| *spoken);
        config.alpn_protocols = spoken.map(|(_, name)| name.to_vec()).collect();
        // A session in memory would be known to this process alone, and cost it memory; a ticket does not.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Nor does a ticket where clients show who they are: whoever came back with one would be let in by a
        // certificate that has expired since.
        if let (Some(secrets), None) = (secrets, clients) {
            config.ticketer = Arc::new(Tickets::new(secrets));
        }
        Server { config: Arc::new(config), resolver }
    }
}
