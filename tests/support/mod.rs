//! What the integration tests start: cobalance's data path in this process on port 0, and origins that
//! record every byte and can misbehave.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)] // each test uses a part of it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cobalance::config::{self, Config, Source};
use cobalance::health::{HealthState, OperatorState};
use cobalance::listener::{self, Command, ThreadParts};
use cobalance::snapshot::{self, Parts, Snapshot};
use cobalance::telemetry::metrics::Metrics;
use cobalance::upstream::{Node, Registry, Signal};
use tokio::sync::{mpsc, oneshot};

pub mod actor;
pub mod files;
pub mod forge;
pub mod h2;
pub mod origin;
pub mod ports;
pub mod program;
pub mod said;
pub mod tls;

/// Longest wait for anything: far beyond what a loaded machine needs, so that only a defect meets it; and less than
/// the 60 s after which cobalance itself ends what stands still.
pub const PATIENCE: Duration = Duration::from_secs(50);

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        // Leaves the cores to whoever makes it come true.
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The data path without control: every node counts as up, and signals can be looked at.
pub struct Proxy {
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub snapshot: Arc<Snapshot>,
    pub signals: mpsc::Receiver<Signal>,
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
}

/// A configuration of one listener on port 0; `upstream` is what follows `nodes` in its table.
pub fn config(nodes: &[SocketAddr], listener: &str, upstream: &str) -> Config {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
    parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n{listener}\n\
         [upstream.u]\nnodes = [{}]\n{upstream}\n",
        nodes.join(", ")
    ))
}

/// A configuration from text.
pub fn parse(text: &str) -> Config {
    let source = Source { name: "test.toml".into(), text: text.into() };
    match config::load(&source, &|_| None) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{}", config::render(&errors, &source, false)),
    }
}

impl Proxy {
    /// Starts with a configuration.
    pub fn start(config: Config) -> Proxy {
        let metrics = Metrics::new();
        let threads = config.server.threads;
        let mut registry = Registry::new(threads, metrics.clone());
        let snapshot = Arc::new(snapshot::compile(Arc::new(config), Parts::bare(&mut registry)));
        for member in snapshot.upstreams.iter().flat_map(|upstream| &upstream.nodes) {
            member.node.set_health(HealthState::Up);
        }
        let (signal, signals) = mpsc::channel(1024);
        let (mut commands, mut handles, mut address) = (Vec::new(), Vec::new(), None);
        for index in 0..threads {
            let (sender, receiver) = mpsc::unbounded_channel();
            let sockets = snapshot.listeners.iter().map(|listener| {
                let bind = address.or(listener.settings.bind.tcp()).unwrap();
                let socket = reuse_port(bind);
                address = Some(socket.local_addr().unwrap());
                (listener.settings.name.clone(), socket.into())
            });
            let parts = ThreadParts {
                index,
                snapshot: snapshot.clone(),
                sockets: sockets.collect(),
                commands: receiver,
                signals: signal.clone(),
                metrics: metrics.clone(),
            };
            handles.push(listener::spawn(parts).unwrap());
            commands.push(sender);
        }
        Proxy { address: address.unwrap(), metrics, snapshot, signals, commands, threads: handles }
    }

    /// One origin behind the defaults of `preset = "none"`.
    pub fn to(origin: &origin::Origin) -> Proxy {
        Proxy::start(config(&[origin.address], "", "preset = \"none\""))
    }

    /// A node by its place.
    pub fn node(&self, index: usize) -> &Arc<Node> {
        &self.snapshot.upstreams[0].nodes[index].node
    }

    /// The sum of all counters of a family that have these labels.
    pub fn count(&self, family: &str, labels: &[&str]) -> f64 {
        let families = self.metrics.registry.gather();
        let name = format!("cobalance_{family}");
        let Some(family) = families.iter().find(|family| family.name() == name) else { return 0.0 };
        let has = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|label| metric.get_label().iter().any(|l| l.value() == *label))
        };
        family.get_metric().iter().filter(has).map(|m| m.get_counter().get_value()).sum()
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends raw bytes on a connection of their own and reads until it closes.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may be closed before all was taken: what came back tells.
        let _ = stream.write_all(bytes);
        read_to_end(&mut stream)
    }

    /// Sends one request and reads one answer.
    pub fn get(&self, path: &str) -> Answer {
        let mut stream = self.connect();
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        // At one go: a head that came in pieces would be waited for, and could be refused half-way.
        stream.write_all(head.as_bytes()).unwrap();
        Answer::read(&mut stream).expect("an answer")
    }

    /// Drains a node as control does; comes back when no new work goes there.
    pub fn drain_node(&self, index: usize, window: Duration) {
        let node = self.node(index);
        node.set_operator(OperatorState::Draining);
        for commands in &self.commands {
            let (done, wait) = oneshot::channel();
            let node = node.clone();
            assert!(commands.send(Command::DrainNode { node, window, done }).is_ok());
            wait.blocking_recv().unwrap();
        }
    }

    /// Tells all threads that another process has taken over, which takes no tunnels; comes back when the
    /// last connection has ended.
    pub fn hand_over(&self, tunnels_within: Duration) {
        let waits: Vec<_> = self
            .commands
            .iter()
            .map(|commands| {
                let (done, wait) = oneshot::channel();
                let tunnels = std::sync::mpsc::channel().0;
                assert!(commands.send(Command::HandOver { tunnels, tunnels_within, done }).is_ok());
                wait
            })
            .collect();
        waits.into_iter().for_each(|wait| wait.blocking_recv().unwrap());
    }

    /// Drains all threads; comes back when the last connection has ended.
    pub fn drain(&self, tunnels_within: Duration) {
        let waits: Vec<_> = self
            .commands
            .iter()
            .map(|commands| {
                let (done, wait) = oneshot::channel();
                assert!(commands.send(Command::Drain { tunnels_within, done }).is_ok());
                wait
            })
            .collect();
        waits.into_iter().for_each(|wait| wait.blocking_recv().unwrap());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for commands in &self.commands {
            let _ = commands.send(Command::Stop);
        }
        self.threads.drain(..).for_each(|thread| {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("a data thread panicked");
            }
        });
    }
}

fn reuse_port(bind: SocketAddr) -> TcpListener {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(bind), socket2::Type::STREAM, None)
            .unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    // As the program's are: nothing waits for an acknowledgement.
    socket.set_tcp_nodelay(true).unwrap();
    socket.bind(&bind.into()).unwrap();
    socket.listen(1024).unwrap();
    socket.into()
}

/// Reads until the peer closes; a reset ends it as well.
pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("after {:?}: {error}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer as a client sees it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Answer {
    /// Reads one answer to a request that was not HEAD; `None` when the connection closes first.
    pub fn read(stream: &mut impl Read) -> Option<Answer> {
        let head = origin::read_head(stream)?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let empty = status == 204 || status == 304 || status < 200;
        let (body, trailers) = match empty {
            true => Default::default(),
            false => origin::read_body(stream, &head, true)?,
        };
        Some(Answer { status, head, body, trailers })
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        origin::field(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
