//! Data threads: each has its own runtime, its own sockets of every listener, and the connections it accepted.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};

use crate::connection::{self, Admitted};
use crate::exchange::thread::Thread;
use crate::http1::deadline::TICK;
use crate::net::{AcceptQueue, ListenSocket, Peer, Socket};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Dial, Node, Signals};

mod passing;

pub use passing::{About, Passed};

/// After accept failed for want of descriptors: trying at once would spin, giving up would be worse.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Threads that write and read spooled bodies for one data thread: a slow disk makes its uploads wait for
/// each other, and nobody else. They end when they are idle.
const FILE_THREADS: usize = 4;

/// What control tells a data thread. Answered through `done`, so that control knows when all have followed.
pub enum Command {
    /// Use this snapshot from now on. Listeners that it no longer names are closed; `sockets` brings the
    /// thread's own socket for each that is new, by the listener's name.
    Renew {
        /// The whole to read from now on.
        snapshot: Arc<Snapshot>,
        /// New listeners' sockets.
        sockets: Vec<(String, ListenSocket)>,
        /// Told when the thread has followed.
        done: oneshot::Sender<()>,
    },
    /// Close idle connections to this node now, and move its tunnels to other nodes within `window`, each
    /// with Close 1012. That no new work goes there, and when it may again, the node's own state says.
    DrainNode {
        /// The node.
        node: Arc<Node>,
        /// Over how long tunnels are moved.
        window: Duration,
        /// Told when no exchange can begin there any more, and none is idle.
        done: oneshot::Sender<()>,
    },
    /// Accept what the queues still hold, then close the listeners, finish exchanges with
    /// `Connection: close`, close tunnels with Close 1001 spread over `tunnels_within`, and answer `done`
    /// when no connection is left.
    Drain {
        /// Over how long tunnels are closed.
        tunnels_within: Duration,
        /// Told when the last connection has ended.
        done: oneshot::Sender<()>,
    },
    /// Another process accepts from now on: close the listeners, finish exchanges with `Connection: close`
    /// without cutting a wait short, pass tunnels on, or move those that cannot be with Close 1012 spread
    /// over `tunnels_within`, and answer `done` when no connection is left.
    HandOver {
        /// Takes tunnels there; dropped when none is left.
        tunnels: std::sync::mpsc::Sender<Passed>,
        /// Over how long tunnels are closed, if the pace of moves allows.
        tunnels_within: Duration,
        /// Told when the last connection has ended.
        done: oneshot::Sender<()>,
    },
    /// Go on with a tunnel of another process.
    Adopt(Box<Passed>),
    /// End now, whatever is open.
    Stop,
}

/// What a data thread is born with.
pub struct ThreadParts {
    /// 0 for the first.
    pub index: usize,
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The thread's sockets for each listener, by name; non-blocking. One each, but for those of a process
    /// with more threads whose place this one has taken.
    pub sockets: Vec<(String, ListenSocket)>,
    /// Where it listens to control.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// Where it leaves notes for control.
    pub signals: Signals,
    /// For what belongs to no snapshot.
    pub metrics: Arc<Metrics>,
}

/// Starts a data thread.
///
/// # Errors
/// The system has no thread or no descriptors left.
pub fn spawn(parts: ThreadParts) -> io::Result<std::thread::JoinHandle<()>> {
    let name = format!("data-{}", parts.index);
    std::thread::Builder::new().name(name).spawn(move || {
        // A local runtime must be built on its own thread; it fails only when descriptors are short.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(FILE_THREADS)
            .build_local(Default::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(parts)),
            Err(error) => tracing::error!(%error, "a data thread could not start"),
        }
    })
}

/// A data thread from its first snapshot to its last connection.
async fn run(parts: ThreadParts) {
    let ThreadParts { index, snapshot, sockets, mut commands, signals, metrics } = parts;
    let thread = Thread::new(index, snapshot, signals, metrics, Dial::Address);
    let ticker = spawn_local(tick(thread.clone()));
    let mut listening = Listening { thread, accepting: HashMap::new() };
    listening.follow(sockets);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Renew { snapshot, sockets, done } => {
                listening.renew(snapshot, sockets);
                // Control may have stopped waiting; the thread has followed all the same.
                let _ = done.send(());
            }
            Command::DrainNode { node, window, done } => {
                listening.thread.drain_node(&node, window);
                let _ = done.send(());
            }
            Command::Drain { tunnels_within, done } => {
                spawn_local(listening.drain(tunnels_within, done));
            }
            Command::HandOver { tunnels, tunnels_within, done } => {
                spawn_local(listening.hand_over(tunnels, tunnels_within, done));
            }
            Command::Adopt(passed) => passed.adopt(&listening.thread),
            Command::Stop => break,
        }
    }
    ticker.abort();
    listening.thread.log.borrow_mut().flush();
}

async fn tick(thread: Rc<Thread>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        thread.tick();
    }
}

/// The listeners of one data thread.
struct Listening {
    thread: Rc<Thread>,
    /// By the listener's name.
    accepting: HashMap<String, Vec<Accepting>>,
}

/// One accept loop.
struct Accepting {
    /// The same socket once more, to be asked at the end without the runtime's opinion of its readiness.
    socket: ListenSocket,
    task: AbortHandle,
}

