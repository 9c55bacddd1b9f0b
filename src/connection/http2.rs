//! A client connection that speaks HTTP/2: each of its streams becomes a socket of its own, and is served
//! as a connection of HTTP/1.1 with one request would be.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::spawn_local;

use super::{Admitted, Open, linger, refuse, request_cause};
use crate::clock;
use crate::error::Cause;
use crate::exchange::client::{Client, Unread};
use crate::exchange::thread::Thread;
use crate::exchange::{Deadlines, Next, exchange, maintenance, tunnel};
use crate::http1::HeadLimits;
use crate::http1::body::Framing;
use crate::http1::deadline::Deadline;
use crate::http1::request::RequestHead;
use crate::http2::gate::Gate;
use crate::http2::head::{self, Asks};
use crate::http2::stream::ClientStream;
use crate::http2::watch::{Flood, Watch};
use crate::http2::wire::{Handle, Wire};
use crate::net::{Peer, Socket};
use crate::snapshot::Listener;

/// How much of one stream's body may come that no node has taken: a round trip's worth on a near line, and
/// bounded memory on any.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same of all streams of a connection together: two can go on while one is not taken.
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// What the library keeps of one stream's answer that the kernel has not taken. `Gate` bounds all of them.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset before we could look at them; we always look at once.
const PENDING_RESETS: usize = 20;
/// Streams that ended with an error of their client's, such as a head that is none, in a connection's life.
const STREAM_ERRORS: usize = 256;
/// Deadlines that a connection keeps for its next streams.
const KEPT_DEADLINES: usize = 8;
/// A client that is to go, and has no stream open, has this long to answer our PING: until then a request of
/// its may be on its way, and is served.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a connection of HTTP/2 is made of.
pub(super) struct Parts {
    pub(super) thread: Rc<Thread>,
    pub(super) listener: Arc<Listener>,
    pub(super) admitted: Admitted,
    pub(super) open: Open,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    pub(super) certificate: Box<[u8]>,
    /// For the connection itself.
    pub(super) deadline: Deadline,
    pub(super) first_until_ns: Option<u64>,
    /// Read before it was known what the client speaks.
    pub(super) early: Vec<u8>,
}

/// What a connection and its streams share. Lives as long as any of them.
struct Shared {
    thread: Rc<Thread>,
    peer: Peer,
    certificate: Box<[u8]>,
    encrypted: bool,
    gate: Rc<Gate>,
    streams: Cell<usize>,
    /// Of streams that have ended, for the next.
    deadlines: RefCell<Vec<Deadlines>>,
    /// Of the connection's task, which must know when its last stream has ended.
    waker: RefCell<Option<Waker>>,
    _admitted: Admitted,
    _open: Open,
}

impl Shared {
    fn deadlines(&self) -> Deadlines {
        let kept = self.deadlines.borrow_mut().pop();
        let new = || self.thread.wheel.deadline();
        kept.unwrap_or_else(|| Deadlines { up: new(), down: new() })
    }

    fn keep(&self, deadlines: Deadlines) {
        deadlines.up.clear();
        deadlines.down.clear();
        let mut kept = self.deadlines.borrow_mut();
        if kept.len() < KEPT_DEADLINES {
            kept.push(deadlines);
        }
    }

    fn keep_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
    }
}

/// A stream's share.
struct Place(Rc<Shared>);

