//! What operators ask of single nodes: to drain one, and to make it ready again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::core::Core;
use super::drains::{is_called, lasting_name};
use super::pin::others;
use super::reload::followed;
use super::roster::now;
use super::saving::saved;
use super::show;
use super::who::Who;
use crate::config::{self, HealthCheck, Role};
use crate::exchange::tunnel::DRAIN_WINDOW;
use crate::health::{Checker, HealthState, OperatorState, Shown};
use crate::listener::Command;
use crate::net::Address;
use crate::snapshot::{Member, Snapshot, Upstream};
use crate::upstream::Node;

/// More names in an error help nobody.
const MOST_NAMES: usize = 40;
/// A node that is up answers its first probe within milliseconds.
const CHECKED_WITHIN: Duration = Duration::from_secs(2);
/// While somebody waits for that.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is to be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// No new work; what runs may finish, and tunnels are moved.
    Drain,
    /// It may serve again.
    Ready,
    /// It alone serves.
    Pin,
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// What to do.
    pub verb: Verb,
    /// The node's name, or its address.
    pub node: String,
    /// Its upstream, where a name is not enough.
    pub upstream: Option<String>,
    /// Over how long its tunnels are moved; none is 60 s, or as is going on.
    pub window: Option<Duration>,
    /// Also the last node that serves is drained, and one that is not up is pinned.
    pub force: bool,
    /// Who asks.
    pub from: Who,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The nodes it was about.
    pub nodes: Vec<OrderedNode>,
    /// Those that are set aside for a pinned one.
    #[serde(default)]
    pub others: Vec<OrderedNode>,
    /// Processes that were upgraded and still finish their work: what they have there nobody else knows.
    #[serde(default)]
    pub predecessors: Vec<u32>,
    /// Names that stay out no more, though no node is called so now.
    #[serde(default)]
    pub forgotten: Vec<String>,
    /// Whether a restart of cobalance keeps it: it is in the state file.
    pub survives_restart: bool,
}

/// A node after an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedNode {
    /// Name of its upstream.
    pub upstream: String,
    /// Its name.
    pub name: String,
    /// What holds of it: `draining`, `up`, …
    pub state: String,
    /// The operator's axis: `ready`, `draining`, `disabled`, or `aside` while another is pinned.
    #[serde(default)]
    pub operator: String,
    /// Requests in flight.
    pub in_flight: u32,
    /// Open tunnels.
    pub tunnels: u32,
}

/// Why an order is refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such node.
    #[error("{0}")]
    Unknown(String),
    /// Several nodes of that name, and they are not one process.
    #[error("{0}")]
    Ambiguous(String),
    /// Nobody would be left to serve.
    #[error(
        "`{node}` is the last node of upstream `{upstream}` that serves: without it requests get \
         503 (--force drains it all the same)"
    )]
    Last {
        /// The node.
        node: String,
        /// Its upstream.
        upstream: String,
    },
    /// What else was asked for before stands against it.
    #[error("{0}")]
    Refused(String),
    /// A bound.
    #[error("too many nodes are drained; make some of them ready")]
    TooMany,
    /// What was handed over to another process must hold.
    #[error("an upgrade is under way; ask again in a moment")]
    Upgrading,
    /// The state file is another process's: nobody would learn of it.
    #[error("another process has taken over; ask again")]
    NotHere,
}

/// A node that was found.
pub(super) type Found<'a> = (&'a Upstream, &'a Member);

