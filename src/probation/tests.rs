use proptest::prelude::*;

use super::*;
use crate::error::Cause;

const TIME: Duration = Duration::from_secs(30);
const RULES: Rules = Rules { time: TIME, requests: 200, routes_changed: true };

fn failing(requests: u64, group: Group, failed: u64) -> Counts {
    let mut counts = Counts { requests, ..Counts::default() };
    counts.failed[group as usize] = failed;
    counts
}

fn part(counts: &Counts, n: u64, of: u64) -> Counts {
    let scaled = |count: u64| count * n / of;
    Counts { requests: scaled(counts.requests), failed: counts.failed.map(scaled) }
}

/// One look a second, `after` spread evenly over 30 of them. The verdict and its second.
fn run(rules: Rules, before: Counts, after: Counts, fate: impl Fn(u64) -> Fate) -> (u64, Verdict) {
    let mut trial = Trial::new(rules, before, Counts::default(), Duration::ZERO);
    for second in 1..=400 {
        let totals = part(&after, second.min(30), 30);
        let now = Duration::from_secs(second);
        if let Some(verdict) = trial.look(&totals, &[fate(second)], now) {
            return (second, verdict);
        }
    }
    panic!("it never ends");
}

fn answers(before: Counts, after: Counts) -> (u64, Verdict) {
    run(RULES, before, after, |_| Fate::Up)
}

fn is_worse(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Worse { .. })
}

#[test]
fn each_case_has_its_verdict() {
    use Group::{Connect, Full, Late, Malformed, NoNode, NoRoute};
    let quiet = failing(30_000, Connect, 0);
    let (passed, little, worse) = ("passed", "too little", "worse");
    let cases = [
        ("nothing fails", quiet, failing(3_000, Connect, 0), passed, 30),
        ("as always", failing(30_000, Connect, 900), failing(3_000, Connect, 90), passed, 30),
        (
            "some more than always",
            failing(30_000, Late, 900),
            failing(3_000, Late, 120),
            passed,
            30,
        ),
        (
            "clear, and less than double",
            failing(30_000, Late, 3_000),
            failing(3_000, Late, 500),
            passed,
            30,
        ),
        ("double, and less than a hundredth", quiet, failing(30_000, Late, 200), passed, 30),
        ("four failures", quiet, failing(200, NoNode, 4), passed, 30),
        ("five failures of 200", quiet, failing(200, NoNode, 5), worse, 30),
        (
            "two of a hundred, where there were none",
            quiet,
            failing(3_000, Malformed, 60),
            worse,
            30,
        ),
        (
            "another group was bad before",
            failing(30_000, NoRoute, 3_000),
            failing(3_000, Full, 60),
            worse,
            30,
        ),
        ("half of all at once", quiet, failing(30_000, NoRoute, 15_000), worse, 5),
        ("all of few", quiet, failing(200, NoRoute, 200), worse, 30),
        ("all of too few", quiet, failing(60, NoNode, 60), worse, 300),
        ("too few", quiet, failing(199, Connect, 0), little, 300),
        ("none at all", quiet, Counts::default(), little, 300),
        ("nothing to compare with", failing(50, Late, 0), failing(3_000, Late, 900), passed, 30),
        (
            "nothing to compare with, and blatant",
            Counts::default(),
            failing(3_000, Late, 1_600),
            worse,
            5,
        ),
        (
            "it was as bad",
            failing(30_000, NoNode, 29_000),
            failing(3_000, NoNode, 3_000),
            passed,
            30,
        ),
        ("it is better", failing(30_000, NoNode, 29_000), failing(3_000, NoNode, 10), passed, 30),
    ];
    for (what, before, after, expected, second) in cases {
        let (at, verdict) = answers(before, after);
        let word = match &verdict {
            Verdict::Passed => passed,
            Verdict::TooLittleTraffic => little,
            Verdict::Worse { .. } => worse,
        };
        assert_eq!((word, at), (expected, second), "{what}: {verdict:?}");
    }
}

#[test]
fn a_rise_says_from_what_to_what() {
    let (_, verdict) = answers(failing(30_000, Group::NoNode, 3), failing(300, Group::NoNode, 60));
    let Verdict::Worse { rises, nodes } = verdict else { panic!("{verdict:?}") };
    let text = "no eligible node: 60 of 300 requests (20.0 %), before 3 of 30000 requests (0.0 %)";
    assert_eq!((rises[0].to_string().as_str(), rises.len(), nodes.len()), (text, 1, 0));
}

#[test]
fn requests_without_a_route_count_only_if_routes_are_others() {
    let (before, after) =
        (failing(30_000, Group::NoRoute, 0), failing(3_000, Group::NoRoute, 3_000));
    let same = Rules { routes_changed: false, ..RULES };
    assert_eq!(run(same, before, after, |_| Fate::Up), (30, Verdict::Passed));
    assert!(is_worse(&answers(before, after).1));
}

#[test]
fn one_burst_is_a_hiccup() {
    let before = failing(30_000, Group::Connect, 0);
    for (bursts, worse) in [(1, false), (2, false), (3, true)] {
        let mut trial = Trial::new(RULES, before, Counts::default(), Duration::ZERO);
        let verdict = (1..=30).find_map(|second| {
            let totals = failing(100 * second, Group::Connect, 50 * second.min(bursts));
            trial.look(&totals, &[], Duration::from_secs(second))
        });
        assert_eq!(is_worse(&verdict.unwrap()), worse, "{bursts}");
    }
}

