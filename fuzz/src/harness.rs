//! Runs a script through the real path of an exchange, over pairs of sockets, and judges what came out.
//!
//! The first byte of a script chooses what the rest is (lowest bit: 0 the bytes of a client, 1 those of a
//! node) and how the other side behaves; the second byte cuts it into pieces. What must hold:
//!
//! - A client's bytes: the node is sent exactly the requests that a second, independent reading finds in
//!   them, in their order, each with one framing; the client gets their answers in order, each its own.
//! - A node's bytes: the client gets the answer that the second reading finds, or 502, or a cut; and the
//!   next exchange gets its own answer.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cobalance::config::{self, Source};
use cobalance::connection::{self, Admitted};
use cobalance::exchange::thread::Thread;
use cobalance::health::HealthState;
use cobalance::net::Socket;
use cobalance::snapshot::{self, Parts, Snapshot};
use cobalance::telemetry::metrics::Metrics;
use cobalance::upstream::{Dial, Registry, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

#[path = "http2.rs"]
pub mod http2;
#[path = "reference.rs"]
mod reference;

use reference::{Answer, Cursor, End, Request, values};

/// Longer scripts are cut: every bound of a head is met by the tables of the tests.
const MAX_SCRIPT: usize = 8 * 1024;
/// Nothing here waits for time, so whoever waits this long waits for ever.
const STUCK: Duration = Duration::from_secs(10);
/// Turns of the runtime after which everything has happened that is going to.
const SETTLE: usize = 40;

type Verdict = Result<(), String>;

/// What a script may not say.
pub fn run(script: &[u8]) -> Verdict {
    let [mode, cut, bytes @ ..] = script else { return Ok(()) };
    let bytes = &bytes[..bytes.len().min(MAX_SCRIPT)];
    alone(async {
        match mode & 1 {
            0 => Scene::new(Node::good(*mode)).client(bytes, *cut).await,
            _ => {
                let node = Node::scripted(*mode, *cut, bytes);
                Scene::new(node).node(bytes, *mode, *cut).await
            }
        }
    })
}

/// Runs a scene on a runtime of its own.
fn alone(scene: impl Future<Output = Verdict>) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build_local(Default::default())
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        tokio::time::timeout(STUCK, scene).await.map_err(|_| "stuck".to_owned())?
    })
}

/// What does not change between scripts.
struct World {
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    signal: mpsc::Sender<Signal>,
    _signals: mpsc::Receiver<Signal>,
}

impl World {
    /// With these keys of the listener.
    fn new(listener: &str) -> World {
        let text = format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n\
            [[listener]]\nbind = \"127.0.0.1:1\"\n{listener}\n\
            [upstream.u]\nnodes = [\"127.0.0.1:2\"]\npreset = \"none\"\nretries = 0\n\
            [upstream.u.outlier_detection]\nenabled = false\n"
        );
        let source = Source { name: "fuzz.toml".into(), text };
        let (config, _) = config::load(&source, &|_| None)
            .unwrap_or_else(|errors| panic!("{}", config::render(&errors, &source, false)));
        let metrics = Metrics::new();
        let mut registry = Registry::new(1, metrics.clone());
        let snapshot = Arc::new(snapshot::compile(Arc::new(config), Parts::bare(&mut registry)));
        snapshot.upstreams[0].nodes[0].node.set_health(HealthState::Up);
        let (signal, _signals) = mpsc::channel(16);
        World { snapshot, metrics, signal, _signals }
    }
}

thread_local! {
    static WORLD: World = World::new("");
}

/// The server behind the node's address.
struct Node {
    mode: u8,
    cut: u8,
    /// Said instead of the first answer of all.
    script: RefCell<Option<Vec<u8>>>,
    /// The script makes a whole answer: the connection may stay open behind it.
    whole: bool,
    said: Cell<bool>,
    /// Requests that were read, in their order.
    seen: RefCell<Vec<Request>>,
    wrong: RefCell<Option<String>>,
}

impl Node {
    fn good(mode: u8) -> Node {
        Node {
            mode,
            cut: 0,
            script: RefCell::default(),
            whole: true,
            said: Cell::new(false),
            seen: RefCell::default(),
            wrong: RefCell::default(),
        }
    }

