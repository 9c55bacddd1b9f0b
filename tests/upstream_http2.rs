//! HTTP/2 to nodes: what passes over HTTP/1.1 passes over their streams, and what is lost is as little.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

#[path = "upstream_http2/ending.rs"]
mod ending;
#[path = "upstream_http2/grpc.rs"]
mod grpc;
#[path = "upstream_http2/node.rs"]
mod node;
#[path = "upstream_http2/over_tls.rs"]
mod over_tls;
#[path = "upstream_http2/raw.rs"]
mod raw;

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Response;
use node::{Asked, Node, fields};
use support::h2::{Client, DATA, END_STREAM, HEADERS, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE};
use support::origin::{self, Origin};
use support::{Answer, Proxy, config, until};

/// A connection is open when the node's settings have come: a machine that has other things to do is no reason to
/// give up a node.
const H2: &str = "preset = \"none\"\nprotocol = \"h2\"\nconnect_timeout = \"20s\"";
const BOTH: &str = "protocols = [\"h1\", \"h2\"]";

/// In front of these nodes, for clients of both versions.
fn to(nodes: &[SocketAddr]) -> Proxy {
    Proxy::start(config(nodes, BOTH, H2))
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[test]
fn requests_share_a_connection() {
    let node = Node::ok("hello");
    let proxy = to(&[node.address]);
    for _ in 0..3 {
        let answer = proxy.get("/a?b=c");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.field("content-length"), Some("5"));
    }
    assert_eq!(Client::plain(proxy.address).get("/").text(), "hello");
    let seen = node.seen();
    assert_eq!((seen.len(), node.connections()), (4, 1));
    let request = &seen[0].request;
    assert_eq!(request.uri(), "http://test/a?b=c");
    assert!(request.headers().contains_key("x-request-id"));
    assert!(!request.headers().contains_key("host"));
    until("the connection is idle", || proxy.node(0).connections() == (1, 0));
}

#[test]
fn large_bodies_pass_both_ways_in_either_framing() {
    let node = Node::scripted(Asked::echo);
    let proxy = to(&[node.address]);
    let sent = body(3_000_000);
    for framing in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        // The answer begins before the request has ended, and then the connection is not kept.
        let mut stream = proxy.connect();
        write!(stream, "POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").unwrap();
        let (mut writer, sent, chunked) =
            (stream.try_clone().unwrap(), sent.clone(), framing.ends_with("chunked"));
        let upload = std::thread::spawn(move || {
            for piece in sent.chunks(50_000) {
                let end = if chunked {
                    write!(writer, "{:x}\r\n", piece.len()).unwrap();
                    "\r\n"
                } else {
                    ""
                };
                writer.write_all(piece).unwrap();
                writer.write_all(end.as_bytes()).unwrap();
            }
            if chunked {
                writer.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let answer = Answer::read(&mut stream).unwrap();
        assert!(answer.body == self::body(3_000_000), "{}", answer.body.len());
        upload.join().unwrap();
    }
    let mut client = Client::plain(proxy.address);
    assert_eq!(client.post("/", &sent[..200_000], None).unwrap().body, sent[..200_000]);
    assert_eq!(node.connections(), 1);
}

#[test]
fn trailers_pass_both_ways() {
    let node = Node::scripted(Asked::echo);
    let proxy = to(&[node.address]);
    let mut stream = proxy.connect();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
        .unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("abc", "x-sum: 1\r\n"));
    assert_eq!(node.seen()[0].request.headers()["te"], "trailers");
    let mut client = Client::plain(proxy.address);
    let got = client.post("/", b"abc", Some(fields("x-sum", "2"))).unwrap();
    assert_eq!(got.text(), "abc");
    assert_eq!(got.trailers, Some(fields("x-sum", "2")));
}

#[test]
fn answers_without_bodies_and_interim_ones_pass() {
    let node = Node::scripted(|mut asked: Asked| async move {
        let head = Response::builder();
        match (asked.request.method().as_str(), asked.path()) {
            ("HEAD", _) => drop(asked.head(head.header("content-length", 7), true)),
            (_, "/204") => drop(asked.head(head.status(204), true)),
            (_, "/304") => drop(asked.head(head.status(304).header("etag", "\"x\""), true)),
            (_, "/empty") => drop(asked.head(head, true)),
            _ => {
                let hints = Response::builder().status(103).header("link", "</a>; rel=preload");
                asked.respond.send_informational(hints.body(()).unwrap()).unwrap();
                asked.answer("late").await;
            }
        }
    });
    let proxy = to(&[node.address]);
    let mut stream = proxy.connect();
    let head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(head).unwrap();
    let answer = origin::read_head(&mut stream).unwrap();
    assert_eq!(origin::field(&answer, "content-length"), Some("7"));
    for (path, status) in [("/204", 204), ("/304", 304), ("/empty", 200)] {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{answer:?}");
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let hints = Answer::read(&mut stream).unwrap();
    assert_eq!((hints.status, hints.field("link")), (103, Some("</a>; rel=preload")));
    assert_eq!(Answer::read(&mut stream).unwrap().text(), "late");
    assert_eq!(node.connections(), 1);
}

/// Answers once it is told to, one for each word.
fn held() -> (Node, tokio::sync::watch::Sender<bool>) {
    held_with(|_| ())
}

fn held_with(
    settings: impl FnOnce(&mut h2::server::Builder),
) -> (Node, tokio::sync::watch::Sender<bool>) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let node = Node::with(settings, None, move |asked: Asked| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|open| *open).await;
            asked.answer("ok").await;
        }
    });
    (node, open)
}

