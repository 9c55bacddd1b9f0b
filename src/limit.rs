//! The retry budget: how many requests may be repeated after they were sent. [`pace`]: how fast
//! tunnels are moved. [`uploads`]: which are too slow to go to a node as they come. [`lists`]: who may come at
//! all; [`clients`] and [`rate`]: how much and how often one client may. [`gate`]: these as configured.
//!
//! Retries help while few requests fail, and double the load when all do. So over 10 s an upstream
//! may repeat a share of its requests (20 %), and 3 a second besides, so that a quiet one can too.

use std::sync::atomic::{AtomicU64, Ordering};

pub mod clients;
pub mod gate;
pub mod lists;
pub mod pace;
pub mod rate;
pub mod uploads;

/// Repeats a second that are free, whatever the traffic.
pub const FREE_PER_SECOND: u64 = 3;
/// The length of the window in seconds.
pub const WINDOW_S: u64 = 10;

/// More seconds than any look-back needs, a power of two.
const SLOTS: usize = 16;
/// The low bits of a slot count; the rest is the second it counts for.
const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The budget of one upstream, shared by the data threads without a lock.
///
/// Exactness: requests and repeats are counted per whole second. A repeat at second `s` is granted when
/// those of the seconds `s - 10` to `s`, itself included, are at most the share of the requests of
/// `s - 9` to `s` plus 30. So whenever one is granted, the repeats of the 10 s before it are within the
/// share of the requests of those same 10 s plus 30: rounding only ever refuses, never grants. A
/// repeat is counted before it is judged, so threads that ask at once cannot grant more than there is;
/// they may both be refused the last one. It holds while the threads' `now` differ by less than 5 s.
#[derive(Debug)]
pub struct RetryBudget {
    share: f64,
    requests: Ring,
    repeats: Ring,
}

impl RetryBudget {
    /// A budget of `share` (0.2 is 20 %) of the requests.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share: share.max(0.0), requests: Ring::default(), repeats: Ring::default() }
    }

    /// Counts `n` requests that were sent; data threads may save them up and hand them in together.
    /// `now` is in seconds, on any clock that does not go back.
    pub fn deposit(&self, n: u32, now: u64) {
        self.requests.add(now, u64::from(n));
    }

    /// Takes one repeat out of the budget; false means there is none and the request must not be
    /// repeated.
    #[must_use]
    pub fn withdraw(&self, now: u64) -> bool {
        self.repeats.add(now, 1);
        let granted = self.spent(now) as f64 <= self.allowance(now);
        if !granted {
            self.repeats.take_back(now);
        }
        granted
    }

    /// How many repeats the budget has left; for metrics and `status`.
    #[must_use]
    pub fn remaining(&self, now: u64) -> f64 {
        (self.allowance(now) - self.spent(now) as f64).max(0.0)
    }

    fn allowance(&self, now: u64) -> f64 {
        let requests = self.requests.sum(now.saturating_sub(WINDOW_S - 1), now);
        requests as f64 * self.share + (FREE_PER_SECOND * WINDOW_S) as f64
    }

    /// One second more than the window, because its first second may have begun outside of it.
    fn spent(&self, now: u64) -> u64 {
        self.repeats.sum(now.saturating_sub(WINDOW_S), now)
    }
}

/// Counts per second; each slot holds a second and its count in one word, so that a slot is taken over
/// for a new second and counted in one step.
#[derive(Debug, Default)]
struct Ring {
    slots: [AtomicU64; SLOTS],
}

impl Ring {
    fn add(&self, second: u64, n: u64) {
        self.update(second, |count| (count + n).min(COUNT_MASK));
    }

    fn take_back(&self, second: u64) {
        self.update(second, |count| count.saturating_sub(1));
    }

