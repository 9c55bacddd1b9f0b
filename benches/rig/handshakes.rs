//! Clients that open a TLS connection for each request: what a handshake costs the proxy.
//!
//! `handshakes PORT SECONDS THREADS full|resumed` connects, shakes hands, sends one GET, reads the answer to
//! the end of the connection, and begins again, in so many threads, and tells as a line of JSON what it came
//! to. `resumed` comes back with a ticket of an earlier connection, `full` has none. TLS 1.3 alone, so that
//! all proxies do the same work; the certificate is not verified, so that the load costs little itself.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    StreamOwned,
};

/// Tickets that are kept. The library has eight for one name, so there are to be fewer threads.
const KEPT: usize = 8;
/// No answer comes later than this.
const PATIENCE: Duration = Duration::from_secs(10);

type Any = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Any> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [port, seconds, threads, kind] = given.as_slice() else {
        return Err("usage: handshakes PORT SECONDS THREADS full|resumed".into());
    };
    let (port, seconds): (u16, f64) = (port.parse()?, seconds.parse()?);
    let threads: usize = threads.parse()?;
    let resumes = kind == "resumed";
    let config = Arc::new(config(resumes)?);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let run = || {
        let mut told = Told::default();
        while Instant::now() < end {
            told.add(once(port, &config), resumes);
        }
        told
    };
    let mut all = Told::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in running {
            match thread.join() {
                Ok(told) => all.merge(told),
                Err(_) => all.errors += 1,
            }
        }
    });
    println!("{}", all.json(seconds));
    Ok(())
}

/// What came of some connections.
#[derive(Default)]
struct Told {
    took: Vec<Duration>,
    errors: usize,
    /// Shook hands in the other way than was asked for.
    otherwise: usize,
}

impl Told {
    fn add(&mut self, done: Result<(Duration, bool), Any>, resumes: bool) {
        match done {
            Ok((took, resumed)) => {
                self.took.push(took);
                self.otherwise += usize::from(resumed != resumes);
            }
            Err(_) => self.errors += 1,
        }
    }

    fn merge(&mut self, mut other: Told) {
        self.took.append(&mut other.took);
        self.errors += other.errors;
        self.otherwise += other.otherwise;
    }

    fn json(mut self, seconds: f64) -> serde_json::Value {
        self.took.sort_unstable();
        let at = |share: f64| {
            let index = (share * self.took.len().saturating_sub(1) as f64) as usize;
            self.took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        serde_json::json!({
            "requests": self.took.len(), "seconds": seconds, "errors": self.errors,
            "otherwise": self.otherwise, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999),
        })
    }
}

/// One connection with one request. How long it took, and whether its session was an earlier one.
fn once(port: u16, config: &Arc<ClientConfig>) -> Result<(Duration, bool), Any> {
    let begun = Instant::now();
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(
        b"GET /api/posts:list HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = Vec::with_capacity(4096);
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // Not everybody says goodbye; the length says whether all has come.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error.into()),
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") || answer.len() < 1024 {
        return Err("not the answer".into());
    }
    let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((begun.elapsed(), resumed))
}

fn config(resumes: bool) -> Result<ClientConfig, Any> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let verifier =
        Arc::new(Anybody(provider.signature_verification_algorithms.supported_schemes()));
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = match resumes {
        true => Resumption::in_memory_sessions(KEPT),
        false => Resumption::disabled(),
    };
    Ok(config)
}

/// Believes whoever answers.
#[derive(Debug)]
struct Anybody(Vec<SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
