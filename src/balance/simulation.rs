//! Three nodes in virtual time under `least_load`, wired as a data thread wires it: averages, silence,
//! lingering, the clamp. Everything is seeded, so a run is always the same.

use std::collections::BTreeMap;

use super::{Balancer, Load, ewma, silence, slow_start};
use crate::config::Balance;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Between probes, which answer unless the node hangs.
const PROBE: u64 = 2 * SECOND;
const NODES: usize = 3;

/// What a node does with the requests it has, and will get.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Answers in 5 to 15 ms.
    Well,
    /// Answers in 1 ms, with an error.
    Failing,
    /// Holds every answer back.
    Hanging,
}

struct Node {
    mood: Mood,
    /// Of unanswered requests, by their id, when each was sent.
    waiting: BTreeMap<u64, u64>,
    average: u64,
    average_at: u64,
    last_head: u64,
    /// When it came back; 0 is long ago.
    slow_since: u64,
    picked: u32,
}

struct World {
    now: u64,
    next_id: u64,
    /// 500 requests a second unless a test says otherwise.
    between_requests: u64,
    nodes: Vec<Node>,
    balancer: Balancer,
    rng: fastrand::Rng,
    /// Heads to come: when and which request, from which node.
    heads: BTreeMap<(u64, u64), usize>,
}

impl World {
    fn new() -> Self {
        let node = |_| Node {
            mood: Mood::Well,
            waiting: BTreeMap::new(),
            average: 0,
            average_at: 0,
            last_head: 0,
            slow_since: 0,
            picked: 0,
        };
        Self {
            now: SECOND,
            next_id: 0,
            between_requests: 2 * MS,
            nodes: (0..NODES).map(node).collect(),
            balancer: Balancer::new(Balance::LeastLoad, 1.25, vec![1, 2, 3]),
            rng: fastrand::Rng::with_seed(7),
            heads: BTreeMap::new(),
        }
    }

    /// Sends requests for a while and returns how many each node was picked for.
    fn run(&mut self, time: u64) -> Vec<u32> {
        let end = self.now + time;
        self.nodes.iter_mut().for_each(|node| node.picked = 0);
        while self.now < end {
            let probe_at = self.now / PROBE * PROBE + PROBE;
            self.now += self.between_requests;
            self.receive_heads();
            if self.now >= probe_at {
                self.probe();
            }
            let loads: Vec<Load> = (0..NODES).map(|i| self.load(i)).collect();
            let pick = self.balancer.pick(&[0, 1, 2], |i| loads[i], None, &mut self.rng);
            let node = pick.unwrap();
            self.nodes[node].picked += 1;
            self.send(node, true);
        }
        self.nodes.iter().map(|node| node.picked).collect()
    }

    fn load(&self, node: usize) -> Load {
        let node = &self.nodes[node];
        let furthest = self.nodes.iter().map(|node| self.share(node)).max();
        let average = ewma::decayed(node.average, self.now - node.average_at);
        let lingering = node
            .waiting
            .values()
            .filter(|&&sent| silence::lingers(sent, node.last_head, average, self.now))
            .count();
        let waiting_since = node.waiting.values().find(|&&sent| sent > node.last_head);
        let silence =
            silence::silence(node.last_head, waiting_since.copied().unwrap_or(0), self.now);
        Load {
            weight: 1,
            held_back: slow_start::held_back(self.share(node), furthest.unwrap_or(0)),
            in_flight: (node.waiting.len() - lingering) as u32,
            lingering: lingering as u32,
            tunnels: 0,
            latency_ns: average.max(silence),
        }
    }

    fn share(&self, node: &Node) -> u32 {
        slow_start::share(node.slow_since, self.now, 30 * SECOND)
    }

    fn send(&mut self, node: usize, will_be_answered: bool) {
        let id = self.next_id;
        self.next_id += 1;
        self.nodes[node].waiting.insert(id, self.now);
        let takes = match self.nodes[node].mood {
            Mood::Well => self.rng.u64(5 * MS..15 * MS),
            Mood::Failing => MS,
            Mood::Hanging => return,
        };
        if will_be_answered {
            self.heads.insert((self.now + takes, id), node);
        }
    }

    fn probe(&mut self) {
        let answering = self.nodes.iter_mut().filter(|node| node.mood != Mood::Hanging);
        answering.for_each(|node| node.last_head = self.now);
    }

    fn receive_heads(&mut self) {
        while let Some(head) = self.heads.first_entry().filter(|head| head.key().0 <= self.now) {
            let ((at, id), node) = head.remove_entry();
            if self.nodes[node].mood != Mood::Hanging {
                self.receive(node, id, at);
            }
        }
    }

