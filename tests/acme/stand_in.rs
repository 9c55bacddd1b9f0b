//! An authority that takes as long as a test wants, which pebble cannot. It believes whatever it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use cobalance::tls::provider;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::origin::{field, read_head};
use crate::support::tls::Authority;

/// One with a single order, at which nobody has to prove anything.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    desk: Arc<Mutex<Desk>>,
}

#[derive(Default)]
struct Desk {
    /// Of the order.
    status: &'static str,
    chain: String,
    /// Paths, in order.
    asked: Vec<String>,
}

impl StandIn {
    pub(crate) fn start(authority: &Authority) -> StandIn {
        let pair = authority.issue("stand-in", &["localhost"]);
        let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap().map(Result::unwrap);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect(), PrivateKeyDer::from_pem_file(&pair.key).unwrap());
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Arc::new(Mutex::new(Desk { status: "ready", ..Desk::default() }));
        let shared = desk.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, desk) = (config.clone(), shared.clone());
                std::thread::spawn(move || serve(stream.unwrap(), config, &desk));
            }
        });
        StandIn { address, desk }
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.desk.lock().asked.iter().filter(|asked| *asked == path).count()
    }

    /// As if the request had not come.
    pub(crate) fn lose_request(&self) {
        self.desk.lock().status = "ready";
    }

    /// As if nothing had been ordered.
    pub(crate) fn lose_order(&self) {
        self.desk.lock().status = "unknown";
    }

    /// The order is done.
    pub(crate) fn issue(&self, chain: String) {
        let mut desk = self.desk.lock();
        (desk.status, desk.chain) = ("valid", chain);
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, desk: &Mutex<Desk>) {
    let base = format!("https://localhost:{}", stream.local_addr().unwrap().port());
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    while let Some(head) = read_head(&mut stream) {
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let path = head.split(' ').nth(1).unwrap();
        let (status, fields, mut body) = desk.lock().answer(path, &base);
        let length = body.len();
        if head.starts_with("HEAD ") {
            body.clear();
        }
        let answer = format!(
            "HTTP/1.1 {status} X\r\nReplay-Nonce: n\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl Desk {
    /// Status, fields and body.
    fn answer(&mut self, path: &str, base: &str) -> (u16, String, String) {
        self.asked.push(path.to_owned());
        match path {
            "/dir" => {
                let at = |path| format!("{base}/{path}");
                let all = serde_json::json!({
                    "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order"),
                });
                (200, String::new(), all.to_string())
            }
            "/nonce" => (200, String::new(), String::new()),
            "/account" => (201, format!("Location: {base}/account/1\r\n"), "{}".into()),
            "/order/1" if self.status == "unknown" => {
                let malformed = "urn:ietf:params:acme:error:malformed";
                let problem = serde_json::json!({ "type": malformed, "status": 404 });
                (404, String::new(), problem.to_string())
            }
            "/order" => {
                self.status = "ready";
                (201, format!("Location: {base}/order/1\r\n"), self.order(base))
            }
            "/finalize" => {
                self.status = "processing";
                (200, String::new(), self.order(base))
            }
            "/order/1" if self.status == "processing" => {
                (200, "Retry-After: 300\r\n".into(), self.order(base))
            }
            "/order/1" => (200, String::new(), self.order(base)),
            "/chain" => (200, String::new(), self.chain.clone()),
            _ => (404, String::new(), "{}".into()),
        }
    }

    fn order(&self, base: &str) -> String {
        let chain = (self.status == "valid").then(|| format!("{base}/chain"));
        let order = serde_json::json!({
            "status": self.status, "authorizations": [], "finalize": format!("{base}/finalize"),
            "certificate": chain,
        });
        order.to_string()
    }
}
