//! WebSocket tunnels: joined, counted, idle without a buffer, and closed with a Close frame.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cobalance::health::OperatorState;
use cobalance::telemetry::metrics::ClosedBy;
use parking_lot::Mutex;
use support::origin::{Origin, gate, read_head};
use support::{Answer, Proxy, config, until};

const HANDSHAKE: &str = "GET /ws?__appName=x HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n";

/// Answers the handshake with `first` behind it, then echoes.
fn echo(first: &'static [u8]) -> Origin {
    Origin::scripted(move |mut line| {
        line.request();
        line.send(SWITCH.as_bytes());
        line.send(first);
        // An open tunnel may say nothing for as long as it likes.
        line.stream.set_read_timeout(None).unwrap();
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = line.stream.read(&mut buffer) {
            line.send(&buffer[..n]);
        }
    })
}

fn open(proxy: &Proxy) -> TcpStream {
    let mut stream = proxy.connect();
    stream.write_all(HANDSHAKE.as_bytes()).unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("Upgrade: websocket\r\n") && head.contains("Sec-WebSocket-Accept"));
    stream
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn bytes_pass_both_ways_with_what_came_early() {
    let origin = echo(b"\x81\x02hi");
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let mut stream = open(&proxy);
    let mut early = [0; 4];
    stream.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"\x81\x02hi");
    exchange(&mut stream, b"\x81\x85\x01\x02\x03\x04abcde");
    let node = proxy.node(0);
    assert_eq!((node.tunnels(), node.in_flight()), (1, 0));
    let head = &origin.seen()[0].head;
    assert!(head.starts_with("GET /ws?__appName=x HTTP/1.1\r\n"));
    assert!(head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
    drop(stream);
    until("the tunnel is closed", || node.tunnels() == 0);
    assert_eq!(node.metrics.ws_closed[ClosedBy::Client as usize].get(), 1);
}

#[test]
fn four_megabytes_pass_with_back_pressure() {
    let origin = echo(b"");
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let mut stream = open(&proxy);
    let mut writer = stream.try_clone().unwrap();
    let data: Vec<u8> = (0..4 << 20).map(|n: u32| n as u8).collect();
    let sent = data.clone();
    let write = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).unwrap();
    write.join().unwrap();
    assert!(back == data);
}

#[test]
fn a_silent_tunnel_is_closed_and_a_speaking_one_is_not() {
    let origin = echo(b"");
    // Far longer than a pause of this machine, which would make the other one silent as well.
    let proxy = Proxy::start(config(&[origin.address], "", "tunnel_idle_timeout = \"4s\""));
    let (mut silent, mut speaking) = (open(&proxy), open(&proxy));
    let metrics = &proxy.node(0).metrics;
    until("the silent one was closed", || {
        exchange(&mut speaking, b"\x81\x80\x01\x02\x03\x04");
        metrics.ws_closed[ClosedBy::Idle as usize].get() == 1
    });
    exchange(&mut speaking, b"\x81\x80\x01\x02\x03\x04");
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 3, 0xe9], "a Close frame with code 1001");
}

#[test]
fn draining_closes_tunnels_at_frame_boundaries_and_ends() {
    // A frame that is never finished: its tunnel is closed by the window's end all the same.
    let origin = echo(b"");
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let mut tunnels: Vec<TcpStream> = (0..20).map(|_| open(&proxy)).collect();
    let idle = proxy.connect();
    until("all are counted", || proxy.node(0).tunnels() == 20);
    let readers: Vec<_> = tunnels
        .drain(..)
        .map(|mut stream| {
            std::thread::spawn(move || {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                rest
            })
        })
        .collect();
    proxy.drain(Duration::from_millis(200));
    for reader in readers {
        assert_eq!(reader.join().unwrap(), [0x88, 2, 3, 0xe9]);
    }
    assert_eq!(proxy.node(0).tunnels(), 0);
    drop(idle);
    assert!(TcpStream::connect(proxy.address).is_err(), "the listener is closed");
}

/// Close frames as a server sends them: the service restarts.
const RESTART: [u8; 4] = [0x88, 2, 3, 0xf4];
/// What clients send: a text of five bytes, masked with zeros so that it can be read here.
const TEXT: &[u8] = b"\x81\x85\0\0\0\0abcde";

/// A node that keeps what it is sent, and sends what it is given, until the other side ends.
struct Recorder {
    origin: Origin,
    got: Arc<Mutex<Vec<u8>>>,
    give: mpsc::Sender<Vec<u8>>,
    ended: Arc<AtomicBool>,
}

