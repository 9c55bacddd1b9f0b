//! With control: renewed files, what status and metrics say, several listeners.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cobalance::control::ConfigSource;
use cobalance::control::status::Status;
use cobalance::control::warnings::Kind;
use cobalance::server::{self, Running};
use rcgen::DnType;
use rustls::HandshakeKind;

use crate::CLOSE;
use crate::support::origin::Origin;
use crate::support::tls::{Authority, ask_once, connect, shown, table};
use crate::support::{Answer, parse, until};

struct Whole {
    running: Running,
    authority: Authority,
    origin: Origin,
}

impl Whole {
    /// `tables` stand before the listener `public`, which shows `a`; `listener` belongs to it.
    fn start(authority: Authority, tables: &str, listener: &str) -> Whole {
        let origin = Origin::ok("hello");
        let text = format!(
            "[server]\nthreads = 2\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n{tables}{}\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n{listener}\n\
             [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
            table("a", &authority.pair("a")),
            origin.address
        );
        let running = server::start(parse(&text), ConfigSource::Flags).unwrap();
        Whole { running, authority, origin }
    }

    fn shown(&self) -> String {
        let config = Arc::new(self.authority.client());
        shown(&connect(self.running.address("public").unwrap(), &config, "a.test").unwrap())
    }

    fn status(&self) -> Status {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.handle().status()).unwrap()
    }

    fn warns(&self, kind: Kind) -> bool {
        self.status().warnings.iter().any(|warning| warning.kind == kind)
    }

    /// None before it was told.
    fn expiry(&self) -> Option<f64> {
        let families = self.running.handle().metrics().registry.gather();
        let family = families.iter().find(|f| f.name() == "cobalance_certificate_expiry_seconds");
        Some(family?.get_metric().first()?.get_gauge().get_value())
    }
}

fn renewed(name: &'static str) -> impl FnOnce(&mut rcgen::CertificateParams) {
    move |params| params.distinguished_name.push(DnType::CommonName, name)
}

#[test]
fn renewed_files_are_used_without_a_reload_and_bad_ones_are_not() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    // Its first request comes last.
    let whole = Whole::start(authority, "", "request_head_timeout = \"5m\"");
    assert_eq!(whole.shown(), "a");
    let config = Arc::new(whole.authority.client());
    let address = whole.running.address("public").unwrap();
    let mut before = connect(address, &config, "a.test").unwrap();
    whole.authority.issue_with("a", &["a.test"], renewed("second"));
    until("the newer one is shown", || whole.shown() == "second");
    let pair = whole.authority.pair("a");
    let good = std::fs::read(&pair.key).unwrap();
    let stranger = whole.authority.issue("stranger", &["x.test"]);
    std::fs::copy(&stranger.key, &pair.key).unwrap();
    until("the operator is warned", || whole.warns(Kind::CertificateFile));
    assert_eq!(whole.shown(), "second");
    std::fs::write(&pair.key, good).unwrap();
    until("all is well again", || !whole.warns(Kind::CertificateFile));
    // A connection of the first hour has noticed nothing, and no configuration was loaded.
    let answer = ask_once(&mut before, CLOSE).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(whole.status().config.generation, 1);
    std::fs::remove_file(&pair.chain).unwrap();
    until("the loss is told", || whole.warns(Kind::CertificateFile));
    assert_eq!(whole.shown(), "second");
}

#[test]
fn what_expires_soon_is_told_in_time() {
    let authority = Authority::new();
    let days = |days: u64| {
        move |params: &mut rcgen::CertificateParams| {
            params.not_after = (SystemTime::now() + Duration::from_secs(days * 86_400)).into();
        }
    };
    authority.issue_with("a", &["a.test", "*.a.test"], days(13));
    let whole = Whole::start(authority, "", "");
    until("it is told", || whole.warns(Kind::CertificateExpiry));
    let mut left = None;
    until("the metric tells it", || {
        left = whole.expiry();
        left.is_some()
    });
    let left = left.unwrap();
    assert!((12.9 * 86_400.0..=13.0 * 86_400.0).contains(&left), "{left}");
    let status = whole.status();
    assert_eq!(status.certificates[0].name, "a");
    assert_eq!(status.certificates[0].hosts, ["a.test", "*.a.test"]);
    whole.authority.issue_with("a", &["a.test"], days(90));
    until("it is taken back", || !whole.warns(Kind::CertificateExpiry));
    until("the metric follows", || whole.expiry().is_some_and(|left| left > 89.0 * 86_400.0));
}

#[test]
fn plain_clients_are_sent_to_https_and_told_to_stay() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let tables = "[tls]\nhttps_only = true\n\
        [[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
        [[listener]]\nname = \"behind\"\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let whole = Whole::start(authority, tables, "");
    let ask = |listener: &str, request: &str| {
        use std::io::Write;
        let address = whole.running.address(listener).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(&mut stream).unwrap()
    };
    let answer =
        ask("plain", "POST /x?y=1 HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://a.test/x?y=1")));
    assert_eq!(answer.field("strict-transport-security"), None);
    assert_eq!(ask("plain", "GET / HTTP/1.0\r\n\r\n").status, 400);
    let https = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(ask("plain", https).status, 308, "a stranger's word");
    let hsts = Some("max-age=31536000");
    let answer = ask("behind", https);
    assert_eq!((answer.status, answer.field("strict-transport-security")), (200, hsts));
    assert_eq!(ask("behind", &https.replace("https", "http")).status, 308);
    let config = Arc::new(whole.authority.client());
    let connect = || connect(whole.running.address("public").unwrap(), &config, "a.test").unwrap();
    // What is answered here says so too: a request that cannot be read, and one that is not carried.
    for request in [
        "GET /\r\n\r\n",
        "CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\nConnection: close\r\n\r\n",
    ] {
        let answer = ask_once(&mut connect(), request).unwrap();
        assert!(answer.contains("\r\nStrict-Transport-Security: max-age=31536000\r\n"), "{answer}");
    }
    let trusted = "GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(ask("behind", trusted).field("strict-transport-security"), None, "unreadable");
    let answer = ask_once(&mut connect(), CLOSE).unwrap();
    assert!(answer.contains("Strict-Transport-Security: max-age=31536000\r\n"), "{answer}");
    assert_eq!(whole.origin.seen().len(), 2);
}

#[test]
fn a_ticket_is_no_way_round_a_certificate_of_the_client() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let open = "[[listener]]\nname = \"open\"\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n";
    let asks = format!("client_auth = \"required\"\nclient_ca = \"{}\"", authority.ca().display());
    let whole = Whole::start(authority, open, &asks);
    let config = Arc::new(whole.authority.client());
    let ask = |listener: &str| {
        let address = whole.running.address(listener).unwrap();
        let mut client = connect(address, &config, "a.test")?;
        ask_once(&mut client, CLOSE)?;
        Ok::<_, std::io::Error>(client.conn.handshake_kind().unwrap())
    };
    assert_ne!(ask("open").unwrap(), HandshakeKind::Resumed);
    assert_eq!(ask("open").unwrap(), HandshakeKind::Resumed);
    assert!(ask("public").is_err());
    assert_eq!(whole.origin.seen().len(), 2);
}
