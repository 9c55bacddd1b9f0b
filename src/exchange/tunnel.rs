//! Tunnels: upgraded connections, bytes passed both ways until one side ends or nobody says anything.
//!
//! An idle tunnel is one small task with two sockets: all tunnels of a thread read through one scratch
//! buffer. Only the headers of WebSocket frames are followed, so that a Close frame of ours can be put
//! between two frames and never into one (RFC 6455, 5.5.1).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::thread::Thread;
use crate::clock;
use crate::http1::deadline::Deadline;
use crate::net::Socket;
use crate::telemetry::metrics::ClosedBy;
use crate::upstream::LocalNode;
use crate::upstream::node::Cell as Counters;

pub mod frames;

use frames::FrameTracker;

/// How long the peers have to answer a Close frame before their connections are cut.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Tunnels to a node that is removed are closed over this time, so that their clients come back in small
/// groups: NocoBase's client returns after a fixed second.
pub const DRAIN_WINDOW: Duration = Duration::from_secs(60);
/// Reads of one direction before others get a turn.
const TURN: u32 = 16;

/// The tunnels of one data thread.
#[derive(Default)]
pub struct Tunnels {
    all: RefCell<Vec<Weak<Handle>>>,
}

/// What a tunnel can be told from outside of its task.
struct Handle {
    counted: Counted,
    close_code: Cell<u16>,
    /// When it is to be closed, if it is.
    close_at_ns: Cell<u64>,
    deadline: Deadline,
}

impl Handle {
    /// To be closed at this moment, unless it is to be closed before.
    fn close(&self, code: u16, at_ns: u64) {
        if self.close_code.get() == 0 || at_ns < self.close_at_ns.get() {
            self.close_code.set(code);
            self.close_at_ns.set(at_ns);
            self.deadline.set_at(at_ns);
            self.deadline.wake();
        }
    }
}

impl Tunnels {
    /// Closes the tunnels that `choose` picks, each at a moment of its own within `window`.
    pub fn close(
        &self,
        code: u16,
        window: Duration,
        rng: &mut fastrand::Rng,
        choose: impl Fn(&LocalNode) -> bool,
    ) {
        let window = clock::nanos(window).max(1);
        for handle in self.live() {
            if choose(&handle.counted.0) {
                handle.close(code, clock::now_ns() + rng.u64(0..window));
            }
        }
    }

    /// Open tunnels.
    pub fn count(&self) -> usize {
        self.live().len()
    }

    fn live(&self) -> Vec<Rc<Handle>> {
        self.all.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    fn add(&self, handle: &Rc<Handle>) {
        let mut all = self.all.borrow_mut();
        if all.len() == all.capacity() {
            // Room is needed anyway: forget those that ended first.
            all.retain(|weak| weak.strong_count() > 0);
        }
        all.push(Rc::downgrade(handle));
    }
}

/// Counts a tunnel at its node while it lives. From before the client learns of it, so that a burst of
/// handshakes spreads evenly.
pub struct Counted(Rc<LocalNode>);

impl Counted {
    /// From now on.
    pub fn new(local: Rc<LocalNode>) -> Counted {
        Counters::add(&local.cell().tunnels, 1);
        Counted(local)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        Counters::add(&self.0.cell().tunnels, -1);
    }
}

/// A tunnel before its task begins.
pub struct Tunnel {
    /// The stream to the client.
    pub client: Socket,
    /// The stream to the node.
    pub node: Socket,
    /// The node.
    pub counted: Counted,
    /// Its place among the listener's connections.
    pub admitted: Box<dyn std::any::Any>,
    /// Silence in both directions after which it is closed.
    pub idle: Duration,
    /// What the client sent behind its handshake.
    pub from_client: Vec<u8>,
    /// What the node sent behind its answer.
    pub from_node: Vec<u8>,
}

/// One direction.
struct Way {
    /// Read, and not taken by the other side yet; empty and without memory nearly always.
    rest: Vec<u8>,
    frames: FrameTracker,
    bytes: u64,
    ended: bool,
    /// Everything was written, the end too.
    closed: bool,
}

/// A tunnel in its task.
struct Running {
    client: Socket,
    node: Socket,
    up: Way,
    down: Way,
    idle: Duration,
}

/// Starts the tunnel's own small task.
pub fn spawn(thread: Rc<Thread>, tunnel: Tunnel) {
    let handle = Rc::new(Handle {
        counted: tunnel.counted,
        close_code: Cell::new(0),
        close_at_ns: Cell::new(u64::MAX),
        deadline: thread.wheel.deadline(),
    });
    thread.tunnels.add(&handle);
    let running = Running {
        client: tunnel.client,
        node: tunnel.node,
        up: Way::new(tunnel.from_client),
        down: Way::new(tunnel.from_node),
        idle: tunnel.idle,
    };
    handle.deadline.set(running.idle);
    // What was decided of its node or the process during the handshake holds for it as well.
    if thread.draining.get() {
        handle.close(frames::GOING_AWAY, clock::now_ns());
    } else if !thread.view().has(&handle.counted.0) {
        let within = thread.rng.borrow_mut().u64(0..clock::nanos(DRAIN_WINDOW));
        handle.close(frames::SERVICE_RESTART, clock::now_ns() + within);
    }
    tokio::task::spawn_local(async move {
        let _admitted = tunnel.admitted;
        run(thread, handle, running).await;
    });
}

async fn run(thread: Rc<Thread>, handle: Rc<Handle>, mut running: Running) {
    let begun = clock::now_ns();
    let metrics = &handle.counted.0.node.metrics;
    metrics.ws_opened.inc();
    let mut by = poll_fn(|cx| running.poll(&thread, &handle, cx)).await;
    if matches!(by, ClosedBy::Drain | ClosedBy::Idle) {
        let code = if by == ClosedBy::Drain { handle.close_code.get() } else { frames::GOING_AWAY };
        if running.say_close(&thread, &handle, code).await.is_err() {
            by = ClosedBy::Error;
        }
    }
    metrics.ws_closed[by as usize].inc();
    metrics.ws_bytes[0].inc_by(running.up.bytes);
    metrics.ws_bytes[1].inc_by(running.down.bytes);
    metrics.ws_duration.observe((clock::now_ns() - begun) as f64 / 1e9);
}

impl Way {
    fn new(early: Vec<u8>) -> Way {
        let mut frames = FrameTracker::default();
        frames.pass(&early);
        Way { bytes: early.len() as u64, rest: early, frames, ended: false, closed: false }
    }