impl Core {
    /// Does what is asked, or says why not; answers when all data threads have followed.
    pub(super) fn order(
        &mut self,
        order: &Order,
        reply: oneshot::Sender<Result<Ordered, OrderError>>,
    ) {
        let snapshot = self.inner.snapshot.load_full();
        let found = find(&snapshot, order);
        let forgotten = match (order.verb, &found) {
            // Also what is unknown now may be what is forgotten; what is refused changes nothing.
            (Verb::Ready, Ok(_) | Err(OrderError::Unknown(_))) => {
                self.forget_absent(&snapshot, order.upstream.as_deref(), &order.node)
            }
            _ => Vec::new(),
        };
        let found = match found {
            Err(OrderError::Unknown(_)) if !forgotten.is_empty() => Ok(Vec::new()),
            found => found,
        };
        let waiting =
            found.as_ref().map_err(OrderError::clone).and_then(|found| match order.verb {
                Verb::Drain => self.drain(found, order),
                Verb::Ready => Ok(self.ready(found, &snapshot, order)),
                Verb::Pin => self.pin(found, order),
            });
        let (found, waiting) = match (found, waiting) {
            (Ok(found), Ok(waiting)) => (found, waiting),
            // Whoever asked may have left.
            (Err(error), _) | (_, Err(error)) => return drop(reply.send(Err(error))),
        };
        let nodes: Vec<_> = found.iter().map(|(_, member)| member.node.clone()).collect();
        let aside = match order.verb {
            Verb::Pin => found.iter().flat_map(|(u, one)| others(u, &one.node)).collect(),
            _ => Vec::new(),
        };
        let aside: Vec<_> = aside.into_iter().map(|member| member.node.clone()).collect();
        let (saving, verb, predecessors) = (self.save(), order.verb, self.predecessors());
        tokio::spawn(async move {
            followed(waiting).await;
            if verb == Verb::Ready {
                nodes_checked(&nodes).await;
            }
            let survives_restart = saved(saving).await;
            let nodes = nodes.iter().map(|node| ordered(node)).collect();
            let others = aside.iter().map(|node| ordered(node)).collect();
            let _ = reply.send(Ok(Ordered {
                nodes,
                others,
                predecessors,
                forgotten,
                survives_restart,
            }));
        });
    }

