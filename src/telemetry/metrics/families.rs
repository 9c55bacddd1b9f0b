//! Families whose handles are resolved per listener, route or node, and how all families are registered.

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::{BUCKETS, SPOOL_REFUSALS, SpoolMetrics};

/// Registers families under our prefix; a name that cannot be registered is a defect found by the first test.
pub(super) struct Register<'a>(pub(super) &'a Registry);

#[allow(clippy::expect_used)] // names are constants: `all_metrics_register` proves them
impl Register<'_> {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("cobalance_{name}"), help)
    }

    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect("metric names are unique");
        collector
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Self::opts(name, help), labels).expect("valid name"))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(Self::opts(name, help)).expect("valid name"))
    }

    pub(super) fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Self::opts(name, help), labels).expect("valid name"))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Self::opts(name, help), labels).expect("valid name"))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(BUCKETS.to_vec());
        self.add(HistogramVec::new(opts, labels).expect("valid name"))
    }
}

pub(super) const NODE: [&str; 2] = ["upstream", "node"];

/// What is counted of clients.
pub(super) struct ClientFamilies {
    pub(super) connections: IntCounterVec,
    pub(super) rejected: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) requests_in_flight: IntGaugeVec,
    pub(super) request_bytes: IntCounterVec,
    pub(super) response_bytes: IntCounterVec,
    pub(super) errors: IntCounterVec,
}

impl ClientFamilies {
    pub(super) fn new(r: &Register<'_>) -> ClientFamilies {
        let lr = ["listener", "route"];
        ClientFamilies {
            connections: r.counters(
                "connections_total",
                "Connections accepted.",
                &["listener", "protocol"],
            ),
            rejected: r.counters(
                "connections_rejected_total",
                "Connections closed at once.",
                &["listener", "reason"],
            ),
            requests: r.counters(
                "requests_total",
                "Exchanges that ended, once each.",
                &["listener", "route", "method", "code", "source"],
            ),
            duration: r.histograms(
                "request_duration_seconds",
                "First byte of the request to the last of the answer.",
                &lr,
            ),
            requests_in_flight: r.int_gauges(
                "requests_in_flight",
                "Exchanges under way.",
                &["listener"],
            ),
            request_bytes: r.counters("request_bytes_total", "Bytes of request bodies.", &lr),
            response_bytes: r.counters("response_bytes_total", "Bytes of answers' bodies.", &lr),
            errors: r.counters(
                "errors_total",
                "Exchanges that ended by a cause of ours.",
                &["route", "reason"],
            ),
        }
    }
}

/// What is counted of upstreams as a whole.
pub(super) struct UpstreamFamilies {
    pub(super) retries: IntCounterVec,
    pub(super) affinity: IntCounterVec,
    pub(super) maintenance: IntGaugeVec,
    pub(super) maintenance_answers: IntCounterVec,
    pub(super) maintenance_ws: IntGaugeVec,
    pub(super) parked: IntCounterVec,
    pub(super) parked_for: HistogramVec,
    pub(super) pinned: IntGaugeVec,
    pub(super) dialogs_closed: IntCounterVec,
}

impl UpstreamFamilies {
    pub(super) fn new(r: &Register<'_>) -> UpstreamFamilies {
        UpstreamFamilies {
            retries: r.counters(
                "upstream_retries_total",
                "Attempts that were repeated.",
                &["upstream", "reason"],
            ),
            affinity: r.counters(
                "upstream_affinity_total",
                "Requests of flows that live in one node's memory.",
                &["upstream", "flow", "outcome"],
            ),
            maintenance: r.int_gauges(
                "maintenance",
                "1 while an upstream is under maintenance.",
                &["upstream"],
            ),
            maintenance_answers: r.counters(
                "maintenance_answers_total",
                "Requests answered by maintenance.",
                &["upstream", "kind"],
            ),
            maintenance_ws: r.int_gauges(
                "maintenance_ws_open",
                "WebSockets that cobalance itself keeps open during maintenance.",
                &["upstream"],
            ),
            pinned: r.int_gauges(
                "pinned",
                "1 while one node of an upstream is pinned, to serve alone.",
                &["upstream"],
            ),
            parked: r.counters(
                "parked_total",
                "Exchanges that met no eligible node.",
                &["upstream", "kind", "outcome"],
            ),
            parked_for: r.histograms(
                "parked_seconds",
                "Time that exchanges were parked.",
                &["upstream", "kind"],
            ),
            dialogs_closed: r.counters(
                "ws_dialogs_closed_total",
                "Pages that came back and were sent what takes NocoBase's dialog away.",
                &["upstream"],
            ),
        }
    }
}

