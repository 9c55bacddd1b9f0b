//! HTTP/2 to clients: what passes over HTTP/1.1 passes over a stream, and nothing else does.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

#[path = "http2/bodies.rs"]
mod bodies;
#[path = "http2/ending.rs"]
mod ending;
#[path = "http2/floods.rs"]
mod floods;
#[path = "http2/heads.rs"]
mod heads;
#[path = "http2/tools.rs"]
mod tools;
#[path = "http2/websocket.rs"]
mod websocket;

use std::io::{Read, Write};

use support::h2::Client;
use support::origin::Origin;
use support::tls::{Authority, connect, table};
use support::{Proxy, config, parse, until};

/// What a plain listener must say to be asked for HTTP/2.
const BOTH: &str = "protocols = [\"h1\", \"h2\"]";

/// A plain listener that knows both versions, in front of one origin.
fn proxy(origin: &Origin) -> Proxy {
    proxy_with(origin, "")
}

/// The same with more keys of its listener.
fn proxy_with(origin: &Origin, listener: &str) -> Proxy {
    let listener = format!("{BOTH}\n{listener}");
    Proxy::start(config(&[origin.address], &listener, "preset = \"none\""))
}

/// The sum of all counters of a family that have these labels.
fn count(proxy: &Proxy, family: &str, labels: &[&str]) -> f64 {
    proxy.count(family, labels)
}

/// A TLS listener in front of one origin.
fn secure(origin: &Origin, listener: &str) -> (Authority, Proxy) {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let proxy = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}\
         [[listener]]\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n{listener}\n\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        table("a", &pair),
        origin.address
    )));
    (authority, proxy)
}

#[test]
fn a_request_passes_with_prior_knowledge() {
    let origin = Origin::ok("hello");
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    for _ in 0..3 {
        let got = client.get("/a?b=c");
        assert_eq!((got.status, got.text()), (200, "hello"));
        assert!(got.field("x-request-id").is_some() && got.field("connection").is_none());
    }
    let head = &origin.seen()[0].head;
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n"), "{head}");
    assert_eq!(origin.connections(), 1);
    assert_eq!(count(&proxy, "connections_total", &["h2"]), 1.0);
    assert_eq!(count(&proxy, "connections_total", &["h1"]), 0.0);
    until("all are counted", || count(&proxy, "requests_total", &["GET", "200"]) == 3.0);
}

#[test]
fn http_1_goes_on_beside_it() {
    let origin = Origin::ok("hello");
    let proxy = proxy(&origin);
    assert_eq!(proxy.get("/").text(), "hello");
    // It begins as HTTP/2 does, and comes in pieces.
    let mut stream = proxy.connect();
    for piece in [&b"P"[..], b"R", b"I / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"] {
        stream.write_all(piece).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    assert!(origin.seen()[1].head.starts_with("PRI / HTTP/1.1\r\n"));
    assert_eq!(count(&proxy, "connections_total", &["h1"]), 2.0);
}

#[test]
fn a_plain_listener_speaks_it_only_where_that_is_written() {
    let origin = Origin::ok("hello");
    let proxy = Proxy::to(&origin);
    let answer = proxy.raw(cobalance::http2::PREFACE);
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
}

#[test]
fn where_http_1_is_not_spoken_that_is_said() {
    let origin = Origin::ok("hello");
    let only = "protocols = [\"h2\"]";
    let proxy = Proxy::start(config(&[origin.address], only, "preset = \"none\""));
    let answer = proxy.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains("HTTP/2 alone"), "{answer}");
    assert_eq!(Client::plain(proxy.address).get("/").text(), "hello");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn tls_agrees_on_it() {
    let origin = Origin::ok("hello");
    let (authority, proxy) = secure(&origin, "");
    let mut client = Client::tls(proxy.address, authority.client(), "a.test");
    assert_eq!(client.get("/").text(), "hello");
    let head = &origin.seen()[0].head;
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
    // Who does not ask for it gets HTTP/1.1, whatever its first bytes are.
    let config = std::sync::Arc::new(authority.client());
    let mut client = connect(proxy.address, &config, "a.test").unwrap();
    client.write_all(cobalance::http2::PREFACE).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_tls_listener_may_be_without_it() {
    let origin = Origin::ok("hello");
    let (authority, proxy) = secure(&origin, "protocols = [\"h1\"]");
    let mut config = authority.client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = connect(proxy.address, &std::sync::Arc::new(config), "a.test").unwrap();
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn many_streams_pass_side_by_side() {
    let origin = Origin::scripted(|mut line| {
        while let Some(seen) = line.request() {
            let path = seen.head.split(' ').nth(1).unwrap().to_owned();
            let length = path.len();
            line.send(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}").as_bytes(),
            );
        }
    });
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let asked: Vec<_> =
        (0..100).map(|n| client.begin(support::h2::get(&format!("/{n}")), true).0).collect();
    for (n, answer) in asked.into_iter().enumerate() {
        let got = client.run(support::h2::whole(answer)).unwrap();
        assert_eq!((got.status, got.text()), (200, format!("/{n}").as_str()));
    }
    assert_eq!(count(&proxy, "connections_total", &["h2"]), 1.0);
}
