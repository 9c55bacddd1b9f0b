//! One line of parked exchanges on a data thread, and how fast it is let go.

use std::cell::Cell;

use super::turns::Turns;
use crate::upstream::parking::Kind;

/// Parked requests that are let go for each eligible node in a second, by all data threads together. A node
/// that has just come up is cold, and serves a few hundred requests of NocoBase's API a second; those that
/// come anew it gets beside. A thousand at once would keep it busy for longer than it takes to let them go,
/// and probes would find it late.
pub const REQUESTS_PER_SECOND: u64 = 200;
/// Upgrades: each page that has its tunnel back signs in over it and may load its data anew, and a node
/// that serves well takes a hundred of that a second (as for [`crate::limit::pace`], which is in front of
/// all nodes).
pub const UPGRADES_PER_SECOND: u64 = 100;

/// Ticks may come late on a busy thread; what was not let go for longer than this is not made up for.
const LATEST_NS: u64 = 200_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Who may be picked for what is parked, as a number of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takers {
    /// By everything.
    pub all: usize,
    /// By one exchange each that is safe to repeat: on probation.
    pub trials: usize,
}

/// The line.
pub struct Lot {
    /// Who waits.
    pub line: Turns,
    per_second: u64,
    released_ns: Cell<u64>,
    /// Billionths of an exchange that were due and not let go.
    due: Cell<u64>,
}

impl Lot {
    /// An empty one. Its bound is not the line's: what all threads hold together counts.
    pub fn new(kind: Kind) -> Lot {
        let per_second = match kind {
            Kind::Request => REQUESTS_PER_SECOND,
            Kind::Upgrade => UPGRADES_PER_SECOND,
        };
        Lot { line: Turns::default(), per_second, released_ns: Cell::new(0), due: Cell::new(0) }
    }

    /// Lets those look whose time has come. All threads together keep the pace: each has the share in it
    /// that its line has in all that are parked, so that none is left with the last ones.
    pub fn release(&self, takers: Takers, parked: usize, now_ns: u64) {
        let since = now_ns.saturating_sub(self.released_ns.replace(now_ns)).min(LATEST_NS);
        let waiting = self.line.len();
        if waiting == 0 || takers.all == 0 {
            self.due.set(0);
            // Whatever is not safe to repeat would only look in vain.
            self.line.wake_safe(takers.trials);
            return;
        }
        let whole = self.per_second * takers.all as u64 * since;
        let part = u128::from(whole) * waiting as u128 / parked.max(waiting) as u128;
        let due = self.due.get() + part as u64;
        self.due.set(due % SECOND_NS);
        self.line.wake((due / SECOND_NS) as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::turns::Place;
    use super::*;

    const TICK: u64 = 50_000_000;

    fn fill(lot: &Lot, number: usize) -> Vec<Place<'_>> {
        (0..number).map(|n| lot.line.enter(n % 2 == 1)).collect()
    }

    fn leave(places: &mut Vec<Place<'_>>) -> usize {
        let cx = Context::from_waker(Waker::noop());
        let before = places.len();
        places.retain(|place| place.poll_turn(&cx).is_pending());
        before - places.len()
    }

    #[test]
    fn the_pace_is_by_node_and_by_kind() {
        for (kind, nodes, per_second) in
            [(Kind::Request, 1, 200), (Kind::Request, 3, 600), (Kind::Upgrade, 3, 300)]
        {
            let lot = Lot::new(kind);
            let mut places = fill(&lot, 2_000);
            let takers = Takers { all: nodes, trials: 1 };
            let mut now = 7_000_000_000;
            lot.release(Takers::default(), places.len(), now);
            assert_eq!(leave(&mut places), 0, "there is nobody to go to");
            for second in 0..3 {
                let mut left = 0;
                for _ in 0..20 {
                    now += TICK;
                    lot.release(takers, places.len(), now);
                    left += leave(&mut places);
                }
                assert_eq!(left, per_second, "{kind:?}, second {second}");
            }
            // A thread that was busy for long does not let go all at once.
            lot.release(takers, places.len(), now + 60_000_000_000);
            assert!(leave(&mut places) <= per_second / 5);
        }
    }

    #[test]
    fn threads_share_the_pace_by_what_waits_at_each() {
        let lots = [Lot::new(Kind::Request), Lot::new(Kind::Request)];
        let mut places = [fill(&lots[0], 300), fill(&lots[1], 100)];
        let mut ticks = 0;
        let mut last = [0, 0];
        while places.iter().any(|places| !places.is_empty()) {
            ticks += 1;
            for (index, lot) in lots.iter().enumerate() {
                let parked = places.iter().map(Vec::len).sum();
                lot.release(Takers { all: 1, trials: 0 }, parked, ticks * TICK);
                if leave(&mut places[index]) > 0 {
                    last[index] = ticks;
                }
            }
        }
        // 400 at 200 a second.
        assert!((38..=42).contains(&ticks), "{ticks}");
        assert!(last[0].abs_diff(last[1]) <= 4, "{last:?}: neither is left behind");
    }

    #[test]
    fn a_node_on_probation_gets_one_that_is_safe_to_repeat() {
        let lot = Lot::new(Kind::Request);
        let mut places = fill(&lot, 100);
        lot.release(Takers { all: 0, trials: 1 }, 100, TICK);
        let cx = Context::from_waker(Waker::noop());
        let ready: Vec<bool> = places.iter().map(|place| place.poll_turn(&cx).is_ready()).collect();
        assert_eq!(ready.iter().position(|ready| *ready), Some(1), "the first that only reads");
        assert_eq!(ready.iter().filter(|ready| **ready).count(), 1);
        lot.release(Takers::default(), 100, 2 * TICK);
        assert_eq!(leave(&mut places), 0);
    }
}
