//! WebSockets over HTTP/2 (RFC 8441) to nodes of HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Request, Response};

use super::proxy;
use super::support::h2::{Client, Raw, SETTINGS, send_all};
use super::support::origin::{Origin, echo};
use super::support::{Proxy, config};

/// A text of five bytes, masked with zeros so that it can be read here.
const TEXT: &[u8] = b"\x81\x85\0\0\0\0abcde";

fn handshake(protocol: &'static str) -> Request<()> {
    Request::builder()
        .method("CONNECT")
        .uri("http://a.test/ws?x=1")
        .header("sec-websocket-version", "13")
        .header("origin", "http://a.test")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

/// A node that says what it hears.
fn node() -> Origin {
    Origin::scripted(|mut line| {
        line.request();
        echo(line);
    })
}

fn open(client: &mut Client) -> (Response<RecvStream>, SendStream<Bytes>) {
    let (answer, send) = client.begin(handshake("websocket"), false);
    (client.run(answer).unwrap(), send)
}

async fn read(stream: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let Some(data) = stream.data().await else { break };
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    bytes
}

#[test]
fn it_is_offered() {
    let origin = node();
    let proxy = proxy(&origin);
    let told = Raw::connect(proxy.address).await_kind(SETTINGS).unwrap().payload;
    assert!(told.chunks(6).any(|one| one == [0, 8, 0, 0, 0, 1]), "{told:?}");
}

#[test]
fn a_node_gets_the_handshake_it_knows_and_bytes_pass_both_ways() {
    let origin = node();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let (mut answer, mut send) = open(&mut client);
    assert_eq!(answer.status(), 200);
    assert!(
        ["upgrade", "connection", "sec-websocket-accept"]
            .iter()
            .all(|name| !answer.headers().contains_key(*name))
    );
    let head = &origin.seen()[0].head;
    assert!(head.starts_with("GET /ws?x=1 HTTP/1.1\r\nHost: a.test\r\n"), "{head}");
    assert!(head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
    assert!(head.contains("sec-websocket-version: 13\r\n") && head.contains("origin: "), "{head}");
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    assert_eq!((key.len(), &key[22..]), (24, "=="));
    let got = client.run(async {
        send_all(&mut send, TEXT, false).await.unwrap();
        read(answer.body_mut(), TEXT.len()).await
    });
    assert_eq!(got, TEXT);
    let node = proxy.node(0);
    assert_eq!((node.tunnels(), node.in_flight()), (1, 0));
    // Much more than the windows.
    let data: Vec<u8> = (0..4 << 20).map(|n: u32| n as u8).collect();
    let got = client.run(async {
        let (sent, got) =
            tokio::join!(send_all(&mut send, &data, false), read(answer.body_mut(), data.len()));
        sent.unwrap();
        got
    });
    let differs = got.iter().zip(&data).position(|(got, sent)| got != sent);
    assert_eq!((got.len(), differs), (data.len(), None));
    send.send_data(Bytes::new(), true).unwrap();
    client.until(|| node.tunnels() == 0);
    // It ends as a socket that is closed does, not with a reset.
    let rest = client.run(super::support::h2::read_all(answer.body_mut()));
    assert!(rest.unwrap().is_empty());
}

#[test]
fn a_node_that_does_not_agree_is_passed_on() {
    let origin = Origin::ok("no socket here");
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let (answer, _send) = client.begin(handshake("websocket"), false);
    let got = client.run(super::support::h2::whole(answer)).unwrap();
    assert_eq!((got.status, got.text()), (200, "no socket here"));
}

#[test]
fn another_protocol_is_not_for_us() {
    let origin = node();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let (answer, _send) = client.begin(handshake("connect-udp"), false);
    let got = client.run(super::support::h2::whole(answer)).unwrap();
    assert_eq!(got.status, 501);
    assert!(got.text().contains("a protocol other than websocket"), "{}", got.text());
    assert!(origin.seen().is_empty());
}

/// What is read of a tunnel to its end.
fn rest(client: &Client, answer: &mut Response<RecvStream>) -> Vec<u8> {
    client.run(async {
        let mut bytes = Vec::new();
        while let Some(Ok(data)) = answer.body_mut().data().await {
            bytes.extend_from_slice(&data);
        }
        bytes
    })
}

#[test]
fn a_drained_node_s_clients_are_told_to_come_back() {
    let origin = node();
    let proxy = Proxy::start(config(&[origin.address], super::BOTH, ""));
    let mut client = Client::plain(proxy.address);
    let (mut answer, _send) = open(&mut client);
    client.until(|| proxy.node(0).tunnels() == 1);
    proxy.drain_node(0, Duration::from_millis(50));
    assert_eq!(rest(&client, &mut answer), [0x88, 2, 3, 0xf4]);
}

#[test]
fn at_the_end_of_the_process_tunnels_are_closed_and_then_the_connection() {
    let origin = node();
    let proxy = Proxy::start(config(&[origin.address], super::BOTH, ""));
    let mut client = Client::plain(proxy.address);
    let (mut answer, send) = open(&mut client);
    client.until(|| proxy.node(0).tunnels() == 1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| proxy.drain(Duration::from_millis(50)));
        assert_eq!(rest(&client, &mut answer), [0x88, 2, 3, 0xe9]);
        drop((answer, send));
        assert!(client.ended().is_ok());
        drained.join().unwrap();
    });
}

#[test]
fn when_another_process_takes_over_tunnels_come_back_to_it() {
    let origin = node();
    let proxy = Proxy::start(config(&[origin.address], super::BOTH, ""));
    let mut client = Client::plain(proxy.address);
    let mut idle = Raw::connect(proxy.address);
    let (mut answer, send) = open(&mut client);
    client.until(|| proxy.node(0).tunnels() == 1);
    std::thread::scope(|scope| {
        let over = scope.spawn(|| proxy.hand_over(Duration::from_millis(50)));
        assert_eq!(rest(&client, &mut answer), [0x88, 2, 3, 0xf4]);
        drop((answer, send));
        assert!(client.ended().is_ok());
        assert_eq!(idle.goaway(), Some(0));
        over.join().unwrap();
    });
}

#[test]
fn a_silent_one_is_closed() {
    let origin = node();
    let proxy =
        Proxy::start(config(&[origin.address], super::BOTH, "tunnel_idle_timeout = \"300ms\""));
    let mut client = Client::plain(proxy.address);
    let (mut answer, _send) = open(&mut client);
    assert_eq!(rest(&client, &mut answer), [0x88, 2, 3, 0xe9]);
}

#[test]
fn a_node_that_ends_without_a_word_ends_the_stream_so() {
    let origin = Origin::scripted(|mut line| {
        line.request();
        line.send(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi");
    });
    let proxy = Proxy::start(config(&[origin.address], super::BOTH, "preset = \"none\""));
    let mut client = Client::plain(proxy.address);
    let (mut answer, _send) = open(&mut client);
    assert_eq!(rest(&client, &mut answer), b"\x81\x02hi");
}
