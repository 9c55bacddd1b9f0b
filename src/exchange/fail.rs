//! The answer for an exchange that went wrong.

use super::maintenance::is_api;
use super::view::LocalUpstream;
use super::{Exchange, Next, answer};
use crate::config::Role;
use crate::error::Cause;
use crate::health::{HealthState, OperatorState};

impl Exchange<'_> {
    /// Answers for what went wrong, if the client can still be told.
    pub(super) async fn fail(&mut self, cause: Cause) -> Next {
        self.client.thread.look_at_clock();
        self.record.status = cause.status();
        if self.head.websocket && cause.status() >= 500 {
            self.owe_refused_page();
        }
        // Only what waits for its client is cut here, and part of that may have left.
        let cut = self.deadlines.down.is_cut();
        let stalled = cut || cause == Cause::ClientStalled;
        let told = !self.begun && !stalled && cause != Cause::ClientLeft;
        let next = match told {
            true => self.answer(&cause).await,
            false => {
                // Where the end of the stream is the end of the answer, and where the client takes nothing
                // that the kernel still holds, only a reset ends it.
                self.record.from_node &= !cut;
                if stalled || self.begun && !self.head.version_11 {
                    self.client.socket.reset_on_drop();
                }
                Next::Cut
            }
        };
        if let Cause::Internal(what) = cause {
            tracing::error!(request_id = self.record.id.as_str(), what, "internal error");
        }
        self.record.cause = Some(cause);
        next
    }

    async fn answer(&mut self, cause: &Cause) -> Next {
        let keep_alive = self.body_done && self.keeps_alive();
        let upstream = self.record.upstream.map(|index| &self.view.upstreams[index]);
        let nobody = matches!(cause, Cause::NoEligibleNode | Cause::ParkFull | Cause::ParkTimeout);
        let shape = answer::Shape {
            json: upstream.is_some_and(|upstream| is_api(upstream, self.head)),
            to_head: self.head.method() == b"HEAD",
            keep_alive,
            maintaining: nobody && upstream.is_some_and(|u| all_maintaining(u) || is_pinned(u)),
            request_id: self.record.id.as_str(),
        };
        self.record.from_node = false;
        let mut out = self.client.thread.buffers.small();
        answer::write(&mut out, cause, &shape);
        self.deliver(out, keep_alive).await
    }
}

/// Others are set aside for a node that the operator has pinned.
fn is_pinned(upstream: &LocalUpstream) -> bool {
    upstream.nodes.iter().any(|member| member.local.node.operator() == OperatorState::Aside)
}

/// Every node that serves says that it is starting or under maintenance.
fn all_maintaining(upstream: &LocalUpstream) -> bool {
    let says_so = |member: &crate::snapshot::Member| {
        matches!(member.node.health(), HealthState::Maintaining | HealthState::Starting)
    };
    let mut serving = upstream.upstream.nodes.iter().filter(|m| m.role == Role::Serve).peekable();
    serving.peek().is_some() && serving.all(says_so)
}
