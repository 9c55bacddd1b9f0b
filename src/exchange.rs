//! One request and its response, from the head that was read to the last byte of the answer.
//!
//! [`exchange`] observes: it counts, logs and answers for what went wrong. `serve` does the work and reads
//! top to bottom: route → admit → read a small or slow body → attempt at one node after the other → pass the
//! answer on. Each attempt is `attempt_at`. docs/life-of-a-request.md tells the whole story.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock;
use crate::error::Cause;
use crate::http1::body::Framing;
use crate::http1::buffers::SMALL;
use crate::http1::deadline::Deadline;
use crate::http1::request::RequestHead;
use crate::limit::clients::Taken;
use crate::net::bare_host;
use crate::snapshot::Listener;
use crate::telemetry::metrics::RetryReason;
use crate::upstream::parking::Spot;
use crate::upstream::quiet::Claim;

mod admit;
pub mod affinity;
pub mod answer;
pub mod at_node;
pub mod attempt;
mod challenge;
pub mod client;
mod fail;
mod guard;
mod hedge;
mod https_only;
mod judge;
mod leg;
pub mod lot;
pub mod maintenance;
pub mod park;
pub mod pick;
mod plan;
mod quiet;
pub mod record;
mod rescue;
pub mod respond;
mod shield;
mod slices;
pub mod thread;
pub mod towards;
pub mod tunnel;
pub mod turns;
pub mod upload;
mod verdict;
pub mod view;

use client::{Client, Unread};
use park::Picked;
use plan::Plan;
use record::Record;
use tunnel::Tunnel;
use upload::Upload;
use verdict::may_go_better_elsewhere;
use view::View;

/// Beside its own head an exchange holds the one for its node, and what its client sends behind the request.
const HELD: usize = SMALL + client::MAX_PIPELINED;

/// What becomes of the client's connection.
pub enum Next {
    /// The next request may follow.
    KeepAlive,
    /// Everything was said; the connection ends.
    Close,
    /// An answer was sent although the request was not read to its end: read on a little, so that the
    /// answer is not lost to a reset.
    Linger,
    /// The answer cannot be completed: the client must not take it for whole.
    Cut,
    /// The sockets belong to each other now; the client's is to be put in.
    Tunnel(Box<Join>),
    /// The client's socket is a WebSocket that we hold ourselves.
    Held(Box<maintenance::Hold>),
}

/// Makes a tunnel of the client's socket, the place that its connection has, and what was read early.
pub type Join = dyn FnOnce(crate::net::Socket, Box<dyn std::any::Any>, Vec<u8>) -> Tunnel;

/// The two deadlines of an exchange: of what comes from the client, and of everything else.
pub struct Deadlines {
    /// Reading the request's body and writing it to the node.
    pub up: Deadline,
    /// Connecting, awaiting the head, passing the answer on.
    pub down: Deadline,
}

/// Runs one exchange to its end, counts and logs it.
pub async fn exchange(
    client: &Client<'_>,
    mut head: RequestHead,
    unread: &mut Unread,
    deadlines: &Deadlines,
    begun_ns: u64,
) -> Next {
    if client.thread.parked.get() > 0 {
        // It may have to wait as those do: it then holds no more than it needs.
        head.compact(&client.thread.buffers);
    }
    let mut record = Record::begin(client.thread, client.peer, begun_ns);
    let counted = client.listener.metrics.count_in_flight();
    let (next, view, renewed) = {
        let mut exchange = Exchange {
            client,
            view: client.thread.view(),
            head: &head,
            deadlines,
            record: &mut record,
            begun: false,
            body_done: head.framing == Framing::Empty,
            spot: None,
            worked: Vec::new(),
            tunnel_share: None,
            renewed: None,
        };
        let next = match exchange.serve(unread).await {
            Ok(next) => next,
            // What is rare is boxed: every exchange would have to hold room for it.
            Err(cause) => Box::pin(exchange.fail(cause)).await,
        };
        deadlines.down.release();
        deadlines.up.release();
        exchange.settle_work();
        (next, exchange.view, exchange.renewed)
    };
    drop(counted);
    let listener = renewed.as_ref().unwrap_or(&client.listener);
    record.finish(client.thread, &view, listener, Some(&head));
    head.recycle(&client.thread.buffers);
    next
}

/// The state of one exchange.
struct Exchange<'a> {
    client: &'a Client<'a>,
    view: Rc<View>,
    head: &'a RequestHead,
    deadlines: &'a Deadlines,
    record: &'a mut Record,
    /// Something of an answer has gone to the client.
    begun: bool,
    /// The request was read to its end.
    body_done: bool,
    /// Its place among what is parked, while it goes on to the newest view.
    spot: Option<Box<Spot>>,
    /// Where it was remembered as work on the app; nearly always empty.
    worked: Vec<Claim>,
    /// Its place among the tunnels of its client, where those are bounded.
    tunnel_share: Option<Box<Taken>>,
    /// The client's listener in a newer view than the one that it began with.
    renewed: Option<Arc<Listener>>,
}

