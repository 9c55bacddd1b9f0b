//! Percentiles of times, from counts in buckets that grow by a quarter of an octave: at most 19 % too long.

/// From under a millisecond to 17 minutes.
pub const BUCKETS: usize = 1 + 4 * OCTAVES;
/// Doublings that are told apart.
const OCTAVES: usize = 20;
/// With fewer samples a percentile says little.
pub const MIN_SAMPLES: f64 = 100.0;

/// The bucket of a time.
#[must_use]
pub fn bucket(ns: u64) -> usize {
    // In units of 1,024 µs, with two bits behind the point.
    let quarters = ns / 256_000;
    if quarters < 4 {
        return 0;
    }
    let octave = quarters.ilog2() as usize - 2;
    let quarter = (quarters >> octave) as usize & 3;
    (1 + 4 * octave + quarter).min(BUCKETS - 1)
}

/// The longest time of a bucket, in nanoseconds.
#[must_use]
pub fn longest(bucket: usize) -> u64 {
    match bucket.checked_sub(1) {
        None => 1_024_000,
        Some(above) => ((5 + above as u64 % 4) * 256_000) << (above / 4),
    }
}

/// The time within which this share of the samples came; none if there are too few to tell.
#[must_use]
pub fn percentile(counts: &[f64; BUCKETS], share: f64) -> Option<u64> {
    let total: f64 = counts.iter().sum();
    if total < MIN_SAMPLES {
        return None;
    }
    let mut below = 0.0;
    let reaches = |count: &f64| {
        below += count;
        below >= total * share
    };
    counts.iter().position(reaches).map(longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentile_is_where_so_many_have_come() {
        let mut counts = [0.0; BUCKETS];
        assert_eq!(percentile(&counts, 0.5), None);
        counts[bucket(2_000_000)] += 90.0;
        counts[bucket(100_000_000)] += 9.0;
        assert_eq!(percentile(&counts, 0.5), None, "99 are too few");
        counts[bucket(3_000_000_000)] += 1.0;
        let at = |share| percentile(&counts, share).unwrap() as f64 / 1e6;
        assert!((2.0..2.5).contains(&at(0.5)) && (2.0..2.5).contains(&at(0.9)), "{}", at(0.5));
        assert!((100.0..125.0).contains(&at(0.95)), "{}", at(0.95));
        assert!((3_000.0..3_750.0).contains(&at(0.999)), "{}", at(0.999));
    }

    #[test]
    fn buckets_meet() {
        for bucket_of in 0..BUCKETS - 1 {
            assert_eq!(bucket(longest(bucket_of) - 1), bucket_of);
            assert_eq!(bucket(longest(bucket_of)), bucket_of + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn a_bucket_is_never_too_short_and_little_too_long(ns in 1_024_000..1_000_000_000_000_u64) {
            let longest = longest(bucket(ns));
            prop_assert!(longest >= ns && longest as f64 <= ns as f64 * 1.25 + 256_000.0);
        }
    }
}
