//! Tunnels: upgraded connections, bytes passed both ways until one side ends or nobody says anything.
//!
//! An idle tunnel is one small task with two sockets: all tunnels of a thread read through one scratch
//! buffer. Only the headers of WebSocket frames are followed, so that a Close frame of ours can be put
//! between two frames and never into one (RFC 6455, 5.5.1), in each direction at its own moment.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::thread::Thread;
use super::view::View;
use crate::clock;
use crate::health::OperatorState;
use crate::http1::deadline::Deadline;
use crate::limit::clients::Taken;
use crate::net::Socket;
use crate::telemetry::metrics::ClosedBy;
use crate::upstream::node::Cell as Counters;
use crate::upstream::{LocalNode, Node};

pub mod frames;
pub mod leaving;
mod moves;
pub mod quiet;
mod sift;
mod way;

use leaving::{Departing, Give};
use moves::Moves;
use quiet::{Leaving, Page};
use way::{Judge, Way};

/// How long a frame that has begun may take to end before a Close frame, and then how long the peers have
/// to answer that, before their connections are cut.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Tunnels to a node that is drained or removed are closed over this time, so that their clients come back
/// in small groups: NocoBase's client returns after a fixed second.
pub const DRAIN_WINDOW: Duration = Duration::from_secs(60);
/// Reads of one direction before others get a turn.
const TURN: u32 = 16;

/// The tunnels of one data thread.
#[derive(Default)]
pub struct Tunnels {
    all: RefCell<Vec<Weak<Handle>>>,
    moves: RefCell<Moves<Handle>>,
    leaving: Leaving,
    departing: Departing,
}

/// What a tunnel can be told from outside of its task.
pub(super) struct Handle {
    counted: Counted,
    /// The state of maintenance that its client was let through; 0 for none.
    pub(super) let_through: u64,
    /// None unless it is of NocoBase's client, and its restarts are to be quiet.
    page: Option<Page>,
    /// Frames that go to the client before the Close frame.
    last_words: RefCell<Vec<u8>>,
    /// 0 while it is not to be closed.
    close_code: Cell<u16>,
    /// When it is to be closed, if it is.
    close_at_ns: Cell<u64>,
    give: Give,
    deadline: Deadline,
}

impl Handle {
    fn new(thread: &Thread, counted: Counted, let_through: u64, page: Option<Page>) -> Rc<Handle> {
        let handle = Rc::new(Handle {
            counted,
            let_through,
            page,
            last_words: RefCell::default(),
            close_code: Cell::new(0),
            close_at_ns: Cell::new(u64::MAX),
            give: Give::default(),
            deadline: thread.wheel.deadline(),
        });
        thread.tunnels.add(&handle);
        handle
    }

    fn node(&self) -> &Arc<Node> {
        &self.counted.0.node
    }

    /// Whether its node is one of this upstream.
    pub(super) fn is_of(&self, upstream: &str) -> bool {
        self.node().key.upstream == upstream
    }

    /// To be closed at this moment with these frames before the Close frame, unless it is on its way. What
    /// is to be said already is said if there is nothing else.
    pub(super) fn close_after(&self, frames: Vec<u8>, code: u16, at_ns: u64) {
        // 0: closing has begun.
        if self.close_at_ns.get() != 0 && !frames.is_empty() {
            *self.last_words.borrow_mut() = frames;
        }
        self.close(code, at_ns);
    }

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
    /// Closes all tunnels, each at a moment of its own within `window`: the process ends.
    pub fn end(&self, window: Duration, rng: &mut fastrand::Rng) {
        self.moves.borrow_mut().clear();
        self.leaving.clear();
        self.departing.clear();
        let window = clock::nanos(window).max(1);
        for handle in self.live() {
            handle.close(frames::GOING_AWAY, clock::now_ns() + rng.u64(0..window));
        }
    }

