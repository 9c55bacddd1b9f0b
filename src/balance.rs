//! Picks a node for a request or a tunnel.
//!
//! One [`Balancer`] belongs to one upstream on one data thread. It is told which nodes are eligible
//! and how loaded each is, and remembers only what it has handed out, so that shares follow weights.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::Balance;

mod credit;
pub mod ewma;
pub mod percentile;
pub mod silence;
pub mod slow_start;
pub mod sticky;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use credit::Credits;
use slow_start::WHOLE;

/// Nodes that `least_load` compares. Three of many is close to the best of all, and the randomness
/// keeps several balancers from running to the same node at once.
pub const CANDIDATES: usize = 3;

/// Latencies below this are equal: a timer tick, a garbage collection or a slow packet is no reason to
/// move a share.
pub const LATENCY_FLOOR_NS: u64 = 5_000_000;

/// Latencies up to so many medians of the candidates are equal. Requests to NocoBase differ by far
/// more than two times, so the averages of equal nodes do as well.
const MEDIANS_THAT_ARE_NOISE: u64 = 2;

/// The floor never exceeds so many times the best candidate's latency. Without it two hung nodes of
/// three would be the median, and lift the floor until the healthy one looked no better.
const BESTS_THAT_ARE_NOISE: u64 = 4;

/// `least_load` scores up to this many times the best are a tie. It keeps a few tunnels (1/200 of a
/// request each) from deciding every pick on an idle upstream, and weights in charge of the shares.
const TIE_BAND: f64 = 1.25;

/// So are those up to this share of what the best candidate would score with the request: loads come
/// in whole requests, and a node of weight 3 with one is not busier than an idle one of weight 1. A
/// little below 1, so that between equal nodes an idle one always wins.
const NEXT_BAND: f64 = 0.9;

/// So many tunnels, or exchanges that linger, weigh as much as one request in flight.
const IDLE_PER_REQUEST: f64 = 200.0;

/// Exchanges that linger count only up to this share of a request per unit of weight. It stays inside
/// [`TIE_BAND`], so that a URL that never answers moves no share, however often it is requested.
const MOST_LINGERING: f64 = 0.2;

/// A tunnel is not given to a node slower than this and than [`SUSPECT_RATIO`] times the best one.
const SUSPECT_NS: u64 = 1_000_000_000;
/// See [`SUSPECT_NS`].
const SUSPECT_RATIO: u64 = 10;

/// What a node carries at the moment of a pick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Its share, 1 to 1000 (0 counts as 1).
    pub weight: u32,
    /// What slow start holds back of that, in thousandths ([`slow_start::held_back`]).
    pub held_back: u32,
    /// Exchanges at the node, without those that linger and without tunnels.
    pub in_flight: u32,
    /// Exchanges that have waited very long for a head while their node answers others
    /// ([`silence::lingers`]).
    pub lingering: u32,
    /// Open tunnels.
    pub tunnels: u32,
    /// The larger of the decayed average ([`ewma::decayed`]) and the silence ([`silence::silence`]),
    /// in nanoseconds; 0 is unknown.
    pub latency_ns: u64,
}

impl Load {
    /// Its share in thousandths: whole numbers for credits and draws, always of the same scale, so that
    /// credits mean the same before, during and after a slow start.
    fn thousandths(&self) -> u32 {
        self.weight.max(1).saturating_mul(WHOLE.saturating_sub(self.held_back).max(1))
    }

    /// The same as a number of units of weight.
    fn weight(&self) -> f64 {
        f64::from(self.thousandths()) / f64::from(WHOLE)
    }

    /// The same node with one more request.
    fn plus_one(self) -> Self {
        Self { in_flight: self.in_flight.saturating_add(1), ..self }
    }

    /// Requests in flight per unit of weight.
    fn requests(&self) -> f64 {
        per_weight(self.in_flight, self.weight())
    }

    /// The same with tunnels and what lingers.
    fn work(&self) -> f64 {
        let tunnels = per_weight(self.tunnels, self.weight()) / IDLE_PER_REQUEST;
        let lingering = per_weight(self.lingering, self.weight()) / IDLE_PER_REQUEST;
        self.requests() + tunnels + lingering.min(MOST_LINGERING)
    }

    /// Latency times work. The formula is "latency × (in flight + 1) ÷ weight" with the 1 taken per
    /// unit of weight: as written, the heaviest node would win every pick on an idle upstream, while
    /// here idle nodes tie and the weights decide.
    fn score(&self, floor_ns: u64) -> f64 {
        self.latency_ns.max(floor_ns) as f64 * (self.work() + 1.0)
    }
}

