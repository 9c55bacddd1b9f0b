//! Connections of one data thread to one node.
//!
//! Last in, first out: the youngest is the least likely to have been closed. A connection expires before
//! the node would close it, by the node's own `Keep-Alive` hint, and is looked at before it is used again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::Node;
use super::http2::{Line as Trunk, Trunks};
use super::node::Cell;
use crate::clock;
use crate::config;
use crate::error::Cause;
use crate::health::OperatorState;
use crate::http1::deadline::Deadline;
use crate::net::{Address, HandshakeError, Idle, Secure, Socket, shortage};
use crate::telemetry::metrics::PoolEvent;
use crate::tls::Towards;

/// Kept this long without a hint: Node's default is 5 s.
const IDLE_WITHOUT_HINT: Duration = Duration::from_secs(4);
/// Closed this long before the node would.
const HINT_MARGIN: Duration = Duration::from_secs(1);
/// Kept at most this long, whatever the hint: middleboxes forget sooner than servers.
pub(super) const IDLE_CAP: Duration = Duration::from_secs(60);
/// What is unsafe to repeat uses a connection that was idle for less.
const FRESH: Duration = Duration::from_secs(1);

/// Before a Unix socket is asked again whose queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// Makes a connection; a function is for tests and fuzz targets.
#[derive(Clone, Default)]
pub enum Dial {
    /// To where the node is.
    #[default]
    Address,
    /// From a function.
    With(Rc<Make>),
}

/// Makes a connection to a node.
pub type Make = dyn Fn(&Address) -> io::Result<Socket>;

/// One node as one data thread uses it.
pub struct LocalNode {
    /// What all threads share.
    pub node: Arc<Node>,
    thread: usize,
    idle: RefCell<VecDeque<Kept>>,
    /// How it is spoken to over TLS, if it is.
    tls: RefCell<Option<Towards>>,
    /// In HTTP/2, over these.
    trunks: RefCell<Option<Rc<Trunks>>>,
    last_note_ns: [std::cell::Cell<u64>; 3],
}

/// What a data thread does about a node now and then, not for each exchange.
#[derive(Clone, Copy)]
pub enum Note {
    /// Tell control to look at it.
    ProbeNow,
    /// Tell control that it fails too often.
    Failing,
    /// Send it a request although others look better.
    Explore,
}

impl Note {
    /// Not again within so many nanoseconds.
    fn pause_ns(self) -> u64 {
        match self {
            // Control merges what it is told anyway.
            Note::ProbeNow | Note::Failing => 50_000_000,
            // So much of the traffic a node costs that answers probes and nothing else.
            Note::Explore => 1_000_000_000,
        }
    }
}

struct Kept {
    line: Line,
    since_ns: u64,
    expires_ns: u64,
}

/// The part of a connection that survives from exchange to exchange.
struct Line {
    socket: Socket,
    born_ns: u64,
    requests: u64,
    /// What it was opened with.
    tls: Option<Towards>,
}

/// A connection in use. Dropping it closes it; [`Connection::give_back`] keeps it.
pub struct Connection {
    line: Option<Line>,
    local: Rc<LocalNode>,
    /// It is a stream of this one.
    trunk: Option<Rc<Trunk>>,
    /// It carried an exchange before.
    pub reused: bool,
}

/// Bounds of the connections to one node.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle ones kept.
    pub max_idle: usize,
    /// Exchanges on one.
    pub max_requests: u64,
    /// Age of one.
    pub max_age: Duration,
}

impl PoolLimits {
    /// From an upstream's settings.
    pub fn of(upstream: &config::Upstream) -> PoolLimits {
        PoolLimits {
            max_idle: upstream.max_idle,
            max_requests: upstream.max_requests_per_connection,
            max_age: upstream.max_connection_age,
        }
    }
}

impl LocalNode {
    /// With an empty pool.
    pub fn new(node: Arc<Node>, thread: usize) -> LocalNode {
        LocalNode {
            node,
            thread,
            idle: RefCell::default(),
            tls: RefCell::default(),
            trunks: RefCell::default(),
            last_note_ns: Default::default(),
        }
    }

    /// How new connections are made from now on; kept ones of another kind are closed.
    pub fn speak(&self, tls: Option<Towards>, http2: bool) {
        if *self.tls.borrow() != tls || self.trunks.borrow().is_some() != http2 {
            self.clear();
            self.tls.replace(tls);
            self.trunks.replace(http2.then(Rc::default));
        }
    }

    fn trunks(&self) -> Option<Rc<Trunks>> {
        self.trunks.borrow().clone()
    }

    /// This thread's counters.
    pub fn cell(&self) -> &Cell {
        self.node.cell(self.thread)
    }

