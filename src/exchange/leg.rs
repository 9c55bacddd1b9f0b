//! What an attempt has while it runs: its node, and what is learnt there, whether its future ends or is dropped.

use std::cell::Cell;

use super::attempt::Waiting;
use super::pick::{InFlight, Pick};
use super::record::Attempt;
use super::thread::Thread;
use super::view::{LocalMember, LocalUpstream};
use crate::telemetry::metrics::AttemptResult;

/// One try at one node, while it runs.
pub(super) struct Leg<'a> {
    pub(super) pick: Pick,
    pub(super) member: &'a LocalMember,
    pub(super) in_flight: InFlight<'a>,
    pub(super) waiting: Waiting<'a>,
    pub(super) seen: Seen,
    pub(super) begun_ns: u64,
    /// Made beside another one that was late.
    pub(super) hedge: bool,
}

/// What is learnt while an attempt runs.
#[derive(Default)]
pub(super) struct Seen {
    /// Bytes of the request that the kernel took.
    pub(super) sent: Cell<u64>,
    pub(super) reused: Cell<bool>,
    /// When the attempt began to send.
    pub(super) sent_ns: Cell<u64>,
    /// The head came and looked healthy.
    pub(super) healthy: Cell<Option<bool>>,
    /// It was given up so that another node is asked.
    pub(super) rescue: Cell<bool>,
}

impl<'a> Leg<'a> {
    /// At the node that was picked.
    pub(super) fn begin(
        mut pick: Pick,
        upstream: &'a LocalUpstream,
        thread: &'a Thread,
    ) -> Leg<'a> {
        let member = &upstream.nodes[pick.node];
        Leg {
            member,
            in_flight: InFlight::begin(member, &mut pick),
            waiting: Waiting::new(&member.local, thread),
            seen: Seen::default(),
            begun_ns: thread.now_ns(),
            hedge: false,
            pick,
        }
    }

    /// What is told of it, as of now.
    pub(super) fn told(&self, result: AttemptResult, now_ns: u64) -> Attempt {
        self.member.local.node.metrics.attempt(result);
        Attempt {
            node: self.member.local.clone(),
            result,
            sent: self.seen.sent.get(),
            reused: self.seen.reused.get(),
            hedge: self.hedge,
            ns: now_ns.saturating_sub(self.begun_ns),
        }
    }
}