    /// Moves what can be moved. Ready when both the end was read and everything is written.
    fn poll_move(
        &mut self,
        from: &Socket,
        to: &Socket,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURN {
            if !self.poll_rest(to, cx)? {
                return Poll::Pending;
            }
            if self.ended {
                if !self.closed {
                    to.shutdown_write();
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let n = match from.poll_read_slice(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            };
            self.ended = n == 0;
            *moved |= n > 0;
            self.bytes += n as u64;
            let data = &scratch[..n];
            self.frames.pass(data);
            let taken = match to.try_write(&[IoSlice::new(data)]) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if taken < n {
                self.rest = data[taken..].to_vec();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was left over; true when nothing is.
    fn poll_rest(&mut self, to: &Socket, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.rest.is_empty() {
            match to.poll_write(cx, &[IoSlice::new(&self.rest)]) {
                Poll::Pending => return Ok(false),
                Poll::Ready(written) => drop(self.rest.drain(..written?)),
            }
        }
        self.rest = Vec::new();
        Ok(true)
    }

    /// Between two frames, with nothing left over: a frame of ours may go here.
    fn at_boundary(&self) -> bool {
        self.rest.is_empty() && self.frames.at_boundary()
    }
}

impl Running {
    fn poll(&mut self, thread: &Thread, handle: &Handle, cx: &mut Context<'_>) -> Poll<ClosedBy> {
        let mut moved = false;
        let ended = self.poll_both(thread, cx, &mut moved);
        if let Some(by) = ended {
            return Poll::Ready(by);
        }
        let closing = handle.close_code.get() != 0;
        if moved && !closing {
            handle.deadline.set(self.idle);
        }
        let due = closing && handle.close_at_ns.get() <= thread.now_ns();
        if due && self.down.at_boundary() {
            return Poll::Ready(ClosedBy::Drain);
        }
        if handle.deadline.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if !closing {
            return Poll::Ready(ClosedBy::Idle);
        }
        // In the middle of a frame the close waits for its end, though not for ever.
        let last = handle.close_at_ns.get().saturating_add(clock::nanos(CLOSE_WAIT));
        let in_frame = self.down.frames.is_websocket() && !self.down.at_boundary();
        if in_frame && clock::now_ns() < last {
            handle.deadline.set_at(last);
            // Pending now, and it leaves the waker.
            return handle.deadline.poll(cx).map(|_| ClosedBy::Drain);
        }
        Poll::Ready(ClosedBy::Drain)
    }

    fn poll_both(
        &mut self,
        thread: &Thread,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Option<ClosedBy> {
        let mut scratch = thread.scratch.borrow_mut();
        let up = self.up.poll_move(&self.client, &self.node, &mut scratch, cx, moved);
        let down = self.down.poll_move(&self.node, &self.client, &mut scratch, cx, moved);
        match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Some(ClosedBy::Error),
            // A WebSocket is over when either side has ended: neither can be answered any more.
            (Poll::Ready(Ok(())), _) => Some(ClosedBy::Client),
            (_, Poll::Ready(Ok(()))) => Some(ClosedBy::Node),
            _ => None,
        }
    }

    /// Sends Close frames where frames begin, then lets the peers end the connections themselves.
    async fn say_close(&mut self, thread: &Thread, handle: &Handle, code: u16) -> io::Result<()> {
        if self.down.at_boundary() {
            let frame = frames::close(code);
            let _ = self.client.try_write(&[IoSlice::new(&frame)]);
        }
        if self.up.at_boundary() {
            let frame = frames::masked_close(frames::GOING_AWAY, thread.rng.borrow_mut().u32(..));
            let _ = self.node.try_write(&[IoSlice::new(&frame)]);
        }
        self.client.shutdown_write();
        self.node.shutdown_write();
        handle.deadline.set(CLOSE_WAIT);
        let client = &self.client;
        let gone = poll_fn(|cx| {
            let mut scratch = thread.scratch.borrow_mut();
            loop {
                match client.poll_read_slice(cx, &mut scratch) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        });
        // Either way both sockets are closed when this returns.
        let _ = handle.deadline.guard(gone).await;
        Ok(())
    }
}