/// How the attempts with one view ended.
enum Served {
    /// The exchange is over.
    Done(Next),
    /// It waited until after a reload: begin again with the newest view.
    Renewed,
    /// The same, with a body that took its client's time to come.
    Shielded,
}

/// How an attempt ended.
enum Attempted {
    /// The exchange is over.
    Done(Next),
    /// Try again, at another node or (after a race that was lost) at the same one.
    Again,
}

impl<'a> Exchange<'a> {
    async fn serve(&mut self, unread: &mut Unread) -> Result<Next, Cause> {
        if !self.deadlines.down.hold(self.head.held() + HELD) {
            return Err(Cause::BuffersFull);
        }
        if self.view.snapshot.challenges.any()
            && let Some(next) = Box::pin(self.answer_challenge()).await
        {
            return Ok(next);
        }
        if self.view.snapshot.config.tls.https_only
            && let Some(next) = Box::pin(self.redirect_to_https()).await
        {
            return next;
        }
        let mut upload = None;
        let mut until_ns = u64::MAX;
        loop {
            let view = self.view.clone();
            let (route, upstream) = self.route(&view)?;
            self.record.route = Some(route);
            self.record.upstream = Some(upstream);
            let upstream = &view.upstreams[upstream];
            let first = upload.is_none();
            let upload = match &mut upload {
                Some(upload) => upload,
                none => none.insert(self.upload()?),
            };
            let mut plan = self.plan(upstream, upload);
            plan.until_ns = plan.until_ns.min(until_ns);
            until_ns = plan.until_ns;
            if first {
                self.pass_gate(&view, upstream)?;
            }
            if first && self.head.framing != Framing::Empty {
                let dialog = self.is_dialog(plan.upstream);
                self.read_small_body(upload, unread, dialog).await?;
            }
            // What an earlier view let through may be closed since, or open to everybody.
            self.record.let_through = 0;
            if upstream.upstream.shared.is_closed()
                && let Some(next) = Box::pin(self.maintain(&mut plan)).await
            {
                return next;
            }
            self.guard(upstream)?;
            if first {
                upstream.count_request();
            }
            let served = self.attempts(&mut plan, upload, unread).await;
            self.note_upload(upload);
            self.count_affinity(&plan);
            self.client.thread.buffers.give_back(plan.node_head);
            match served? {
                Served::Done(next) => return Ok(next),
                Served::Renewed => self.renew(),
                Served::Shielded => {
                    self.renew();
                    until_ns = u64::MAX;
                }
            }
        }
    }

    /// Goes on to the newest view. What the record says of the one before means nothing there.
    fn renew(&mut self) {
        self.view = self.client.thread.view();
        (self.record.route, self.record.upstream) = (None, None);
        let name = &self.client.listener.settings.name;
        self.renewed = self.view.snapshot.listener(name).cloned();
    }

    fn upload(&self) -> Result<Upload, Cause> {
        Upload::new(self.head.framing, self.client.listener.settings.max_body)
    }

    /// Reads a body whole if it is small, and the client does not wait to be told to send it. In a `dialog` it
    /// may wait for an answer to what it has sent so far: only what is there is read.
    async fn read_small_body(
        &mut self,
        upload: &mut Upload,
        unread: &mut Unread,
        dialog: bool,
    ) -> Result<(), Cause> {
        if self.head.expect_continue {
            return Ok(());
        }
        let read = upload.buffer(self.client, unread, &self.deadlines.up, dialog).await;
        self.note_upload(upload);
        read?;
        // The client's time is not the node's.
        self.client.thread.look_at_clock();
        Ok(())
    }

    fn note_upload(&mut self, upload: &Upload) {
        self.record.bytes_in = upload.received();
        self.body_done = upload.is_done();
    }

    /// Which route and which upstream.
    fn route(&self, view: &View) -> Result<(usize, usize), Cause> {
        let snapshot = &view.snapshot;
        if snapshot.config.routes.is_empty() {
            return Ok((0, 0));
        }
        let host = host_name(self.head.host());
        let path = str::from_utf8(self.head.path()).map_err(|_| Cause::NoRoute)?;
        let route = snapshot.router.find(&host, path).ok_or(Cause::NoRoute)?;
        Ok((route, snapshot.upstream_of(route)))
    }

