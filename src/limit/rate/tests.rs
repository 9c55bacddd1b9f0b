use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

fn table(count: u32, per_s: u64, burst: u32, clients: usize) -> Table {
    Table::new(Rate { count, per: Duration::from_secs(per_s), burst }, clients, 7)
}

fn takes(table: &Table, client: &[u8], now_ns: u64) -> usize {
    (0..10_000).take_while(|_| table.take(client, now_ns).is_ok()).count()
}

#[test]
fn ten_a_minute_are_ten_at_once_and_one_each_six_seconds() {
    let table = table(10, 60, 10, 64);
    assert_eq!(takes(&table, b"a", S), 10);
    assert_eq!(table.take(b"a", S), Err(Wait(Duration::from_secs(6))));
    assert_eq!(table.take(b"a", 6 * S), Err(Wait(Duration::from_secs(1))), "refusals cost nothing");
    assert_eq!(takes(&table, b"a", 7 * S), 1);
    assert_eq!(takes(&table, b"a", 25 * S), 3);
    assert_eq!(takes(&table, b"a", 1000 * S), 10, "no more for having waited longer");
    assert_eq!(takes(&table, b"b", 1000 * S), 10, "each has its own");
    assert_eq!(table.window(), Duration::from_secs(60));
}

#[test]
fn the_burst_is_its_own_number() {
    assert_eq!(takes(&table(10, 1, 1, 64), b"a", S), 1);
    let table = table(10, 1, 50, 64);
    assert_eq!(takes(&table, b"a", S), 50);
    assert_eq!(takes(&table, b"a", 2 * S), 10);
}

#[test]
fn the_beginning_of_the_clock_is_no_special_time() {
    assert_eq!(takes(&table(5, 1, 5, 64), b"a", 0), 5);
    assert_eq!(takes(&table(5, 1, 5, 64), b"a", 1), 5);
}

#[test]
fn millions_of_clients_take_no_more_memory_and_lock_nobody_out() {
    let table = table(10, 60, 10, 1024);
    assert_eq!((table.places(), table.bytes()), (1024, 1024 / 8 * 136));
    let mut now = S;
    for n in 0..2_000_000_u64 {
        now += 1000;
        assert_eq!(table.take(&n.to_le_bytes(), now), Ok(()), "{n}");
    }
    assert!(table.known(now) <= 1024 && table.evicted() > 1_900_000);
    assert_eq!(table.known(now + 61 * S), 0);
}

#[test]
fn a_flood_does_not_bring_back_what_was_used_up() {
    let table = table(10, 60, 10, 1024);
    let attackers: Vec<String> = (0..100).map(|n| format!("attacker {n}")).collect();
    let (mut passed, mut now, mut stranger) = (0, S, 0_u64);
    for attacker in &attackers {
        passed += takes(&table, attacker.as_bytes(), now);
    }
    assert_eq!(passed, 1000, "each its burst");
    // Twenty seconds, with a million others in between: three more each.
    for _ in 0..1000 {
        for _ in 0..1000 {
            now += 20_000;
            stranger += 1;
            assert_eq!(table.take(&stranger.to_le_bytes(), now), Ok(()));
        }
        let again = attackers.iter().filter(|one| table.take(one.as_bytes(), now).is_ok());
        passed += again.count();
    }
    assert_eq!(passed, 1300, "as many as without the flood");
}

#[test]
fn who_is_forgotten_soonest_gives_way() {
    // One set: nine clients, of which one has used more than the others.
    let table = table(10, 10, 10, 8);
    for client in 0..8_u8 {
        assert!(table.take(&[client], S).is_ok());
    }
    assert!(table.take(&[3], S).is_ok(), "known");
    assert_eq!(table.evicted(), 0);
    assert!(table.take(&[8], S).is_ok());
    assert_eq!((table.evicted(), table.known(S)), (1, 8));
    assert_eq!(takes(&table, &[3], S), 8, "it was not this one");
}

#[test]
fn threads_together_never_take_more_than_the_rate() {
    let table = table(100, 1, 500, 64);
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| takes(&table, b"a", S))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 500);
}

proptest! {
    /// Over any time at most the burst and what the rate gives in it.
    #[test]
    fn over_any_window_a_client_stays_in_its_rate(
        steps in proptest::collection::vec((0u64..3_000, 0usize..8), 1..80),
        count in 1u32..20, burst in 1u32..30,
    ) {
        let table = table(count, 1, burst, 8);
        let (mut now, mut times) = (S, Vec::new());
        for (wait_ms, asked) in steps {
            now += wait_ms * 1_000_000;
            let granted = (0..asked).filter(|_| table.take(b"a", now).is_ok()).count();
            times.extend(std::iter::repeat_n(now, granted));
        }
        for from in 0..times.len() {
            for to in from..times.len() {
                let taken = (to - from + 1) as u64;
                let fair = (times[to] - times[from]) / table.interval_ns + u64::from(burst);
                prop_assert!(taken <= fair, "{taken} of {fair}");
            }
        }
    }
}
