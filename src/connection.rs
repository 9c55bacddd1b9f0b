//! One client connection: requests one after the other, until it closes or becomes a tunnel.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::consume_budget;

use crate::clock;
use crate::error::Cause;
use crate::exchange::answer;
use crate::exchange::client::{Client, Unread};
use crate::exchange::record::Record;
use crate::exchange::thread::Thread;
use crate::exchange::{Deadlines, Join, Next, exchange, maintenance, tunnel};
use crate::http1::deadline::Deadline;
use crate::http1::io::{Failure, HeadRead, poll_client, poll_fill, read_head, write_all};
use crate::http1::request::RequestHead;
use crate::http1::{HeadLimits, Violation};
use crate::limit::clients::Taken;
use crate::net::{Idle, Peer, Socket};
use crate::snapshot::Listener;

use preface::Protocol;

mod ending;
mod handshake;
mod http2;
mod preface;
mod proxied;

/// While draining, a connection that has not sent anything yet has this long to do so.
const FIRST_WHILE_DRAINING: Duration = Duration::from_secs(1);

/// A connection's place among those that its listener may have open; given back when it is dropped.
pub struct Admitted {
    listener: Arc<Listener>,
    /// It is one of HTTP/2.
    is_h2: bool,
    /// Its place among those of its client, where they are bounded.
    of_client: Option<Box<Taken>>,
}

impl Admitted {
    /// A place, unless all are taken.
    pub fn admit(listener: &Arc<Listener>) -> Option<Admitted> {
        let admitted = Admitted { listener: listener.clone(), is_h2: false, of_client: None };
        if listener.open.fetch_add(1, Relaxed) >= listener.settings.max_connections {
            listener.metrics.rejected_limit.inc();
            return None;
        }
        Some(admitted)
    }

    /// Whether its client may connect: it is not denied, and has not as many connections as it may. A trusted
    /// proxy may, for whomever it comes: its requests are looked at one by one. A client that may not is
    /// reset, so that nothing of it is left here.
    fn admit_client(&mut self, socket: &Socket, client: IpAddr) -> bool {
        let listener = &self.listener;
        let most = listener.settings.max_connections_per_client;
        if listener.access.is_none() && most == 0 || listener.settings.trusts(client) {
            return true;
        }
        let refused = if listener.access.as_ref().is_some_and(|access| !access.admits(client)) {
            &listener.metrics.rejected_denied
        } else if most == 0 {
            return true;
        } else if let Some(taken) = listener.clients.take(client, 1, most) {
            self.of_client = Some(Box::new(taken));
            return true;
        } else {
            &listener.metrics.rejected_client_limit
        };
        refused.inc();
        socket.reset_on_drop();
        false
    }

    /// Whose place it is among the connections of one client, if those are counted.
    pub fn client(&self) -> Option<IpAddr> {
        self.of_client.as_ref().map(|taken| taken.client())
    }

    /// Counts a connection of another process, whatever its client has.
    pub fn adopt_client(&mut self, client: Option<IpAddr>) {
        let taken = client.and_then(|client| self.listener.clients.take(client, 1, u64::MAX));
        self.of_client = taken.map(Box::new);
    }

    /// From now on it is one of HTTP/2.
    fn speaks_http2(&mut self) {
        self.listener.open_h2.fetch_add(1, Relaxed);
        self.is_h2 = true;
    }

    /// The listener's name.
    pub fn listener(&self) -> &str {
        &self.listener.settings.name
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // In this order: at no moment are there more of HTTP/2 than of all.
        if self.is_h2 {
            self.listener.open_h2.fetch_sub(1, Relaxed);
        }
        self.listener.open.fetch_sub(1, Relaxed);
    }
}

