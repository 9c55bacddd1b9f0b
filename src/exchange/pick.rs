//! Which node gets an exchange: who may be picked, who is, and waiting while all are full.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use super::affinity::Follow;
use super::thread::Thread;
use super::view::{LocalMember, LocalUpstream};
use crate::balance::{Load, slow_start};
use crate::clock;
use crate::config::{Balance, HashKey};
use crate::error::Cause;
use crate::headers;
use crate::health::OutlierState;
use crate::http1::deadline::Deadline;
use crate::http1::request::RequestHead;
use crate::upstream::claim::{self, Bulk, Probation, Slot};
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
    /// It names an app other than the main one, and not by its host alone.
    pub names_sub_app: bool,
    /// An export or an import: a node does one at a time.
    pub is_bulk: bool,
    /// What it has to follow.
    pub follow: Option<Box<Follow>>,
    /// What `balance = "hash"` hashes.
    pub hash: Option<u64>,
    /// The node that the sticky cookie names, by its key.
    pub sticky: Option<u64>,
    /// Nodes that this exchange has tried, by index.
    pub tried: Vec<usize>,
}

/// A node that was picked, with what the exchange has of it alone until this is dropped.
pub struct Pick {
    /// Its index.
    pub node: usize,
    /// The one request of its probation.
    pub probation: Option<Probation>,
    /// Its place among the requests that the node may have, if that has a limit.
    slot: Option<Slot>,
    _bulk: Option<Bulk>,
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

/// Who may be picked, depending on whether the exchange is safe to repeat: each tier only when the one before
/// has nobody left.
const TIERS: [fn(&LocalMember, bool) -> bool; 3] = [
    |member, safe| !member.backup && member.local.node.eligible(safe),
    |member, safe| member.backup && member.local.node.eligible(safe),
    |member, _| !member.backup && member.local.node.may_fail_open(),
];

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
) -> Result<Pick, Unpicked> {
    if !upstream.is_waited_for() {
        match pick_now(thread, upstream, wish) {
            Err(Nothing::AllFull) => {}
            other => return other.map_err(Unpicked::Nobody),
        }
    }
    let (settings, queue) = (&upstream.upstream.settings, &upstream.upstream.shared.queue);
    let Some(place) = queue.enter(wish.safe_to_repeat, settings.queue) else {
        return Err(Unpicked::Failed(Cause::QueueFull));
    };
    // Whoever ended just before woke nobody; and what is free may be so for none of those in front.
    if has_room(upstream) {
        queue.wake_first();
    }
    let _queued = upstream.upstream.metrics.count_queued();
    let timeout = clock::nanos(settings.queue_timeout);
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
    if matches!(picked, Ok(Ok(_))) {
        // The others would nearly always look in vain.
        place.leave();
        if has_room(upstream) {
            queue.wake_first();
        }
    }
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
pub fn pick_now(thread: &Thread, upstream: &LocalUpstream, wish: &Wish) -> Result<Pick, Nothing> {
    let now = thread.now_ns();
    let followed = wish.follow.as_ref().and_then(|follow| follow.node(upstream, wish, now));
    if let Some(Ok(pick)) = followed.map(|node| claim(upstream, node, None, true)) {
        return Ok(pick);
    }
    let mut eligible = upstream.eligible.borrow_mut();
    let mut anybody = false;
    for (tier, may) in TIERS.iter().enumerate() {
        // Nodes that this exchange has tried already are still the tier's: it is not empty for them.
        if tier == 2 && anybody {
            break;
        }
        eligible.clear();
        let mut full = false;
        for (index, member) in upstream.nodes.iter().enumerate() {
            if !may(member, wish.safe_to_repeat) {
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
        let left = (&mut *eligible, &mut full);
        match choose((thread, now), upstream, wish, left, tier < 2) {
            Some(pick) => return Ok(pick),
            // A backup is for primaries that are gone, not for those that are busy.
            None if full => return Err(Nothing::AllFull),
            None => {}
        }
    }
    Err(if anybody { Nothing::NoneLeft } else { Nothing::NoNode })
}

/// Whether a node has as many requests as it may.
pub fn is_full(member: &LocalMember) -> bool {
    member.max_requests != 0 && claim::is_full(&member.local.node, member.max_requests)
}

/// Whether a node is below its limit in the tier whose turn it is.
fn has_room(upstream: &LocalUpstream) -> bool {
    let of = |may: fn(&LocalMember, bool) -> bool| {
        upstream.nodes.iter().filter(move |member| may(member, true))
    };
    let tier = TIERS.into_iter().find(|may| of(*may).next().is_some());
    tier.is_some_and(|may| of(may).any(|member| !is_full(member)))
}

/// Chooses one, and claims of it what only one exchange may have; another one if somebody was faster.
fn choose(
    (thread, now): (&Thread, u64),
    upstream: &LocalUpstream,
    wish: &Wish,
    (eligible, full): (&mut Vec<usize>, &mut bool),
    for_probation: bool,
) -> Option<Pick> {
    loop {
        let fewest = wish.is_bulk.then(|| fewest_bulk(upstream, eligible));
        let node = match fewest {
            None => prefer(thread, upstream, wish, eligible, now)?,
            Some(fewest) => {
                let has_fewest = |index: &usize| bulk(upstream, *index) <= fewest;
                let idlest: Vec<usize> = eligible.iter().copied().filter(has_fewest).collect();
                match prefer(thread, upstream, wish, &idlest, now) {
                    Some(node) => node,
                    None if eligible.is_empty() => return None,
                    // All have got more since they were counted.
                    None => continue,
                }
            }
        };
        match claim(upstream, node, fewest, for_probation) {
            Ok(pick) => return Some(pick),
            Err(Missed::Bulk) => {}
            Err(missed) => {
                *full |= missed == Missed::Slot;
                eligible.retain(|other| *other != node);
            }
        }
    }
}

/// What another exchange was faster to claim.
#[derive(PartialEq, Eq)]
enum Missed {
    Slot,
    Probation,
    Bulk,
}

/// Claims a node: a slot of one that has a limit; on probation its one request, where that is needed; and a
/// place among its exports, if it still has as many as were seen.
fn claim(
    upstream: &LocalUpstream,
    index: usize,
    bulk: Option<u32>,
    for_probation: bool,
) -> Result<Pick, Missed> {
    let LocalMember { local, max_requests, .. } = &upstream.nodes[index];
    let node = &local.node;
    let probation = match node.outlier() {
        OutlierState::Probation => match Probation::claim(node) {
            None if for_probation => return Err(Missed::Probation),
            claimed => claimed,
        },
        _ => None,
    };
    let bulk = match bulk {
        Some(seen) => Some(Bulk::claim(node, seen).ok_or(Missed::Bulk)?),
        None => None,
    };
    // Last: one that is given back lets the first in the queue look again, which may be whoever asks.
    let slot = match *max_requests {
        0 => None,
        limit => {
            let queue = &upstream.upstream.shared.queue;
            Some(Slot::claim(node, limit, queue).ok_or(Missed::Slot)?)
        }
    };
    Ok(Pick { node: index, probation, slot, _bulk: bulk })
}

fn bulk(upstream: &LocalUpstream, index: usize) -> u32 {
    upstream.nodes[index].local.node.bulk()
}

fn fewest_bulk(upstream: &LocalUpstream, eligible: &[usize]) -> u32 {
    eligible.iter().map(|index| bulk(upstream, *index)).min().unwrap_or(0)
}

fn prefer(
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
    let steady = wish.follow.as_ref().and_then(|follow| follow.steady_key());
    let bound = wish.hash.is_some() || steady.is_some();
    let may_try = wish.safe_to_repeat && !wish.tunnel && !bound;
    if may_try && let Some(index) = eligible.iter().find(undecided) {
        return Some(*index);
    }
    let weight = |index: usize| upstream.nodes[index].weight;
    let mut loads = upstream.loads.borrow_mut();
    if wish.tunnel || upstream.upstream.settings.balance != Balance::RoundRobin {
        for index in eligible {
            let node = &upstream.nodes[*index].local.node;
            loads[*index] = node.load(thread.index, weight(*index), now);
            let may_be = loads[*index].in_flight > 0 || loads[*index].latency_ns > SUSPECT_NS;
            let suspect = may_be && is_suspect(thread, upstream, *index, now);
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
    match (wish.tunnel, steady) {
        (true, _) => balancer.pick_tunnel(eligible, load),
        (false, Some(key)) => balancer.pick_steady(eligible, load, key),
        (false, None) => balancer.pick(eligible, load, wish.hash, &mut thread.rng.borrow_mut()),
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
    lingering: bool,
    /// Given back after the count was taken back: who is woken by it looks at both.
    _slot: Option<Slot>,
}

impl<'a> InFlight<'a> {
    /// From the pick on, whose slot it has from now on.
    pub fn begin(member: &'a LocalMember, pick: &mut Pick) -> InFlight<'a> {
        Cell::add(&member.local.cell().in_flight, 1);
        InFlight { member, lingering: false, _slot: pick.slot.take() }
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
    }
}

#[cfg(test)]
mod tests;
