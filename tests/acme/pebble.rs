//! The authority, and a name server that says that all names are here.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::rig::patiently;
use crate::support::ports::free;
use crate::support::tls::{Authority, ask_once, connect};

/// What a test wants of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Settings {
    /// Seconds that certificates are good for; years if nothing is said.
    pub(crate) lifetime_s: Option<u64>,
    /// Id and key of the only customer; anybody if nothing is said.
    pub(crate) external_account: Option<(&'static str, &'static str)>,
}

/// A running pebble. Killed with the test.
pub(crate) struct Pebble {
    children: [Child; 2],
    /// Where it is to be found, also by a later one.
    address: SocketAddr,
    management: SocketAddr,
}

impl Pebble {
    /// `http` and `tls` are where it looks; `tls_authority` has signed its own certificate.
    pub(crate) fn start(
        dir: &Path,
        settings: &Settings,
        tls_authority: &Authority,
        [http, tls]: [SocketAddr; 2],
        address: Option<SocketAddr>,
    ) -> Pebble {
        // Names are asked for by UDP, of which the port may be somebody's: then others are tried.
        loop {
            let address = address.unwrap_or_else(free);
            let (management, names, other) = (free(), free(), free());
            let pair = tls_authority.issue("pebble", &["localhost"]);
            let mut config = serde_json::json!({
                "listenAddress": address.to_string(), "managementListenAddress": management.to_string(),
                "certificate": pair.chain, "privateKey": pair.key,
                "httpPort": http.port(), "tlsPort": tls.port(), "ocspResponderURL": "",
                "externalAccountBindingRequired": settings.external_account.is_some(),
            });
            if let Some(lifetime) = settings.lifetime_s {
                config["certificateValidityPeriod"] = lifetime.into();
            }
            if let Some((id, key)) = settings.external_account {
                config["externalAccountMACKeys"] = serde_json::json!({ id: key });
            }
            let file = dir.join("pebble.json");
            std::fs::write(&file, serde_json::json!({ "pebble": config }).to_string()).unwrap();
            let mut pebble = Command::new("pebble");
            pebble.args(["-strict", "-dnsserver", &names.to_string(), "-config"]).arg(&file);
            // As strict as it can be, but for the time it takes. Three nonces in a row that are refused end an order,
            // so one in twenty must do.
            pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "5");
            pebble.env("PEBBLE_AUTHZREUSE", "0");
            let mut resolver = Command::new("pebble-challtestsrv");
            resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
            resolver.args(["-management", &other.to_string(), "-dns01", &names.to_string()]);
            let children = [resolver, pebble].map(|mut command| {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().expect("tests/run installs pebble")
            });
            let mut pebble = Pebble { children, address, management };
            let mut listens = [other, management, address].map(|port| (port, false));
            let mut ended = false;
            patiently("pebble listens, or ends", || {
                ended = pebble.children.iter_mut().any(|child| child.try_wait().unwrap().is_some());
                for (port, listens) in listens.iter_mut().filter(|(_, listens)| !listens) {
                    *listens = TcpStream::connect(*port).is_ok();
                }
                ended || listens.iter().all(|(_, listens)| *listens)
            });
            if !ended {
                return pebble;
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who signs what it gives.
    pub(crate) fn root(&self, tls_authority: &Authority) -> RootCertStore {
        let mut client =
            connect(self.management, &Arc::new(tls_authority.client()), "localhost").unwrap();
        let request = "GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = ask_once(&mut client, request).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(answer.as_bytes()).unwrap()).unwrap();
        roots
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All files below a directory, in order.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}