impl Listening {
    /// Closes what the snapshot no longer names, and opens what came.
    fn follow(&mut self, sockets: Vec<(String, ListenSocket)>) {
        let view = self.thread.view();
        let named = |name: &str| view.snapshot.listener(name).is_some();
        let gone: Vec<String> =
            self.accepting.keys().filter(|name| !named(name)).cloned().collect();
        for name in gone {
            self.close_all(&name);
        }
        let names: HashSet<&String> = sockets.iter().map(|(name, _)| name).collect();
        let replaced: Vec<_> =
            names.into_iter().filter_map(|name| self.accepting.remove_entry(name)).collect();
        for (name, socket) in sockets {
            match self.accept_on(&name, socket) {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, listener = name, "a listener could not start")
                }
            }
        }
        for (name, old) in replaced {
            old.into_iter().for_each(|accepting| self.close(&name, accepting));
        }
    }

    fn accept_on(&mut self, name: &str, socket: ListenSocket) -> io::Result<()> {
        let accepted = AcceptQueue::new(socket.try_clone()?)?;
        let task = spawn_local(accept(self.thread.clone(), name.to_owned(), accepted));
        let accepting = Accepting { socket, task: task.abort_handle() };
        self.accepting.entry(name.to_owned()).or_default().push(accepting);
        Ok(())
    }

    fn close_all(&mut self, name: &str) {
        for accepting in self.accepting.remove(name).unwrap_or_default() {
            self.close(name, accepting);
        }
    }

    /// Serves what the accept queue still holds, then closes.
    fn close(&self, name: &str, accepting: Accepting) {
        accepting.task.abort();
        while let Ok((socket, peer)) = accepting.socket.accept() {
            begin(&self.thread, name, socket, peer);
        }
    }

    fn renew(&mut self, snapshot: Arc<Snapshot>, sockets: Vec<(String, ListenSocket)>) {
        // The queues of listeners that go are emptied under the old snapshot, which still knows them.
        let gone = |name: &String| snapshot.listener(name).is_none();
        let names: Vec<String> = self.accepting.keys().filter(|name| gone(name)).cloned().collect();
        for name in names {
            self.close_all(&name);
        }
        self.thread.renew(snapshot);
        self.follow(sockets);
    }

    /// Accepts no more, ends what is idle, and reports when nothing is left.
    fn drain(
        &mut self,
        tunnels_within: Duration,
        done: oneshot::Sender<()>,
    ) -> impl Future<Output = ()> + 'static {
        self.accept_no_more();
        let thread = &self.thread;
        thread.handed_over.set(false);
        thread.wheel.end_waits();
        thread.tunnels.end(tunnels_within, &mut thread.rng.borrow_mut());
        thread.maintenance.end(tunnels_within, &mut thread.rng.borrow_mut());
        self.emptied(done)
    }

    /// Accepts no more, lets everything go on to its end or its next request, and reports when nothing is
    /// left. A client that has just sent its next request on a kept connection must not find it closed.
    fn hand_over(
        &mut self,
        tunnels: std::sync::mpsc::Sender<Passed>,
        tunnels_within: Duration,
        done: oneshot::Sender<()>,
    ) -> impl Future<Output = ()> + 'static {
        self.accept_no_more();
        let thread = &self.thread;
        thread.handed_over.set(true);
        thread.tunnels.leave(tunnels_within, passing::taker(tunnels), &mut thread.rng.borrow_mut());
        thread.maintenance.leave(&mut thread.rng.borrow_mut());
        self.emptied(done)
    }

    fn accept_no_more(&mut self) {
        for (name, all) in std::mem::take(&mut self.accepting) {
            all.into_iter().for_each(|accepting| self.close(&name, accepting));
        }
        self.thread.draining.set(true);
        // Clients of HTTP/2 can be told now, without an answer to tell it with.
        self.thread.wheel.wake_all();
    }

    fn emptied(&self, done: oneshot::Sender<()>) -> impl Future<Output = ()> + 'static {
        let thread = self.thread.clone();
        async move {
            let open = |thread: &Thread| {
                thread.connections.get() + thread.tunnels.count() + thread.maintenance.count()
            };
            while open(&thread) > 0 {
                tokio::time::sleep(TICK).await;
            }
            thread.tunnels.all_left();
            thread.log.borrow_mut().flush();
            let _ = done.send(());
        }
    }
}

/// Accepts until it is aborted. An error never ends it: the next connection may well succeed.
async fn accept(thread: Rc<Thread>, name: String, queue: AcceptQueue<ListenSocket>) {
    loop {
        match poll_fn(|cx| queue.poll_next(cx, ListenSocket::accept)).await {
            Ok((socket, peer)) => begin(&thread, &name, socket, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                thread.count_accept_error();
                tracing::warn!(%error, listener = name, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client left while it was in the queue.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Starts a connection, unless the listener has as many as it may.
fn begin(thread: &Rc<Thread>, name: &str, socket: Socket, peer: Peer) {
    let view = thread.view();
    let Some(listener) = view.snapshot.listener(name) else { return };
    let Some(admitted) = Admitted::admit(listener) else { return };
    let thread = thread.clone();
    spawn_local(connection::serve(thread, admitted, socket, peer));
}
