//! Peak-EWMA of the time to a head: a slower sample counts at once, a faster one only in time.
//!
//! Plain functions over a value and the time since it was written, both in nanoseconds; 0 is
//! "unknown". After Linkerd's balancer, whose decay of 10 s is kept.

/// After this time a value has decayed to 1/e.
pub const TAU_NS: u64 = 10_000_000_000;

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
    (value as f64 * (-(elapsed as f64) / TAU_NS as f64).exp()) as u64
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
        let value = observe(1_000_000, 100_000, TAU_NS);
        let expected = 100_000.0 + 900_000.0 / std::f64::consts::E;
        assert!((value as f64 - expected).abs() < 2.0, "{value}");
        assert_eq!(observe(1_000_000, 100_000, 0), 1_000_000);
    }

    #[test]
    fn time_alone_forgives() {
        assert_eq!(decayed(SECOND, 0), SECOND);
        let value = decayed(SECOND, TAU_NS) as f64;
        assert!((value - SECOND as f64 / std::f64::consts::E).abs() < 2.0);
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
        fn decay_in_steps_is_decay_at_once(value in 0..100 * SECOND, a in 0..SECOND, b in 0..SECOND) {
            let steps = decayed(decayed(value, a), b);
            let once = decayed(value, a + b);
            prop_assert!(steps.abs_diff(once) <= 2 + value / 1_000_000_000_000);
        }
    }
}
