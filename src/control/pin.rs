//! One node of an upstream serves alone, for work that NocoBase does at one node only: plugins, restored
//! backups. The others are set aside, as if they were drained, until it is over.
//!
//! Nobody takes the place of a pinned node that is gone: the others do not know what was changed there.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::core::Core;
use super::drains::{is_called, lasting_name};
use super::operator::asked_upstreams;
use super::operator::{Found, Order, OrderError, OrderedNode, nodes_checked, ordered};
use super::roster::Roster;
use super::saving::saved;
use super::status::{PinStatus, unix};
use super::warnings::Kind;
use super::who::Who;
use crate::config::{Config, Role};
use crate::exchange::tunnel::DRAIN_WINDOW;
use crate::health::{HealthState, OperatorState, OutlierState};
use crate::snapshot::{Member, Upstream};
use crate::upstream::Node;
use crate::upstream::maintenance::Terms;

mod outage;

pub(super) use outage::Outages;

/// A pinned node, as the state file keeps it: by its name, whatever its address becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pinned {
    /// Its upstream; at most one of each is pinned.
    pub upstream: String,
    /// Its label, or its name as configured.
    pub node: String,
    /// Where it was: of several nodes that go by the name, this one is meant.
    pub address: Option<String>,
    /// Who asked.
    pub from: String,
    /// In Unix seconds.
    pub since: u64,
}

/// Whom an operator wants back.
#[derive(Clone, Debug)]
pub struct Unpin {
    /// Only this upstream; none is all.
    pub upstream: Option<String>,
    /// Who asks.
    pub from: Who,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpinned {
    /// The upstreams that it was about.
    pub upstreams: Vec<UnpinnedUpstream>,
    /// Whether the state file is written.
    pub survives_restart: bool,
}

/// An upstream whose nodes are all in work again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpinnedUpstream {
    /// Its name.
    pub name: String,
    /// The node that was pinned; none was.
    pub node: Option<String>,
    /// Its nodes that serve.
    pub nodes: Vec<OrderedNode>,
}

impl Pinned {
    fn new(upstream: &Upstream, node: &Node, from: &Who) -> Pinned {
        Pinned {
            upstream: node.key.upstream.clone(),
            node: lasting_name(upstream, node).to_owned(),
            address: address(node),
            from: from.to_string(),
            since: unix(SystemTime::now()),
        }
    }

    /// The node that is meant. A name may have come to stand for more nodes than when it was pinned: then it
    /// is the one at the old address, else the first.
    fn the_one<'a>(&self, upstream: &'a Upstream) -> Option<&'a Member> {
        let called = || upstream.nodes.iter().filter(|one| is_called(&one.node, &self.node));
        let at = |one: &&Member| address(&one.node) == self.address;
        called().find(at).or_else(|| called().next())
    }

    /// Why the other nodes have no work, for people.
    pub(super) fn cause(&self) -> String {
        format!("{} is pinned, from {}", self.node, self.from)
    }

    /// Whether requests have somewhere to go.
    fn serves(&self, upstream: &Upstream) -> bool {
        self.the_one(upstream)
            .is_some_and(|one| one.node.eligible(true) || one.node.may_fail_open())
    }

    /// What a configuration does to it that would leave nobody to serve; none for one that has the upstream no
    /// more, whose clients go elsewhere.
    fn lost_by(&self, config: &Config) -> Option<&'static str> {
        let upstream = config.upstreams.iter().find(|one| one.name == self.upstream)?;
        let base = self.node.rsplit_once('#').map_or(&*self.node, |(name, _)| name);
        let named = |name: &str| upstream.nodes.iter().find(|node| node.name == name);
        match named(&self.node).or_else(|| named(base)) {
            None => Some("removes it"),
            Some(node) if node.disabled => Some("disables it"),
            Some(node) if node.role == Role::Task => Some("makes it a task node"),
            Some(_) => None,
        }
    }
}

impl Roster {
    /// What is pinned in an upstream.
    pub(super) fn pinned(&self, upstream: &str) -> Option<&Pinned> {
        self.drains.pinned.iter().find(|one| one.upstream == upstream)
    }

    /// Whether a node is the one that is pinned.
    fn is_pinned(&self, upstream: &Upstream, node: &Arc<Node>) -> bool {
        let pinned = self.pinned(&upstream.settings.name);
        let one = pinned.and_then(|pinned| pinned.the_one(upstream));
        one.is_some_and(|one| Arc::ptr_eq(&one.node, node))
    }

