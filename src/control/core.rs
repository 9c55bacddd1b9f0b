//! What the control thread owns, and the loop that serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at};

use super::certificates::{Files, News};
use super::file::Seen;
use super::maintenance::{Change, Changed};
use super::operator::{Order, OrderError, Ordered, Saving};
use super::probe::Finding;
use super::reload::{Loaded, Reloads};
use super::resolve::{self, Answer, Names};
use super::roster::{Followed, Roster};
use super::sockets::{Bound, Sockets, bind_all, of_thread};
use super::status::{ReloadResult, Status};
use super::warnings::{self, Kind, Warnings};
use super::{ConfigSource, Handle, Inner, Outcome, StartError};
use crate::config::{Config, Preset, defaults};
use crate::exchange::tunnel::DRAIN_WINDOW;
use crate::health::Verdict;
use crate::listener::{Command, ThreadParts};
use crate::snapshot::{Parts, Snapshot, compile};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Node, NodeKey, Registry, Signal};

/// Notes of data threads that may wait; more are dropped, because the next failure says the same.
const SIGNALS: usize = 1024;
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
    Finish(Duration, oneshot::Sender<()>),
    Stop,
    Degraded(&'static str, Option<String>),
    Probed(NodeKey, Box<Finding>),
    /// Of a node's watch, which goes on when the sender is dropped.
    Heard(NodeKey, Box<super::watch::Heard>, oneshot::Sender<()>),
    Seen(Box<super::file::Watch>, Seen),
    Certificates(Vec<Files>, Vec<News>),
    Loaded(Box<Loaded>),
    Followed(Outcome),
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
    /// None while they are looked at.
    pub(super) certificates: Option<Vec<Files>>,
    pub(super) commands: Vec<mpsc::UnboundedSender<Command>>,
    pub(super) saving: Saving,
    pub(super) leaving: Vec<(Arc<Node>, Instant)>,
    pub(super) resolving: bool,
    inbox: mpsc::UnboundedReceiver<Event>,
    signals: mpsc::Receiver<Signal>,
}

impl Core {
    /// Everything up to the first snapshot.
    pub(super) async fn prepare(
        config: Config,
        source: ConfigSource,
        metrics: Arc<Metrics>,
    ) -> Result<(Core, Handle, Vec<ThreadParts>), StartError> {
        let threads = config.server.threads;
        let config = Arc::new(config);
        let mut names = Names::default();
        for answer in resolve::look_up(resolve::names(&config)).await {
            names.learn(answer);
        }
        let access_log = open_log(&config, None, &metrics)?;
        let bound = bind_all(&config.listeners, &[], threads)?;
        let mut registry = Registry::new(threads, metrics.clone());
        let parts = Parts {
            resolved: names.resolved(),
            registry: &mut registry,
            previous: None,
            access_log,
        };
        let snapshot = Arc::new(compile(config, parts));
        let (events, inbox) = mpsc::unbounded_channel();
        let (signal_sender, signals) = mpsc::channel(SIGNALS);
        let inner = Arc::new(Inner {
            snapshot: ArcSwap::new(snapshot.clone()),
            metrics: metrics.clone(),
            events,
            reloads: watch::Sender::new(0),
            addresses: Default::default(),
            leaving: Default::default(),
            draining: AtomicBool::new(false),
            failed: Notify::new(),
            started: Instant::now(),
            runtime: tokio::runtime::Handle::current(),
        });
        let mut core = Core {
            inner: inner.clone(),
            registry,
            names,
            roster: Roster::new(metrics),
            bound,
            warnings: Warnings::default(),
            reloads: Reloads::new(source),
            certificates: Some(Vec::new()),
            commands: Vec::new(),
            saving: Saving::default(),
            leaving: Vec::new(),
            resolving: false,
            inbox,
            signals,
        };
        let parts = core.threads(threads, &snapshot, &signal_sender)?;
        core.announce();
        core.load_state(&snapshot.config);
        core.keep_state(&snapshot.config, false);
        core.installed(&snapshot);
        // A rate of what has never been counted would be none, not zero.
        for result in [ReloadResult::Ok, ReloadResult::Invalid, ReloadResult::Unchanged] {
            core.inner.metrics.config_reloads.with_label_values(&[result.as_str()]);
        }
        Ok((core, Handle { inner }, parts))
    }

    fn threads(
        &mut self,
        count: usize,
        snapshot: &Arc<Snapshot>,
        signals: &mpsc::Sender<Signal>,
    ) -> Result<Vec<ThreadParts>, StartError> {
        let mut parts = Vec::with_capacity(count);
        for index in 0..count {
            let (sender, commands) = mpsc::unbounded_channel();
            self.commands.push(sender);
            parts.push(ThreadParts {
                index,
                snapshot: snapshot.clone(),
                sockets: of_thread(&self.bound, index)?,
                commands,
                signals: signals.clone(),
                metrics: self.inner.metrics.clone(),
            });
        }
        Ok(parts)
    }

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
                _ = resolve.tick() => self.resolve(),
            }
        }
        self.command_all(|| Command::Stop);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Reload(reply) => self.reload(Some(reply)),
            // Whoever asked may have left.
            Event::Status(reply) => drop(reply.send(self.status())),
            Event::Order(order, reply) => self.order(&order, reply),
            Event::Maintain(change, reply) => self.maintain(&change, reply),
            Event::Finish(within, done) => self.finish(within, done),
            Event::Stop => {}
            Event::Degraded(subject, message) => self.degraded(subject, message),
            Event::Probed(key, finding) => self.probed(&key, *finding),
            Event::Heard(key, heard, _done) => self.heard(&key, *heard),
            Event::Seen(watch, seen) => self.seen(*watch, seen),
            Event::Certificates(files, news) => self.certificates_seen(files, news),
            Event::Loaded(loaded) => self.loaded(*loaded),
            Event::Followed(outcome) => self.reload_ended(outcome),
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
        self.forget_nodes();
        if !self.inner.draining.load(Ordering::Acquire)
            && self.commands.iter().any(mpsc::UnboundedSender::is_closed)
        {
            tracing::error!("a data thread has died");
            self.inner.failed.notify_one();
        }
    }

    fn look(&mut self) {
        self.warnings.sweep(SystemTime::now(), &self.inner.metrics);
        self.look_at_file();
        self.look_at_certificates();
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
        let (old, new) = (&previous.config.server.state_file, &snapshot.config.server.state_file);
        self.keep_state(&snapshot.config, old != new);
        self.installed(&snapshot);
    }

    /// Everything that follows a snapshot on this thread.
    fn installed(&mut self, snapshot: &Snapshot) {
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
            self.bound.iter().map(|bound| (bound.name.clone(), bound.address)).collect();
        for (listener, address) in addresses.iter().filter(|one| !known.contains(one)) {
            tracing::info!(%address, listener, "listening");
        }
        *self.inner.addresses.write() = addresses;
    }

    fn finish(&mut self, tunnels_within: Duration, done: oneshot::Sender<()>) {
        // Only then do the data threads' own sockets close for good.
        self.bound.clear();
        let mut waiting = Vec::new();
        self.command_all(|| {
            let (done, drained) = oneshot::channel();
            waiting.push(drained);
            Command::Drain { tunnels_within, done }
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

    fn probed(&mut self, key: &NodeKey, finding: Finding) {
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
