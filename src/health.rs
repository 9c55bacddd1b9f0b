//! Whether a node may be picked: what the operator wants, what probes say, what live traffic says.
//!
//! The three are axes that change on their own. They live in shared atomics as `u8`, written only on
//! change; what people see is the first that holds of a fixed order ([`Shown`]).

use serde::{Deserialize, Serialize};

mod checker;
pub mod lag;
pub mod outlier;
mod verdict;

pub use checker::{Change, Checker, Circumstances, KeptHealth};
pub use verdict::{Verdict, classify};

/// Gives an enum its `u8` in both directions. An unknown number reads as the fallback, which is the
/// harmless one: it can only come from a mistake of ours, and must not stop a data thread.
macro_rules! stored_as_u8 {
    ($name:ident, $($variant:ident),+; else $fallback:ident) => {
        impl From<$name> for u8 {
            fn from(state: $name) -> u8 {
                state as u8
            }
        }

        impl From<u8> for $name {
            fn from(byte: u8) -> Self {
                [$($name::$variant),+].into_iter().find(|s| *s as u8 == byte).unwrap_or($name::$fallback)
            }
        }
    };
}

/// What the operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OperatorState {
    /// It may serve.
    #[default]
    Ready,
    /// No new work; what runs may finish.
    Draining,
    /// `disabled = true`.
    Disabled,
    /// No new work, as while draining: another node is pinned.
    Aside,
}

/// What the probes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum HealthState {
    /// No verdict yet that counts: no traffic.
    #[default]
    Unchecked,
    /// It answers as it should, or has no health check.
    Up,
    /// It says that it is starting.
    Starting,
    /// It says that a command runs.
    Maintaining,
    /// It does not answer, or not as it should.
    Down,
}

/// What live traffic says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum OutlierState {
    /// Nothing against it.
    #[default]
    In,
    /// Too many failures: no traffic for a while.
    Ejected,
    /// The while is over: one safe request at a time decides.
    Probation,
}

stored_as_u8!(OperatorState, Ready, Draining, Disabled, Aside; else Ready);
stored_as_u8!(HealthState, Unchecked, Up, Starting, Maintaining, Down; else Unchecked);
stored_as_u8!(OutlierState, In, Ejected, Probation; else In);

impl HealthState {
    /// The word for it in status, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Maintaining => "maintaining",
            Self::Down => "down",
        }
    }
}

/// What people see of a node: the first that holds, in the order of [`Shown::of`]. The numbers are
/// the metric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shown {
    /// See [`HealthState::Down`].
    Down = 0,
    /// See [`HealthState::Unchecked`].
    Unchecked = 1,
    /// See [`HealthState::Starting`].
    Starting = 2,
    /// See [`HealthState::Maintaining`].
    Maintaining = 3,
    /// Ejected, or on probation after it.
    Ejected = 4,
    /// See [`OperatorState::Draining`] and [`OperatorState::Aside`].
    Draining = 5,
    /// See [`OperatorState::Disabled`].
    Disabled = 6,
    /// It may be picked.
    Up = 7,
}

impl Shown {
    /// The first that holds of disabled, draining, maintaining, starting, down, unchecked, ejected, up.
    #[must_use]
    pub fn of(operator: OperatorState, health: HealthState, outlier: OutlierState) -> Self {
        match (operator, health, outlier) {
            (OperatorState::Disabled, _, _) => Self::Disabled,
            (OperatorState::Draining | OperatorState::Aside, _, _) => Self::Draining,
            (_, HealthState::Maintaining, _) => Self::Maintaining,
            (_, HealthState::Starting, _) => Self::Starting,
            (_, HealthState::Down, _) => Self::Down,
            (_, HealthState::Unchecked, _) => Self::Unchecked,
            (_, _, OutlierState::Ejected | OutlierState::Probation) => Self::Ejected,
            (OperatorState::Ready, HealthState::Up, OutlierState::In) => Self::Up,
        }
    }

    /// The word for it in status, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Starting => "starting",
            Self::Maintaining => "maintaining",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Up => "up",
        }
    }

    /// The number in the metric of node states.
    #[must_use]
    pub fn metric(self) -> u8 {
        self as u8
    }

    /// Whether such a node may be picked. It says nothing of backup nodes, full nodes or roles.
    #[must_use]
    pub fn is_eligible(self) -> bool {
        self == Self::Up
    }
}

/// Whether a request may go to this node when none is eligible. `checker_allows` is
/// [`Checker::may_fail_open`]; the node must be a primary one that serves, which the caller knows.
#[must_use]
pub fn may_fail_open(operator: OperatorState, checker_allows: bool) -> bool {
    operator == OperatorState::Ready && checker_allows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_their_number() {
        for byte in 0..=u8::MAX {
            let (operator, health, outlier): (OperatorState, HealthState, OutlierState) =
                (byte.into(), byte.into(), byte.into());
            assert_eq!(u8::from(operator), if byte < 4 { byte } else { 0 });
            assert_eq!(u8::from(health), if byte < 5 { byte } else { 0 });
            assert_eq!(u8::from(outlier), if byte < 3 { byte } else { 0 });
        }
    }

    #[test]
    fn the_first_that_holds_is_shown() {
        use {HealthState as H, OperatorState as O, OutlierState as X};
        let cases = [
            (O::Disabled, H::Maintaining, X::Ejected, "disabled", 6),
            (O::Draining, H::Maintaining, X::Ejected, "draining", 5),
            (O::Aside, H::Up, X::In, "draining", 5),
            (O::Ready, H::Maintaining, X::Ejected, "maintaining", 3),
            (O::Ready, H::Starting, X::Ejected, "starting", 2),
            (O::Ready, H::Down, X::Ejected, "down", 0),
            (O::Ready, H::Unchecked, X::Ejected, "unchecked", 1),
            (O::Ready, H::Up, X::Ejected, "ejected", 4),
            (O::Ready, H::Up, X::Probation, "ejected", 4),
            (O::Ready, H::Up, X::In, "up", 7),
        ];
        for (operator, health, outlier, word, number) in cases {
            let shown = Shown::of(operator, health, outlier);
            assert_eq!((shown.as_str(), shown.metric()), (word, number));
            assert_eq!(shown.is_eligible(), word == "up");
        }
    }

    #[test]
    fn only_ready_nodes_fail_open() {
        assert!(may_fail_open(OperatorState::Ready, true));
        assert!(!may_fail_open(OperatorState::Ready, false));
        assert!(!may_fail_open(OperatorState::Draining, true));
        assert!(!may_fail_open(OperatorState::Disabled, true));
    }
}
