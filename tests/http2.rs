//! HTTP/2 to clients: what passes over HTTP/1.1 passes over a stream, and nothing else does.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

use support::h2::Client;
use support::origin::Origin;
use support::tls::{Authority, table};
use support::{Proxy, config, parse};

const BOTH: &str = "protocols = [\"h1\", \"h2\"]";

/// A plain listener that knows both versions, in front of one origin.
fn proxy(origin: &Origin) -> Proxy {
    Proxy::start(config(&[origin.address], BOTH, "preset = \"none\""))
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
}

#[test]
fn http_1_goes_on_beside_it() {
    let origin = Origin::ok("hello");
    let proxy = proxy(&origin);
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn tls_agrees_on_it() {
    let origin = Origin::ok("hello");
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let proxy = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}\
         [[listener]]\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        table("a", &pair),
        origin.address
    )));
    let mut client = Client::tls(proxy.address, authority.client(), "a.test");
    assert_eq!(client.get("/").text(), "hello");
    let head = &origin.seen()[0].head;
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
}
