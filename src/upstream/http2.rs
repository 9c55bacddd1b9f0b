//! Connections of one data thread to one node that speaks HTTP/2: each carries many exchanges, each exchange
//! on a stream that is a socket to whoever uses it ([`NodeStream`]).
//!
//! A further connection is opened when no stream is left on those that there are, as one is opened for each
//! exchange where HTTP/1.1 is spoken; what bounds them is a node's `max_requests`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use tokio::task::spawn_local;

use super::Node;
use super::node::Cell as Counters;
use super::pool::{Dial, IDLE_CAP, PoolLimits, open};
use crate::clock;
use crate::error::Cause;
use crate::health::OperatorState;
use crate::http2::gate::Gate;
use crate::http2::node_stream::{NodeStream, Trunk};
use crate::http2::watch::Watch;
use crate::http2::wire::{Handle, Wire};
use crate::net::{Address, Idle, Socket};
use crate::telemetry::metrics::PoolEvent;
use crate::tls::Towards;

mod opening;
mod pulse;

use opening::{Joined, Openings};
use pulse::Pulse;

/// Streams on one connection, whatever a node allows: what is lost with a connection, and what waits for one
/// lost packet, stays bounded, and 100 is what nodes should allow at least (RFC 9113, 6.5.2).
const MAX_STREAMS: usize = 100;
/// How much of one answer may come that its client has not taken: a round trip's worth on a near line.
const STREAM_WINDOW: u32 = 64 * 1024;
/// As much for each stream: clients that do not read must not hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// What the library keeps of one stream's body that the kernel has not taken. The gate bounds all of them.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were cancelled and that the library remembers for a second, because a node's DATA may still be on
/// its way: several times as many as there are at once. Each is half a KiB.
const CANCELLED: usize = 4 * MAX_STREAMS;
/// What a node is told of the size of heads: twice what is taken from it, and room for what HTTP/2 counts for
/// each field beside its bytes (RFC 9113, 10.5.1).
const HEADER_LIST: u32 = 2 * 32 * 1024 + 32 * 200;

/// The connections of one data thread to one node.
#[derive(Default)]
pub(super) struct Trunks {
    lines: RefCell<Vec<Rc<Line>>>,
    openings: Openings,
}

/// One connection.
pub(super) struct Line {
    trunk: Rc<Trunk>,
    /// Opens streams; none once it is to close after its last stream.
    send: RefCell<Option<SendRequest<Bytes>>>,
    node: Arc<Node>,
    thread: usize,
    streams: Cell<usize>,
    served: Cell<u64>,
    born_ns: u64,
    idle_since_ns: Cell<u64>,
    counted: Cell<Counted>,
    pulse: RefCell<Pulse>,
    /// Of the task that runs it.
    waker: RefCell<Option<Waker>>,
}

/// What it is counted as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Not,
    Idle,
    Active,
}

/// A stream's share of its connection.
struct Place(Rc<Line>);

impl Trunks {
    /// A stream on a connection that has one left, and that connection.
    pub(super) fn take(&self, now_ns: u64) -> Option<(Socket, Rc<Line>, bool)> {
        self.lines.borrow_mut().retain(|line| !line.is_over());
        // The first that has room: those behind it fall idle, and close.
        let lines = self.lines.borrow();
        let line = lines.iter().find(|line| line.has_room())?;
        let reused = line.served.get() > 0;
        if reused {
            line.node.metrics.pool(PoolEvent::Reused);
        }
        let socket = line.stream(now_ns)?;
        Some((socket, line.clone(), reused))
    }

