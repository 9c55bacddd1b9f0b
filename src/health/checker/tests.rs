use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::from_secs(1_000);
const INTERVAL: Duration = Duration::from_secs(2);
const FREE: Circumstances =
    Circumstances { answered_traffic_recently: false, last_eligible: false, may_take_out: true };

fn checker() -> Checker {
    Checker::new(2, 3, INTERVAL, T0)
}

fn refused() -> Verdict {
    Verdict::Refused { detail: "connection refused".into() }
}

fn says(kind: RefusalKind, code: &str) -> Verdict {
    let refusal = Refusal { code: code.into(), message: "text".into(), command: None, kind };
    Verdict::NotServing(refusal)
}

fn maintaining() -> Verdict {
    says(RefusalKind::Maintaining, "APP_COMMANDING")
}

/// Records the letters: g good, t time-out, r refused, m maintaining, s starting, x stopped,
/// w wrong body, e status 500, b garbage.
fn feed(checker: &mut Checker, letters: &str, circumstances: &Circumstances) {
    for letter in letters.chars() {
        let verdict = match letter {
            'g' => Verdict::Good,
            't' => Verdict::Timeout,
            'r' => refused(),
            'm' => maintaining(),
            's' => says(RefusalKind::Starting, "APP_STARTING"),
            'x' => says(RefusalKind::Down, "APP_STOPPED"),
            'w' => Verdict::WrongBody { html: true },
            'e' => Verdict::Status(500),
            'b' => Verdict::Garbage { detail: "no status line".into() },
            other => panic!("{other}"),
        };
        checker.record(verdict, circumstances, T0);
    }
}

fn ending() -> Refusal {
    Refusal {
        code: "APP_RUNNING".into(),
        message: "destroying app...".into(),
        command: None,
        kind: RefusalKind::Maintaining,
    }
}

#[test]
fn a_node_that_says_it_is_ending_is_not_up_by_good_probes() {
    let mut checker = checker();
    feed(&mut checker, "g", &FREE);
    let change = checker.told(ending(), true, T0).unwrap();
    assert_eq!((change.from, change.to), (HealthState::Up, HealthState::Maintaining));
    feed(&mut checker, "gggg", &FREE);
    assert_eq!(checker.state(), HealthState::Maintaining);
    assert!(!checker.may_fail_open(T0), "it is believed here, too");
    assert!(checker.next_in(0.5) <= OUT, "and asked as one that is out");
    checker.believe_probes();
    feed(&mut checker, "g", &FREE);
    assert_eq!(checker.state(), HealthState::Maintaining, "those before did not count");
    feed(&mut checker, "g", &FREE);
    assert_eq!(checker.state(), HealthState::Up);
}

#[test]
fn an_ending_node_is_down_by_bad_probes_and_not_for_ever_by_its_word() {
    let mut checker = checker();
    feed(&mut checker, "g", &FREE);
    checker.told(ending(), true, T0);
    feed(&mut checker, "eee", &FREE);
    assert_eq!(checker.state(), HealthState::Down);
    let just_before = T0 + ENDING_MOST - Duration::from_nanos(1);
    for _ in 0..3 {
        assert_eq!(checker.record(Verdict::Good, &FREE, just_before), None);
    }
    checker.record(Verdict::Good, &FREE, T0 + ENDING_MOST);
    let change = checker.record(Verdict::Good, &FREE, T0 + ENDING_MOST).unwrap();
    assert_eq!(change.to, HealthState::Up);
}

#[test]
fn what_a_node_says_unasked_counts_as_what_it_answers() {
    let mut checker = checker();
    feed(&mut checker, "g", &FREE);
    let Verdict::NotServing(refusal) = maintaining() else { panic!("a refusal") };
    let change = checker.told(refusal, false, T0).unwrap();
    assert_eq!(change.to, HealthState::Maintaining);
    assert_eq!(checker.refusal().map(|refusal| refusal.code.as_str()), Some("APP_COMMANDING"));
    feed(&mut checker, "gg", &FREE);
    assert_eq!(checker.state(), HealthState::Up, "its health check tells when that is over");
}

