//! One node as all threads see it: states that control writes, and a padded cell of counters for each
//! data thread, written by its owner alone and summed by readers.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use super::NodeKey;
use super::claim::Turn;
use crate::balance::{Load, ewma, silence};
use crate::clock;
use crate::health::outlier::ratio::Counts;
use crate::health::{HealthState, OperatorState, OutlierState, Shown, lag};
use crate::net::Address;
use crate::telemetry::metrics::NodeMetrics;

/// Failures in a row count within this window; older ones are forgotten.
const FAILURE_WINDOW_NS: u64 = 10_000_000_000;

mod probes;

/// One NocoBase process that serves.
pub struct Node {
    /// What makes it the same node in the next snapshot.
    pub key: NodeKey,
    /// Its name in metrics and `status`.
    pub label: String,
    /// Hash of its label: what this process remembers it by, as long as it lasts.
    pub identity: u64,
    /// Its metrics.
    pub metrics: NodeMetrics,
    operator: AtomicU8,
    health: AtomicU8,
    outlier: AtomicU8,
    /// Set while the node may be used although it is not up, because nothing else is left.
    fail_open: AtomicBool,
    probation: Turn,
    /// Exports and imports in flight, over all threads.
    bulk: AtomicU32,
    /// Places of a node with a limit that are taken: apart from what every pick reads.
    slots: CachePadded<AtomicU32>,
    /// It says of itself that it does not serve, or soon will not, and then whether its port is closed.
    not_serving: AtomicBool,
    port_closed: AtomicBool,
    merged_latency_ns: AtomicU64,
    /// What was learnt of its latency before is of a time that is over.
    forget_before_ns: AtomicU64,
    last_good_probe_ns: AtomicU64,
    /// When a probe last found nobody there, and when the first of those in a row did.
    last_lost_probe_ns: AtomicU64,
    /// When the last probe began that waited in vain.
    silent_probe_ns: AtomicU64,
    fell_ns: AtomicU64,
    failures: AtomicU32,
    first_failure_ns: AtomicU64,
    fresh_only_until_ns: AtomicU64,
    keepalive_hint_s: AtomicU64,
    /// When its slow start began; 0 is none.
    slow_since_ns: AtomicU64,
    /// The lag of its event loop that control last measured, and when.
    lag_ns: AtomicU64,
    lag_at_ns: AtomicU64,
    cells: Box<[CachePadded<Cell>]>,
}

/// What one data thread knows and does with one node. Only that thread writes.
#[derive(Default)]
pub struct Cell {
    /// Exchanges whose answer is not complete.
    pub in_flight: AtomicU32,
    /// Of these, the ones that wait for a head very long while the node answers others.
    pub lingering: AtomicU32,
    /// Open tunnels.
    pub tunnels: AtomicU32,
    /// Idle connections in the pool.
    pub idle: AtomicU32,
    /// Connections that carry an exchange or a tunnel.
    pub active: AtomicU32,
    /// Requests that were sent and have no head yet.
    waiting: AtomicU32,
    /// Peak-EWMA of the head time, and when it was last changed.
    latency_ns: AtomicU64,
    latency_at_ns: AtomicU64,
    /// When a head last came.
    last_head_ns: AtomicU64,
    /// When the first request was sent that has had no head and is younger than the last head; 0 is none.
    first_sent_ns: AtomicU64,
    /// The same for heads to real traffic alone: a good probe does not clear it.
    unanswered_ns: AtomicU64,
    /// When the last of those that waited gave up, since when nobody waits; 0 while somebody does.
    given_up_ns: AtomicU64,
    /// Requests that ended with a verdict on the node, and those that speak against it; both wrap.
    judged: AtomicU32,
    failed: AtomicU32,
}

impl Cell {
    /// Adds to a counter that only this thread writes; cheaper than a locked add.
    pub fn add(counter: &AtomicU32, by: i32) {
        counter.store(counter.load(Relaxed).wrapping_add_signed(by), Relaxed);
    }
}

impl Node {
    /// A node that nothing is known of.
    pub(super) fn new(key: NodeKey, label: String, threads: usize, metrics: NodeMetrics) -> Node {
        let identity = xxhash_rust::xxh3::xxh3_64(label.as_bytes());
        Node {
            key,
            label,
            identity,
            metrics,
            operator: AtomicU8::new(OperatorState::Ready as u8),
            health: AtomicU8::new(HealthState::Unchecked as u8),
            outlier: AtomicU8::new(OutlierState::In as u8),
            fail_open: AtomicBool::new(false),
            probation: Turn::default(),
            bulk: AtomicU32::new(0),
            slots: CachePadded::default(),
            not_serving: AtomicBool::new(false),
            port_closed: AtomicBool::new(false),
            merged_latency_ns: AtomicU64::new(0),
            forget_before_ns: AtomicU64::new(0),
            last_good_probe_ns: AtomicU64::new(0),
            last_lost_probe_ns: AtomicU64::new(0),
            silent_probe_ns: AtomicU64::new(0),
            fell_ns: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            first_failure_ns: AtomicU64::new(0),
            fresh_only_until_ns: AtomicU64::new(0),
            keepalive_hint_s: AtomicU64::new(0),
            slow_since_ns: AtomicU64::new(0),
            lag_ns: AtomicU64::new(0),
            lag_at_ns: AtomicU64::new(0),
            cells: (0..threads).map(|_| CachePadded::new(Cell::default())).collect(),
        }
    }

