//! Which node gets an exchange: who may be picked, who is, and waiting while all are full.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use super::thread::Thread;
use super::view::{LocalMember, LocalUpstream};
use crate::balance::{Load, slow_start};
use crate::clock;
use crate::config::{Balance, HashKey};
use crate::error::Cause;
use crate::headers;
use crate::http1::deadline::Deadline;
use crate::http1::request::RequestHead;
use crate::upstream::node::Cell;
use crate::upstream::{Note, Signal};

/// A node that is silent for longer is probed out of turn.
const SUSPECT_NS: u64 = 100_000_000;
/// A node that answers probes but none of its requests for longer is sent one more. By then these may
/// linger, which they do when that one is answered.
const EXPLORE_NS: u64 = 250_000_000;

/// What picking needs to know of an exchange.
pub struct Wish {
    /// May be sent again although a node may have begun with it.
    pub safe_to_repeat: bool,
    /// A WebSocket handshake.
    pub tunnel: bool,
    /// Hash of the app that the request names.
    pub app: u64,
    /// What `balance = "hash"` hashes.
    pub hash: Option<u64>,
    /// The node that the sticky cookie names, by its key.
    pub sticky: Option<u64>,
    /// Nodes that this exchange has tried, by index.
    pub tried: Vec<usize>,
}

/// Why nothing was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// No node is eligible, now.
    NoNode,
    /// Those that are have been tried by this exchange, or refuse its app.
    NoneLeft,
    /// Those there are have as much as they may.
    AllFull,
}

/// What a wait for a node came to, when it came to none.
#[derive(Debug)]
pub enum Unpicked {
    /// There is nobody to wait for in the queue.
    Nobody(Nothing),
    /// It is over, for this cause.
    Failed(Cause),
}

impl Wish {
    /// The hash key of a request, as the upstream wants it.
    pub fn hash_key(
        upstream: &LocalUpstream,
        head: &RequestHead,
        client: std::net::IpAddr,
    ) -> Option<u64> {
        let settings = &upstream.upstream.settings;
        if settings.balance != Balance::Hash {
            return None;
        }
        let hash = |bytes: &[u8]| xxhash_rust::xxh3::xxh3_64(bytes);
        match &settings.hash_key {
            HashKey::ClientIp => Some(hash(client.to_string().as_bytes())),
            HashKey::Header(name) => head.value_named(name.as_bytes()).map(hash),
            HashKey::Cookie(name) => headers::cookie(head, name).map(hash),
        }
    }
}

/// Picks a node, waiting in the queue while every eligible one is full.
///
/// # Errors
/// No node is eligible or left, or the queue is full or too slow.
pub async fn pick(
    thread: &Thread,
    upstream: &LocalUpstream,
    wish: &Wish,
    deadline: &Deadline,
    until_ns: u64,
) -> Result<usize, Unpicked> {
    if upstream.queue.is_empty() {
        match pick_now(thread, upstream, wish) {
            Err(Nothing::AllFull) => {}
            other => return other.map_err(Unpicked::Nobody),
        }
    }
    let Some(place) = upstream.queue.enter(wish.safe_to_repeat) else {
        return Err(Unpicked::Failed(Cause::QueueFull));
    };
    let _queued = upstream.upstream.metrics.count_queued();
    let timeout = clock::nanos(upstream.upstream.settings.queue_timeout);
    deadline.set_at(until_ns.min(thread.now_ns().saturating_add(timeout)));
    let waited = deadline.guard(poll_fn(|cx| {
        while place.poll_turn(cx).is_ready() {
            match pick_now(thread, upstream, wish) {
                // With a narrower choice than others have, their turn must not wait for this one's.
                Err(Nothing::AllFull) => place.pass_on(),
                other => return Poll::Ready(other),
            }
        }
        Poll::Pending
    }));
    let picked = waited.await;
    let now = thread.look_at_clock();
    deadline.clear();
    match picked {
        Ok(other) => other.map_err(Unpicked::Nobody),
        Err(_) if now >= until_ns => Err(Unpicked::Failed(Cause::Deadline)),
        Err(_) => Err(Unpicked::Failed(Cause::QueueTimeout)),
    }
}

/// Picks a node without waiting.
///
/// # Errors
/// There is none, now.
pub fn pick_now(thread: &Thread, upstream: &LocalUpstream, wish: &Wish) -> Result<usize, Nothing> {
    let now = thread.now_ns();
    let mut eligible = upstream.eligible.borrow_mut();
    // Each tier is asked only when the one before has nobody left.
    let tiers: [&dyn Fn(&LocalMember) -> bool; 3] = [
        &|member| !member.backup && member.local.node.eligible(wish.safe_to_repeat),
        &|member| member.backup && member.local.node.eligible(wish.safe_to_repeat),
        &|member| !member.backup && member.local.node.may_fail_open(),
    ];
    let mut anybody = false;
    for (tier, may) in tiers.iter().enumerate() {
        // Nodes that this exchange has tried already are still the tier's: it is not empty for them.
        if tier == 2 && anybody {
            break;
        }
        eligible.clear();
        let mut full = false;
        for (index, member) in upstream.nodes.iter().enumerate() {
            if !may(member) {
                continue;
            }
            anybody = true;
            if wish.tried.contains(&index) || upstream.is_passed_over(index, wish.app, now) {
                continue;
            }
            match is_full(member) {
                true => full = true,
                false => eligible.push(index),
            }
        }
        match choose(thread, upstream, wish, &eligible, now) {
            Some(node) => return Ok(node),
            // A backup is for primaries that are gone, not for those that are busy.
            None if full => return Err(Nothing::AllFull),
            None => {}
        }
    }
    Err(if anybody { Nothing::NoneLeft } else { Nothing::NoNode })
}