    /// Moves the tunnels of a node to others: each is closed at a moment of its own within `window`, so
    /// that its client comes back and gets another node. Ends when the operator makes the node ready.
    pub fn move_off(&self, node: &Arc<Node>, window: Duration, rng: &mut fastrand::Rng) {
        let of_node = |handle: &Rc<Handle>| Arc::ptr_eq(handle.node(), node);
        let tunnels = self.live().into_iter().filter(of_node);
        let over = (clock::now_ns(), clock::nanos(window));
        self.moves.borrow_mut().begin(node.clone(), tunnels, over, rng);
    }

    /// Closes those whose moment has come.
    pub fn tick(&self, thread: &Thread, view: &View, now_ns: u64) {
        // Who has less time goes first: nodes that end come before those that are drained.
        self.leaving.tick(thread, view, now_ns);
        let close = |handle: &Handle| handle.close(frames::SERVICE_RESTART, now_ns);
        let may = || view.snapshot.pace.take(now_ns);
        self.moves.borrow_mut().tick(now_ns, may, close);
        self.departing.tick(now_ns, may, close);
    }

    /// What was decided of its node during its handshake holds for a new tunnel as well.
    fn follow(&self, handle: &Rc<Handle>, rng: &mut fastrand::Rng) {
        let (node, mut moves) = (handle.node(), self.moves.borrow_mut());
        if node.operator() == OperatorState::Ready {
            return;
        }
        let now_ns = clock::now_ns();
        if moves.has(node) {
            moves.join(node, handle, now_ns, rng);
        } else {
            let over = (now_ns, clock::nanos(DRAIN_WINDOW));
            moves.begin(node.clone(), std::iter::once(handle.clone()), over, rng);
        }
    }

    /// Open tunnels.
    pub fn count(&self) -> usize {
        self.live().len()
    }