/// Serves one connection to its end.
pub async fn serve(thread: Rc<Thread>, mut admitted: Admitted, socket: Socket, mut peer: Peer) {
    let deadlines = Deadlines { up: thread.wheel.deadline(), down: thread.wheel.deadline() };
    let open = Open::new(&thread);
    let listener = admitted.listener.clone();
    // From accept to the end of the first head; what comes before it takes from the head's time.
    let mut first_until_ns = None;
    let mut until_ns = || {
        let patience = clock::nanos(listener.settings.request_head_timeout);
        *first_until_ns.get_or_insert_with(|| thread.look_at_clock().saturating_add(patience))
    };
    if let Some(metrics) = proxied::must(&listener, peer) {
        let until = (&deadlines.down, until_ns());
        match Box::pin(proxied::client(&socket, peer, (&thread, metrics), until)).await {
            Some(client) => peer = client,
            None => return,
        }
    }
    if !admitted.admit_client(&socket, peer.ip()) {
        return;
    }
    let socket = match (socket, &listener.tls) {
        (Socket::Tcp(stream), Some(tls)) => {
            let until_ns = until_ns();
            match Box::pin(handshake::accept(stream, tls, &deadlines.down, until_ns)).await {
                Some(socket) => socket,
                None => return listener.metrics.connections[0].inc(),
            }
        }
        (socket, _) => socket,
    };
    let certificate = handshake::certificate(&socket);
    let spoken = handshake::protocol(&socket);
    let mut connection = Connection {
        thread,
        listener,
        admitted,
        socket,
        peer,
        deadlines,
        served: 0,
        certificate,
        first_until_ns,
    };
    let mut unread = Unread::default();
    let spoken = connection.choose_protocol(spoken, &mut unread).await;
    let counted = &connection.listener.metrics.connections;
    counted[usize::from(spoken == Some(Protocol::Http2))].inc();
    match spoken {
        Some(Protocol::Http1) => {}
        Some(Protocol::Http2) => {
            let parts = connection.into_http2(open, unread.take());
            return Box::pin(http2::serve(parts)).await;
        }
        None => return connection.part(),
    }
    loop {
        let head = match connection.next_head(&mut unread).await {
            Some(head) => head,
            None => return connection.part(),
        };
        let would_stay = head.head.keep_alive;
        // In a box of its own: a connection that waits for its next request keeps none of an exchange's state.
        match Box::pin(connection.exchange(head, &mut unread)).await {
            Next::KeepAlive => {}
            Next::Close => return connection.finish(&mut unread, would_stay).await,
            Next::Linger => return connection.linger().await,
            Next::Cut => return,
            Next::Tunnel(join) => return connection.into_tunnel(join, unread),
            Next::Held(hold) => return connection.into_held(*hold, unread),
        }
    }
}

/// Counts the thread's connections, so that a drain knows when the last has ended.
struct Open(Rc<Thread>);

