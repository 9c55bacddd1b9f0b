//! The client's side of an exchange: its socket, what it sent beyond what was read, and its deadlines.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::Interest;

use super::thread::Thread;
use crate::error::Cause;
use crate::http1::buffers::{Buffers, LARGE, SMALL};
use crate::http1::deadline::Deadline;
use crate::http1::io::{Failure, Patience, Slices, poll_client, poll_fill, write_patiently};
use crate::limit::uploads::{Floor, longest};
use crate::net::{Idle, Peer, Socket};
use crate::snapshot::Listener;

/// Bytes of pipelined requests that are read while another is answered. More stay with the kernel, and
/// then the client's leaving is noticed later.
pub const MAX_PIPELINED: usize = SMALL;

/// So often it is looked whether a client is still there that has sent more than is read.
const LOOK: Duration = Duration::from_secs(1);

/// What reading so much takes at most: a buffer that is nearly full may grow once.
const PIPELINED_ROOM: usize = 2 * MAX_PIPELINED;

/// What is held of an answer while its client takes its time: what was read of the body, and what is to be written.
const ANSWERING: usize = LARGE + SMALL;

/// What an exchange needs of the connection that it came in on.
pub struct Client<'a> {
    /// The data thread.
    pub thread: &'a Rc<Thread>,
    /// The stream.
    pub socket: &'a Socket,
    /// The listener as it is now.
    pub listener: Arc<Listener>,
    /// Who is at the other end.
    pub peer: Peer,
    /// Fields that tell of the certificate it has shown, for the nodes.
    pub certificate: &'a [u8],
    /// The last exchange of this connection.
    pub last: bool,
}

/// Bytes read from a client that no exchange has used yet.
#[derive(Default)]
pub struct Unread {
    bytes: Vec<u8>,
    at: usize,
}

impl Unread {
    /// Starts with what was read beyond a head.
    pub fn new(bytes: Vec<u8>) -> Unread {
        Unread { bytes, at: 0 }
    }

    /// What there is.
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Gives back what it has more than it needs.
    pub fn compact(&mut self, buffers: &Buffers) {
        let exact = self.get().to_vec();
        buffers.give_back(std::mem::replace(&mut self.bytes, exact));
        self.at = 0;
    }

    /// Gives its buffer back if there is nothing in it: what comes next may be long in coming, or want a
    /// buffer of another size.
    pub fn free_if_empty(&mut self, buffers: &Buffers) {
        if self.bytes.is_empty() {
            buffers.give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Bytes of memory that it holds.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Uses the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.at += n;
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
    }

    /// Takes all of it, as a buffer to read the next head into.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.at));
        bytes
    }

    /// Reads more; a buffer is taken only once there is something to read. 0 is the end.
    fn poll_more(
        &mut self,
        thread: &Thread,
        socket: &Socket,
        cx: &mut Context<'_>,
        large: bool,
    ) -> Poll<io::Result<usize>> {
        poll_fill(socket, cx, &mut self.bytes, &thread.buffers, large)
    }
}