    /// Sequentially consistent: of two threads that both add and then sum, one must see the other.
    fn update(&self, second: u64, change: impl Fn(u64) -> u64) {
        let tag = second & COUNT_MASK;
        let slot = &self.slots[second as usize % SLOTS];
        let next = |word: u64| {
            let count = if word >> COUNT_BITS == tag { word & COUNT_MASK } else { 0 };
            Some(tag << COUNT_BITS | change(count))
        };
        // The closure never refuses, so this only repeats until no other thread was in between.
        let _ = slot.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }

    /// The counts of the seconds `from..=to`.
    fn sum(&self, from: u64, to: u64) -> u64 {
        let count = |second: u64| {
            let word = self.slots[second as usize % SLOTS].load(Ordering::SeqCst);
            let current = word >> COUNT_BITS == second & COUNT_MASK;
            if current { word & COUNT_MASK } else { 0 }
        };
        (from..=to).map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn withdraw_all(budget: &RetryBudget, now: u64) -> u64 {
        let mut granted = 0;
        while budget.withdraw(now) {
            granted += 1;
        }
        granted
    }

    #[test]
    fn a_quiet_upstream_may_repeat_thirty_in_ten_seconds() {
        let budget = RetryBudget::new(0.2);
        assert!((budget.remaining(100) - 30.0).abs() < 1e-9);
        assert_eq!(withdraw_all(&budget, 100), 30);
        assert!(budget.remaining(100) < 1e-9);
        assert_eq!(withdraw_all(&budget, 110), 0, "the last second may still be within the window");
        assert_eq!(withdraw_all(&budget, 111), 30);
    }

    #[test]
    fn a_fifth_of_the_requests_besides() {
        let budget = RetryBudget::new(0.2);
        budget.deposit(1_000, 50);
        budget.deposit(500, 51);
        assert_eq!(withdraw_all(&budget, 55), 330);
        assert_eq!(withdraw_all(&budget, 58), 0, "refusals were not counted");
        budget.deposit(50, 58);
        assert_eq!(withdraw_all(&budget, 58), 10);
    }

    #[test]
    fn requests_expire() {
        let budget = RetryBudget::new(0.2);
        budget.deposit(1_000, 50);
        assert!((budget.remaining(59) - 230.0).abs() < 1e-9);
        assert!((budget.remaining(60) - 30.0).abs() < 1e-9);
        assert!((budget.remaining(50 + SLOTS as u64) - 30.0).abs() < 1e-9, "the same slot");
    }

    #[test]
    fn without_a_share_only_the_free_ones() {
        let budget = RetryBudget::new(0.0);
        budget.deposit(u32::MAX, 0);
        assert_eq!(withdraw_all(&budget, 0), 30);
    }

    #[test]
    fn threads_together_never_take_more_than_there_is() {
        let budget = RetryBudget::new(0.2);
        budget.deposit(10_000, 7);
        let granted: u64 = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| budget.withdraw(7)).count() as u64;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(granted <= 2_030, "{granted}");
        assert!(granted + withdraw_all(&budget, 7) == 2_030, "what threads left is still there");
    }

    proptest! {
        /// Steps: seconds to wait, requests, repeats asked for.
        #[test]
        fn over_any_window_repeats_stay_in_budget(
            steps in proptest::collection::vec((0_u64..4, 0_u32..60, 0_u32..60), 1..60),
        ) {
            let budget = RetryBudget::new(0.2);
            let (mut now, mut sent, mut repeated) = (1_000_u64, Vec::new(), Vec::new());
            for (wait, requests, asked) in steps {
                now += wait;
                budget.deposit(requests, now);
                sent.push((now, u64::from(requests)));
                let granted = (0..asked).filter(|_| budget.withdraw(now)).count() as u64;
                repeated.push((now, granted));
                let since = |second: u64, events: &[(u64, u64)]| -> u64 {
                    events.iter().filter(|(at, _)| *at >= second).map(|(_, n)| n).sum()
                };
                let (took, had) = (since(now - WINDOW_S, &repeated), since(now + 1 - WINDOW_S, &sent));
                prop_assert!(granted == 0 || took as f64 <= had as f64 * 0.2 + 30.0);
            }
        }
    }
}