impl Recorder {
    fn new() -> Recorder {
        let (got, ended): (Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>) = Default::default();
        let (give, given) = mpsc::channel::<Vec<u8>>();
        let (parts, given) = ((got.clone(), ended.clone()), Arc::new(Mutex::new(Some(given))));
        let origin = Origin::scripted(move |mut line| {
            let (got, ended) = parts.clone();
            line.request();
            line.send(SWITCH.as_bytes());
            let Some(given) = given.lock().take() else { return };
            line.stream.set_read_timeout(None).unwrap();
            let mut writer = line.stream.try_clone().unwrap();
            std::thread::spawn(move || given.iter().all(|bytes| writer.write_all(&bytes).is_ok()));
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = line.stream.read(&mut buffer) {
                got.lock().extend_from_slice(&buffer[..n]);
            }
            ended.store(true, SeqCst);
            let _ = line.stream.shutdown(std::net::Shutdown::Both);
        });
        Recorder { origin, got, give, ended }
    }

    fn give(&self, bytes: &[u8]) {
        self.give.send(bytes.to_vec()).unwrap();
    }

    /// Everything, once the other side has ended.
    fn all(&self) -> Vec<u8> {
        until("the node's side ends", || self.ended.load(SeqCst));
        self.got.lock().clone()
    }
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

/// The code in a masked Close frame.
fn masked_code(frame: &[u8]) -> u16 {
    let [0x88, 0x82, a, b, _, _, high, low] = *frame else { panic!("no Close frame: {frame:x?}") };
    u16::from_be_bytes([high ^ a, low ^ b])
}

#[test]
fn a_drained_node_gets_1001_and_its_clients_1012() {
    let node = Recorder::new();
    let proxy = Proxy::start(config(&[node.origin.address], "", ""));
    let mut stream = open(&proxy);
    node.give(b"\x81\x02hi");
    stream.write_all(TEXT).unwrap();
    let mut hi = [0; 4];
    stream.read_exact(&mut hi).unwrap();
    until("the text is there", || node.got.lock().len() == TEXT.len());
    proxy.drain_node(0, Duration::from_millis(100));
    assert_eq!(rest(&mut stream), RESTART);
    drop(stream);
    let got = node.all();
    assert_eq!(&got[..TEXT.len()], TEXT);
    assert_eq!(masked_code(&got[TEXT.len()..]), 1001);
    until("nothing is left", || proxy.node(0).tunnels() == 0);
    let metrics = &proxy.node(0).metrics;
    assert_eq!((metrics.ws_moved.get(), metrics.ws_closed[ClosedBy::Drain as usize].get()), (1, 1));
}

#[test]
fn a_frame_that_a_client_has_begun_is_finished_before_the_node_is_told() {
    let node = Recorder::new();
    let proxy = Proxy::start(config(&[node.origin.address], "", ""));
    let mut stream = open(&proxy);
    stream.write_all(&TEXT[..8]).unwrap();
    until("a part is there", || node.got.lock().len() == 8);
    proxy.drain_node(0, Duration::ZERO);
    let mut told = [0; 4];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(told, RESTART, "the way to the client is free");
    stream.write_all(&[&TEXT[8..], TEXT, &TEXT[..3]].concat()).unwrap();
    let got = node.all();
    assert_eq!(&got[..TEXT.len()], TEXT);
    assert_eq!(masked_code(&got[TEXT.len()..]), 1001, "and nothing that came after");
    assert!(rest(&mut stream).is_empty());
}

#[test]
fn a_frame_that_a_node_has_begun_is_finished_before_the_client_is_told() {
    let node = Recorder::new();
    let proxy = Proxy::start(config(&[node.origin.address], "", ""));
    let mut stream = open(&proxy);
    node.give(b"\x81\x04ab");
    let mut part = [0; 4];
    stream.read_exact(&mut part).unwrap();
    proxy.drain_node(0, Duration::ZERO);
    until("the node is told", || node.got.lock().len() == 8);
    assert_eq!(masked_code(&node.got.lock()), 1001);
    node.give(b"cd\x81\x02no\x81");
    assert_eq!(rest(&mut stream), [b"cd", &RESTART[..]].concat());
}

#[test]
fn a_frame_that_does_not_end_gets_no_close_frame_into_it() {
    let node = Recorder::new();
    let proxy = Proxy::start(config(&[node.origin.address], "", ""));
    let mut stream = open(&proxy);
    stream.write_all(&TEXT[..8]).unwrap();
    until("a part is there", || node.got.lock().len() == 8);
    proxy.drain_node(0, Duration::ZERO);
    assert_eq!(rest(&mut stream), RESTART);
    drop(stream);
    assert_eq!(node.all(), &TEXT[..8]);
}

#[test]
fn a_stream_without_a_pause_is_cut_between_two_frames() {
    let node = Recorder::new();
    let proxy = Proxy::start(config(&[node.origin.address], "", ""));
    let mut stream = open(&proxy);
    let frame = [&[0x82, 126, 0x12, 0x35][..], &[7; 0x1235]].concat();
    // As much at a time as never ends where a frame does.
    let flood: Vec<u8> = frame.iter().copied().cycle().take(frame.len() * 1000).collect();
    flood.chunks(9_973).for_each(|chunk| node.give(chunk));
    let mut first = vec![0; frame.len()];
    stream.read_exact(&mut first).unwrap();
    proxy.drain_node(0, Duration::ZERO);
    let rest = rest(&mut stream);
    let (frames, close) = rest.split_at(rest.len() - 4);
    assert_eq!(close, RESTART);
    assert!(frames.chunks(frame.len()).all(|one| one == frame), "whole frames, and no others");
}

#[test]
fn a_handshake_that_ends_after_the_drain_began_is_moved_as_well() {
    let (open, gate) = gate();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        let _ = gate.lock().recv();
        line.send(SWITCH.as_bytes());
        line.wait_closed();
    });
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let mut stream = proxy.connect();
    stream.write_all(HANDSHAKE.as_bytes()).unwrap();
    until("it is asked", || origin.seen().len() == 1);
    proxy.drain_node(0, Duration::ZERO);
    open.send(()).unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(rest(&mut stream), RESTART);
}

