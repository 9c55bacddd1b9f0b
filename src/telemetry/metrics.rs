//! Every metric, by the names of the contract. Label sets are bounded by construction: listeners,
//! routes, upstreams and nodes come from the configuration, methods and reasons from closed lists.
//!
//! Handles are resolved once, when a snapshot is compiled or a node appears; the request path only
//! increments them.

use std::sync::Arc;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use families::{ClientFamilies, NODE, NodeFamilies, Register, UpstreamFamilies, spool_metrics};

mod acme;
mod ended;
mod families;
mod handles;
mod http2;
mod labels;
mod limits;
mod proxy_header;
mod tls;

pub use acme::AcmeMetrics;
pub use handles::*;
pub use labels::*;
pub use proxy_header::{ProxyHeader, ProxyMetrics};
pub use tls::{HandshakeFailure, TlsMetrics};

/// Latency buckets in seconds: fine where users feel it, up to NocoBase's own 600 s.
const BUCKETS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 600.0,
];

/// All metrics of the process.
pub struct Metrics {
    /// What `/metrics` gathers.
    pub registry: Registry,
    /// `cobalance_config_reloads_total{result}`
    pub config_reloads: IntCounterVec,
    /// `cobalance_upgrades_total{result}`
    pub upgrades: IntCounterVec,
    /// `cobalance_config_last_reload_success_timestamp_seconds`
    pub config_last_success: Gauge,
    /// `cobalance_config_generation`
    pub config_generation: IntGauge,
    /// `cobalance_config_probation`: 0 none, 1 watched, 2 worse.
    pub config_probation: IntGauge,
    /// `cobalance_config_probations_total{result}`
    pub config_probations: IntCounterVec,
    /// `cobalance_config_rollbacks_total{by}`
    pub config_rollbacks: IntCounterVec,
    /// `cobalance_config_rolled_back`: 1 while the file on disk is not what runs.
    pub config_rolled_back: IntGauge,
    /// `cobalance_access_log_dropped_total`
    pub access_log_dropped: IntCounter,
    /// `cobalance_signals_dropped_total`: notes from data threads that control had no room for.
    pub signals_dropped: IntCounter,
    /// `cobalance_accept_errors_total`
    pub accept_errors: IntCounter,
    /// `cobalance_upstream_node_state`
    pub node_state: IntGaugeVec,
    /// `cobalance_upstream_nodes{upstream,state}`
    pub nodes: IntGaugeVec,
    /// `cobalance_upstream_state_changes_total{upstream,node,to,cause}`
    pub state_changes: IntCounterVec,
    /// `cobalance_upstream_checks_total{upstream,node,result}`
    pub checks: IntCounterVec,
    /// `cobalance_upstream_check_duration_seconds{upstream,node}`
    pub check_duration: GaugeVec,
    /// `cobalance_upstream_event_loop_lag_seconds{upstream,node}`
    pub lag: GaugeVec,
    /// `cobalance_upstream_event_loop_lag_seconds_max{upstream,node}`
    pub lag_max: GaugeVec,
    /// `cobalance_upstream_watch_connected{upstream,node}`
    pub watch_connected: IntGaugeVec,
    /// `cobalance_upstream_watch_frames_total{upstream,node,kind}`
    pub watch_frames: IntCounterVec,
    /// `cobalance_upstream_inflight{upstream,node}`
    pub inflight: IntGaugeVec,
    /// `cobalance_upstream_ewma_seconds{upstream,node}`
    pub ewma: GaugeVec,
    /// `cobalance_upstream_weight_effective{upstream,node}`
    pub weight: GaugeVec,
    /// `cobalance_upstream_keepalive_hint_seconds{upstream,node}`
    pub keepalive_hint: GaugeVec,
    /// `cobalance_upstream_pool_connections{upstream,node,state}`
    pub pool_connections: IntGaugeVec,
    /// `cobalance_ws_open{upstream,node}`
    pub ws_open: IntGaugeVec,
    /// `cobalance_ws_clients_remembered{upstream}`
    pub ws_remembered: IntGaugeVec,
    /// `cobalance_queue{upstream}`
    pub queue: IntGaugeVec,
    /// `cobalance_parked{upstream,kind}`
    pub parked: IntGaugeVec,
    /// `cobalance_upstream_retry_budget_remaining{upstream}`
    pub budget: GaugeVec,
    /// `cobalance_connections_open{listener,protocol}`
    pub connections_open: IntGaugeVec,
    /// `cobalance_discovery_updates_total{upstream,source,result}`
    pub discovery: IntCounterVec,
    /// `cobalance_misconfigurations{kind}`: standing warnings, as `status` tells them.
    pub misconfigurations: IntGaugeVec,
    /// What is spooled.
    pub spool: SpoolMetrics,
    /// What is ordered.
    pub acme: AcmeMetrics,
    /// `cobalance_admin_changes_total{verb,result}`
    pub admin_changes: IntCounterVec,
    /// `cobalance_admin_refused_total{reason}`
    pub admin_refused: IntCounterVec,
    clients: ClientFamilies,
    proxy: proxy_header::ProxyFamilies,
    tls: tls::TlsFamilies,
    http2: http2::Http2Families,
    limits: limits::LimitFamilies,
    node_families: NodeFamilies,
    upstream_families: UpstreamFamilies,
}

