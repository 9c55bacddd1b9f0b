//! How much one client may have at once.

use std::io::{Read, Write};
use std::net::TcpStream;

use cobalance::telemetry::metrics::ClosedBy;

use crate::support::origin::{Origin, node};
use crate::support::{Answer, Proxy, config, until};
use crate::{behind_proxy, counter, errors};

const KEY: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";

/// A tunnel, or the answer that it got instead.
pub(crate) fn open(proxy: &Proxy) -> Result<TcpStream, Answer> {
    open_for(proxy, "192.0.2.1")
}

fn open_for(proxy: &Proxy, client: &str) -> Result<TcpStream, Answer> {
    let mut stream = proxy.connect();
    write!(stream, "GET /ws HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {client}\r\n{KEY}\r\n")
        .unwrap();
    let answer = Answer::read(&mut stream).expect("an answer");
    if answer.status == 101 { Ok(stream) } else { Err(answer) }
}

fn is_served(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    asked.is_ok() && Answer::read(stream).is_some()
}

#[test]
fn a_client_has_so_many_connections_and_gets_back_what_it_closes() {
    let origin = Origin::ok("hi");
    let proxy = Proxy::start(config(&[origin.address], "max_connections_per_client = 2", ""));
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    assert!(is_served(&mut first) && is_served(&mut second));
    let mut third = proxy.connect();
    assert!(!matches!(third.read(&mut [0]), Ok(1)), "it is reset");
    assert_eq!(counter(&proxy, "cobalance_connections_rejected_total", "client_limit"), 1.0);
    drop(first);
    let clients = proxy.snapshot.listeners[0].clients.clone();
    until("the place is free", || clients.of("127.0.0.1".parse().unwrap()) == 1);
    assert!(is_served(&mut proxy.connect()) && is_served(&mut second));
    drop(second);
    until("nothing is left", || clients.count() == 0);
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    let origin = Origin::ok("hi");
    let proxy = behind_proxy(&origin, "max_connections_per_client = 1", "");
    let mut all: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
    assert!(all.iter_mut().all(is_served));
}

#[test]
fn a_client_has_so_many_tunnels_whoever_carries_them() {
    let origin = node("hi");
    let proxy = behind_proxy(&origin, "max_tunnels_per_client = 2", "");
    let first = open(&proxy).unwrap();
    let _second = open(&proxy).unwrap();
    let refused = open(&proxy).unwrap_err();
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("10")));
    until("it is counted", || errors(&proxy, "too_many_tunnels") == 1);
    let _other = open_for(&proxy, "192.0.2.2").unwrap();
    drop(first);
    let tunnels = proxy.snapshot.listeners[0].tunnels.clone();
    until("the place is free", || tunnels.of("192.0.2.1".parse().unwrap()) == 1);
    let third = open(&proxy).unwrap();
    drop((_second, _other, third));
    until("nothing is left", || tunnels.count() == 0);
}

#[test]
fn a_handshake_that_fails_takes_no_place() {
    let origin = Origin::ok("no websocket here");
    let proxy = behind_proxy(&origin, "max_tunnels_per_client = 1", "");
    for _ in 0..3 {
        until("it is free", || proxy.snapshot.listeners[0].tunnels.count() == 0);
        assert_eq!(open(&proxy).unwrap_err().status, 200);
    }
    let tunnels = &proxy.snapshot.listeners[0].tunnels;
    until("each place is given back", || tunnels.count() == 0);
}

/// What a client gets until its connection ends.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

/// Answers the handshake, and keeps everything that it hears.
fn listening() -> (Origin, std::sync::mpsc::Receiver<Vec<u8>>) {
    let (heard, all) = std::sync::mpsc::channel();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let mut bytes = Vec::new();
        let _ = line.stream.read_to_end(&mut bytes);
        let _ = heard.send(bytes);
    });
    (origin, all)
}

/// The code of a masked Close frame.
fn masked_code(frame: &[u8]) -> u16 {
    assert_eq!((frame.len(), &frame[..2]), (8, &b"\x88\x82"[..]), "{frame:x?}");
    u16::from_be_bytes([frame[6] ^ frame[2], frame[7] ^ frame[3]])
}

#[test]
fn a_message_that_is_too_long_ends_the_tunnel_on_both_sides() {
    let good = [&b"\x81\xfe\x03\xe8\0\0\0\0"[..], &[b'x'; 1000]].concat();
    // One frame, and a message of two frames that are each short enough.
    let long = [&b"\x82\xfe\x03\xe9\0\0\0\0"[..], &[b'y'; 1001]].concat();
    let parts = [&b"\x01\xfe\x03\xe8\0\0\0\0"[..], &[b'z'; 1000], b"\x80\x81\0\0\0\0z"].concat();
    for (bytes, passes) in [(long, 0), (parts, 1008)] {
        let (origin, heard) = listening();
        let proxy = Proxy::start(config(&[origin.address], "", "max_message = 1000"));
        let mut stream = open(&proxy).unwrap();
        stream.write_all(&good).unwrap();
        stream.write_all(&bytes).unwrap();
        assert_eq!(rest(&mut stream), b"\x88\x02\x03\xf1", "Close 1009");
        drop(stream);
        let heard = heard.recv().unwrap();
        let (frames, close) = heard.split_at(good.len() + passes);
        assert!(frames.starts_with(&good) && frames[good.len()..] == bytes[..passes]);
        assert_eq!(masked_code(close), 1009);
        let closed = &proxy.node(0).metrics.ws_closed;
        until("it is counted", || closed[ClosedBy::TooLarge as usize].get() == 1);
    }
}

#[test]
fn a_header_that_came_in_pieces_ends_the_tunnel_as_well() {
    let (heard, all) = std::sync::mpsc::channel();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let (mut first, mut rest) = (vec![0; 4], Vec::new());
        line.stream.read_exact(&mut first).unwrap();
        let _ = heard.send(first);
        let _ = line.stream.read_to_end(&mut rest);
        let _ = heard.send(rest);
    });
    let proxy = Proxy::start(config(&[origin.address], "", "max_message = 1000"));
    let mut stream = open(&proxy).unwrap();
    stream.write_all(b"\x82\xff\0\0").unwrap();
    // Its beginning is with the node, where no frame of ours has a place any more.
    assert_eq!(all.recv().unwrap(), b"\x82\xff\0\0");
    stream.write_all(b"\0\x01\0\0\0\0\0\0\0\0yyyy").unwrap();
    assert_eq!(rest(&mut stream), b"\x88\x02\x03\xf1");
    drop(stream);
    assert_eq!(all.recv().unwrap(), b"", "nothing stands within its frame");
}

#[test]
fn a_message_of_the_node_may_be_longer() {
    let origin = Origin::scripted(|mut line| {
        line.request();
        line.send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        line.send(&[&b"\x82\x7e\x07\xd0"[..], &[b'n'; 2000]].concat());
        line.wait_closed();
    });
    let proxy = Proxy::start(config(&[origin.address], "", "max_message = 1000"));
    let mut stream = open(&proxy).unwrap();
    let mut bytes = [0; 2004];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[2003], b'n');
}
