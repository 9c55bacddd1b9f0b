//! Tunnels when another process takes over: those over plain TCP are given to it as they are, with the bytes
//! that wait and the places in their frames; the others are moved.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frames::{self, FrameTracker};
use super::{Counted, Farewell, Handle, Running, Tunnels, Way, start};
use crate::clock;
use crate::exchange::slices::Slices;
use crate::exchange::thread::Thread;
use crate::net::Socket;
use crate::upstream::Node;

/// The tunnels of a data thread whose process is no longer the one that serves.
#[derive(Default)]
pub(super) struct Leaving {
    pub(super) due: RefCell<Slices<Handle>>,
    taker: RefCell<Option<Taker>>,
}

/// Who takes tunnels to the other process.
pub type Taker = Box<dyn Fn(Given)>;

/// A tunnel without its task.
pub struct Given {
    /// Its node.
    pub node: Arc<Node>,
    /// Its place among the listener's connections.
    pub admitted: Box<dyn Any>,
    /// The socket to the client.
    pub client: OwnedFd,
    /// The socket to the node.
    pub to_node: OwnedFd,
    /// Where both directions are.
    pub place: Place,
}

/// Where both directions are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Place {
    up: Point,
    down: Point,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Point {
    /// Read, and not written.
    rest: Vec<u8>,
    frames: FrameTracker,
}

/// A tunnel that another process has given.
pub struct Adopted {
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
    /// Where both directions are.
    pub place: Place,
}

/// Goes on with a tunnel where another process has left it.
pub fn adopt(thread: Rc<Thread>, tunnel: Adopted) {
    let running = Running {
        client: tunnel.client,
        node: tunnel.node,
        up: Way::at(tunnel.place.up),
        down: Way::at(tunnel.place.down),
        idle: tunnel.idle,
        closing: None,
    };
    start(thread, running, tunnel.counted, 0, tunnel.admitted);
}

impl Place {
    /// What tells a client to come back, if that can be said where its tunnel is.
    pub fn farewell(&self) -> Option<Vec<u8>> {
        let Point { rest, frames } = &self.down;
        let between = rest.is_empty() && frames.at_boundary();
        between.then(|| frames::close(frames::SERVICE_RESTART).to_vec())
    }
}

impl Tunnels {
    /// Gives all tunnels that can be given to another process. The others are closed, each at a moment of its
    /// own within `window`, or later if the pace of moves asks for it, so that their clients come back to
    /// that process.
    pub fn leave(&self, window: Duration, taker: Taker, rng: &mut fastrand::Rng) {
        *self.leaving.taker.borrow_mut() = Some(taker);
        for handle in self.live() {
            handle.give.set(true);
            handle.deadline.wake();
        }
        self.leave_with(self.live(), window, rng);
    }

    /// The same for one that has come about since.
    pub(super) fn follow_others(&self, handle: &Rc<Handle>, rng: &mut fastrand::Rng) {
        handle.give.set(true);
        self.leave_with(vec![handle.clone()], super::DRAIN_WINDOW, rng);
    }

    fn leave_with(&self, tunnels: Vec<Rc<Handle>>, window: Duration, rng: &mut fastrand::Rng) {
        let over = (clock::now_ns(), clock::nanos(window));
        self.leaving.due.borrow_mut().add(tunnels, over, rng);
    }

    /// Nothing is left that could be given.
    pub fn all_left(&self) {
        *self.leaving.taker.borrow_mut() = None;
    }

    pub(super) fn may_give(&self, handle: &Handle) -> bool {
        handle.give.get() && self.leaving.taker.borrow().is_some()
    }

    /// Gives one away.
    pub(super) fn give(&self, handle: &Handle, running: Running, admitted: Box<dyn Any>) {
        let node = handle.node().clone();
        let Running { client, node: to_node, up, down, .. } = running;
        let place = Place { up: up.point(), down: down.point() };
        match (descriptor(client), descriptor(to_node), &*self.leaving.taker.borrow()) {
            (Ok(client), Ok(to_node), Some(take)) => {
                take(Given { node, admitted, client, to_node, place });
            }
            (Err(error), ..) | (_, Err(error), _) => {
                tracing::warn!(%error, "a tunnel was lost on its way to the new process");
            }
            (.., None) => {}
        }
    }
}

impl Running {
    /// Whether another process can go on with it from here: nothing has ended or is being closed, and there
    /// is nothing to it but two sockets.
    pub(super) fn can_be_given(&self, handle: &Handle) -> bool {
        let open = |way: &Way| !way.ended && matches!(way.farewell, Farewell::None);
        let plain = |socket: &Socket| matches!(socket, Socket::Tcp(_));
        self.closing.is_none()
            && handle.close_code.get() == 0
            // What maintenance had decided of it cannot be told apart by another process.
            && handle.let_through == 0
            && open(&self.up)
            && open(&self.down)
            && plain(&self.client)
            && plain(&self.node)
    }
}

impl Way {
    fn at(point: Point) -> Way {
        let (rest, frames) = (point.rest, point.frames);
        Way { rest, frames, farewell: Farewell::None, bytes: 0, ended: false, closed: false }
    }

    fn point(self) -> Point {
        Point { rest: self.rest, frames: self.frames }
    }
}

/// A flag of a [`Handle`]: to be given away as soon as its task looks.
pub(super) type Give = Cell<bool>;

fn descriptor(socket: Socket) -> io::Result<OwnedFd> {
    match socket {
        Socket::Tcp(stream) => Ok(stream.into_std()?.into()),
        _ => Err(io::Error::other("not a plain socket")),
    }
}