impl Open {
    fn new(thread: &Rc<Thread>) -> Open {
        thread.connections.set(thread.connections.get() + 1);
        Open(thread.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

struct Connection {
    thread: Rc<Thread>,
    listener: Arc<Listener>,
    admitted: Admitted,
    socket: Socket,
    peer: Peer,
    deadlines: Deadlines,
    served: u64,
    /// Fields that tell the nodes of its certificate; empty without one.
    certificate: Box<[u8]>,
    /// By when the first head must be there, if that was decided before it began.
    first_until_ns: Option<u64>,
}

/// A head that was read, and when its first byte came.
struct Begun {
    head: RequestHead,
    at_ns: u64,
}

impl Connection {
    /// Waits for a request and reads its head. `None`: the connection is over.
    async fn next_head(&mut self, unread: &mut Unread) -> Option<Begun> {
        let mut bytes = unread.take();
        // What a careless client sends behind a request is not yet the beginning of another.
        let mut skipped = strip_empty_line(&mut bytes);
        self.await_first_bytes(&mut bytes).await?;
        self.renew_listener();
        let mut at_ns = self.thread.look_at_clock();
        let settings = &self.listener.settings;
        let limits = HeadLimits { bytes: settings.max_head, fields: settings.max_fields };
        let (down, buffers) = (&self.deadlines.down, &self.thread.buffers);
        if !down.wait_holding(bytes.capacity().max(settings.max_head)) {
            self.thread.buffers.give_back(bytes);
            Box::pin(self.refuse(Cause::BuffersFull, at_ns)).await;
            return None;
        }
        let read = loop {
            down.set(settings.request_head_timeout);
            self.keep_first_deadline();
            let read = read_head(&self.socket, &mut bytes, buffers, limits, down).await;
            down.clear();
            // A head of nothing but its end is an empty line that had not come, or not whole, before.
            let empty = matches!(read, Ok(Ok(Ok(HeadRead::Head(2)))));
            if !empty || std::mem::replace(&mut skipped, true) {
                break read;
            }
            bytes.drain(..2);
            self.await_first_bytes(&mut bytes).await?;
            at_ns = self.thread.look_at_clock();
        };
        let cut = down.is_cut();
        down.release();
        let cause = match read {
            Ok(Ok(Ok(HeadRead::Head(length)))) => match self.parse(bytes, length, unread) {
                Ok(head) => return Some(Begun { head, at_ns }),
                Err(violation) => request_cause(violation),
            },
            // Leaving in the middle of a head is no exchange; leaving between two is normal.
            Ok(Ok(Ok(HeadRead::Ended(_))) | Err(_)) => return None,
            Ok(Ok(Err(violation))) => request_cause(violation),
            Err(_) if cut => Cause::BuffersFull,
            Err(_) => Cause::HeadTimeout,
        };
        Box::pin(self.refuse(cause, at_ns)).await;
        None
    }

    /// Waits without holding a buffer, unless something is there already. `None`: it never came.
    async fn await_first_bytes(&self, bytes: &mut Vec<u8>) -> Option<()> {
        if !bytes.is_empty() {
            return Some(());
        }
        let (down, buffers) = (&self.deadlines.down, &self.thread.buffers);
        buffers.give_back(std::mem::take(bytes));
        // Between two requests a drain ends the wait at once; a first request is on its way, as somebody
        // has just connected to send it.
        let between = self.served > 0;
        let grace = if between { Duration::ZERO } else { FIRST_WHILE_DRAINING };
        down.set(match (self.thread.is_ending(), between) {
            (true, _) => grace.max(Duration::from_nanos(1)),
            (false, true) => self.listener.settings.keep_alive_timeout,
            (false, false) => self.listener.settings.request_head_timeout,
        });
        if !self.thread.is_ending() {
            self.keep_first_deadline();
        }
        down.set_grace(Some(grace));
        let first = poll_fn(|cx| {
            let polled = poll_fill(&self.socket, cx, bytes, buffers, false);
            poll_client(&self.socket, down, polled)
        });
        let first = down.guard(first).await;
        down.set_grace(None);
        down.clear();
        match first {
            Ok(read) => read.ok().filter(|read| *read > 0).map(drop),
            // What came at the last moment, before the runtime could tell, is still served.
            Err(_) => (self.socket.peek_idle() == Idle::Dirty).then_some(()),
        }
    }

    /// The first head has what a PROXY header and a handshake before it have left of the time.
    fn keep_first_deadline(&self) {
        if let (0, Some(until_ns)) = (self.served, self.first_until_ns) {
            self.deadlines.down.set_at(until_ns);
        }
    }

    /// A reload may have changed the listener's settings; a connection follows from request to request.
    fn renew_listener(&mut self) {
        let view = self.thread.view();
        if let Some(listener) = view.snapshot.listener(&self.listener.settings.name)
            && !Arc::ptr_eq(listener, &self.listener)
        {
            self.listener = listener.clone();
        }
    }

    fn parse(
        &self,
        mut bytes: Vec<u8>,
        length: usize,
        unread: &mut Unread,
    ) -> Result<RequestHead, Violation> {
        if bytes.len() > length {
            let mut rest = self.thread.buffers.small();
            rest.extend_from_slice(&bytes[length..]);
            bytes.truncate(length);
            *unread = Unread::new(rest);
        }
        RequestHead::parse(bytes, self.thread.buffers.fields()).map_err(|(violation, bytes)| {
            self.thread.buffers.give_back(bytes);
            violation
        })
    }

    async fn exchange(&mut self, begun: Begun, unread: &mut Unread) -> Next {
        // Requests that lie here in a row, and that no node is asked for, would keep the thread to themselves.
        consume_budget().await;
        self.served += 1;
        let client = Client {
            thread: &self.thread,
            socket: &self.socket,
            listener: self.listener.clone(),
            peer: self.peer,
            certificate: &self.certificate,
            last: self.served >= self.listener.settings.max_requests || self.is_orphan(),
        };
        exchange(&client, begun.head, unread, &self.deadlines, begun.at_ns).await
    }

    /// The listener was removed by a reload: this exchange is the connection's last.
    fn is_orphan(&self) -> bool {
        let view = self.thread.view();
        !view.snapshot.listeners.iter().any(|listener| Arc::ptr_eq(listener, &self.listener))
    }

    /// Answers a request that could not be read, and ends the connection.
    async fn refuse(&mut self, cause: Cause, at_ns: u64) {
        let (from, to) = ((&self.listener, self.peer), (&self.socket, &self.deadlines.down));
        if refuse(&self.thread, from, to, (cause, false), at_ns).await.is_ok() {
            self.linger().await;
        }
    }

    fn into_http2(mut self, open: Open, early: Vec<u8>) -> http2::Parts {
        self.admitted.speaks_http2();
        http2::Parts {
            thread: self.thread,
            listener: self.listener,
            admitted: self.admitted,
            open,
            socket: self.socket,
            peer: self.peer,
            certificate: self.certificate,
            deadline: self.deadlines.down,
            first_until_ns: self.first_until_ns,
            early,
        }
    }

    fn into_tunnel(self, join: Box<Join>, mut unread: Unread) {
        // The early bytes are few or none: a vector of their own, so that the buffer goes back.
        let early = unread.take();
        let exact = early.to_vec();
        self.thread.buffers.give_back(early);
        tunnel::spawn(self.thread, join(self.socket, Box::new(self.admitted), exact));
    }

    fn into_held(self, hold: maintenance::Hold, mut unread: Unread) {
        let early = unread.take();
        let parts: (Socket, Box<dyn std::any::Any>) = (self.socket, Box::new(self.admitted));
        maintenance::spawn(self.thread.clone(), hold, parts, &early);
        self.thread.buffers.give_back(early);
    }
}

/// Answers a request that could not be read.
async fn refuse(
    thread: &Thread,
    (listener, peer): (&Arc<Listener>, Peer),
    (socket, down): (&Socket, &Deadline),
    (cause, to_head): (Cause, bool),
    at_ns: u64,
) -> Result<(), Failure> {
    thread.look_at_clock();
    let mut record = Record::begin(thread, peer, at_ns);
    record.status = cause.status();
    let shape = answer::Shape {
        json: false,
        to_head,
        keep_alive: false,
        maintaining: false,
        request_id: record.id.as_str(),
    };
    let mut out = thread.buffers.small();
    answer::write(&mut out, &cause, &shape);
    if socket.is_encrypted() && thread.view().snapshot.config.tls.https_only {
        answer::stay_on_https(&mut out);
    }
    let stall = (down, listener.settings.send_timeout);
    let written = write_all(socket, [&out, &[], &[]], stall, &mut 0).await;
    thread.buffers.give_back(out);
    record.cause = Some(cause);
    record.finish(thread, &thread.view(), listener, None);
    written
}

/// An empty line before a request is passed over (RFC 9112, 2.2): one, as a careless client sends it.
/// Whether there was one.
fn strip_empty_line(bytes: &mut Vec<u8>) -> bool {
    let found = bytes.starts_with(b"\r\n");
    if found {
        bytes.drain(..2);
    }
    found
}

fn request_cause(violation: Violation) -> Cause {
    match violation {
        Violation::Malformed(what) => Cause::BadRequest(what),
        Violation::NotImplemented(what) => Cause::NotImplemented(what),
        Violation::Expectation => Cause::ExpectationUnknown,
        Violation::HeadTooLarge | Violation::TooManyFields => Cause::HeadTooLarge,
        Violation::LineTooLong => Cause::UriTooLong,
    }
}
