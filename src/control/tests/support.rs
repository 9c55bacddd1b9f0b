//! Origins that misbehave on demand, and data threads that do nothing but obey.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::{self, Config, Node, Preset, Upstream};
use crate::listener::{Command, ThreadParts};

/// Longer than any pause of a test machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn listener(name: &str, bind: &str) -> config::Listener {
    config::Listener {
        name: name.into(),
        ..config::Listener::at(bind.parse::<crate::net::Address>().unwrap())
    }
}

/// A listener on any port and one upstream, `app`, with these nodes, which are probed and not watched; admin
/// on any port.
pub(crate) fn config(nodes: &[&str]) -> Config {
    let text = format!(
        "[server]\nthreads = 2\n[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         [upstream.app]\nnodes = {nodes:?}\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\nenabled = false\n[upstream.app.health_check]\nwatch = false\n"
    );
    parse(&text)
}

/// The same without a health check.
pub(crate) fn unchecked(nodes: &[&str]) -> Config {
    let mut config = config(nodes);
    let mut upstream = Upstream::named("app".into(), Preset::None);
    upstream.nodes = nodes.iter().map(|node| Node::at((*node).to_owned())).collect();
    config.upstreams = vec![upstream];
    config
}

pub(crate) fn parse(text: &str) -> Config {
    let source = config::Source { name: "test.toml".into(), text: text.into() };
    let found = config::load(&source, &|_| None);
    found.unwrap_or_else(|errors| panic!("{}", config::render(&errors, &source, false))).0
}

/// Waits until `look` gives something.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// How an origin answers.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Ok,
    Answer(u16, &'static str, &'static str),
    /// These bytes, then the end.
    Raw(&'static str),
    /// Nothing, ever.
    Silent,
    /// A body that never ends.
    Endless,
}

impl Behaviour {
    pub(crate) fn commanding() -> Behaviour {
        let body = r#"{"error":{"code":"APP_COMMANDING","message":"loading plugins","maintaining":true,"command":{"name":"start"}}}"#;
        Behaviour::Answer(503, "application/json", body)
    }
}

/// A server behind a node. Lives on the runtime of the test.
pub(crate) struct Origin {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

struct State {
    behaviour: Mutex<Behaviour>,
    heads: Mutex<Vec<String>>,
    connections: AtomicUsize,
    asked: AtomicUsize,
    open: Mutex<JoinSet<()>>,
}

impl Origin {
    pub(crate) async fn start(behaviour: Behaviour) -> Origin {
        Origin::start_at("127.0.0.1:0".parse().unwrap(), behaviour).await
    }

    pub(crate) async fn start_at(address: SocketAddr, behaviour: Behaviour) -> Origin {
        let listener = TcpListener::bind(address).await.unwrap();
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            heads: Mutex::default(),
            connections: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, state.clone()));
        Origin { address, state, accepting: Mutex::new(Some(accepting)) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock() = behaviour;
    }

    pub(crate) fn last_head(&self) -> String {
        self.state.heads.lock().last().cloned().unwrap_or_default()
    }

    /// Whether a request came that begins so, whatever came since.
    pub(crate) fn has_heard(&self, start: &str) -> bool {
        self.state.heads.lock().iter().any(|head| head.starts_with(start))
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// Requests received so far.
    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(SeqCst)
    }

    /// Closes what is open; goes on accepting.
    pub(crate) async fn close_all(&self) {
        let mut open = std::mem::take(&mut *self.state.open.lock());
        open.shutdown().await;
    }

    /// Closes everything; the port refuses from then on.
    pub(crate) async fn stop(&self) {
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            let _ = accepting.await;
        }
        self.close_all().await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, SeqCst);
        state.open.lock().spawn(converse(stream, state.clone()));
    }
}

async fn converse(mut stream: TcpStream, state: Arc<State>) {
    while let Some(head) = read_head(&mut stream).await {
        state.heads.lock().push(head);
        state.asked.fetch_add(1, SeqCst);
        let behaviour = state.behaviour.lock().clone();
        if !answer(&mut stream, behaviour).await {
            return;
        }
    }
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// False when the connection is to be closed.
pub(crate) async fn answer(stream: &mut TcpStream, behaviour: Behaviour) -> bool {
    let (status, kind, body) = match behaviour {
        Behaviour::Ok => (200, "text/plain", "ok"),
        Behaviour::Answer(status, kind, body) => (status, kind, body),
        Behaviour::Raw(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            return false;
        }
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Endless => {
            let head = "HTTP/1.1 200 OK\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
            return false;
        }
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.is_ok()
}

/// Looks at something.
pub(crate) type Look = Box<dyn FnMut() + Send>;

/// What data threads were told.
#[derive(Clone, Default)]
pub(crate) struct Obeyed {
    /// Names of the sockets that a thread holds, by thread.
    pub(crate) sockets: Arc<Mutex<Vec<Vec<String>>>>,
    /// Generation and thread of each renewal.
    pub(crate) renewed: Arc<Mutex<Vec<u64>>>,
    pub(crate) drained: Arc<AtomicUsize>,
    /// Done by each thread when it is told of a snapshot, before it follows.
    pub(crate) at_renewal: Arc<Mutex<Option<Look>>>,
    /// Label and window of each node that a thread was told to drain.
    pub(crate) nodes_drained: Arc<Mutex<Vec<(String, Duration)>>>,
    pub(crate) stopped: Arc<AtomicUsize>,
    /// The threads' senders of signals.
    pub(crate) signals: Arc<Mutex<Vec<crate::upstream::Signals>>>,
}

impl Obeyed {
    /// A data thread that holds its sockets and does as it is told, and no more.
    pub(crate) fn spawn(&self, mut parts: ThreadParts) -> std::io::Result<JoinHandle<()>> {
        let told = self.clone();
        told.signals.lock().push(parts.signals.clone());
        let mut sockets = parts.sockets;
        let index = parts.index;
        told.hold(index, &sockets);
        std::thread::Builder::new().spawn(move || {
            while let Some(command) = parts.commands.blocking_recv() {
                match command {
                    Command::Renew { snapshot, sockets: new, done } => {
                        if let Some(look) = &mut *told.at_renewal.lock() {
                            look();
                        }
                        let named = |name: &str| {
                            snapshot.listeners.iter().any(|one| one.settings.name == name)
                        };
                        let fresh = |name: &str| new.iter().any(|(other, _)| other == name);
                        sockets.retain(|(name, _)| named(name) && !fresh(name));
                        sockets.extend(new);
                        told.hold(index, &sockets);
                        told.renewed.lock().push(snapshot.generation);
                        let _ = done.send(());
                    }
                    Command::DrainNode { node, window, done } => {
                        told.nodes_drained.lock().push((node.label.clone(), window));
                        let _ = done.send(());
                    }
                    Command::Drain { done, .. } | Command::HandOver { done, .. } => {
                        sockets.clear();
                        told.drained.fetch_add(1, SeqCst);
                        let _ = done.send(());
                    }
                    Command::Adopt(_) => {}
                    Command::Stop => break,
                }
            }
            told.stopped.fetch_add(1, SeqCst);
        })
    }

    fn hold(&self, index: usize, sockets: &[(String, crate::net::ListenSocket)]) {
        let mut all = self.sockets.lock();
        let length = all.len().max(index + 1);
        all.resize_with(length, Vec::new);
        all[index] = sockets.iter().map(|(name, _)| name.clone()).collect();
    }
}