    fn drain(
        &mut self,
        found: &[Found<'_>],
        order: &Order,
    ) -> Result<Vec<oneshot::Receiver<()>>, OrderError> {
        self.not_pinned(found)?;
        if !order.force {
            found.iter().try_for_each(|(upstream, _)| not_the_last(upstream, found))?;
        }
        let new = found.iter().filter(|(_, member)| self.roster.drains.of(&member.node).is_none());
        if !self.roster.drains.has_room(new.count()) {
            return Err(OrderError::TooMany);
        }
        let from = order.from.to_string();
        let mut waiting = Vec::new();
        for (upstream, member) in found {
            let (node, before) = (&member.node, member.node.operator());
            let lasting = lasting_name(upstream, node);
            let name = if lasting == node.key.name { lasting } else { &order.node };
            self.roster.drains.add(node, name, &from);
            if matches!(before, OperatorState::Ready | OperatorState::Aside) {
                node.set_operator(OperatorState::Draining);
                self.roster.note_operator(upstream, member);
            }
            // A second time without a window leaves those that are on their way with their moments.
            if before == OperatorState::Ready || order.window.is_some() {
                waiting.extend(self.drain_node(node, order.window.unwrap_or(DRAIN_WINDOW)));
            }
        }
        Ok(waiting)
    }

    fn ready(
        &mut self,
        found: &[Found<'_>],
        snapshot: &Snapshot,
        order: &Order,
    ) -> Vec<oneshot::Receiver<()>> {
        for (upstream, member) in found {
            let node = &member.node;
            self.roster.drains.remove(node, all_nodes(snapshot));
            self.probation.forgotten.remove(node, all_nodes(snapshot));
            if node.operator() != OperatorState::Draining {
                continue;
            }
            match self.roster.wanted(upstream, member) {
                OperatorState::Ready => {
                    let cause = format!("made ready by the operator, from {}", order.from);
                    self.make_ready(upstream, node, &cause);
                }
                // Another one is pinned.
                wanted => {
                    node.set_operator(wanted);
                    self.roster.note_operator(upstream, member);
                }
            }
        }
        Vec::new()
    }

    /// Lets a node serve as soon as it is found well.
    pub(super) fn make_ready(&mut self, upstream: &Upstream, node: &Arc<Node>, cause: &str) {
        self.check_anew(node, upstream.settings.health_check.as_ref());
        node.set_operator(OperatorState::Ready);
        self.roster.note(&node.key, "operator", cause);
        self.roster.kick(&node.key, &self.inner.events);
    }

    /// Forgets what was drained by this text, or as one of several nodes of this name, and means no node.
    fn forget_absent(
        &mut self,
        snapshot: &Snapshot,
        upstream: Option<&str>,
        text: &str,
    ) -> Vec<String> {
        let nodes = all_nodes(snapshot);
        let mut gone = self.roster.drains.remove_absent(upstream, text, nodes.clone());
        // Nor is it to be drained when a configuration comes back that has it.
        gone.extend(self.probation.forgotten.remove_absent(upstream, text, nodes));
        let mut names: Vec<String> = gone.into_iter().map(|drained| drained.node).collect();
        names.dedup();
        names
    }

    /// Forgets drained nodes whose addresses have been gone for long.
    pub(super) fn sweep_drains(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        let gone = self.roster.drains.sweep(all_nodes(&snapshot), now());
        for drained in &gone {
            tracing::info!(target: "cobalance::health", upstream = drained.upstream, node = drained.node,
                "gone for an hour, and drained no more");
        }
        if !gone.is_empty() {
            drop(self.save());
        }
    }

    /// Forgets what probes have found: that may be of the process before a restart, and a node that is
    /// taken for up would let the next one be drained too early. One good probe is enough.
    fn check_anew(&mut self, node: &Node, check: Option<&HealthCheck>) {
        let watched = self.roster.nodes.get_mut(&node.key);
        if let (Some(watched), Some(check), Some(_)) = (watched, check, node.address()) {
            watched.checker = Some(Checker::new(check.rise, check.fall, check.interval, now()));
            watched.forget_probes();
            node.set_fail_open(false);
            node.set_health(HealthState::Unchecked);
        }
    }

    /// Tells the data threads to end what a node has but for its exchanges. Returns what they answer when
    /// they have followed.
    pub(super) fn drain_node(
        &self,
        node: &Arc<Node>,
        window: Duration,
    ) -> Vec<oneshot::Receiver<()>> {
        let tell = |commands: &tokio::sync::mpsc::UnboundedSender<Command>| {
            let (done, followed) = oneshot::channel();
            // A thread that has died is noticed by `tick`.
            let _ = commands.send(Command::DrainNode { node: node.clone(), window, done });
            followed
        };
        self.commands.iter().map(tell).collect()
    }
}

fn all_nodes(snapshot: &Snapshot) -> impl Iterator<Item = &Node> + Clone {
    snapshot.upstreams.iter().flat_map(|upstream| &upstream.nodes).map(|member| &*member.node)
}

/// Returns when these nodes have been probed, so that the answer can say what was found; a node that does
/// not answer is not waited for long.
pub(super) async fn nodes_checked(nodes: &[Arc<Node>]) {
    let begun = Instant::now();
    let unchecked = |node: &Arc<Node>| node.shown() == Shown::Unchecked;
    while nodes.iter().any(unchecked) && begun.elapsed() < CHECKED_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) fn ordered(node: &Node) -> OrderedNode {
    OrderedNode {
        upstream: node.key.upstream.clone(),
        name: node.label.clone(),
        state: node.shown().as_str().into(),
        operator: show::operator(node.operator()).into(),
        in_flight: node.in_flight(),
        tunnels: node.tunnels(),
    }
}

/// The nodes that an order is about. The same process in several upstreams is one node to whoever restarts
/// it; different ones of one name are not.
fn find<'a>(snapshot: &'a Snapshot, order: &Order) -> Result<Vec<Found<'a>>, OrderError> {
    let upstreams = asked_upstreams(snapshot, order.upstream.as_deref())?;
    let all = || upstreams.iter().flat_map(|u| u.nodes.iter().map(move |member| (&***u, member)));
    let called = |by: &dyn Fn(&Node) -> bool| -> Vec<Found<'a>> {
        all().filter(|(_, member)| by(&member.node)).collect()
    };
    // A label means one node; a configured name may mean several.
    let mut found = called(&|node| node.label == order.node);
    if found.is_empty() {
        found = called(&|node| is_called(node, &order.node));
    }
    if found.is_empty()
        && let Ok(address) = order.node.parse::<Address>()
    {
        found = called(&|node| node.address() == Some(&address));
    }
    let Some((first, _)) = found.first() else {
        return Err(OrderError::Unknown(unknown(&order.node, &upstreams)));
    };
    let addresses = |upstream: &Upstream| {
        let of = found.iter().filter(|(other, _)| std::ptr::eq(*other, upstream));
        let mut addresses: Vec<_> = of.map(|(_, member)| member.node.address()).collect();
        addresses.sort_unstable();
        addresses
    };
    match found.iter().find(|(other, _)| addresses(other) != addresses(first)) {
        None => Ok(found),
        Some((other, _)) => Err(OrderError::Ambiguous(format!(
            "`{}` is a node of upstream `{}` and another one of `{}`: say which with --upstream",
            order.node, first.settings.name, other.settings.name
        ))),
    }
}

