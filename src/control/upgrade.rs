//! An upgrade: a new process, perhaps of a newer program, takes the listening sockets and all that is known
//! of nodes; when it serves, this one accepts no more, finishes what it has, and ends.
//!
//! Both hold the same sockets, so nothing that arrived is lost, whoever accepts it. The old process is not
//! changed by anybody while the new one starts, so that what was handed over holds; if the new one does
//! not come to serve, the old one goes on as if nothing had been.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{oneshot, watch};

use super::core::{Core, Event};
use super::operator::OrderError;
use super::sockets::{Bound, set_modes};
use super::{Handle, Inner};
use crate::exchange::tunnel::DRAIN_WINDOW;
use crate::listener::{Command, Passed};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notify;

mod channel;
mod heir;
mod message;
mod nodes;
mod predecessor;
mod successor;
mod tunnels;

pub use heir::{Estate, Heir};
pub use tunnels::Line;

use predecessor::Predecessor;

use message::{KeptSocket, Of, Offer};

/// In the environment of a process that is to take over.
const VARIABLE: &str = "COBALANCE_UPGRADE";
/// After the last work: an admin client that takes nothing must not hold up the end.
const REPLIES_WITHIN: Duration = Duration::from_secs(5);

/// Programs for process 1 of a container that end when the child ends which they were told to start.
const ENDS_WITH_CHILD: [&str; 4] = ["docker-init", "tini", "dumb-init", "catatonit"];

/// Which of two processes is the one that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reign {
    /// It has not been told that it is the one; the admin listener and the state file are another's.
    Coming,
    /// This one.
    Here,
    /// Another has taken over.
    Over,
}

/// An upgrade that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The process that has taken over.
    pub pid: u32,
    /// Requests that this one finishes.
    pub requests: u32,
    /// Tunnels that it passes on, or moves there.
    pub tunnels: u32,
}

/// Why there was none; this process goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The end of process 1 is the end of its container.
    #[error(
        "the end of this process would end its container, and the new process with it: it is process 1, or \
         the one child of an init that ends with it (as `docker run --init`). Start a new container instead; \
         only a supervisor that outlives its first child will do, as systemd does"
    )]
    First,
    /// One at a time.
    #[error("an upgrade or a reload is under way already; ask again in a moment")]
    UnderWay,
    /// There is nothing to hand over any more.
    #[error("this process is ending, or another has taken over already")]
    Ending,
    /// The new process would take a file that has been found bad.
    #[error("{0}")]
    Unproven(String),
    /// The new process did not come to serve.
    #[error("{0}")]
    Failed(String),
}

/// What the loop is told.
pub(super) enum Told {
    Begin(oneshot::Sender<Result<Package, UpgradeError>>),
    Ended(bool, oneshot::Sender<()>),
    /// This process is the one that serves.
    Here,
    Leave(Duration, oneshot::Sender<()>),
    /// A tunnel of the old process.
    Adopt(Box<Passed>),
}

/// All that goes to the new process.
pub(super) struct Package {
    offer: Offer,
    sockets: Vec<OwnedFd>,
    within: Duration,
}

/// How far it is.
#[derive(Default)]
pub(super) struct Upgrading {
    pub(super) under_way: bool,
    /// A reload was refused meanwhile.
    pub(super) reload_after: bool,
    /// The state file has to be written as soon as it is ours.
    pub(super) owes_save: bool,
    /// Unix sockets that were handed over and that the configuration does not have.
    left: Vec<Bound>,
    /// Those that were upgraded and have not ended.
    predecessors: Vec<Predecessor>,
    /// Tunnels adopted so far: the data threads get them in turn.
    adopted: usize,
}

impl Upgrading {
    /// With Unix sockets that were handed over in vain.
    pub(super) fn leaving(left: Vec<Bound>) -> Upgrading {
        Upgrading { left, ..Upgrading::default() }
    }
}

impl Handle {
    /// Hands over to a new process, started from the program that is on disk now. Returns when that serves,
    /// or cannot. It goes on to its end whoever stops waiting.
    ///
    /// # Errors
    /// Why this process goes on instead.
    pub async fn upgrade(&self) -> Result<Upgraded, UpgradeError> {
        let handle = self.clone();
        let upgraded = self.spawn(async move { handle.upgrade_now().await });
        upgraded.await.unwrap_or(Err(UpgradeError::Ending))
    }