    fn scripted(mode: u8, cut: u8, bytes: &[u8]) -> Node {
        let to_head = first_request(mode).starts_with("HEAD");
        let whole = Cursor::new(bytes, false).answer(to_head).is_ok();
        Node { cut, whole, script: RefCell::new(Some(bytes.to_vec())), ..Node::good(mode) }
    }

    async fn serve(self: Rc<Node>, mut stream: UnixStream) {
        let mut bytes = Vec::new();
        loop {
            let mut cursor = Cursor::new(&bytes, false);
            match cursor.request() {
                Ok(request) => {
                    let used = cursor.at;
                    bytes.drain(..used);
                    if !self.answer(request, &mut stream).await {
                        return;
                    }
                }
                Err(End::Bad) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    *self.wrong.borrow_mut() = Some(format!("a node was sent {text:?}"));
                    return;
                }
                Err(End::More) => match stream.read_buf(&mut bytes).await {
                    Ok(1..) => {}
                    _ => return,
                },
            }
        }
    }

    /// Whether the connection goes on.
    async fn answer(&self, request: Request, stream: &mut UnixStream) -> bool {
        let number = self.seen.borrow().len();
        let is_head = request.method == b"HEAD";
        self.seen.borrow_mut().push(request.clone());
        let script = self.script.borrow_mut().take();
        if let Some(script) = script {
            send(stream, &script, self.cut).await;
            self.said.set(true);
            return self.whole && self.mode & 0x80 == 0;
        }
        let body = echo(number, &request);
        let mut out = format!("HTTP/1.1 200 OK\r\nX-Echo: {number}\r\n").into_bytes();
        let closes = match self.mode & 0b110 {
            0b010 => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                if !is_head {
                    let size = format!("{:X};x\r\n", body.len());
                    out.extend([size.as_bytes(), &body, b"\r\n0\r\nX-T: 1\r\n\r\n"].concat());
                }
                false
            }
            0b100 => {
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(if is_head { b"" } else { &body });
                true
            }
            _ => {
                out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
                out.extend_from_slice(if is_head { b"" } else { &body });
                false
            }
        };
        stream.write_all(&out).await.is_ok() && !closes
    }
}

/// The body of a good answer says which request it is for.
fn echo(number: usize, request: &Request) -> Vec<u8> {
    let mut out = format!("{number} {} ", request.body.len()).into_bytes();
    out.extend_from_slice(&request.method);
    out.push(b' ');
    out.extend_from_slice(&request.target);
    out
}

/// One thread's path between a client and a node.
struct Scene {
    thread: Rc<Thread>,
    node: Rc<Node>,
}

impl Scene {
    fn new(node: Node) -> Scene {
        WORLD.with(|world| Scene::of(world, node))
    }

    fn of(world: &World, node: Node) -> Scene {
        let node = Rc::new(node);
        let behind = node.clone();
        let dial = Dial::With(Rc::new(move |_| {
            let (ours, theirs) = UnixStream::pair()?;
            spawn_local(behind.clone().serve(theirs));
            Ok(Socket::Unix(ours))
        }));
        let (snapshot, metrics) = (world.snapshot.clone(), world.metrics.clone());
        let thread = Thread::new(0, snapshot, world.signal.clone(), metrics, dial);
        Scene { thread, node }
    }

