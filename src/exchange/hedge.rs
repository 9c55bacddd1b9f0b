//! Asking a second node when the first is late with its head. The first head is the answer, and the connection
//! to the other node is closed.
//!
//! Off unless `[upstream.NAME.hedge]` is written. Only what is safe to repeat and was sent whole is asked twice,
//! once, within the budget of retries, and only of a node of the same tier.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use super::attempt::terminated;
use super::client::Unread;
use super::leg::Leg;
use super::pick::{is_full, pick_now};
use super::upload::{Flags, Upload};
use super::verdict::{attempt_result, is_race, node_verdict};
use super::{Exchange, Plan};
use crate::clock;
use crate::error::Cause;
use crate::net::Idle;
use crate::telemetry::metrics::{AttemptResult, RetryReason};
use crate::upstream::Connection;

/// Which of two attempts goes on.
enum Won {
    First,
    Second(Connection),
    /// The first one, because the second has failed.
    Failed,
}

impl<'a> Exchange<'a> {
    /// How late a head may be before another node is asked; none: it is awaited as ever.
    pub(super) fn hedge_after(
        &self,
        plan: &Plan<'_>,
        upload: &Upload,
        flags: &Flags,
    ) -> Option<u64> {
        let upstream = &plan.upstream.upstream;
        upstream.settings.hedge.as_ref()?;
        let accept = self.head.value_named(b"accept").unwrap_or_default();
        let streams = memchr::memmem::find(accept, b"text/event-stream").is_some();
        let may = plan.wish.safe_to_repeat
            && plan.feeds_latency
            && plan.wish.follow.is_none()
            && !plan.wish.tunnel
            && !plan.hedged
            && self.record.let_through == 0
            && upload.is_replayable()
            && !flags.streams()
            && !streams;
        may.then(|| upstream.shared.heads.after_ns()).flatten()
    }

