//! Whether an upload is fast enough to go to a node as it comes.
//!
//! Node gives a whole request 300 s, its body included (`server.requestTimeout`), whoever sends it. So what
//! is too slow for that must be read to its end before a node is asked.

use std::time::Duration;

use crate::clock;

/// The rate is not known before: what came with the head was sent before anybody could be slow, and TCP
/// needs a few round trips to become as fast as the line is.
const FIRST_NS: u64 = 1_000_000_000;
/// From then on it is measured anew each time: long enough for a line that comes and goes.
const AGAIN_NS: u64 = 5_000_000_000;

/// What is known of an upload's pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing yet.
    Unknown,
    /// At this rate all of it is there in time.
    Fast,
    /// It is not.
    Slow,
}

/// Measures one upload.
#[derive(Debug)]
pub struct Gauge {
    length: u64,
    within_ns: u64,
    since_ns: u64,
    since_bytes: u64,
    judged: bool,
}

impl Gauge {
    /// Of a body of so many bytes, which is fast if all of it would come `within` so long. `since_ns` is when
    /// the client could begin to send it.
    #[must_use]
    pub fn new(length: u64, within: Duration, since_ns: u64) -> Gauge {
        Gauge { length, within_ns: clock::nanos(within), since_ns, since_bytes: 0, judged: false }
    }

    /// What is known now that so many bytes were received. `full`: no more can be waited for before the
    /// first verdict.
    pub fn look(&mut self, received: u64, full: bool, now_ns: u64) -> Pace {
        let took = now_ns.saturating_sub(self.since_ns);
        let enough = match self.judged {
            true => took >= AGAIN_NS,
            false => full || took >= FIRST_NS,
        };
        match (enough, self.judged) {
            (false, true) => return Pace::Slow,
            (false, false) => return Pace::Unknown,
            (true, _) => {}
        }
        let came = u128::from(received.saturating_sub(self.since_bytes));
        let fast = came * u128::from(self.within_ns) > u128::from(self.length) * u128::from(took);
        (self.since_ns, self.since_bytes, self.judged) = (now_ns, received, true);
        if fast { Pace::Fast } else { Pace::Slow }
    }
}

/// Windows in a row that must be below it: a line that comes and goes is left alone.
const WINDOWS: u64 = 3;

/// How long a client may take for so many bytes of an answer at this rate a second, at most. The windows come on top:
/// a line that comes and goes is left alone here as well. Without a rate there is no such time.
#[must_use]
pub fn longest(length: usize, rate: u64, window: Duration) -> Duration {
    match (length as u64 * 1_000_000_000).checked_div(rate) {
        Some(ns) => Duration::from_nanos(ns).saturating_add(window.saturating_mul(WINDOWS as u32)),
        None => Duration::MAX,
    }
}

/// Whether a body comes too slowly to be waited for.
#[derive(Debug)]
pub struct Floor {
    rate: u64,
    window_ns: u64,
    since_ns: u64,
    since_bytes: u64,
    below: u64,
}

impl Floor {
    /// Begins to measure against a rate in bytes a second, in windows of this length; 0 is no bound.
    #[must_use]
    pub fn new(rate: u64, window: Duration, received: u64, now_ns: u64) -> Floor {
        let window_ns = clock::nanos(window).max(1);
        Floor { rate, window_ns, since_ns: now_ns, since_bytes: received, below: 0 }
    }

    /// So long the client was not waited for: that is not its time.
    pub fn skip(&mut self, ns: u64) {
        self.since_ns = self.since_ns.saturating_add(ns);
    }

