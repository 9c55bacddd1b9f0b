//! Outlier detection: taking a node out because live traffic fails there.
//!
//! Data threads count failures in a row ([`FailureRow`]) and report a full row to control, where one
//! [`Ejector`] per upstream decides. Times are since any fixed moment.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OutlierState;

mod kept;
pub mod ratio;

pub use kept::KeptOutlier;

/// Failures count as one row only within this time.
pub const ROW_WINDOW_NS: u64 = 10_000_000_000;
/// No ejection is longer, but for the jitter.
pub const LONGEST: Duration = Duration::from_secs(60);
/// An ejection is longer by up to this share at random, so that nodes ejected together do not come
/// back together.
const JITTER: f64 = 0.2;
/// For each such time without an ejection one is forgotten. It is as long as the longest ejection: a
/// node that fails whenever it is back is never forgiven, one that failed on a bad day is.
const FORGET_ONE_AFTER: Duration = LONGEST;
/// After so long on probation without a safe request that could decide, the node is taken back: an
/// upstream that sees only writes must not lose it for good. It is ejected for longer if that was wrong.
const LONGEST_PROBATION: Duration = Duration::from_secs(30);

/// Failures in a row of one node on one data thread. A success replaces it by the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureRow {
    /// How many.
    pub count: u32,
    /// When the first of them was, in nanoseconds.
    pub first_at_ns: u64,
}

impl FailureRow {
    /// The row with one more failure; a new row when the old one began too long ago.
    #[must_use]
    pub fn failed(self, now_ns: u64) -> Self {
        if self.count == 0 || now_ns.saturating_sub(self.first_at_ns) > ROW_WINDOW_NS {
            return Self { count: 1, first_at_ns: now_ns };
        }
        Self { count: self.count.saturating_add(1), ..self }
    }
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// No head in time.
    Timeout,
    /// The connection broke before the end of the answer.
    Reset,
    /// A 502, 503 or 504 that is no refusal of NocoBase's.
    GatewayError,
    /// Too large a share of all requests, compared with the other nodes'.
    ErrorRatio,
}

impl FailureKind {
    /// Whether a good probe disproves it. A probe also connects and waits for an answer, but its path
    /// stays good while the database behind the others is lost.
    #[must_use]
    pub fn ends_by_probe(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout)
    }

    /// The word for it in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::GatewayError => "gateway_error",
            Self::ErrorRatio => "error_ratio",
        }
    }
}

/// The nodes among which an ejection is considered: the primary ones, or the backups.
#[derive(Clone, Copy, Debug)]
pub struct Tier {
    /// Nodes eligible now, the one in question included.
    pub eligible: usize,
    /// Configured nodes that serve requests (no task nodes).
    pub configured: usize,
    /// Nodes ejected or on probation now.
    pub ejected: usize,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The node is out.
    Eject {
        /// When its probation begins.
        until: Duration,
        /// How many ejections are remembered, this one included.
        count: u32,
    },
    /// The node stays.
    Keep {
        /// Why.
        reason: KeepReason,
    },
}

/// Why a failing node was not ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// Outlier detection is off.
    Off,
    /// It is out already.
    AlreadyOut,
    /// Its tier would have no eligible node left.
    LastEligible,
    /// `max_ejected` are out already.
    MaxEjected,
}

impl KeepReason {
    /// The words for it in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "outlier detection is off",
            Self::AlreadyOut => "it is out already",
            Self::LastEligible => "no other node of its tier is eligible",
            Self::MaxEjected => "max_ejected nodes are out already",
        }
    }
}

/// Decides about ejections for one upstream. Nodes are known by name, so that a reload keeps them.
#[derive(Clone, Debug)]
pub struct Ejector {
    enabled: bool,
    ejection_time: Duration,
    max_ejected: f64,
    nodes: HashMap<String, Record>,
}

/// What is remembered of a node that was ejected.
#[derive(Clone, Copy, Debug)]
struct Record {
    state: OutlierState,
    kind: FailureKind,
    count: u32,
    /// When the present state began, or will have begun: the end of an ejection.
    at: Duration,
}

impl Ejector {
    /// An ejector with nobody ejected. `max_ejected` is a share, 0 to 1.
    #[must_use]
    pub fn new(enabled: bool, ejection_time: Duration, max_ejected: f64) -> Self {
        Self { enabled, ejection_time, max_ejected, nodes: HashMap::new() }
    }

    /// Takes a reloaded file's values; who is out stays out for the time it was given.
    pub fn reconfigure(&mut self, enabled: bool, ejection_time: Duration, max_ejected: f64) {
        self.enabled = enabled;
        self.ejection_time = ejection_time;
        self.max_ejected = max_ejected;
    }

