//! `/metrics`: gauges that live in nodes' cells are read when they are asked for.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::TextEncoder;

use super::process::Process;
use crate::clock;
use crate::control::{Handle, SHOWN};
use crate::snapshot::{Snapshot, Upstream};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Node;

/// Of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as text.
pub(super) fn render(handle: &Handle) -> prometheus::Result<String> {
    refresh(handle);
    let mut text = TextEncoder::new().encode_to_string(&handle.metrics().registry.gather())?;
    Process::read().render(&mut text);
    Ok(text)
}

/// Sets every gauge anew, so that what is gone leaves no series behind. Only this thread writes them.
fn refresh(handle: &Handle) {
    let metrics = handle.metrics();
    for gauge in [&metrics.ewma, &metrics.weight, &metrics.keepalive_hint, &metrics.budget] {
        gauge.reset();
    }
    for gauge in [
        &metrics.node_state,
        &metrics.nodes,
        &metrics.inflight,
        &metrics.pool_connections,
        &metrics.ws_open,
        &metrics.ws_remembered,
        &metrics.connections_open,
    ] {
        gauge.reset();
    }
    let snapshot = handle.snapshot();
    refresh_listeners(metrics, &snapshot);
    refresh_limits(metrics, &snapshot);
    for node in handle.leaving() {
        refresh_node(metrics, &node, 0.0);
    }
    for upstream in &snapshot.upstreams {
        refresh_upstream(metrics, upstream);
    }
}

fn refresh_listeners(metrics: &Metrics, snapshot: &Snapshot) {
    for listener in &snapshot.listeners {
        let h2 = listener.open_h2.load(Relaxed);
        let h1 = listener.open.load(Relaxed).saturating_sub(h2);
        for (protocol, open) in [("h1", h1), ("h2", h2)] {
            let labels = [listener.settings.name.as_str(), protocol];
            let open = i64::try_from(open).unwrap_or(i64::MAX);
            metrics.connections_open.with_label_values(&labels).set(open);
        }
    }
}

fn refresh_limits(metrics: &Metrics, snapshot: &Snapshot) {
    let now = clock::now_ns();
    let limits = snapshot.gate.iter().flat_map(|gate| gate.limits());
    let tables = limits.flat_map(|limit| limit.tables().map(|table| (limit.name(), table)));
    metrics.rate_limits(tables.map(|(name, table)| (name, table.known(now), table.evicted())));
    let lists: Vec<_> =
        snapshot.lists.iter().map(|slot| (slot.path.display().to_string(), slot.get())).collect();
    metrics.lists(lists.iter().map(|(path, networks)| (path.as_str(), networks.ranges())));
}

fn refresh_upstream(metrics: &Metrics, upstream: &Upstream) {
    let name = upstream.settings.name.as_str();
    for state in SHOWN {
        let count = upstream.nodes.iter().filter(|m| m.node.shown() == state).count();
        let gauge = metrics.nodes.with_label_values(&[name, state.as_str()]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let remaining = upstream.shared.budget.remaining(clock::now_ns() / 1_000_000_000);
    metrics.budget.with_label_values(&[name]).set(remaining);
    let remembered = upstream.shared.quiet.remembered(clock::now_ns());
    let remembered = i64::try_from(remembered).unwrap_or(i64::MAX);
    metrics.ws_remembered.with_label_values(&[name]).set(remembered);
    for (member, weight) in upstream.nodes.iter().zip(upstream.weights(clock::now_ns())) {
        refresh_node(metrics, &member.node, weight);
    }
}

fn refresh_node(metrics: &Metrics, node: &Node, weight: f64) {
    let labels = [node.key.upstream.as_str(), node.label.as_str()];
    metrics.node_state.with_label_values(&labels).set(i64::from(node.shown().metric()));
    metrics.inflight.with_label_values(&labels).set(i64::from(node.in_flight()));
    metrics.ws_open.with_label_values(&labels).set(i64::from(node.tunnels()));
    metrics.ewma.with_label_values(&labels).set(node.latency_ns() as f64 / 1e9);
    metrics.weight.with_label_values(&labels).set(weight);
    metrics.keepalive_hint.with_label_values(&labels).set(node.keepalive_hint() as f64);
    for (state, count) in ["idle", "active"].into_iter().zip(<[u32; 2]>::from(node.connections())) {
        let gauge = metrics.pool_connections.with_label_values(&[labels[0], labels[1], state]);
        gauge.set(i64::from(count));
    }
}
