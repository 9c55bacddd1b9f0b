//! How fast tunnels are moved from one node to others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tunnels closed in a second, on all threads, for all nodes that are drained: a client that is told to
/// come back opens a connection, signs in and loads its page's data anew, and a node that serves well
/// takes a hundred of that a second. Ten fewer, because clients that leave one after the other may still
/// arrive together.
pub const MOVES_PER_SECOND: u64 = 90;

/// From one move to the next.
const GAP_NS: u64 = 1_000_000_000 / MOVES_PER_SECOND;
/// Data threads look at what is due this often ([`crate::http1::deadline::TICK`]): moves that were allowed
/// since the last look are made up for, older ones are lost.
const SLACK_NS: u64 = 50_000_000;

/// Lets through [`MOVES_PER_SECOND`], whoever asks; shared by all data threads and all snapshots.
#[derive(Debug, Default)]
pub struct Pace {
    next_ns: AtomicU64,
}

impl Pace {
    /// Whether one more may go now. `now_ns` is on any clock that does not go back.
    #[must_use]
    pub fn take(&self, now_ns: u64) -> bool {
        let after = |next: u64| {
            let from = next.max(now_ns.saturating_sub(SLACK_NS));
            (from <= now_ns).then_some(from + GAP_NS)
        };
        self.next_ns.fetch_update(Relaxed, Relaxed, after).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many go in each second when `ask_every_ns` all are tried.
    fn seconds(ask_every_ns: u64) -> Vec<u64> {
        let pace = Pace::default();
        let mut counts = vec![0; 10];
        let begin = 7_000_000_000;
        for at in (0..10_000_000_000).step_by(ask_every_ns as usize) {
            while pace.take(begin + at) {
                counts[(at / 1_000_000_000) as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn no_second_sees_more_than_a_hundred() {
        for ask_every_ns in [1_000_000, 10_000_000, SLACK_NS] {
            for count in seconds(ask_every_ns) {
                assert!((85..=100).contains(&count), "{count} when asked each {ask_every_ns} ns");
            }
        }
    }

    #[test]
    fn time_in_which_nobody_asks_is_not_saved_up() {
        let pace = Pace::default();
        assert!(pace.take(1_000_000_000));
        let at_once = (0..100).filter(|_| pace.take(3_600_000_000_000)).count();
        assert!(at_once <= 5, "{at_once}");
    }
}
