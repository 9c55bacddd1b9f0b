//! Gathers [`Status`] from what control owns.

use std::sync::atomic::Ordering::Relaxed;

use super::core::Core;
use super::drains::Drained;
use super::roster::{LastCheck, Watched};
use super::status::{
    CheckStatus, ConfigStatus, DrainedAbsent, ListenerStatus, NodeStatus, Status, UpstreamStatus,
    millis, unix,
};
use super::{ConfigSource, Handle, probe};
use crate::clock;
use crate::config::Role;
use crate::health::{OperatorState, OutlierState, Verdict};
use crate::net::Address;
use crate::snapshot::{Listener, Member, Snapshot, Upstream};

impl Core {
    pub(super) fn status(&self) -> Status {
        let handle = Handle { inner: self.inner.clone() };
        let snapshot = handle.snapshot();
        let addresses = handle.addresses();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            predecessors: self.predecessors(),
            uptime_s: handle.uptime().as_secs(),
            ready: handle.is_ready(),
            draining: handle.is_draining(),
            listeners: snapshot.listeners.iter().map(|one| listener(one, &addresses)).collect(),
            certificates: snapshot.certificates.iter().map(|one| self.certificate(one)).collect(),
            upstreams: snapshot.upstreams.iter().map(|one| self.upstream(one)).collect(),
            config: self.config_status(&snapshot),
            warnings: self.warnings.list(),
        }
    }

    fn upstream(&self, upstream: &Upstream) -> UpstreamStatus {
        let node = |(member, weight): (&Member, f64)| {
            let watched = self.roster.nodes.get(&member.node.key)?;
            Some(NodeStatus { effective_weight: weight, ..node(upstream, member, watched) })
        };
        let absent = |drained: &Drained| {
            let Drained { node: name, from, .. } = drained.clone();
            DrainedAbsent { name, from }
        };
        let weights = upstream.weights(clock::now_ns());
        let eligible =
            |member: &&Member| member.role == Role::Serve && member.node.shown().is_eligible();
        UpstreamStatus {
            name: upstream.settings.name.clone(),
            eligible: upstream.nodes.iter().filter(eligible).count(),
            parked: upstream.shared.parking.total(),
            median_latency_ms: millis(upstream.shared.median_latency_ns.load(Relaxed)),
            retry_budget_remaining: upstream
                .shared
                .budget
                .remaining(clock::now_ns() / 1_000_000_000),
            maintenance: self.maintenance_of(upstream),
            pinned: self.pin_of(upstream),
            nodes: upstream.nodes.iter().zip(weights).filter_map(node).collect(),
            drained_absent: self
                .roster
                .drains
                .absent(&upstream.settings.name)
                .map(absent)
                .collect(),
        }
    }

    fn config_status(&self, snapshot: &Snapshot) -> ConfigStatus {
        ConfigStatus {
            generation: snapshot.generation,
            loaded_at: unix(snapshot.loaded_at),
            file: match &self.reloads.source {
                ConfigSource::File(path) => Some(path.display().to_string()),
                ConfigSource::Flags => None,
            },
            last_reload: self.reloads.last.clone(),
            probation: self.probation.status(),
            rolled_back: self.probation.rolled_back.clone(),
            rollback_to: self.probation.target_generation(),
        }
    }
}

fn listener(listener: &Listener, addresses: &[(String, Address)]) -> ListenerStatus {
    let name = &listener.settings.name;
    let bound = addresses.iter().find(|(other, _)| other == name).map(|(_, address)| address);
    ListenerStatus {
        name: name.clone(),
        address: bound.unwrap_or(&listener.settings.bind).to_string(),
        connections: listener.open.load(Relaxed),
    }
}

fn node(upstream: &Upstream, member: &Member, watched: &Watched) -> NodeStatus {
    let node = &member.node;
    NodeStatus {
        name: node.label.clone(),
        address: address(upstream, member),
        state: node.shown().as_str().into(),
        operator: operator(node.operator()).into(),
        health: node.health().as_str().into(),
        outlier: outlier(node.outlier()).into(),
        since: unix(watched.since),
        cause: watched.cause.clone(),
        last_check: watched.last.as_ref().map(check),
        watch: watched.watching.as_str().into(),
        weight: member.weight,
        effective_weight: f64::from(member.weight),
        backup: member.backup,
        role: role(member.role).into(),
        in_flight: node.in_flight(),
        tunnels: node.tunnels(),
        latency_ms: millis(node.latency_ns()),
        event_loop_lag_ms: watched.lag.last().map(|lag| lag.as_secs_f64() * 1e3),
    }
}

fn address(upstream: &Upstream, member: &Member) -> String {
    let key = &member.node.key;
    let written = || upstream.settings.nodes.iter().find(|node| node.name == key.name);
    match &key.address {
        Some(address) => address.to_string(),
        None => written().map_or_else(|| key.name.clone(), |node| node.address.clone()),
    }
}

fn check(last: &LastCheck) -> CheckStatus {
    let refusal = match &last.verdict {
        Verdict::NotServing(refusal) => Some(refusal),
        _ => None,
    };
    CheckStatus {
        result: probe::label(&last.verdict).into(),
        detail: last.verdict.to_string(),
        code: refusal.map(|refusal| refusal.code.clone()),
        message: refusal.map(|refusal| refusal.message.clone()),
        command: refusal.and_then(|refusal| refusal.command.clone()),
        took_ms: last.took.as_secs_f64() * 1e3,
        at: unix(last.at),
    }
}

pub(super) fn operator(state: OperatorState) -> &'static str {
    match state {
        OperatorState::Ready => "ready",
        OperatorState::Draining => "draining",
        OperatorState::Disabled => "disabled",
        OperatorState::Aside => "aside",
    }
}

fn outlier(state: OutlierState) -> &'static str {
    match state {
        OutlierState::In => "in",
        OutlierState::Ejected => "ejected",
        OutlierState::Probation => "probation",
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Serve => "serve",
        Role::Task => "task",
    }
}