    fn connect(&self) -> Result<(UnixStream, tokio::task::JoinHandle<()>), String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let listener = self.thread.view().snapshot.listeners[0].clone();
        let admitted = Admitted::admit(&listener).ok_or("no place for a connection")?;
        let peer = SocketAddr::from(([192, 0, 2, 1], 3)).into();
        let served = connection::serve(self.thread.clone(), admitted, Socket::Unix(theirs), peer);
        Ok((ours, spawn_local(served)))
    }

    /// A client's bytes.
    async fn client(self, bytes: &[u8], cut: u8) -> Verdict {
        let meant = meant(bytes);
        let (mut stream, served) = self.connect()?;
        send(&mut stream, bytes, cut).await;
        let mut got = Vec::new();
        let mut open = true;
        while open && whole_answers(&got, &meant) < meant.len() {
            open = matches!(stream.read_buf(&mut got).await, Ok(1..));
        }
        settle().await;
        // Nothing more is to come but a refusal, and the end.
        let _ = stream.shutdown().await;
        while matches!(stream.read_buf(&mut got).await, Ok(1..)) {}
        drop(stream);
        served.await.map_err(|error| format!("the connection's task: {error}"))?;
        if let Some(wrong) = self.node.wrong.borrow_mut().take() {
            return Err(wrong);
        }
        let seen = self.node.seen.borrow();
        judge_requests(&seen, &meant)?;
        judge_answers(&got, &meant, &seen)
    }

    /// A node's bytes, and an exchange behind them.
    async fn node(self, script: &[u8], mode: u8, cut: u8) -> Verdict {
        let first = first_request(mode);
        let to_head = first.starts_with("HEAD");
        let (mut stream, served) = self.connect()?;
        send(&mut stream, first.as_bytes(), 0).await;
        let mut got = Vec::new();
        let mut open = true;
        while open && Cursor::new(&got, false).answer(to_head).is_err() {
            open = matches!(stream.read_buf(&mut got).await, Ok(1..));
        }
        judge_first(&got, (script, cut), to_head, open)?;
        while !self.node.said.get() {
            tokio::task::yield_now().await;
        }
        settle().await;
        let after = b"GET /after HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        drop(stream);
        served.await.map_err(|error| format!("the connection's task: {error}"))?;
        let (mut stream, served) = self.connect()?;
        send(&mut stream, after, 0).await;
        let mut got = Vec::new();
        while matches!(stream.read_buf(&mut got).await, Ok(1..)) {}
        drop(stream);
        served.await.map_err(|error| format!("the connection's task: {error}"))?;
        if let Some(wrong) = self.node.wrong.borrow_mut().take() {
            return Err(wrong);
        }
        let seen = self.node.seen.borrow();
        let meant =
            [Request { method: b"GET".into(), target: b"/after".into(), ..Request::default() }];
        let number = seen.len() - 1;
        let mut cursor = Cursor::new(&got, true);
        let answer =
            cursor.answer(false).map_err(|end| format!("the next: {end:?} {}", text(&got)))?;
        let right = number == 1 && answer.status == 200 && answer.body == echo(1, &meant[0]);
        match right && cursor.at == got.len() && same_id(&answer, &seen[1]) {
            true => Ok(()),
            false => Err(format!("the next got {}", text(&got))),
        }
    }
}

/// What a client asks first, when the node's bytes are the script.
fn first_request(mode: u8) -> &'static str {
    match (mode >> 1) & 3 {
        0 => "GET /first HTTP/1.1\r\nHost: t\r\n\r\n",
        1 => "HEAD /first HTTP/1.1\r\nHost: t\r\n\r\n",
        2 => "POST /first HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc",
        _ => "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    }
}

/// The requests of a client, up to the one that ends the connection or has no meaning.
fn meant(bytes: &[u8]) -> Vec<Request> {
    let mut cursor = Cursor::new(bytes, false);
    let mut all = Vec::new();
    while let Ok(request) = cursor.request() {
        let last = request.last;
        all.push(request);
        if last {
            break;
        }
    }
    all
}

fn whole_answers(got: &[u8], meant: &[Request]) -> usize {
    let mut cursor = Cursor::new(got, false);
    meant.iter().take_while(|request| cursor.answer(request.method == b"HEAD").is_ok()).count()
}

fn judge_requests(seen: &[Request], meant: &[Request]) -> Verdict {
    if seen.len() > meant.len() {
        return Err(format!("a request that nobody sent: {:?}", seen.last()));
    }
    for (seen, meant) in seen.iter().zip(meant) {
        let same =
            seen.method == meant.method && seen.target == meant.target && seen.body == meant.body;
        if !same {
            return Err(format!("sent {meant:?}, arrived {seen:?}"));
        }
        if values(&seen.fields, "x-request-id").count() != 1 {
            return Err(format!("not one ID: {seen:?}"));
        }
    }
    Ok(())
}