#[test]
fn an_exchange_that_runs_is_finished_and_its_connection_is_not_kept() {
    let (open, gate) = gate();
    let origin = Origin::scripted(move |mut line| {
        while line.request().is_some() {
            let _ = gate.lock().recv();
            // Kept for longer than any test takes.
            line.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=600\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::to(&origin);
    let node = proxy.node(0);
    open.send(()).unwrap();
    assert_eq!(proxy.get("/").text(), "ok");
    until("the connection is kept", || node.connections() == (1, 0));
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    until("it is asked", || origin.seen().len() == 2);
    proxy.drain_node(0, Duration::ZERO);
    assert_eq!(node.in_flight(), 1);
    open.send(()).unwrap();
    assert_eq!(Answer::read(&mut stream).expect("it is finished").text(), "ok");
    until("nothing is left", || node.in_flight() == 0 && node.connections() == (0, 0));
    assert_eq!(proxy.get("/").status, 503);
    node.set_operator(OperatorState::Ready);
    open.send(()).unwrap();
    assert_eq!(proxy.get("/").text(), "ok");
    until("the connection is kept", || node.connections() == (1, 0));
    proxy.drain_node(0, Duration::ZERO);
    assert_eq!(node.connections(), (0, 0), "idle ones are closed at once");
}

#[test]
fn ready_in_the_middle_leaves_the_rest_where_they_are() {
    let origin = echo(b"");
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let mut tunnels: Vec<TcpStream> = (0..200).map(|_| open(&proxy)).collect();
    let node = proxy.node(0);
    proxy.drain_node(0, Duration::from_secs(20));
    until("some are moved", || node.metrics.ws_moved.get() >= 3);
    node.set_operator(OperatorState::Ready);
    // Those that were told by now have closed by the time a new one has come and been answered.
    let mut new = open(&proxy);
    exchange(&mut new, TEXT);
    let stay = |stream: &mut TcpStream| {
        stream.write_all(TEXT).is_ok() && {
            let mut back = [0; TEXT.len()];
            stream.read_exact(&mut back).is_ok() && back == TEXT
        }
    };
    let stayed = tunnels.iter_mut().filter_map(|stream| stay(stream).then_some(())).count();
    assert!((1..198).contains(&stayed), "{stayed}");
    until("the others are closed", || node.tunnels() as usize == stayed + 1);
}

#[test]
fn tunnels_spread_by_fewest_tunnels() {
    let origins = [echo(b""), echo(b""), echo(b"")];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let proxy = Proxy::start(config(&addresses, "", ""));
    let _tunnels: Vec<TcpStream> = (0..30).map(|_| open(&proxy)).collect();
    let counts: Vec<u32> = (0..3).map(|n| proxy.node(n).tunnels()).collect();
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn other_upgrades_are_no_tunnels() {
    let origin = Origin::ok("plain");
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let answer = proxy.raw(
        b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert!(origin.seen().is_empty());
    let unasked = Origin::answering(SWITCH);
    let proxy = Proxy::start(config(&[unasked.address], "", ""));
    assert_eq!(proxy.get("/").status, 502);
}

#[test]
fn a_node_that_declines_answers_in_its_own_words() {
    let origin = Origin::answering("HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope");
    let proxy = Proxy::start(config(&[origin.address], "", ""));
    let mut stream = proxy.connect();
    stream.write_all(HANDSHAKE.as_bytes()).unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "nope"));
}

/// A client and a node that are not ours, and frames of every size.
#[test]
fn a_real_websocket_client_and_server_speak_through_it() {
    use tungstenite::Message;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        while let Ok(message) = socket.read() {
            if message.is_text() || message.is_binary() {
                socket.send(message).unwrap();
            }
        }
    });
    let proxy = Proxy::start(config(&[address], "", ""));
    let request = format!("ws://{}/ws", proxy.address);
    let (mut client, answer) = tungstenite::client(request, proxy.connect()).unwrap();
    assert_eq!(answer.status(), 101);
    for length in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        for message in [Message::text("t".repeat(length)), Message::binary(vec![7; length])] {
            client.send(message.clone()).unwrap();
            assert_eq!(client.read().unwrap(), message, "{length}");
        }
    }
    client.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(vec![1, 2, 3].into()));
    client.close(None).unwrap();
    while client.read().is_ok() {}
    server.join().unwrap();
}
