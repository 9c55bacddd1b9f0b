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