fn judge_answers(got: &[u8], meant: &[Request], seen: &[Request]) -> Verdict {
    let mut cursor = Cursor::new(got, true);
    let (mut number, mut closed) = (0, false);
    while cursor.at < got.len() {
        if closed {
            return Err(format!("more behind the end: {}", text(got)));
        }
        let is_head = meant.get(number).is_some_and(|request| request.method == b"HEAD");
        let begin = cursor.at;
        let answer = cursor.answer(is_head);
        let answer = match answer {
            Ok(answer) => answer,
            // Refused: before its method was believed, or for a body that the second reading gave up on
            // together with its method.
            Err(_) if is_head || number >= meant.len() => {
                cursor.at = begin;
                let other = cursor.answer(!is_head);
                other.map_err(|end| format!("{end:?} {}", text(got)))?
            }
            Err(end) => return Err(format!("an answer that is none: {end:?} {}", text(got))),
        };
        if answer.status != 200 {
            if seen.len() != number {
                return Err(format!("refused, and run: {:?}", seen.last()));
            }
            return refusal(&answer, &mut cursor, is_head, got);
        }
        let Some(request) = seen.get(number) else {
            return Err(format!("an answer to nothing: {}", text(got)));
        };
        let body = if is_head { Vec::new() } else { echo(number, request) };
        if answer.body != body || !same_id(&answer, request) {
            return Err(format!("another's answer: {answer:?} for {request:?}"));
        }
        closed = values(&answer.fields, "connection").any(|value| value == b"close");
        number += 1;
    }
    // HTTP/1.0 knows bodies that end with the connection: what was sent behind is not to be run then.
    let all = number == meant.len() || closed;
    match all && seen.len() == number {
        true => Ok(()),
        false => Err(format!("{number} answers to {} requests: {}", meant.len(), text(got))),
    }
}

/// A refusal is ours, says so, and is the last.
fn refusal(answer: &Answer, cursor: &mut Cursor<'_>, is_head: bool, got: &[u8]) -> Verdict {
    let rest = got.len() - cursor.at;
    let length = values(&answer.fields, "content-length").next().unwrap_or_default();
    let whole = rest == 0 || (is_head && length == rest.to_string().as_bytes());
    let closes = values(&answer.fields, "connection").any(|value| value == b"close");
    let ours = matches!(answer.status, 400 | 408 | 413 | 414 | 417 | 431 | 501);
    match whole && closes && ours {
        true => Ok(()),
        false => Err(format!("an odd refusal: {}", text(got))),
    }
}

fn judge_first(got: &[u8], (script, cut): (&[u8], u8), to_head: bool, open: bool) -> Verdict {
    let Ok(answer) = Cursor::new(got, !open).answer(to_head) else {
        // A cut: nothing that could pass for a whole answer.
        return Ok(());
    };
    if answer.status == 502 && values(&answer.fields, "cache-control").count() == 1 {
        return Ok(());
    }
    let mut cursor = Cursor::new(script, true);
    let meant = cursor.answer(to_head);
    // What came at once with the answer, and behind its end, makes the whole of it doubtful.
    if cut & 0x3f == 0 && cursor.at < script.len() && meant.is_ok() {
        return Err(format!("passed in spite of what follows it: {answer:?}"));
    }
    match meant {
        Ok(meant) if meant.status == answer.status && meant.body == answer.body => Ok(()),
        other => Err(format!("got {answer:?} of {other:?}")),
    }
}

fn same_id(answer: &Answer, request: &Request) -> bool {
    let id = values(&answer.fields, "x-request-id").next();
    id.is_some() && id == values(&request.fields, "x-request-id").next()
}

/// Sends in pieces of `cut` bytes (0: whole), and lets the others run after each.
async fn send(stream: &mut UnixStream, bytes: &[u8], cut: u8) {
    let piece = match usize::from(cut & 0x3f) {
        0 => bytes.len().max(1),
        // Many tiny pieces of a long script would only be slow.
        n => n.max(bytes.len() / 64),
    };
    for part in bytes.chunks(piece) {
        // Whoever refuses the rest has closed already.
        if stream.write_all(part).await.is_err() {
            return;
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

async fn settle() {
    for _ in 0..SETTLE {
        tokio::task::yield_now().await;
    }
}

fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}