    /// One attempt after the other, until one is answered or there is nobody left to ask.
    async fn attempts<'p>(
        &mut self,
        plan: &mut Plan<'p>,
        upload: &mut Upload,
        unread: &mut Unread,
    ) -> Result<Served, Cause>
    where
        'a: 'p,
    {
        let mut last: Option<(Cause, RetryReason)> = None;
        loop {
            if self.client.thread.now_ns() >= plan.until_ns {
                return Err(last.map_or(Cause::Deadline, |(cause, _)| cause));
            }
            if self.wants_shield(plan, upload) && self.is_anybody(plan) {
                // What is rare is boxed: every exchange would have to hold room for it.
                Box::pin(self.shield(plan.upstream, upload, unread)).await?;
                return Ok(Served::Shielded);
            }
            let picked = match self.pick_at_once(plan) {
                Some(pick) => Ok(Picked::Node(pick)),
                None => Box::pin(self.pick_or_park(plan, upload, unread)).await,
            };
            let pick = match picked {
                Ok(Picked::Node(pick)) => pick,
                Ok(Picked::Renewed) => return Ok(Served::Renewed),
                Err(cause @ (Cause::ClientLeft | Cause::ParkFull | Cause::ParkTimeout)) => {
                    return Err(cause);
                }
                // Whoever was asked before knows more of the reason than "nobody is left".
                Err(cause) => return Err(last.map_or(cause, |(cause, _)| cause)),
            };
            if self.wants_shield(plan, upload) {
                // It was parked, and its body stayed with the client; or it follows a node that takes
                // nothing else. To look again first might find the same for ever.
                drop(pick);
                Box::pin(self.shield(plan.upstream, upload, unread)).await?;
                return Ok(Served::Shielded);
            }
            // Other nodes may have come up while it waited, or was tried in vain.
            self.guard(plan.upstream)?;
            if let Some((cause, reason)) = last.take() {
                // Paid for only now that there is somebody to ask.
                if !pay(plan, reason) {
                    return Err(cause);
                }
            }
            let node = pick.node;
            self.record.affinity = match &plan.wish.follow {
                Some(follow) => Some(follow.outcome(&plan.upstream.nodes[node].local.node)),
                None => None,
            };
            match self.attempt_at(pick, plan, upload, unread).await {
                Ok(Attempted::Done(next)) => return Ok(Served::Done(next)),
                Ok(Attempted::Again) => {}
                Err(failure) => match self.may_repeat(&failure, plan, upload) {
                    Some(reason) => {
                        if reason != RetryReason::StaleRace {
                            plan.wish.tried.push(failure.node);
                        }
                        last = Some((failure.cause, reason));
                    }
                    None => return Err(failure.cause),
                },
            }
        }
    }

    /// Unsent, any request. Sent and no byte of a head back, what is safe to repeat, within
    /// `retries` and the budget, and once if its node fell silent (`may_rescue`); once for free when a kept connection was closed at the moment of reuse.
    fn may_repeat(
        &self,
        failure: &Failure,
        plan: &mut Plan<'_>,
        upload: &Upload,
    ) -> Option<RetryReason> {
        let elsewhere = may_go_better_elsewhere(&failure.cause, failure.sent);
        if self.begun || !upload.is_replayable() || !elsewhere {
            return None;
        }
        if failure.rescue {
            plan.rescued = true;
            return Some(RetryReason::Rescue);
        }
        let terminated = failure.cause == Cause::ConnectionTerminated;
        // TLS that breaks is an end like any other, only with a reason.
        let ended = terminated || matches!(failure.cause, Cause::NodeTls(_));
        let unsent = failure.sent == 0;
        if terminated && failure.reused && !plan.race_lost && (unsent || plan.wish.safe_to_repeat) {
            // The same node, on a new connection: it only closed an old one.
            plan.race_lost = true;
            return Some(RetryReason::StaleRace);
        }
        if unsent {
            return Some(RetryReason::Unsent);
        }
        if !plan.wish.safe_to_repeat || !ended {
            return None;
        }
        (plan.repeats < plan.upstream.upstream.settings.retries).then_some(RetryReason::Reset)
    }

    /// Whether the client's connection may be used again, as far as the exchange can say.
    fn keeps_alive(&self) -> bool {
        self.head.keep_alive && !self.client.last && !self.client.thread.draining.get()
    }
}

/// A failed attempt.
struct Failure {
    cause: Cause,
    /// Where: another one than the one that was picked, if that was late.
    node: usize,
    /// Bytes of the request that a node may have seen.
    sent: u64,
    reused: bool,
    /// Given up because its node fell silent; the budget has paid for it.
    rescue: bool,
}

/// Counts a retry, and takes it from the budget if something had been sent. False: the budget is spent.
fn pay(plan: &mut Plan<'_>, reason: RetryReason) -> bool {
    let upstream = &plan.upstream.upstream;
    if reason == RetryReason::Reset {
        if !upstream.shared.budget.withdraw(clock::now_ns() / 1_000_000_000) {
            return false;
        }
        plan.repeats += 1;
    }
    upstream.metrics.retries[reason as usize].inc();
    true
}

/// The host without its port and final dot, in lower case, as routes are written.
fn host_name(host: &[u8]) -> String {
    let name = String::from_utf8_lossy(bare_host(host)).to_ascii_lowercase();
    name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_as_routes_write_them() {
        for (host, name) in
            [("A.b:80", "a.b"), ("a.b.", "a.b"), ("[::1]:80", "::1"), ("", ""), ("x:", "x")]
        {
            assert_eq!(host_name(host.as_bytes()), name);
        }
    }
}
