//! A WebSocket that is held by ourselves while its upstream is under maintenance.
//!
//! Like a tunnel it is one small task with a socket and no buffer. It keeps its place among the
//! connections of its listener, whose `max_connections` bounds them all.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::frames;
use super::reader::Reader;
use crate::exchange::thread::Thread;
use crate::http1::deadline::Deadline;
use crate::limit::clients::Taken;
use crate::net::Socket;
use crate::telemetry::metrics::Counting;
use crate::upstream::Maintenance;

/// How long a client has to answer a Close frame, or to read what was said to it.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Answers to pings that the client does not read; then nothing more is read of it.
const MAX_UNREAD: usize = 4096;
/// Reads before others get a turn.
const TURN: u32 = 16;

/// A WebSocket before its task begins.
pub struct Hold {
    /// Of its upstream.
    pub switch: Arc<Maintenance>,
    /// The state of the switch that its client was told of.
    pub state: u64,
    /// Silence after which it is closed.
    pub idle: Duration,
    /// Counts it while it lives.
    pub counted: Rc<Counting>,
    /// Its place among the tunnels of its client, where those are bounded.
    pub share: Option<Box<Taken>>,
}

/// What it can be told from outside of its task.
pub(super) struct Handle {
    pub(super) switch: Arc<Maintenance>,
    /// The state of the switch that its client knows of.
    pub(super) known: Cell<u64>,
    /// What is to be said to the client, and whether that is the last word.
    pub(super) errand: RefCell<Option<(Vec<u8>, bool)>>,
    /// The last word has been said, by whoever: only the end is awaited.
    closing: Cell<bool>,
    deadline: Deadline,
}

impl Handle {
    /// Of a WebSocket whose client was told of this state of the switch.
    pub(super) fn new(switch: Arc<Maintenance>, state: u64, deadline: Deadline) -> Rc<Handle> {
        let (known, errand, closing) = (Cell::new(state), RefCell::default(), Cell::new(false));
        Rc::new(Handle { switch, known, errand, closing, deadline })
    }

    /// Says these frames at `at_ns`; the `last` ones end with a Close frame. Nothing takes the place of a
    /// last word that is due.
    pub(super) fn say(&self, frames: Vec<u8>, last: bool, at_ns: u64) {
        if self.closing.get() || matches!(*self.errand.borrow(), Some((_, true))) {
            return;
        }
        *self.errand.borrow_mut() = Some((frames, last));
        self.deadline.set_at(at_ns);
        self.deadline.wake();
    }
}

/// Starts its task, with its place among the listener's connections and what the client has said already.
pub fn spawn(
    thread: Rc<Thread>,
    hold: Hold,
    (socket, admitted): (Socket, Box<dyn Any>),
    early: &[u8],
) {
    let handle = Handle::new(hold.switch, hold.state, thread.wheel.deadline());
    handle.deadline.set(hold.idle);
    thread.maintenance.hold(&thread, &handle);
    let mut running =
        Running { socket, reader: Reader::default(), out: Vec::new(), idle: hold.idle };
    running.heard(early, &handle);
    tokio::task::spawn_local(async move {
        let _places = (admitted, hold.counted, hold.share);
        poll_fn(|cx| running.poll(&thread, &handle, cx)).await;
    });
}

struct Running {
    socket: Socket,
    reader: Reader,
    /// Not taken by the kernel yet; without memory nearly always.
    out: Vec<u8>,
    idle: Duration,
}

impl Running {
    fn poll(&mut self, thread: &Thread, handle: &Handle, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            if self.poll_write(handle, cx).is_err() {
                return Poll::Ready(());
            }
            if handle.deadline.poll(cx).is_ready() {
                if handle.closing.get() {
                    return Poll::Ready(());
                }
                self.run_errand(handle);
                continue;
            }
            if self.out.len() > MAX_UNREAD {
                return Poll::Pending;
            }
            let mut scratch = thread.scratch.borrow_mut();
            match ready!(self.socket.poll_read_slice(cx, &mut scratch)) {
                Ok(n @ 1..) => self.heard(&scratch[..n], handle),
                // The client has left, or answered our Close frame with the end.
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&mut self, handle: &Handle, cx: &mut Context<'_>) -> std::io::Result<()> {
        let had = !self.out.is_empty();
        while !self.out.is_empty() {
            match self.socket.poll_write(cx, &[IoSlice::new(&self.out)]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(written) => drop(self.out.drain(..written?)),
            }
        }
        self.out = Vec::new();
        if had && handle.closing.get() {
            self.socket.shutdown_write();
        }
        Ok(())
    }

    fn heard(&mut self, bytes: &[u8], handle: &Handle) {
        // After our last word only the end is awaited.
        if handle.closing.get() {
            return;
        }
        handle.closing.set(!self.reader.take(bytes, &mut self.out));
        if handle.closing.get() {
            handle.deadline.set(CLOSE_WAIT);
        } else if handle.errand.borrow().is_none() {
            handle.deadline.set(self.idle);
        }
    }

    fn run_errand(&mut self, handle: &Handle) {
        let errand = handle.errand.borrow_mut().take();
        // Nothing was asked for: it was silent for too long.
        let (frames, last) =
            errand.unwrap_or_else(|| (frames::close(frames::GOING_AWAY).to_vec(), true));
        handle.closing.set(last);
        match self.out.is_empty() {
            true => self.out = frames,
            false => self.out.extend_from_slice(&frames),
        }
        handle.deadline.set(if last { CLOSE_WAIT } else { self.idle });
    }
}