#[test]
fn verdicts_lead_to_states() {
    use HealthState::*;
    let cases = [
        ("", Unchecked, "nothing is known"),
        ("g", Up, "the first good probe admits"),
        ("r", Unchecked, "one refusal is no row"),
        ("rg", Unchecked, "after a bad verdict one good is not enough"),
        ("rgg", Up, "but rise are"),
        ("rrr", Down, "fall refusals"),
        ("ttt", Down, "nobody loses by it"),
        ("grr", Up, "short of fall"),
        ("grrgrr", Up, "not in a row"),
        ("grrr", Down, "fall in a row"),
        ("gttt", Down, "time-outs too, when nothing speaks against it"),
        ("geee", Down, "wrong statuses"),
        ("gwww", Down, "wrong bodies"),
        ("gbbb", Down, "garbage"),
        ("grew", Down, "a mixed row"),
        ("grrrg", Down, "one good is not rise"),
        ("grrrgg", Up, "two are"),
        ("grrrgrg", Down, "not in a row"),
        ("gm", Maintaining, "a statement needs no vote"),
        ("gs", Starting, "a statement needs no vote"),
        ("gx", Down, "a statement needs no vote"),
        ("m", Maintaining, "at the first probe, too"),
        ("gmg", Maintaining, "one good may be another worker's"),
        ("gmgg", Up, "rise brings it back"),
        ("sm", Maintaining, "from statement to statement"),
        ("gmsx", Down, "the last statement holds"),
        ("mrr", Maintaining, "short of fall"),
        ("mrrr", Down, "the process is gone"),
        ("mtttttt", Maintaining, "a busy node that says nothing is still busy"),
    ];
    for (letters, expected, why) in cases {
        let mut checker = checker();
        feed(&mut checker, letters, &FREE);
        assert_eq!(checker.state(), expected, "{letters}: {why}");
    }
}

#[test]
fn slow_is_not_dead() {
    let spared = [
        Circumstances { answered_traffic_recently: true, ..FREE },
        Circumstances { last_eligible: true, ..FREE },
        Circumstances { may_take_out: false, ..FREE },
    ];
    for circumstances in spared {
        for (letters, expected) in [
            ("gtttttttt", HealthState::Up),
            ("gttr", HealthState::Up),
            ("gttrr", HealthState::Up),
            ("gttrrr", HealthState::Down),
            ("grrr", HealthState::Down),
            ("geee", HealthState::Down),
            ("gm", HealthState::Maintaining),
        ] {
            let mut checker = checker();
            feed(&mut checker, letters, &circumstances);
            assert_eq!(checker.state(), expected, "{letters} {circumstances:?}");
        }
    }
    let mut checker = checker();
    feed(&mut checker, "gtttt", &Circumstances { answered_traffic_recently: true, ..FREE });
    feed(&mut checker, "t", &FREE);
    assert_eq!(checker.state(), HealthState::Down, "the row was kept");
}

#[test]
fn a_change_tells_its_cause() {
    let mut checker = checker();
    let change = checker.record(Verdict::Good, &FREE, T0).unwrap();
    assert_eq!((change.from, change.to), (HealthState::Unchecked, HealthState::Up));
    let later = T0 + INTERVAL;
    let change = checker.record(maintaining(), &FREE, later).unwrap();
    assert_eq!((change.from, change.to), (HealthState::Up, HealthState::Maintaining));
    assert_eq!(change.cause, "APP_COMMANDING: text");
    assert_eq!(checker.since(), later);
    assert_eq!(checker.record(maintaining(), &FREE, later), None);
    feed(&mut checker, "rr", &FREE);
    let change = checker.record(refused(), &FREE, later).unwrap();
    assert_eq!(change.cause, "bad probes in a row: 3; the last: no connection: connection refused");
}

#[test]
fn what_nocobase_said_is_kept_until_it_is_up() {
    let mut checker = checker();
    feed(&mut checker, "gm", &FREE);
    assert_eq!(checker.refusal().unwrap().code, "APP_COMMANDING");
    feed(&mut checker, "g", &FREE);
    assert_eq!(checker.refusal().unwrap().code, "APP_COMMANDING");
    assert_eq!(checker.last_verdict(), Some(&Verdict::Good));
    feed(&mut checker, "g", &FREE);
    assert_eq!(checker.refusal(), None);
    feed(&mut checker, "r", &FREE);
    assert_eq!(checker.refusal(), None);
}

#[test]
fn probes_are_faster_while_a_state_is_changing() {
    let cases = [
        ("", 500),
        ("g", 2_000),
        ("gt", 500),
        ("gtg", 2_000),
        ("grrr", 1_000),
        ("grrrg", 500),
        ("gm", 1_000),
        ("gs", 1_000),
        ("gmg", 500),
        ("gmgg", 2_000),
    ];
    for (letters, expected) in cases {
        let mut checker = checker();
        feed(&mut checker, letters, &FREE);
        assert_eq!(checker.next_in(0.5), Duration::from_millis(expected), "{letters}");
    }
    assert_eq!(Checker::new(2, 3, Duration::from_millis(100), T0).next_in(0.5).as_millis(), 100);
    let mut slow = Checker::new(2, 3, Duration::from_secs(60), T0);
    feed(&mut slow, "g", &FREE);
    assert_eq!(slow.next_in(0.0).as_secs(), 54);
    assert_eq!(slow.next_in(1.0).as_secs(), 66);
}

