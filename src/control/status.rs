//! What `GET /api/v1/status` tells. Names are part of the contract: they may be added to, not changed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::rollback::RolledBack;
use super::warnings::Warning;

/// The whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// The process. 0: an older one, which does not tell.
    #[serde(default)]
    pub pid: u32,
    /// Processes that were upgraded and still finish their work; what they do at nodes is not counted here.
    #[serde(default)]
    pub predecessors: Vec<u32>,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Serving, and not ending.
    pub ready: bool,
    /// The process ends when its work is done.
    pub draining: bool,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// Certificates in use, in the order of the configuration.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// In the order of the configuration.
    pub upstreams: Vec<UpstreamStatus>,
    /// The configuration in use.
    pub config: ConfigStatus,
    /// Misconfigurations that were seen.
    pub warnings: Vec<Warning>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// As bound.
    pub address: String,
    /// Open client connections.
    pub connections: usize,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// As configured.
    pub name: String,
    /// DNS names that it is for.
    pub hosts: Vec<String>,
    /// In Unix seconds; 0 while there is none.
    pub not_before: i64,
    /// In Unix seconds; of the first certificate in its chain that expires. 0 while there is none.
    pub not_after: i64,
    /// How its orders go; none where somebody else keeps its files.
    #[serde(default)]
    pub acme: Option<AcmeStatus>,
}

/// How the orders of a certificate go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeStatus {
    /// Name of the authority.
    pub authority: String,
    /// `valid`; `ordering` by this process; `waiting` for another one that orders; `failing`; or `due`, which
    /// is about to be ordered.
    pub state: String,
    /// When it is ordered next, in Unix seconds; 0: not known, or now.
    pub next_at: i64,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Nodes that may be picked now.
    pub eligible: usize,
    /// Exchanges that are parked now.
    #[serde(default)]
    pub parked: usize,
    /// Median of the nodes' latencies; none while unknown.
    pub median_latency_ms: Option<f64>,
    /// Repeats the retry budget allows now.
    pub retry_budget_remaining: f64,
    /// While the operator keeps clients from it; none is off.
    #[serde(default)]
    pub maintenance: Option<MaintenanceStatus>,
    /// The node that serves alone; none while all do.
    #[serde(default)]
    pub pinned: Option<PinStatus>,
    /// Nodes, task nodes included.
    pub nodes: Vec<NodeStatus>,
    /// What is drained and means no node now: of a name that stands for several, one address is gone.
    #[serde(default)]
    pub drained_absent: Vec<DrainedAbsent>,
}

/// A drained node that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedAbsent {
    /// As it was called.
    pub name: String,
    /// Who drained it.
    pub from: String,
}

/// Maintenance of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceStatus {
    /// When its terms were last set, in Unix seconds.
    pub since: u64,
    /// Who asked for it.
    pub from: String,
    /// Clients that are let through: addresses and networks.
    pub allow: Vec<String>,
    /// Whether browsers are let through that opened a link of `maintenance on --cookie`.
    #[serde(default)]
    pub cookie: bool,
    /// The only node that these reach; none is any.
    pub node: Option<String>,
    /// What everybody else is told.
    pub message: String,
    /// WebSockets that cobalance itself keeps open.
    pub websockets: u64,
}

/// A pinned node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinStatus {
    /// Its name.
    pub node: String,
    /// When it was pinned, in Unix seconds.
    pub since: u64,
    /// Who asked for it.
    pub from: String,
    /// Whether requests can go there now.
    pub serves: bool,
    /// Whether clients are told to wait, because it has not served for longer than they are parked.
    pub turns_away: bool,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where it is; as configured while its name has never resolved.
    pub address: String,
    /// What holds of it: `up`, `down`, `ejected`, …
    pub state: String,
    /// The operator's axis.
    pub operator: String,
    /// The axis of health checks.
    pub health: String,
    /// The axis of outlier detection.
    pub outlier: String,
    /// Since when `state` holds, in Unix seconds.
    pub since: u64,
    /// Why `state` holds.
    pub cause: String,
    /// What the last probe found, or why there is none.
    pub last_check: Option<CheckStatus>,
    /// `connected` while the node tells of itself over a WebSocket, `not_connected`, or `off`. Empty: an
    /// older process.
    #[serde(default)]
    pub watch: String,
    /// 1 to 1000.
    pub weight: u32,
    /// The weight in force: less while the node starts slowly.
    pub effective_weight: f64,
    /// Picked only when no primary node is eligible.
    pub backup: bool,
    /// `serve` or `task`.
    pub role: String,
    /// Requests in flight.
    pub in_flight: u32,
    /// Open tunnels.
    pub tunnels: u32,
    /// Moving average of the head time; none while unknown.
    pub latency_ms: Option<f64>,
    /// How late its event loop was at the last probe; none while unknown.
    pub event_loop_lag_ms: Option<f64>,
}

/// The last probe of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// `good`, `timeout`, `refused`, `status`, `body`, `not_serving` or `garbage`.
    pub result: String,
    /// The verdict in words.
    pub detail: String,
    /// NocoBase's code, as `APP_COMMANDING`.
    pub code: Option<String>,
    /// NocoBase's progress text.
    pub message: Option<String>,
    /// The command NocoBase runs.
    pub command: Option<String>,
    /// How long the probe took.
    pub took_ms: f64,
    /// When it ended, in Unix seconds.
    pub at: u64,
}

/// The configuration in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Configurations put in use so far.
    pub generation: u64,
    /// In Unix seconds.
    pub loaded_at: u64,
    /// The file, if there is one.
    pub file: Option<String>,
    /// How the last reload ended.
    pub last_reload: Option<ReloadStatus>,
    /// The one under watch, else how the last one ended; none before the first reload.
    #[serde(default)]
    pub probation: Option<ProbationStatus>,
    /// Holds while the file is not what runs.
    #[serde(default)]
    pub rolled_back: Option<RolledBack>,
    /// The generation that `cobalance rollback` would go back to.
    #[serde(default)]
    pub rollback_to: Option<u64>,
}

/// A reload on probation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationStatus {
    /// Of the configuration that it is about.
    pub generation: u64,
    /// `watched`, `worse`, `passed`, `too_little_traffic` (which counts as passed), or `replaced` by
    /// another one before there was a verdict.
    pub state: String,
    /// When it began, in Unix seconds.
    pub since: u64,
    /// Seconds of its time that are left; it goes on while too little is known.
    pub left_s: u64,
    /// Requests that it was judged by.
    pub requests: u64,
    /// So many are enough.
    pub enough: u64,
    /// What speaks against it.
    pub found: Vec<String>,
    /// Why it was not rolled back although `auto_rollback` is set.
    pub kept: Option<String>,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// What came of it.
    pub result: ReloadResult,
    /// Why the old configuration stays.
    pub error: Option<String>,
    /// The generation in use since.
    pub generation: u64,
    /// In Unix seconds.
    pub at: u64,
}

/// What came of a reload; also a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    /// A new configuration is in use.
    Ok,
    /// The new one is bad, or cannot be put in use.
    Invalid,
    /// The new one is equal to the old.
    Unchanged,
}

impl ReloadResult {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            ReloadResult::Ok => "ok",
            ReloadResult::Invalid => "invalid",
            ReloadResult::Unchanged => "unchanged",
        }
    }
}

/// Unix time in seconds.
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Nanoseconds as milliseconds; none for 0, which is unknown.
pub fn millis(nanos: u64) -> Option<f64> {
    (nanos != 0).then(|| nanos as f64 / 1e6)
}