/// Begins so many GETs at once, each on a connection of its own.
fn ask_all(proxy: &Proxy, count: usize) -> Vec<std::net::TcpStream> {
    let begin = |_| {
        let mut stream = proxy.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream
    };
    (0..count).map(begin).collect()
}

#[test]
fn as_many_streams_as_a_node_allows_share_a_connection() {
    for (allowed, asked, connections) in [(100, 60, 1), (1, 4, 4), (3, 6, 2)] {
        let (node, open) = held_with(|builder| {
            builder.max_concurrent_streams(allowed);
        });
        let proxy = to(&[node.address]);
        // The first connection teaches what is allowed.
        let mut first = ask_all(&proxy, 1);
        until("one is asked", || node.seen().len() == 1);
        first.extend(ask_all(&proxy, asked - 1));
        until("all are asked", || node.seen().len() == asked);
        assert_eq!(node.connections(), connections, "of {allowed} each");
        assert_eq!(proxy.node(0).connections(), (0, connections as u32));
        open.send(true).unwrap();
        for mut stream in first {
            assert_eq!(Answer::read(&mut stream).unwrap().text(), "ok");
        }
        until("all are idle", || proxy.node(0).connections() == (connections as u32, 0));
    }
}

#[test]
fn a_node_that_speaks_http_1_is_not_reached_and_another_is_asked() {
    let odd = Origin::ok("never");
    let node = Node::ok("hello");
    let proxy = to(&[odd.address, node.address]);
    for _ in 0..4 {
        assert_eq!(proxy.get("/").text(), "hello");
    }
    let alone = to(&[odd.address]);
    let answer = alone.get("/");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("could not be reached"), "{}", answer.text());
}

#[test]
fn a_client_that_reads_nothing_holds_its_node_back() {
    let (sent, said) = std::sync::mpsc::channel();
    let node = Node::scripted(move |mut asked: Asked| {
        let sent = sent.clone();
        async move {
            if asked.path() == "/small" {
                return asked.answer("small").await;
            }
            let mut stream = asked.head(Response::builder(), false).unwrap();
            let piece = Bytes::from(vec![b'x'; 16 * 1024]);
            while support::h2::send_all(&mut stream, &piece, false).await.is_ok() {
                let _ = sent.send(piece.len());
            }
        }
    });
    let proxy = to(&[node.address]);
    let mut stream = proxy.connect();
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    // The first may be long in coming.
    let mut total = said.recv_timeout(support::PATIENCE).unwrap();
    // What the kernel's buffers hold may take a while; it ends where they and the window are full.
    while let Ok(more) = said.recv_timeout(std::time::Duration::from_secs(1)) {
        total += more;
        assert!(total < 64 << 20, "it goes on and on");
    }
    // Others on the same connection are not held up.
    assert_eq!(proxy.get("/small").text(), "small");
    assert_eq!(node.connections(), 1);
}

