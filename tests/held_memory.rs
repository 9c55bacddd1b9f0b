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
use support::{Proxy, config, until};

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
    let counted = proxy.metrics.buffered_now() + proxy.metrics.spool.bytes[0].get();
    let counted = usize::try_from(counted).unwrap();
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
