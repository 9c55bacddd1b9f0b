//! Everything up to the first snapshot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::core::{Core, Event, open_log};
use super::pin::Outages;
use super::probation::Probation;
use super::reload::Reloads;
use super::resolve::{self, Names};
use super::roster::Roster;
use super::saving::Saving;
use super::sockets::{Bound, bind_all, inherited, of_thread};
use super::status::ReloadResult;
use super::unasked::Want;
use super::upgrade::{Estate, Reign, Upgrading};
use super::warnings::Warnings;
use super::{ConfigSource, Handle, Inner, StartError};
use crate::config::Config;
use crate::listener::ThreadParts;
use crate::snapshot::{Parts, Snapshot, compile};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Registry, Signal};

/// Notes of data threads that may wait; more are dropped, because the next failure says the same.
const SIGNALS: usize = 1024;

impl Core {
    /// Everything up to the first snapshot.
    pub(super) async fn prepare(
        config: Config,
        source: ConfigSource,
        metrics: Arc<Metrics>,
        text: Option<String>,
        mut estate: Option<Estate>,
    ) -> Result<(Core, Handle, Vec<ThreadParts>), StartError> {
        let threads = config.server.threads;
        let config = Arc::new(config);
        let names = first_names(&config, estate.as_ref()).await;
        let access_log = open_log(&config, None, &metrics)?;
        let mut held = held(&mut estate)?;
        let bound = bind_all(&config.listeners, &held, threads)?;
        // Whose files are to go once this process is the one that serves.
        held.retain(|one| one.is_left_by(&bound));
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
        let inner = shared(&snapshot, &metrics, events, estate.as_mut());
        let mut core = Core {
            inner: inner.clone(),
            registry,
            names,
            roster: Roster::new(metrics),
            bound,
            warnings: Warnings::default(),
            reloads: Reloads::new(source, text),
            probation: Probation::new(snapshot.config.clone()),
            certificates: Some(Vec::new()),
            lists: Some(Vec::new()),
            acme: Default::default(),
            commands: Vec::new(),
            saving: Saving::default(),
            leaving: Vec::new(),
            swaps: 0,
            outages: Outages::default(),
            resolving: false,
            want: Want::default(),
            upgrade: Upgrading::leaving(held),
            spool_look: None,
            sweep_ns: 0,
            inbox,
            signals,
        };
        let parts = core.threads(threads, &snapshot, &signal_sender)?;
        core.announce();
        core.load_state(&snapshot.config, estate.as_ref())?;
        core.keep_state(&snapshot.config, estate.is_some());
        core.installed(&snapshot);
        if let Some(estate) = &estate {
            core.inherit(estate);
        }
        core.count_upgrades(estate.as_ref().map(|estate| estate.upgrades));
        // A rate of what has never been counted would be none, not zero.
        for result in [ReloadResult::Ok, ReloadResult::Invalid, ReloadResult::Unchanged] {
            core.inner.metrics.config_reloads.with_label_values(&[result.as_str()]);
        }
        core.show_probations();
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
                sockets: of_thread(&self.bound, index, count)?,
                commands,
                signals: signals.clone(),
                metrics: self.inner.metrics.clone(),
            });
        }
        Ok(parts)
    }
}

/// What names stand for at the start: what another process knew, then what the resolver says.
async fn first_names(config: &Config, estate: Option<&Estate>) -> Names {
    let mut names = Names::default();
    for (name, known) in estate.iter().flat_map(|estate| estate.names.clone()) {
        names.learn((name, Ok(known)));
    }
    for answer in resolve::look_up(resolve::names(config)).await {
        names.learn(answer);
    }
    names
}

/// What control shares with its handles at the start.
fn shared(
    snapshot: &Arc<Snapshot>,
    metrics: &Arc<Metrics>,
    events: mpsc::UnboundedSender<Event>,
    estate: Option<&mut Estate>,
) -> Arc<Inner> {
    let reign = if estate.is_some() { Reign::Coming } else { Reign::Here };
    Arc::new(Inner {
        snapshot: ArcSwap::new(snapshot.clone()),
        metrics: metrics.clone(),
        events,
        reloads: watch::Sender::new(0),
        addresses: Default::default(),
        leaving: Default::default(),
        draining: AtomicBool::new(false),
        reign: watch::Sender::new(reign),
        inherited: Mutex::new(estate.map(Estate::take_servers).unwrap_or_default()),
        servers: Mutex::default(),
        line: Mutex::default(),
        failed: Notify::new(),
        started: Instant::now(),
        runtime: tokio::runtime::Handle::current(),
    })
}

/// The listeners' sockets that another process has handed over.
fn held(estate: &mut Option<Estate>) -> io::Result<Vec<Bound>> {
    let handed_over = estate.as_mut().map(Estate::take_listeners).transpose()?;
    inherited(handed_over.unwrap_or_default())
}
