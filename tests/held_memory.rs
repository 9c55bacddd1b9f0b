//! What strangers make us hold, in live heap: not much more than is counted for `max_buffered`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::{Mutex, MutexGuard};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::tls::{Authority, Client, connect, table};
use support::{Proxy, config, parse, until};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough that what is kept for reuse by all of them does not count.
const CONNECTIONS: usize = 48;
/// What a connection and an exchange take beside what is counted: their state, and room that grows by halves.
const UNCOUNTED: usize = 20 * 1024;
const KIB: usize = 1024;

/// The heap is the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes that each of many connections makes the proxy hold, as they are counted and as they are. `open` begins so
/// many, keeps no more of its own side than the sockets, and comes back when nothing moves any more.
fn each(proxy: &Proxy, open: impl Fn(usize) -> Vec<TcpStream>) -> (usize, usize) {
    // Buffers, pools and tables are made by the first ones.
    drop(open(CONNECTIONS));
    let listener = proxy.snapshot.listeners[0].clone();
    let is_open = || listener.open.load(SeqCst) > 0 || proxy.metrics.buffered_now() > 0;
    until("they are gone", || !is_open());
    let before = live();
    let kept = open(CONNECTIONS);
    // What is kept of an upload has a bound of its own.
    let counted = || proxy.metrics.buffered_now() + proxy.metrics.spool.bytes[0].get();
    // It is told at each tick, of which these are some: what is held now must have been counted.
    let (mut last, mut same) = (counted(), 0);
    until("nothing moves any more", || {
        let now = counted();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same == 300
    });
    let counted = usize::try_from(last).unwrap();
    let held = live().saturating_sub(before);
    drop(kept);
    (counted / CONNECTIONS, held / CONNECTIONS)
}

/// A node that takes so many bytes of each request, allocates nothing for them, and never answers. Also counts the
/// requests that it has taken so far.
fn silent_node(most: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), count.clone());
            std::thread::spawn(move || {
                let (mut left, mut buffer) = (most, [0; 64 * KIB]);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    left = left.saturating_sub(n);
                    if left == 0 {
                        count.fetch_add(1, SeqCst);
                        left = usize::MAX;
                    }
                }
            });
        }
    });
    (address, taken)
}

#[test]
fn an_upload_that_was_sent_holds_no_more_than_its_heads_while_its_node_works() {
    let _alone = alone();
    const BODY: usize = 1024 * KIB;
    let (node, taken) = silent_node(BODY);
    let body = vec![b'x'; BODY];
    for how in ["preset = \"none\"", "stream_within = \"1h\""] {
        let proxy = Proxy::start(config(&[node], "", how));
        let (counted, held) = each(&proxy, |count| {
            let before = taken.load(SeqCst);
            let one = |_| {
                let mut stream = proxy.connect();
                let head = format!("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: {BODY}\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&body).unwrap();
                stream
            };
            let all = (0..count).map(one).collect();
            until("all of it is there", || taken.load(SeqCst) == before + count);
            let most = i64::try_from(count * 64 * KIB).unwrap();
            until("no room is kept", || (1..most).contains(&proxy.metrics.buffered_now()));
            all
        });
        println!("{how}: {counted} bytes are counted for an upload, {held} are held");
        assert!(held < counted + UNCOUNTED, "{how}: {held} bytes, {counted} counted");
    }
}

/// A proxy that speaks TLS, and what a client must know.
fn secure(node: SocketAddr) -> (Proxy, Arc<rustls::ClientConfig>, Authority) {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let proxy = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}\
         [[listener]]\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\nmax_head = \"8KiB\"\n\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{node}\"]\n",
        table("a", &pair)
    )));
    let client = Arc::new(authority.client());
    (proxy, client, authority)
}

fn until_counted(proxy: &Proxy, kib: usize) {
    let least = i64::try_from(kib * KIB).unwrap();
    until(&format!("{kib} KiB are counted"), || proxy.metrics.buffered_now() >= least);
}

/// The record that carries these bytes, not sent.
fn sealed(client: &mut Client, bytes: &[u8]) -> Vec<u8> {
    client.conn.writer().write_all(bytes).unwrap();
    let mut record = Vec::new();
    client.conn.write_tls(&mut record).unwrap();
    record
}

#[test]
fn records_that_are_not_whole_are_counted() {
    let _alone = alone();
    let (node, _) = silent_node(1);
    let (proxy, config, _authority) = secure(node);
    // Before a request, in the middle of a head, and of a body.
    let post = b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n";
    let body = [&post[..], &[b'x'; 3]].concat();
    for (begun, least) in [(&b""[..], 18), (&post[..40], 34), (post, 140), (&body, 140)] {
        let (counted, held) = each(&proxy, |count| {
            let one = |_| {
                let mut client = connect(proxy.address, &config, "a.test").unwrap();
                client.write_all(begun).unwrap();
                let record = sealed(&mut client, &[b'x'; 16 * KIB]);
                // The client's own session is no cost of ours.
                let mut stream = client.sock.try_clone().unwrap();
                stream.write_all(&record[..record.len() - 1]).unwrap();
                stream
            };
            let all = (0..count).map(one).collect();
            until_counted(&proxy, count * least);
            all
        });
        let begun = begun.len();
        println!("a record after {begun} bytes: {counted} bytes are counted, {held} are held");
        assert!(held < counted + UNCOUNTED, "{begun}: {held} bytes, {counted} counted");
    }
}

/// A node that answers without an end, and allocates nothing for it.
fn endless_node() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4 * KIB]);
                let mut more =
                    stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
                while more.is_ok() {
                    more = stream.write(&[b'x'; 64 * KIB]);
                }
            });
        }
    });
    address
}

#[test]
fn answers_that_are_sealed_and_not_taken_are_counted() {
    let _alone = alone();
    let (proxy, config, _authority) = secure(endless_node());
    let (counted, held) = each(&proxy, |count| {
        let one = |_| {
            let mut client = connect(proxy.address, &config, "a.test").unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            client.sock.try_clone().unwrap()
        };
        let all = (0..count).map(one).collect();
        until_counted(&proxy, count * 190);
        all
    });
    println!("an answer over TLS: {counted} bytes are counted, {held} are held");
    // Where there are assertions, a copy of what was sealed is kept for them.
    let copied = if cfg!(debug_assertions) { 64 * KIB } else { 0 };
    assert!(held < counted + copied + UNCOUNTED, "{held} bytes, {counted} counted");
}
