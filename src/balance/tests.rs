//! What every algorithm promises, in tables, properties and a closed loop.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ALGORITHMS: [Balance; 5] = [
    Balance::LeastLoad,
    Balance::RoundRobin,
    Balance::LeastRequests,
    Balance::RandomTwo,
    Balance::Hash,
];

fn balancer(algorithm: Balance, nodes: usize) -> Balancer {
    Balancer::new(algorithm, 1.25, (0..nodes as u64).map(|i| i * 7919 + 1).collect())
}

fn idle(weights: &[u32]) -> Vec<Load> {
    weights.iter().map(|&weight| Load { weight, ..Load::default() }).collect()
}

fn picks(balancer: &mut Balancer, eligible: &[usize], loads: &[Load], count: usize) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(1);
    let pick = |_| balancer.pick(eligible, |i| loads[i], None, &mut rng).unwrap();
    (0..count).map(pick).collect()
}

fn tally(picks: &[usize], nodes: usize) -> Vec<u32> {
    let mut counts = vec![0; nodes];
    picks.iter().for_each(|&i| counts[i] += 1);
    counts
}

#[test]
fn nothing_eligible_is_no_pick_and_one_is_that_one() {
    let mut rng = fastrand::Rng::with_seed(1);
    for algorithm in ALGORITHMS {
        let mut balancer = balancer(algorithm, 3);
        let loads = idle(&[1, 1, 1]);
        assert_eq!(balancer.pick(&[], |i| loads[i], Some(1), &mut rng), None);
        assert_eq!(balancer.pick(&[2], |i| loads[i], Some(1), &mut rng), Some(2));
        assert_eq!(balancer.pick_tunnel(&[], |i| loads[i]), None);
        assert_eq!(balancer.pick_tunnel(&[1], |i| loads[i]), Some(1));
    }
}

