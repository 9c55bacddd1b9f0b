//! Nodes whose conduct a test changes while they run, and the whole of cobalance in front of them.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cobalance::control::ConfigSource;
use cobalance::control::status::{NodeStatus, Status};
use cobalance::server::{self, Running};
use parking_lot::Mutex;

use super::origin::{Line, Origin, echo};
use super::{Answer, PATIENCE, parse, until};

/// What a node does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// 200 with a body.
    Ok(&'static str),
    /// A status with a plain body.
    Status(u16),
    /// A refusal of NocoBase's gateway: status, code, message.
    Refuse(u16, &'static str, &'static str),
    /// Nothing, until it is to do something else.
    Hold,
    /// Closes without a word.
    Close,
}

impl Act {
    fn bytes(&self, head_only: bool) -> String {
        let (status, kind, body) = match self {
            Act::Ok(body) => (200, "text/plain", (*body).to_owned()),
            Act::Status(status) => (*status, "text/plain", "x".to_owned()),
            Act::Refuse(status, code, message) => (
                *status,
                "application/json; charset=utf-8",
                format!(
                    r#"{{"error":{{"status":{status},"maintaining":true,"message":"{message}","code":"{code}"}}}}"#
                ),
            ),
            Act::Hold | Act::Close => unreachable!("no answer"),
        };
        let length = body.len();
        let body = if head_only { "" } else { &body };
        format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nX-Request-Id: of-the-node\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }
}

/// What it does next, one act after the other; the last one for ever.
type Script = Arc<Mutex<VecDeque<Act>>>;

/// A node in the hands of a test. It answers its health check by one script and everything else by another.
///
/// The watch's handshake is no request: without [`Actor::speaking`] the connection is closed, as NocoBase does
/// with an upgrade that nobody serves.
pub struct Actor {
    pub origin: Origin,
    health: Script,
    traffic: Script,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    over: Arc<AtomicBool>,
}

impl Actor {
    /// Healthy from the start, or as `health` says; `name` is its answer to everything else.
    pub fn new(name: &'static str, health: Act) -> Actor {
        Actor::speaking(name, health, |_, _| ())
    }

    /// The same, with what it does with the connection of a watch, given the head of its handshake.
    pub fn speaking(
        name: &'static str,
        health: Act,
        speak: impl Fn(Line, &str) + Send + Sync + 'static,
    ) -> Actor {
        let script = |act| Arc::new(Mutex::new(VecDeque::from([act])));
        let (health, traffic) = (script(health), script(Act::Ok(name)));
        let (arrivals, over): (Arc<Mutex<Vec<Instant>>>, Arc<AtomicBool>) = Default::default();
        let parts = (health.clone(), traffic.clone(), arrivals.clone(), over.clone());
        let origin = Origin::scripted(move |mut line| {
            let (health, traffic, arrivals, over) = &parts;
            while let Some(seen) = line.request() {
                if is_watch(&seen.head) {
                    return speak(line, &seen.head);
                }
                if seen.head.starts_with("GET /ws ") {
                    return echo(line);
                }
                let is_probe = seen.head.contains(" /api/__health_check ");
                if !is_probe {
                    arrivals.lock().push(Instant::now());
                }
                let script = if is_probe { health } else { traffic };
                if !perform(&mut line, script, over, seen.head.starts_with("HEAD ")) {
                    return;
                }
            }
        });
        Actor { origin, health, traffic, arrivals, over }
    }

    /// A node that is up.
    pub fn up(name: &'static str) -> Actor {
        Actor::new(name, Act::Ok("ok"))
    }

    /// What it does with probes from now on.
    pub fn health(&self, acts: impl IntoIterator<Item = Act>) {
        *self.health.lock() = acts.into_iter().collect();
    }

    /// What it does with everything else from now on.
    pub fn traffic(&self, acts: impl IntoIterator<Item = Act>) {
        *self.traffic.lock() = acts.into_iter().collect();
    }

    /// When requests other than probes came.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.arrivals.lock().clone()
    }

    /// How many of them.
    pub fn requests(&self) -> usize {
        self.arrivals.lock().len()
    }

    /// How many probes came.
    pub fn probes(&self) -> usize {
        let seen = self.origin.seen();
        seen.iter().filter(|seen| seen.head.contains(" /api/__health_check ")).count()
    }

    /// How often a watch asked to be let in.
    pub fn watches(&self) -> usize {
        self.origin.seen().iter().filter(|seen| is_watch(&seen.head)).count()
    }
}