    /// A stream on a connection that is there, or is being opened, or is opened for it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) async fn obtain(
        &self,
        dial: &Dial,
        (node, thread): (&Arc<Node>, usize),
        (address, tls): (&Address, Option<&Towards>),
    ) -> Result<(Socket, Rc<Line>, bool), Cause> {
        loop {
            if let Some(taken) = self.take(clock::now_ns()) {
                return Ok(taken);
            }
            let opening = match self.openings.join(MAX_STREAMS) {
                Joined::Waits(opening) => {
                    opening.ended().await?;
                    continue;
                }
                Joined::Opens(opening) => opening,
            };
            let begun = clock::now_ns();
            let opened = establish(dial, address, tls).await;
            opening.end(opened.as_ref().err().cloned());
            let driver = opened?;
            let now = clock::now_ns();
            node.metrics.connect.observe((now - begun) as f64 / 1e9);
            node.metrics.pool(PoolEvent::New);
            let line = driver.run(node.clone(), thread, now);
            self.openings.allow(line.most());
            self.lines.borrow_mut().push(line);
            let taken = self.take(now);
            return taken.ok_or(Cause::ConnectFailed("it allows no stream".into()));
        }
    }

    /// Looks after all of them.
    pub(super) fn tick(&self, now_ns: u64) {
        self.lines.borrow().iter().for_each(|line| line.tick(now_ns));
        self.lines.borrow_mut().retain(|line| !line.is_over());
    }

    /// No stream is opened on those there are; each closes after its last one.
    pub(super) fn leave(&self) {
        self.lines.borrow().iter().for_each(|line| line.leave());
    }

    /// A stream has ended as it should: its connection may have served for long enough.
    pub(super) fn give_back(&self, line: &Line, limits: PoolLimits, now_ns: u64) {
        let idle = self.lines.borrow().iter().filter(|line| line.streams.get() == 0).count();
        let old = now_ns.saturating_sub(line.born_ns) >= clock::nanos(limits.max_age);
        let surplus = line.streams.get() == 0 && idle > limits.max_idle;
        if old || surplus || line.served.get() >= limits.max_requests {
            line.leave();
        }
    }
}

impl Drop for Trunks {
    /// Nobody would look after them; one may have come since they were left.
    fn drop(&mut self) {
        self.leave();
    }
}

impl Line {
    /// Streams that the node lets us have, and we have.
    fn most(&self) -> usize {
        let send = self.send.borrow();
        send.as_ref().map_or(0, |send| send.current_max_send_streams().min(MAX_STREAMS))
    }

    fn has_room(&self) -> bool {
        if self.streams.get() >= self.most() {
            return false;
        }
        let gone = self.is_closing() || {
            let idle = self.streams.get() == 0;
            idle && self.trunk.wire.socket().peek_idle() == Idle::Closed
        };
        if gone {
            self.node.metrics.pool(PoolEvent::StaleDetected);
            self.leave();
        }
        !gone
    }

    /// The node has said that it closes, has refused a stream, or is gone.
    fn is_closing(&self) -> bool {
        let mut send = self.send.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        let closed = |send: &mut SendRequest<Bytes>| match send.poll_ready(&mut cx) {
            Poll::Ready(ready) => ready.is_err(),
            Poll::Pending => false,
        };
        self.trunk.spent.get() || send.as_mut().is_none_or(closed)
    }