    async fn upgrade_now(&self) -> Result<Upgraded, UpgradeError> {
        let first = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
        may_end(std::process::id(), std::os::unix::process::parent_id(), first.trim_end())?;
        let began = self.ask(|reply| Event::Upgrade(Told::Begin(reply))).await;
        let package = began.unwrap_or(Err(UpgradeError::Ending))?;
        tracing::info!("upgrade: a new process is started");
        let (handle, (tell, told)) = (self.clone(), oneshot::channel());
        // A thread of its own: it blocks for long, and the runtime's are for files.
        let hand_over = move || drop(tell.send(handle.hand_over(&package)));
        let begun = std::thread::Builder::new().name("upgrade".into()).spawn(hand_over);
        let outcome = match begun {
            Err(error) => Err(error.to_string()),
            Ok(_) => told.await.unwrap_or_else(|_| Err("it panicked; see stderr".into())),
        };
        let outcome = outcome.map(|(pid, line)| {
            *self.inner.line.lock() = Some(line);
            pid
        });
        self.ask(|done| Event::Upgrade(Told::Ended(outcome.is_ok(), done))).await;
        match outcome {
            Ok(pid) => Ok(self.upgraded(pid)),
            Err(error) => {
                tracing::error!("the upgrade failed; this process goes on: {error}");
                Err(UpgradeError::Failed(error))
            }
        }
    }

    /// From the start of the new process to the word that it is the one. Blocks.
    fn hand_over(&self, package: &Package) -> Result<(u32, Line), String> {
        let program = successor::program().map_err(|error| error.to_string())?;
        let successor =
            successor::start(&program, &package.offer, &package.sockets, package.within)?;
        let pid = successor.pid();
        if self.is_draining() {
            successor.dismiss();
            return Err("this process was told to end meanwhile".into());
        }
        // Before its own word, which the service manager takes from the main process alone unless it is
        // told otherwise.
        notify::main_pid(pid);
        let line = successor.go().inspect_err(|_| notify::main_pid(std::process::id()))?;
        Ok((pid, line))
    }

    fn upgraded(&self, pid: u32) -> Upgraded {
        let (requests, tunnels) = self.snapshot().open_work();
        tracing::info!(
            "process {pid} has taken over; this one finishes {requests} requests and passes \
             {tunnels} tunnels on"
        );
        Upgraded { pid, requests, tunnels }
    }

    /// Which process serves.
    pub(crate) fn reign(&self) -> watch::Receiver<Reign> {
        self.inner.reign.subscribe()
    }

    /// This process is the one that serves: it opens its admin listener, the state file is its own, and the
    /// tunnels that come over the `line` from the old process are.
    pub fn take_over(&self, line: Option<Line>) {
        let _ = self.inner.events.send(Event::Upgrade(Told::Here));
        self.inner.reign.send_replace(Reign::Here);
        // Who wanted one has it: what is left would be a port that is open, and that nobody serves.
        self.inner.inherited.lock().clear();
        let Some(line) = line else { return };
        let handle = self.clone();
        let receive = move || {
            let adopt = |passed| handle.inner.events.send(Event::Upgrade(Told::Adopt(passed)));
            line.receive(|passed| adopt(Box::new(passed)).is_ok());
        };
        if let Err(error) = std::thread::Builder::new().name("tunnels".into()).spawn(receive) {
            tracing::error!(%error, "no tunnel of the old process can be taken");
        }
    }

    /// Returns when another process has taken over.
    pub async fn handed_over(&self) {
        let mut reign = self.reign();
        // Its sender lives as long as this handle.
        let _ = reign.wait_for(|reign| *reign == Reign::Over).await;
    }

    /// Finishes what is left after an upgrade: returns when no connection is. Tunnels are moved over `window`
    /// (60 s at most), but no faster than nodes can take.
    pub async fn leave(&self, window: Duration) {
        let window = window.min(DRAIN_WINDOW);
        self.ask(|done| Event::Upgrade(Told::Leave(window, done))).await;
        // The last answer of the admin server may be about this very upgrade.
        let _ = tokio::time::timeout(REPLIES_WITHIN, self.inner.reign.closed()).await;
    }