/// Whether a node has as many requests as it may.
pub fn is_full(member: &LocalMember) -> bool {
    member.max_requests != 0 && member.local.node.in_flight() >= member.max_requests
}

fn choose(
    thread: &Thread,
    upstream: &LocalUpstream,
    wish: &Wish,
    eligible: &[usize],
    now: u64,
) -> Option<usize> {
    if let Some(key) = wish.sticky
        && let Some(index) = eligible.iter().find(|i| upstream.nodes[**i].sticky_key == key)
    {
        return Some(*index);
    }
    // By its load it would not be picked for a minute: what got it ejected counts as slow.
    let undecided = |i: &&usize| upstream.nodes[**i].local.node.awaits_probation();
    let may_try = wish.safe_to_repeat && !wish.tunnel && wish.hash.is_none();
    if may_try && let Some(index) = eligible.iter().find(undecided) {
        return Some(*index);
    }
    let weight = |index: usize| upstream.nodes[index].weight;
    let mut loads = upstream.loads.borrow_mut();
    if wish.tunnel || upstream.upstream.settings.balance != Balance::RoundRobin {
        for index in eligible {
            let node = &upstream.nodes[*index].local.node;
            loads[*index] = node.load(thread.index, weight(*index), now);
            let suspect = loads[*index].in_flight > 0 && is_suspect(thread, upstream, *index, now);
            if suspect && may_try && upstream.nodes[*index].local.is_due(Note::Explore, now) {
                return Some(*index);
            }
        }
    }
    let slow = upstream.upstream.shared.slow_starts.load(Relaxed);
    if slow {
        hold_back(upstream, eligible, now, &mut loads);
    }
    // Smooth weighted round robin asks for weights alone: what it does not weigh is not added up.
    let load = |index: usize| {
        let held_back = if slow { loads[index].held_back } else { 0 };
        Load { weight: weight(index), held_back, ..loads[index] }
    };
    let mut balancer = upstream.balancer.borrow_mut();
    match wish.tunnel {
        true => balancer.pick_tunnel(eligible, load),
        false => balancer.pick(eligible, load, wish.hash, &mut thread.rng.borrow_mut()),
    }
}

/// Notes what slow start holds back of the weights of those that may be picked.
fn hold_back(upstream: &LocalUpstream, eligible: &[usize], now: u64, loads: &mut [Load]) {
    let window = clock::nanos(upstream.upstream.settings.slow_start);
    let share =
        |i: usize| slow_start::share(upstream.nodes[i].local.node.slow_since_ns(), now, window);
    let furthest = eligible.iter().map(|i| share(*i)).max().unwrap_or(slow_start::WHOLE);
    for index in eligible {
        loads[*index].held_back = slow_start::held_back(share(*index), furthest);
    }
}

/// Whether a node should be sent a request although its silence keeps traffic away: it may have been asked
/// for nothing but a URL that never answers. A probe must have found it alive since, where probes are made.
fn is_suspect(thread: &Thread, upstream: &LocalUpstream, index: usize, now: u64) -> bool {
    let local = &upstream.nodes[index].local;
    let Some(since) = local.node.unanswered_since_ns() else { return false };
    let silent = now.saturating_sub(since);
    let probed = upstream.upstream.settings.health_check.is_some();
    let alive = !probed || local.node.last_good_probe_ns() > since;
    if !alive && silent > SUSPECT_NS && local.is_due(Note::ProbeNow, now) {
        thread.signal(Signal::ProbeNow(local.node.clone()));
    }
    alive && silent > EXPLORE_NS
}

/// Counts an exchange at its node while it lives.
pub struct InFlight<'a> {
    member: &'a LocalMember,
    upstream: &'a LocalUpstream,
    lingering: bool,
}

impl<'a> InFlight<'a> {
    /// From the pick on.
    pub fn begin(upstream: &'a LocalUpstream, node: usize) -> InFlight<'a> {
        let member = &upstream.nodes[node];
        Cell::add(&member.local.cell().in_flight, 1);
        InFlight { member, upstream, lingering: false }
    }

    /// It has waited very long while its node answered others: it says nothing about the node's load.
    pub fn set_lingering(&mut self, lingering: bool) {
        if lingering != self.lingering {
            Cell::add(&self.member.local.cell().lingering, if lingering { 1 } else { -1 });
            self.lingering = lingering;
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.set_lingering(false);
        Cell::add(&self.member.local.cell().in_flight, -1);
        self.upstream.queue.wake_first();
    }
}