    /// What the configuration and the operator want of a node. The configuration's word comes first, which
    /// only it can take back; then what was said of the node itself.
    pub(super) fn wanted(&self, upstream: &Upstream, member: &Member) -> OperatorState {
        let node = &member.node;
        let written = upstream.settings.nodes.iter().find(|one| one.name == node.key.name);
        let pinned = self.pinned(&upstream.settings.name).is_some() && member.role == Role::Serve;
        if written.is_some_and(|one| one.disabled) {
            OperatorState::Disabled
        } else if self.drains.of(node).is_some() {
            OperatorState::Draining
        } else if pinned && !self.is_pinned(upstream, node) {
            OperatorState::Aside
        } else {
            // Also a node that had left and is back.
            OperatorState::Ready
        }
    }
}

impl Core {
    /// Has these nodes serve alone.
    pub(super) fn pin(
        &mut self,
        found: &[Found<'_>],
        order: &Order,
    ) -> Result<Vec<oneshot::Receiver<()>>, OrderError> {
        for (upstream, member) in found {
            self.may_pin(upstream, member, found, order.force)?;
        }
        let mut waiting = Vec::new();
        for (upstream, member) in found {
            let pinned = Pinned::new(upstream, &member.node, &order.from);
            let (name, node, from) = (&pinned.upstream, &pinned.node, &pinned.from);
            tracing::info!(target: "cobalance::pin", upstream = name, node, from, "pinned");
            self.warnings.settle(Kind::Degraded, &subject(name));
            let all = &mut self.roster.drains.pinned;
            all.retain(|one| one.upstream != *name);
            all.push(pinned);
            // First whom they are to go to.
            self.follow_wanted(upstream, member);
            for other in others(upstream, &member.node) {
                let went = self.follow_wanted(upstream, other);
                let aside = other.node.operator() == OperatorState::Aside;
                if went || aside && order.window.is_some() {
                    let window = order.window.unwrap_or(DRAIN_WINDOW);
                    waiting.extend(self.drain_node(&other.node, window));
                }
            }
        }
        self.watch_pins();
        Ok(waiting)
    }

    fn may_pin(
        &self,
        upstream: &Upstream,
        member: &Member,
        found: &[Found<'_>],
        force: bool,
    ) -> Result<(), OrderError> {
        let (node, name) = (&member.node.label, &upstream.settings.name);
        let refuse = |why: String| Err(OrderError::Refused(why));
        let named: Vec<&str> = found
            .iter()
            .filter(|(other, _)| std::ptr::eq(*other, upstream))
            .map(|(_, one)| one.node.label.as_str())
            .collect();
        if named.len() > 1 {
            return Err(OrderError::Ambiguous(format!(
                "that is {} nodes, and one is pinned: say which of {}",
                named.len(),
                named.join(", ")
            )));
        }
        if member.role == Role::Task {
            return refuse(format!(
                "`{node}` is a task node, which gets no requests: pin one that serves"
            ));
        }
        if self.roster.drains.of(&member.node).is_some() {
            return refuse(format!("`{node}` is drained: `cobalance ready {node}` first"));
        }
        if self.roster.wanted(upstream, member) == OperatorState::Disabled {
            return refuse(format!(
                "`{node}` is disabled: remove `disabled = true` from the configuration first"
            ));
        }
        if let Some(terms) = upstream.shared.maintenance.terms()
            && !terms.is_open(&member.node)
        {
            let other = terms.node.as_deref().unwrap_or_default();
            return refuse(format!(
                "`{name}` is under maintenance, which lets clients through to `{other}` alone: pin that, or say \
                 `cobalance maintenance on` again with `--node {node}`"
            ));
        }
        if !force && !is_up(&member.node) {
            return refuse(format!(
                "`{node}` is {}: nobody else of `{name}` would serve. Get it up first (--force pins it all the \
                 same)",
                health(&member.node)
            ));
        }
        Ok(())
    }

    /// Refuses what would leave nobody to serve while a node is pinned.
    pub(super) fn not_pinned(&self, found: &[Found<'_>]) -> Result<(), OrderError> {
        let pinned =
            |(upstream, member): &&Found<'_>| self.roster.is_pinned(upstream, &member.node);
        let Some((upstream, member)) = found.iter().find(pinned) else { return Ok(()) };
        let (node, name) = (&member.node.label, &upstream.settings.name);
        Err(OrderError::Refused(format!(
            "`{node}` is pinned, and nobody else of `{name}` serves: `cobalance unpin` first, or pin another node"
        )))
    }

    /// Refuses to let clients through to a node that is set aside.
    pub(super) fn may_verify(
        &self,
        upstream: &Upstream,
        node: Option<&str>,
    ) -> Result<(), OrderError> {
        let pinned = self.roster.pinned(&upstream.settings.name);
        let one = pinned.and_then(|pinned| pinned.the_one(upstream));
        let (Some(one), Some(node)) = (one, node) else { return Ok(()) };
        let terms = Terms { node: Some(node.to_owned()), ..Terms::default() };
        if terms.is_open(&one.node) {
            return Ok(());
        }
        let (pinned, name) = (&one.node.label, &upstream.settings.name);
        Err(OrderError::Refused(format!(
            "`{pinned}` is pinned in `{name}`, so nobody reaches `{node}`: `cobalance pin {node}` or `cobalance \
             unpin` first"
        )))
    }

    /// Why a configuration must not be put in use: it would take a pinned node away, and nobody would serve.
    /// `again` is the command to be tried after that.
    pub(super) fn unpins(&self, config: &Config, again: &str) -> Option<String> {
        let lost = |one: &Pinned| {
            let what = one.lost_by(config)?;
            let (node, upstream) = (&one.node, &one.upstream);
            Some(format!(
                "node `{node}` of upstream `{upstream}` is pinned, and this configuration {what}: nobody would \
                 serve. Run `cobalance unpin` or pin another node first, then `cobalance {again}`"
            ))
        };
        self.roster.drains.pinned.iter().find_map(lost)
    }

    /// Forgets pins that a configuration has no node for. Whether there was one.
    pub(super) fn keep_pins(&mut self, config: &Config) -> bool {
        let all = std::mem::take(&mut self.roster.drains.pinned);
        let known = |name: &str| config.upstreams.iter().any(|one| one.name == name);
        let (kept, gone): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| known(&one.upstream) && one.lost_by(config).is_none());
        self.roster.drains.pinned = kept;
        for Pinned { upstream, node, .. } in &gone {
            tracing::info!(target: "cobalance::pin", upstream, node, "configured no more, and pinned no more");
            if known(upstream) {
                // Only a start comes here: the file changed while nothing ran.
                let message = format!(
                    "node `{node}` of upstream `{upstream}` was pinned when cobalance ended, and the \
                     configuration has no such node that serves: all its nodes serve now. Pin one if that is \
                     not meant, or say `cobalance unpin`"
                );
                self.warn(Kind::Degraded, &subject(upstream), message);
            } else {
                self.inner.metrics.upstream(upstream).pinned.set(0);
            }
        }
        !gone.is_empty()
    }

    /// Has all nodes serve again that were set aside.
    pub(super) fn unpin(
        &mut self,
        asked: &Unpin,
        reply: oneshot::Sender<Result<Unpinned, OrderError>>,
    ) {
        let snapshot = self.inner.snapshot.load_full();
        // Nor is it to be pinned when a configuration comes back that has it.
        let forgotten = self.probation.forgotten.unpin(asked.upstream.as_deref());
        let upstreams = match asked_upstreams(&snapshot, asked.upstream.as_deref()) {
            Ok(upstreams) => upstreams,
            Err(_) if !forgotten.is_empty() => Vec::new(),
            // Whoever asked may have left.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let mut was = Vec::new();
        for upstream in &upstreams {
            was.push(self.unpin_one(upstream, &asked.from));
        }
        self.watch_pins();
        let nodes = |upstream: &&Arc<Upstream>| -> Vec<Arc<Node>> {
            serving(upstream).map(|member| member.node.clone()).collect()
        };
        let named: Vec<_> = upstreams
            .iter()
            .zip(was)
            .map(|(upstream, node)| (upstream.settings.name.clone(), node, nodes(upstream)))
            .collect();
        let absent =
            |one: &Pinned| !upstreams.iter().any(|known| known.settings.name == one.upstream);
        let absent: Vec<Pinned> = forgotten.into_iter().filter(absent).collect();
        let saving = self.save();
        tokio::spawn(async move {
            let all: Vec<_> = named.iter().flat_map(|(_, _, nodes)| nodes.clone()).collect();
            nodes_checked(&all).await;
            let upstreams = named.into_iter().map(|(name, node, nodes)| UnpinnedUpstream {
                name,
                node,
                nodes: nodes.iter().map(|node| ordered(node)).collect(),
            });
            let gone = |one: Pinned| UnpinnedUpstream {
                name: one.upstream,
                node: Some(one.node),
                nodes: Vec::new(),
            };
            let upstreams = upstreams.chain(absent.into_iter().map(gone)).collect();
            let survives_restart = saved(saving).await;
            let _ = reply.send(Ok(Unpinned { upstreams, survives_restart }));
        });
    }

    /// The node that was pinned.
    fn unpin_one(&mut self, upstream: &Upstream, from: &Who) -> Option<String> {
        let name = &upstream.settings.name;
        self.warnings.settle(Kind::Degraded, &subject(name));
        let pinned = self.roster.pinned(name).cloned()?;
        self.roster.drains.pinned.retain(|one| one.upstream != *name);
        tracing::info!(target: "cobalance::pin", upstream = name, node = pinned.node, %from, "unpinned");
        for member in serving(upstream) {
            let node = &member.node;
            if node.operator() == OperatorState::Aside
                && self.roster.wanted(upstream, member) == OperatorState::Ready
            {
                // It may have been restarted, as its plugins had to follow.
                self.make_ready(upstream, node, &format!("unpinned by the operator, from {from}"));
            }
        }
        Some(pinned.node)
    }

    /// Sets a node's state to what is wanted of it. Whether it has just lost its work.
    fn follow_wanted(&mut self, upstream: &Upstream, member: &Member) -> bool {
        let (was, wanted) = (member.node.operator(), self.roster.wanted(upstream, member));
        if was != wanted {
            member.node.set_operator(wanted);
        }
        // Also in the same state: another node may be pinned now.
        self.roster.note_operator(upstream, member);
        was == OperatorState::Ready && wanted == OperatorState::Aside
    }

    /// What `status` shows of an upstream.
    pub(super) fn pin_of(&self, upstream: &Upstream) -> Option<PinStatus> {
        let pinned = self.roster.pinned(&upstream.settings.name)?;
        Some(PinStatus {
            node: pinned.the_one(upstream).map_or(&pinned.node, |one| &one.node.label).clone(),
            since: pinned.since,
            from: pinned.from.clone(),
            serves: pinned.serves(upstream),
            turns_away: upstream.shared.outage.is_on(),
        })
    }
}

fn address(node: &Node) -> Option<String> {
    node.address().map(ToString::to_string)
}

/// What probes and traffic say, whatever the operator wants.
fn is_up(node: &Node) -> bool {
    node.health() == HealthState::Up && node.outlier() == OutlierState::In
}

fn health(node: &Node) -> &'static str {
    match node.health() {
        HealthState::Up => "ejected",
        other => other.as_str(),
    }
}

fn serving(upstream: &Upstream) -> impl Iterator<Item = &Member> {
    upstream.nodes.iter().filter(|member| member.role == Role::Serve)
}

/// The nodes that would serve beside this one.
pub(super) fn others<'a>(
    upstream: &'a Upstream,
    node: &'a Arc<Node>,
) -> impl Iterator<Item = &'a Member> {
    serving(upstream).filter(move |member| !Arc::ptr_eq(&member.node, node))
}

