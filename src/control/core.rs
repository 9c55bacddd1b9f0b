//! What the control thread owns, and the loop that serves it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, interval_at};

use super::certificates::{Files, News};
use super::file::Seen;
use super::leaving::Leaving;
use super::lists;
use super::maintenance::{Change, Changed};
use super::operator::{Order, OrderError, Ordered};
use super::pin::{Outages, Unpin, Unpinned};
use super::probation::Probation;
use super::probe::{Finding, Unasked};
use super::reload::{Loaded, Reloads};
use super::resolve::{Answer, Names};
use super::rollback::{self, By, Rollback};
use super::roster::{Followed, Roster};
use super::saving::Saving;
use super::sockets::{Bound, Sockets};
use super::status::Status;
use super::unasked::Want;
use super::upgrade::Upgrading;
use super::warnings::{self, Kind, Warnings};
use super::{Inner, Outcome, StartError};
use crate::clock;
use crate::config::{Config, Preset, defaults};
use crate::exchange::tunnel::DRAIN_WINDOW;
use crate::health::Verdict;
use crate::listener::Command;
use crate::snapshot::{Parts, Snapshot, compile};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{NodeKey, Registry, Signal};

/// How often latencies are merged, timers looked at and due probes begun.
const TICK: Duration = Duration::from_millis(100);
/// How often the file is looked at; a change counts after two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How often names are resolved.
const RESOLVE: Duration = Duration::from_secs(10);

