//! Parking: exchanges of which no node has seen a byte are held while no node of their upstream is eligible,
//! or none that is can be reached.
//!
//! A restart of the only node, or of all at once, costs their clients seconds instead of errors. The lots, one
//! for requests and one for upgrades, are first in, first out on each data thread; how many they hold, and how
//! many bytes, is bounded over all threads.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use super::client::Unread;
use super::pick::{Nothing, Pick, Unpicked, pick, pick_now};
use super::record::Attempt;
use super::thread::Thread;
use super::turns::Place;
use super::upload::Upload;
use super::view::LocalUpstream;
use super::{Exchange, Plan};
use crate::clock;
use crate::error::Cause;
use crate::health::OperatorState;
use crate::http1::deadline::{Deadline, Expired};
use crate::net::Idle;
use crate::telemetry::metrics::{AttemptResult, ParkOutcome};
use crate::upstream::parking::{Bounds, Kind};

/// Bytes that every parked exchange holds beside its heads and its body: what its connection, its exchange
/// and its wait remember. Measured, in an optimised build, as the growth of the process by 4,000 of them.
const FIXED: usize = 7 * 1024;

/// A wait for a node that may have outlasted the client's patience.
const NOTICEABLE_NS: u64 = 100_000_000;

/// What a pick came to.
pub(super) enum Picked {
    /// A node.
    Node(Pick),
    /// Nodes may have come and gone by a reload: look again with the newest view.
    Renewed,
}

