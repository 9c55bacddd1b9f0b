//! What is answered to an ACME authority that looks whether a name is ours: HTTP-01 (RFC 8555, 8.3) and
//! TLS-ALPN-01 (RFC 8737). Data threads read it, control puts it there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::provider;

/// The protocol that an authority asks for, and nothing beside it (RFC 8737, 3).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where an authority looks over HTTP; a token follows.
pub const HTTP_PATH: &str = "/.well-known/acme-challenge/";
/// Challenges that are answered at once: those of two orders with the most domains there can be.
pub const MOST: usize = 200;

/// How an authority looks whether a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A file at port 80 of the name.
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate of its own kind at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl Kind {
    /// As in the configuration, and as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Http01 => "http-01",
            Kind::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// One that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// How.
    pub kind: Kind,
    /// Whose name.
    pub domain: String,
    /// What the authority has made up.
    pub token: String,
    /// The token with the thumbprint of our account.
    pub key_authorization: String,
}

/// All that are under way. One for the process, shared by all snapshots.
pub struct Challenges {
    any: AtomicBool,
    current: ArcSwap<Answers>,
    answered: [IntCounter; 2],
}

/// What is answered to them.
#[derive(Default)]
pub struct Answers {
    all: Vec<Challenge>,
    http: HashMap<String, String>,
    tls: Option<Arc<ServerConfig>>,
}

impl Answers {
    /// Makes them: a certificate for each name to be shown over TLS. What no certificate can be made for is
    /// left out: the authority says what is wrong with it.
    pub fn new(mut all: Vec<Challenge>) -> Answers {
        all.truncate(MOST);
        let of = |kind| all.iter().filter(move |one| one.kind == kind);
        let http = of(Kind::Http01).map(|one| (one.token.clone(), one.key_authorization.clone()));
        let http = http.collect();
        let keys = of(Kind::TlsAlpn01).filter_map(|one| Some((one.domain.clone(), shown(one)?)));
        let keys: HashMap<_, _> = keys.collect();
        let tls = (!keys.is_empty()).then(|| Arc::new(server(keys)));
        Answers { http, tls, all }
    }

    /// What they answer.
    pub fn all(&self) -> &[Challenge] {
        &self.all
    }
}

impl Challenges {
    /// None at first. `answered` counts those of HTTP-01, and those of TLS-ALPN-01.
    pub fn new(answered: [IntCounter; 2]) -> Challenges {
        Challenges { any: AtomicBool::new(false), current: ArcSwap::default(), answered }
    }

    /// Counts an answer.
    pub fn count(&self, kind: Kind) {
        self.answered[kind as usize].inc();
    }

    /// Whether there are any: the only question that a request pays for at other times.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Answers these from now on.
    pub fn put(&self, answers: Answers) {
        let any = !answers.all.is_empty();
        self.current.store(Arc::new(answers));
        self.any.store(any, Ordering::Relaxed);
    }

    /// Whether exactly these are answered.
    pub fn are(&self, all: &[Challenge]) -> bool {
        self.current.load().all == all
    }

    /// Whether all of these are answered.
    pub fn have(&self, all: &[Challenge]) -> bool {
        let current = self.current.load();
        all.iter().all(|one| current.all.contains(one))
    }

    /// What is answered to a request for this path.
    pub fn http(&self, path: &[u8]) -> Option<String> {
        let token = path.strip_prefix(HTTP_PATH.as_bytes())?;
        self.current.load().http.get(str::from_utf8(token).ok()?).cloned()
    }

    /// For handshakes with an authority, while there is something to show.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.current.load().tls.clone()
    }
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} challenges", self.current.load().all.len())
    }
}

/// Who begins a connection, as far as its first message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// More has to come.
    Unknown,
    /// An authority that looks at a challenge.
    Authority,
    /// Anybody else, or nobody that makes sense.
    Other,
}

