//! The control thread: loads, swaps, probes, resolves, drains, shows. It owns what changes slowly; data
//! threads learn of it through snapshots, atomics of nodes, and commands. Nothing here delays them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::{Config, Role};
use crate::listener::ThreadParts;
use crate::net::Address;
use crate::snapshot::{Member, Snapshot, Upstream};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Node;

mod acme;
mod certificates;
mod compare;
mod core;
mod drains;
mod file;
mod lag;
mod leaving;
mod lists;
pub mod maintenance;
pub mod operator;
pub mod pin;
mod prepare;
mod probation;
mod probe;
mod reload;
mod resolve;
pub mod rollback;
mod roster;
mod saving;
mod show;
mod slow_start;
mod sockets;
mod spool;
pub mod status;
mod stream;
mod unasked;
pub mod upgrade;
mod verdicts;
pub mod warnings;
mod watch;
pub mod who;
pub(crate) mod words;

pub use reload::{Read, read};
pub use sockets::BindError;
pub use status::{ReloadStatus as Outcome, Status};
pub(crate) use verdicts::SHOWN;

use self::core::{Core, Event};
use self::maintenance::{Change, Changed};
use self::operator::{Order, OrderError, Ordered};
use self::pin::{Unpin, Unpinned};
use self::rollback::{RollbackError, RolledBack};
use self::upgrade::{Estate, Reign};
use self::who::Who;

/// After so long a start counts as done, whether or not nodes have answered.
const START_GRACE: Duration = Duration::from_secs(5);

/// More names than that are rare, and all of them hanging at once is rarer.
const MAX_BLOCKING: usize = 64;

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file that is watched.
    File(PathBuf),
    /// The command line; there is nothing to reload.
    Flags,
}

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is taken or not ours.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The access log cannot be opened.
    #[error("the access log `{path}` cannot be opened: {source}")]
    AccessLog {
        /// As configured.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// What another process hands over cannot be used.
    #[error("cannot take over: {0}")]
    Estate(io::Error),
    /// No thread, no runtime, no descriptor.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A control thread that runs.
pub struct Control {
    /// To ask it.
    pub handle: Handle,
    /// What each data thread is to be born with.
    pub threads: Vec<ThreadParts>,
    /// Ends after [`Handle::stop`].
    pub thread: JoinHandle<()>,
}

/// Resolves names, binds all listeners, compiles the first snapshot and begins to probe. Blocks until that
/// is done: five seconds at most, when a resolver does not answer.
///
/// # Errors
/// What keeps the configuration from being run.
pub fn start(
    config: Config,
    source: ConfigSource,
    metrics: Arc<Metrics>,
) -> Result<Control, StartError> {
    start_with(config, source, None, metrics, None)
}

/// The same with the `text` that the file had when it was read (none: what it has now), and with what another
/// process hands over, if one does. Then this process waits for [`Handle::take_over`] before anything is its
/// own that only one may have.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    config: Config,
    source: ConfigSource,
    text: Option<String>,
    metrics: Arc<Metrics>,
    estate: Option<Estate>,
) -> Result<Control, StartError> {
    let (tell, told) = std::sync::mpsc::channel();
    let run = move || {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error.into()))),
        };
        runtime.block_on(async {
            match Core::prepare(config, source, metrics, text, estate).await {
                Ok((core, handle, threads)) => {
                    // Nobody listens only if the starting thread has died.
                    let _ = tell.send(Ok((handle, threads)));
                    core.run().await;
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        });
        // A resolver that hangs must not hold up the end of the process.
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(run)?;
    let died = |_| io::Error::other("the control thread died");
    let (handle, threads) = told.recv().map_err(died)??;
    Ok(Control { handle, threads, thread })
}

/// Blocking threads are for files and `getaddrinfo`; a resolver that hangs may hold some for long.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(MAX_BLOCKING).build()
}

/// Asks the control thread. Cheap to clone; any thread may hold it.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    metrics: Arc<Metrics>,
    events: mpsc::UnboundedSender<Event>,
    /// Counts reloads that ended well, so that others may follow them.
    reloads: tokio::sync::watch::Sender<u64>,
    /// Listeners as bound, by name.
    addresses: parking_lot::RwLock<Vec<(String, Address)>>,
    /// Nodes that are in no snapshot any more and may still hold work.
    leaving: parking_lot::RwLock<Vec<Arc<Node>>>,
    draining: AtomicBool,
    /// To the process that has taken over.
    line: parking_lot::Mutex<Option<upgrade::Line>>,
    reign: tokio::sync::watch::Sender<Reign>,
    /// Sockets of servers that were handed over, by name and address as configured.
    inherited: parking_lot::Mutex<Vec<(String, SocketAddr, std::net::TcpListener)>>,
    /// Those that are to be handed over.
    servers: parking_lot::Mutex<Vec<(&'static str, SocketAddr, Arc<tokio::net::TcpListener>)>>,
    failed: Notify,
    started: Instant,
    runtime: tokio::runtime::Handle,
}

