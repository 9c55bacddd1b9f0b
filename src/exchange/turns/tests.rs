use proptest::prelude::*;

use super::*;
use crate::upstream::line::SEARCHED;

fn is_ready(place: &Place<'_>) -> bool {
    place.poll_turn(&Context::from_waker(Waker::noop())).is_ready()
}

/// Lets all look that have a turn, until nobody has one: whoever is not `served` passes his turn on. Which
/// have looked, in their order.
fn looked(places: &[Place<'_>], served: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut seen = Vec::new();
    while let Some(index) = places.iter().position(is_ready) {
        seen.push(index);
        if !served(index) {
            places[index].pass_on();
        }
    }
    seen
}

#[test]
fn turns_are_given_out_so_many_at_a_time() {
    let turns = Turns::default();
    let mut places: Vec<Place<'_>> = (0..5).map(|_| turns.enter(true)).collect();
    turns.wake(2);
    let ready: Vec<bool> = places.iter().map(is_ready).collect();
    assert_eq!(ready, [true, true, false, false, false]);
    places.drain(..2);
    assert!(!places.iter().any(is_ready), "nobody has a turn because others left");
    // Turns that are of no use to some are those of others.
    turns.wake(2);
    assert_eq!(looked(&places, |index| index == 2), [0, 1, 2], "there is nobody for the second");
    places.clear();
    assert!(turns.is_empty());
}

#[test]
fn what_only_reads_is_found_behind_everything_else() {
    let turns = Turns::default();
    let places: Vec<_> = (0..5_000).map(|n| turns.enter(n % 2_000 == 1_999)).collect();
    turns.wake_safe(1);
    assert_eq!(looked(&places, |_| true), [1_999]);
    turns.wake_safe(7);
    assert_eq!(looked(&places, |_| true), [1_999, 3_999]);
}

#[test]
fn a_search_in_vain_is_short_and_the_next_goes_on_where_it_ended() {
    let turns = Turns::default();
    let places: Vec<_> = (0..100).map(|_| turns.enter(true)).collect();
    let mut asked = [0; 100];
    let mut steps = 0;
    while asked.contains(&0) {
        turns.wake(2);
        let seen = looked(&places, |_| false);
        assert!(seen.starts_with(&[0, 1]) && seen.len() <= 2 + SEARCHED, "{seen:?}");
        seen.iter().for_each(|index| asked[*index] += 1);
        steps += 1;
    }
    assert_eq!(steps, 100usize.div_ceil(SEARCHED));
    assert!(asked[2..].iter().all(|times| *times == 1), "nobody is asked twice: {asked:?}");
    // At the end of the line it begins anew.
    turns.wake(2);
    assert_eq!(looked(&places, |_| false)[..3], [0, 1, 2]);
}

proptest! {
    /// Whoever enters, leaves, and has a use for a turn when: those that are served are served in the order
    /// in which they came, and everybody who has a use for a turn gets one.
    #[test]
    fn first_come_first_served(
        entering in prop::collection::vec((any::<bool>(), any::<bool>()), 1..200),
        batch in 1usize..20,
    ) {
        let turns = Turns::default();
        let mut places: Vec<_> = entering
            .iter()
            .enumerate()
            .map(|(number, (useful, _))| (number, *useful, turns.enter(true)))
            .collect();
        // Some leave before anybody has a turn.
        places.retain(|(number, ..)| !entering[*number].1);
        let wanted: Vec<usize> =
            places.iter().filter(|(_, useful, _)| *useful).map(|(number, ..)| *number).collect();
        let mut served = Vec::new();
        for _ in 0..=2 * entering.len() {
            turns.wake(batch);
            while let Some(at) = places.iter().position(|(.., place)| is_ready(place)) {
                if places[at].1 {
                    served.push(places.remove(at).0);
                } else {
                    places[at].2.pass_on();
                }
            }
        }
        prop_assert_eq!(served, wanted);
        prop_assert_eq!(turns.len(), places.len());
    }
}
