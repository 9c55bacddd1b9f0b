//! Handles of the metrics of one listener, route, upstream or node.

use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, IntCounter, IntGauge};

use super::Metrics;
use super::labels::*;
use crate::error::Cause;

/// Handles of a listener.
pub struct ListenerMetrics {
    /// Accepted connections, of HTTP/1 and of HTTP/2. What ends before it is known counts as the first.
    pub connections: [IntCounter; 2],
    /// Closed at once because `max_connections` were open.
    pub rejected_limit: IntCounter,
    /// Connections that were ended for a flood, by [`Flood`](crate::http2::watch::Flood).
    pub http2_floods: super::http2::Floods,
    /// Closed because its client had `max_connections_per_client` open.
    pub rejected_client_limit: IntCounter,
    /// Closed because its client is denied, or not allowed.
    pub rejected_denied: IntCounter,
    pub(super) in_flight: IntGauge,
}

impl ListenerMetrics {
    /// Counts an exchange while the result lives, whatever ends it.
    pub fn count_in_flight(&self) -> Counting {
        self.in_flight.inc();
        Counting(self.in_flight.clone())
    }
}

/// Something that is counted while it lives.
pub struct Counting(pub(super) IntGauge);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Codes 100 to 599 of one method, by one source.
pub(super) type Codes = Box<[OnceLock<IntCounter>]>;

/// Handles of a route on a listener. The counters by method, code and source are made when first seen:
/// all of them at once would be 9,000 a route.
pub struct RouteMetrics {
    pub(super) metrics: Arc<Metrics>,
    pub(super) listener: Box<str>,
    pub(super) route: Box<str>,
    pub(super) requests: [[OnceLock<Codes>; METHODS.len()]; 2],
    /// First byte of the request to the last of the answer.
    pub duration: Histogram,
    /// Bytes of request bodies.
    pub request_bytes: IntCounter,
    /// Bytes of answers' bodies.
    pub response_bytes: IntCounter,
}

impl RouteMetrics {
    /// Counts one exchange.
    pub fn count(&self, method: usize, status: u16, source: Source) {
        let code = usize::from(status.clamp(100, 599)) - 100;
        let codes = self.requests[source as usize][method]
            .get_or_init(|| (0..500).map(|_| OnceLock::new()).collect());
        codes[code]
            .get_or_init(|| {
                let source = if source == Source::Proxy { "proxy" } else { "upstream" };
                self.metrics.clients.requests.with_label_values(&[
                    &self.listener,
                    &self.route,
                    METHODS[method],
                    status.clamp(100, 599).to_string().as_str(),
                    source,
                ])
            })
            .inc();
    }

    /// Counts a cause of ours. Not on the way of a request that goes well, so the look-up is no matter.
    pub fn error(&self, cause: &Cause) {
        self.metrics.clients.errors.with_label_values(&[&*self.route, cause.reason()]).inc();
        if let Cause::RateLimited(limited) = cause {
            self.metrics.limits.limited.with_label_values(&[&*limited.limit]).inc();
        }
    }
}

/// Handles of an upstream.
pub struct UpstreamMetrics {
    /// By [`RetryReason`].
    pub retries: [IntCounter; 6],
    /// Requests of flows, by [`FLOWS`] and [`AffinityOutcome`].
    pub affinity: [[IntCounter; 3]; 4],
    /// Exchanges in the queue.
    pub queue: IntGauge,
    /// What is parked: requests, and WebSocket upgrades.
    pub parked: [ParkMetrics; 2],
    /// 1 while it is under maintenance.
    pub maintenance: IntGauge,
    /// Answers of maintenance, by [`MaintenanceKind`].
    pub maintenance_answers: [IntCounter; 4],
    pub(super) maintenance_ws: IntGauge,
    /// 1 while a node of it is pinned.
    pub pinned: IntGauge,
    /// Pages that were sent what takes NocoBase's dialog away.
    pub dialogs_closed: IntCounter,
}

/// Handles of what is parked at an upstream.
pub struct ParkMetrics {
    /// Parked now.
    pub now: IntGauge,
    /// Time parked, in seconds.
    pub waited: Histogram,
    /// By [`ParkOutcome`].
    pub outcomes: [IntCounter; 4],
}

impl ParkMetrics {
    /// Counts a parked exchange while the result lives.
    pub fn count(&self) -> Counting {
        self.now.inc();
        Counting(self.now.clone())
    }

    /// Counts how it ended.
    pub fn ended(&self, outcome: ParkOutcome) {
        self.outcomes[outcome as usize].inc();
    }
}

impl UpstreamMetrics {
    /// Counts an exchange in the queue while the result lives.
    pub fn count_queued(&self) -> Counting {
        self.queue.inc();
        Counting(self.queue.clone())
    }

    /// Counts a WebSocket that is held by ourselves while the result lives.
    pub fn count_held(&self) -> Counting {
        self.maintenance_ws.inc();
        Counting(self.maintenance_ws.clone())
    }

    /// WebSockets that are held by ourselves.
    pub fn held(&self) -> i64 {
        self.maintenance_ws.get()
    }
}

/// Handles of the spool.
#[derive(Clone)]
pub struct SpoolMetrics {
    /// Uploads that were found too slow to go to a node as they come, and kept.
    pub spooled: IntCounter,
    /// Bodies of which something is kept.
    pub bodies: IntGauge,
    /// Bytes in memory, and in files.
    pub bytes: [IntGauge; 2],
    /// Slow uploads that could not be kept, by [`SpoolRefusal`].
    pub refused: [IntCounter; 4],
}

impl SpoolMetrics {
    /// Counts a body while the result lives.
    pub fn count(&self) -> Counting {
        self.bodies.inc();
        Counting(self.bodies.clone())
    }
}

/// Handles of a node.
pub struct NodeMetrics {
    /// Heads by class.
    pub requests: [IntCounter; 5],
    /// Attempts by [`AttemptResult`].
    pub attempts: [IntCounter; 7],
    /// Time to connect, in seconds.
    pub connect: Histogram,
    /// Time to the head, in seconds.
    pub head: Histogram,
    /// Time to the end, in seconds.
    pub response: Histogram,
    /// By [`PoolEvent`].
    pub pool_events: [IntCounter; 5],
    /// Tunnels opened.
    pub ws_opened: IntCounter,
    /// Tunnels closed, by [`ClosedBy`].
    pub ws_closed: [IntCounter; 6],
    /// Tunnels moved to other nodes.
    pub ws_moved: IntCounter,
    /// Frames that open NocoBase's dialog, by [`DialogOutcome`].
    pub ws_dialogs: [IntCounter; 5],
    /// Bytes towards the node, and back.
    pub ws_bytes: [IntCounter; 2],
    /// Life of tunnels, in seconds.
    pub ws_duration: Histogram,
}

impl NodeMetrics {
    /// Counts a head.
    pub fn head_received(&self, status: u16) {
        self.requests[usize::from(status / 100).clamp(1, 5) - 1].inc();
    }

    /// Counts the end of an attempt.
    pub fn attempt(&self, result: AttemptResult) {
        self.attempts[result as usize].inc();
    }

    /// Counts a pool event.
    pub fn pool(&self, event: PoolEvent) {
        self.pool_events[event as usize].inc();
    }
}
