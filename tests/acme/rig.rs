//! An authority, and cobalance in front of a node, which asks it for certificates.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cobalance::control::ConfigSource;
use cobalance::control::status::{CertificateStatus, Status};
use cobalance::server::{self, Running};
use cobalance::tls::provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use crate::pebble::{Pebble, Settings, files};
use crate::relay::Relay;
use crate::stand_in::StandIn;
use crate::support::files::put;
use crate::support::origin::Origin;
use crate::support::program::Program;
use crate::support::tls::{Authority, Client, Pair, connect};
use crate::support::{Answer, PATIENCE, parse};

/// An order waits for looks, for replicas, and for an authority; a renewal for most of a lifetime.
const LONG: Duration = Duration::from_secs(120);

/// Waits longer than other tests do.
pub(crate) fn patiently(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "never came true: {what}");
        // Leaves the cores to whoever makes it come true.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// All that stands around cobalance.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    settings: Settings,
    /// Of the authority's own server.
    tls_authority: Authority,
    pebble: Option<Pebble>,
    address: SocketAddr,
    roots: RootCertStore,
    pub(crate) http: Relay,
    pub(crate) tls: Relay,
    origin: Origin,
}

impl Rig {
    pub(crate) fn start(settings: Settings) -> Rig {
        let (http, tls) = (Relay::start(), Relay::start());
        let dir = tempfile::tempdir().unwrap();
        let tls_authority = Authority::new();
        let ports = [http.address, tls.address];
        let pebble = Pebble::start(dir.path(), &settings, &tls_authority, ports, None);
        let (roots, address) = (pebble.root(&tls_authority), pebble.address());
        let pebble = Some(pebble);
        let origin = Origin::ok("hello");
        Rig { dir, settings, tls_authority, pebble, address, roots, http, tls, origin }
    }

    /// With one that does as it is told.
    pub(crate) fn with_stand_in() -> (Rig, StandIn) {
        let (http, tls) = (Relay::start(), Relay::start());
        let (dir, tls_authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let stand_in = StandIn::start(&tls_authority);
        let (settings, address, pebble) = (Settings::default(), stand_in.address, None);
        let (roots, origin) = (RootCertStore::empty(), Origin::ok("hello"));
        let rig = Rig { dir, settings, tls_authority, pebble, address, roots, http, tls, origin };
        (rig, stand_in)
    }

    /// A certificate for the key of the order that is kept.
    pub(crate) fn sign_kept(&self, names: &[&str]) -> String {
        let bytes = std::fs::read(self.order().expect("an order is kept")).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let key = rcgen::KeyPair::from_pem(kept["key"].as_str().unwrap()).unwrap();
        self.tls_authority.sign(names, &key)
    }

    /// Whose certificate is to be fetched still.
    pub(crate) fn order(&self) -> Option<PathBuf> {
        self.files().into_iter().find(|file| file.to_str().unwrap().contains("/orders/"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// What is kept.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files(&self.state())
    }

    fn file(&self, end: &str) -> PathBuf {
        let found = self.files().into_iter().find(|file| file.to_str().unwrap().ends_with(end));
        found.unwrap_or_else(|| panic!("no {end} in {:?}", self.files()))
    }

    pub(crate) fn account(&self) -> PathBuf {
        self.file("account.json")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.file(".pem")
    }

    pub(crate) fn attempts(&self) -> PathBuf {
        let found =
            self.files().into_iter().find(|file| file.to_str().unwrap().contains("/attempts/"));
        found.expect("an attempt failed")
    }

    pub(crate) fn stop_authority(&mut self) {
        self.pebble = None;
    }

    /// Another one at the same address, which knows nobody.
    pub(crate) fn start_authority(&mut self) {
        let ports = [self.http.address, self.tls.address];
        let address = Some(self.address);
        let pebble =
            Pebble::start(self.dir.path(), &self.settings, &self.tls_authority, ports, address);
        self.roots = pebble.root(&self.tls_authority);
        self.pebble = Some(pebble);
    }

    /// A client that trusts what the authority gives.
    pub(crate) fn trusting(&self, own: Option<&Pair>) -> ClientConfig {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .with_root_certificates(self.roots.clone());
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap();
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        }
    }

    /// A whole file: `listener` belongs to the TLS listener, `more` to the authority's table and behind it.
    pub(crate) fn text(
        &self,
        challenge: &str,
        domains: &[&str],
        listener: &str,
        more: &str,
    ) -> String {
        format!(
            "[server]\nthreads = 1\nprobation = \"0s\"\n[access_log]\nenabled = false\n\
             [admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\ncertificates = [\"public\"]\n{listener}\n\
             [[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n\
             [[certificate]]\nname = \"public\"\nacme = \"pebble\"\ndomains = {domains:?}\n\
             [acme.pebble]\ndirectory = \"https://localhost:{}/dir\"\nca = \"{}\"\nstate = \"{}\"\n\
             agree_to_terms = true\ncontact = [\"ops@example.com\"]\nchallenge = \"{challenge}\"\n{more}\n",
            self.origin.address,
            self.address.port(),
            self.tls_authority.ca().display(),
            self.state().display(),
        )
    }

    /// Cobalance, found by the authority.
    pub(crate) fn balancer(&self, challenge: &str, domains: &[&str], listener: &str) -> Balancer {
        self.balancer_with(challenge, domains, listener, "")
    }

    pub(crate) fn balancer_with(
        &self,
        challenge: &str,
        domains: &[&str],
        listener: &str,
        more: &str,
    ) -> Balancer {
        let balancer = self.hidden(challenge, domains, listener, more);
        self.show(&balancer);
        balancer
    }

    /// Cobalance, found by nobody.
    pub(crate) fn hidden(
        &self,
        challenge: &str,
        domains: &[&str],
        listener: &str,
        more: &str,
    ) -> Balancer {
        let config = parse(&self.text(challenge, domains, listener, more));
        Balancer { running: server::start(config, ConfigSource::Flags).unwrap() }
    }

    /// From now on the authority finds this one.
    pub(crate) fn show(&self, balancer: &Balancer) {
        self.http.lead_to(balancer.running.address("plain").unwrap());
        self.tls.lead_to(balancer.running.address("public").unwrap());
    }

    /// Cobalance as a process with a file.
    pub(crate) fn program(&self, challenge: &str, domains: &[&str]) -> Served<'_> {
        let dir = tempfile::tempdir().unwrap();
        let challenge = challenge.to_owned();
        let program = Program::of(dir, &self.text(&challenge, domains, "", ""));
        self.tls.lead_to(program.address());
        Served { rig: self, program, challenge }
    }
}

/// Cobalance in this process.
pub(crate) struct Balancer {
    running: Running,
}

impl Balancer {
    pub(crate) fn stop(self) {
        self.running.shutdown();
    }

