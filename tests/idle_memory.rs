//! What an idle connection costs in live heap: plain, and over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::origin::Origin;
use support::tls::{Authority, connect, table};
use support::{Answer, PATIENCE, Proxy, parse, until};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough that what belongs to none of them does not count.
const CONNECTIONS: usize = 100;
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";

fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes for each connection that has had an answer and waits for its next request. `open` keeps no more of
/// its own side than the socket.
fn each(proxy: &Proxy, open: impl Fn() -> TcpStream) -> usize {
    // Buffers, pools and tables are made by the first ones.
    let first: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open()).collect();
    drop(first);
    let count = || proxy.snapshot.listeners[0].open.load(std::sync::atomic::Ordering::SeqCst);
    until("they are gone", || count() == 0);
    let before = live();
    let kept: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open()).collect();
    assert_eq!(count(), CONNECTIONS);
    // An answer may be read before its exchange is over.
    until("all wait for their next request", || proxy.node(0).in_flight() == 0);
    let after = live();
    drop(kept);
    after.saturating_sub(before) / CONNECTIONS
}

#[test]
fn an_idle_connection_costs_no_more_than_its_ceiling() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let text = |certificates: &str| {
        format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}[[listener]]\nbind = \"127.0.0.1:0\"\n\
             {certificates}\n[upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
            table("a", &pair),
            origin.address
        )
    };
    let plain = Proxy::start(parse(&text("")));
    let over_tcp = each(&plain, || {
        let mut stream = plain.connect();
        stream.write_all(GET).unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
        stream
    });
    let secure = Proxy::start(parse(&text("certificates = [\"a\"]")));
    let config = Arc::new(authority.client());
    let over_tls = each(&secure, || {
        let mut client = connect(secure.address, &config, "a.test").unwrap();
        client.write_all(GET).unwrap();
        assert_eq!(Answer::read(&mut client).unwrap().status, 200);
        // The client's own session is no cost of ours.
        let stream = client.sock.try_clone().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    });
    println!("idle: {over_tcp} bytes of heap over TCP, {over_tls} over TLS");
    assert!(over_tcp < 3 * 1024, "{over_tcp} bytes");
    assert!(over_tls < 6 * 1024, "{over_tls} bytes");
    // And it is a connection still.
    let mut last = plain.connect();
    last.write_all(GET).unwrap();
    assert!(last.read(&mut [0; 16]).unwrap() > 0);
}
