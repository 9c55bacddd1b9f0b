//! Maintenance: what each kind of client gets, who is let through, and how all come back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "maintenance/command.rs"]
mod command;
#[path = "maintenance/cookie.rs"]
mod cookie;
#[path = "maintenance/waiting.rs"]
mod waiting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cobalance::control::ConfigSource;
use cobalance::control::maintenance::{Change, Changed, Wanted, network};
use cobalance::control::operator::OrderError;
use cobalance::server::{self, Running};
use serde_json::Value;
use support::origin::{Origin, node, read_head};
use support::{Answer, PATIENCE, parse, read_to_end, until};

/// A client that is let through, where one is.
const TESTER: &str = "203.0.113.7";
/// And one that never is.
const OTHER: &str = "198.51.100.1";
/// The key and the proof of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Close frames of a server: 1001, and 1012.
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];
const RESTART: [u8; 4] = [0x88, 2, 3, 0xf4];

struct Rig {
    running: Running,
    nodes: [Origin; 2],
}

impl Rig {
    fn start() -> Rig {
        Rig::with("")
    }

    /// With more keys of the listener.
    fn with(listener: &str) -> Rig {
        let nodes = [node("n0"), node("n1")];
        let text = format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             trusted_proxies = [\"127.0.0.0/8\"]\n{listener}\n[upstream.u]\nnodes = [\
             {{ name = \"n0\", address = \"{}\" }}, {{ name = \"n1\", address = \"{}\" }}]\n\
             [upstream.u.health_check]\ninterval = \"50ms\"\nwatch = false\n",
            nodes[0].address, nodes[1].address
        );
        let running = server::start(parse(&text), ConfigSource::Flags).unwrap();
        let rig = Rig { running, nodes };
        until("both nodes are up", || (0..2).all(|n| rig.node(n).eligible(false)));
        rig
    }

    fn address(&self) -> SocketAddr {
        self.running.address("public").unwrap()
    }

    fn node(&self, n: usize) -> std::sync::Arc<cobalance::upstream::Node> {
        self.running.handle().snapshot().upstreams[0].nodes[n].node.clone()
    }

    fn change(&self, on: Option<Wanted>) -> Result<Changed, OrderError> {
        let change = Change { upstream: None, on, from: [127, 0, 0, 1].into() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.handle().maintain(change)).unwrap()
    }

    fn on(&self, message: &str) {
        let wanted = Wanted { message: Some(message.into()), ..Wanted::default() };
        assert!(self.change(Some(wanted)).unwrap().upstreams[0].maintenance.is_some());
    }

    /// The tester reaches this node, or both.
    fn on_but_for_tester(&self, node: Option<&str>) {
        let allow = vec![network(TESTER).unwrap()];
        let wanted = Wanted { allow, node: node.map(str::to_owned), ..Wanted::default() };
        self.change(Some(wanted)).unwrap();
    }

    fn off(&self) {
        assert!(self.change(None).unwrap().upstreams[0].maintenance.is_none());
    }

    /// Requests that were no probes.
    fn requests(&self, n: usize) -> usize {
        let seen = self.nodes[n].seen();
        seen.iter().filter(|seen| !seen.head.contains("__health_check")).count()
    }

    fn counted(&self, kind: &str) -> u64 {
        self.sample("cobalance_maintenance_answers_total", Some(kind)) as u64
    }

    fn held(&self) -> i64 {
        self.sample("cobalance_maintenance_ws_open", None) as i64
    }

