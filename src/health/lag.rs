//! How late a node's event loop is, from the round trips of its probes.
//!
//! The kernel of a node accepts a connection whatever its process does, so the time to connect is what the
//! network takes. An answer needs the process as well: one thread that runs everything in turn. What an
//! answer takes longer than the network is how long anything waits there before it is looked at.

use std::collections::VecDeque;
use std::time::Duration;

use crate::balance::ewma;

/// People notice a page that waits so long for each of its requests.
pub const LATE: Duration = Duration::from_millis(200);
/// A lost packet delays an answer by about as much (Linux sends it again after 200 ms), and so does a large
/// garbage collection, but hardly three times in a row.
pub const IN_A_ROW: u32 = 3;
/// Of so many connections the quickest tells what the network takes: one may have been held up.
const TRIPS: usize = 4;
/// The peak is that of the last minute: longer than most scrapers' interval, whoever else scrapes.
const PEAK_WINDOW: Duration = Duration::from_secs(60);
/// A smaller lag weighs nothing: it is what scheduling costs on a busy machine, on either side.
const NOISE_NS: u64 = 50_000_000;

/// What the probes of one node have told. Times are since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct LagMeter {
    trips: VecDeque<Duration>,
    last: Option<Duration>,
    late: u32,
    /// The largest of the window first, each with its time; what a later one exceeds is not kept.
    peaks: VecDeque<(Duration, Duration)>,
}

impl LagMeter {
    /// Notes a probe: how long it took to connect, if it did, and then to answer, if it did. Returns the
    /// lag, if that can be told.
    pub fn measure(
        &mut self,
        connected: Option<Duration>,
        answered: Option<Duration>,
        now: Duration,
    ) -> Option<Duration> {
        if let Some(trip) = connected {
            self.trips.truncate(TRIPS - 1);
            self.trips.push_front(trip);
        }
        let lag = answered?.saturating_sub(*self.trips.iter().min()?);
        self.last = Some(lag);
        self.late = if lag > LATE { self.late.saturating_add(1) } else { 0 };
        while self.peaks.back().is_some_and(|(_, peak)| *peak <= lag) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, lag));
        while self.peaks.front().is_some_and(|(at, _)| *at + PEAK_WINDOW < now) {
            self.peaks.pop_front();
        }
        Some(lag)
    }

    /// The last lag that could be told.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.last
    }

    /// The largest within a minute before the last.
    #[must_use]
    pub fn peak(&self) -> Option<Duration> {
        self.peaks.front().map(|(_, peak)| *peak)
    }

    /// Whether it was over [`LATE`] [`IN_A_ROW`] times.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late >= IN_A_ROW
    }
}

/// The least that a node's latency counts as, `elapsed_ns` after a lag was measured. It ages as the average
/// does ([`ewma::decayed`]).
#[must_use]
pub fn floor(lag_ns: u64, elapsed_ns: u64) -> u64 {
    if lag_ns < NOISE_NS { 0 } else { ewma::decayed(lag_ns, elapsed_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_lag_is_what_an_answer_takes_longer_than_the_network() {
        let mut meter = LagMeter::default();
        let cases = [
            // (connected, answered, lag)
            (None, Some(ms(9)), None),
            (Some(ms(4)), None, None),
            (None, Some(ms(9)), Some(ms(5))),
            (Some(ms(300)), Some(ms(9)), Some(ms(5))),
            (Some(ms(2)), Some(ms(9)), Some(ms(7))),
            (None, Some(ms(1)), Some(ms(0))),
        ];
        for (connected, answered, lag) in cases {
            assert_eq!(
                meter.measure(connected, answered, ms(0)),
                lag,
                "{connected:?} {answered:?}"
            );
        }
        assert_eq!(meter.last(), Some(ms(0)));
        // A network that has become slower is believed when no connection was quick any more.
        for _ in 0..TRIPS {
            meter.measure(Some(ms(20)), Some(ms(25)), ms(0));
        }
        assert_eq!(meter.last(), Some(ms(5)));
    }

    #[test]
    fn late_is_three_times_in_a_row() {
        let mut meter = LagMeter::default();
        meter.measure(Some(ms(0)), None, ms(0));
        let lags = [201, 500, 200, 201, 201, 201, 900, 3];
        let late = lags.map(|lag| {
            meter.measure(None, Some(ms(lag)), ms(0));
            meter.is_late()
        });
        assert_eq!(late, [false, false, false, false, false, true, true, false]);
    }

    #[test]
    fn the_peak_is_of_a_minute() {
        let mut meter = LagMeter::default();
        assert_eq!(meter.peak(), None);
        meter.measure(Some(ms(0)), None, ms(0));
        let steps =
            [(0, 5, 5), (2, 900, 900), (30, 300, 900), (62, 7, 900), (63, 6, 300), (91, 1, 7)];
        for (second, lag, peak) in steps {
            meter.measure(None, Some(ms(lag)), Duration::from_secs(second));
            assert_eq!(meter.peak(), Some(ms(peak)), "at {second} s");
        }
        for second in 0..10_000 {
            meter.measure(None, Some(ms(10_000 - second)), Duration::from_secs(100 + second));
        }
        assert!(meter.peaks.len() <= 61, "{}", meter.peaks.len());
    }

    #[test]
    fn small_lags_weigh_nothing_and_large_ones_age() {
        assert_eq!(floor(NOISE_NS - 1, 0), 0);
        assert_eq!(floor(300_000_000, 0), 300_000_000);
        assert!((50_000_000..200_000_000).contains(&floor(300_000_000, 2_000_000_000)));
        assert!(floor(300_000_000, 20_000_000_000) < 1_000);
    }
}