fn is_watch(head: &str) -> bool {
    head.starts_with("GET /ws ") && head.to_lowercase().contains("user-agent: cobalance/")
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// Does the next act. False: the connection is to be closed.
fn perform(line: &mut Line, script: &Script, over: &AtomicBool, head_only: bool) -> bool {
    loop {
        let act = {
            let mut acts = script.lock();
            match acts.len() {
                1 => acts[0].clone(),
                _ => acts.pop_front().expect("a script never ends"),
            }
        };
        match act {
            Act::Hold if over.load(Ordering::SeqCst) => return false,
            Act::Hold => std::thread::park_timeout(Duration::from_millis(1)),
            Act::Close => return false,
            act => {
                line.send(act.bytes(head_only).as_bytes());
                return true;
            }
        }
    }
}

/// The whole of cobalance, with one listener and one upstream.
pub struct Whole {
    pub running: Running,
    pub upstream: &'static str,
}

impl Whole {
    /// One thread, quick probes. `nodes` are entries of the list, `more` is what follows in the upstream's
    /// table; `{name}` in it stands for the upstream's own.
    pub fn start(upstream: &'static str, nodes: &[String], more: &str) -> Whole {
        Whole::with_log(upstream, nodes, more, "enabled = false")
    }

    /// The same with a table for the access log.
    pub fn with_log(upstream: &'static str, nodes: &[String], more: &str, log: &str) -> Whole {
        let text = format!(
            "[server]\nthreads = 1\n[access_log]\n{log}\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.{upstream}]\nnodes = [{}]\n{}\n",
            nodes.join(", "),
            more.replace("{name}", upstream)
        );
        let running = server::start(parse(&text), ConfigSource::Flags).unwrap();
        Whole { running, upstream }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address("public").unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends a request on a connection of its own, and does not wait.
    pub fn send(&self, method: &str, target: &str) -> TcpStream {
        let mut stream = self.connect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// Sends a request on a connection of its own and reads the answer.
    pub fn ask(&self, method: &str, target: &str) -> Answer {
        Answer::read(&mut self.send(method, target)).expect("an answer")
    }

    pub fn get(&self) -> Answer {
        self.ask("GET", "/api/posts:list")
    }

    pub fn post(&self) -> Answer {
        self.ask("POST", "/api/posts:create")
    }

    /// Asks once. Returns the connection if the request went to this node, which does not answer.
    pub fn ask_or_hold(&self, silent: &Actor) -> Option<TcpStream> {
        let before = silent.requests();
        let stream = self.send("GET", "/api/posts:list");
        stream.set_nonblocking(true).unwrap();
        let answered = || stream.peek(&mut [0]).is_ok();
        until("answered or held", || answered() || silent.requests() > before);
        let held = !answered();
        stream.set_nonblocking(false).unwrap();
        held.then_some(stream)
    }

    pub fn status(&self) -> Status {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.handle().status()).expect("control runs")
    }

    /// A node by its place.
    pub fn node(&self, index: usize) -> NodeStatus {
        self.status().upstreams[0].nodes[index].clone()
    }

    pub fn until_state(&self, index: usize, state: &str) -> NodeStatus {
        until(&format!("node {index} is {state}"), || self.node(index).state == state);
        self.node(index)
    }

    /// Waits until every node is up.
    pub fn until_up(self) -> Whole {
        let up = |status: &Status| status.upstreams[0].nodes.iter().all(|node| node.state == "up");
        until("all nodes are up", || up(&self.status()));
        self
    }

    /// Changes of state of a node, by what it became and why.
    pub fn changes(&self, index: usize, to: &str, cause: &str) -> u64 {
        let name = self.node(index).name;
        let labels = [self.upstream, &name, to, cause];
        self.running.handle().metrics().state_changes.with_label_values(&labels).get()
    }

    /// Probes of a node by their result.
    pub fn checks(&self, index: usize, result: &str) -> u64 {
        let labels = [self.upstream, &self.node(index).name, result];
        self.running.handle().metrics().checks.with_label_values(&labels).get()
    }

    /// All changes of state of all nodes so far.
    pub fn all_changes(&self) -> f64 {
        let families = self.running.handle().metrics().registry.gather();
        let name = "cobalance_upstream_state_changes_total";
        let family = families.iter().find(|family| family.name() == name).expect("it is counted");
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }
}

/// The nodes as entries of the list.
pub fn entries(actors: &[&Actor]) -> Vec<String> {
    actors.iter().map(|actor| entry(actor, "")).collect()
}

/// One node as an entry, with more keys.
pub fn entry(actor: &Actor, more: &str) -> String {
    format!("{{ address = \"{}\"{more} }}", actor.origin.address)
}