    /// A listening socket that was handed over for a server of this name, and what was configured, if that and
    /// where it is bound are what is wanted.
    pub(crate) fn inherited(
        &self,
        server: &str,
        wanted: impl Fn(SocketAddr, SocketAddr) -> bool,
    ) -> Option<(SocketAddr, TcpListener)> {
        let mut inherited = self.inner.inherited.lock();
        let same = |(name, asked, socket): &(String, SocketAddr, TcpListener)| {
            name == server && socket.local_addr().is_ok_and(|bound| wanted(*asked, bound))
        };
        let found = inherited.iter().position(same)?;
        let (_, asked, socket) = inherited.swap_remove(found);
        Some((asked, socket))
    }

    /// What an upgrade hands over for a server: none once it is closed.
    pub(crate) fn keep_server(
        &self,
        server: &'static str,
        socket: Option<(SocketAddr, Arc<tokio::net::TcpListener>)>,
    ) {
        let mut servers = self.inner.servers.lock();
        servers.retain(|(name, ..)| *name != server);
        servers.extend(socket.map(|(asked, listener)| (server, asked, listener)));
    }
}

impl Inner {
    /// Whether the state file is this process's to write.
    pub(super) fn is_here(&self) -> bool {
        *self.reign.borrow() == Reign::Here
    }
}

/// Whether the end of this process is not the end of everything. `first` is the name of process 1. A parent
/// that cannot be seen (0) is a container's runtime, whoever is process 1 in what containers share.
fn may_end(pid: u32, parent: u32, first: &str) -> Result<(), UpgradeError> {
    let ends_with_it = parent == 0 || parent == 1 && ENDS_WITH_CHILD.contains(&first);
    if pid == 1 || ends_with_it { Err(UpgradeError::First) } else { Ok(()) }
}

/// Upgrades so far: those that went well, and those that did not.
fn counted(metrics: &Metrics) -> [IntCounter; 2] {
    ["ok", "failed"].map(|result| metrics.upgrades.with_label_values(&[result]))
}

impl Core {
    /// Goes on counting where the old process was; this upgrade is one more that went well. A rate of what
    /// has never been counted would be none, not zero.
    pub(super) fn count_upgrades(&self, before: Option<[u64; 2]>) {
        let [went_well, failed] = counted(&self.inner.metrics);
        if let Some([well, badly]) = before {
            went_well.inc_by(well + 1);
            failed.inc_by(badly);
        }
    }

    pub(super) fn upgrade_told(&mut self, told: Told) {
        match told {
            Told::Begin(reply) => {
                let package = self.begin_upgrade();
                self.upgrade.under_way |= package.is_ok();
                if let Err(Ok(_)) = reply.send(package) {
                    self.upgrade.under_way = false;
                }
            }
            Told::Ended(well, done) => {
                self.upgrade_ended(well);
                let _ = done.send(());
            }
            Told::Here => {
                self.bound.iter().for_each(|bound| bound.own_file(true));
                set_modes(&self.inner.snapshot.load().config.listeners, &self.bound);
                // Their files go with them.
                for left in std::mem::take(&mut self.upgrade.left) {
                    left.own_file(true);
                }
                if std::mem::take(&mut self.upgrade.owes_save) {
                    drop(self.save());
                }
            }
            Told::Leave(tunnels_within, done) => self.leave_to_other(tunnels_within, done),
            Told::Adopt(passed) => {
                let turn = self.upgrade.adopted % self.commands.len();
                self.upgrade.adopted += 1;
                // A thread that has died is noticed by `tick`.
                let _ = self.commands[turn].send(Command::Adopt(passed));
            }
        }
    }

    /// `done` is told when all threads are empty and every tunnel is where it belongs.
    fn leave_to_other(&mut self, tunnels_within: Duration, done: oneshot::Sender<()>) {
        let (tunnels, passed) = std::sync::mpsc::channel();
        let line = self.inner.line.lock().take();
        let pass = move || {
            match line {
                Some(line) => line.pass(passed),
                None => passed.into_iter().for_each(Passed::part),
            }
            let _ = done.send(());
        };
        if let Err(error) = std::thread::Builder::new().name("tunnels".into()).spawn(pass) {
            tracing::error!(%error, "tunnels cannot be passed on");
        }
        let (emptied, _) = oneshot::channel();
        self.drain_threads(emptied, |done| {
            let tunnels = tunnels.clone();
            Command::HandOver { tunnels, tunnels_within, done }
        });
    }

