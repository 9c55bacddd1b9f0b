//! Certificates of clients, and tickets that replicas share.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use crate::support::origin::{Origin, field};
use crate::support::tls::{Authority, Pair, ask_once, connect, table};
use crate::support::{Proxy, parse, until};
use crate::{CLOSE, count};

fn start(authority: &Authority, origin: &Origin, tables: &str, listener: &str) -> Proxy {
    Proxy::start(parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n{tables}{}\
         [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n{listener}\n\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        table("a", &authority.pair("a")),
        origin.address
    )))
}

const LIAR: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\nClient-Cert: :AAAA:\r\nX-Client-Cert-Subject: CN=admin\r\n\
    X-SSL-Client-Verify: SUCCESS\r\nSSL-Client-Verify: SUCCESS\r\nConnection: close\r\n\r\n";

#[test]
fn a_client_is_who_its_certificate_says_and_nobody_else() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let mine = authority.issue("me", &["me.test"]);
    let elsewhere = Authority::new();
    let stranger = elsewhere.issue("other", &["other.test"]);
    let origin = Origin::ok("x");
    for (mode, version) in [("required", &TLS13), ("optional", &TLS13), ("required", &TLS12)] {
        let listener =
            format!("client_auth = \"{mode}\"\nclient_ca = \"{}\"", authority.ca().display());
        let proxy = start(&authority, &origin, "", &listener);
        let ask = |own: Option<&Pair>| {
            let config = Arc::new(authority.client_with(&[version], own));
            let mut client = connect(proxy.address, &config, "a.test")?;
            ask_once(&mut client, LIAR)
        };
        assert!(ask(Some(&mine)).unwrap().starts_with("HTTP/1.1 200"));
        let head = origin.seen().pop().unwrap().head;
        assert_eq!(field(&head, "x-client-cert-subject"), Some("CN=me"), "{head}");
        assert!(field(&head, "client-cert").unwrap().starts_with(":MII"), "{head}");
        assert_eq!(field(&head, "x-client-cert-fingerprint").unwrap().len(), 64);
        assert!(!head.contains("admin") && !head.contains("AAAA") && !head.contains("SUCCESS"));
        assert!(ask(Some(&stranger)).is_err(), "{mode}");
        assert_eq!(ask(None).is_ok(), mode == "optional");
        let refused = if mode == "optional" { 1.0 } else { 2.0 };
        until("refusals are counted", || {
            count(&proxy, "tls_handshake_failures_total", &["client_certificate"]) == refused
        });
        if mode == "optional" {
            let head = origin.seen().pop().unwrap().head;
            assert!(!head.to_lowercase().contains("client-cert") && !head.contains("SUCCESS"));
        }
    }
}

#[test]
fn who_shows_a_certificate_shows_it_each_time() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let mine = authority.issue("me", &["me.test"]);
    let origin = Origin::ok("x");
    for mode in ["required", "optional"] {
        let listener =
            format!("client_auth = \"{mode}\"\nclient_ca = \"{}\"", authority.ca().display());
        let proxy = start(&authority, &origin, "", &listener);
        for version in [&TLS13, &TLS12] {
            // One store of sessions: a ticket would be used.
            let config = Arc::new(authority.client_with(&[version], Some(&mine)));
            for _ in 0..2 {
                let mut client = connect(proxy.address, &config, "a.test").unwrap();
                assert!(ask_once(&mut client, CLOSE).unwrap().starts_with("HTTP/1.1 200"));
            }
        }
        assert_eq!(count(&proxy, "tls_handshakes_total", &["full"]), 4.0);
        assert_eq!(count(&proxy, "tls_handshakes_total", &["resumed"]), 0.0);
    }
}

#[test]
fn without_tls_a_client_cannot_name_itself_either() {
    let origin = Origin::ok("x");
    let proxy = Proxy::to(&origin);
    proxy.raw(LIAR.as_bytes());
    let head = origin.seen().pop().unwrap().head;
    assert!(!head.to_lowercase().contains("client-cert") && !head.contains("SUCCESS"), "{head}");
}

#[test]
fn replicas_with_one_secret_take_each_others_tickets() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let secret = authority.dir.path().join("tickets.secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let shared = format!("[tls]\nticket_secret_file = \"{}\"\n", secret.display());
    let origin = Origin::ok("x");
    for (tables, resumed) in [(shared.as_str(), 1.0), ("", 0.0)] {
        let replicas = [0, 1].map(|_| start(&authority, &origin, tables, ""));
        let config = Arc::new(authority.client());
        for replica in &replicas {
            ask_once(&mut connect(replica.address, &config, "a.test").unwrap(), CLOSE).unwrap();
        }
        assert_eq!(count(&replicas[1], "tls_handshakes_total", &["resumed"]), resumed);
    }
}
