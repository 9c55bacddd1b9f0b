//! TLS to nodes: verified, pooled, probed and watched.

use std::io::{Read, Write};

use cobalance::control::ConfigSource;
use cobalance::server;
use cobalance::telemetry::metrics::PoolEvent;

use crate::support::origin::{Origin, field, read_head};
use crate::support::tls::{Authority, SecureOrigin, table};
use crate::support::{Answer, Proxy, parse, until};
use crate::{UPGRADE, count};

/// A machine that has other things to do is no reason to give up a node.
const PLAIN: &str = "preset = \"none\"\nconnect_timeout = \"20s\"\n";

fn text(node: &str, tables: &str, upstream: &str) -> String {
    format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n{tables}\
         [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         [upstream.u]\nnodes = [\"{node}\"]\n{upstream}\n"
    )
}

fn start(node: &str, tables: &str, tls: &str) -> Proxy {
    Proxy::start(parse(&text(node, tables, &format!("{PLAIN}[upstream.u.tls]\n{tls}"))))
}

#[test]
fn a_node_is_verified_and_its_connection_kept() {
    let authority = Authority::new();
    let origin = SecureOrigin::start(&authority.issue("node", &["127.0.0.1"]), None);
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let proxy = start(&origin.address.to_string(), "", &ca);
    let mut client = proxy.connect();
    for nth in 0..3 {
        write!(client, "GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut client).unwrap().text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
    let events = &proxy.node(0).metrics.pool_events;
    assert_eq!(events[PoolEvent::Reused as usize].get(), 2);
    assert_eq!(events[PoolEvent::StaleDetected as usize].get(), 0, "tickets are no answers");
    let head = origin.seen().pop().unwrap();
    assert_eq!(field(&head, "x-forwarded-proto"), Some("http"), "the client's way, not ours");
}

#[test]
fn who_is_not_who_it_should_be_gets_no_byte_of_a_request() {
    let authority = Authority::new();
    let pair = authority.issue("node", &["node.test"]);
    let origin = SecureOrigin::start(&pair, None);
    let plain = Origin::scripted(|mut line| {
        line.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        // What is left unread would make the end a reset.
        line.wait_closed();
    });
    let ca = format!("ca = \"{}\"\n", authority.ca().display());
    let other = Authority::new();
    let stranger = format!("ca = \"{}\"\nserver_name = \"node.test\"", other.ca().display());
    let named = format!("{ca}server_name = \"node.test\"");
    for (node, tls, status) in [
        (origin.address, &ca, 502),
        (origin.address, &stranger, 502),
        (plain.address, &named, 502),
        (origin.address, &named, 200),
    ] {
        let proxy = start(&node.to_string(), "", tls);
        let answer = proxy.get("/secret");
        assert_eq!(answer.status, status, "{tls}: {}", answer.text());
        let expected = if status == 502 { 1.0 } else { 0.0 };
        until("it is counted", || {
            count(&proxy, "errors_total", &["tls_protocol_error"]) == expected
        });
    }
    assert_eq!(origin.seen().len(), 1);
    assert!(plain.seen().is_empty());
}

#[test]
fn a_node_that_asks_is_shown_a_certificate() {
    let authority = Authority::new();
    let pair = authority.issue("node", &["127.0.0.1"]);
    let mine = authority.issue("me", &["me.test"]);
    let origin = SecureOrigin::start(&pair, Some(&authority));
    let ca = format!("ca = \"{}\"\n", authority.ca().display());
    let node = origin.address.to_string();
    let shown = start(&node, &table("me", &mine), &format!("{ca}certificate = \"me\""));
    assert_eq!(shown.get("/x").status, 200);
    let without = start(&node, "", &ca);
    // Its verdict comes after our side of the handshake is done, and has its reason all the same.
    let answer = without.get("/x");
    assert_eq!(answer.status, 502, "{}", answer.text());
    until("it is counted", || count(&without, "errors_total", &["tls_protocol_error"]) == 1.0);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_tunnel_to_a_node_passes_over_tls() {
    let authority = Authority::new();
    let origin = SecureOrigin::start(&authority.issue("node", &["127.0.0.1"]), None);
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let proxy = start(&origin.address.to_string(), "", &ca);
    let mut client = proxy.connect();
    client.write_all(UPGRADE).unwrap();
    assert!(read_head(&mut client).unwrap().starts_with("HTTP/1.1 101"));
    let mut frame = vec![0x82, 126, 0x40, 0];
    frame.resize(frame.len() + 0x4000, b'z');
    client.write_all(&frame).unwrap();
    let mut back = vec![0; frame.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == frame);
}

#[test]
fn probes_and_the_watch_speak_tls_too() {
    let authority = Authority::new();
    let origin = SecureOrigin::start(&authority.issue("node", &["127.0.0.1"]), None);
    let other = Authority::new();
    let start = |ca: &std::path::Path| {
        let upstream = format!(
            "[upstream.u.health_check]\ninterval = \"50ms\"\ntimeout = \"20s\"\n[upstream.u.tls]\nca = \"{}\"",
            ca.display()
        );
        let config = parse(&text(&origin.address.to_string(), "", &upstream));
        server::start(config, ConfigSource::Flags).unwrap()
    };
    let node = |running: &server::Running| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let status = runtime.block_on(running.handle().status()).unwrap();
        status.upstreams[0].nodes[0].clone()
    };
    let good = start(&authority.ca());
    until("it is up", || node(&good).state == "up");
    until("it is watched", || node(&good).watch == "connected");
    let bad = start(&other.ca());
    until("it is down", || node(&bad).state == "down");
    assert!(node(&bad).cause.contains("certificate"), "{}", node(&bad).cause);
}
