//! Peak-EWMA of the time to a head: a slower sample counts at once, a faster one only in time.
//!
//! Plain functions over a value and the time since it was written, both in nanoseconds; 0 is
//! "unknown". After Linkerd's balancer, whose decay of 10 s is kept.

/// After this time a value has decayed to 1/e.
pub const TAU_NS: u64 = 10_000_000_000;

/// A value that no sample has confirmed for so long is stale.
const STALE_AFTER_NS: u64 = 1_000_000_000;
/// A stale value decays to 1/e in this time. With 10 s alone, one answer of a second would keep a node that
/// usually takes milliseconds out of work for a minute, and nobody would learn that it is well again; so it
/// is asked once more after a few seconds.
const STALE_TAU_NS: u64 = 1_000_000_000;

/// A failure counts as at least so slow, or fast errors would look like speed and attract requests.
pub const FAILURE_PENALTY_NS: u64 = 1_000_000_000;

/// A sample counts as at most the larger of this and [`CLAMP_MEDIANS`] medians.
pub const CLAMP_NS: u64 = 1_000_000_000;

/// See [`CLAMP_NS`].
pub const CLAMP_MEDIANS: u64 = 10;

/// The value after `sample` arrived, `elapsed` after the value was written.
#[must_use]
pub fn observe(value: u64, sample: u64, elapsed: u64) -> u64 {
    if sample >= value {
        return sample;
    }
    sample + decayed(value - sample, elapsed)
}

/// The value `elapsed` after it was written, with no sample since: time alone forgives, so that a
/// node which gets nothing because it was slow is tried again.
#[must_use]
pub fn decayed(value: u64, elapsed: u64) -> u64 {
    if elapsed == 0 {
        return value;
    }
    let stale = elapsed.saturating_sub(STALE_AFTER_NS);
    let lives = elapsed as f64 / TAU_NS as f64 + stale as f64 / STALE_TAU_NS as f64;
    (value as f64 * (-lives).exp()) as u64
}

/// The sample as it may count, `median` being that of the upstream's nodes (0: unknown). One URL that
/// takes a minute says little about the node that serves it.
#[must_use]
pub fn clamp_sample(sample: u64, median: u64) -> u64 {
    sample.min(CLAMP_NS.max(median.saturating_mul(CLAMP_MEDIANS)))
}

/// The sample for an attempt that failed after `actual`.
#[must_use]
pub fn failure_sample(actual: u64, median: u64) -> u64 {
    clamp_sample(actual.max(FAILURE_PENALTY_NS), median)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_peak_counts_at_once_and_the_first_sample_is_the_value() {
        assert_eq!(observe(0, 7, SECOND), 7);
        assert_eq!(observe(10, 500, 1), 500);
    }

    #[test]
    fn a_faster_sample_counts_in_time() {
        // Ten samples a second for the ten seconds of tau.
        let value = (0..100).fold(1_000_000, |value, _| observe(value, 100_000, SECOND / 10));
        let expected = 100_000.0 + 900_000.0 / std::f64::consts::E;
        assert!((value as f64 - expected).abs() < 200.0, "{value}");
        assert_eq!(observe(1_000_000, 100_000, 0), 1_000_000);
    }

    #[test]
    fn time_alone_forgives_and_what_is_stale_soon() {
        assert_eq!(decayed(SECOND, 0), SECOND);
        let fresh = decayed(SECOND, SECOND) as f64;
        assert!((fresh - SECOND as f64 * (-0.1f64).exp()).abs() < 2.0);
        let ms = SECOND / 1000;
        assert!((150 * ms..400 * ms).contains(&decayed(SECOND, 2 * SECOND)));
        assert!(decayed(SECOND, 6 * SECOND) < 5 * ms, "one slow answer is forgotten in seconds");
        assert_eq!(decayed(SECOND, 1_000 * SECOND), 0);
    }

    #[test]
    fn samples_are_clamped_and_failures_are_slow() {
        let cases = [
            // (sample, median, clamped)
            (5, 0, 5),
            (90 * SECOND, 0, SECOND),
            (90 * SECOND, SECOND / 2, 5 * SECOND),
            (SECOND / 2, 1, SECOND / 2),
            (u64::MAX, u64::MAX, u64::MAX),
        ];
        for (sample, median, expected) in cases {
            assert_eq!(clamp_sample(sample, median), expected, "{sample} {median}");
        }
        assert_eq!(failure_sample(3, 5), SECOND);
        assert_eq!(failure_sample(60 * SECOND, SECOND), 10 * SECOND);
    }

    proptest! {
        #[test]
        fn the_value_stays_between_sample_and_peak(
            value in 0..100 * SECOND, sample in 0..100 * SECOND, elapsed in 0..100 * SECOND,
        ) {
            let after = observe(value, sample, elapsed);
            prop_assert!(after >= sample);
            prop_assert!(after <= value.max(sample));
        }

        #[test]
        fn more_time_forgives_more(value in 0..100 * SECOND, a in 0..20 * SECOND, b in 0..20 * SECOND) {
            prop_assert!(decayed(value, a + b) <= decayed(value, a));
        }
    }
}