    pub(crate) fn status(&self) -> Status {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.handle().status()).unwrap()
    }

    /// The only certificate.
    pub(crate) fn certificate(&self) -> CertificateStatus {
        self.status().certificates[0].clone()
    }

    /// How its orders go.
    pub(crate) fn state(&self) -> String {
        self.certificate().acme.map_or(String::new(), |acme| acme.state)
    }

    /// Waits until it is said so; when it is `valid`, until it is shown as well.
    pub(crate) fn until_state(&self, state: &str) {
        let holds = || {
            let certificate = self.certificate();
            let is = certificate.acme.is_some_and(|acme| acme.state == state);
            is && (state != "valid" || certificate.not_after > 0)
        };
        patiently(&format!("{state}: {:?}", self.certificate()), holds);
    }

    /// The sum of what a family has for these labels.
    pub(crate) fn count(&self, family: &str, labels: &[&str]) -> f64 {
        let families = self.running.handle().metrics().registry.gather();
        let Some(family) = families.iter().find(|f| f.name() == format!("cobalance_{family}"))
        else {
            return 0.0;
        };
        let has = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|label| metric.get_label().iter().any(|l| l.value() == *label))
        };
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        family.get_metric().iter().filter(has).map(value).sum()
    }

    pub(crate) fn connect(&self, config: ClientConfig, name: &str) -> std::io::Result<Client> {
        connect(self.running.address("public").unwrap(), &Arc::new(config), name)
    }

    /// One request over TLS.
    pub(crate) fn ask(&self, config: &ClientConfig, name: &str) -> std::io::Result<Answer> {
        let mut client = self.connect(config.clone(), name)?;
        client.write_all(format!("GET /x HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes())?;
        Answer::read(&mut client).ok_or(std::io::ErrorKind::UnexpectedEof.into())
    }

    /// One request without TLS.
    pub(crate) fn plain(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.running.address("plain").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: crm.test\r\n\r\n").unwrap();
        Answer::read(&mut stream).unwrap()
    }
}

/// Cobalance as a process.
pub(crate) struct Served<'a> {
    rig: &'a Rig,
    program: Program,
    challenge: String,
}

impl Served<'_> {
    /// What a client is shown; none if there is no connection that it trusts.
    pub(crate) fn shown(&self, config: ClientConfig, name: &str) -> Option<Vec<u8>> {
        let client = connect(self.program.address(), &Arc::new(config), name).ok()?;
        Some(client.conn.peer_certificates()?[0].to_vec())
    }

    /// Another configuration, which is found by itself.
    pub(crate) fn write(&self, domains: &[&str]) {
        let text = self.rig.text(&self.challenge, domains, "", "");
        put(&self.program.file, &text);
    }

    pub(crate) fn said(&self, text: &str) -> bool {
        self.program.has_said(text)
    }
}