impl Place {
    fn new(shared: &Rc<Shared>) -> Place {
        shared.streams.set(shared.streams.get() + 1);
        Place(shared.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        if left == 0
            && let Some(waker) = &*self.0.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(parts: Parts) {
    let thread = parts.thread;
    let now_ns = thread.look_at_clock();
    let settings = &parts.listener.settings;
    let patience = clock::nanos(settings.request_head_timeout);
    let until_ns = parts.first_until_ns.unwrap_or(now_ns.saturating_add(patience));
    let encrypted = parts.socket.is_encrypted();
    let wire = Wire::new(parts.socket, parts.early, Watch::new(now_ns));
    let mut handshake = builder(&parts.listener).handshake::<_, Bytes>(Handle(wire.clone()));
    parts.deadline.set_at(until_ns);
    let shaken = poll_fn(|cx| {
        let shaken = std::pin::Pin::new(&mut handshake).poll(cx);
        // Our SETTINGS go at once: a client may wait for them.
        match wire.poll_out(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            _ => shaken.map(Result::ok),
        }
    });
    let Ok(Some(library)) = parts.deadline.guard(shaken).await else { return };
    let shared = Rc::new(Shared {
        thread,
        peer: parts.peer,
        certificate: parts.certificate,
        encrypted,
        gate: Rc::default(),
        streams: Cell::new(0),
        deadlines: RefCell::default(),
        waker: RefCell::default(),
        _admitted: parts.admitted,
        _open: parts.open,
    });
    let mut connection = Connection {
        shared,
        listener: parts.listener,
        wire,
        library,
        deadline: parts.deadline,
        served: 0,
        idle_until_ns: until_ns,
        unfinished_until_ns: u64::MAX,
        stalled: (0, u64::MAX),
        leaving: false,
        over: false,
        written: 0,
    };
    if poll_fn(|cx| connection.poll(cx)).await {
        // Bytes that nobody read would turn the end into a reset, which can overtake the last words.
        let Connection { shared, wire, deadline, .. } = connection;
        linger(&shared.thread, wire.socket(), &deadline).await;
    }
}

fn builder(listener: &Listener) -> server::Builder {
    let settings = &listener.settings;
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(header_list(settings.max_head, settings.max_fields))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(STREAM_ERRORS))
        .enable_connect_protocol();
    builder
}

/// What a client is told of the size of heads. Twice what is admitted, and room for what HTTP/2 counts for
/// each field beside its bytes (RFC 9113, 10.5.1), so that what is a little too large is answered by us.
fn header_list(max_head: usize, max_fields: usize) -> u32 {
    u32::try_from(2 * max_head + 32 * max_fields).unwrap_or(u32::MAX)
}

struct Connection {
    shared: Rc<Shared>,
    listener: Arc<Listener>,
    wire: Rc<Wire>,
    library: server::Connection<Handle, Bytes>,
    deadline: Deadline,
    served: u64,
    /// By when a connection without streams must have one.
    idle_until_ns: u64,
    /// By when what has begun to come must have come.
    unfinished_until_ns: u64,
    /// What was written when the kernel took no more, and by when it must take some.
    stalled: (u64, u64),
    /// The client was told to open no more streams.
    leaving: bool,
    /// The client was told that all is over.
    over: bool,
    /// What was written when the gate was told last.
    written: u64,
}

impl Connection {
    /// One turn: what has come is taken in, streams are begun, what they have to say is written. Ready when
    /// all is over; true if the socket is still good for a last word to arrive.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.shared.keep_waker(cx);
        loop {
            match self.library.poll_accept(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    self.begin(stream);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.broke(&error)),
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(_)) = self.wire.poll_out(cx) {
                return Poll::Ready(false);
            }
            let now_ns = self.shared.thread.look_at_clock();
            self.account(now_ns);
            let acted = self.show_out() || self.follow_drain();
            self.set_deadline(now_ns);
            if !acted {
                match self.deadline.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(_) if self.stalled.1 <= now_ns => {
                        self.wire.socket().reset_on_drop();
                        return Poll::Ready(false);
                    }
                    Poll::Ready(_) => self.time_is_up(now_ns),
                }
            }
        }
    }

    /// Begins a stream: a task of its own, as a connection of HTTP/1.1 has one.
    fn begin(&mut self, (request, respond): (Request<RecvStream>, SendResponse<Bytes>)) {
        self.served += 1;
        self.renew_listener();
        if self.served >= self.listener.settings.max_requests || self.is_orphan() {
            self.leave();
        }
        let thread = &self.shared.thread;
        let at_ns = thread.look_at_clock();
        let (parts, recv) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let settings = &self.listener.settings;
        let limits = HeadLimits { bytes: settings.max_head, fields: settings.max_fields };
        let lent = (thread.buffers.small(), thread.buffers.fields());
        let key = || thread.rng.borrow_mut().u128(..).to_ne_bytes();
        let head = head::request(&request, recv.is_end_stream(), lent, limits, key);
        let (framing, asks) = match &head {
            Ok((head, asks)) => (head.framing, *asks),
            Err(_) if request.method() == http::Method::HEAD => (Framing::Empty, Asks::Head),
            Err(_) => (Framing::Empty, Asks::Body),
        };
        let (gate, encrypted) = (self.shared.gate.clone(), self.shared.encrypted);
        let stream = ClientStream::new((recv, respond), framing, asks, gate, encrypted);
        let socket = Socket::Stream(Box::new(stream));
        let (place, listener) = (Place::new(&self.shared), self.listener.clone());
        match head {
            Ok((head, _)) => drop(spawn_local(serve_stream(place, listener, socket, head, at_ns))),
            Err(violation) => {
                let refused = (request_cause(violation), asks == Asks::Head);
                spawn_local(refuse_stream(place, listener, socket, refused, at_ns));
            }
        }
    }

    /// A reload may have changed the listener's settings: new streams follow. What was negotiated stays.
    fn renew_listener(&mut self) {
        if let Some(listener) = current(&self.shared.thread, &self.listener) {
            self.listener = listener;
        }
    }

    /// The listener was removed by a reload.
    fn is_orphan(&self) -> bool {
        current(&self.shared.thread, &self.listener).is_none()
    }

    /// Tells the gate and the watch what has been done.
    fn account(&mut self, now_ns: u64) {
        let gate = &self.shared.gate;
        let (pieces, completed) = gate.take_progress();
        self.wire.watch().refill(now_ns, pieces, completed);
        let written = self.wire.written();
        gate.written((written - self.written) as usize, self.wire.is_empty());
        self.written = written;
    }

    /// Ends the connection of a client that floods. True if the library has something to say.
    fn show_out(&mut self) -> bool {
        let Some(flood) = self.wire.watch().verdict() else { return false };
        let first = self.end(Reason::ENHANCE_YOUR_CALM);
        if first {
            self.listener.metrics.http2_floods[flood as usize].inc();
        }
        first
    }

    /// While the process drains, no further stream is wanted.
    fn follow_drain(&mut self) -> bool {
        self.shared.thread.draining.get() && self.leave()
    }

    /// Two GOAWAYs with a round trip between them (RFC 9113, 6.8): what is on its way is still served.
    fn leave(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.leaving, true);
        if first {
            self.library.graceful_shutdown();
            self.idle_until_ns = u64::MAX;
        }
        first
    }

    fn end(&mut self, reason: Reason) -> bool {
        let first = !std::mem::replace(&mut self.over, true);
        if first {
            self.library.abrupt_shutdown(reason);
        }
        first
    }

    /// What the library has found.
    fn broke(&self, error: &h2::Error) -> bool {
        if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) && error.is_library() {
            self.listener.metrics.http2_floods[Flood::Other as usize].inc();
        }
        tracing::debug!(%error, "a connection of HTTP/2 broke");
        !error.is_io()
    }

    fn set_deadline(&mut self, now_ns: u64) {
        let settings = &self.listener.settings;
        let after = |patience: Duration| now_ns.saturating_add(clock::nanos(patience));
        if self.shared.streams.get() > 0 {
            self.idle_until_ns = u64::MAX;
        } else if self.idle_until_ns == u64::MAX {
            let patience = if self.leaving { LAST_WORDS } else { settings.keep_alive_timeout };
            self.idle_until_ns = after(patience);
        }
        if !self.wire.watch().is_unfinished() {
            self.unfinished_until_ns = u64::MAX;
        } else if self.unfinished_until_ns == u64::MAX {
            self.unfinished_until_ns = after(settings.request_head_timeout);
        }
        if self.wire.is_empty() {
            self.stalled = (self.written, u64::MAX);
        } else if self.stalled.1 == u64::MAX || self.stalled.0 != self.written {
            self.stalled = (self.written, after(settings.send_timeout));
        }
        let first = self.idle_until_ns.min(self.unfinished_until_ns);
        self.deadline.set_at(first.min(self.stalled.1));
    }

    /// The client had nothing to ask for, or did not come to an end with it.
    fn time_is_up(&mut self, now_ns: u64) {
        let idle = self.unfinished_until_ns > now_ns;
        if !(idle && self.leave()) {
            self.end(Reason::NO_ERROR);
        }
    }
}