    /// Whether, now that so many bytes were received, less than the rate came in each of the last three
    /// windows.
    pub fn is_below(&mut self, received: u64, now_ns: u64) -> bool {
        let took = now_ns.saturating_sub(self.since_ns);
        if took >= self.window_ns {
            let came = u128::from(received.saturating_sub(self.since_bytes));
            let enough = came * 1_000_000_000 >= u128::from(self.rate) * u128::from(took);
            self.below = if enough { 0 } else { self.below + took / self.window_ns };
            (self.since_ns, self.since_bytes) = (now_ns, received);
        }
        self.below >= WINDOWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_windows_in_a_row_below_the_floor_are_too_slow() {
        const FLOOR: u64 = 1024;
        let window = Duration::from_secs(60);
        let mut floor = Floor::new(FLOOR, window, MIB, 7 * S);
        assert!(!floor.is_below(MIB, 66 * S));
        assert!(!floor.is_below(MIB + 60 * FLOOR - 1, 67 * S), "one");
        assert!(!floor.is_below(MIB + 60 * FLOOR, 127 * S), "two");
        assert!(floor.is_below(MIB + 61 * FLOOR, 187 * S), "three");
        let mut floor = Floor::new(FLOOR, window, 0, 0);
        assert!(!floor.is_below(1, 119 * S) && !floor.is_below(61 * FLOOR, 179 * S));
        assert!(!floor.is_below(62 * FLOOR, 239 * S), "it began anew");
        assert!(!floor.is_below(62 * FLOOR, 298 * S) && floor.is_below(62 * FLOOR, 360 * S));
    }

    #[test]
    fn what_is_not_the_clients_time_does_not_count() {
        let window = Duration::from_secs(60);
        let mut floor = Floor::new(1024, window, 0, 0);
        floor.skip(600 * S);
        assert!(floor.is_below(0, 780 * S));
        let mut floor = Floor::new(1024, window, 0, 0);
        floor.skip(600 * S);
        assert!(!floor.is_below(0, 779 * S));
        assert!(!Floor::new(0, window, 0, 0).is_below(0, 6000 * S), "no bound");
    }

    #[test]
    fn an_answer_has_its_time_and_three_windows() {
        let window = Duration::from_secs(60);
        assert_eq!(longest(64 * 1024, 1024, window), Duration::from_secs(244));
        assert_eq!(longest(0, 1024, window), Duration::from_secs(180));
        assert_eq!(longest(1, 0, window), Duration::MAX);
    }

    const S: u64 = 1_000_000_000;
    const MIB: u64 = 1024 * 1024;

    fn gauge(length: u64) -> Gauge {
        Gauge::new(length, Duration::from_secs(60), 7 * S)
    }

    #[test]
    fn a_second_or_what_can_be_held_decides() {
        let mut slow = gauge(180_000_000);
        assert_eq!(slow.look(50_000, false, 7 * S + S / 2), Pace::Unknown);
        assert_eq!(slow.look(100_000, false, 8 * S), Pace::Slow, "100 KB/s take half an hour");
        // The same rate is fast enough for what is small.
        assert_eq!(gauge(5_000_000).look(100_000, false, 8 * S), Pace::Fast);
        assert_eq!(gauge(6_000_000).look(100_000, false, 8 * S), Pace::Slow, "60 s are too long");
        assert_eq!(gauge(1024 * MIB).look(MIB, true, 7 * S + S / 50), Pace::Fast);
        assert_eq!(gauge(1024 * MIB).look(MIB, true, 7 * S + S / 10), Pace::Slow);
        // All at once, within one look at the clock.
        assert_eq!(gauge(u64::MAX).look(MIB, true, 7 * S), Pace::Fast);
    }

    #[test]
    fn who_starts_slowly_may_become_fast() {
        let mut gauge = gauge(1024 * MIB);
        assert_eq!(gauge.look(MIB, true, 7 * S + S / 2), Pace::Slow);
        assert_eq!(gauge.look(100 * MIB, true, 12 * S), Pace::Slow, "not yet");
        assert_eq!(gauge.look(101 * MIB, true, 12 * S + S / 2), Pace::Fast, "20 MiB/s by now");
        // What came before does not count.
        assert_eq!(gauge.look(102 * MIB, false, 18 * S), Pace::Slow);
        assert_eq!(gauge.look(102 * MIB, false, 24 * S), Pace::Slow);
    }
}