/// Refuses to take the last node that serves out of an upstream.
fn not_the_last(upstream: &Upstream, found: &[Found<'_>]) -> Result<(), OrderError> {
    let goes =
        |member: &Member| found.iter().any(|(_, gone)| Arc::ptr_eq(&gone.node, &member.node));
    let serving = || upstream.nodes.iter().filter(|member| member.role == Role::Serve);
    let up = |member: &&Member| member.node.shown() == Shown::Up;
    // While nobody is up, requests go to those that may be tried all the same.
    let tried = |member: &&Member| member.node.may_fail_open();
    let any_up = serving().any(|member| up(&member));
    let serves = |member: &&Member| if any_up { up(member) } else { tried(member) };
    if serving().any(|member| serves(&member) && !goes(member)) {
        return Ok(());
    }
    match serving().find(|member| serves(member) && goes(member)) {
        None => Ok(()),
        Some(last) => Err(OrderError::Last {
            node: last.node.label.clone(),
            upstream: upstream.settings.name.clone(),
        }),
    }
}

/// The upstream of a name; without one, all of them.
pub(super) fn asked_upstreams<'a>(
    snapshot: &'a Snapshot,
    name: Option<&str>,
) -> Result<Vec<&'a Arc<Upstream>>, OrderError> {
    let asked = |one: &&Arc<Upstream>| name.is_none_or(|name| one.settings.name == *name);
    let upstreams: Vec<_> = snapshot.upstreams.iter().filter(asked).collect();
    match name.filter(|_| upstreams.is_empty()) {
        Some(name) => Err(OrderError::Unknown(unknown_upstream(snapshot, name))),
        None => Ok(upstreams),
    }
}

fn unknown_upstream(snapshot: &Snapshot, name: &str) -> String {
    let known: Vec<&str> = snapshot.upstreams.iter().map(|u| u.settings.name.as_str()).collect();
    format!("there is no upstream `{name}`{}; known: {}", meant(name, &known), list(&known))
}

pub(super) fn unknown(name: &str, upstreams: &[&Arc<Upstream>]) -> String {
    let nodes = upstreams.iter().flat_map(|upstream| &upstream.nodes);
    let known: Vec<&str> = nodes.map(|member| member.node.label.as_str()).collect();
    format!("there is no node `{name}`{}; known: {}", meant(name, &known), list(&known))
}

fn meant(name: &str, known: &[&str]) -> String {
    let near = config::near(name, known.iter().copied());
    near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

fn list(known: &[&str]) -> String {
    let mut text = known.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = known.len().checked_sub(MOST_NAMES) {
        text.push_str(&format!(", and {more} more"));
    }
    text
}