impl Handle {
    /// The snapshot in use.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// All metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Listeners as bound, by name.
    pub fn addresses(&self) -> Vec<(String, Address)> {
        self.inner.addresses.read().clone()
    }

    /// Nodes that were removed and may still hold work.
    pub fn leaving(&self) -> Vec<Arc<Node>> {
        self.inner.leaving.read().clone()
    }

    /// Reads the file again and puts it in use; returns when all data threads have followed.
    pub async fn reload(&self) -> Option<Outcome> {
        self.ask(Event::Reload).await
    }

    /// Goes back to the last configuration that passed its probation; returns when all data threads have
    /// followed. None when control has ended.
    pub async fn roll_back(&self, from: Who) -> Option<Result<RolledBack, RollbackError>> {
        self.ask(|reply| Event::RollBack(from, reply)).await
    }

    /// Everything an operator may want to know. None when control has ended.
    pub async fn status(&self) -> Option<Status> {
        self.ask(Event::Status).await
    }

    /// Does what an operator asks of a node; returns when all data threads have followed, and the state file
    /// is written. None when control has ended.
    pub async fn order(&self, order: Order) -> Option<Result<Ordered, OrderError>> {
        self.ask(|reply| Event::Order(Box::new(order), reply)).await
    }

    /// Switches maintenance on or off, which holds for every exchange that begins afterwards; returns when
    /// the state file is written. None when control has ended.
    pub async fn maintain(&self, change: Change) -> Option<Result<Changed, OrderError>> {
        self.ask(|reply| Event::Maintain(Box::new(change), reply)).await
    }

    /// Has all nodes serve again that were set aside for a pinned one; returns when these were probed, and the
    /// state file is written. None when control has ended.
    pub async fn unpin(&self, asked: Unpin) -> Option<Result<Unpinned, OrderError>> {
        self.ask(|reply| Event::Unpin(asked, reply)).await
    }

    /// Whether an outer balancer should send clients here; see [`Handle::not_ready`].
    pub fn is_ready(&self) -> bool {
        self.not_ready().is_none()
    }

    /// Why an outer balancer should send no clients here. Not ready are the first five seconds without
    /// an eligible node in each upstream, and the end.
    ///
    /// Later losses of all nodes do not count: Kubernetes takes every balancer that is not ready out of
    /// its service at once, and clients would get refused connections from nobody instead of a 503 with
    /// `Retry-After` from here.
    pub fn not_ready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining".into());
        }
        if self.inner.started.elapsed() >= START_GRACE {
            return None;
        }
        let snapshot = self.inner.snapshot.load();
        let serves =
            |member: &Member| member.role == Role::Serve && member.node.shown().is_eligible();
        let waiting = |upstream: &&Arc<Upstream>| !upstream.nodes.iter().any(serves);
        let upstream = snapshot.upstreams.iter().find(waiting)?;
        Some(format!("starting: no node of `{}` is eligible yet", upstream.settings.name))
    }

    /// From now on not ready, though still accepting; reloads are refused.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Whether the end has begun.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Stops accepting and waits until no connection is left. Tunnels are closed over `tunnels_within`.
    pub async fn finish(&self, tunnels_within: Duration) {
        self.drain();
        self.ask(|done| Event::Finish(tunnels_within, done)).await;
    }

    /// Ends data threads and control now.
    pub fn stop(&self) {
        self.drain();
        // An error says that control has ended already.
        let _ = self.inner.events.send(Event::Stop);
    }

    /// Opens log files anew.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.inner.snapshot.load().access_log {
            log.reopen();
        }
    }

    /// Returns when a data thread has died, which nothing but a new process repairs.
    pub async fn failed(&self) {
        self.inner.failed.notified().await;
    }

    /// Adds or takes back a standing warning that something that was asked for does not run.
    pub fn degraded(&self, subject: &'static str, message: Option<String>) {
        let _ = self.inner.events.send(Event::Degraded(subject, message));
    }

    /// Adds or takes back a standing warning that others can get at a secret.
    pub fn exposed(&self, subject: &'static str, message: Option<String>) {
        let _ = self.inner.events.send(Event::Exposed(subject, message));
    }

    /// Follows reloads: changes after each that ended well.
    pub fn reloads(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.reloads.subscribe()
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Runs a future on control's runtime.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.inner.runtime.spawn(future)
    }

    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.inner.events.send(event(tell)).ok()?;
        told.await.ok()
    }
}

#[cfg(test)]
pub(crate) mod tests;