    fn begin_upgrade(&mut self) -> Result<Package, UpgradeError> {
        if self.is_ending() || !self.inner.is_here() {
            return Err(UpgradeError::Ending);
        }
        if self.upgrade.under_way || self.reloads.busy {
            return Err(UpgradeError::UnderWay);
        }
        if let Some(why) = self.probation.against_upgrade() {
            return Err(UpgradeError::Unproven(why));
        }
        self.probation.warn_of_upgrade();
        let mut offer = Offer::new(self.roster.drains.render());
        offer.names = self.names.known();
        offer.nodes = self.roster.keep_nodes();
        offer.predecessors = self.predecessors();
        offer.upgrades = counted(&self.inner.metrics).map(|counter| counter.get());
        let failed = |error: std::io::Error| UpgradeError::Failed(error.to_string());
        let sockets = self.collect(&mut offer.sockets).map_err(failed)?;
        let within = self.inner.snapshot.load().config.server.upgrade_timeout;
        Ok(Package { offer, sockets, within })
    }

    /// Copies of all listening sockets, in the order in which they are named.
    fn collect(&self, named: &mut Vec<KeptSocket>) -> std::io::Result<Vec<OwnedFd>> {
        let mut sockets = Vec::new();
        for bound in &self.bound {
            for socket in &bound.sockets {
                let of = Of::Listener(bound.name.clone());
                named.push(KeptSocket {
                    of,
                    asked: bound.asked.clone(),
                    file: bound.file_of_socket(),
                });
                sockets.push(socket.as_fd().try_clone_to_owned()?);
            }
        }
        for (server, asked, listener) in &*self.inner.servers.lock() {
            let of = Of::Server((*server).into());
            named.push(KeptSocket { of, asked: (*asked).into(), file: None });
            sockets.push(listener.as_fd().try_clone_to_owned()?);
        }
        Ok(sockets)
    }

    /// Why operators' orders are refused. What was handed over must hold when another process takes over; once it
    /// has, what is said here nobody would learn of.
    pub(super) fn takes_no_orders(&self) -> Option<OrderError> {
        match self.inner.is_here() {
            _ if self.upgrade.under_way => Some(OrderError::Upgrading),
            false => Some(OrderError::NotHere),
            true => None,
        }
    }

    /// The processes before this one that still finish their work.
    pub(super) fn predecessors(&self) -> Vec<u32> {
        self.upgrade.predecessors.iter().filter(|old| old.works()).map(Predecessor::pid).collect()
    }

    /// Lets go of those that have ended.
    pub(super) fn look_at_predecessors(&mut self) {
        self.upgrade.predecessors.retain(|old| {
            let works = old.works();
            if !works {
                tracing::info!("process {}, which was upgraded, has ended", old.pid());
            }
            works
        });
    }

    fn upgrade_ended(&mut self, well: bool) {
        self.upgrade.under_way = false;
        let [went_well, failed] = counted(&self.inner.metrics);
        if well {
            went_well.inc()
        } else {
            failed.inc()
        }
        if well {
            self.bound.iter().for_each(|bound| bound.own_file(false));
            self.inner.draining.store(true, std::sync::atomic::Ordering::Release);
            self.inner.reign.send_replace(Reign::Over);
        } else {
            self.reloads.again |= std::mem::take(&mut self.upgrade.reload_after);
            self.next_reload();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_end_would_end_a_container_stays() {
        let error = may_end(1, 0, "cobalance").unwrap_err().to_string();
        assert!(error.contains("it is process 1"), "{error}");
        assert_eq!(may_end(7, 1, "tini"), Err(UpgradeError::First));
        assert_eq!(may_end(7, 0, "pause"), Err(UpgradeError::First));
        assert_eq!(may_end(7, 1, "systemd"), Ok(()));
        assert_eq!(may_end(8, 7, "tini"), Ok(()), "a supervisor lies between");
    }
}