#[test]
fn nodes_have_their_time_to_come_up() {
    let (before, after) = (failing(30_000, Group::Late, 0), failing(3_000, Group::Late, 0));
    let lost = || Verdict::Worse { rises: Vec::new(), nodes: vec![0] };
    let until = |at: u64, from: Fate, to: Fate| move |second| if second < at { from } else { to };
    let cases = [
        ("excused", until(0, Fate::Up, Fate::Excused), 30, Verdict::Passed),
        ("up late", until(50, Fate::Out, Fate::Up), 50, Verdict::Passed),
        ("never up", until(0, Fate::Up, Fate::Out), 60, lost()),
        ("up, and lost", until(25, Fate::Up, Fate::Out), 60, lost()),
        ("starts for long", until(280, Fate::Starting, Fate::Up), 280, Verdict::Passed),
        ("starts for ever", until(0, Fate::Up, Fate::Starting), 300, lost()),
        ("starts, and falls", until(100, Fate::Starting, Fate::Out), 100, lost()),
        ("drained meanwhile", until(40, Fate::Out, Fate::Excused), 40, Verdict::Passed),
    ];
    for (what, fate, second, verdict) in cases {
        assert_eq!(run(RULES, before, after, fate), (second, verdict), "{what}");
    }
    let few = failing(10, Group::Late, 0);
    assert_eq!(run(RULES, before, few, |_| Fate::Out), (60, lost()), "without traffic as well");
}

#[test]
fn each_reason_has_its_place() {
    let counted = Cause::REASONS.map(|reason| (reason, Counts::of(10, [(reason, 1)])));
    let failed = |counts: &Counts| counts.failed.iter().sum::<u64>();
    let of = |by: &dyn Fn(&Counts) -> bool| -> Vec<&str> {
        counted.iter().filter(|(_, counts)| by(counts)).map(|(reason, _)| *reason).collect()
    };
    // Each name in the table is that of a reason.
    assert_eq!(of(&|counts| failed(counts) == 1).len(), 15);
    assert_eq!(of(&|counts| counts.requests == 9).len(), 17);
    // One that is new has to be given its place.
    let plain = of(&|counts| failed(counts) == 0 && counts.requests == 10);
    assert_eq!(
        plain,
        ["connection_terminated", "http_response_incomplete", "proxy_internal_error"]
    );
    let tls = Counts::of(10, [("tls_protocol_error", 1)]);
    assert_eq!(tls.failed[Group::Connect as usize], 1);
    let many = Counts::of(3, [("client_left", 5), ("queue_full", 2)]);
    assert_eq!((many.requests, many.failed), (0, [0, 0, 0, 0, 0, 2]));
}

/// A generator of its own, so that a failure is the same on every machine (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }

    fn failures(&mut self, requests: u64, rate: f64) -> u64 {
        (0..requests).filter(|_| self.next() < rate).count() as u64
    }
}

#[test]
fn a_configuration_that_is_no_worse_passes_and_one_that_is_does_not() {
    let mut random = Random(7);
    for (requests, usual, now, alarms) in [
        (200, 0.001, 0.001, 0..=1),
        (200, 0.02, 0.02, 0..=1),
        (1_000, 0.05, 0.05, 0..=1),
        (200, 0.002, 0.10, 95..=100),
        (1_000, 0.01, 0.05, 98..=100),
    ] {
        let found = (0..100).filter(|_| {
            let before = failing(10 * requests, Group::Late, random.failures(10 * requests, usual));
            let after = failing(requests, Group::Late, random.failures(requests, now));
            is_worse(&answers(before, after).1)
        });
        let count = found.count();
        assert!(alarms.contains(&count), "{usual} to {now} of {requests}: {count} of 100");
    }
}

proptest! {
    #[test]
    fn more_failures_never_make_it_good(
        before in (200..50_000_u64, 0..100_u64), requests in 200..5_000_u64, failed in 0..200_u64,
    ) {
        let before = failing(before.0, Group::Late, before.1);
        let of = |failed| answers(before, failing(requests, Group::Late, failed)).1;
        prop_assert!(!is_worse(&of(failed)) || is_worse(&of(failed + 30)));
    }

    #[test]
    fn the_same_share_is_never_worse(n in 200..2_000_u64, failed in 0..200_u64, times in 1..20_u64) {
        let before = failing(n * times, Group::Full, failed * times);
        prop_assert_eq!(answers(before, failing(n, Group::Full, failed)), (30, Verdict::Passed));
    }

    #[test]
    fn it_ends_in_time_whatever_comes(
        looks in prop::collection::vec((0..50_u64, 0..50_u64, 0..4_usize), 301),
    ) {
        let fates = [Fate::Up, Fate::Starting, Fate::Out, Fate::Excused];
        let mut trial = Trial::new(RULES, failing(30_000, Group::Late, 10), Counts::default(), Duration::ZERO);
        let mut totals = Counts::default();
        let ended = looks.iter().enumerate().find_map(|(second, (requests, failed, fate))| {
            totals.requests += requests;
            totals.failed[Group::Late as usize] += failed.min(requests);
            let now = Duration::from_secs(second as u64);
            Some((second, trial.look(&totals, &[fates[*fate]], now)?))
        });
        let (second, verdict) = ended.expect("a verdict within ten times the time");
        prop_assert!(second >= 5);
        prop_assert!(is_worse(&verdict) || second >= 30);
        prop_assert!(verdict != Verdict::Passed || totals.requests >= 200);
    }
}