impl Client<'_> {
    /// Waits for more of the request's body.
    ///
    /// # Errors
    /// The client left, or sent nothing for too long.
    pub async fn read_body(
        &self,
        unread: &mut Unread,
        large: bool,
        deadline: &Deadline,
        patience: Duration,
    ) -> Result<(), Cause> {
        // A buffer for heads would cut a large body into small pieces.
        unread.free_if_empty(&self.thread.buffers);
        deadline.set(patience);
        let more = poll_fn(|cx| {
            let polled = unread.poll_more(self.thread, self.socket, cx, large);
            poll_client(self.socket, deadline, polled)
        });
        let read = deadline.guard(more).await;
        deadline.clear();
        match read {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0) | Err(_)) => Err(Cause::ClientLeft),
            Err(_) if deadline.is_cut() => Err(Cause::BuffersFull),
            Err(_) => Err(Cause::BodyTimeout),
        }
    }

    /// Waits until there is more of the request's body to read, or its end. Nothing is read, and no buffer taken.
    ///
    /// # Errors
    /// The client left, or sent nothing for too long.
    pub async fn await_body(&self, deadline: &Deadline, patience: Duration) -> Result<(), Cause> {
        deadline.set(patience);
        let ready = deadline.guard(poll_fn(|cx| self.socket.poll_read_ready(cx))).await;
        deadline.clear();
        match ready {
            Ok(ready) => ready.map_err(|_| Cause::ClientLeft),
            Err(_) => Err(Cause::BodyTimeout),
        }
    }

    /// Reads what is there of the request's body. False: it was nothing.
    ///
    /// # Errors
    /// The client left.
    pub async fn try_read_body(&self, unread: &mut Unread, large: bool) -> Result<bool, Cause> {
        let (thread, socket) = (self.thread, self.socket);
        let once = poll_fn(|cx| Poll::Ready(unread.poll_more(thread, socket, cx, large)));
        match once.await {
            Poll::Ready(Ok(1..)) => Ok(true),
            Poll::Ready(Ok(0) | Err(_)) => Err(Cause::ClientLeft),
            Poll::Pending => Ok(false),
        }
    }

    /// Measures how fast its body comes from now on.
    pub fn floor(&self, received: u64) -> Floor {
        let settings = &self.listener.settings;
        let (rate, window) = (settings.min_body_rate, settings.body_idle_timeout);
        Floor::new(rate, window, received, self.thread.now_ns())
    }

    /// Takes what has come of the request's body by now. False: nothing has.
    ///
    /// # Errors
    /// The client left.
    pub async fn read_ready(&self, unread: &mut Unread) -> Result<bool, Cause> {
        let now = |cx: &mut Context<'_>| {
            Poll::Ready(unread.poll_more(self.thread, self.socket, cx, false))
        };
        match poll_fn(now).await {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(1..)) => Ok(true),
            Poll::Ready(Ok(0) | Err(_)) => Err(Cause::ClientLeft),
        }
    }

    /// Watches a client that has sent its request and waits. Comes back only when it leaves; what it sends
    /// meanwhile is the next request, kept up to a bound.
    pub async fn watch(&self, unread: &mut Unread) -> Cause {
        loop {
            if unread.get().len() >= MAX_PIPELINED {
                return std::future::pending().await;
            }
            let more = poll_fn(|cx| unread.poll_more(self.thread, self.socket, cx, false));
            if !matches!(more.await, Ok(1..)) {
                return Cause::ClientLeft;
            }
        }
    }

    /// The same for an exchange that waits for long: a buffer is taken only when there is `room` for its
    /// bytes. What has none, or is `left_unread` anyway, stays with the kernel; `deadline` is for looking
    /// now and then whether its client is still there.
    pub async fn watch_lightly(
        &self,
        unread: &mut Unread,
        left_unread: bool,
        room: impl Fn(usize) -> bool,
        deadline: &Deadline,
    ) -> Cause {
        if poll_fn(|cx| self.socket.poll_idle(cx)).await == Idle::Closed {
            return Cause::ClientLeft;
        }
        let full = unread.get().len() >= MAX_PIPELINED;
        if left_unread || full || !room(PIPELINED_ROOM) {
            return self.watch_unread(deadline).await;
        }
        self.watch(unread).await
    }

    /// Watches a client that has sent more than is read. Comes back only when it leaves.
    async fn watch_unread(&self, deadline: &Deadline) -> Cause {
        while !has_ended(self.socket).await {
            deadline.set(LOOK);
            // It is the deadline that ends it.
            let _ = deadline.guard(std::future::pending::<()>()).await;
        }
        Cause::ClientLeft
    }

    /// Writes towards the client.
    ///
    /// # Errors
    /// It left, stopped reading, reads too slowly, or had to give way to others.
    pub async fn write(&self, slices: Slices<'_>, deadline: &Deadline) -> Result<(), Cause> {
        let settings = &self.listener.settings;
        let patience = Patience {
            deadline,
            stall: settings.send_timeout,
            most: || {
                let length = slices.iter().map(|slice| slice.len()).sum();
                longest(length, settings.min_body_rate, settings.send_timeout)
            },
            holding: ANSWERING,
        };
        let written = write_patiently(self.socket, slices, &patience, &mut 0).await;
        written.map_err(|failure| match failure {
            Failure::Closed(_) => Cause::ClientLeft,
            // Cut for the room that it takes: that may be long before its time is over.
            Failure::Stalled if deadline.is_cut() => Cause::BuffersFull,
            Failure::Stalled => Cause::ClientStalled,
        })
    }
}

/// Whether the peer has ended its direction, or is gone, although what it sent before was not read yet. Waits
/// until there is something to read.
async fn has_ended(socket: &Socket) -> bool {
    let ready = match socket {
        Socket::Tcp(stream) => stream.ready(Interest::READABLE).await,
        Socket::Unix(stream) => stream.ready(Interest::READABLE).await,
        Socket::Tls(stream) => stream.tcp().ready(Interest::READABLE).await,
        Socket::Stream(stream) => return poll_fn(|cx| stream.poll_gone(cx)).await,
    };
    ready.map_or(true, |ready| ready.is_read_closed())
}