impl Metrics {
    /// A fresh set in a registry of its own.
    pub fn new() -> Arc<Metrics> {
        let registry = Registry::new();
        let r = Register(&registry);
        let info = r.int_gauges("build_info", "Always 1.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let success = r.gauges(
            "config_last_reload_success_timestamp_seconds",
            "When a configuration was last put in use.",
            &[],
        );
        let generation =
            r.int_gauges("config_generation", "Configurations put in use so far.", &[]);
        let probation = r.int_gauges("config_probation", "0 none, 1 watched, 2 worse.", &[]);
        let rolled_back =
            r.int_gauges("config_rolled_back", "1 while the file is not what runs.", &[]);
        Arc::new(Metrics {
            config_reloads: r.counters("config_reloads_total", "Reloads, by result.", &["result"]),
            upgrades: r.counters("upgrades_total", "Upgrades, by result.", &["result"]),
            config_last_success: success.with_label_values::<&str>(&[]),
            config_generation: generation.with_label_values::<&str>(&[]),
            config_probation: probation.with_label_values::<&str>(&[]),
            config_probations: r.counters("config_probations_total", "Configurations that were watched.", &["result"]),
            config_rollbacks: r.counters("config_rollbacks_total", "Rollbacks.", &["by"]),
            config_rolled_back: rolled_back.with_label_values::<&str>(&[]),
            access_log_dropped: r.counter("access_log_dropped_total", "Lines dropped because the writer was behind."),
            signals_dropped: r.counter("signals_dropped_total", "Notes to the control thread dropped."),
            accept_errors: r.counter("accept_errors_total", "Errors of accept, such as no descriptor left."),
            node_state: r.int_gauges(
                "upstream_node_state",
                "0 down, 1 unchecked, 2 starting, 3 maintaining, 4 ejected, 5 draining, 6 disabled, 7 up.",
                &NODE,
            ),
            nodes: r.int_gauges("upstream_nodes", "Nodes by state.", &["upstream", "state"]),
            state_changes: r.counters("upstream_state_changes_total", "Changes of state.", &["upstream", "node", "to", "cause"]),
            checks: r.counters("upstream_checks_total", "Probes, by result.", &["upstream", "node", "result"]),
            check_duration: r.gauges("upstream_check_duration_seconds", "Round trip of the last probe.", &NODE),
            lag: r.gauges("upstream_event_loop_lag_seconds", "What the last probe took longer than the network.", &NODE),
            lag_max: r.gauges("upstream_event_loop_lag_seconds_max", "The largest such lag within a minute.", &NODE),
            watch_connected: r.int_gauges("upstream_watch_connected", "1 while the node tells of itself over a WebSocket.", &NODE),
            watch_frames: r.counters("upstream_watch_frames_total", "Messages heard there.", &["upstream", "node", "kind"]),
            inflight: r.int_gauges("upstream_inflight", "Requests in flight.", &NODE),
            ewma: r.gauges("upstream_ewma_seconds", "Moving average of the head time.", &NODE),
            weight: r.gauges("upstream_weight_effective", "Weight in force: less than configured during slow start.", &NODE),
            keepalive_hint: r.gauges("upstream_keepalive_hint_seconds", "The node's last Keep-Alive hint.", &NODE),
            pool_connections: r.int_gauges("upstream_pool_connections", "Connections to nodes.", &["upstream", "node", "state"]),
            ws_open: r.int_gauges("ws_open", "Open tunnels.", &NODE),
            ws_remembered: r.int_gauges("ws_clients_remembered", "Clients whose pages may be under NocoBase's dialog when they come back.", &["upstream"]),
            queue: r.int_gauges("queue", "Exchanges that wait for a node below its limit.", &["upstream"]),
            parked: r.int_gauges("parked", "Exchanges parked while no node is eligible.", &["upstream", "kind"]),
            budget: r.gauges("upstream_retry_budget_remaining", "Repeats the budget allows now.", &["upstream"]),
            connections_open: r.int_gauges("connections_open", "Open client connections.", &["listener", "protocol"]),
            discovery: r.counters("discovery_updates_total", "Resolutions of names.", &["upstream", "source", "result"]),
            misconfigurations: r.int_gauges("misconfigurations", "Standing warnings.", &["kind"]),
            spool: spool_metrics(&r),
            acme: AcmeMetrics::new(&r),
            admin_changes: r.counters("admin_changes_total", "Changes that were asked for, by verb and result.", &["verb", "result"]),
            admin_refused: r.counters("admin_refused_total", "Admin requests that were refused unheard, by reason.", &["reason"]),
            clients: ClientFamilies::new(&r),
            proxy: proxy_header::ProxyFamilies::new(&r),
            tls: tls::TlsFamilies::new(&r),
            http2: http2::Http2Families::new(&r),
            limits: limits::LimitFamilies::new(&r),
            node_families: NodeFamilies::new(&r),
            upstream_families: UpstreamFamilies::new(&r),
            registry,
        })
    }

