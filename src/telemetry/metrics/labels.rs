//! The closed lists of label values.

/// Methods that have a label of their own; anything else is `OTHER`.
pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "OTHER"];

/// The label of a method, as an index into [`METHODS`].
pub fn method_index(method: &[u8]) -> usize {
    METHODS.iter().position(|known| known.as_bytes() == method).unwrap_or(METHODS.len() - 1)
}

/// Who made an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A node.
    Upstream,
    /// We.
    Proxy,
}

/// How an attempt ended, for its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// A head came.
    Ok,
    /// No connection.
    Connect,
    /// The connection ended before a head.
    Reset,
    /// No head in time.
    Timeout,
    /// A proven refusal.
    Maintaining,
    /// An answer that breaks HTTP.
    Invalid,
    /// The client left first.
    Cancelled,
}

impl AttemptResult {
    /// All of them, in the order of their discriminants.
    pub const ALL: [AttemptResult; 7] = [
        AttemptResult::Ok,
        AttemptResult::Connect,
        AttemptResult::Reset,
        AttemptResult::Timeout,
        AttemptResult::Maintaining,
        AttemptResult::Invalid,
        AttemptResult::Cancelled,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptResult::Ok => "ok",
            AttemptResult::Connect => "connect",
            AttemptResult::Reset => "reset",
            AttemptResult::Timeout => "timeout",
            AttemptResult::Maintaining => "maintaining",
            AttemptResult::Invalid => "invalid",
            AttemptResult::Cancelled => "cancelled",
        }
    }
}

/// What a node says over its `/ws`: what it says of its state, what is about something else, what is not
/// NocoBase's, and what is too long to be read.
pub const FRAME_KINDS: [&str; 6] =
    ["running", "ending", "not_serving", "other", "garbage", "too_large"];

/// What happened in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// A connection was opened.
    New,
    /// A kept one was used again.
    Reused,
    /// A kept one was too old.
    Expired,
    /// The peek before reuse found it closed or dirty.
    StaleDetected,
    /// It closed between the peek and the answer.
    StaleRace,
}

/// Labels of [`PoolEvent`], in the order of its discriminants.
pub const POOL_EVENTS: [&str; 5] = ["new", "reused", "expired", "stale_detected", "stale_race"];

/// Who ended a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The client.
    Client,
    /// The node.
    Node,
    /// We, because the node or the process is drained.
    Drain,
    /// Nobody said anything for too long.
    Idle,
    /// A connection broke.
    Error,
    /// We, because the client sent too long a message.
    TooLarge,
}

/// Labels of [`ClosedBy`], in the order of its discriminants.
pub const CLOSED_BY: [&str; 6] = ["client", "node", "drain", "idle", "error", "too_large"];

/// Why an attempt was repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// Nothing had been sent.
    Unsent,
    /// A proven refusal.
    Refused,
    /// Sent, no byte back, and safe to repeat.
    Reset,
    /// A kept connection closed at the moment of its reuse.
    StaleRace,
    /// Sent, safe to repeat, and its node fell silent.
    Rescue,
    /// Sent, safe to repeat, and its node was late: another one was asked as well.
    Hedged,
}

/// Labels of [`RetryReason`], in the order of its discriminants.
pub const RETRY_REASONS: [&str; 6] =
    ["unsent", "refused", "reset", "stale_race", "rescue", "hedged"];

/// Flows that live in one node's memory, in the order of `nocobase::Flow`.
pub const FLOWS: [&str; 4] = ["backup", "logs", "conversation", "admin"];

/// Where a flow's request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityOutcome {
    /// No node was remembered.
    New,
    /// To the node that is remembered.
    Kept,
    /// To another one, because that takes nothing now.
    Lost,
}

impl AffinityOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [AffinityOutcome; 3] =
        [AffinityOutcome::New, AffinityOutcome::Kept, AffinityOutcome::Lost];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            AffinityOutcome::New => "new",
            AffinityOutcome::Kept => "kept",
            AffinityOutcome::Lost => "lost",
        }
    }
}

/// What became of an exchange while no node was eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkOutcome {
    /// A node came up.
    Released,
    /// None did in time, or the process ends.
    Timeout,
    /// There was no room to park it.
    Full,
    /// The client left.
    Left,
}

/// Labels of [`ParkOutcome`], in the order of its discriminants.
pub const PARK_OUTCOMES: [&str; 4] = ["released", "timeout", "full", "left"];

/// Why a slow upload was not spooled, or no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolRefusal {
    /// All bodies together hold as much as they may.
    Full,
    /// The file could not be made or written.
    Error,
    /// The body is larger than one may be.
    TooLarge,
    /// The bodies of its client hold as much as they may.
    ClientShare,
}

/// Labels of [`SpoolRefusal`], in the order of its discriminants.
pub const SPOOL_REFUSALS: [&str; 4] = ["full", "error", "too_large", "client_share"];

/// Classes of status codes.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a client gets while an upstream is under maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintenanceKind {
    /// A page for people.
    Page,
    /// NocoBase's JSON.
    Api,
    /// A line of text, for what is neither.
    Plain,
    /// A WebSocket that we keep open.
    Ws,
}

/// Labels of [`MaintenanceKind`].
pub const MAINTENANCE_KINDS: [&str; 4] = ["page", "api", "plain", "ws"];

/// What became of a frame that opens NocoBase's dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogOutcome {
    /// Its page did not get it, and is moved.
    Withheld,
    /// No other node was eligible.
    Alone,
    /// The page is of an administrator who works on the app.
    AtWork,
    /// It is of a sub-app, on a node that serves.
    SubApp,
    /// The page was moved for the same reason a moment ago, and nobody else says that the node ends.
    Again,
}

/// Labels of [`DialogOutcome`], in the order of its discriminants.
pub const DIALOG_OUTCOMES: [&str; 5] = ["withheld", "alone", "at_work", "sub_app", "again"];