    /// Whether WebSockets can be opened on its streams (RFC 8441, 3).
    pub(super) fn takes_upgrades(&self) -> bool {
        let send = self.send.borrow();
        send.as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    fn stream(self: &Rc<Self>, now_ns: u64) -> Option<Socket> {
        let send = self.send.borrow().clone()?;
        if self.streams.get() == 0 {
            // The time that it was idle is no silence.
            self.pulse.borrow_mut().begin(now_ns);
            self.count(Counted::Active);
        }
        self.streams.set(self.streams.get() + 1);
        self.served.set(self.served.get() + 1);
        let place = Box::new(Place(self.clone()));
        Some(Socket::Stream(Box::new(NodeStream::new(send, self.trunk.clone(), place))))
    }

    /// No more streams; it closes when the last one has ended.
    fn leave(&self) {
        if self.send.take().is_some() && self.streams.get() == 0 {
            self.count(Counted::Not);
        }
    }

    /// Nothing is to be expected of it, and nobody waits for it.
    fn is_over(&self) -> bool {
        self.send.borrow().is_none() && self.streams.get() == 0
    }

    fn count(&self, as_what: Counted) {
        let cell = self.node.cell(self.thread);
        let add = |counted, by| match counted {
            Counted::Not => {}
            Counted::Idle => Counters::add(&cell.idle, by),
            Counted::Active => Counters::add(&cell.active, by),
        };
        add(self.counted.replace(as_what), -1);
        add(as_what, 1);
    }

    fn tick(&self, now_ns: u64) {
        if self.streams.get() > 0 {
            return self.feel_pulse(now_ns);
        }
        let idle_ns = now_ns.saturating_sub(self.idle_since_ns.get());
        if self.send.borrow().is_some() && idle_ns >= clock::nanos(IDLE_CAP) {
            self.node.metrics.pool(PoolEvent::Expired);
            self.leave();
        }
    }

    fn feel_pulse(&self, now_ns: u64) {
        let mut pulse = self.pulse.borrow_mut();
        pulse.beat(self.trunk.wire.watch().heard(), now_ns);
        if pulse.look(now_ns)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let line = &self.0;
        let left = line.streams.get() - 1;
        line.streams.set(left);
        if left > 0 {
            return;
        }
        line.idle_since_ns.set(clock::now_ns());
        let stays = line.send.borrow().is_some();
        line.count(if stays { Counted::Idle } else { Counted::Not });
        // A node that is drained gets no more requests, and its operator waits for an end.
        if line.node.operator() != OperatorState::Ready {
            line.leave();
        }
    }
}

/// Runs the library for one connection.
struct Driver {
    trunk: Rc<Trunk>,
    library: client::Connection<Handle, Bytes>,
    send: Option<SendRequest<Bytes>>,
    pings: Option<PingPong>,
    line: Option<Rc<Line>>,
}

/// Opens a connection; it is open when the node's settings have come: then it is known that the node speaks
/// HTTP/2, and what it allows.
async fn establish(dial: &Dial, address: &Address, tls: Option<&Towards>) -> Result<Driver, Cause> {
    let socket = open(dial, address, tls).await?;
    let agreed = socket.tls().is_none_or(|tls| {
        tls.with_session(|session| session.alpn_protocol() == Some(crate::tls::HTTP_2))
    });
    if !agreed {
        return Err(Cause::NodeTls("it does not choose HTTP/2 (ALPN)".into()));
    }
    let wire = Wire::new(socket, Vec::new(), Watch::of_node(clock::now_ns()));
    let failed = |_: h2::Error| Cause::ConnectFailed("it does not speak HTTP/2".into());
    let shaken = builder().handshake::<_, Bytes>(Handle(wire.clone())).await;
    let (send, mut library) = shaken.map_err(failed)?;
    let pings = library.ping_pong();
    let trunk = Rc::new(Trunk { wire, gate: Gate::default(), spent: false.into() });
    let mut driver = Driver { trunk, library, send: Some(send), pings, line: None };
    let settled = poll_fn(|cx| match driver.poll(cx) {
        Poll::Ready(()) => Poll::Ready(false),
        Poll::Pending if driver.trunk.wire.watch().has_settings() => Poll::Ready(true),
        Poll::Pending => Poll::Pending,
    });
    match settled.await {
        true => Ok(driver),
        false => Err(Cause::ConnectFailed("it does not speak HTTP/2".into())),
    }
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(CANCELLED)
        // What comes for others is an error of the node's to the library, and is none.
        .max_local_error_reset_streams(None)
        // `Wire` bounds what small frames take. The library would end the connection, with everybody on it, for
        // clients that do not read.
        .data_frame_budget(usize::MAX);
    builder
}

impl Driver {
    /// Goes on in a task of its own.
    fn run(mut self, node: Arc<Node>, thread: usize, now_ns: u64) -> Rc<Line> {
        let line = Rc::new(Line {
            trunk: self.trunk.clone(),
            send: RefCell::new(self.send.take()),
            node,
            thread,
            streams: Cell::new(0),
            served: Cell::new(0),
            born_ns: now_ns,
            idle_since_ns: Cell::new(now_ns),
            counted: Cell::new(Counted::Not),
            pulse: RefCell::default(),
            waker: RefCell::default(),
        });
        line.count(Counted::Idle);
        self.line = Some(line.clone());
        spawn_local(async move {
            poll_fn(|cx| self.poll(cx)).await;
            // Its streams are told by its end, and then no more are opened.
            let line = self.line.take();
            drop(self);
            if let Some(line) = line {
                line.leave();
            }
        });
        line
    }

    /// One turn: what has come is taken in, and what is to be said is written. Ready when all is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.keep_alive(cx) {
            // Whoever is not there hears no farewell.
            self.trunk.wire.socket().reset_on_drop();
            return Poll::Ready(());
        }
        let ended = Pin::new(&mut self.library).poll(cx).is_ready();
        let wire = &self.trunk.wire;
        let broke = matches!(wire.poll_out(cx), Poll::Ready(Err(_)));
        self.trunk.gate.open();
        wire.gather(&self.trunk.gate);
        match ended || broke || wire.watch().verdict().is_some() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Asks whether the node is there, if that is due. False: it is not.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(line) = &self.line else { return true };
        let mut waker = line.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        let Some(pings) = &mut self.pings else { return true };
        let mut pulse = line.pulse.borrow_mut();
        if pings.poll_pong(cx).is_ready() {
            pulse.answered(clock::now_ns());
        }
        if pulse.is_due() && pings.send_ping(Ping::opaque()).is_ok() {
            pulse.asked(clock::now_ns());
        }
        !pulse.is_lost()
    }
}