    /// Forgets nodes that are no longer configured.
    pub fn retain(&mut self, mut is_configured: impl FnMut(&str) -> bool) {
        self.nodes.retain(|name, _| is_configured(name));
    }

    /// Forgets a node: another one has its name now.
    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// Decides whether a node with a full row of failures is ejected. `jitter` is 0 to 1 at random.
    ///
    /// Never the last eligible node of its tier, and never more than [`most_ejected`] at once.
    pub fn consider(
        &mut self,
        node: &str,
        kind: FailureKind,
        tier: &Tier,
        now: Duration,
        jitter: f64,
    ) -> Decision {
        let most = most_ejected(tier.configured, self.max_ejected);
        let reason = if !self.enabled {
            KeepReason::Off
        } else if self.state(node) != OutlierState::In {
            KeepReason::AlreadyOut
        } else if tier.eligible <= 1 {
            KeepReason::LastEligible
        } else if tier.ejected >= most {
            KeepReason::MaxEjected
        } else {
            return self.eject(node, kind, now, jitter);
        };
        Decision::Keep { reason }
    }

    /// Notices that time has passed; returns the node's state if that changed it. An ejection that is
    /// over becomes probation, and a probation that nothing decided ends.
    pub fn tick(&mut self, node: &str, now: Duration) -> Option<OutlierState> {
        let record = self.nodes.get_mut(node)?;
        let (state, at) = match record.state {
            OutlierState::Ejected if now >= record.at => (OutlierState::Probation, now),
            OutlierState::Probation if now >= record.at + LONGEST_PROBATION => {
                (OutlierState::In, now)
            }
            _ => return None,
        };
        (record.state, record.at) = (state, at);
        Some(state)
    }

    /// A probe was good. Returns true if that ended the ejection or the probation: only where
    /// connecting or waiting had failed ([`FailureKind::ends_by_probe`]).
    pub fn good_probe(&mut self, node: &str, now: Duration) -> bool {
        match self.nodes.get_mut(node) {
            Some(record) if record.state != OutlierState::In && record.kind.ends_by_probe() => {
                (record.state, record.at) = (OutlierState::In, now);
                true
            }
            _ => false,
        }
    }

    /// The real request that was sent to a node on probation ended, well or with `Err` of what
    /// failed. Returns `None` if the node was not on probation, else its new state; after a failure it
    /// is out again and for longer, whatever the limits, because it was not eligible anyway.
    pub fn probation_result(
        &mut self,
        node: &str,
        result: Result<(), FailureKind>,
        now: Duration,
        jitter: f64,
    ) -> Option<OutlierState> {
        let record = self.nodes.get_mut(node)?;
        if record.state != OutlierState::Probation {
            return None;
        }
        match result {
            Ok(()) => (record.state, record.at) = (OutlierState::In, now),
            Err(kind) => {
                self.eject(node, kind, now, jitter);
            }
        }
        Some(self.state(node))
    }

    /// The node's state as of the last call that changed it.
    #[must_use]
    pub fn state(&self, node: &str) -> OutlierState {
        self.nodes.get(node).map_or(OutlierState::In, |record| record.state)
    }

    /// Why and until when the node is ejected, if it is.
    #[must_use]
    pub fn ejection(&self, node: &str) -> Option<(FailureKind, Duration)> {
        let record = self.nodes.get(node)?;
        (record.state == OutlierState::Ejected).then_some((record.kind, record.at))
    }

    fn eject(&mut self, node: &str, kind: FailureKind, now: Duration, jitter: f64) -> Decision {
        let count = 1 + self.nodes.get(node).map_or(0, |record| record.remembered(now));
        let time = self.ejection_time.saturating_mul(count).min(LONGEST);
        let until = now + time.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0));
        let record = Record { state: OutlierState::Ejected, kind, count, at: until };
        self.nodes.insert(node.to_owned(), record);
        Decision::Eject { until, count }
    }
}

impl Record {
    /// Ejections that still count, after the quiet time since the node is back.
    fn remembered(&self, now: Duration) -> u32 {
        if self.state != OutlierState::In {
            return self.count;
        }
        let quiet = now.saturating_sub(self.at).as_secs() / FORGET_ONE_AFTER.as_secs();
        self.count.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX))
    }
}

/// How many of `configured` nodes may be out at once: the share rounded down, but one as soon as there
/// are two, because a limit that never allows an ejection is none; nothing if the share is 0.
#[must_use]
pub fn most_ejected(configured: usize, max_ejected: f64) -> usize {
    if max_ejected <= 0.0 || configured < 2 {
        return 0;
    }
    ((configured as f64 * max_ejected) as usize).max(1)
}

#[cfg(test)]
mod tests;
