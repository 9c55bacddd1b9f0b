//! A stand-in for one NocoBase process, as a proxy sees it: its phases, both of its error grammars,
//! `/ws`, and a keep-alive of 5 s. It follows NocoBase's gateway (packages/core/server/src/gateway).
//!
//! It has a thread of its own, so that killing it disturbs nobody, and its port stays the same from one
//! life to the next, as a container's does.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};

mod answer;
mod serve;

/// What a node is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing listens: connections are refused.
    Off,
    /// A command runs, `start` among them: API requests get 503 `APP_COMMANDING`.
    Commanding {
        /// The command's name.
        command: &'static str,
        /// Its progress, as NocoBase tells it.
        message: &'static str,
    },
    /// Everything is served.
    Running,
    /// Told to end: everything is served for a moment more, and only `/ws` tells.
    Ending {
        /// What it does, as NocoBase tells it.
        message: &'static str,
    },
    /// Going down: 503 `APP_STOPPED`.
    Stopped,
    /// Almost gone: 404 `APP_NOT_FOUND`, nothing new is accepted.
    Destroyed,
}

/// How long a start takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Until something listens (18 s on a real node).
    pub refusing: Duration,
    /// From then until it serves (4 s on a real node).
    pub commanding: Duration,
}

impl Pace {
    /// A start that is over at once, for tests.
    pub const NONE: Pace = Pace { refusing: Duration::ZERO, commanding: Duration::ZERO };
}

/// How often each `POST /api/posts:create` ran, by its title, on all nodes that share the journal. What
/// it holds is the proof that nothing ran twice; who reads it takes out what has been judged.
pub type Journal = Arc<Mutex<HashMap<String, u32>>>;

/// A stand-in. Dropping it ends it at once.
pub struct StandIn {
    name: String,
    address: SocketAddr,
    orders: mpsc::UnboundedSender<(Order, oneshot::Sender<()>)>,
    phase: watch::Receiver<Phase>,
    /// Bound and never listening: keeps the port ours while it refuses.
    _reserved: Socket,
}

/// What its thread is told.
enum Order {
    Start(Pace),
    Kill,
    Terminate,
    Command { command: &'static str, lasting: Duration },
}

impl StandIn {
    /// A stand-in on a free port of loopback, not started: it refuses connections.
    ///
    /// # Errors
    /// If there is no port, or no thread.
    pub fn new(name: &str, journal: &Journal) -> io::Result<StandIn> {
        let reserved = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = reserved.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (phases, phase) = watch::channel(Phase::Off);
        let site = answer::Site { name: name.into(), journal: journal.clone(), posts: 0.into() };
        let shared = serve::Shared { address, site: Arc::new(site), phases };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name(format!("stand-in {name}"))
            .spawn(move || runtime.block_on(serve::live(shared, inbox)))?;
        Ok(StandIn { name: name.to_owned(), address, orders, phase, _reserved: reserved })
    }

    /// What it is called, and calls itself in `X-Served-By`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, when it does.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Waits until it does what `wanted` asks for; false if its thread has ended.
    pub async fn wait_for(&self, wanted: impl FnMut(&Phase) -> bool) -> bool {
        self.phase.clone().wait_for(wanted).await.is_ok()
    }

    /// Starts it, at that pace. Returns once the start has begun; a node that is not off is killed first.
    pub async fn start(&self, pace: Pace) {
        self.order(Order::Start(pace)).await;
    }

    /// SIGKILL: nothing listens any more and all connections are cut, whatever was under way.
    pub async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// SIGTERM: goes through NocoBase's last phases, finishes what is under way, then is off.
    pub async fn terminate(&self) {
        self.order(Order::Terminate).await;
    }

    /// Runs a command while it is up, as `restart` or `pm.enable` do.
    pub async fn command(&self, command: &'static str, lasting: Duration) {
        self.order(Order::Command { command, lasting }).await;
    }

    async fn order(&self, order: Order) {
        let (told, done) = oneshot::channel();
        if self.orders.send((order, told)).is_ok() {
            // The thread ends only with the process, or by a defect that its panic has told.
            let _ = done.await;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Two sockets may share a port when both say so and at most one listens.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
