//! What `GET /api/v1/status` tells. Names are part of the contract: they may be added to, not changed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::warnings::Warning;

/// The whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
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
    /// In Unix seconds.
    pub not_before: i64,
    /// In Unix seconds; of the first certificate in its chain that expires.
    pub not_after: i64,
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
    /// Nodes, task nodes included.
    pub nodes: Vec<NodeStatus>,
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
    /// The only node that these reach; none is any.
    pub node: Option<String>,
    /// What everybody else is told.
    pub message: String,
    /// WebSockets that cobalance itself keeps open.
    pub websockets: u64,
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