    fn sample(&self, family: &str, kind: Option<&str>) -> f64 {
        let all = self.running.handle().metrics().registry.gather();
        let family = all.iter().find(|one| one.name() == family).expect("the family");
        let of_kind = |one: &&prometheus::proto::Metric| {
            kind.is_none_or(|kind| one.get_label().iter().any(|label| label.value() == kind))
        };
        let metric = family.get_metric().iter().find(of_kind).expect("the series");
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks on a kept connection, with more lines in the head.
fn ask(stream: &mut TcpStream, line: &str, more: &str) -> Answer {
    write!(stream, "{line} HTTP/1.1\r\nHost: t\r\n{more}\r\n").unwrap();
    Answer::read(stream).expect("an answer")
}

/// Asks on a connection of its own.
fn get(address: SocketAddr, path: &str, client: &str) -> Answer {
    ask(&mut connect(address), &format!("GET {path}"), &format!("X-Forwarded-For: {client}\r\n"))
}

fn websocket(address: SocketAddr, client: &str) -> (TcpStream, String) {
    let mut stream = connect(address);
    write!(
        stream,
        "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         X-Forwarded-For: {client}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .unwrap();
    let head = read_head(&mut stream).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    (stream, head)
}

/// The payload of the next text frame, which is JSON.
fn frame(stream: &mut impl Read) -> Value {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81, "a whole text");
    let length = match head[1] {
        126 => {
            let mut long = [0; 2];
            stream.read_exact(&mut long).unwrap();
            usize::from(u16::from_be_bytes(long))
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

fn assert_maintaining(frame: &Value, message: &str) {
    assert_eq!(frame["type"], "maintaining");
    let payload = &frame["payload"];
    assert_eq!(
        (&payload["code"], &payload["message"]),
        (&"APP_COMMANDING".into(), &message.into())
    );
}

fn assert_running(frame: &Value) {
    assert_eq!(frame["type"], "maintaining");
    let payload = &frame["payload"];
    assert_eq!((&payload["code"], &payload["refresh"]), (&"APP_RUNNING".into(), &true.into()));
}

#[test]
fn everybody_gets_what_they_can_read() {
    let rig = Rig::start();
    rig.on("Back at <b>9</b>");
    let mut stream = connect(rig.address());
    let page = ask(&mut stream, "GET /admin", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!((page.status, page.field("retry-after")), (503, Some("30")));
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.field("cache-control"), Some("no-store"));
    let text = page.text();
    assert!(text.contains("Back at &lt;b&gt;9&lt;/b&gt;"), "{text}");
    assert!(!text.contains("src=") && !text.contains("href="), "nothing else is loaded: {text}");
    assert!(text.contains(page.field("x-request-id").unwrap()), "{text}");
    let post = "Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}";
    write!(stream, "POST /api/users:create HTTP/1.1\r\nHost: t\r\n{post}").unwrap();
    let api = Answer::read(&mut stream).unwrap();
    assert_eq!((api.status, api.field("retry-after")), (503, Some("30")));
    let error = &serde_json::from_slice::<Value>(&api.body).unwrap()["error"];
    assert_eq!((&error["status"], &error["maintaining"]), (&503.into(), &true.into()));
    assert_eq!(error["code"], "APP_COMMANDING");
    assert_eq!(error["message"], "Back at <b>9</b>");
    assert_eq!(error["command"]["name"], "Maintenance");
    let asset = ask(&mut stream, "GET /assets/index.js", "Accept: */*\r\n");
    assert_eq!((asset.status, asset.text().as_str()), (503, "Back at <b>9</b>\n"));
    assert_eq!(asset.field("content-type"), Some("text/plain; charset=utf-8"));
    write!(stream, "HEAD / HTTP/1.1\r\nHost: t\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(rest(&mut stream)).unwrap();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
    let counted: Vec<u64> = ["page", "api", "plain", "ws"].map(|kind| rig.counted(kind)).to_vec();
    assert_eq!(counted, [2, 1, 1, 0]);
    assert_eq!((rig.requests(0), rig.requests(1)), (0, 0), "no node was asked");
    assert_eq!(rig.sample("cobalance_maintenance", None), 1.0);
    rig.off();
    assert_eq!(get(rig.address(), "/api/x:list", OTHER).status, 200);
    assert_eq!(rig.sample("cobalance_maintenance", None), 0.0);
}

#[test]
fn a_body_that_is_not_read_ends_the_connection_after_the_answer() {
    let rig = Rig::start();
    rig.on("m");
    let mut stream = connect(rig.address());
    write!(stream, "POST /api/a:upload HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nx")
        .unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!((answer.status, answer.field("connection")), (503, Some("close")));
    let mut stream = connect(rig.address());
    let expects = "Content-Length: 3\r\nExpect: 100-continue\r\n";
    let answer = ask(&mut stream, "POST /api/a:upload", expects);
    assert_eq!(answer.status, 503, "nobody is asked to send what nobody reads");
}

#[test]
fn a_websocket_is_held_told_and_sent_back_to_a_node() {
    let rig = Rig::start();
    rig.on("first");
    let (mut stream, head) = websocket(rig.address(), OTHER);
    assert!(head.contains(&format!("Sec-WebSocket-Accept: {PROOF}\r\n")), "{head}");
    assert_maintaining(&frame(&mut stream), "first");
    // What the client says by itself gets no answer; a ping gets one.
    stream.write_all(b"\x81\x84\0\0\0\0ping\x89\x82\0\0\0\0hi").unwrap();
    let mut pong = [0; 4];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\x8a\x02hi");
    assert_eq!((rig.held(), rig.counted("ws")), (1, 1));
    rig.on("second");
    assert_maintaining(&frame(&mut stream), "second");
    let (mut leaving, _) = websocket(rig.address(), OTHER);
    assert_maintaining(&frame(&mut leaving), "second");
    leaving.write_all(b"\x88\x82\0\0\0\0\x03\xe8").unwrap();
    assert_eq!(rest(&mut leaving), b"\x88\x02\x03\xe8", "its own code comes back");
    until("it is counted no more", || rig.held() == 1);
    rig.off();
    assert_running(&frame(&mut stream));
    assert_eq!(rest(&mut stream), RESTART);
    until("none is held", || rig.held() == 0);
    let (_stream, _) = websocket(rig.address(), OTHER);
    assert_eq!(rig.node(0).tunnels() + rig.node(1).tunnels(), 1, "it is a node's again");
}

#[test]
fn what_is_no_websocket_of_the_client_is_refused() {
    let rig = Rig::start();
    rig.on("m");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = format!("{upgrade}Sec-WebSocket-Key: {KEY}\r\n");
    let mut stream = connect(rig.address());
    assert_eq!(ask(&mut stream, "GET /other/ws", &key).status, 503);
    assert_eq!(ask(&mut stream, "GET /ws", "").status, 503, "no upgrade");
    assert_eq!(ask(&mut stream, "GET /ws", upgrade).status, 400, "no key");
}

#[test]
fn open_tunnels_come_back_into_maintenance() {
    let rig = Rig::start();
    let mut tunnels: Vec<_> = (0..4).map(|_| websocket(rig.address(), OTHER).0).collect();
    let (mut tester, _) = websocket(rig.address(), TESTER);
    until("all are open", || rig.node(0).tunnels() + rig.node(1).tunnels() == 5);
    rig.on_but_for_tester(None);
    for stream in tunnels.iter_mut().chain([&mut tester]) {
        assert_eq!(rest(stream), RESTART);
    }
    until("none is left", || rig.node(0).tunnels() + rig.node(1).tunnels() == 0);
    let (mut stream, _) = websocket(rig.address(), OTHER);
    assert_eq!(frame(&mut stream)["payload"]["code"], "APP_COMMANDING");
    let (mut tester, _) = websocket(rig.address(), TESTER);
    tester.write_all(b"\x81\x80\0\0\0\0").unwrap();
    let mut echo = [0; 6];
    tester.read_exact(&mut echo).unwrap();
    assert_eq!(rig.node(0).tunnels() + rig.node(1).tunnels(), 1, "who is let through has one");
}

#[test]
fn a_tunnel_that_outlasts_maintenance_is_told_that_it_is_over() {
    let rig = Rig::start();
    // A pause of this machine may outlast them all: then it is tried again.
    let told = (0..5).any(|_| told_that_it_is_over(&rig) > 0);
    assert!(told, "its page may be under the overlay of an answer of the API");
}

/// How many tunnels are told so, of those that maintenance would have closed.
fn told_that_it_is_over(rig: &Rig) -> usize {
    let tunnels: Vec<_> = (0..16).map(|_| websocket(rig.address(), OTHER).0).collect();
    rig.on("m");
    let readers: Vec<_> = tunnels
        .into_iter()
        .map(|mut stream| std::thread::spawn(move || rest(&mut stream)))
        .collect();
    until("the first is closed", || readers.iter().any(std::thread::JoinHandle::is_finished));
    rig.off();
    let mut told = 0;
    for reader in readers {
        let said = reader.join().unwrap();
        let before = said.strip_suffix(&RESTART).expect("a Close frame is the last word");
        if !before.is_empty() {
            assert_running(&frame(&mut &*before));
            told += 1;
        }
    }
    told
}

#[test]
fn whoever_is_let_through_reaches_the_named_node_alone() {
    let rig = Rig::start();
    rig.on_but_for_tester(Some("n1"));
    for path in ["/", "/api/x:list"] {
        for _ in 0..8 {
            let answer = get(rig.address(), path, TESTER);
            assert_eq!((answer.status, answer.text().as_str()), (200, "n1"));
        }
        assert_eq!(get(rig.address(), path, OTHER).status, 503);
    }
    assert_eq!((rig.requests(0), rig.requests(1)), (0, 16));
    let (_tunnel, _) = websocket(rig.address(), TESTER);
    assert_eq!((rig.node(0).tunnels(), rig.node(1).tunnels()), (0, 1));
    rig.off();
    // Not at once, if one of them looks slower than the other.
    let mut bodies = Vec::new();
    until("both serve everybody", || {
        bodies.push(get(rig.address(), "/", OTHER).text());
        ["n0", "n1"].iter().all(|node| bodies.contains(&(*node).to_owned()))
    });
}

#[test]
fn a_named_node_that_is_gone_is_not_replaced() {
    let rig = Rig::start();
    rig.on_but_for_tester(Some("n1"));
    rig.node(1).set_operator(cobalance::health::OperatorState::Draining);
    let answer = get(rig.address(), "/", TESTER);
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("No node can serve"), "{}", answer.text());
    assert_eq!(rig.requests(0), 0);
}

#[test]
fn an_unknown_node_or_upstream_changes_nothing() {
    let rig = Rig::start();
    let wanted = Wanted { node: Some("n7".into()), ..Wanted::default() };
    let error = rig.change(Some(wanted)).unwrap_err().to_string();
    assert!(error.contains("no node `n7`") && error.contains("n0, n1"), "{error}");
    assert_eq!(get(rig.address(), "/", OTHER).status, 200);
}

#[test]
fn held_websockets_are_bounded_with_all_connections() {
    let rig = Rig::with("max_connections = 3");
    rig.on("m");
    let mut held: Vec<_> = (0..3).map(|_| websocket(rig.address(), OTHER).0).collect();
    let mut fourth = connect(rig.address());
    // Who is accepted would be answered; who is not may be gone before this.
    let _ = fourth.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_eq!(read_to_end(&mut fourth), "", "there is no room");
    held.pop();
    until("its place is free", || rig.held() == 2);
    let (_fits, _) = websocket(rig.address(), OTHER);
}

#[test]
fn a_process_that_ends_says_so_to_those_it_holds() {
    let rig = Rig::start();
    rig.on("m");
    let (mut stream, _) = websocket(rig.address(), OTHER);
    assert_maintaining(&frame(&mut stream), "m");
    let reader = std::thread::spawn(move || rest(&mut stream));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(rig.running.handle().finish(Duration::from_millis(100)));
    assert_eq!(reader.join().unwrap(), GOING_AWAY);
}
