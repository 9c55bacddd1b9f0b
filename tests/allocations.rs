//! How often an exchange asks the allocator for memory: a ceiling for each kind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::tls::{Authority, table};
use support::{Proxy, config, parse};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests before counting: buffers are made, pools filled, vectors grown.
const WARM: usize = 300;
/// Requests that are counted.
const COUNTED: usize = 500;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\
    Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n{\"data\":\"ok\"}";

/// An origin that allocates nothing while it answers: what is counted is the proxy's.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    let mut have = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[have..]) {
        have += read;
        if whole(&buffer[..have]) {
            have = 0;
            stream.write_all(ANSWER).unwrap();
        }
    }
}

/// Whether a request is there to its end: either has no body, or one of 4 KiB.
fn whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let body = if bytes.starts_with(b"POST") { 4096 } else { 0 };
    bytes.len() == end + 4 + body
}

fn ask(stream: &mut TcpStream, request: &[u8], times: usize) {
    let mut buffer = [0; 4096];
    for _ in 0..times {
        stream.write_all(request).unwrap();
        let mut have = 0;
        while !buffer[..have].ends_with(b"{\"data\":\"ok\"}") {
            let read = stream.read(&mut buffer[have..]).unwrap();
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&buffer[..have]));
            have += read;
        }
    }
}

/// Allocations for one request, over a kept connection.
fn allocations(proxy: &Proxy, request: &[u8]) -> f64 {
    let mut stream = proxy.connect();
    ask(&mut stream, request, WARM);
    let made = || ALLOCATOR.stats().allocations + ALLOCATOR.stats().reallocations;
    let before = made();
    ask(&mut stream, request, COUNTED);
    (made() - before) as f64 / COUNTED as f64
}

/// The same over TLS, for a client in a process of its own: what two runs of different length have more than
/// each other.
fn allocations_over_tls(proxy: &Proxy, ca: &str) -> f64 {
    let made = || ALLOCATOR.stats().allocations + ALLOCATOR.stats().reallocations;
    let port = proxy.address.port();
    let run = |times: usize| {
        let before = made();
        let out = std::process::Command::new("curl")
            .args(["-sS", "--http1.1", "--cacert", ca, "-o", "/dev/null", "-w", "%{http_code} "])
            .args(["--resolve", &format!("a.test:{port}:127.0.0.1")])
            .arg(format!("https://a.test:{port}/api/posts:list?page=[1-{times}]"))
            .output()
            .expect("curl must be installed");
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(text.matches("200 ").count(), times, "{}", String::from_utf8_lossy(&out.stderr));
        made() - before
    };
    run(WARM);
    (run(WARM + COUNTED) as f64 - run(WARM) as f64) / COUNTED as f64
}

#[test]
fn an_exchange_allocates_no_more_than_its_ceiling() {
    let node = origin();
    let get = b"GET /api/posts:list?page=1 HTTP/1.1\r\nHost: crm.example\r\nUser-Agent: t\r\n\
        Accept: application/json\r\nAuthorization: Bearer abc\r\nX-Role: admin\r\n\r\n";
    let head =
        b"POST /api/posts:create HTTP/1.1\r\nHost: crm.example\r\nContent-Length: 4096\r\n\r\n";
    let post = [&head[..], &[b'x'; 4096]].concat();
    let quiet = Proxy::start(config(&[node], "", ""));
    for (what, request, ceiling) in [("GET", &get[..], 2.2), ("POST of 4 KiB", &post, 3.2)] {
        let each = allocations(&quiet, request);
        println!("{what}: {each:.2} allocations");
        assert!(each <= ceiling, "{what}: {each:.2}, at most {ceiling}");
    }
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let secure = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}\
         [[listener]]\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\"]\n\
         [upstream.u]\nnodes = [\"{node}\"]\n",
        table("a", &pair)
    )));
    // The library makes two more for a record that comes and one that goes; our own buffers are lent.
    let each = allocations_over_tls(&secure, authority.ca().to_str().unwrap());
    println!("GET over TLS: {each:.2} allocations");
    assert!(each <= 4.2, "over TLS: {each:.2}");
}
