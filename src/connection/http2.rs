//! A client connection that speaks HTTP/2: each of its streams becomes a socket of its own, and is served
//! as a connection of HTTP/1.1 with one request would be.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::spawn_local;

use super::ending::linger;
use super::{Admitted, Open, request_cause};
use crate::clock;
use crate::exchange::thread::Thread;
use crate::http1::HeadLimits;
use crate::http1::body::Framing;
use crate::http1::deadline::Deadline;
use crate::http2::head::{self, Asks};
use crate::http2::stream::ClientStream;
use crate::http2::watch::{Flood, Watch};
use crate::http2::wire::{Handle, Wire};
use crate::net::{Peer, Socket};
use crate::snapshot::Listener;

mod shared;
mod stream;

use shared::{Place, Shared};

/// How much of one stream's body may come that no node has taken: a round trip's worth on a near line, and
/// bounded memory on any.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same of all streams of a connection together: two can go on while one is not taken.
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// A client whose bodies are taken gets wider windows after so much: on a far line 64 KiB for each round trip
/// is little.
const WIDE_AFTER: u64 = 256 * 1024;
/// Both windows then.
const WIDE_WINDOW: u32 = 1024 * 1024;
/// Connections of a thread with such windows, which a stranger can fill: 32 MiB.
const MAX_WIDE: usize = 32;
/// What the library keeps of one stream's answer that the kernel has not taken. `Gate` bounds all of them.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that are reset in the same breath that opened them, before we can look: more than `Watch` lets
/// pass, which judges them.
const PENDING_RESETS: usize = 1_024;
/// Streams that ended with an error of their client's, such as a head that is none, in a connection's life.
const STREAM_ERRORS: usize = 256;
/// So long the library remembers a stream that we have reset or answered early, and lets what still comes for it
/// pass: afterwards it is an error. A declined upload may have a window's worth on its way, on a slow line.
const REMEMBERED: Duration = Duration::from_secs(10);
/// So many at least: 50 declined uploads a second, as a proxy in front of many clients may have.
const LEAST_REMEMBERED: u32 = 512;
/// What it keeps of each.
const REMEMBERED_BYTES: usize = 512;
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

/// Serves a connection to its end.
pub(super) async fn serve(parts: Parts) {
    let thread = parts.thread;
    let now_ns = thread.look_at_clock();
    let settings = &parts.listener.settings;
    let patience = clock::nanos(settings.request_head_timeout);
    let until_ns = parts.first_until_ns.unwrap_or(now_ns.saturating_add(patience));
    let encrypted = parts.socket.is_encrypted();
    let most_remembered = most_remembered(settings.max_streams);
    let block = header_list(settings.max_head, settings.max_fields) as usize;
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
        wide: Cell::default(),
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
        over_until_ns: None,
        block,
        remembered: (0, 0),
        most_remembered,
        waits_for: 0,
    };
    if poll_fn(|cx| connection.poll(cx)).await {
        // Bytes that nobody read would turn the end into a reset, which can overtake the last words.
        let Connection { shared, wire, deadline, library, .. } = connection;
        drop(library);
        deadline.release();
        linger(&shared.thread, wire.socket(), &deadline).await;
    }
}

fn most_remembered(max_streams: u32) -> usize {
    max_streams.max(LEAST_REMEMBERED) as usize
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
        .reset_stream_duration(REMEMBERED)
        .max_concurrent_reset_streams(most_remembered(settings.max_streams))
        // `Wire` bounds what small frames take. The library would also count those that it throws away.
        .data_frame_budget(usize::MAX)
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
    /// By when the client, which was told that all is over, must have taken it.
    over_until_ns: Option<u64>,
    /// Room that a header block may take before it is whole.
    block: usize,
    /// Streams that the library remembers, at most, and until when it does.
    remembered: (usize, u64),
    most_remembered: usize,
    /// When so much was written and taken, all that waited when this wait began has gone.
    waits_for: u64,
}

