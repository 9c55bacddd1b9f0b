//! A reload under load with a thousand open tunnels: no tunnel closes, no request fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cobalance::control::ConfigSource;
use cobalance::server::{self, Running};
use support::files::put;
use support::origin::{Origin, node, read_head};
use support::{Answer, PATIENCE, until};

const TUNNELS: usize = 1000;

struct Rig {
    dir: tempfile::TempDir,
    running: Running,
    nodes: Vec<Origin>,
}

impl Rig {
    fn new(nodes: Vec<Origin>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let text = text(&nodes, 1);
        std::fs::write(dir.path().join("c.toml"), &text).unwrap();
        let source = ConfigSource::File(dir.path().join("c.toml"));
        let running = server::start(support::parse(&text), source).unwrap();
        until("all nodes are up", || {
            let snapshot = running.handle().snapshot();
            snapshot.upstreams[0].nodes.iter().all(|member| member.node.eligible(false))
        });
        Rig { dir, running, nodes }
    }

    fn address(&self) -> SocketAddr {
        self.running.address("public").unwrap()
    }

    fn generation(&self) -> u64 {
        self.running.handle().snapshot().generation
    }

    /// Writes another file and reloads; returns when the snapshot is in use.
    fn reload(&self, text: &str) {
        let before = self.generation();
        put(&self.dir.path().join("c.toml"), text);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.handle().reload());
        assert!(self.generation() > before, "{text}");
    }
}

fn text(nodes: &[Origin], weight: usize) -> String {
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| format!("{{ address = \"{}\", weight = {weight} }}", node.address))
        .collect();
    format!(
        "[server]\nthreads = 2\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [{}]\n",
        nodes.join(", ")
    )
}

fn tunnel(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
    stream
}

#[test]
fn a_thousand_tunnels_and_a_load_do_not_notice_reloads() {
    let rig = Rig::new((0..3).map(|_| node("answer")).collect());
    let address = rig.address();
    let mut tunnels: Vec<TcpStream> = (0..TUNNELS).map(|_| tunnel(address)).collect();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(address).unwrap();
                while !stop.load(Ordering::SeqCst) {
                    let n = answered.load(Ordering::SeqCst);
                    write!(
                        stream,
                        "POST /api/a:create?n={n} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx"
                    )
                    .unwrap();
                    let answer = Answer::read(&mut stream).expect("an answer");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "answer"));
                    answered.fetch_add(1, Ordering::SeqCst);
                    if answer.field("connection") == Some("close") {
                        stream = TcpStream::connect(address).unwrap();
                    }
                }
            });
        }
        for weight in 2..12 {
            let before = answered.load(Ordering::SeqCst);
            rig.reload(&text(&rig.nodes, weight));
            until("the load goes on", || answered.load(Ordering::SeqCst) > before + 100);
        }
        stop.store(true, Ordering::SeqCst);
    });
    for (n, stream) in tunnels.iter_mut().enumerate() {
        stream.write_all(b"\x81\x80abcd").unwrap();
        let mut back = [0; 6];
        stream.read_exact(&mut back).unwrap_or_else(|error| panic!("tunnel {n}: {error}"));
    }
    let snapshot = rig.running.handle().snapshot();
    let open: u32 = snapshot.upstreams[0].nodes.iter().map(|m| m.node.tunnels()).sum();
    println!(
        "{} requests answered, {open} tunnels open after 10 reloads",
        answered.load(Ordering::SeqCst)
    );
    assert_eq!(open as usize, TUNNELS);
}

#[test]
fn a_removed_node_gets_nothing_new_and_a_listener_goes_with_its_queue_served() {
    let rig = Rig::new((0..2).map(|_| node("answer")).collect());
    let mut kept = TcpStream::connect(rig.address()).unwrap();
    let mut ask = || {
        kept.write_all(b"GET /api/a:list HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        Answer::read(&mut kept).unwrap()
    };
    assert_eq!(ask().status, 200);
    rig.reload(&text(&rig.nodes[..1], 1));
    let before = requests(&rig.nodes[1]);
    for _ in 0..50 {
        assert_eq!(ask().status, 200);
    }
    assert_eq!(requests(&rig.nodes[1]), before, "the removed node gets nothing");
    assert_eq!(rig.running.handle().snapshot().upstreams[0].nodes.len(), 1);
    // A connection of a listener that goes is told so with its next answer.
    let other = text(&rig.nodes[..1], 1).replace("name = \"public\"", "name = \"other\"");
    let old = rig.address();
    rig.reload(&other);
    assert_eq!(ask().field("connection"), Some("close"));
    until("the old listener is closed", || {
        TcpStream::connect_timeout(&old, Duration::from_secs(1)).is_err()
    });
    let moved = rig.running.address("other").unwrap();
    let mut stream = TcpStream::connect(moved).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
}

fn requests(node: &Origin) -> usize {
    node.seen().iter().filter(|seen| !seen.head.contains("__health_check")).count()
}
