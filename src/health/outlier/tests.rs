use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::from_secs(1_000);
const TIER: Tier = Tier { eligible: 3, configured: 3, ejected: 0 };

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ejector() -> Ejector {
    Ejector::new(true, seconds(5), 0.5)
}

fn eject(ejector: &mut Ejector, kind: FailureKind, now: Duration) -> (Duration, u32) {
    match ejector.consider("a", kind, &TIER, now, 0.0) {
        Decision::Eject { until, count } => (until - now, count),
        keep => panic!("{keep:?}"),
    }
}

#[test]
fn a_row_is_within_ten_seconds() {
    let second = 1_000_000_000;
    let mut row = FailureRow::default();
    for (at, count) in [(0, 1), (4, 2), (10, 3), (11, 1), (12, 2)] {
        row = row.failed(at * second);
        assert_eq!(row.count, count, "at {at} s");
    }
}

#[test]
fn half_may_be_out_and_one_of_two() {
    let cases = [
        (0, 0.5, 0),
        (1, 0.5, 0),
        (2, 0.5, 1),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (5, 0.5, 2),
        (9, 0.1, 1),
        (4, 1.0, 4),
        (1, 1.0, 0),
        (4, 0.0, 0),
    ];
    for (configured, share, most) in cases {
        assert_eq!(most_ejected(configured, share), most, "{configured} {share}");
    }
}

#[test]
fn who_is_kept() {
    let cases = [
        (Tier { eligible: 1, configured: 3, ejected: 0 }, KeepReason::LastEligible),
        (Tier { eligible: 0, configured: 3, ejected: 0 }, KeepReason::LastEligible),
        (Tier { eligible: 2, configured: 3, ejected: 1 }, KeepReason::MaxEjected),
        (Tier { eligible: 2, configured: 2, ejected: 1 }, KeepReason::MaxEjected),
    ];
    for (tier, reason) in cases {
        let decision = ejector().consider("a", FailureKind::Reset, &tier, T0, 0.0);
        assert_eq!(decision, Decision::Keep { reason }, "{tier:?}");
    }
    let mut off = Ejector::new(false, seconds(5), 0.5);
    let decision = off.consider("a", FailureKind::Reset, &TIER, T0, 0.0);
    assert_eq!(decision, Decision::Keep { reason: KeepReason::Off });
    let mut ejector = ejector();
    eject(&mut ejector, FailureKind::Reset, T0);
    let decision = ejector.consider("a", FailureKind::Reset, &TIER, T0, 0.0);
    assert_eq!(decision, Decision::Keep { reason: KeepReason::AlreadyOut });
}

#[test]
fn ejections_grow_to_a_minute() {
    let mut ejector = ejector();
    let mut now = T0;
    for count in 1..=14 {
        let (time, counted) = eject(&mut ejector, FailureKind::Reset, now);
        assert_eq!((time, counted), (seconds(5 * u64::from(count)).min(LONGEST), count));
        now += time;
        assert_eq!(ejector.tick("a", now), Some(OutlierState::Probation));
        let state = ejector.probation_result("a", Ok(()), now, 0.0);
        assert_eq!(state, Some(OutlierState::In));
    }
}

#[test]
fn jitter_only_lengthens() {
    let mut ejector = ejector();
    let decision = ejector.consider("a", FailureKind::Reset, &TIER, T0, 1.0);
    assert_eq!(decision, Decision::Eject { until: T0 + seconds(6), count: 1 });
    assert_eq!(ejector.ejection("a"), Some((FailureKind::Reset, T0 + seconds(6))));
}

#[test]
fn quiet_minutes_are_forgiving() {
    for (quiet, count) in [(0, 3), (59, 3), (60, 2), (120, 1), (10_000, 1)] {
        let mut ejector = ejector();
        let mut now = T0;
        for _ in 0..2 {
            eject(&mut ejector, FailureKind::Connect, now);
            now += seconds(1);
            assert!(ejector.good_probe("a", now));
        }
        let (_, counted) = eject(&mut ejector, FailureKind::Connect, now + seconds(quiet));
        assert_eq!(counted, count, "after {quiet} s");
    }
}

