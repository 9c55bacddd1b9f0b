//! What nodes tell of themselves: one WebSocket to each, over which NocoBase says at once that it stops, runs
//! a command, or runs again.
//!
//! A word over it may take a node out; nothing but probes takes it in. Without a connection nothing changes:
//! then probes alone decide.

use prometheus::IntGauge;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::core::{Core, Event};
use super::roster::{Roster, Watched, now};
use crate::config::HealthCheck;
use crate::health::{OperatorState, Verdict};
use crate::net::Address;
use crate::nocobase::{self, Frame, Refusal, RefusalKind};
use crate::snapshot::Upstream;
use crate::telemetry::metrics::Metrics;
use crate::tls::Towards;
use crate::upstream::NodeKey;

mod socket;

use socket::keep;

/// The word in metrics for a message that is too long to be read.
const TOO_LARGE: &str = "too_large";

/// Where a node tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    address: Address,
    /// Of the handshake, as of a probe.
    host: String,
    path: String,
    tls: Option<Towards>,
}

impl Goal {
    fn new(address: Address, check: &HealthCheck, api_path: &str, tls: Option<Towards>) -> Goal {
        let host = check.host.clone().unwrap_or_else(|| address.host());
        Goal { address, host, path: nocobase::ws_path(api_path), tls }
    }
}

/// What comes of a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// It stands.
    Connected,
    /// It stood, and does no more.
    Lost,
    /// The node has said something.
    Frame(Frame),
    /// It has said more than is read; the connection is given up.
    TooLarge,
}

/// How one node is watched.
#[derive(Default)]
pub(super) struct Watching {
    /// None where the configuration wants none.
    goal: Option<Goal>,
    watcher: Option<Watcher>,
    connected: bool,
}

impl Watching {
    /// The word for it in `status`.
    pub(super) fn as_str(&self) -> &'static str {
        match (&self.goal, self.connected) {
            (None, _) => "off",
            (_, true) => "connected",
            (_, false) => "not_connected",
        }
    }

    /// Takes what the configuration wants. True if the watch has ended by it.
    fn follow(&mut self, goal: Option<Goal>) -> bool {
        if goal == self.goal {
            return false;
        }
        self.goal = goal;
        match (&self.goal, &self.watcher) {
            (Some(goal), Some(watcher)) => watcher.follow(goal),
            (None, Some(_)) => {
                (self.watcher, self.connected) = (None, false);
                return true;
            }
            (_, None) => {}
        }
        false
    }

    fn connected(&mut self, connected: bool) {
        self.connected = connected;
        if let Some(watcher) = &self.watcher {
            watcher.gauge.set(i64::from(connected));
        }
    }

    /// Keeps a connection from now on, or none.
    fn want(&self, wanted: bool) {
        if let Some(watcher) = &self.watcher {
            watcher.want(self.goal.clone().filter(|_| wanted));
        }
    }
}

/// The task that keeps a connection while there is a goal. Dropping it ends both.
struct Watcher {
    goal: watch::Sender<Option<Goal>>,
    task: AbortHandle,
    gauge: IntGauge,
}

impl Watcher {
    fn start(
        key: &NodeKey,
        label: &str,
        metrics: &Metrics,
        events: &UnboundedSender<Event>,
    ) -> Self {
        let (goal, goals) = watch::channel(None);
        let (key, events) = (key.clone(), events.clone());
        let gauge = metrics.watch_connected.with_label_values(&[key.upstream.as_str(), label]);
        let tell = move |heard| {
            let (done, told) = oneshot::channel();
            // Control may have ended in the meantime.
            let _ = events.send(Event::Heard(key.clone(), Box::new(heard), done));
            told
        };
        Watcher { goal, task: tokio::spawn(keep(goals, tell)).abort_handle(), gauge }
    }

    /// Goes elsewhere, if it is wanted at all.
    fn follow(&self, goal: &Goal) {
        self.goal.send_if_modified(|current| {
            let wanted = current.is_some();
            if wanted {
                *current = Some(goal.clone());
            }
            wanted
        });
    }