/// Picks nodes of one upstream on one data thread.
///
/// Nodes are named by their index below the number of identities given to [`Balancer::new`].
#[derive(Clone, Debug)]
pub struct Balancer {
    algorithm: Balance,
    hash_balance_factor: f64,
    identities: Vec<u64>,
    requests: Credits,
    tunnels: Credits,
    /// Whose turn a tunnel is while a node starts slowly.
    turns: Credits,
    /// Weights of the eligible nodes of one pick, kept so that a pick allocates nothing.
    weights: Vec<u32>,
}

impl Balancer {
    /// A balancer with equal credit for every node.
    ///
    /// `identities` has one number per node that stays the same across reloads and replicas (a hash
    /// of its name): `hash` draws on it. `hash_balance_factor` is at least 1.
    #[must_use]
    pub fn new(algorithm: Balance, hash_balance_factor: f64, identities: Vec<u64>) -> Self {
        let nodes = identities.len();
        Self {
            algorithm,
            hash_balance_factor,
            identities,
            requests: Credits::new(nodes),
            tunnels: Credits::new(nodes),
            turns: Credits::new(nodes),
            weights: Vec::with_capacity(nodes),
        }
    }

    /// Picks a node for a request among `eligible`, which must not repeat an index.
    ///
    /// `load` tells what a node carries; it is called a few times per eligible node. `key` is what
    /// `hash` hashes; without one it falls back to `random_two`. `None` when `eligible` is empty.
    pub fn pick(
        &mut self,
        eligible: &[usize],
        load: impl Fn(usize) -> Load,
        key: Option<u64>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        if eligible.len() < 2 {
            return eligible.first().copied();
        }
        match (self.algorithm, key) {
            (Balance::LeastLoad, _) => self.least_load(eligible, load, rng),
            (Balance::RoundRobin, _) => {
                self.requests.pick(eligible, |i| load(i).thousandths(), |_| true)
            }
            (Balance::LeastRequests, _) => self.least_requests(eligible, load),
            (Balance::Hash, Some(key)) => self.hash(eligible, load, key),
            (Balance::RandomTwo, _) | (Balance::Hash, None) => self.random_two(eligible, load, rng),
        }
    }

    /// Picks a node for a tunnel: fewest tunnels per weight, ties by smooth weighted round robin,
    /// whatever the algorithm for requests. A node that is silent or failing (a second and ten times
    /// slower than the best) is passed over: a storm of tunnels would otherwise wait there.
    ///
    /// A node that starts slowly has the fewest, and would get all; so it gets one only in its turn, by
    /// its share of the weights.
    pub fn pick_tunnel(
        &mut self,
        eligible: &[usize],
        load: impl Fn(usize) -> Load,
    ) -> Option<usize> {
        let best = eligible.iter().map(|&i| load(i).latency_ns).min()?;
        let limit = SUSPECT_NS.max(best.saturating_mul(SUSPECT_RATIO));
        let may_come = |i: usize| load(i).latency_ns <= limit;
        let starts = |i: usize| load(i).held_back > 0;
        let turn = match eligible.iter().any(|&i| starts(i)) {
            true => self.turns.pick(eligible, |i| load(i).thousandths(), may_come),
            false => None,
        };
        let tunnels = |i: usize| {
            let waits = turn.is_some_and(|turn| starts(i) && i != turn);
            let open = may_come(i) && !waits;
            if open { per_weight(load(i).tunnels, load(i).weight()) } else { f64::INFINITY }
        };
        let fewest = least(eligible.iter().map(|&i| tunnels(i)));
        self.tunnels.pick(eligible, |i| load(i).thousandths(), |i| tunnels(i) <= fewest)
    }

    /// Picks the node that a key always has while it is there, whatever the algorithm for requests.
    pub fn pick_steady(
        &self,
        eligible: &[usize],
        load: impl Fn(usize) -> Load,
        key: u64,
    ) -> Option<usize> {
        self.hash(eligible, load, key)
    }

    fn least_load(
        &mut self,
        eligible: &[usize],
        load: impl Fn(usize) -> Load,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let (candidates, count) = self.candidates(eligible, &load, rng);
        let candidates = &candidates[..count];
        let floor = latency_floor(candidates);
        let best = least(candidates.iter().map(|c| c.1.score(floor)));
        let next = least(candidates.iter().map(|c| c.1.plus_one().score(floor)));
        let limit = (best * TIE_BAND).max(next * NEXT_BAND);
        let tied = |i: usize| candidates.iter().any(|c| c.0 == i && c.1.score(floor) <= limit);
        self.requests.pick(eligible, |i| load(i).thousandths(), tied)
    }

    fn least_requests(
        &mut self,
        eligible: &[usize],
        load: impl Fn(usize) -> Load,
    ) -> Option<usize> {
        let next = least(eligible.iter().map(|&i| load(i).plus_one().requests()));
        self.requests.pick(eligible, |i| load(i).thousandths(), |i| load(i).requests() < next)
    }

