//! Tunnels when another process takes over: those over plain TCP are given to it as they are, with the bytes
//! that wait and the places in their frames; the others are moved.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frames;
use super::quiet::{Page, Under};
use super::way::{Point, Way};
use super::{Counted, Handle, Running, Tunnels, start};
use crate::clock;
use crate::exchange::slices::Slices;
use crate::exchange::thread::Thread;
use crate::net::Socket;
use crate::upstream::{Node, Quiet};

/// The tunnels of a data thread whose process is no longer the one that serves.
#[derive(Default)]
pub(super) struct Departing {
    due: RefCell<Slices<Handle>>,
    taker: RefCell<Option<Taker>>,
}

impl Departing {
    /// Closes those whose moment has come.
    pub(super) fn tick(&self, now_ns: u64, may: impl Fn() -> bool, close: impl Fn(&Handle)) {
        self.due.borrow_mut().tick(now_ns, may, close);
    }

    /// Forgets all of them: they are closed for another reason.
    pub(super) fn clear(&self) {
        *self.due.borrow_mut() = Slices::default();
    }
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
    /// Whose tunnel it is, where those are bounded.
    pub client_of_tunnel: Option<IpAddr>,
}

/// Where both directions are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Place {
    up: Point,
    down: Point,
    page: Option<KnownPage>,
}

/// What is known of the page, but for where it is remembered.
#[derive(Debug, Serialize, Deserialize)]
struct KnownPage {
    client: u64,
    sub_app: bool,
    under: Under,
}

/// A tunnel that another process has given.
pub struct Adopted {
    /// The stream to the client.
    pub client: Socket,
    /// The stream to the node.
    pub node: Socket,
    /// The node.
    pub counted: Counted,
    /// Where its upstream's pages are remembered, if their restarts are to be quiet.
    pub quiet: Option<Arc<Quiet>>,
    /// Its place among the listener's connections.
    pub admitted: Box<dyn Any>,
    /// Silence in both directions after which it is closed.
    pub idle: Duration,
    /// Bytes of one message of the client; 0 is no limit.
    pub max_message: u64,
    /// Where both directions are.
    pub place: Place,
}

/// Goes on with a tunnel where another process has left it.
pub fn adopt(thread: Rc<Thread>, tunnel: Adopted) {
    let Place { up, down, page } = tunnel.place;
    let page = tunnel.quiet.zip(page).map(|(quiet, known)| known.at(quiet));
    let running = Running {
        client: tunnel.client,
        node: tunnel.node,
        up: Way::at(up, false).within(frames::Limit::new(tunnel.max_message)),
        down: Way::at(down, page.is_some()),
        idle: tunnel.idle,
        closing: None,
        adrift: false,
    };
    let handle = Handle::new(&thread, tunnel.counted, 0, page);
    start(thread, handle, running, tunnel.admitted);
}

impl KnownPage {
    fn of(page: &Page) -> KnownPage {
        KnownPage { client: page.client, sub_app: page.sub_app, under: page.under.get() }
    }

    fn at(self, quiet: Arc<Quiet>) -> Page {
        let KnownPage { client, sub_app, under } = self;
        // Whatever its age was: it is none that has just come back.
        Page { quiet, client, sub_app, opened_ns: 0, under: Cell::new(under) }
    }
}

impl Place {
    /// What tells a client to come back, if that can be said where its tunnel is.
    pub fn farewell(&self) -> Option<Vec<u8>> {
        let Point { rest, frames, .. } = &self.down;
        let between = rest.is_empty() && frames.at_boundary();
        between.then(|| frames::close(frames::SERVICE_RESTART).to_vec())
    }
}

impl Tunnels {
    /// Gives all tunnels that can be given to another process. The others are closed, each at a moment of its
    /// own within `window`, or later if the pace of moves asks for it, so that their clients come back to
    /// that process.
    pub fn leave(&self, window: Duration, taker: Taker, rng: &mut fastrand::Rng) {
        *self.departing.taker.borrow_mut() = Some(taker);
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
        self.departing.due.borrow_mut().add(tunnels, over, rng);
    }

    /// Nothing is left that could be given.
    pub fn all_left(&self) {
        *self.departing.taker.borrow_mut() = None;
    }

    pub(super) fn may_give(&self, handle: &Handle) -> bool {
        handle.give.get() && self.departing.taker.borrow().is_some()
    }

    /// Gives one away.
    pub(super) fn give(&self, handle: &Handle, running: Running, admitted: Box<dyn Any>) {
        let node = handle.node().clone();
        let Running { client, node: to_node, up, down, .. } = running;
        let page = handle.page.as_ref().map(KnownPage::of);
        let place = Place { up: up.point(), down: down.point(), page };
        match (descriptor(client), descriptor(to_node), &*self.departing.taker.borrow()) {
            (Ok(client), Ok(to_node), Some(take)) => {
                let client_of_tunnel = handle.counted.client();
                take(Given { node, admitted, client, to_node, place, client_of_tunnel });
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
        let plain = |socket: &Socket| matches!(socket, Socket::Tcp(_) | Socket::Unix(_));
        self.closing.is_none()
            && handle.close_code.get() == 0
            // What maintenance had decided of it cannot be told apart by another process.
            && handle.let_through == 0
            && !self.adrift
            && self.up.is_open()
            && self.down.is_open()
            && plain(&self.client)
            && plain(&self.node)
    }
}

/// A flag of a [`Handle`]: to be given away as soon as its task looks.
pub(super) type Give = Cell<bool>;

fn descriptor(socket: Socket) -> io::Result<OwnedFd> {
    match socket {
        Socket::Tcp(stream) => Ok(stream.into_std()?.into()),
        Socket::Unix(stream) => Ok(stream.into_std()?.into()),
        _ => Err(io::Error::other("not a plain socket")),
    }
}