    fn want(&self, goal: Option<Goal>) {
        self.goal.send_if_modified(|current| {
            let changed = *current != goal;
            *current = goal;
            changed
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
        self.gauge.set(0);
    }
}

impl Watched {
    /// Takes what the configuration and the operator want.
    pub(super) fn follow_watch(&mut self, upstream: &Upstream) {
        let check = upstream.settings.health_check.as_ref().filter(|check| check.watch);
        // What a node says that is out by the configuration is of no use.
        let in_use = self.node.operator() != OperatorState::Disabled;
        let goal = check.zip(self.node.address().cloned()).filter(|_| in_use);
        let goal = goal.map(|(check, at)| {
            let tls = upstream.tls_of(&self.node);
            Goal::new(at, check, &upstream.settings.api_path, tls)
        });
        if self.watching.follow(goal) {
            self.believe_probes();
        }
    }
}

impl Roster {
    /// Connects to a node once a probe has reached it, and lets go of one that accepts nothing any more.
    ///
    /// NocoBase ends when its last socket does, so nobody may hold on to a process that has closed its port;
    /// and a node that is not there needs no attempts beside those of its probes.
    pub(super) fn watch(
        &mut self,
        key: &NodeKey,
        found: &Verdict,
        events: &UnboundedSender<Event>,
    ) {
        let Some(watched) = self.nodes.get_mut(key) else { return };
        let (Some(wanted), true) = (reached(found), watched.watching.goal.is_some()) else {
            return;
        };
        if wanted && watched.watching.watcher.is_none() {
            let watcher = Watcher::start(key, &watched.node.label, &self.metrics, events);
            watched.watching.watcher = Some(watcher);
        }
        watched.watching.want(wanted);
    }

    /// Takes what came of a node's connection. True if it is a reason to probe the node now.
    fn hear(&mut self, key: &NodeKey, heard: Heard) -> bool {
        let Some(watched) = self.nodes.get_mut(key) else { return false };
        if watched.watching.watcher.is_none() {
            // The last words of one that is wanted no more.
            return false;
        }
        let (upstream, node) = (key.upstream.as_str(), watched.node.label.as_str());
        let count =
            |kind| self.metrics.watch_frames.with_label_values(&[upstream, node, kind]).inc();
        match heard {
            Heard::Connected => {
                tracing::debug!(target: "cobalance::health", upstream, node, "watch: connected");
                watched.watching.connected(true);
                false
            }
            Heard::Lost => {
                tracing::debug!(target: "cobalance::health", upstream, node, "watch: connection lost");
                watched.watching.connected(false);
                watched.unheard();
                true
            }
            Heard::TooLarge => {
                count(TOO_LARGE);
                false
            }
            Heard::Frame(frame) => {
                count(frame.kind());
                tracing::debug!(target: "cobalance::health", upstream, node, ?frame, "watch: told");
                self.follow_word(key, frame)
            }
        }
    }

    fn follow_word(&mut self, key: &NodeKey, frame: Frame) -> bool {
        match frame {
            Frame::Running => {
                if let Some(watched) = self.nodes.get_mut(key) {
                    watched.believe_probes();
                }
                return true;
            }
            Frame::Ending(refusal) => self.take_out(key, refusal, true),
            Frame::NotServing(refusal) => self.take_out(key, refusal, false),
            Frame::Other | Frame::Garbage => {}
        }
        false
    }

    /// The node says that it does not serve, or soon will not.
    fn take_out(&mut self, key: &NodeKey, refusal: Refusal, ending: bool) {
        let Some(watched) = self.nodes.get_mut(key) else { return };
        let Some(checker) = &mut watched.checker else { return };
        let cause = match ending {
            true => format!("watch: {}", refusal.message),
            false => format!("watch: {}", Verdict::NotServing(refusal.clone())),
        };
        if refusal.kind == RefusalKind::Down && checker.has_said_ending() {
            // Nothing more will be said, and the process waits for this socket to end.
            watched.watching.want(false);
        }
        let change = checker.told(refusal, ending, now());
        // Before its health, so that no thread sees a node that refuses as one that may be tried.
        watched.allow_fail_open();
        if let Some(change) = change {
            watched.node.set_health(change.to);
        }
        watched.node.set_not_serving();
        watched.hasten();
        self.note(key, "watch", &cause);
    }
}

impl Core {
    /// A node has told something of itself, or cannot do so any more.
    pub(super) fn heard(&mut self, key: &NodeKey, heard: Heard) {
        if self.roster.hear(key, heard) {
            self.roster.kick(key, &self.inner.events);
        }
    }
}

/// Whether a probe has reached a process that may tell of itself; none if that cannot be said.
fn reached(verdict: &Verdict) -> Option<bool> {
    match verdict {
        Verdict::Good | Verdict::Status(_) | Verdict::WrongBody { .. } => Some(true),
        Verdict::NotServing(refusal) => (refusal.kind != RefusalKind::Down).then_some(true),
        Verdict::Timeout | Verdict::Garbage { .. } => None,
        Verdict::Refused { .. } => Some(false),
    }
}