impl Connection {
    /// One turn: what has come is taken in, streams are begun, what they have to say is written. Ready when
    /// all is over; true if the socket is still good for a last word to arrive.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.shared.gate.keep_driver(cx);
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
            if self.show_out(now_ns) || self.follow_drain() || self.widen() {
                continue;
            }
            if !self.hold() {
                self.wire.socket().reset_on_drop();
                return Poll::Ready(false);
            }
            self.set_deadline(now_ns);
            match self.deadline.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(_) if self.stalled.1 <= now_ns || self.over_until_ns.is_some() => {
                    self.wire.socket().reset_on_drop();
                    return Poll::Ready(false);
                }
                Poll::Ready(_) => self.time_is_up(now_ns),
            }
        }
    }

    /// Begins a stream: a task of its own, as a connection of HTTP/1.1 has one.
    fn begin(&mut self, (request, respond): (Request<RecvStream>, SendResponse<Bytes>)) {
        self.served += 1;
        self.renew_listener();
        if self.served >= self.listener.settings.max_requests_h2 || self.is_orphan() {
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
            Ok((head, _)) => drop(spawn_local(stream::serve(place, listener, socket, head, at_ns))),
            Err(violation) => {
                let refused = (request_cause(violation), asks == Asks::Head);
                spawn_local(stream::refuse_request(place, listener, socket, refused, at_ns));
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

    /// Tells the gate and the watch what has been done, and bounds what small frames take.
    fn account(&mut self, now_ns: u64) {
        let gate = &self.shared.gate;
        self.wire.watch().refill(now_ns, gate.take_progress());
        self.wire.gather(gate);
        gate.open();
        let (count, until_ns) = &mut self.remembered;
        match gate.take_unended() {
            0 if now_ns >= *until_ns => *count = 0,
            0 => {}
            more => {
                *count = (*count + more).min(self.most_remembered);
                *until_ns = now_ns.saturating_add(clock::nanos(REMEMBERED));
            }
        }
    }

    /// Says what is held for the client beside what each exchange says for itself: what has begun to come, bodies
    /// that nobody has taken, answers that it has not, and streams that are remembered. False: there is no room for
    /// that, or others need it more. Then all of it goes, because there is no saying which stream is to blame.
    fn hold(&mut self) -> bool {
        let (gate, wire, deadline) = (&self.shared.gate, &self.wire, &self.deadline);
        let begun = wire.watch().begun(self.block);
        let waiting = wire.waiting() + wire.socket().held();
        let bytes = begun + gate.untaken() + gate.queued() + waiting;
        gate.count(bytes > 0);
        // Nobody waits for that to go.
        let remembers = deadline.hold(self.remembered.0 * REMEMBERED_BYTES);
        let moved = wire.written() + gate.taken();
        if bytes == 0 || moved >= self.waits_for {
            // What is here now has come since: a client that goes on is no old one.
            deadline.end_wait();
            self.waits_for = moved + bytes as u64;
        }
        let fits = remembers && (bytes == 0 || deadline.wait_holding(bytes));
        !deadline.is_cut() && (fits || deadline.give_way())
    }

    /// Gives a client that uploads wider windows, if there are any left.
    fn widen(&mut self) -> bool {
        let (shared, wide) = (&self.shared, &self.shared.thread.wide);
        let due = !shared.wide.get() && shared.gate.taken() >= WIDE_AFTER && wide.get() < MAX_WIDE;
        // It fails while the client has not acknowledged our first settings: then at the next turn.
        if !due || self.library.set_initial_window_size(WIDE_WINDOW).is_err() {
            return false;
        }
        self.library.set_target_window_size(WIDE_WINDOW);
        wide.set(wide.get() + 1);
        shared.wide.set(true);
        true
    }

    /// Ends the connection of a client that floods. True if the library has something to say.
    fn show_out(&mut self, now_ns: u64) -> bool {
        let Some(flood) = self.wire.watch().verdict() else { return false };
        let first = self.end(Reason::ENHANCE_YOUR_CALM, now_ns);
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

    /// One GOAWAY, and the end of all streams. False: it was said before.
    fn end(&mut self, reason: Reason, now_ns: u64) -> bool {
        let first = self.over_until_ns.is_none();
        if first {
            self.over_until_ns = Some(now_ns.saturating_add(clock::nanos(LAST_WORDS)));
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
        if let Some(until_ns) = self.over_until_ns {
            return self.deadline.set_at(until_ns);
        }
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
        let written = self.wire.written();
        if self.wire.is_empty() {
            self.stalled = (written, u64::MAX);
        } else if self.stalled.1 == u64::MAX || self.stalled.0 != written {
            self.stalled = (written, after(settings.send_timeout));
        }
        let first = self.idle_until_ns.min(self.unfinished_until_ns);
        self.deadline.set_at(first.min(self.stalled.1));
    }

    /// The client had nothing to ask for, or did not come to an end with it.
    fn time_is_up(&mut self, now_ns: u64) {
        let idle = self.unfinished_until_ns > now_ns;
        if !(idle && self.leave()) {
            self.end(Reason::NO_ERROR, now_ns);
        }
    }
}

/// The listener as it is now, if it still is.
fn current(thread: &Thread, listener: &Arc<Listener>) -> Option<Arc<Listener>> {
    thread.view().snapshot.listener(&listener.settings.name).cloned()
}