    fn receive(&mut self, node: usize, id: u64, at: u64) {
        let mut averages: Vec<u64> = self.nodes.iter().map(|node| node.average).collect();
        averages.sort_unstable();
        let median = averages[NODES / 2];
        let node = &mut self.nodes[node];
        let Some(sent) = node.waiting.remove(&id) else { return };
        let sample = match node.mood {
            Mood::Failing => ewma::failure_sample(at - sent, median),
            _ => ewma::clamp_sample(at - sent, median),
        };
        node.average = ewma::observe(node.average, sample, at - node.average_at);
        (node.average_at, node.last_head) = (at, at);
    }

    /// The node goes on and answers all that waits.
    fn wake(&mut self, node: usize) {
        self.nodes[node].mood = Mood::Well;
        let ids: Vec<u64> = self.nodes[node].waiting.keys().copied().collect();
        ids.into_iter().for_each(|id| self.receive(node, id, self.now));
    }
}

/// The largest difference between two runs in the share of one node.
fn moved(before: &[u32], after: &[u32]) -> f64 {
    let share =
        |counts: &[u32], i: usize| f64::from(counts[i]) / f64::from(counts.iter().sum::<u32>());
    (0..NODES).map(|i| (share(before, i) - share(after, i)).abs()).fold(0.0, f64::max)
}

#[test]
fn equal_nodes_share_equally() {
    let mut world = World::new();
    let counts = world.run(30 * SECOND);
    assert!(moved(&counts, &[1, 1, 1]) < 0.01, "{counts:?}");
}

#[test]
fn a_node_that_hangs_is_avoided_within_a_second_and_comes_back() {
    let mut world = World::new();
    world.run(10 * SECOND);
    world.nodes[1].mood = Mood::Hanging;
    let first = world.run(SECOND);
    assert!(first[1] < 50, "of 500: {first:?}");
    let later = world.run(4 * SECOND);
    assert_eq!(later[1], 0, "{later:?}");
    world.wake(1);
    world.run(60 * SECOND);
    let back = world.run(30 * SECOND);
    assert!(moved(&back, &[1, 1, 1]) < 0.05, "{back:?}");
}

#[test]
fn when_two_of_three_hang_the_third_serves() {
    let mut world = World::new();
    world.run(10 * SECOND);
    world.nodes[0].mood = Mood::Hanging;
    world.nodes[1].mood = Mood::Hanging;
    world.run(SECOND);
    let later = world.run(4 * SECOND);
    assert_eq!(later[..2], [0, 0], "{later:?}");
}

#[test]
fn a_url_that_never_answers_moves_no_share() {
    for requests in [1, 5, 50, 500] {
        let mut world = World::new();
        let before = world.run(30 * SECOND);
        for _ in 0..requests {
            world.send(0, false);
            world.send(1, false);
        }
        let after = world.run(60 * SECOND);
        assert!(moved(&before, &after) < 0.05, "{requests}: {before:?} {after:?}");
    }
}

#[test]
fn nor_when_it_is_requested_every_second() {
    let mut world = World::new();
    let before = world.run(30 * SECOND);
    let mut after = vec![0; NODES];
    for _ in 0..60 {
        world.send(0, false);
        world.send(1, false);
        after.iter_mut().zip(world.run(SECOND)).for_each(|(sum, count)| *sum += count);
    }
    assert!(moved(&before, &after) < 0.05, "{before:?} {after:?}");
}

#[test]
fn nor_on_a_quiet_upstream() {
    let mut world = World::new();
    world.between_requests = SECOND / 5;
    let before = world.run(30 * SECOND);
    world.send(0, false);
    world.send(1, false);
    let after = world.run(120 * SECOND);
    assert!(moved(&before, &after) < 0.05, "{before:?} {after:?}");
}

#[test]
fn fast_failures_attract_nobody() {
    let mut world = World::new();
    world.nodes[2].mood = Mood::Failing;
    let counts = world.run(60 * SECOND);
    assert!(counts[2] < 30, "of 30,000: {counts:?}");
}

#[test]
fn a_node_that_comes_back_takes_up_its_share_in_half_a_minute() {
    let mut world = World::new();
    world.run(10 * SECOND);
    world.nodes[1].slow_since = world.now;
    let mut before = 0;
    for second in [3, 6, 9, 12, 15, 18, 21, 24, 27, 30_u32] {
        let counts = world.run(3 * SECOND);
        let weight = (f64::from(second) - 1.5).max(3.0) / 30.0;
        let due = 1500.0 * weight / (2.0 + weight);
        assert!((f64::from(counts[1]) - due).abs() < 30.0, "{second} s, {due:.0}: {counts:?}");
        assert!(counts[1] + 10 > before, "it only grows: {counts:?}");
        before = counts[1];
    }
    let after = world.run(10 * SECOND);
    assert!(moved(&after, &[1, 1, 1]) < 0.01, "{after:?}");
}

#[test]
fn a_cold_cluster_shares_as_a_warm_one() {
    let mut world = World::new();
    (0..NODES).for_each(|i| world.nodes[i].slow_since = world.now + 1);
    let counts = world.run(10 * SECOND);
    assert!(moved(&counts, &[1, 1, 1]) < 0.01, "{counts:?}");
}