#[test]
fn answers_in_small_pieces_wait_for_their_clients_and_nobody_else_does() {
    const PIECES: usize = 10_000;
    let piece = |nth: usize| format!("data: {nth:012}\n\n");
    let node = Node::scripted(move |mut asked: Asked| async move {
        if asked.path() == "/small" {
            return asked.answer("small").await;
        }
        let mut stream = asked.head(Response::builder(), false).unwrap();
        for nth in 0..PIECES {
            if support::h2::send_all(&mut stream, piece(nth).as_bytes(), false).await.is_err() {
                return;
            }
        }
        let _ = stream.send_data(Bytes::new(), true);
    });
    let proxy = to(&[node.address]);
    // Whose windows are shut, and opened when all has come that fits.
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::connect(proxy.address)).collect();
    for raw in &mut clients {
        raw.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        raw.get(1, "/endless");
        assert_eq!(raw.await_kind(HEADERS).unwrap().stream, 1);
    }
    // Behind whatever comes to the others.
    for _ in 0..20 {
        assert_eq!(proxy.get("/small").text(), "small");
    }
    for mut raw in clients {
        raw.send(WINDOW_UPDATE, 0, 1, &(1u32 << 20).to_be_bytes());
        raw.send(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes());
        let mut body = Vec::new();
        loop {
            let frame = raw.next().expect("the connection has ended");
            assert_ne!(frame.kind, RST_STREAM);
            if frame.kind == DATA {
                body.extend(frame.payload);
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
        assert!(body == (0..PIECES).flat_map(|nth| piece(nth).into_bytes()).collect::<Vec<_>>());
    }
    assert_eq!(node.connections(), 1);
}

/// Says on a WebSocket what it hears, or refuses it.
fn tunnels(enabled: bool) -> Node {
    let settings = move |builder: &mut h2::server::Builder| {
        if enabled {
            builder.enable_connect_protocol();
        }
    };
    Node::with(settings, None, |asked: Asked| async move {
        match asked.path() {
            "/ws" => asked.echo().await,
            _ => {
                let mut asked = asked;
                drop(asked.head(Response::builder().status(403), true));
            }
        }
    })
}

fn upgrade(proxy: &Proxy, path: &str) -> (std::net::TcpStream, Answer) {
    let mut stream = proxy.connect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    (stream, answer)
}

#[test]
fn websockets_pass_where_the_node_takes_them() {
    use std::io::Read;
    let node = tunnels(true);
    let proxy = to(&[node.address]);
    let (mut stream, answer) = upgrade(&proxy, "/ws");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut heard = [0; 3];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, word.as_bytes());
    }
    assert_eq!(upgrade(&proxy, "/no").1.status, 403);
    let seen = node.seen();
    assert_eq!(seen[0].request.method(), "CONNECT");
    let protocol = seen[0].request.extensions().get::<h2::ext::Protocol>().unwrap();
    assert_eq!(protocol.as_str(), "websocket");
    drop(stream);
    drop(seen);
    until("the tunnel has ended", || proxy.node(0).connections() == (1, 0));
}

#[test]
fn websockets_are_not_carried_where_the_node_does_not_take_them() {
    let node = tunnels(false);
    let proxy = to(&[node.address]);
    let (_, answer) = upgrade(&proxy, "/ws");
    assert_eq!(answer.status, 501);
    assert!(answer.text().contains("RFC 8441"), "{}", answer.text());
    assert_eq!(node.seen().len(), 0);
}