    /// Where it is; none while its name has never resolved.
    pub fn address(&self) -> Option<&Address> {
        self.key.address.as_ref()
    }

    /// The counters of one data thread.
    pub fn cell(&self, thread: usize) -> &Cell {
        &self.cells[thread]
    }

    /// The state an operator is shown.
    pub fn shown(&self) -> Shown {
        Shown::of(self.operator(), self.health(), self.outlier())
    }

    /// The operator's axis.
    pub fn operator(&self) -> OperatorState {
        self.operator.load(Relaxed).into()
    }

    /// The axis of health checks.
    pub fn health(&self) -> HealthState {
        self.health.load(Relaxed).into()
    }

    /// The axis of outlier detection.
    pub fn outlier(&self) -> OutlierState {
        self.outlier.load(Relaxed).into()
    }

    /// Control's: the operator's axis.
    pub fn set_operator(&self, state: OperatorState) {
        self.operator.store(state as u8, Relaxed);
    }

    /// Control's: the axis of health checks.
    pub fn set_health(&self, state: HealthState) {
        if state == HealthState::Up && self.health() != HealthState::Up {
            self.forget_latency();
        }
        if matches!(state, HealthState::Up | HealthState::Unchecked) {
            self.not_serving.store(false, Relaxed);
            self.port_closed.store(false, Relaxed);
        }
        self.health.store(state as u8, Relaxed);
    }

    /// Control's: the node says that it does not serve, or soon will not; until it is up.
    pub fn set_not_serving(&self) {
        self.port_closed.store(false, Relaxed);
        self.not_serving.store(true, Relaxed);
    }

    /// Control's: nobody listens at its port any more.
    pub fn set_port_closed(&self) {
        self.port_closed.store(true, Relaxed);
    }

    /// Whether it said that it would end, and has closed its port since: a process that waits for its last
    /// sockets to end.
    pub fn has_closed_port(&self) -> bool {
        self.is_not_serving() && self.port_closed.load(Relaxed)
    }

    /// Whether it has said so: its tunnels are better off elsewhere. A node that is merely silent has not.
    pub fn is_not_serving(&self) -> bool {
        self.not_serving.load(Relaxed)
    }

    /// Control's: the axis of outlier detection. Probation begins with its one request untaken.
    pub fn set_outlier(&self, state: OutlierState) {
        // Not where one ends: whoever has just seen it would find its request free once more.
        if state == OutlierState::Probation {
            self.probation.renew();
        }
        self.failures.store(0, Relaxed);
        if state == OutlierState::In && self.outlier() != OutlierState::In {
            self.forget_latency();
        }
        self.outlier.store(state as u8, Relaxed);
    }

    /// A node that comes back is not the one that failed: what its failures fed into the averages would keep
    /// it out of work for a minute.
    fn forget_latency(&self) {
        self.forget_before_ns.store(clock::now_ns(), Relaxed);
        self.merged_latency_ns.store(0, Relaxed);
    }

    /// The average of one thread, decayed to now.
    fn latency_of(&self, cell: &Cell, now_ns: u64) -> u64 {
        let at = cell.latency_at_ns.load(Relaxed);
        if at < self.forget_before_ns.load(Relaxed) {
            return 0;
        }
        ewma::decayed(cell.latency_ns.load(Relaxed), now_ns.saturating_sub(at))
    }

    /// Control's: whether the node may be used when no other is eligible.
    pub fn set_fail_open(&self, allowed: bool) {
        self.fail_open.store(allowed, Relaxed);
    }

    /// Whether the node may be used when no other is eligible.
    pub fn may_fail_open(&self) -> bool {
        self.fail_open.load(Relaxed)
            && self.operator() == OperatorState::Ready
            && self.address().is_some()
    }

    /// Whether new work may go here. A node on probation takes one exchange that is safe to repeat.
    pub fn eligible(&self, safe_to_repeat: bool) -> bool {
        self.health.load(Relaxed) == HealthState::Up as u8
            && self.operator.load(Relaxed) == OperatorState::Ready as u8
            && match self.outlier() {
                OutlierState::In => true,
                OutlierState::Ejected => false,
                OutlierState::Probation => safe_to_repeat && self.awaits_probation(),
            }
            && self.address().is_some()
    }