    /// Handles of a listener.
    pub fn listener(&self, listener: &str) -> ListenerMetrics {
        let f = &self.clients;
        ListenerMetrics {
            connections: ["h1", "h2"].map(|p| f.connections.with_label_values(&[listener, p])),
            rejected_limit: f.rejected.with_label_values(&[listener, "limit"]),
            http2_floods: self.floods(listener),
            rejected_client_limit: f.rejected.with_label_values(&[listener, "client_limit"]),
            rejected_denied: f.rejected.with_label_values(&[listener, "denied"]),
            in_flight: f.requests_in_flight.with_label_values(&[listener]),
        }
    }

    /// Handles of a route on a listener.
    pub fn route(self: &Arc<Self>, listener: &str, route: &str) -> RouteMetrics {
        let f = &self.clients;
        RouteMetrics {
            metrics: self.clone(),
            listener: listener.into(),
            route: route.into(),
            requests: Default::default(),
            duration: f.duration.with_label_values(&[listener, route]),
            request_bytes: f.request_bytes.with_label_values(&[listener, route]),
            response_bytes: f.response_bytes.with_label_values(&[listener, route]),
        }
    }

    /// Handles of an upstream.
    pub fn upstream(&self, upstream: &str) -> UpstreamMetrics {
        let f = &self.upstream_families;
        UpstreamMetrics {
            retries: RETRY_REASONS.map(|reason| f.retries.with_label_values(&[upstream, reason])),
            affinity: FLOWS.map(|flow| {
                AffinityOutcome::ALL.map(|outcome| {
                    f.affinity.with_label_values(&[upstream, flow, outcome.as_str()])
                })
            }),
            queue: self.queue.with_label_values(&[upstream]),
            parked: ["http", "ws"].map(|kind| ParkMetrics {
                now: self.parked.with_label_values(&[upstream, kind]),
                waited: f.parked_for.with_label_values(&[upstream, kind]),
                outcomes: PARK_OUTCOMES
                    .map(|outcome| f.parked.with_label_values(&[upstream, kind, outcome])),
            }),
            maintenance: f.maintenance.with_label_values(&[upstream]),
            maintenance_answers: MAINTENANCE_KINDS
                .map(|kind| f.maintenance_answers.with_label_values(&[upstream, kind])),
            maintenance_ws: f.maintenance_ws.with_label_values(&[upstream]),
            pinned: f.pinned.with_label_values(&[upstream]),
            dialogs_closed: f.dialogs_closed.with_label_values(&[upstream]),
        }
    }