/// The listener as it is now, if it still is.
fn current(thread: &Thread, listener: &Arc<Listener>) -> Option<Arc<Listener>> {
    let view = thread.view();
    let same = |other: &&Arc<Listener>| other.settings.name == listener.settings.name;
    view.snapshot.listeners.iter().find(same).cloned()
}

async fn serve_stream(
    place: Place,
    listener: Arc<Listener>,
    socket: Socket,
    head: RequestHead,
    at_ns: u64,
) {
    let shared = place.0.clone();
    let deadlines = shared.deadlines();
    let mut unread = Unread::default();
    let client = Client {
        thread: &shared.thread,
        socket: &socket,
        listener,
        peer: shared.peer,
        certificate: &shared.certificate,
        last: false,
    };
    let next = exchange(&client, head, &mut unread, &deadlines, at_ns).await;
    drop(client);
    shared.keep(deadlines);
    match next {
        // What was not sent whole is reset when the stream is dropped.
        Next::KeepAlive | Next::Close | Next::Linger | Next::Cut => {
            shared.thread.buffers.give_back(unread.take());
        }
        Next::Tunnel(join) => {
            let early = unread.take();
            let exact = early.to_vec();
            shared.thread.buffers.give_back(early);
            tunnel::spawn(shared.thread.clone(), join(socket, Box::new(place), exact));
        }
        Next::Held(hold) => {
            let early = unread.take();
            let parts: (Socket, Box<dyn std::any::Any>) = (socket, Box::new(place));
            maintenance::spawn(shared.thread.clone(), *hold, parts, &early);
            shared.thread.buffers.give_back(early);
        }
    }
}

async fn refuse_stream(
    place: Place,
    listener: Arc<Listener>,
    socket: Socket,
    (cause, to_head): (Cause, bool),
    at_ns: u64,
) {
    let shared = &place.0;
    let deadlines = shared.deadlines();
    let from = (&listener, shared.peer);
    // Whether it is told or not, the stream is over.
    let _ = refuse(&shared.thread, from, (&socket, &deadlines.down), (cause, to_head), at_ns).await;
    shared.keep(deadlines);
}