#[test]
fn round_robin_is_smooth() {
    let got = picks(&mut balancer(Balance::RoundRobin, 3), &[0, 1, 2], &idle(&[5, 1, 1]), 7);
    assert_eq!(got, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn least_load_on_an_idle_upstream_is_round_robin() {
    let loads = idle(&[1, 2, 3]);
    let got = picks(&mut balancer(Balance::LeastLoad, 3), &[0, 1, 2], &loads, 60);
    assert_eq!(tally(&got, 3), [10, 20, 30]);
}

#[test]
fn least_load_compares_latency_and_work() {
    let ms = 1_000_000;
    let node = |in_flight, latency_ms: u64| Load {
        weight: 1,
        in_flight,
        latency_ns: latency_ms * ms,
        ..Load::default()
    };
    let cases = [
        // (loads, the only nodes to be picked, why)
        ([node(0, 20), node(0, 20), node(0, 500)], vec![0, 1], "a slow node is avoided"),
        ([node(0, 20), node(0, 900), node(0, 1000)], vec![0], "even when most are slow"),
        ([node(9, 20), node(9, 20), node(0, 100)], vec![2], "a loaded node is slower still"),
        ([node(0, 1), node(0, 4), node(0, 3)], vec![0, 1, 2], "noise below the floor"),
        ([node(0, 20), node(0, 30), node(0, 40)], vec![0, 1, 2], "within two medians"),
        ([node(0, 20), node(0, 0), node(0, 20)], vec![0, 1, 2], "unknown is neither"),
        ([node(3, 20), node(1, 20), node(3, 20)], vec![1], "less work wins"),
    ];
    for (loads, expected, why) in cases {
        let got = picks(&mut balancer(Balance::LeastLoad, 3), &[0, 1, 2], &loads, 30);
        let mut seen = got.clone();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, expected, "{why}");
    }
}

#[test]
fn a_node_that_nobody_has_asked_for_a_while_is_better_than_one_that_hangs() {
    let mut loads = idle(&[1, 1, 1]);
    loads[0].latency_ns = 20 * SUSPECT_NS;
    let got = picks(&mut balancer(Balance::LeastLoad, 3), &[0, 1, 2], &loads, 60);
    assert_eq!(tally(&got, 3), [0, 30, 30]);
}

#[test]
fn two_hundred_tunnels_weigh_as_one_request() {
    let mut loads = idle(&[1, 1]);
    loads[0].tunnels = 200;
    let got = picks(&mut balancer(Balance::LeastLoad, 2), &[0, 1], &loads, 20);
    assert_eq!(tally(&got, 2), [0, 20]);
    loads[0].tunnels = 20;
    let got = picks(&mut balancer(Balance::LeastLoad, 2), &[0, 1], &loads, 20);
    assert_eq!(tally(&got, 2), [10, 10], "a few tunnels decide nothing");
}

#[test]
fn what_lingers_moves_no_share_however_much() {
    for lingering in [1, 20, 200, 100_000] {
        let mut loads = idle(&[1, 1, 2]);
        loads[0].lingering = lingering;
        loads[1].lingering = lingering;
        for algorithm in [Balance::LeastLoad, Balance::LeastRequests, Balance::RoundRobin] {
            let got = picks(&mut balancer(algorithm, 3), &[0, 1, 2], &loads, 40);
            assert_eq!(tally(&got, 3), [10, 10, 20], "{algorithm:?} {lingering}");
        }
    }
}

#[test]
fn tunnels_go_where_fewest_are_per_weight() {
    let mut loads = idle(&[1, 2, 3]);
    let mut balancer = balancer(Balance::LeastLoad, 3);
    for _ in 0..600 {
        let node = balancer.pick_tunnel(&[0, 1, 2], |i| loads[i]).unwrap();
        loads[node].tunnels += 1;
    }
    assert_eq!(loads.iter().map(|l| l.tunnels).collect::<Vec<_>>(), [100, 200, 300]);
    loads[0].tunnels = 0;
    for _ in 0..100 {
        let node = balancer.pick_tunnel(&[0, 1, 2], |i| loads[i]).unwrap();
        loads[node].tunnels += 1;
    }
    assert!(loads[0].tunnels >= 99, "a node that lost its tunnels is filled first");
}

#[test]
fn a_silent_node_gets_no_tunnel_while_another_answers() {
    let mut loads = idle(&[1, 1]);
    loads[1].tunnels = 500;
    loads[0].latency_ns = 1_500_000_000;
    assert_eq!(balancer(Balance::LeastLoad, 2).pick_tunnel(&[0, 1], |i| loads[i]), Some(1));
    loads[1].latency_ns = 1_500_000_000;
    assert_eq!(balancer(Balance::LeastLoad, 2).pick_tunnel(&[0, 1], |i| loads[i]), Some(0));
}

#[test]
fn hash_follows_weights_and_keeps_a_key_on_its_node() {
    let mut balancer = balancer(Balance::Hash, 3);
    let loads = idle(&[1, 2, 3]);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut counts = [0_u32; 3];
    for key in 0..60_000 {
        let node = balancer.pick(&[0, 1, 2], |i| loads[i], Some(key), &mut rng).unwrap();
        assert_eq!(balancer.pick(&[2, 0, 1], |i| loads[i], Some(key), &mut rng), Some(node));
        counts[node] += 1;
    }
    for (count, fair) in counts.iter().zip([10_000, 20_000, 30_000]) {
        assert!(count.abs_diff(fair) < fair / 20, "{counts:?}");
    }
}

#[test]
fn hash_without_a_key_spreads() {
    let got = picks(&mut balancer(Balance::Hash, 3), &[0, 1, 2], &idle(&[1, 1, 1]), 300);
    assert!(tally(&got, 3).iter().all(|&n| n > 60));
}

/// `clients` requests are always in flight; each takes 5 to 15 ms wherever it goes.
fn closed_loop(
    algorithm: Balance,
    mut loads: Vec<Load>,
    clients: usize,
    requests: usize,
) -> Vec<f64> {
    let mut balancer = balancer(algorithm, loads.len());
    let mut rng = fastrand::Rng::with_seed(42);
    loads.iter_mut().for_each(|load| load.latency_ns = 10_000_000);
    let eligible: Vec<usize> = (0..loads.len()).collect();
    let mut running: BTreeMap<(u64, usize), usize> = BTreeMap::new();
    let mut counts = vec![0_f64; loads.len()];
    let mut now = 0;
    for id in 0..requests {
        if running.len() >= clients {
            let ((at, _), node) = running.pop_first().unwrap();
            now = at;
            loads[node].in_flight -= 1;
        }
        let key = Some(rng.u64(..));
        let node = balancer.pick(&eligible, |i| loads[i], key, &mut rng).unwrap();
        loads[node].in_flight += 1;
        counts[node] += 1.0;
        running.insert((now + rng.u64(5_000_000..15_000_000), id), node);
    }
    let total: f64 = loads.iter().map(Load::weight).sum();
    let fair = loads.iter().map(|load| load.weight() / total * requests as f64);
    counts.iter().zip(fair).map(|(count, fair)| count / fair).collect()
}

#[test]
fn shares_follow_weights_in_a_closed_loop() {
    let algorithms = ALGORITHMS.iter().filter(|&&a| a != Balance::Hash);
    for &algorithm in algorithms {
        for weights in [&[1, 1, 1][..], &[1, 2, 3], &[1, 2, 3, 4, 5, 6], &[5, 1, 1, 1, 1]] {
            for clients in [1, 2, 3, 6, 12, 30, 100] {
                let shares = closed_loop(algorithm, idle(weights), clients, 12_000);
                let off = shares.iter().map(|s| (s - 1.0).abs()).fold(0.0, f64::max);
                assert!(off < 0.05, "{algorithm:?} {weights:?} {clients}: {shares:.3?}");
            }
        }
    }
}

#[test]
fn shares_follow_what_slow_start_leaves_of_the_weights() {
    for &algorithm in ALGORITHMS.iter().filter(|&&a| a != Balance::Hash) {
        for (held_back, clients) in [(900, 1), (900, 6), (900, 30), (500, 6), (500, 30)] {
            let mut loads = idle(&[1, 2, 1]);
            loads[1].held_back = held_back;
            let shares = closed_loop(algorithm, loads, clients, 12_000);
            let off = shares.iter().map(|s| (s - 1.0).abs()).fold(0.0, f64::max);
            assert!(off < 0.1, "{algorithm:?} {held_back} {clients}: {shares:.3?}");
        }
    }
}

#[test]
fn the_end_of_a_slow_start_is_no_flood() {
    for algorithm in [Balance::LeastLoad, Balance::RoundRobin, Balance::LeastRequests] {
        let mut balancer = balancer(algorithm, 2);
        let mut loads = idle(&[1, 1]);
        loads[1].held_back = 900;
        let slow = tally(&picks(&mut balancer, &[0, 1], &loads, 110), 2);
        assert_eq!(slow, [100, 10], "{algorithm:?}");
        loads[1].held_back = 0;
        let whole = tally(&picks(&mut balancer, &[0, 1], &loads, 20), 2);
        assert!(whole[0].abs_diff(10) <= 1, "{algorithm:?}: {whole:?}");
    }
}

#[test]
fn a_node_that_starts_slowly_gets_tunnels_only_in_its_turn() {
    let mut loads = idle(&[1, 1, 1]);
    (loads[0].tunnels, loads[1].tunnels, loads[2].held_back) = (700, 720, 900);
    let mut balancer = balancer(Balance::LeastLoad, 3);
    let open = |balancer: &mut Balancer, loads: &mut [Load], count: u32| {
        for _ in 0..count {
            let node = balancer.pick_tunnel(&[0, 1, 2], |i| loads[i]).unwrap();
            loads[node].tunnels += 1;
        }
        [loads[0].tunnels, loads[1].tunnels, loads[2].tunnels]
    };
    assert_eq!(open(&mut balancer, &mut loads, 210), [810, 810, 10], "a tenth beside two wholes");
    loads[2].held_back = 500;
    assert_eq!(open(&mut balancer, &mut loads, 50), [830, 830, 20]);
    // It never gets more than its weight says, though it is its turn.
    (loads[2].held_back, loads[2].tunnels) = (900, 90);
    assert_eq!(open(&mut balancer, &mut loads, 100)[2], 90);
    loads[2].held_back = 0;
    assert_eq!(open(&mut balancer, &mut loads, 100)[2], 190, "warm, it is filled first");
}

#[test]
fn hash_gives_a_node_that_starts_slowly_its_own_keys_one_after_the_other() {
    let mut balancer = balancer(Balance::Hash, 3);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut owners = |held_back| {
        let mut loads = idle(&[1, 1, 1]);
        loads[2].held_back = held_back;
        let owner = |key| balancer.pick(&[0, 1, 2], |i| loads[i], Some(key), &mut rng).unwrap();
        (0..30_000).map(owner).collect::<Vec<_>>()
    };
    let [cold, half, whole] = [900, 500, 0].map(&mut owners);
    let share = |owners: &[usize]| owners.iter().filter(|&&node| node == 2).count();
    for (owners, fair) in [(&cold, 30_000 / 21), (&half, 30_000 / 5), (&whole, 30_000 / 3)] {
        assert!(share(owners).abs_diff(fair) < fair / 10, "{} for {fair}", share(owners));
    }
    for (before, after) in cold.iter().zip(&half).chain(half.iter().zip(&whole)) {
        assert!(before == after || *after == 2, "a key moves only to the node that comes back");
    }
}

/// The bound comes in whole requests, so under few requests it, not the key, decides: equal weights.
#[test]
fn hash_shares_evenly_in_a_closed_loop() {
    for clients in [1, 2, 3, 6, 12, 30, 100] {
        let shares = closed_loop(Balance::Hash, idle(&[2, 2, 2]), clients, 12_000);
        assert!(shares.iter().all(|s| (s - 1.0).abs() < 0.05), "{clients}: {shares:.3?}");
    }
}

/// Nodes of an upstream: weights and loads, and at least one of them eligible.
fn upstream() -> impl Strategy<Value = (Vec<Load>, Vec<usize>)> {
    let work = (0..50_u32, 0..300_u32, 0..900_u32, 0..2_000_000_000_u64);
    let node = ((0..1_001_u32, 0..901_u32), work, any::<bool>());
    proptest::collection::vec(node, 1..12).prop_map(|nodes| {
        let loads = nodes.iter().map(|&((weight, held_back), work, _)| {
            let (in_flight, lingering, tunnels, latency_ns) = work;
            Load { weight, held_back, in_flight, lingering, tunnels, latency_ns }
        });
        let mut eligible: Vec<usize> = (0..nodes.len()).filter(|&i| nodes[i].2).collect();
        if eligible.is_empty() {
            eligible.push(nodes.len() - 1);
        }
        (loads.collect(), eligible)
    })
}

proptest! {
    #[test]
    fn a_pick_is_eligible((loads, eligible) in upstream(), key: Option<u64>, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        for algorithm in ALGORITHMS {
            let mut balancer = balancer(algorithm, loads.len());
            for _ in 0..20 {
                let node = balancer.pick(&eligible, |i| loads[i], key, &mut rng);
                prop_assert!(eligible.contains(&node.unwrap()));
                let node = balancer.pick_tunnel(&eligible, |i| loads[i]);
                prop_assert!(eligible.contains(&node.unwrap()));
            }
        }
    }

    #[test]
    fn round_robin_is_exact_in_every_cycle(
        weights in proptest::collection::vec(1_u32..40, 1..8), cycles in 1_usize..4,
    ) {
        let eligible: Vec<usize> = (0..weights.len()).collect();
        let cycle = weights.iter().sum::<u32>() as usize;
        let mut balancer = balancer(Balance::RoundRobin, weights.len());
        for _ in 0..cycles {
            let got = picks(&mut balancer, &eligible, &idle(&weights), cycle);
            prop_assert_eq!(tally(&got, weights.len()), weights.clone());
        }
    }

    #[test]
    fn hash_moves_only_the_keys_of_a_node_that_leaves(
        weights in proptest::collection::vec(1_u32..10, 2..8), gone: usize, key: u64,
    ) {
        let loads = idle(&weights);
        let all: Vec<usize> = (0..weights.len()).collect();
        let gone = gone % weights.len();
        let left: Vec<usize> = all.iter().copied().filter(|&i| i != gone).collect();
        let mut balancer = balancer(Balance::Hash, weights.len());
        let mut rng = fastrand::Rng::with_seed(0);
        let before = balancer.pick(&all, |i| loads[i], Some(key), &mut rng).unwrap();
        let after = balancer.pick(&left, |i| loads[i], Some(key), &mut rng).unwrap();
        prop_assert!(before == gone || before == after);
    }

    #[test]
    fn hash_keeps_its_bound((mut loads, eligible) in upstream(), keys: [u64; 4]) {
        loads.iter_mut().for_each(|load| load.in_flight = 0);
        let mut balancer = balancer(Balance::Hash, loads.len());
        let mut rng = fastrand::Rng::with_seed(0);
        let weights: f64 = eligible.iter().map(|&i| loads[i].weight()).sum();
        for sent in 1..200_u32 {
            let key = keys[rng.usize(..4)];
            let node = balancer.pick(&eligible, |i| loads[i], Some(key), &mut rng).unwrap();
            loads[node].in_flight += 1;
            let fair = f64::from(sent) * loads[node].weight() / weights;
            let bound = (1.25 * fair + 1e-9).ceil();
            prop_assert!(f64::from(loads[node].in_flight) <= bound);
        }
    }
}
