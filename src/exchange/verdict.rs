//! What the end of an attempt means: for its counter, and for its node.

use crate::error::{Cause, Side};
use crate::health::outlier::FailureKind;
use crate::telemetry::metrics::AttemptResult;

/// A request that was lost because the node closed a kept connection at the moment of its reuse.
pub(super) fn is_race(failed: Option<&Cause>, reused: bool) -> bool {
    reused && failed == Some(&Cause::ConnectionTerminated)
}

pub(super) fn attempt_result(cause: &Cause) -> AttemptResult {
    match cause {
        Cause::ConnectFailed(_)
        | Cause::NodeTls(_)
        | Cause::ConnectRefused
        | Cause::ConnectTimeout => AttemptResult::Connect,
        Cause::ConnectionTerminated | Cause::ResponseIncomplete => AttemptResult::Reset,
        Cause::ResponseTimeout | Cause::ResponseBodyTimeout | Cause::Deadline => {
            AttemptResult::Timeout
        }
        Cause::BadResponse(_) | Cause::ResponseHeadTooLarge => AttemptResult::Invalid,
        _ => AttemptResult::Cancelled,
    }
}

/// Whether another node may do what this one did not. It may also have a kept connection, or a port, where we
/// lacked one for this one.
pub(super) fn may_go_better_elsewhere(cause: &Cause, sent: u64) -> bool {
    cause.side() == Side::Node || sent == 0 && matches!(cause, Cause::Internal(_))
}

/// Whether a failed attempt speaks against its node: not when the client or we are the cause, nor when a
/// kept connection was closed at the moment of its reuse, which is nobody's fault.
pub(super) fn node_verdict(cause: &Cause, race: bool) -> Option<bool> {
    let against = cause.side() == Side::Node && !race;
    against.then_some(false)
}

pub(super) fn failure_kind(cause: &Cause) -> FailureKind {
    match attempt_result(cause) {
        AttemptResult::Connect => FailureKind::Connect,
        AttemptResult::Timeout => FailureKind::Timeout,
        _ => FailureKind::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_lack_for_one_node_another_may_not_need_and_speaks_against_none() {
        let lack = Cause::Internal("no local port is left");
        assert!(may_go_better_elsewhere(&lack, 0) && node_verdict(&lack, false).is_none());
        assert!(!may_go_better_elsewhere(&lack, 1), "a node has begun to read");
        assert!(may_go_better_elsewhere(&Cause::ConnectRefused, 0));
        assert!(!may_go_better_elsewhere(&Cause::ClientLeft, 0));
    }
}
