//! How long the heads of an upstream take, for hedging: counted by the data threads, merged by control.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::balance::percentile::{BUCKETS, bucket, percentile};

/// How often control merges.
const RENEW_NS: u64 = 1_000_000_000;
/// What is left of a second's counts in the next: half of it is of the last ten seconds.
const KEPT: f64 = 0.933;

/// Times of an upstream's heads over all threads and nodes. Nobody counts unless hedging is on.
#[derive(Debug)]
pub struct HeadTimes {
    fresh: [AtomicU32; BUCKETS],
    kept: Mutex<Kept>,
    after_ns: AtomicU64,
}

/// Only control touches it.
#[derive(Debug)]
struct Kept {
    counts: [f64; BUCKETS],
    renewed_ns: u64,
}

impl Default for HeadTimes {
    fn default() -> HeadTimes {
        HeadTimes {
            fresh: [const { AtomicU32::new(0) }; BUCKETS],
            kept: Mutex::new(Kept { counts: [0.0; BUCKETS], renewed_ns: 0 }),
            after_ns: AtomicU64::new(0),
        }
    }
}

impl HeadTimes {
    /// A head took so long, or would have taken longer.
    pub fn observe(&self, took_ns: u64) {
        self.fresh[bucket(took_ns)].fetch_add(1, Relaxed);
    }

    /// After how long a head is late; none while too little is known.
    pub fn after_ns(&self) -> Option<u64> {
        Some(self.after_ns.load(Relaxed)).filter(|after| *after != 0)
    }

    /// Control's: merges what was counted, once a second. A head is late after this share of them, but not
    /// before `at_least_ns`.
    pub fn renew(&self, share: f64, at_least_ns: u64, now_ns: u64) {
        let mut kept = self.kept.lock();
        if kept.renewed_ns != 0 && now_ns.saturating_sub(kept.renewed_ns) < RENEW_NS {
            return;
        }
        kept.renewed_ns = now_ns;
        for (count, fresh) in kept.counts.iter_mut().zip(&self.fresh) {
            *count = *count * KEPT + f64::from(fresh.swap(0, Relaxed));
        }
        let after = percentile(&kept.counts, share);
        self.after_ns.store(after.map_or(0, |after| after.max(at_least_ns)), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_late_follows_the_last_seconds() {
        let (heads, mut now) = (HeadTimes::default(), 1);
        let mut second = |times: &[(u64, u32)]| {
            now += RENEW_NS;
            times.iter().for_each(|(ns, n)| (0..*n).for_each(|_| heads.observe(*ns)));
            heads.renew(0.95, 50 * MS, now);
            heads.after_ns()
        };
        assert_eq!(second(&[(2 * MS, 99)]), None, "too few");
        assert_eq!(second(&[(2 * MS, 100)]), Some(50 * MS), "never sooner than the floor");
        let later = (0..60).map(|_| second(&[(400 * MS, 100)])).last().unwrap().unwrap();
        assert!((400 * MS..500 * MS).contains(&later), "{later}");
        let quiet = (0..200).map(|_| second(&[])).last().unwrap();
        assert_eq!(quiet, None, "what is old says nothing");
    }
}