    /// Awaits the first byte of an answer for so long, then asks another node as well. Returns the connection
    /// that answers, and leaves in `leg` what belongs to it.
    pub(super) async fn race<'p>(
        &mut self,
        leg: &mut Leg<'p>,
        connection: Connection,
        plan: &mut Plan<'p>,
        (upload, unread): (&Upload, &mut Unread),
        after_ns: u64,
    ) -> Result<Connection, Cause>
    where
        'a: 'p,
    {
        if self.is_in_time(leg, &connection, plan.until_ns, unread, after_ns).await? {
            return Ok(connection);
        }
        let Some(mut second) = self.second(leg, plan) else { return Ok(connection) };
        let both = self.both((leg, &connection), &mut second, plan, (upload, unread));
        let won = both.await?;
        // Whoever was given up may be asked again, if the other one refuses.
        plan.wish.tried.pop();
        let now = self.client.thread.look_at_clock();
        match won {
            Won::Failed => {
                plan.wish.tried.push(second.pick.node);
                Ok(connection)
            }
            Won::First => {
                self.record.attempts.push(second.told(AttemptResult::Cancelled, now));
                Ok(connection)
            }
            Won::Second(other) => {
                // It would have taken at least so long: without it the others would make the percentile.
                let took = now.saturating_sub(leg.seen.sent_ns.get());
                plan.upstream.upstream.shared.heads.observe(took);
                match connection.socket().peek_idle() {
                    Idle::Closed => {
                        self.failed_beside(leg, plan, &Cause::ConnectionTerminated);
                        // It has closed on this very request.
                        plan.wish.tried.push(leg.pick.node);
                    }
                    _ => self.record.attempts.push(leg.told(AttemptResult::Cancelled, now)),
                }
                *leg = second;
                Ok(other)
            }
        }
    }

    /// Waits for the first byte. False: it is late.
    async fn is_in_time(
        &self,
        leg: &Leg<'_>,
        connection: &Connection,
        until_ns: u64,
        unread: &mut Unread,
        after_ns: u64,
    ) -> Result<bool, Cause> {
        let (client, down) = (self.client, &self.deadlines.down);
        down.set_at(leg.seen.sent_ns.get().saturating_add(after_ns).min(until_ns));
        let mut leaves = pin!(client.watch(unread));
        let in_time = poll_fn(|cx| {
            if connection.socket().poll_idle(cx).is_ready() {
                return Poll::Ready(Ok(true));
            }
            if let Poll::Ready(cause) = leaves.as_mut().poll(cx) {
                return Poll::Ready(Err(cause));
            }
            down.poll(cx).map(|_| Ok(false))
        });
        let in_time = in_time.await;
        client.thread.look_at_clock();
        down.clear();
        in_time
    }

    /// The other attempt, if there is a node for it and the budget allows it.
    fn second<'p>(&self, leg: &Leg<'p>, plan: &mut Plan<'p>) -> Option<Leg<'p>>
    where
        'a: 'p,
    {
        let (thread, upstream) = (self.client.thread, plan.upstream);
        let now = thread.now_ns();
        let first = leg.pick.node;
        let is_other = |index: usize| {
            let member = &upstream.nodes[index];
            index != first && member.backup == leg.member.backup && member.local.node.eligible(true)
        };
        let has_room = |index: usize| is_other(index) && !is_full(&upstream.nodes[index]);
        if now >= plan.until_ns || !(0..upstream.nodes.len()).any(has_room) {
            return None;
        }
        plan.wish.tried.push(first);
        let pick = pick_now(thread, upstream, &plan.wish).ok();
        // It may have the node's last place by now.
        let pick = pick.filter(|pick| is_other(pick.node));
        let budget = &upstream.upstream.shared.budget;
        let Some(pick) = pick.filter(|_| budget.withdraw(now / 1_000_000_000)) else {
            plan.wish.tried.pop();
            return None;
        };
        plan.hedged = true;
        upstream.upstream.metrics.retries[RetryReason::Hedged as usize].inc();
        let mut second = Leg::begin(pick, upstream, thread);
        second.hedge = true;
        Some(second)
    }

    /// Runs both until one has something of an answer, or the second has failed, or has the request for
    /// itself.
    async fn both<'p>(
        &mut self,
        (leg, connection): (&Leg<'p>, &Connection),
        second: &mut Leg<'p>,
        plan: &Plan<'p>,
        (upload, unread): (&Upload, &mut Unread),
    ) -> Result<Won, Cause>
    where
        'a: 'p,
    {
        let client = self.client;
        let patience = clock::nanos(plan.upstream.upstream.settings.response_timeout);
        let until_ns = leg.seen.sent_ns.get().saturating_add(patience);
        let ended = {
            let mut leaves = pin!(client.watch(unread));
            let is_lost = Cell::new(false);
            let mut other = pin!(self.ask_second((until_ns, &is_lost), second, plan, upload));
            poll_fn(|cx| {
                if !is_lost.get() {
                    match first_byte(connection, cx) {
                        Poll::Ready(true) => return Poll::Ready(Ok(Ok(Won::First))),
                        Poll::Ready(false) => is_lost.set(true),
                        Poll::Pending => {}
                    }
                }
                if let Poll::Ready(cause) = leaves.as_mut().poll(cx) {
                    return Poll::Ready(Err(cause));
                }
                other.as_mut().poll(cx).map(|asked| Ok(asked.map(Won::Second)))
            })
            .await
        };
        self.deadlines.down.clear();
        match ended {
            Err(cause) => {
                let now = client.thread.look_at_clock();
                self.record.attempts.push(second.told(AttemptResult::Cancelled, now));
                Err(cause)
            }
            Ok(Ok(won)) => Ok(won),
            Ok(Err(cause)) => {
                self.failed_beside(second, plan, &cause);
                Ok(Won::Failed)
            }
        }
    }

    /// Connects to the second node, sends, and waits for its first byte; not when the first one is lost: then
    /// it is as any attempt, watched for its node's silence.
    async fn ask_second(
        &mut self,
        (until_ns, is_lost): (u64, &Cell<bool>),
        second: &Leg<'_>,
        plan: &Plan<'_>,
        upload: &Upload,
    ) -> Result<Connection, Cause> {
        let (connection, _) = self.open(second, plan, upload).await?;
        second.waiting.begin();
        let down = &self.deadlines.down;
        down.set_at(until_ns.min(plan.until_ns));
        let byte = poll_fn(|cx| match first_byte(&connection, cx) {
            Poll::Pending if is_lost.get() => Poll::Ready(true),
            other => other,
        });
        match down.guard(byte).await {
            Ok(true) => Ok(connection),
            Ok(false) => Err(terminated(connection.socket())),
            // The first one's time is over at the same moment, and that is what is told.
            Err(_) => Err(Cause::Deadline),
        }
    }

    /// One of two attempts has failed, and the other goes on.
    fn failed_beside(&mut self, leg: &mut Leg<'_>, plan: &Plan<'_>, cause: &Cause) {
        let now = self.client.thread.look_at_clock();
        let told = leg.told(attempt_result(cause), now);
        let race = is_race(Some(cause), told.reused);
        let verdict = node_verdict(cause, race || *cause == Cause::Deadline);
        self.judge(leg.member, plan.upstream, verdict, Some(cause), told.ns);
        self.record.attempts.push(told);
        if let (Some(probation), Some(good)) = (leg.pick.probation.take(), verdict) {
            self.end_probation(leg.member, probation, good);
        }
        if race {
            self.lost_race(leg.member, plan);
        }
    }
}

/// True for a byte, false for the end of the connection.
fn first_byte(connection: &Connection, cx: &mut Context<'_>) -> Poll<bool> {
    connection.socket().poll_idle(cx).map(|found| found == Idle::Dirty)
}
