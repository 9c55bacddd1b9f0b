//! One attempt: connect, send, await the head, pass the answer on; and what a node's conduct means for it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use super::attempt::{Awaiting, Refused, Sending, await_head, may_refuse, refused, send};
use super::client::Unread;
use super::leg::{Leg, Seen};
use super::pick::Pick;
use super::rescue::{another_may_take_it, may_rescue};
use super::respond::{Progress, Responding, Through, respond};
use super::towards::Towards;
use super::tunnel::{Counted, Tunnel};
use super::upload::{Flags, Upload};
use super::verdict::{attempt_result, is_race, node_verdict};
use super::view::LocalMember;
use super::{Attempted, Exchange, Failure, Next, Plan, unix_s};
use crate::error::Cause;
use crate::headers::{self, ForClient};
use crate::http1::body::Framing;
use crate::http1::response::ResponseHead;
use crate::net::{Fate, Socket};
use crate::telemetry::metrics::{AttemptResult, RetryReason};
use crate::upstream::{Connection, PoolLimits};

/// How a try ended that did not fail.
enum Tried {
    /// An answer was passed on, to its end or into a tunnel.
    Answered {
        next: Next,
        /// Not a gateway's error; `None` where that cannot be told.
        healthy: Option<bool>,
    },
    /// The node provably did not run it, and another may.
    Refused,
}

/// What came back from a node.
enum Reply {
    Refused,
    Upgraded(ResponseHead),
    Passed {
        next: Next,
        /// The connection may be kept, and by which hint.
        keep: Option<Option<Duration>>,
        healthy: Option<bool>,
    },
}

