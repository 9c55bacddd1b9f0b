//! The share of requests that fail at a node, compared with the other nodes'.
//!
//! A row of failures finds a node that is broken; this finds one that is half broken: a worker of several
//! that is lost, a pool of database connections of which some are dead. What fails everywhere ejects nobody.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests count for so long.
pub const WINDOW: Duration = Duration::from_secs(10);

/// With fewer requests in the window a share says little: a node that fails one request in ten by chance
/// fails half of 20 in one window of 140,000, half of 10 in one of 600, and one of 2 in every fifth.
pub const MIN_REQUESTS: u32 = 20;

/// A node is unlike the others from so many times their median on. Whatever all nodes suffer from, a lost
/// database or requests that nobody can answer, makes less of a difference between them.
pub const TIMES_MEDIAN: f64 = 4.0;

/// Requests that ended with a verdict on their node, and those that speak against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub requests: u32,
    /// Of these, the failures.
    pub failures: u32,
}

impl Counts {
    /// The share that failed; none while there are too few to tell.
    #[must_use]
    pub fn ratio(self) -> Option<f64> {
        (self.requests >= MIN_REQUESTS).then(|| f64::from(self.failures) / f64::from(self.requests))
    }

    /// What was added since; counters may have wrapped.
    fn since(self, before: Counts) -> Counts {
        Counts {
            requests: self.requests.wrapping_sub(before.requests),
            failures: self.failures.wrapping_sub(before.failures),
        }
    }
}

/// What happened at one node within [`WINDOW`], from looks at counters that only grow. It holds as many
/// looks as fit into the window.
#[derive(Clone, Debug, Default)]
pub struct Window {
    looks: VecDeque<(Duration, Counts)>,
}

impl Window {
    /// Looks at the counters; times are since any fixed moment.
    pub fn look(&mut self, total: Counts, now: Duration) {
        self.looks.push_back((now, total));
        while self.looks.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.looks.pop_front();
        }
    }

    /// What was before says nothing any more: the node was out meanwhile.
    pub fn forget(&mut self) {
        self.looks.clear();
    }

    /// What happened between the first look in the window and the last.
    #[must_use]
    pub fn counts(&self) -> Counts {
        match (self.looks.front(), self.looks.back()) {
            (Some((_, first)), Some((_, last))) => last.since(*first),
            _ => Counts::default(),
        }
    }
}

/// Whether a node with this share of failures is unlike the others: at least `limit` and
/// [`TIMES_MEDIAN`] times the median of theirs. Without any other to compare with, it is not.
#[must_use]
pub fn is_unlike(ratio: f64, others: &[f64], limit: f64) -> bool {
    median(others).is_some_and(|median| ratio >= limit && ratio >= TIMES_MEDIAN * median)
}

/// Whether the others fail as well: less than [`TIMES_MEDIAN`] times the median of their shares is no
/// difference. Without any other to compare with, they do not.
#[must_use]
pub fn is_like(ratio: f64, others: &[f64]) -> bool {
    median(others).is_some_and(|median| ratio < TIMES_MEDIAN * median)
}

/// The middle one, or the mean of the two in the middle.
#[must_use]
pub fn median(ratios: &[f64]) -> Option<f64> {
    let mut sorted = ratios.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) =
        (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u32, failures: u32) -> Counts {
        Counts { requests, failures }
    }

    #[test]
    fn too_few_requests_say_nothing() {
        assert_eq!(counts(19, 19).ratio(), None);
        assert_eq!(counts(20, 10).ratio(), Some(0.5));
        assert_eq!(Counts::default().ratio(), None);
    }

    #[test]
    fn a_window_forgets_what_is_older_than_ten_seconds() {
        let mut window = Window::default();
        assert_eq!(window.counts(), Counts::default());
        let mut total = counts(u32::MAX - 50, u32::MAX - 5);
        let mut seen = Vec::new();
        for second in 0..30 {
            window.look(total, Duration::from_secs(second));
            seen.push(window.counts());
            total.requests = total.requests.wrapping_add(10);
            total.failures = total.failures.wrapping_add(u32::from(second < 5));
        }
        assert_eq!(seen[0], Counts::default(), "the first look is where counting begins");
        assert_eq!(seen[3], counts(30, 3));
        assert_eq!(seen[10], counts(100, 5), "counters may wrap");
        assert_eq!(seen[12], counts(100, 3));
        assert_eq!(seen[29], counts(100, 0));
        assert!(window.looks.len() <= 11);
        window.forget();
        window.look(total, Duration::from_secs(31));
        assert_eq!(window.counts(), Counts::default());
    }

    #[test]
    fn a_node_is_compared_with_the_others() {
        let cases = [
            // (own, others, unlike, why)
            (0.5, &[0.0][..], true, "half of its requests fail, and none elsewhere"),
            (0.49, &[0.0], false, "below the limit"),
            (1.0, &[], false, "nobody to compare with"),
            (1.0, &[1.0], false, "it fails everywhere"),
            (0.6, &[0.15], true, "exactly four times"),
            (0.6, &[0.16], false, "not four times"),
            (0.9, &[0.0, 0.9], false, "one of two others fails as well"),
            (0.9, &[0.0, 0.9, 0.1], true, "most others do not"),
            (0.9, &[0.0, 0.9, 0.9], false, "most others do"),
        ];
        for (own, others, unlike, why) in cases {
            assert_eq!(is_unlike(own, others, 0.5), unlike, "{why}");
        }
    }

    #[test]
    fn what_others_fail_as_well_is_no_difference() {
        let cases = [
            // (own, others, like, why)
            (0.05, &[0.0][..], false, "nothing fails elsewhere"),
            (1.0, &[], false, "nobody to compare with"),
            (0.3, &[0.2, 0.25], true, "an app that fails at all of them"),
            (1.0, &[0.2], false, "it fails far more often"),
            (1.0, &[0.0, 0.9, 0.0], false, "most others do not fail"),
        ];
        for (own, others, like, why) in cases {
            assert_eq!(is_like(own, others), like, "{why}");
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[0.3]), Some(0.3));
        assert_eq!(median(&[0.5, 0.0]), Some(0.25));
        assert_eq!(median(&[0.5, 0.0, 0.1]), Some(0.1));
    }
}
