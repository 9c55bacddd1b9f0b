//! TLS to clients: handshakes, certificates by name, and HTTP over it as over anything else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

#[path = "tls/clients.rs"]
mod clients;
#[path = "tls/endless.rs"]
mod endless;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/stream.rs"]
mod stream;
#[path = "tls/upstream.rs"]
mod upstream;
#[path = "tls/whole.rs"]
mod whole;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use support::origin::{Origin, read_head};
use support::tls::{Authority, Client, ask_once, connect, shown, table};
use support::{Answer, Proxy, parse, until};

/// A TLS listener in front of one origin.
struct Rig {
    authority: Authority,
    proxy: Proxy,
}

impl Rig {
    fn new(origin: &Origin) -> Rig {
        Rig::with(origin, "", "")
    }

    fn with(origin: &Origin, listener: &str, upstream: &str) -> Rig {
        let authority = Authority::new();
        let a = authority.issue("a", &["a.test", "*.wild.test"]);
        let b = authority.issue("b", &["b.test"]);
        let text = format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}{}\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\ncertificates = [\"a\", \"b\"]\n{listener}\n\
             [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n{upstream}\n",
            table("a", &a),
            table("b", &b),
            origin.address
        );
        Rig { proxy: Proxy::start(parse(&text)), authority }
    }

    fn connect(&self, config: ClientConfig) -> Client {
        connect(self.proxy.address, &Arc::new(config), "a.test").unwrap()
    }

    fn client(&self) -> Client {
        self.connect(self.authority.client())
    }

    fn counter(&self, family: &str, labels: &[&str]) -> f64 {
        count(&self.proxy, family, labels)
    }
}

/// The sum of all counters of a family that have these labels.
fn count(proxy: &Proxy, family: &str, labels: &[&str]) -> f64 {
    proxy.count(family, labels)
}

const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const CLOSE: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

#[test]
fn a_request_passes_over_either_version_and_the_node_learns_that_it_was_https() {
    let origin = Origin::ok("hello");
    let rig = Rig::new(&origin);
    for (version, label) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        let mut client = rig.connect(rig.authority.client_with(&[version], None));
        let answer = ask_once(&mut client, CLOSE).expect("the end of the connection is said");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        let head = origin.seen().pop().unwrap().head;
        assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
        assert!(head.contains(";proto=https\r\n"), "{head}");
        assert_eq!(rig.counter("tls_handshakes_total", &["public", "full", label]), 1.0);
    }
}

#[test]
fn the_key_exchange_is_post_quantum_where_the_client_can() {
    let origin = Origin::ok("x");
    let rig = Rig::new(&origin);
    let client = rig.client();
    let group = client.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn many_requests_use_one_connection_and_large_bodies_pass_both_ways() {
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::scripted(move |mut line| {
        while line.request().is_some() {
            line.send(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()).as_bytes(),
            );
            line.send(&sent);
        }
    });
    let rig = Rig::new(&origin);
    let mut client = rig.client();
    for _ in 0..3 {
        write!(client, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())
            .unwrap();
        client.write_all(&body).unwrap();
        let answer = Answer::read(&mut client).unwrap();
        assert!(answer.body == body);
        assert!(origin.seen().pop().unwrap().body == body);
    }
    assert_eq!(rig.counter("tls_handshakes_total", &["full"]), 1.0);
}

#[test]
fn chunks_of_any_size_pass_and_pipelined_requests_are_answered_in_order() {
    let origin = Origin::scripted(|mut line| {
        while line.request().is_some() {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for size in [1, 16_384, 16_385, 40_000] {
                answer.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                answer.resize(answer.len() + size, b'c');
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\n\r\n");
            line.send(&answer);
        }
    });
    let rig = Rig::new(&origin);
    let mut client = rig.client();
    let three: String = (0..3).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.write_all(three.as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(Answer::read(&mut client).unwrap().body.len(), 1 + 16_384 + 16_385 + 40_000);
    }
    let targets: Vec<_> = origin.seen().iter().map(|seen| seen.head[5..6].to_owned()).collect();
    assert_eq!(targets, ["0", "1", "2"]);
}

#[test]
fn a_client_that_reads_late_gets_all_of_a_large_answer_and_its_end() {
    let body = vec![b'x'; 8 * 1024 * 1024];
    let answer = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), body.clone()].concat();
    let origin = Origin::answering_once(answer);
    let rig = Rig::new(&origin);
    let mut client = rig.client();
    client.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    // Whatever the kernel holds of it is full long before the end.
    until("the answer waits", || rig.counter("tls_handshakes_total", &["full"]) == 1.0);
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("a close_notify behind the last byte");
    assert_eq!(all.len() - all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() - 4, body.len());
}

#[test]
fn each_name_has_its_certificate() {
    let origin = Origin::ok("x");
    let rig = Rig::new(&origin);
    let config = Arc::new(rig.authority.client());
    for (name, expected) in
        [("a.test", "a"), ("b.test", "b"), ("B.Test", "b"), ("x.wild.test", "a")]
    {
        let client = connect(rig.proxy.address, &config, name).unwrap();
        assert_eq!(shown(&client), expected, "{name}");
    }
    let error = connect(rig.proxy.address, &config, "deep.x.wild.test").unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    until("the client's refusal is counted", || {
        rig.counter("tls_handshake_failures_total", &["alert"]) == 1.0
    });
}