    /// Whether the node is on probation and nobody has claimed its one request.
    pub fn awaits_probation(&self) -> bool {
        self.outlier() == OutlierState::Probation && self.probation.is_free()
    }

    pub(super) fn probation(&self) -> &Turn {
        &self.probation
    }

    /// Exports and imports in flight on all threads.
    pub fn bulk(&self) -> u32 {
        self.bulk.load(Relaxed)
    }

    pub(super) fn bulk_count(&self) -> &AtomicU32 {
        &self.bulk
    }

    pub(super) fn slots(&self) -> &AtomicU32 {
        &self.slots
    }

    /// A failure of live traffic; true when `limit` came in a row within ten seconds.
    pub fn record_failure(&self, thread: usize, limit: u32, now_ns: u64) -> bool {
        let cell = self.cell(thread);
        Cell::add(&cell.judged, 1);
        Cell::add(&cell.failed, 1);
        if now_ns.saturating_sub(self.first_failure_ns.load(Relaxed)) > FAILURE_WINDOW_NS {
            self.failures.store(0, Relaxed);
        }
        let before = self.failures.fetch_add(1, Relaxed);
        if before == 0 {
            self.first_failure_ns.store(now_ns, Relaxed);
        }
        before + 1 >= limit
    }

    /// A success of live traffic: the row is broken.
    pub fn record_success(&self, thread: usize) {
        Cell::add(&self.cell(thread).judged, 1);
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// What requests have met here on all threads.
    pub fn conduct(&self) -> Counts {
        self.cells.iter().fold(Counts::default(), |sum, cell| Counts {
            requests: sum.requests.wrapping_add(cell.judged.load(Relaxed)),
            failures: sum.failures.wrapping_add(cell.failed.load(Relaxed)),
        })
    }

    /// A request was sent and has no head yet. Each call is followed by one of [`Node::answered`].
    pub fn sent(&self, thread: usize, now_ns: u64) {
        let cell = self.cell(thread);
        Cell::add(&cell.waiting, 1);
        let given_up = cell.given_up_ns.load(Relaxed);
        cell.given_up_ns.store(0, Relaxed);
        let begin = |since: &AtomicU64, last_head_ns: u64| {
            let began = silence::began(last_head_ns, since.load(Relaxed), given_up, now_ns);
            since.store(began, Relaxed);
        };
        // What is older than the last head, on whatever thread that came, says nothing any more.
        begin(&cell.first_sent_ns, self.last_head_ns());
        begin(&cell.unanswered_ns, self.last_traffic_head_ns());
    }

    /// A head came.
    pub fn head_received(&self, thread: usize, now_ns: u64) {
        let cell = self.cell(thread);
        cell.last_head_ns.store(now_ns, Relaxed);
        cell.first_sent_ns.store(0, Relaxed);
        cell.unanswered_ns.store(0, Relaxed);
    }

    /// A request that was sent has its head, or nobody waits for that any more. That the last one gave up is
    /// no sign of life: the silence so far stays, until a head or a good probe.
    pub fn answered(&self, thread: usize, now_ns: u64) {
        let cell = self.cell(thread);
        Cell::add(&cell.waiting, -1);
        if cell.waiting.load(Relaxed) == 0 {
            cell.given_up_ns.store(now_ns, Relaxed);
        }
    }

    /// Feeds a head time, or the penalty of a failure, into this thread's average.
    pub fn observe_latency(&self, thread: usize, sample_ns: u64, median_ns: u64, now_ns: u64) {
        let cell = self.cell(thread);
        let at = cell.latency_at_ns.load(Relaxed);
        let known = at >= self.forget_before_ns.load(Relaxed);
        let before = if known { cell.latency_ns.load(Relaxed) } else { 0 };
        let sample = ewma::clamp_sample(sample_ns, median_ns);
        let value = ewma::observe(before, sample, now_ns.saturating_sub(at));
        cell.latency_ns.store(value, Relaxed);
        cell.latency_at_ns.store(now_ns, Relaxed);
    }

    /// When any thread last had a head, or control a good probe.
    pub fn last_head_ns(&self) -> u64 {
        let heads = self.cells.iter().map(|cell| cell.last_head_ns.load(Relaxed)).max();
        heads.unwrap_or(0).max(self.last_good_probe_ns.load(Relaxed))
    }

    /// When a head to real traffic last came.
    pub fn last_traffic_head_ns(&self) -> u64 {
        self.cells.iter().map(|cell| cell.last_head_ns.load(Relaxed)).max().unwrap_or(0)
    }

    /// Control's: merges the threads' averages. Returns the merged value.
    pub fn merge_latency(&self, now_ns: u64) -> u64 {
        let merged = self.cells.iter().map(|cell| self.latency_of(cell, now_ns)).max().unwrap_or(0);
        self.merged_latency_ns.store(merged, Relaxed);
        merged
    }

    /// Control's, before any data thread runs: the latency that another process knew.
    pub fn inherit_latency(&self, latency_ns: u64, now_ns: u64) {
        for cell in &*self.cells {
            cell.latency_ns.store(latency_ns, Relaxed);
            cell.latency_at_ns.store(now_ns, Relaxed);
        }
        self.merged_latency_ns.store(latency_ns, Relaxed);
    }

    /// The merged latency, in nanoseconds; 0 is unknown.
    pub fn latency_ns(&self) -> u64 {
        self.merged_latency_ns.load(Relaxed)
    }

    /// What a balancer weighs. `thread` sees its own newest latency and the others' merged one.
    pub fn load(&self, thread: usize, weight: u32, now_ns: u64) -> Load {
        let last_head = self.last_head_ns();
        let mut load = Load { weight, ..Load::default() };
        let mut silent = self.probe_silence_ns(last_head, now_ns);
        for cell in &*self.cells {
            load.in_flight += cell.in_flight.load(Relaxed);
            load.lingering += cell.lingering.load(Relaxed);
            load.tunnels += cell.tunnels.load(Relaxed);
            let until = match cell.given_up_ns.load(Relaxed) {
                0 => now_ns,
                given_up => given_up,
            };
            let first_sent = cell.first_sent_ns.load(Relaxed);
            silent = silent.max(silence::silence(last_head, first_sent, until));
        }
        let own = self.latency_of(&self.cells[thread], now_ns);
        load.in_flight = load.in_flight.saturating_sub(load.lingering);
        load.latency_ns = own.max(self.latency_ns()).max(silent).max(self.lag_floor_ns(now_ns));
        load
    }

    /// Control's: a slow start begins now, or ends with 0.
    pub fn set_slow_since(&self, now_ns: u64) {
        self.slow_since_ns.store(now_ns, Relaxed);
    }

    /// Control's: how late the node's event loop was, at `now_ns`.
    pub fn set_lag(&self, lag_ns: u64, now_ns: u64) {
        self.lag_at_ns.store(now_ns, Relaxed);
        self.lag_ns.store(lag_ns, Relaxed);
    }

    /// The least that its latency counts as.
    fn lag_floor_ns(&self, now_ns: u64) -> u64 {
        let elapsed = now_ns.saturating_sub(self.lag_at_ns.load(Relaxed));
        lag::floor(self.lag_ns.load(Relaxed), elapsed)
    }

    /// When its slow start began; 0 is none.
    pub fn slow_since_ns(&self) -> u64 {
        self.slow_since_ns.load(Relaxed)
    }

    /// Since when requests wait, or waited in vain, while none of the real traffic was answered; none while
    /// that is answered.
    pub fn unanswered_since_ns(&self) -> Option<u64> {
        let last_head = self.last_traffic_head_ns();
        let sent = self.cells.iter().map(|cell| cell.unanswered_ns.load(Relaxed));
        sent.filter(|sent| *sent > last_head).min()
    }

    /// Exchanges in flight on all threads.
    pub fn in_flight(&self) -> u32 {
        self.cells.iter().map(|cell| cell.in_flight.load(Relaxed)).sum()
    }

    /// Tunnels on all threads.
    pub fn tunnels(&self) -> u32 {
        self.cells.iter().map(|cell| cell.tunnels.load(Relaxed)).sum()
    }

    /// Idle and active connections on all threads.
    pub fn connections(&self) -> (u32, u32) {
        let sum = |of: fn(&Cell) -> &AtomicU32| {
            self.cells.iter().map(|cell| of(cell).load(Relaxed)).sum()
        };
        (sum(|cell| &cell.idle), sum(|cell| &cell.active))
    }

    /// For the next minute what is unsafe to repeat uses only new connections to this node.
    pub fn distrust_reuse_until(&self, until_ns: u64) {
        self.fresh_only_until_ns.store(until_ns, Relaxed);
    }

    /// Whether what is unsafe to repeat must use a new connection.
    pub fn reuse_distrusted(&self, now_ns: u64) -> bool {
        self.fresh_only_until_ns.load(Relaxed) > now_ns
    }

    /// Keeps the node's `Keep-Alive: timeout=N` for the metric, in seconds.
    pub fn set_keepalive_hint(&self, seconds: u64) {
        if self.keepalive_hint_s.load(Relaxed) != seconds {
            self.keepalive_hint_s.store(seconds, Relaxed);
        }
    }

    /// The last hint, in seconds; 0 is none.
    pub fn keepalive_hint(&self) -> u64 {
        self.keepalive_hint_s.load(Relaxed)
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({}/{})", self.key.upstream, self.label)
    }
}

#[cfg(test)]
mod tests;
