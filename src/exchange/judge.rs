//! What a node's conduct in an attempt means for the node: its failures in a row, its latency, its probation.

use std::sync::atomic::Ordering::Relaxed;

use super::attempt::Waiting;
use super::verdict::failure_kind;
use super::view::{LocalMember, LocalUpstream};
use super::{Exchange, Plan};
use crate::balance::ewma;
use crate::error::Cause;
use crate::health::outlier::FailureKind;
use crate::http1::field::Known;
use crate::http1::response::ResponseHead;
use crate::telemetry::metrics::PoolEvent;
use crate::upstream::claim::Probation;
use crate::upstream::{Note, Signal};

/// For this long after a request was lost on a kept connection, what is unsafe to repeat uses new ones.
const DISTRUST_NS: u64 = 60_000_000_000;

impl Exchange<'_> {
    pub(super) fn lost_race(&self, member: &LocalMember, plan: &Plan<'_>) {
        let node = &member.local.node;
        node.metrics.pool(PoolEvent::StaleRace);
        if !plan.wish.safe_to_repeat {
            node.distrust_reuse_until(self.client.thread.now_ns() + DISTRUST_NS);
        }
    }

    /// What a node's conduct means for its future. `None`: nothing.
    pub(super) fn judge(
        &self,
        member: &LocalMember,
        upstream: &LocalUpstream,
        healthy: Option<bool>,
        failed: Option<&Cause>,
        took_ns: u64,
    ) {
        let (node, thread, now) =
            (&member.local.node, self.client.thread, self.client.thread.now_ns());
        match healthy {
            None => return,
            Some(true) => return node.record_success(thread.index),
            Some(false) => {}
        }
        // Failures count as slow, so that fast errors attract nobody.
        let median = upstream.upstream.shared.median_latency_ns.load(Relaxed);
        let penalty = ewma::failure_sample(took_ns, median);
        node.observe_latency(thread.index, penalty, median, now);
        let kind = failed.map_or(FailureKind::GatewayError, failure_kind);
        let settings = &upstream.upstream.settings.outlier_detection;
        let in_a_row = node.record_failure(thread.index, settings.consecutive_failures, now);
        if settings.enabled && in_a_row && member.local.is_due(Note::Failing, now) {
            thread.signal(Signal::Failing(node.clone(), kind));
        }
        if kind == FailureKind::Connect {
            // A node that refuses has lost what is in the pool as well; one that is slow to accept has not.
            if failed != Some(&Cause::ConnectTimeout) {
                member.local.clear();
            }
            self.ask_for_probe(member);
        }
    }

    /// The one request of a node on probation has told.
    pub(super) fn end_probation(&self, member: &LocalMember, probation: Probation, good: bool) {
        probation.decide();
        self.client.thread.signal(Signal::Probation(member.local.node.clone(), good));
    }

    /// Notes a head. Returns how long the node took for it, if it had the whole request.
    pub(super) fn head_received(
        &mut self,
        member: &LocalMember,
        head: &ResponseHead,
        waiting: &Waiting<'_>,
    ) -> Option<u64> {
        let (node, now) = (&member.local.node, self.client.thread.look_at_clock());
        node.head_received(self.client.thread.index, now);
        node.metrics.head_received(head.status);
        if self.client.thread.log.borrow().enabled()
            && let Some(id) = head.value(Known::XRequestId)
        {
            self.record.upstream_request_id.clear();
            self.record.upstream_request_id.extend_from_slice(id);
        }
        let took = now - waiting.since_ns()?;
        node.metrics.head.observe(took as f64 / 1e9);
        self.record.header_ns = Some(took);
        Some(took)
    }

    pub(super) fn feed_latency(
        &self,
        member: &LocalMember,
        plan: &Plan<'_>,
        head: &ResponseHead,
        took_ns: u64,
    ) {
        if plan.feeds_latency && !head.event_stream {
            let upstream = &plan.upstream.upstream;
            if upstream.settings.hedge.is_some() && plan.wish.safe_to_repeat {
                upstream.shared.heads.observe(took_ns);
            }
            let median = plan.upstream.upstream.shared.median_latency_ns.load(Relaxed);
            let (thread, now) = (self.client.thread.index, self.client.thread.now_ns());
            member.local.node.observe_latency(thread, took_ns, median, now);
        }
    }

    pub(super) fn ask_for_probe(&self, member: &LocalMember) {
        if member.local.is_due(Note::ProbeNow, self.client.thread.now_ns()) {
            self.client.thread.signal(Signal::ProbeNow(member.local.node.clone()));
        }
    }
}