#[test]
fn http_2_or_1_1_is_agreed_on_and_nothing_else() {
    let origin = Origin::ok("x");
    let rig = Rig::new(&origin);
    let offer = |protocols: &[&str]| {
        let mut config = rig.authority.client();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        connect(rig.proxy.address, &Arc::new(config), "a.test")
    };
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], &b"h2"[..]),
        (&["h2"], b"h2"),
        (&["spdy/3", "http/1.1"], b"http/1.1"),
    ] {
        let client = offer(offered).unwrap();
        assert_eq!(client.conn.alpn_protocol(), Some(agreed));
    }
    assert_eq!(offer(&[]).unwrap().conn.alpn_protocol(), None);
    assert!(offer(&["spdy/3"]).is_err());
    until("it is counted", || rig.counter("tls_handshake_failures_total", &["alpn"]) == 1.0);
}

#[test]
fn a_client_comes_back_with_its_ticket() {
    for version in [&TLS13, &TLS12] {
        let origin = Origin::ok("x");
        let rig = Rig::new(&origin);
        let config = Arc::new(rig.authority.client_with(&[version], None));
        let kinds: Vec<_> = (0..2)
            .map(|_| {
                let mut client = connect(rig.proxy.address, &config, "a.test").unwrap();
                // A ticket of TLS 1.3 comes behind the handshake.
                ask_once(&mut client, CLOSE).unwrap();
                client.conn.handshake_kind().unwrap()
            })
            .collect();
        assert_ne!(kinds[0], HandshakeKind::Resumed);
        assert_eq!(kinds[1], HandshakeKind::Resumed);
        assert_eq!(rig.counter("tls_handshakes_total", &["resumed"]), 1.0);
    }
}

#[test]
fn a_handshake_that_dawdles_is_cut_with_its_first_head() {
    let origin = Origin::ok("x");
    // Long enough for a handshake, also where the machine stands still for a moment.
    let rig = Rig::with(&origin, "request_head_timeout = \"4s\"", "");
    let mut silent = rig.proxy.connect();
    // A record that promises more than comes.
    silent.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    // With its handshake done a client has what is left of the same time.
    let mut client = rig.client();
    client.write_all(b"GET /x HTT").unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    until("it is counted", || rig.counter("tls_handshake_failures_total", &["timeout"]) == 1.0);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 408"), "{rest}");
}

#[test]
fn what_is_no_tls_is_told_so_and_counted() {
    let origin = Origin::ok("x");
    let rig = Rig::new(&origin);
    let answer = rig.proxy.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Nothing of TLS stands before it.
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("This port speaks HTTPS"), "{answer}");
    assert_eq!(rig.counter("tls_handshake_failures_total", &["not_tls"]), 1.0);
    // Left in the middle; and a hello that never ends.
    drop(rig.proxy.connect());
    until("it is counted", || rig.counter("tls_handshake_failures_total", &["closed"]) == 1.0);
    let mut endless = rig.proxy.connect();
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend_from_slice(&[1, 0, 0xff, 0xff]);
    record.resize(5 + 0x4000, 0);
    let mut more = vec![22, 3, 1, 0x40, 0];
    more.resize(5 + 0x4000, 0);
    for piece in [&record, &more, &more] {
        // It may be cut before all was sent.
        let _ = endless.write_all(piece);
    }
    let _ = endless.read(&mut [0; 64]);
    until("it is bounded", || rig.counter("tls_handshake_failures_total", &["too_large"]) == 1.0);
    until("all are counted", || rig.counter("tls_handshakes_total", &["failed"]) == 3.0);
}

#[test]
fn a_request_that_breaks_http_is_answered_over_tls() {
    let origin = Origin::ok("x");
    let rig = Rig::new(&origin);
    let mut client = rig.client();
    let answer = ask_once(&mut client, "GET / HTTP/1.1\r\nbroken\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn a_tunnel_passes_over_tls_and_is_closed_with_a_frame_and_an_end() {
    let origin = Origin::scripted(|mut line| {
        line.request();
        line.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n\x81\x02hi",
        );
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = line.stream.read(&mut buffer) {
            line.send(&buffer[..n]);
        }
    });
    let rig = Rig::new(&origin);
    let mut client = rig.client();
    client.write_all(UPGRADE).unwrap();
    assert!(read_head(&mut client).unwrap().starts_with("HTTP/1.1 101"));
    let mut early = [0; 4];
    client.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"\x81\x02hi");
    // Several records, in both directions at once.
    let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 3, 0x0d, 0x40];
    frame.resize(frame.len() + 200_000, b'z');
    client.write_all(&frame).unwrap();
    let mut back = vec![0; frame.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == frame);
    let drained = std::thread::scope(|scope| {
        let drain = scope.spawn(|| rig.proxy.drain(Duration::from_millis(1)));
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("the end is said");
        drop(client);
        drain.join().unwrap();
        rest
    });
    assert_eq!(drained, [0x88, 2, 3, 0xe9], "a Close frame with 1001");
}

#[test]
fn curl_gets_an_answer() {
    let origin = Origin::ok("hello");
    let rig = Rig::new(&origin);
    let port = rig.proxy.address.port();
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "20", "--resolve", &format!("a.test:{port}:127.0.0.1")])
        .arg("--cacert")
        .arg(rig.authority.ca())
        .arg(format!("https://a.test:{port}/x"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "hello", "{curl:?}");
}

#[test]
fn a_connection_without_a_handshake_is_bounded_with_all_others() {
    let origin = Origin::ok("x");
    let rig = Rig::with(&origin, "max_connections = 2", "");
    let _held: Vec<TcpStream> = (0..2).map(|_| rig.proxy.connect()).collect();
    let open = || rig.proxy.snapshot.listeners[0].open.load(SeqCst) == 2;
    until("both are accepted", open);
    let mut third = rig.proxy.connect();
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    assert_eq!(rig.counter("connections_rejected_total", &["limit"]), 1.0);
}
