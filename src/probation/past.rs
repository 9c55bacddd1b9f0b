//! What was usual: counts of the last five minutes.

use std::collections::VecDeque;
use std::time::Duration;

use super::Counts;

/// Counts at moments of the last five minutes, at most one a second, so it is bounded.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// All counts so far, at moments; the oldest first.
    slices: VecDeque<(Duration, Counts)>,
}

impl Past {
    /// How far it goes back.
    pub const SPAN: Duration = Duration::from_secs(5 * 60);
    /// Its grain.
    pub const SLICE: Duration = Duration::from_secs(1);

    /// Notes all counts so far, unless that has just been done.
    pub fn add(&mut self, totals: Counts, now: Duration) {
        if self.slices.back().is_some_and(|(at, _)| now < *at + Self::SLICE) {
            return;
        }
        self.slices.push_back((now, totals));
        // The oldest is as old as the span, or all there is.
        while self.slices.get(1).is_some_and(|(at, _)| *at + Self::SPAN <= now) {
            self.slices.pop_front();
        }
    }

    /// What came within it.
    #[must_use]
    pub fn counts(&self, totals: &Counts) -> Counts {
        self.slices.front().map_or_else(Counts::default, |(_, oldest)| totals.since(oldest))
    }

    /// Takes this for what came within it, whatever really did: that was of a configuration which is gone.
    pub fn resume(&mut self, counts: &Counts, totals: &Counts, now: Duration) {
        self.slices.clear();
        self.slices.push_back((now, totals.since(counts)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(requests: u64) -> Counts {
        Counts { requests, failed: [0, requests / 10, 0, 0, 0, 0] }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_reaches_back_five_minutes_and_is_bounded() {
        let mut past = Past::default();
        assert_eq!(past.counts(&totals(7)), Counts::default(), "nothing is known");
        for tenth in 0..20_000_u64 {
            past.add(totals(tenth), Duration::from_millis(100 * tenth));
            assert!(past.slices.len() <= 302, "{}", past.slices.len());
        }
        let counts = past.counts(&totals(19_999));
        assert!((3_000..=3_010).contains(&counts.requests), "{counts:?}");
        assert!((300..=301).contains(&counts.failed[1]), "{counts:?}");
    }

    #[test]
    fn a_young_past_is_all_there_is() {
        let mut past = Past::default();
        past.add(totals(0), s(100));
        past.add(totals(50), s(110));
        assert_eq!(past.counts(&totals(60)), totals(60));
    }

    #[test]
    fn what_came_under_a_configuration_that_is_gone_does_not_count() {
        let mut past = Past::default();
        past.add(totals(0), s(0));
        past.add(totals(90_000), s(60));
        past.resume(&totals(40), &totals(90_000), s(60));
        assert_eq!(past.counts(&totals(90_000)), totals(40));
        past.add(totals(90_010), s(61));
        assert_eq!(past.counts(&totals(90_010)).requests, 50);
        // It fades as any other.
        past.add(totals(90_020), s(361));
        assert_eq!(past.counts(&totals(90_020)).requests, 10);
    }
}