#[test]
fn fail_open_is_for_the_merely_silent() {
    let cases = [
        ("", false, "unchecked"),
        ("t", false, "unchecked"),
        ("ttt", true, "time-outs"),
        ("gttt", true, "time-outs"),
        ("gwww", true, "a wrong health path"),
        ("g", true, "it can only be ejected"),
        ("gr", false, "refused"),
        ("grrr", false, "refused"),
        ("grrrg", false, "still held against it"),
        ("grrrt", true, "the last verdict counts"),
        ("geee", false, "a wrong status"),
        ("gm", false, "maintaining"),
        ("gmttt", false, "maintaining, silently"),
        ("gs", false, "starting"),
        ("gx", false, "stopped"),
    ];
    for (letters, expected, why) in cases {
        let mut checker = checker();
        feed(&mut checker, letters, &FREE);
        assert_eq!(checker.may_fail_open(T0), expected, "{letters}: {why}");
    }
    assert!(!checker().may_fail_open(T0 + Duration::from_millis(4_999)));
    assert!(checker().may_fail_open(T0 + Duration::from_secs(5)));
    let mut checker = checker();
    feed(&mut checker, "r", &FREE);
    assert!(!checker.may_fail_open(T0 + Duration::from_secs(60)), "refused, never seen good");
}

#[test]
fn what_answers_after_the_end_is_another_run_of_the_node() {
    for end in ["r", "x", "m", "s"] {
        let mut checker = checker();
        feed(&mut checker, "g", &FREE);
        checker.told(ending(), true, T0);
        feed(&mut checker, "gg", &FREE);
        assert_ne!(checker.state(), HealthState::Up, "it runs, and is ending");
        feed(&mut checker, end, &FREE);
        assert!(!checker.is_ending(T0) && checker.has_said_ending(), "{end}");
        feed(&mut checker, "gg", &FREE);
        assert_eq!(checker.state(), HealthState::Up, "{end}");
        assert!(!checker.has_said_ending(), "{end}");
    }
    // What its connection says on the way there is not the end.
    let mut checker = checker();
    let Verdict::NotServing(stopped) = says(RefusalKind::Down, "APP_STOPPED") else { panic!() };
    checker.told(ending(), true, T0);
    checker.told(stopped, false, T0);
    assert!(checker.is_ending(T0));
    feed(&mut checker, "gggg", &FREE);
    assert_eq!(checker.state(), HealthState::Down);
}

#[test]
fn a_node_that_can_say_no_more_is_believed_for_some_seconds() {
    let mut checker = checker();
    feed(&mut checker, "g", &FREE);
    checker.unheard(T0);
    assert!(!checker.is_ending(T0), "it had said nothing");
    checker.told(ending(), true, T0);
    checker.unheard(T0 + Duration::from_secs(1));
    checker.unheard(T0 + Duration::from_secs(5));
    let good = |checker: &mut Checker, seconds| {
        checker.record(Verdict::Good, &FREE, T0 + Duration::from_secs(seconds))
    };
    assert_eq!(good(&mut checker, 12), None);
    assert_eq!(good(&mut checker, 12), None);
    assert_eq!(good(&mut checker, 13), None, "the first of two that count");
    assert_eq!(good(&mut checker, 13).map(|change| change.to), Some(HealthState::Up));
}

#[test]
fn what_silence_took_out_is_told_from_what_said_so_for_certain() {
    let cases = [
        ("gttt", true),
        ("grrr", false),
        ("gtt", false),
        ("gtttgg", false),
        // It answers now and then, and stays out by its silence.
        ("gtttg", true),
        ("gtttgttg", true),
        // A row with a time-out in it, whatever its last verdict.
        ("gtte", true),
        ("gtterrr", false),
        ("gtttx", false),
        ("gxgt", false),
        ("grrrt", true),
    ];
    for (letters, expected) in cases {
        let mut checker = checker();
        feed(&mut checker, letters, &FREE);
        assert_eq!(checker.is_out_softly(), expected, "{letters}");
    }
}

#[test]
fn a_reload_keeps_the_state() {
    let mut checker = checker();
    feed(&mut checker, "gr", &FREE);
    checker.reconfigure(1, 2, Duration::from_secs(1));
    feed(&mut checker, "r", &FREE);
    assert_eq!(checker.state(), HealthState::Down);
    feed(&mut checker, "g", &FREE);
    assert_eq!(checker.state(), HealthState::Up);
}

proptest! {
    /// Whatever the verdicts: in only by a good probe, out only by a bad one, and never by a
    /// time-out while spared.
    #[test]
    fn changes_have_the_right_cause(
        letters in "[gtrmsxweb]{1,40}", answered: bool, last: bool, may: bool,
    ) {
        let circumstances = Circumstances {
            answered_traffic_recently: answered, last_eligible: last, may_take_out: may,
        };
        let spared = answered || last || !may;
        let mut checker = checker();
        for letter in letters.chars() {
            let before = checker.state();
            feed(&mut checker, &letter.to_string(), &circumstances);
            let after = checker.state();
            if before != HealthState::Up && after == HealthState::Up {
                prop_assert_eq!(letter, 'g');
            }
            if before == HealthState::Up && after != HealthState::Up {
                prop_assert_ne!(letter, 'g');
                prop_assert!(letter != 't' || !spared);
            }
            prop_assert!(checker.next_in(1.0) <= INTERVAL.mul_f64(1.1));
            prop_assert!(checker.next_in(0.0) >= FAST.mul_f64(0.9));
        }
    }
}
