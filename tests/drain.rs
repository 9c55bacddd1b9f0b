//! Nodes that are drained and made ready: nobody who uses them notices.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "drain/command.rs"]
mod command;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cobalance::control::ConfigSource;
use cobalance::control::operator::{Order, OrderError, Ordered, Verb};
use cobalance::server::{self, Running};
use support::origin::{Origin, node, read_head};
use support::{Answer, PATIENCE, parse, until};

const HANDSHAKE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// A Close frame of a server, with code 1012: the service restarts.
const RESTART: [u8; 4] = [0x88, 2, 3, 0xf4];
const TUNNELS: usize = 60;

struct Rig {
    running: Running,
    nodes: Vec<Origin>,
}

impl Rig {
    fn start(count: usize) -> Rig {
        let nodes: Vec<Origin> = (0..count).map(|_| node("answer")).collect();
        let named = |(n, node): (usize, &Origin)| {
            format!("{{ name = \"n{n}\", address = \"{}\" }}", node.address)
        };
        let list: Vec<String> = nodes.iter().enumerate().map(named).collect();
        let text = format!(
            "[server]\nthreads = 2\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.u]\nnodes = [{}]\n[upstream.u.health_check]\ninterval = \"50ms\"\nwatch = false\n",
            list.join(", ")
        );
        let running = server::start(parse(&text), ConfigSource::Flags).unwrap();
        let rig = Rig { running, nodes };
        until("all nodes are up", || (0..count).all(|n| rig.node(n).eligible(false)));
        rig
    }

    fn address(&self) -> SocketAddr {
        self.running.address("public").unwrap()
    }

    fn node(&self, n: usize) -> std::sync::Arc<cobalance::upstream::Node> {
        self.running.handle().snapshot().upstreams[0].nodes[n].node.clone()
    }

    fn order(&self, verb: Verb, n: usize, window: Duration) -> Result<Ordered, OrderError> {
        let order = Order {
            verb,
            node: format!("n{n}"),
            upstream: None,
            window: Some(window),
            force: false,
            from: [127, 0, 0, 1].into(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.handle().order(order)).unwrap()
    }

    /// Requests that were no probes.
    fn requests(&self, n: usize) -> usize {
        let seen = self.nodes[n].seen();
        seen.iter().filter(|seen| !seen.head.contains("__health_check")).count()
    }
}

fn tunnel(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(HANDSHAKE).unwrap();
    let head = read_head(&mut stream).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// A page: it holds a tunnel and comes back when that is closed as it should be. Returns how often.
fn page(address: SocketAddr, over: &AtomicBool) -> usize {
    let mut moved = 0;
    let mut stream = tunnel(address);
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !over.load(SeqCst) {
        let mut told = [0; 4];
        match stream.read(&mut told) {
            Ok(n) => {
                assert_eq!(&told[..n], RESTART);
                moved += 1;
                stream = tunnel(address);
                stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    moved
}

/// Asks until it is over, on connections that are kept.
fn load(address: SocketAddr, method: &str, over: &AtomicBool, answered: &AtomicUsize) {
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    let mut stream = connect();
    while !over.load(SeqCst) {
        write!(stream, "{method} /api/a:b HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let answer = Answer::read(&mut stream).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "answer"));
        answered.fetch_add(1, SeqCst);
        if answer.field("connection") == Some("close") {
            stream = connect();
        }
    }
}

#[test]
fn nodes_are_drained_one_by_one_and_nobody_notices() {
    let rig = Rig::start(3);
    let address = rig.address();
    let (over, answered, moved) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // Also a failure of this thread ends the others.
        let _over = Over(&over);
        for method in ["GET", "POST", "GET", "POST"] {
            scope.spawn(|| load(address, method, &over, &answered));
        }
        for _ in 0..TUNNELS {
            scope.spawn(|| moved.fetch_add(page(address, &over), SeqCst));
        }
        let tunnels = || (0..3).map(|n| rig.node(n).tunnels() as usize).sum::<usize>();
        until("all tunnels are open", || tunnels() == TUNNELS);
        for n in 0..3 {
            let drained = rig.node(n);
            assert!(drained.tunnels() > 0);
            let ordered = rig.order(Verb::Drain, n, Duration::from_millis(300)).unwrap();
            assert_eq!(ordered.nodes[0].state, "draining");
            assert_eq!(drained.connections().0, 0, "no idle connection is left");
            until("it is empty", || drained.in_flight() + drained.tunnels() == 0);
            let (before, at) = (rig.requests(n), answered.load(SeqCst));
            until("the load goes on", || answered.load(SeqCst) > at + 200);
            assert_eq!(rig.requests(n), before, "nothing new goes there");
            until("all are closed", || drained.connections().1 == 0);
            assert_eq!(drained.connections().0, 0, "what ran was not kept");
            until("its clients are back", || tunnels() == TUNNELS);
            rig.order(Verb::Ready, n, Duration::ZERO).unwrap();
            until("it works again", || rig.requests(n) > before);
        }
        over.store(true, SeqCst);
    });
    let counted: u64 = (0..3).map(|n| rig.node(n).metrics.ws_moved.get()).sum();
    assert_eq!(moved.load(SeqCst) as u64, counted);
    assert!(counted >= TUNNELS as u64, "each was moved at least once: {counted}");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn without_force_the_last_node_keeps_its_tunnels_and_gets_all_new_ones() {
    let rig = Rig::start(2);
    let (n0, n1) = (rig.node(0), rig.node(1));
    let mut tunnels: Vec<TcpStream> = (0..8).map(|_| tunnel(rig.address())).collect();
    assert_eq!((n0.tunnels(), n1.tunnels()), (4, 4));
    rig.order(Verb::Drain, 0, Duration::ZERO).unwrap();
    let refused = rig.order(Verb::Drain, 1, Duration::ZERO);
    assert!(matches!(refused, Err(OrderError::Last { .. })), "{refused:?}");
    until("all are moved", || n0.tunnels() == 0);
    tunnels.extend((0..8).map(|_| tunnel(rig.address())));
    assert_eq!((n0.tunnels(), n1.tunnels()), (0, 12), "new ones go elsewhere");
}