impl<'a> Exchange<'a> {
    /// One try at one node, with everything that follows from how it ends.
    pub(super) async fn attempt_at<'p>(
        &mut self,
        pick: Pick,
        plan: &mut Plan<'p>,
        upload: &mut Upload,
        unread: &mut Unread,
    ) -> Result<Attempted, Failure>
    where
        'a: 'p,
    {
        let upstream = plan.upstream;
        let mut leg = Leg::begin(pick, upstream, self.client.thread);
        let tried = self.try_node(&mut leg, plan, (upload, unread)).await;
        let now = self.client.thread.look_at_clock();
        // Another one than the one that was picked, if that was late.
        let (node, member, seen) = (leg.pick.node, leg.member, &leg.seen);
        let race = is_race(tried.as_ref().err(), seen.reused.get());
        let (result, verdict) = match &tried {
            Ok(Tried::Refused) => (AttemptResult::Maintaining, None),
            Ok(Tried::Answered { healthy, .. }) => (AttemptResult::Ok, *healthy),
            Err(cause) => {
                // A URL that never answers says nothing about a node that answered others meanwhile.
                let alive = *cause == Cause::ResponseTimeout
                    && member.local.node.last_traffic_head_ns() > seen.sent_ns.get();
                // Nor does giving up early: what probes found is counted where they are judged.
                let verdict = node_verdict(cause, race || alive || seen.rescue.get());
                (attempt_result(cause), verdict.or(seen.healthy.get()))
            }
        };
        let told = leg.told(result, now);
        self.judge(member, upstream, verdict, tried.as_ref().err(), told.ns);
        self.record.attempts.push(told);
        if let (Some(probation), Some(good)) = (leg.pick.probation.take(), verdict) {
            self.end_probation(member, probation, good);
        }
        match tried {
            Ok(Tried::Answered { next, .. }) => Ok(Attempted::Done(next)),
            Ok(Tried::Refused) => {
                debug_assert!(upload.is_replayable(), "a refusal is passed on unless it is");
                upstream.pass_over(node, plan.wish.app, self.client.thread.now_ns());
                plan.wish.tried.push(node);
                upstream.upstream.metrics.retries[RetryReason::Refused as usize].inc();
                Ok(Attempted::Again)
            }
            Err(cause) => {
                if race {
                    self.lost_race(member, plan);
                }
                Err(Failure {
                    cause,
                    node,
                    sent: seen.sent.get(),
                    reused: seen.reused.get(),
                    rescue: seen.rescue.get(),
                })
            }
        }
    }

    /// Connects, sends, awaits the head, and passes the answer on unless it proves a refusal.
    async fn try_node<'p>(
        &mut self,
        leg: &mut Leg<'p>,
        plan: &mut Plan<'p>,
        (upload, unread): (&mut Upload, &mut Unread),
    ) -> Result<Tried, Cause>
    where
        'a: 'p,
    {
        let (mut connection, whole) = self.open(leg, plan, upload).await?;
        let flags = Flags::of(upload, whole);
        // Sent whole, or as far as the node took it: from now on it owes an answer.
        if !flags.streams() {
            leg.waiting.begin();
        }
        if let Some(after_ns) = self.hedge_after(plan, upload, &flags) {
            let race = self.race(leg, connection, plan, (upload, unread), after_ns);
            connection = Box::pin(race).await?;
        }
        let (member, sent_ns) = (leg.member, leg.seen.sent_ns.get());
        let reply = self.reply((leg, plan), connection.socket(), (upload, unread), &flags).await;
        if reply.is_err() {
            match connection.socket().fate() {
                // Known by the node's own word: any request may be asked again.
                Fate::Unprocessed => leg.seen.sent.set(0),
                // No old connection is to blame.
                Fate::Reset => leg.seen.reused.set(false),
                Fate::Unknown | Fate::Unsayable => {}
            }
        }
        let reply = reply?;
        let (next, healthy) = match reply {
            Reply::Refused => return Ok(Tried::Refused),
            Reply::Upgraded(head) => {
                (Box::pin(self.upgrade(head, connection, plan)).await?, Some(true))
            }
            Reply::Passed { next, keep, healthy } => {
                // Nobody would look after the pool of a node that was removed meanwhile.
                let thread = self.client.thread;
                let current = thread.is_current(&self.view) || thread.view().has(&member.local);
                if let Some(hint) = keep.filter(|_| current) {
                    let limits = PoolLimits::of(&plan.upstream.upstream.settings);
                    connection.give_back(hint, limits, self.client.thread.now_ns());
                }
                (next, healthy)
            }
        };
        let now = self.client.thread.look_at_clock();
        member.local.node.metrics.response.observe((now - sent_ns) as f64 / 1e9);
        Ok(Tried::Answered { next, healthy })
    }

    /// Connects, and sends the head and what is there of the body. Also says whether the node took it all.
    pub(super) async fn open(
        &mut self,
        leg: &Leg<'_>,
        plan: &Plan<'_>,
        upload: &Upload,
    ) -> Result<(Connection, bool), Cause> {
        let (seen, stall) = (&leg.seen, plan.upstream.upstream.settings.body_idle_timeout);
        let connection = match self.kept(leg.member, plan) {
            Some(kept) => kept,
            // What is rare is boxed, here and below: every exchange would have to hold room for it.
            None => Box::pin(self.connect(leg.member, plan)).await?,
        };
        seen.reused.set(connection.reused);
        let sending = Sending { head: &plan.node_head, wire: upload.wire(), seen };
        seen.sent_ns.set(self.client.thread.now_ns());
        let socket = connection.socket();
        let whole = sending.at_once(socket)
            || Box::pin(send(socket, &sending, &self.deadlines.down, stall)).await?;
        Ok((connection, whole))
    }

    /// Awaits the head and passes the answer on, while the rest of the body goes up or the client is
    /// watched.
    async fn reply(
        &mut self,
        (leg, plan): (&mut Leg<'_>, &Plan<'_>),
        socket: &Socket,
        (upload, unread): (&mut Upload, &mut Unread),
        flags: &Flags,
    ) -> Result<Reply, Cause> {
        let Leg { member, in_flight, waiting, seen, .. } = leg;
        let (node, waiting) = (leg.pick.node, &*waiting);
        let (client, settings) = (self.client, &plan.upstream.upstream.settings);
        let towards = Towards {
            socket,
            stall: settings.body_idle_timeout,
            first: plan.patience(client),
            deadline: &self.deadlines.up,
            seen,
        };
        let give_up = |since_ns, now| {
            let may = || may_rescue(client.thread, (node, plan), since_ns, now);
            // Asked now: what can be replayed may have been streamed since the attempt began.
            seen.rescue.set(flags.is_replayable() && may());
            seen.rescue.get()
        };
        let mut beside = pin!(async {
            if flags.streams() {
                match Box::pin(upload.pump(client, unread, &towards, flags)).await {
                    Err(cause) => return cause,
                    Ok(()) => waiting.begin(),
                }
            }
            client.watch(unread).await
        });
        let awaiting = Awaiting {
            client,
            node: &member.local.node,
            waiting,
            socket,
            settings,
            to_head: self.head.method() == b"HEAD",
            expects_continue: plan.expects_continue,
            interim: self.head.version_11,
            until_ns: plan.until_ns,
            give_up: &give_up,
        };
        let head = await_head(&awaiting, in_flight, &self.deadlines.down, beside.as_mut()).await;
        in_flight.set_lingering(false);
        let mut head = head?;
        let took_ns = self.head_received(member, &head, waiting);
        let refused = match may_refuse(&awaiting, &head) {
            false => Refused::No,
            true => Box::pin(refused(&awaiting, &mut head, &self.deadlines.down)).await?,
        };
        if matches!(refused, Refused::Proven(_)) {
            self.ask_for_probe(member);
            if flags.is_replayable() && another_may_take_it(client.thread, node, plan) {
                return Ok(Reply::Refused);
            }
        }
        flags.answer();
        if head.status < 400 {
            self.remember(plan, &member.local.node);
            self.accept_work();
        }
        let healthy = looks_healthy(&refused, head.status, plan.wish.names_sub_app);
        seen.healthy.set(healthy);
        if let (Some(true), Some(took_ns)) = (healthy, took_ns) {
            self.feed_latency(member, plan, &head, took_ns);
        }
        // From here on an event stream, like a tunnel, hardly burdens its node.
        in_flight.set_lingering(head.event_stream);
        waiting.end();
        if head.status == 101 {
            return Ok(Reply::Upgraded(head));
        }
        let from = (socket, &*seen);
        let passed = self.pass_on(&mut head, from, (node, plan), flags, beside.as_mut()).await?;
        Ok(Reply::Passed { next: passed.0, keep: passed.1, healthy })
    }

    /// A connection of the node's pool.
    fn kept(&self, member: &LocalMember, plan: &Plan<'_>) -> Option<Connection> {
        // A tunnel keeps its connection for itself: it may as well be a new one.
        let reusable = !plan.race_lost && !self.head.websocket;
        let now = self.client.thread.now_ns();
        reusable.then(|| member.local.take(plan.wish.safe_to_repeat, now)).flatten()
    }

    /// A new one.
    async fn connect(
        &mut self,
        member: &LocalMember,
        plan: &Plan<'_>,
    ) -> Result<Connection, Cause> {
        let now = self.client.thread.now_ns();
        let timeout = plan.upstream.upstream.settings.connect_timeout;
        let left = Duration::from_nanos(plan.until_ns - now.min(plan.until_ns))
            .max(Duration::from_nanos(1));
        let down = &self.deadlines.down;
        let connect = member.local.connect(&self.client.thread.dial, down, timeout.min(left));
        let opened = connect.await.map_err(|cause| match cause {
            // The end of the time for all attempts is not the node's fault.
            Cause::ConnectTimeout if left < timeout => Cause::Deadline,
            other => other,
        })?;
        self.record.connect_ns = Some(self.client.thread.look_at_clock() - now);
        if self.head.websocket && !opened.takes_upgrades() {
            return Err(Cause::NotImplemented("WebSocket to nodes of HTTP/2 without RFC 8441"));
        }
        Ok(opened)
    }

    /// Passes an answer on. Also says whether the node's connection may be kept, and by which hint.
    async fn pass_on<S: Future<Output = Cause>>(
        &mut self,
        head: &mut ResponseHead,
        (socket, seen): (&Socket, &Seen),
        (node, plan): (usize, &Plan<'_>),
        flags: &Flags,
        beside: Pin<&mut S>,
    ) -> Result<(Next, Option<Option<Duration>>), Cause> {
        let settings = &plan.upstream.upstream.settings;
        let framing = match (head.framing, self.head.version_11) {
            (Framing::Chunked | Framing::UntilClose, true) => Framing::Chunked,
            (Framing::Chunked | Framing::UntilClose, false) => Framing::UntilClose,
            (known, _) => known,
        };
        let keep_alive = self.keeps_alive() && framing != Framing::UntilClose && flags.done.get();
        let cookie = self.set_cookie(plan, node);
        let id = self.record.id;
        let responding = Responding {
            client: self.client,
            socket,
            seen,
            parts: ForClient {
                framing,
                version_11: self.head.version_11,
                keep_alive,
                request_id: id.as_str(),
                set_cookie: cookie.as_deref(),
                hsts: plan.https && self.view.snapshot.config.tls.https_only,
            },
            // An event stream says nothing for as long as nothing happens.
            last: !keep_alive,
            idle: if head.event_stream { Duration::ZERO } else { settings.body_idle_timeout },
        };
        let (mut progress, down) = (Progress::default(), &self.deadlines.down);
        let mut through = Through::begin(head, &responding);
        let result = match through.at_once(&responding, &mut progress) {
            Ok(false) => {
                let rest = respond(&mut through, &responding, down, beside, &mut progress);
                Box::pin(rest).await
            }
            done => done.map(drop),
        };
        through.recycle(&self.client.thread.buffers);
        self.begun = progress.begun;
        self.record.bytes_out = progress.bytes;
        self.record.status = head.status;
        self.record.from_node = true;
        result?;
        let clean = head.keep_alive && progress.clean && flags.done.get();
        let keep = clean.then_some(head.keep_alive_hint);
        let next = match (keep_alive, flags.done.get()) {
            (true, _) => Next::KeepAlive,
            (false, true) => Next::Close,
            (false, false) => Next::Linger,
        };
        Ok((next, keep))
    }

    /// The cookie that brings the client back to this node, unless it has one that does.
    fn set_cookie(&self, plan: &Plan<'_>, node: usize) -> Option<String> {
        let upstream = plan.upstream;
        let (sticky, signer) =
            (upstream.upstream.settings.sticky.as_ref()?, upstream.signer.as_ref()?);
        let (key, wish) = (upstream.nodes[node].sticky_key, &plan.wish);
        // What a flow or an export asked for moves no client away from its node.
        let strays = wish.sticky.is_some() && (wish.is_bulk || wish.follow.is_some());
        if wish.sticky == Some(key) || strays {
            return None;
        }
        let value = signer.sign(key, unix_s());
        let max_age = sticky.max_life.as_secs();
        let cookie = &sticky.cookie;
        let secure = if plan.https { "; Secure" } else { "" };
        Some(format!("{cookie}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"))
    }

    /// The node agreed to a WebSocket: tells the client, and joins the two.
    async fn upgrade(
        &mut self,
        head: ResponseHead,
        connection: Connection,
        plan: &Plan<'_>,
    ) -> Result<Next, Cause> {
        if !self.head.websocket || !head.upgrade_websocket {
            return Err(Cause::BadResponse("an upgrade that nobody asked for"));
        }
        let id = self.record.id;
        let parts = ForClient {
            framing: Framing::Empty,
            version_11: true,
            keep_alive: true,
            request_id: id.as_str(),
            set_cookie: None,
            hsts: false,
        };
        let mut out = self.client.thread.buffers.small();
        headers::write_response(&mut out, &head, &parts);
        self.begun = true;
        let counted = Counted::new(connection.local().clone(), self.tunnel_share.take());
        self.client.write([&out, &[], &[]], &self.deadlines.down).await?;
        self.client.thread.buffers.give_back(out);
        self.record.status = 101;
        self.record.from_node = true;
        let from_node = head.bytes[head.length_of_head..].to_vec();
        head.recycle(&self.client.thread.buffers);
        let idle = plan.upstream.upstream.settings.tunnel_idle_timeout;
        let max_message = plan.upstream.upstream.settings.max_message;
        let let_through = self.record.let_through;
        let (page, first_words) = self.page(plan, &connection.local().node);
        let node = connection.into_socket();
        Ok(Next::Tunnel(Box::new(move |client, admitted, from_client| Tunnel {
            client,
            admitted,
            node,
            counted,
            idle,
            max_message,
            let_through,
            page,
            first_words,
            from_client,
            from_node,
        })))
    }
}

/// What a head says of its node; none if it says nothing.
fn looks_healthy(refused: &Refused, status: u16, of_sub_app: bool) -> Option<bool> {
    let gateway_error = matches!(status, 502..=504);
    match refused {
        // What stands between this node and a sub-app's process says nothing of the node.
        Refused::No if of_sub_app && gateway_error => None,
        Refused::No => Some(!gateway_error),
        Refused::Unproven | Refused::Proven(_) => None,
    }
}