#[test]
fn a_good_probe_ends_only_what_it_disproves() {
    let cases = [
        (FailureKind::Connect, true),
        (FailureKind::Timeout, true),
        (FailureKind::Reset, false),
        (FailureKind::GatewayError, false),
        (FailureKind::ErrorRatio, false),
    ];
    for (kind, ends) in cases {
        let mut ejector = ejector();
        assert!(!ejector.good_probe("a", T0));
        eject(&mut ejector, kind, T0);
        assert_eq!(ejector.good_probe("a", T0 + seconds(1)), ends, "{kind:?}");
        let state = if ends { OutlierState::In } else { OutlierState::Ejected };
        assert_eq!(ejector.state("a"), state, "{kind:?}");
        assert!(!ejector.good_probe("b", T0), "nobody else");
    }
}

#[test]
fn one_real_request_decides_after_the_time() {
    let mut ejector = ejector();
    eject(&mut ejector, FailureKind::GatewayError, T0);
    assert_eq!(ejector.tick("a", T0 + seconds(4)), None);
    assert_eq!(ejector.probation_result("a", Ok(()), T0, 0.0), None, "sent before the ejection");
    assert_eq!(ejector.tick("a", T0 + seconds(5)), Some(OutlierState::Probation));
    assert_eq!(ejector.tick("a", T0 + seconds(5)), None);
    let failed = Err(FailureKind::GatewayError);
    let state = ejector.probation_result("a", failed, T0 + seconds(6), 0.0);
    assert_eq!(state, Some(OutlierState::Ejected));
    let ejection = ejector.ejection("a");
    assert_eq!(ejection, Some((FailureKind::GatewayError, T0 + seconds(16))), "twice as long");
    assert_eq!(ejector.tick("a", T0 + seconds(16)), Some(OutlierState::Probation));
    let state = ejector.probation_result("a", Ok(()), T0 + seconds(17), 0.0);
    assert_eq!(state, Some(OutlierState::In));
}

#[test]
fn a_probation_without_requests_ends() {
    let mut ejector = ejector();
    eject(&mut ejector, FailureKind::Reset, T0);
    ejector.tick("a", T0 + seconds(5));
    assert_eq!(ejector.tick("a", T0 + seconds(34)), None);
    assert_eq!(ejector.tick("a", T0 + seconds(35)), Some(OutlierState::In));
}

#[test]
fn a_reload_keeps_who_stays() {
    let mut ejector = ejector();
    eject(&mut ejector, FailureKind::Reset, T0);
    ejector.reconfigure(true, seconds(1), 0.5);
    ejector.retain(|name| name == "a");
    assert_eq!(ejector.ejection("a"), Some((FailureKind::Reset, T0 + seconds(5))));
    ejector.retain(|_| false);
    assert_eq!(ejector.state("a"), OutlierState::In);
}

proptest! {
    /// Nodes fail at random, probes are good at random, time passes: never more out than allowed,
    /// never the last one.
    #[test]
    fn a_tier_keeps_a_node(
        nodes in 1_usize..7,
        steps in proptest::collection::vec((0_usize..7, 0_u8..4, 0_u64..9, any::<bool>()), 1..80),
    ) {
        let names: Vec<String> = (0..nodes).map(|i| i.to_string()).collect();
        let mut ejector = ejector();
        let mut now = T0;
        for (node, what, wait, flag) in steps {
            now += seconds(wait);
            let node = &names[node % nodes];
            let kind = if flag { FailureKind::Timeout } else { FailureKind::GatewayError };
            let out = |ejector: &Ejector| {
                names.iter().filter(|name| ejector.state(name) != OutlierState::In).count()
            };
            match what {
                0 | 1 => {
                    let ejected = out(&ejector);
                    let tier = Tier { eligible: nodes - ejected, configured: nodes, ejected };
                    ejector.consider(node, kind, &tier, now, 0.5);
                }
                2 => {
                    ejector.good_probe(node, now);
                }
                _ => {
                    ejector.tick(node, now);
                    let result = if flag { Ok(()) } else { Err(kind) };
                    ejector.probation_result(node, result, now, 0.5);
                }
            }
            prop_assert!(out(&ejector) <= most_ejected(nodes, 0.5));
            prop_assert!(out(&ejector) < nodes);
        }
    }
}
