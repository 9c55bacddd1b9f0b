//! Certificates that are made for a test, and clients that verify them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cobalance::tls::provider;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use super::PATIENCE;
use super::files::put;
use super::origin::{field, read_head};

/// Signs certificates, in a directory of its own.
pub struct Authority {
    pub dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// Two files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// A client's side of a connection.
pub type Client = StreamOwned<ClientConnection, TcpStream>;

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    pub fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let root = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), root.pem()).unwrap();
        Authority { dir, root: root.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// Where its own certificate is.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a certificate for these names, good for a year and more.
    pub fn issue(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_with(file, names, |_| ())
    }

    /// The same with something changed.
    pub fn issue_with(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let pair = self.pair(file);
        // As whoever renews does it: whole files, put in place at once.
        put(&pair.chain, &signed.pem());
        put(&pair.key, &key.serialize_pem());
        pair
    }

    /// A certificate for the key of somebody else, as PEM.
    pub fn sign(&self, names: &[&str], key: &KeyPair) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// Where the files of this name are.
    pub fn pair(&self, file: &str) -> Pair {
        let path = |end: &str| self.dir.path().join(format!("{file}.{end}"));
        Pair { chain: path("pem"), key: path("key") }
    }

    /// Of a client that trusts this authority.
    pub fn client(&self) -> ClientConfig {
        self.client_with(&[&rustls::version::TLS13, &rustls::version::TLS12], None)
    }

    /// The same with these versions, and a certificate of its own.
    pub fn client_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap();
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        }
    }
}

/// A `[[certificate]]`.
pub fn table(name: &str, pair: &Pair) -> String {
    format!(
        "[[certificate]]\nname = \"{name}\"\nchain = \"{}\"\nkey = \"{}\"\n",
        pair.chain.display(),
        pair.key.display()
    )
}

/// Connects and shakes hands.
pub fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<Client> {
    connect_over(TcpStream::connect(address)?, config, name)
}

/// Shakes hands over a connection that may have said something before.
pub fn connect_over(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<Client> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
    let mut client = StreamOwned::new(session, stream);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

/// The name of the certificate that was shown: its common name, which is the file's.
pub fn shown(client: &Client) -> String {
    let chain = client.conn.peer_certificates().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    leaf.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

/// Writes a request and reads to the end of the connection, which must be said.
pub fn ask_once(client: &mut Client, request: &str) -> std::io::Result<String> {
    client.write_all(request.as_bytes())?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A node over TLS: answers its health check, requests with `hello`, and a WebSocket with an echo.
pub struct SecureOrigin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl SecureOrigin {
    /// `clients` is who must have signed the certificate of whoever connects.
    pub fn start(pair: &Pair, clients: Option<&Authority>) -> SecureOrigin {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.root.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
        let config = Arc::new(builder.with_single_cert(chain.collect(), key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections): (Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) = Default::default();
        let parts = (seen.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                parts.1.fetch_add(1, Ordering::SeqCst);
                let (config, seen) = (config.clone(), parts.0.clone());
                std::thread::spawn(move || serve(stream.unwrap(), config, &seen));
            }
        });
        SecureOrigin { address, seen, connections }
    }

    /// Heads of requests that are no probes.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, seen: &Mutex<Vec<String>>) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    while let Some(head) = read_head(&mut stream) {
        let probe = head.contains("/api/__health_check");
        if !probe {
            seen.lock().push(head.clone());
        }
        if let Some(key) = field(&head, "sec-websocket-key") {
            let accept = cobalance::http1::websocket::accept(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..n]);
            }
            return;
        }
        let body = if probe { "ok" } else { "hello" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