    pub(super) fn live(&self) -> Vec<Rc<Handle>> {
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
pub struct Counted(Rc<LocalNode>, Option<Box<Taken>>);

impl Counted {
    /// From now on; among the tunnels of its client as well, where those are bounded.
    pub fn new(local: Rc<LocalNode>, share: Option<Box<Taken>>) -> Counted {
        Counters::add(&local.cell().tunnels, 1);
        Counted(local, share)
    }

    /// Whose it is, where tunnels of a client are bounded.
    fn client(&self) -> Option<std::net::IpAddr> {
        self.1.as_ref().map(|share| share.client())
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
    pub admitted: Box<dyn Any>,
    /// Silence in both directions after which it is closed.
    pub idle: Duration,
    /// Bytes of one message of the client; 0 is no limit.
    pub max_message: u64,
    /// The state of maintenance that its client was let through; 0 for none.
    pub let_through: u64,
    /// What is known of its page, where that matters.
    pub page: Option<Page>,
    /// Frames of ours that the client gets first.
    pub first_words: Vec<u8>,
    /// What the client sent behind its handshake.
    pub from_client: Vec<u8>,
    /// What the node sent behind its answer.
    pub from_node: Vec<u8>,
}

/// A tunnel in its task.
struct Running {
    client: Socket,
    node: Socket,
    up: Way,
    down: Way,
    idle: Duration,
    /// Why we are closing it, if we are.
    closing: Option<ClosedBy>,
    /// Its node is gone, and its client waits for its turn to come back.
    adrift: bool,
}

/// Starts the tunnel's own small task.
pub fn spawn(thread: Rc<Thread>, tunnel: Tunnel) {
    let handle = Handle::new(&thread, tunnel.counted, tunnel.let_through, tunnel.page);
    let mut running = Running {
        client: tunnel.client,
        node: tunnel.node,
        up: Way::new(Vec::new()).within(frames::Limit::new(tunnel.max_message)),
        down: Way::new(tunnel.first_words),
        idle: tunnel.idle,
        closing: None,
        adrift: false,
    };
    running.up.add_early(&tunnel.from_client, None);
    judged(&thread, &handle, |judge| running.down.add_early(&tunnel.from_node, judge));
    start(thread, handle, running, tunnel.admitted);
}

fn start(thread: Rc<Thread>, handle: Rc<Handle>, running: Running, admitted: Box<dyn Any>) {
    handle.deadline.set(running.idle);
    if thread.is_ending() {
        handle.close(frames::GOING_AWAY, clock::now_ns());
    } else if thread.handed_over.get() {
        thread.tunnels.follow_others(&handle, &mut thread.rng.borrow_mut());
    } else {
        thread.tunnels.follow(&handle, &mut thread.rng.borrow_mut());
        thread.tunnels.leaving.follow(&thread, &handle);
        thread.maintenance.joined(&thread, &handle);
    }
    tokio::task::spawn_local(run(thread, handle, running, admitted));
}

async fn run(thread: Rc<Thread>, handle: Rc<Handle>, mut running: Running, admitted: Box<dyn Any>) {
    let begun = clock::now_ns();
    let metrics = &handle.node().metrics;
    metrics.ws_opened.inc();
    let by =
        poll_fn(|cx| match thread.tunnels.may_give(&handle) && running.can_be_given(&handle) {
            true => Poll::Ready(None),
            false => running.poll(&thread, &handle, cx).map(Some),
        });
    let Some(by) = by.await else { return thread.tunnels.give(&handle, running, admitted) };
    if let Some(page) = &handle.page {
        page.parted(matches!(by, ClosedBy::Node | ClosedBy::Error));
    }
    if running.closing.is_some() {
        running.part(&thread, &handle).await;
    }
    if by == ClosedBy::Drain && handle.close_code.get() == frames::SERVICE_RESTART {
        metrics.ws_moved.inc();
    }
    metrics.ws_closed[by as usize].inc();
    metrics.ws_bytes[0].inc_by(running.up.bytes);
    metrics.ws_bytes[1].inc_by(running.down.bytes);
    metrics.ws_duration.observe((clock::now_ns() - begun) as f64 / 1e9);
}

impl Running {
    fn poll(
        &mut self,
        thread: &Thread,
        handle: &Rc<Handle>,
        cx: &mut Context<'_>,
    ) -> Poll<ClosedBy> {
        loop {
            let mut moved = false;
            if let Some(by) = self.poll_both(thread, handle, cx, &mut moved) {
                return Poll::Ready(self.closing.unwrap_or(by));
            }
            if self.closing.is_none() && self.up.is_too_long() {
                self.begin_to_close(thread, handle);
                continue;
            }
            match self.closing {
                Some(by) if self.up.is_parted() && self.down.is_parted() => {
                    return Poll::Ready(by);
                }
                None if moved && handle.close_code.get() == 0 => handle.deadline.set(self.idle),
                _ => {}
            }
            self.account(handle);
            if handle.deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.closing {
                // A frame does not end, or a peer takes nothing: it is cut without a word.
                Some(by) => return Poll::Ready(by),
                None => self.begin_to_close(thread, handle),
            }
        }
    }

    /// What one side has sent and the other does not take is held; whoever makes others hold much for long has to go.
    fn account(&self, handle: &Handle) {
        let held = self.up.held() + self.down.held() + self.client.held();
        if held == 0 {
            handle.deadline.release();
        } else if !handle.deadline.wait_holding(held) {
            handle.deadline.set_at(0);
        }
    }

    /// From now on each direction ends with a Close frame of ours.
    fn begin_to_close(&mut self, thread: &Thread, handle: &Handle) {
        let (by, code) = match handle.close_code.get() {
            _ if self.up.is_too_long() => (ClosedBy::TooLarge, frames::TOO_BIG),
            0 => (ClosedBy::Idle, frames::GOING_AWAY),
            code => (ClosedBy::Drain, code),
        };
        // Whatever else is asked of it from now on, it is on its way already.
        handle.close_code.set(code);
        handle.close_at_ns.set(0);
        let mask = thread.rng.borrow_mut().u32(..);
        self.closing = Some(by);
        self.down.say_farewell(handle.last_words.take(), &frames::close(code));
        match self.adrift || self.up.is_too_long() && !self.up.is_websocket() {
            true => self.up.say_nothing(),
            false => {
                // To the node we are the client that leaves, whatever the reason.
                let code = if by == ClosedBy::TooLarge { code } else { frames::GOING_AWAY };
                let leaving = frames::masked_close(code, mask);
                self.up.say_farewell(Vec::new(), &leaving);
            }
        }
        handle.deadline.set(CLOSE_WAIT);
    }

    fn poll_both(
        &mut self,
        thread: &Thread,
        handle: &Rc<Handle>,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Option<ClosedBy> {
        let mut scratch = thread.scratch.borrow_mut();
        if self.adrift {
            return self.poll_client(&mut scratch, cx);
        }
        let (client, node) = (&self.client, &self.node);
        let up = self.up.poll_move((client, node), &mut scratch, None, cx, moved);
        let down = judged(thread, handle, |judge| {
            self.down.poll_move((node, client), &mut scratch, judge, cx, moved)
        });
        let by = match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Some(ClosedBy::Error),
            // A WebSocket is over when either side has ended: neither can be answered any more.
            (Poll::Ready(Ok(())), _) => Some(ClosedBy::Client),
            (_, Poll::Ready(Ok(()))) => Some(ClosedBy::Node),
            _ => None,
        };
        let node_ended = matches!(by, Some(ClosedBy::Node | ClosedBy::Error))
            && self.closing.is_none()
            && self.down.may_close();
        if node_ended && handle.outlives_node(thread, self.down.muted) {
            (self.adrift, self.down.muted, self.down.ended) = (true, true, false);
            return self.poll_client(&mut scratch, cx);
        }
        by
    }

    /// Without its node: whether the client is there, and what is still to be said to it.
    fn poll_client(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> Option<ClosedBy> {
        if self.closing.is_some() {
            let sockets = (&self.node, &self.client);
            return match self.down.poll_move(sockets, scratch, None, cx, &mut false) {
                Poll::Ready(_) => Some(ClosedBy::Error),
                Poll::Pending => None,
            };
        }
        poll_end(&self.client, scratch, cx).is_ready().then_some(ClosedBy::Client)
    }

    /// Lets the peers end the connections themselves. What they still say is read and dropped: bytes that
    /// nobody read would turn the end into a reset, which can overtake the Close frame.
    async fn part(&mut self, thread: &Thread, handle: &Handle) {
        self.client.shutdown_write();
        self.node.shutdown_write();
        handle.deadline.set(CLOSE_WAIT);
        let gone = poll_fn(|cx| {
            let mut scratch = thread.scratch.borrow_mut();
            let client = poll_end(&self.client, &mut scratch, cx);
            let node = poll_end(&self.node, &mut scratch, cx);
            if client.is_ready() { node } else { Poll::Pending }
        });
        // Either way both sockets are closed after this.
        let _ = handle.deadline.guard(gone).await;
    }
}

/// Lends what judges the messages of a tunnel's node, if they are judged.
fn judged<T>(
    thread: &Thread,
    handle: &Rc<Handle>,
    then: impl FnOnce(Option<&Judge<'_>>) -> T,
) -> T {
    let judge = |text: &[u8]| handle.withholds(thread, text);
    then(handle.page.is_some().then_some(&judge as &Judge<'_>))
}

/// Reads and drops up to the end of the stream.
fn poll_end(socket: &Socket, scratch: &mut [u8], cx: &mut Context<'_>) -> Poll<()> {
    for _ in 0..TURN {
        match socket.poll_read_slice(cx, scratch) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(()),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_tunnel_holds_little() {
        let sizes = (size_of::<Handle>(), size_of::<Running>());
        assert!(sizes.0 <= 128 && sizes.1 <= 312, "{sizes:?}");
    }
}