    /// Handles of a node.
    pub fn node(&self, upstream: &str, node: &str) -> NodeMetrics {
        let f = &self.node_families;
        let l = [upstream, node];
        NodeMetrics {
            requests: CLASSES
                .map(|class| f.upstream_requests.with_label_values(&[upstream, node, class])),
            attempts: AttemptResult::ALL
                .map(|result| f.attempts.with_label_values(&[upstream, node, result.as_str()])),
            connect: f.connect.with_label_values(&l),
            head: f.head.with_label_values(&l),
            response: f.response.with_label_values(&l),
            pool_events: POOL_EVENTS
                .map(|event| f.pool_events.with_label_values(&[upstream, node, event])),
            ws_opened: f.ws_opened.with_label_values(&l),
            ws_closed: CLOSED_BY.map(|by| f.ws_closed.with_label_values(&[upstream, node, by])),
            ws_moved: f.ws_moved.with_label_values(&l),
            ws_dialogs: DIALOG_OUTCOMES
                .map(|outcome| f.ws_dialogs.with_label_values(&[upstream, node, outcome])),
            ws_bytes: ["up", "down"]
                .map(|way| f.ws_bytes.with_label_values(&[upstream, node, way])),
            ws_duration: f.ws_duration.with_label_values(&l),
        }
    }

    /// Forgets the series of a node that is gone.
    pub fn remove_node(&self, upstream: &str, node: &str) {
        let f = &self.node_families;
        let l = [upstream, node];
        for class in CLASSES {
            let _ = f.upstream_requests.remove_label_values(&[upstream, node, class]);
        }
        for result in AttemptResult::ALL {
            let _ = f.attempts.remove_label_values(&[upstream, node, result.as_str()]);
        }
        for event in POOL_EVENTS {
            let _ = f.pool_events.remove_label_values(&[upstream, node, event]);
        }
        for by in CLOSED_BY {
            let _ = f.ws_closed.remove_label_values(&[upstream, node, by]);
        }
        for outcome in DIALOG_OUTCOMES {
            let _ = f.ws_dialogs.remove_label_values(&[upstream, node, outcome]);
        }
        for way in ["up", "down"] {
            let _ = f.ws_bytes.remove_label_values(&[upstream, node, way]);
        }
        for state in ["idle", "active"] {
            let _ = self.pool_connections.remove_label_values(&[upstream, node, state]);
        }
        for family in [&f.connect, &f.head, &f.response, &f.ws_duration] {
            let _ = family.remove_label_values(&l);
        }
        for family in [&self.check_duration, &self.lag, &self.lag_max] {
            let _ = family.remove_label_values(&l);
        }
        for family in [&self.ewma, &self.weight, &self.keepalive_hint] {
            let _ = family.remove_label_values(&l);
        }
        for kind in FRAME_KINDS {
            let _ = self.watch_frames.remove_label_values(&[upstream, node, kind]);
        }
        for family in [&self.node_state, &self.inflight, &self.ws_open, &self.watch_connected] {
            let _ = family.remove_label_values(&l);
        }
        for family in [&f.ws_opened, &f.ws_moved] {
            let _ = family.remove_label_values(&l);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_register() {
        let metrics = Metrics::new();
        let route = metrics.route("public", "all");
        route.count(method_index(b"GET"), 200, Source::Upstream);
        route.count(method_index(b"BREW"), 999, Source::Proxy);
        metrics.node("a", "n").attempt(AttemptResult::Reset);
        let names: Vec<String> =
            metrics.registry.gather().iter().map(|f| f.name().to_owned()).collect();
        assert!(names.contains(&"cobalance_requests_total".to_owned()));
        assert!(names.iter().all(|n| n.starts_with("cobalance_")));
    }

    #[test]
    fn series_of_a_removed_node_vanish() {
        let metrics = Metrics::new();
        let before = metrics.registry.gather().len();
        let _handles = metrics.node("a", "n");
        assert!(metrics.registry.gather().len() > before);
        metrics.remove_node("a", "n");
        assert_eq!(metrics.registry.gather().len(), before);
    }
}
