//! Certificates and crypto: what a listener shows to its clients, what it asks of them, and how upstreams
//! are verified. Knows no sockets; the streams are `net::Secure`.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub mod certificate;
pub mod challenges;
pub mod clients;
pub mod names;
pub mod server;
pub mod tickets;
pub mod upstream;
pub mod vault;

pub use certificate::{Certificate, Part, Problem};
pub use challenges::Challenges;
pub use names::{Resolver, Slot};
pub use server::{HTTP_2, Server};
pub use tickets::Secrets;
pub use upstream::{Roots, Towards};
pub use vault::Vault;

/// The one provider of this process, passed to all that asks for one: nothing is installed as a default
/// that another library could change.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
});

/// aws-lc, with X25519MLKEM768 before all other groups: what is recorded today must not be read when
/// quantum computers can.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}