    /// Whether it is time for this again; counts as done then.
    pub fn is_due(&self, note: Note, now_ns: u64) -> bool {
        let last = &self.last_note_ns[note as usize];
        let due = now_ns.saturating_sub(last.get()) > note.pause_ns();
        if due {
            last.set(now_ns);
        }
        due
    }

    /// This thread's number.
    pub fn thread(&self) -> usize {
        self.thread
    }

    /// A kept connection that is open and clean. Without `safe_to_repeat` only one that was in use a moment
    /// ago will do, and none at all while the node is distrusted. In HTTP/2 any will do: a node that closes says
    /// by GOAWAY what it did not run.
    pub fn take(self: &Rc<Self>, safe_to_repeat: bool, now_ns: u64) -> Option<Connection> {
        if let Some(trunks) = self.trunks() {
            return trunks.take(now_ns).map(|taken| Connection::on(self.clone(), taken));
        }
        if !safe_to_repeat && self.node.reuse_distrusted(now_ns) {
            return None;
        }
        loop {
            let kept = self.pop(safe_to_repeat, now_ns)?;
            if kept.expires_ns <= now_ns {
                self.node.metrics.pool(PoolEvent::Expired);
                continue;
            }
            if kept.line.socket.peek_idle() != Idle::Clean {
                self.node.metrics.pool(PoolEvent::StaleDetected);
                continue;
            }
            self.node.metrics.pool(PoolEvent::Reused);
            return Some(Connection::new(self.clone(), kept.line, true));
        }
    }

    fn pop(&self, safe_to_repeat: bool, now_ns: u64) -> Option<Kept> {
        let mut idle = self.idle.borrow_mut();
        let idle_ns = now_ns.saturating_sub(idle.back()?.since_ns);
        if !safe_to_repeat && idle_ns >= clock::nanos(FRESH) {
            return None;
        }
        let kept = idle.pop_back();
        Cell::add(&self.cell().idle, -1);
        kept
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Refused, not accepted in time, or whatever the system says.
    pub async fn connect(
        self: &Rc<Self>,
        dial: &Dial,
        deadline: &Deadline,
        timeout: Duration,
    ) -> Result<Connection, Cause> {
        let Some(address) = self.node.address() else {
            return Err(Cause::ConnectFailed("its name does not resolve".into()));
        };
        let begun = clock::now_ns();
        deadline.set(timeout);
        let tls = self.tls.borrow().clone();
        if let Some(trunks) = self.trunks() {
            let who = (&self.node, self.thread);
            let obtained = trunks.obtain(dial, who, (address, tls.as_ref()));
            let obtained = deadline.guard(Box::pin(obtained)).await;
            deadline.clear();
            let obtained = obtained.map_err(|_| Cause::ConnectTimeout)?;
            return obtained.map(|taken| Connection::on(self.clone(), taken));
        }
        let opened = deadline.guard(open(dial, address, tls.as_ref())).await;
        deadline.clear();
        let socket = match opened {
            Err(_) => return Err(Cause::ConnectTimeout),
            Ok(opened) => opened?,
        };
        let now = clock::now_ns();
        self.node.metrics.connect.observe((now - begun) as f64 / 1e9);
        self.node.metrics.pool(PoolEvent::New);
        let line = Line { socket, born_ns: now, requests: 0, tls };
        Ok(Connection::new(self.clone(), line, false))
    }

    /// Closes what expired, so that the node never has to.
    pub fn purge(&self, now_ns: u64) {
        if let Some(trunks) = self.trunks() {
            trunks.tick(now_ns);
        }
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|kept| kept.expires_ns > now_ns);
        let gone = before - idle.len();
        if gone > 0 {
            Cell::add(&self.cell().idle, -(gone as i32));
            (0..gone).for_each(|_| self.node.metrics.pool(PoolEvent::Expired));
        }
    }

    /// Closes all idle connections: the node is drained or was lost.
    pub fn clear(&self) {
        if let Some(trunks) = self.trunks() {
            trunks.leave();
        }
        let gone = self.idle.borrow_mut().drain(..).count();
        Cell::add(&self.cell().idle, -(gone as i32));
    }