/// Looks at the first bytes of a connection.
pub fn caller(mut bytes: &[u8]) -> Caller {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        // Reading from a slice cannot fail; a full buffer can, and no honest greeting fills it.
        if acceptor.read_tls(&mut bytes).is_err() {
            return Caller::Other;
        }
    }
    match acceptor.accept() {
        Ok(None) => Caller::Unknown,
        Ok(Some(accepted)) => match asks_for_challenge(&accepted.client_hello()) {
            true => Caller::Authority,
            false => Caller::Other,
        },
        Err(_) => Caller::Other,
    }
}

fn asks_for_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|protocols| protocols.eq([ACME_TLS]))
}

/// Asks for no certificate, whatever the listener asks of clients, and lets nobody come back with a ticket.
fn server(keys: HashMap<String, Arc<CertifiedKey>>) -> ServerConfig {
    #[allow(clippy::expect_used)] // both are constants: the first handshake of any test proves them
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has suites for both versions");
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Shown(keys)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.send_tls13_tickets = 0;
    config
}

/// By the domain that is looked at.
#[derive(Debug)]
struct Shown(HashMap<String, Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }
}

/// RFC 8737, 3: self-signed, for the one name, with a digest of the key authorization.
fn shown(challenge: &Challenge) -> Option<Arc<CertifiedKey>> {
    let digest = sha2::Sha256::digest(challenge.key_authorization.as_bytes());
    let mut params = CertificateParams::new(vec![challenge.domain.clone()]).ok()?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider().key_provider.load_private_key(key.into()).ok()?;
    Some(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn challenge(kind: Kind, domain: &str, token: &str) -> Challenge {
        let (domain, token) = (domain.to_owned(), token.to_owned());
        Challenge { kind, domain, key_authorization: format!("{token}.thumb"), token }
    }

    #[test]
    fn known_tokens_are_answered_and_nothing_else() {
        let challenges = Challenges::new(Metrics::new().acme.answered.clone());
        let path = |token: &str| format!("{HTTP_PATH}{token}").into_bytes();
        assert!(!challenges.any() && challenges.http(&path("t")).is_none());
        let both =
            vec![challenge(Kind::Http01, "a.test", "t"), challenge(Kind::TlsAlpn01, "b.test", "u")];
        challenges.put(Answers::new(both.clone()));
        assert!(challenges.any() && challenges.are(&both) && challenges.tls().is_some());
        assert_eq!(challenges.http(&path("t")).as_deref(), Some("t.thumb"));
        for other in ["", "T", "t/", "u", "t?"] {
            assert_eq!(challenges.http(&path(other)), None, "{other}");
        }
        assert_eq!(challenges.http(b"/t"), None);
        challenges.put(Answers::default());
        assert!(!challenges.any() && challenges.tls().is_none());
    }

    #[test]
    fn no_more_are_answered_than_may_be() {
        let one = |n: usize| challenge(Kind::Http01, "a.test", &n.to_string());
        let answers = Answers::new((0..MOST + 5).map(one).collect());
        assert_eq!((answers.all.len(), answers.http.len()), (MOST, MOST));
    }

    #[test]
    fn the_certificate_of_a_challenge_has_its_name_and_the_digest() {
        let shown = shown(&challenge(Kind::TlsAlpn01, "b.test", "u")).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&shown.cert[0]).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert!(format!("{:?}", names.value).contains("b.test"));
        let found =
            parsed.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let found = found.unwrap();
        assert!(found.critical);
        assert_eq!(found.value[..2], [4, 32], "an octet string");
        assert_eq!(found.value[2..], sha2::Sha256::digest(b"u.thumb")[..]);
    }

    fn hello(protocols: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("b.test").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_authority_is_known_by_what_it_asks_for_however_it_comes() {
        let bytes = hello(&[ACME_TLS]);
        for end in 0..bytes.len() {
            assert_eq!(caller(&bytes[..end]), Caller::Unknown, "{end}");
        }
        assert_eq!(caller(&bytes), Caller::Authority);
        let others: [&[&[u8]]; 3] = [&[], &[b"http/1.1"], &[ACME_TLS, b"h2"]];
        for protocols in others {
            assert_eq!(caller(&hello(protocols)), Caller::Other);
        }
        assert_eq!(caller(b"GET / HTTP/1.1\r\n\r\n"), Caller::Other);
    }
}