/// What is counted of the spool, which is the process's.
pub(super) fn spool_metrics(r: &Register<'_>) -> SpoolMetrics {
    let refused = r.counters(
        "spool_refused_total",
        "Slow uploads that could not be spooled to their end.",
        &["reason"],
    );
    let bytes = r.int_gauges("spool_bytes", "Bytes that are spooled.", &["place"]);
    let bodies = r.int_gauges("spool_bodies", "Bodies that are in the spool.", &[]);
    SpoolMetrics {
        spooled: r.counter("spooled_total", "Uploads that were spooled because they were slow."),
        bodies: bodies.with_label_values::<&str>(&[]),
        bytes: ["memory", "file"].map(|place| bytes.with_label_values(&[place])),
        refused: SPOOL_REFUSALS.map(|reason| refused.with_label_values(&[reason])),
    }
}

/// What is counted of nodes.
pub(super) struct NodeFamilies {
    pub(super) upstream_requests: IntCounterVec,
    pub(super) attempts: IntCounterVec,
    pub(super) connect: HistogramVec,
    pub(super) head: HistogramVec,
    pub(super) response: HistogramVec,
    pub(super) pool_events: IntCounterVec,
    pub(super) ws_opened: IntCounterVec,
    pub(super) ws_closed: IntCounterVec,
    pub(super) ws_moved: IntCounterVec,
    pub(super) ws_dialogs: IntCounterVec,
    pub(super) ws_bytes: IntCounterVec,
    pub(super) ws_duration: HistogramVec,
}

impl NodeFamilies {
    pub(super) fn new(r: &Register<'_>) -> NodeFamilies {
        NodeFamilies {
            upstream_requests: r.counters(
                "upstream_requests_total",
                "Heads received from nodes.",
                &["upstream", "node", "code_class"],
            ),
            attempts: r.counters(
                "upstream_attempts_total",
                "Attempts that ended.",
                &["upstream", "node", "result"],
            ),
            connect: r.histograms(
                "upstream_connect_duration_seconds",
                "Time to open a connection.",
                &NODE,
            ),
            head: r.histograms(
                "upstream_response_header_seconds",
                "Request sent to head received.",
                &NODE,
            ),
            response: r.histograms(
                "upstream_response_seconds",
                "Request sent to last byte received.",
                &NODE,
            ),
            pool_events: r.counters(
                "upstream_pool_events_total",
                "What happened in the pools.",
                &["upstream", "node", "event"],
            ),
            ws_opened: r.counters("ws_opened_total", "Tunnels opened.", &NODE),
            ws_closed: r.counters(
                "ws_closed_total",
                "Tunnels closed.",
                &["upstream", "node", "by"],
            ),
            ws_moved: r.counters(
                "ws_moved_total",
                "Tunnels closed with Close 1012, for their clients to come back at another node.",
                &NODE,
            ),
            ws_dialogs: r.counters(
                "ws_maintaining_frames_total",
                "Frames that open NocoBase's dialog, by what became of them.",
                &["upstream", "node", "outcome"],
            ),
            ws_bytes: r.counters(
                "ws_bytes_total",
                "Bytes through tunnels.",
                &["upstream", "node", "direction"],
            ),
            ws_duration: r.histograms("ws_duration_seconds", "Life of tunnels.", &NODE),
        }
    }
}