/// What the loop is told.
pub(super) enum Event {
    Reload(oneshot::Sender<Outcome>),
    Status(oneshot::Sender<Status>),
    Order(Box<Order>, oneshot::Sender<Result<Ordered, OrderError>>),
    Maintain(Box<Change>, oneshot::Sender<Result<Changed, OrderError>>),
    Unpin(Unpin, oneshot::Sender<Result<Unpinned, OrderError>>),
    Finish(Duration, oneshot::Sender<()>),
    Stop,
    Degraded(&'static str, Option<String>),
    Exposed(&'static str, Option<String>),
    Upgrade(super::upgrade::Told),
    /// With the life of the node that was asked.
    Probed(NodeKey, u64, Box<Result<Finding, Unasked>>),
    /// Of a node's watch, which goes on when the sender is dropped.
    Heard(NodeKey, Box<super::watch::Heard>, oneshot::Sender<()>),
    Seen(Box<super::file::Watch>, Seen),
    Certificates(Vec<Files>, Vec<News>),
    Lists(Vec<lists::File>, Vec<lists::News>),
    Acme(Box<super::acme::Told>),
    Loaded(Box<Loaded>),
    Followed(Outcome),
    /// All data threads use the snapshot of this swap, or a later one.
    Renewed(u64),
    RollBack(super::who::Who, rollback::Reply),
    RollingBack(Box<Rollback>),
    RolledBack,
    Resolved(Vec<Answer>),
}

/// What the control thread owns.
pub(super) struct Core {
    pub(super) inner: Arc<Inner>,
    pub(super) registry: Registry,
    pub(super) names: Names,
    pub(super) roster: Roster,
    pub(super) bound: Vec<Bound>,
    pub(super) warnings: Warnings,
    pub(super) reloads: Reloads,
    pub(super) probation: Probation,
    /// None while they are looked at.
    pub(super) certificates: Option<Vec<Files>>,
    /// The same.
    pub(super) lists: Option<Vec<lists::File>>,
    pub(super) acme: super::acme::Acme,
    pub(super) commands: Vec<mpsc::UnboundedSender<Command>>,
    pub(super) saving: Saving,
    pub(super) leaving: Vec<Leaving>,
    /// Snapshots that were put in use after the first.
    pub(super) swaps: u64,
    pub(super) outages: Outages,
    pub(super) resolving: bool,
    /// Of what it takes to ask nodes.
    pub(super) want: Want,
    pub(super) upgrade: Upgrading,
    pub(super) spool_look: Option<JoinHandle<()>>,
    /// When drained nodes that are gone are looked for next.
    pub(super) sweep_ns: u64,
    pub(super) inbox: mpsc::UnboundedReceiver<Event>,
    pub(super) signals: mpsc::Receiver<Signal>,
}

impl Core {
    /// Serves until it is stopped.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        let mut look = interval(LOOK);
        // Names have just been resolved.
        let mut resolve = interval_at(tokio::time::Instant::now() + RESOLVE, RESOLVE);
        for timer in [&mut tick, &mut look, &mut resolve] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                // The loop itself holds a sender of events: there is always a next one.
                Some(event) = self.inbox.recv() => match event {
                    Event::Stop => break,
                    event => self.handle(event),
                },
                Some(signal) = self.signals.recv() => self.signal(signal),
                _ = tick.tick() => self.tick(),
                _ = look.tick() => self.look(),
                _ = resolve.tick() => {
                    self.resolve();
                    self.look_at_spool();
                }
            }
        }
        self.command_all(|| Command::Stop);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Reload(reply) => self.reload(Some(reply)),
            // Whoever asked may have left.
            Event::Status(reply) => drop(reply.send(self.status())),
            Event::Order(_, reply) if let Some(why) = self.takes_no_orders() => {
                drop(reply.send(Err(why)));
            }
            Event::Maintain(_, reply) if let Some(why) = self.takes_no_orders() => {
                drop(reply.send(Err(why)));
            }
            Event::Unpin(_, reply) if let Some(why) = self.takes_no_orders() => {
                drop(reply.send(Err(why)));
            }
            Event::Order(order, reply) => self.order(&order, reply),
            Event::Maintain(change, reply) => self.maintain(&change, reply),
            Event::Finish(tunnels_within, done) => {
                self.drain_threads(done, |done| Command::Drain { tunnels_within, done });
            }
            Event::Unpin(asked, reply) => self.unpin(&asked, reply),
            Event::Stop => {}
            Event::Degraded(subject, message) => self.degraded(subject, message),
            Event::Exposed(subject, Some(message)) => self.warn(Kind::Exposed, subject, message),
            Event::Exposed(subject, None) => self.warnings.settle(Kind::Exposed, subject),
            Event::Upgrade(told) => self.upgrade_told(told),
            Event::Probed(key, life, found) => self.probed(&key, life, *found),
            Event::Heard(key, heard, _done) => self.heard(&key, *heard),
            Event::Seen(watch, seen) => self.seen(*watch, seen),
            Event::Certificates(files, news) => self.certificates_seen(files, news),
            Event::Lists(files, news) => self.lists_seen(files, news),
            Event::Acme(told) => self.acme_told(*told),
            Event::Loaded(loaded) => self.loaded(*loaded),
            Event::Followed(outcome) => self.reload_ended(outcome),
            Event::Renewed(swap) => self.retire(swap),
            Event::RollBack(from, reply) => self.roll_back(By::Operator(from), Some(reply)),
            Event::RollingBack(rollback) => self.rolling_back(*rollback),
            Event::RolledBack => self.rollback_ended(),
            Event::Resolved(answers) => self.resolved(answers),
        }
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::ProbeNow(node) => self.roster.kick(&node.key, &self.inner.events),
            Signal::Failing(node, kind) => {
                self.roster.failing(&node, kind);
                // A probe that is good ends an ejection early, a bad one confirms it.
                self.roster.kick(&node.key, &self.inner.events);
            }
            Signal::Probation(node, good) => self.roster.probation_ended(&node, good),
            Signal::UntrustedForwarding { listener, peer, field } => {
                if let Some(message) = warnings::untrusted_forwarding(&listener, peer, field) {
                    let subject = format!("{listener} {peer}");
                    self.warn(Kind::UntrustedForwarding, &subject, message);
                }
            }
        }
    }

    fn tick(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        self.roster.tick(&snapshot);
        self.roster.launch_due(&self.inner.events);
        self.watch_pins();
        self.forget_nodes();
        self.look_at_probation();
        if !self.is_ending() && self.commands.iter().any(mpsc::UnboundedSender::is_closed) {
            tracing::error!("a data thread has died");
            self.inner.failed.notify_one();
        }
    }

    /// Whether no configuration is put in use any more.
    pub(super) fn is_ending(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    fn look(&mut self) {
        self.warnings.sweep(SystemTime::now(), &self.inner.metrics);
        if !self.upgrade.under_way {
            self.look_at_file();
        }
        if clock::now_ns() >= self.sweep_ns {
            self.sweep_ns = clock::now_ns() + clock::nanos(RESOLVE);
            self.sweep_drains();
        }
        self.look_at_certificates();
        self.look_at_lists();
        self.look_at_acme();
        self.look_at_predecessors();
        self.look_at_want();
        self.look_at_socket_files();
    }

    /// Compiles and stores a snapshot. `generation` is kept where no configuration was loaded.
    pub(super) fn swap(
        &mut self,
        config: Arc<Config>,
        access_log: Option<AccessLog>,
        generation: Option<u64>,
    ) {
        let previous = self.inner.snapshot.load_full();
        let parts = Parts {
            resolved: self.names.resolved(),
            registry: &mut self.registry,
            previous: Some(&previous),
            access_log,
        };
        let mut snapshot = compile(config, parts);
        if let Some(generation) = generation {
            snapshot.generation = generation;
            snapshot.loaded_at = previous.loaded_at;
        }
        let snapshot = Arc::new(snapshot);
        self.inner.snapshot.store(snapshot.clone());
        self.swaps += 1;
        let (old, new) = (&previous.config.server.state_file, &snapshot.config.server.state_file);
        self.keep_state(&snapshot.config, old != new);
        self.installed(&snapshot);
    }

    /// Everything that follows a snapshot on this thread.
    pub(super) fn installed(&mut self, snapshot: &Snapshot) {
        let Followed { gone, disabled } = self.roster.follow(snapshot);
        for node in disabled {
            // Nobody waits for it: the reload is in use all the same.
            drop(self.drain_node(&node, DRAIN_WINDOW));
        }
        self.leave(gone);
        let generation = i64::try_from(snapshot.generation).unwrap_or(i64::MAX);
        self.inner.metrics.config_generation.set(generation);
        let loaded = super::status::unix(snapshot.loaded_at);
        self.inner.metrics.config_last_success.set(loaded as f64);
        self.warn_of_many_nodes(snapshot);
        self.look_at_spool();
        self.roster.launch_due(&self.inner.events);
    }

    /// Tells the data threads, each with its new sockets. Returns what they answer when they have followed.
    pub(super) fn renew(&self, mut sockets: Vec<Sockets>) -> Vec<oneshot::Receiver<()>> {
        let snapshot = self.inner.snapshot.load_full();
        sockets.resize_with(self.commands.len(), Vec::new);
        let tell = |(commands, sockets): (&mpsc::UnboundedSender<Command>, Sockets)| {
            let (done, followed) = oneshot::channel();
            // A thread that has died is noticed by `tick`.
            let _ = commands.send(Command::Renew { snapshot: snapshot.clone(), sockets, done });
            followed
        };
        self.commands.iter().zip(sockets).map(tell).collect()
    }

    /// Publishes the addresses as bound.
    pub(super) fn announce(&self) {
        let known = self.inner.addresses.read().clone();
        let addresses: Vec<_> =
            self.bound.iter().map(|bound| (bound.name.clone(), bound.address.clone())).collect();
        for (listener, address) in addresses.iter().filter(|one| !known.contains(one)) {
            tracing::info!(%address, listener, "listening");
        }
        *self.inner.addresses.write() = addresses;
    }

    /// Tells all data threads to accept no more; `done` is told when all are empty.
    pub(super) fn drain_threads(
        &mut self,
        done: oneshot::Sender<()>,
        command: impl Fn(oneshot::Sender<()>) -> Command,
    ) {
        // Only then do the data threads' own sockets close for good.
        self.bound.clear();
        let mut waiting = Vec::new();
        self.command_all(|| {
            let (done, drained) = oneshot::channel();
            waiting.push(drained);
            command(done)
        });
        tokio::spawn(async move {
            for drained in waiting {
                // A thread that has died has nothing left either.
                let _ = drained.await;
            }
            let _ = done.send(());
        });
    }

    fn command_all(&self, mut command: impl FnMut() -> Command) {
        for commands in &self.commands {
            // A thread that has died needs no command.
            let _ = commands.send(command());
        }
    }

    fn probed(&mut self, key: &NodeKey, life: u64, found: Result<Finding, Unasked>) {
        if self.roster.asks_again(key, life, &self.inner.events) {
            return;
        }
        let finding = match found {
            Ok(finding) => finding,
            Err(unasked) => return self.unasked(key, unasked),
        };
        let snapshot = self.inner.snapshot.load_full();
        let upstream = snapshot.upstreams.iter().find(|u| u.settings.name == key.upstream);
        let Some(upstream) = upstream else { return };
        let most = upstream.settings.outlier_detection.max_ejected;
        let median = upstream.shared.median_latency_ns.load(Ordering::Relaxed);
        self.roster.take_lag(key, &finding, median);
        self.roster.watch(key, &finding.verdict, &self.inner.events);
        match self.roster.apply(key, finding, most) {
            Some(Verdict::WrongBody { html: true }) => {
                let path = upstream.settings.health_check.as_ref().map_or("", |check| &check.path);
                let message = format!(
                    "the health path `{path}` answers a page: if NocoBase runs with \
                     APP_PUBLIC_PATH, set `public_path` of upstream `{}` to the same value",
                    key.upstream
                );
                self.warn(Kind::HealthPathHtml, &key.upstream, message);
            }
            Some(Verdict::Good) => self.warnings.settle(Kind::HealthPathHtml, &key.upstream),
            _ => {}
        }
        self.warn_of_lag(key);
    }

    fn warn_of_many_nodes(&mut self, snapshot: &Snapshot) {
        self.warnings.settle_all(Kind::TooManyNodes);
        for upstream in &snapshot.upstreams {
            let (name, count) = (&upstream.settings.name, upstream.nodes.len());
            if upstream.settings.preset == Preset::NocoBase && count > defaults::MAX_NOCOBASE_NODES
            {
                let message = format!(
                    "upstream `{name}` has {count} nodes, and NocoBase has numbers for 32: the \
                     others cannot make unique record ids. Take {} out",
                    count - defaults::MAX_NOCOBASE_NODES
                );
                self.warn(Kind::TooManyNodes, name, message);
            }
        }
    }

    pub(super) fn degraded(&mut self, subject: &str, message: Option<String>) {
        match message {
            Some(message) => self.warn(Kind::Degraded, subject, message),
            None => self.warnings.settle(Kind::Degraded, subject),
        }
    }

    pub(super) fn warn(&mut self, kind: Kind, subject: &str, message: String) {
        if self.warnings.raise(kind, subject, message.clone(), SystemTime::now()) {
            tracing::warn!(target: "cobalance::misconfiguration", "{message}");
        }
    }
}

/// The log of a configuration: the old one where nothing about it has changed.
pub(super) fn open_log(
    config: &Config,
    old: Option<&AccessLog>,
    metrics: &Arc<Metrics>,
) -> Result<Option<AccessLog>, StartError> {
    let settings = &config.access_log;
    if !settings.enabled {
        return Ok(None);
    }
    if let Some(old) = old.filter(|old| old.settings() == settings) {
        return Ok(Some(old.clone()));
    }
    let failed = |source| StartError::AccessLog { path: settings.path.clone(), source };
    AccessLog::open(settings, metrics).map(Some).map_err(failed)
}