    fn keep(&self, line: Line, hint: Option<Duration>, limits: PoolLimits, now: u64) {
        if let Some(hint) = hint {
            self.node.set_keepalive_hint(hint.as_secs());
        }
        let keep =
            hint.map_or(IDLE_WITHOUT_HINT, |hint| hint.saturating_sub(HINT_MARGIN)).min(IDLE_CAP);
        let old = now.saturating_sub(line.born_ns) >= clock::nanos(limits.max_age);
        let full = limits.max_idle == 0 || line.requests >= limits.max_requests;
        // A node that is drained gets no more requests, and its operator waits for an end.
        let drained = self.node.operator() != OperatorState::Ready;
        let odd = line.tls != *self.tls.borrow() || self.trunks.borrow().is_some();
        if keep.is_zero() || old || full || drained || odd {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits.max_idle {
            // The oldest is the likeliest to be closed soon.
            idle.pop_front();
            Cell::add(&self.cell().idle, -1);
        }
        idle.push_back(Kept { line, since_ns: now, expires_ns: now + clock::nanos(keep) });
        Cell::add(&self.cell().idle, 1);
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        self.clear();
    }
}

pub(super) async fn open(
    dial: &Dial,
    address: &Address,
    tls: Option<&Towards>,
) -> Result<Socket, Cause> {
    let failed = |error: io::Error| connect_cause(&error, address);
    let stream = match (dial, address) {
        (Dial::Address, Address::Tcp(address)) => connected(*address).await.map_err(failed)?,
        (Dial::Address, Address::Unix(path)) => {
            return connected_unix(path).await.map(Socket::Unix).map_err(failed);
        }
        (Dial::With(make), address) => return make(address).map_err(failed),
    };
    match tls {
        None => Ok(Socket::Tcp(stream)),
        // A handshake has much state, and most connections need none.
        Some(towards) => Box::pin(shake_hands(stream, towards)).await,
    }
}

async fn connected(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_keepalive(&crate::net::keepalive())?;
    Ok(stream)
}

/// A Unix socket whose queue is full says so at once instead of letting us wait (connect(2), `EAGAIN`): it is
/// asked again, until whoever waits for this gives up.
///
/// # Errors
/// Whatever else the system says.
pub async fn connected_unix(path: &str) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_FULL).await;
            }
            other => return other,
        }
    }
}

async fn shake_hands(stream: TcpStream, towards: &Towards) -> Result<Socket, Cause> {
    let failed = |error: HandshakeError| Cause::NodeTls(error.to_string().into());
    let secure = Secure::connect(stream, towards.config.clone(), towards.name.clone());
    let secure = secure.map_err(|error| failed(error.into()))?;
    poll_fn(|cx| secure.poll_handshake(cx)).await.map_err(failed)?;
    Ok(Socket::Tls(Box::new(secure)))
}

fn connect_cause(error: &io::Error, towards: &Address) -> Cause {
    if let Some(lack) = shortage(error, towards) {
        // That is not the node's fault.
        return Cause::Internal(lack);
    }
    match error.kind() {
        // A Unix socket whose file is not there is one that nobody listens on.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Cause::ConnectRefused,
        io::ErrorKind::TimedOut => Cause::ConnectTimeout,
        _ => Cause::ConnectFailed(error.to_string().into()),
    }
}

impl Connection {
    fn new(local: Rc<LocalNode>, mut line: Line, reused: bool) -> Connection {
        Cell::add(&local.cell().active, 1);
        line.requests += 1;
        Connection { line: Some(line), local, trunk: None, reused }
    }

    /// A stream, on a connection that is counted for itself.
    fn on(local: Rc<LocalNode>, (socket, trunk, reused): (Socket, Rc<Trunk>, bool)) -> Connection {
        let line = Line { socket, born_ns: 0, requests: 0, tls: None };
        Connection { line: Some(line), local, trunk: Some(trunk), reused }
    }

    /// Whether a WebSocket can be asked for.
    pub fn takes_upgrades(&self) -> bool {
        self.trunk.as_ref().is_none_or(|trunk| trunk.takes_upgrades())
    }

    /// The stream.
    #[allow(clippy::expect_used)] // only `give_back` and `into_socket` take it, and they take the whole
    pub fn socket(&self) -> &Socket {
        &self.line.as_ref().expect("a connection in use has a line").socket
    }

    /// The node it goes to.
    pub fn local(&self) -> &Rc<LocalNode> {
        &self.local
    }

    /// Keeps it for the next exchange. The answer must have been read to its end, and nothing after it.
    pub fn give_back(mut self, hint: Option<Duration>, limits: PoolLimits, now_ns: u64) {
        match (self.line.take(), &self.trunk, self.local.trunks()) {
            (Some(line), None, _) => self.local.keep(line, hint, limits, now_ns),
            (line, Some(trunk), Some(trunks)) => {
                // The stream ends first.
                drop(line);
                trunks.give_back(trunk, limits, now_ns);
            }
            _ => {}
        }
    }

    /// Takes the stream out, for a tunnel.
    #[allow(clippy::expect_used)]
    pub fn into_socket(mut self) -> Socket {
        self.line.take().expect("a connection in use has a line").socket
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.trunk.is_none() {
            Cell::add(&self.local.cell().active, -1);
        }
    }
}

#[cfg(test)]
mod tests;