    fn random_two(
        &mut self,
        eligible: &[usize],
        load: impl Fn(usize) -> Load,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        self.weigh(eligible, &load);
        let first = self.draw(rng)?;
        let Some(second) = self.draw(rng) else { return Some(eligible[first]) };
        let pair = [eligible[first], eligible[second]];
        let next = least(pair.iter().map(|&i| load(i).plus_one().requests()));
        let tied = |i: usize| pair.contains(&i) && load(i).requests() < next;
        self.requests.pick(eligible, |i| load(i).thousandths(), tied)
    }

    /// Rendezvous hashing: each node draws a number from the key and its identity, scaled by its
    /// weight so that shares follow weights, and the largest wins. A node that leaves moves only its
    /// own keys, and one that starts slowly takes them back one after the other: no other key moves. A
    /// node at its bound is passed over, which spreads a hot key.
    fn hash(&self, eligible: &[usize], load: impl Fn(usize) -> Load, key: u64) -> Option<usize> {
        let (mut requests, mut weights) = (1_u64, 0.0);
        for load in eligible.iter().map(|&i| load(i)) {
            requests += u64::from(load.in_flight);
            weights += load.weight();
        }
        let per_weight = requests as f64 / weights * self.hash_balance_factor.max(1.0);
        let has_room =
            |load: Load| f64::from(load.in_flight) + 1.0 <= (per_weight * load.weight()).ceil();
        let draw = |i: usize| load(i).weight() / -uniform(key, self.identities[i]).ln();
        // The bounds add up to more than what is in flight, so one node has room (rounding aside).
        let with_room = eligible.iter().copied().filter(|&i| has_room(load(i)));
        with_room
            .max_by(|&a, &b| draw(a).total_cmp(&draw(b)))
            .or_else(|| eligible.iter().copied().max_by(|&a, &b| draw(a).total_cmp(&draw(b))))
    }

    /// Up to [`CANDIDATES`] eligible nodes with their loads: all when there are no more, else drawn
    /// by weight without repeating, so that a heavy node is compared as often as its share needs.
    fn candidates(
        &mut self,
        eligible: &[usize],
        load: &impl Fn(usize) -> Load,
        rng: &mut fastrand::Rng,
    ) -> ([(usize, Load); CANDIDATES], usize) {
        let mut found = [(usize::MAX, Load::default()); CANDIDATES];
        let count = eligible.len().min(CANDIDATES);
        if eligible.len() > CANDIDATES {
            self.weigh(eligible, load);
        }
        for (position, slot) in found.iter_mut().enumerate().take(count) {
            let drawn = if eligible.len() > CANDIDATES { self.draw(rng) } else { None };
            let node = eligible[drawn.unwrap_or(position)];
            *slot = (node, load(node));
        }
        (found, count)
    }

    fn weigh(&mut self, eligible: &[usize], load: &impl Fn(usize) -> Load) {
        self.weights.clear();
        self.weights.extend(eligible.iter().map(|&i| load(i).thousandths()));
    }

    /// Draws a position by weight and takes its weight away, so that it is not drawn again.
    fn draw(&mut self, rng: &mut fastrand::Rng) -> Option<usize> {
        let total: u64 = self.weights.iter().map(|&w| u64::from(w)).sum();
        let mut left = if total == 0 { return None } else { rng.u64(..total) };
        for (position, weight) in self.weights.iter_mut().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => {
                    *weight = 0;
                    return Some(position);
                }
            }
        }
        None
    }
}

fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

fn per_weight(count: u32, weight: f64) -> f64 {
    f64::from(count) / weight
}

/// The latency below which candidates are equal: see the constants it is made of. A node whose latency
/// is unknown counts as this, neither feared nor rushed; but not as [`SUSPECT_NS`], or one that nobody has
/// asked for a while would be no better than one that hangs.
fn latency_floor(candidates: &[(usize, Load)]) -> u64 {
    let mut known = [u64::MAX; CANDIDATES];
    let mut count = 0;
    for latency in candidates.iter().map(|c| c.1.latency_ns).filter(|&ns| ns > 0) {
        known[count] = latency;
        count += 1;
    }
    if count == 0 {
        return LATENCY_FLOOR_NS;
    }
    let known = &mut known[..count];
    known.sort_unstable();
    let median = known[(count - 1) / 2].saturating_mul(MEDIANS_THAT_ARE_NOISE);
    let best = known[0].saturating_mul(BESTS_THAT_ARE_NOISE);
    let most = if count < candidates.len() { SUSPECT_NS } else { u64::MAX };
    LATENCY_FLOOR_NS.max(median.min(best).min(most))
}

/// A number in (0, 1) that is the same for the same key and node, everywhere.
fn uniform(key: u64, identity: u64) -> f64 {
    let hash = xxh3_64_with_seed(&key.to_le_bytes(), identity);
    // 53 bits fill a double exactly; the half keeps both ends out, where the logarithm breaks.
    ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}
