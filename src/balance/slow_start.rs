//! How much of its weight a node has while it starts slowly.
//!
//! A node that comes back is cold: its code is not compiled yet, its caches and database connections are
//! not filled. So its weight grows in a straight line, from a tenth to the whole. What counts is how far a
//! node is behind the furthest: where all are equally cold there is nobody to spare them, and a node alone
//! carries everything anyway.

/// A share that is the whole, in thousandths.
pub const WHOLE: u32 = 1000;

/// Less than a tenth would teach a node nothing, and leave most of the work for the end of the ramp.
const FLOOR: u32 = WHOLE / 10;

/// The share of its weight that a node has, in thousandths.
///
/// It came up at `since_ns`; 0 is long ago. The ramp takes `window_ns`; 0 is none.
#[must_use]
pub fn share(since_ns: u64, now_ns: u64, window_ns: u64) -> u32 {
    let age = now_ns.saturating_sub(since_ns);
    if since_ns == 0 || age >= window_ns {
        return WHOLE;
    }
    let grown = u128::from(age) * u128::from(WHOLE) / u128::from(window_ns);
    u32::try_from(grown).unwrap_or(WHOLE).max(FLOOR)
}

/// What is held back of the weight of a node with this share, in thousandths, when `furthest` is the
/// largest share among the nodes that may be picked.
#[must_use]
pub fn held_back(share: u32, furthest: u32) -> u32 {
    WHOLE - (share * WHOLE / furthest.max(share).max(1)).min(WHOLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const WINDOW: u64 = 30 * SECOND;

    #[test]
    fn a_weight_grows_in_a_straight_line_from_a_tenth() {
        let cases = [(0, 100), (2, 100), (3, 100), (6, 200), (15, 500), (29, 966), (30, 1000)];
        for (seconds, expected) in cases {
            let now = 7 * SECOND + seconds * SECOND;
            assert_eq!(share(7 * SECOND, now, WINDOW), expected, "after {seconds} s");
        }
        assert_eq!(share(7 * SECOND, SECOND, WINDOW), 100, "a clock read in another order");
    }

    #[test]
    fn without_a_beginning_or_a_window_it_is_whole() {
        assert_eq!(share(0, SECOND, WINDOW), WHOLE);
        assert_eq!(share(SECOND, SECOND, 0), WHOLE);
    }

    #[test]
    fn what_counts_is_the_distance_to_the_furthest() {
        let cases = [
            // (share, furthest, held back, why)
            (1000, 1000, 0, "a node that is warm"),
            (100, 1000, 900, "a cold one beside it"),
            (100, 100, 0, "all are cold, or it is alone"),
            (100, 200, 500, "a little colder than the other"),
            (250, 500, 500, "the same, later"),
        ];
        for (share, furthest, expected, why) in cases {
            assert_eq!(held_back(share, furthest), expected, "{why}");
        }
    }

    proptest! {
        #[test]
        fn it_never_shrinks_and_never_holds_back_all(
            since in 1..u64::MAX / 2, a in 0..100 * SECOND, b in 0..100 * SECOND,
            window in 0..100 * SECOND, other in FLOOR..=WHOLE,
        ) {
            let (early, late) = (share(since, since + a, window), share(since, since + a + b, window));
            prop_assert!(early <= late);
            prop_assert!((FLOOR..=WHOLE).contains(&early));
            prop_assert!(held_back(early, other) <= WHOLE - FLOOR);
        }
    }
}