impl Exchange<'_> {
    /// Picks a node without a wait, as nearly always: one may be picked, and nobody waits for it already.
    pub(super) fn pick_at_once(&mut self, plan: &Plan<'_>) -> Option<Pick> {
        if plan.upstream.is_waited_for() || !self.is_still_let_through(plan) {
            return None;
        }
        let picked = pick_now(self.client.thread, plan.upstream, &plan.wish).ok()?;
        self.spot = None;
        Some(picked)
    }

    /// Picks a node, queued while all are full, parked while none is eligible.
    pub(super) async fn pick_or_park(
        &mut self,
        plan: &mut Plan<'_>,
        upload: &Upload,
        unread: &mut Unread,
    ) -> Result<Picked, Cause> {
        loop {
            let (thread, down) = (self.client.thread, &self.deadlines.down);
            let asked = thread.now_ns();
            let picked = pick(thread, plan.upstream, &plan.wish, down, plan.until_ns).await;
            let waited = thread.now_ns() - asked;
            self.record.queue_ns += waited;
            // Nobody watched the client meanwhile.
            if waited > NOTICEABLE_NS && self.client.socket.peek_idle() == Idle::Closed {
                return Err(Cause::ClientLeft);
            }
            // Something was switched while it was in the queue, or at another node.
            if !self.is_still_let_through(plan) {
                return Ok(Picked::Renewed);
            }
            match picked {
                Ok(pick) => {
                    self.spot = None;
                    return Ok(Picked::Node(pick));
                }
                Err(Unpicked::Failed(cause)) => return Err(cause),
                // Under maintenance nobody waits, and the nodes that are closed stay so.
                Err(Unpicked::Nobody(_)) if self.record.let_through != 0 => {
                    return Err(Cause::NoEligibleNode);
                }
                // Whatever was tried comes back before anybody else does.
                Err(Unpicked::Nobody(Nothing::NoNode)) => plan.wish.tried.clear(),
                Err(Unpicked::Nobody(_)) if self.reached_nobody(plan) => {}
                Err(Unpicked::Nobody(_)) => return Err(Cause::NoEligibleNode),
            }
            // What is rare is boxed: every exchange would have to hold room for it.
            if let Some(picked) = Box::pin(self.park(plan, upload, unread)).await? {
                return Ok(picked);
            }
        }
    }

    /// Whether all nodes that are eligible turned out to be gone: probes will say so in a moment, and will
    /// say which of them is back.
    fn reached_nobody(&self, plan: &Plan<'_>) -> bool {
        let probed = plan.upstream.upstream.settings.health_check.is_some();
        let gone =
            |attempt: &Attempt| attempt.sent == 0 && attempt.result != AttemptResult::Cancelled;
        probed && self.record.attempts.last().is_some_and(gone)
    }

    /// Holds the exchange until a node may be picked. `None`: those that may are full, so that it is the
    /// queue's.
    async fn park(
        &mut self,
        plan: &mut Plan<'_>,
        upload: &Upload,
        unread: &mut Unread,
    ) -> Result<Option<Picked>, Cause> {
        let thread = self.client.thread;
        // First of all: what a node may be running must not begin anew, with its retries uncounted.
        let until_ns = self.may_park_until(plan).ok_or(Cause::NoEligibleNode)?;
        if !thread.is_current(&self.view) {
            return Ok(Some(Picked::Renewed));
        }
        let upstream = &plan.upstream.upstream;
        let (settings, kind) = (&upstream.settings, self.kind());
        let metrics = &upstream.metrics.parked[kind as usize];
        self.compact(plan, unread);
        let bounds = Bounds { count: settings.park_limit, bytes: settings.park_bytes };
        let bytes = self.held(plan, upload, unread);
        // Who was parked before a reload needs no room: it has it.
        let (parking, had) = (&upstream.shared.parking, self.spot.take());
        let spot = had
            .and_then(|spot| spot.stay(parking, kind, bytes, bounds))
            .or_else(|| parking.enter(kind, bytes, bounds));
        let line = &plan.upstream.lot(kind).line;
        let Some(spot) = spot else {
            metrics.ended(ParkOutcome::Full);
            return Err(Cause::ParkFull);
        };
        let place = line.enter(plan.wish.safe_to_repeat);
        let _parked = (metrics.count(), Parked::new(thread));
        let down = &self.deadlines.down;
        // It counts in `park_bytes` now, and holds much less.
        let held = [down, &self.deadlines.up].map(Deadline::release);
        down.set_at(plan.until_ns.min(until_ns));
        // It has no node, so a process that ends need not wait for it.
        down.set_grace(Some(std::time::Duration::ZERO));
        let begun = thread.now_ns();
        let ended = {
            let (room, left_unread) = (|bytes| spot.grow(bytes), !upload.is_done());
            let up = &self.deadlines.up;
            let mut leaves = pin!(self.client.watch_lightly(unread, left_unread, room, up));
            let wait = poll_fn(|cx| match leaves.as_mut().poll(cx) {
                Poll::Ready(cause) => Poll::Ready(Err(cause)),
                Poll::Pending => self.poll_turn(cx, plan, (&place, begun)).map(Ok),
            });
            down.guard(wait).await
        };
        down.set_grace(None);
        down.clear();
        self.deadlines.up.clear();
        // It was let in long ago: that others have come since is no reason to refuse it.
        down.hold_anyway(held[0]);
        self.deadlines.up.hold_anyway(held[1]);
        let waited = thread.look_at_clock() - begun;
        self.record.parked_ns = Some(self.record.parked_ns.unwrap_or_default() + waited);
        metrics.waited.observe(waited as f64 / 1e9);
        let result = match ended {
            Ok(result) => result,
            Err(Expired) => Err(self.why_over(plan)),
        };
        match &result {
            // It goes on waiting, if there is nobody after the reload either.
            Ok(Some(Picked::Renewed)) => self.spot = Some(Box::new(spot)),
            Ok(_) => metrics.ended(ParkOutcome::Released),
            Err(Cause::ClientLeft) => metrics.ended(ParkOutcome::Left),
            Err(_) => metrics.ended(ParkOutcome::Timeout),
        }
        result
    }

    /// Ready when it is this exchange's turn, and there is something to be done with it.
    fn poll_turn(
        &self,
        cx: &Context<'_>,
        plan: &mut Plan<'_>,
        (place, begun_ns): (&Place<'_>, u64),
    ) -> Poll<Option<Picked>> {
        let (thread, upstream) = (self.client.thread, plan.upstream);
        while place.poll_turn(cx).is_ready() {
            thread.look_at_clock();
            let closed = upstream.upstream.shared.is_closed();
            if closed || !thread.is_current(&self.view) {
                return Poll::Ready(Some(Picked::Renewed));
            }
            // What was gone when it was tried is back when a probe says so.
            let probed_ns = |node: usize| upstream.nodes[node].local.node.last_good_probe_ns();
            plan.wish.tried.retain(|node| probed_ns(*node) <= begun_ns);
            match pick_now(thread, upstream, &plan.wish) {
                Ok(pick) => return Poll::Ready(Some(Picked::Node(pick))),
                Err(Nothing::AllFull) => return Poll::Ready(None),
                // What is nobody for this one may be somebody for others: a node on probation takes only
                // what is safe to repeat.
                Err(Nothing::NoNode | Nothing::NoneLeft) => place.pass_on(),
            }
        }
        Poll::Pending
    }

    /// Until when the exchange may be held, over all its waits; `None`: not at all.
    fn may_park_until(&self, plan: &Plan<'_>) -> Option<u64> {
        let settings = &plan.upstream.upstream.settings;
        let patience = if self.head.websocket { settings.park_upgrades } else { settings.park };
        let waited = self.record.parked_ns.unwrap_or_default();
        // A node may be running what was sent to it, unless it proved that it refused.
        let unsent = |attempt: &super::record::Attempt| {
            attempt.sent == 0 || attempt.result == AttemptResult::Maintaining
        };
        let may = !patience.is_zero()
            && !self.client.thread.is_ending()
            && self.record.attempts.iter().all(unsent)
            && !is_taken_out(plan.upstream);
        let left = clock::nanos(patience).saturating_sub(waited);
        may.then(|| self.client.thread.now_ns().saturating_add(left))
    }

    /// Why the wait ended without a node.
    fn why_over(&self, plan: &Plan<'_>) -> Cause {
        let thread = self.client.thread;
        match (thread.is_ending(), thread.now_ns() >= plan.until_ns) {
            (true, _) => Cause::NoEligibleNode,
            (false, true) => Cause::Deadline,
            (false, false) => Cause::ParkTimeout,
        }
    }

    /// Gives back what it has more than it needs.
    fn compact(&self, plan: &mut Plan<'_>, unread: &mut Unread) {
        let buffers = &self.client.thread.buffers;
        let exact = plan.node_head.as_slice().to_vec();
        buffers.give_back(std::mem::replace(&mut plan.node_head, exact));
        unread.compact(buffers);
    }

    /// Bytes that the exchange holds while it is parked: its heads, its body as far as it was read, and what
    /// its client has sent beyond.
    fn held(&self, plan: &Plan<'_>, upload: &Upload, unread: &Unread) -> usize {
        let heads = self.head.held() + plan.node_head.capacity();
        FIXED + heads + upload.held() + unread.held()
    }

    fn kind(&self) -> Kind {
        if self.head.websocket { Kind::Upgrade } else { Kind::Request }
    }
}

/// Counts it on its thread while it lives.
struct Parked<'a>(&'a Cell<usize>);

impl<'a> Parked<'a> {
    fn new(thread: &'a Thread) -> Parked<'a> {
        thread.parked.set(thread.parked.get() + 1);
        Parked(&thread.parked)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Every node was disabled: none comes back by itself.
fn is_taken_out(upstream: &LocalUpstream) -> bool {
    upstream.nodes.iter().all(|member| member.local.node.operator() == OperatorState::Disabled)
}