fn subject(upstream: &str) -> String {
    format!("pin of {upstream}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::support;
    use crate::snapshot::{Parts, compile};
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::Registry;

    fn pinned(node: &str) -> Pinned {
        Pinned {
            upstream: "app".into(),
            node: node.into(),
            address: None,
            from: "127.0.0.1".into(),
            since: 0,
        }
    }

    #[test]
    fn a_configuration_without_the_node_is_known_and_one_without_its_upstream_is_no_loss() {
        let mut config = support::config(&["a:1", "b:1"]);
        assert_eq!(pinned("a:1").lost_by(&config), None);
        assert_eq!(pinned("a:1#10.0.0.1").lost_by(&config), None, "one of those of a name");
        assert_eq!(pinned("c:1").lost_by(&config), Some("removes it"));
        config.upstreams[0].nodes[0].disabled = true;
        assert_eq!(pinned("a:1").lost_by(&config), Some("disables it"));
        config.upstreams[0].nodes[1].role = Role::Task;
        assert_eq!(pinned("b:1").lost_by(&config), Some("makes it a task node"));
        config.upstreams[0].name = "other".into();
        assert_eq!(pinned("a:1").lost_by(&config), None);
    }

    #[test]
    fn of_several_nodes_of_a_name_the_one_at_its_address_is_meant() {
        let upstream = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
            let resolved = &[("app:1".to_owned(), Ok(addresses))].into();
            let mut registry = Registry::new(1, Metrics::new());
            let parts = Parts { resolved, ..Parts::bare(&mut registry) };
            compile(Arc::new(support::config(&["app:1"])), parts).upstreams[0].clone()
        };
        let mut pinned = pinned("app:1");
        pinned.address = Some("10.0.0.2:1".into());
        for (addresses, expected) in [
            (&["10.0.0.1:1", "10.0.0.2:1"][..], "10.0.0.2:1"),
            (&["10.0.0.1:1", "10.0.0.3:1"], "10.0.0.1:1"),
            (&["10.0.0.4:1"], "10.0.0.4:1"),
        ] {
            let upstream = upstream(addresses);
            let one = pinned.the_one(&upstream).unwrap();
            assert_eq!(address(&one.node).as_deref(), Some(expected));
        }
    }
}
