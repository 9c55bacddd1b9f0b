//! Rates: how often each client may do something.
//!
//! GCRA (ITU-T I.371, annex A; a leaky bucket as a meter) keeps one time for each client: when all that it has
//! done would have been done at the rate. A table has a fixed number of places, eight of which a client may be
//! kept in, chosen by a keyed hash. When all eight are in use, who would be forgotten soonest gives way: a flood
//! of clients that come once cannot push out one that has used up its rate, and who finds no place for long is
//! let through rather than locked out.

use std::time::Duration;

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock;
use crate::config::Rate;

/// Places that a client may be kept in. Sixteen would be no fuller, and take twice as long to look through.
const WAYS: usize = 8;

/// One client. Its time is in the past, or zero, when there is nothing to know of it.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    /// When what it has done would have been done at the rate, in nanoseconds.
    done_ns: u64,
}

/// The clients of one rate, shared by all data threads.
#[derive(Debug)]
pub struct Table {
    rate: Rate,
    /// Between two requests at the rate.
    interval_ns: u64,
    /// What a client may be ahead of it.
    depth_ns: u64,
    sets: Box<[Mutex<[Entry; WAYS]>]>,
    seed: u64,
    evicted: AtomicU64,
}

/// When a request that came too early might have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl Table {
    /// A table with places for so many clients, rounded up to a power of two. `seed` must be unknown to clients.
    #[must_use]
    pub fn new(rate: Rate, clients: usize, seed: u64) -> Table {
        let interval_ns = (clock::nanos(rate.per) / u64::from(rate.count.max(1))).max(1);
        let sets = (clients / WAYS).next_power_of_two();
        Table {
            rate,
            interval_ns,
            depth_ns: interval_ns.saturating_mul(u64::from(rate.burst.max(1))),
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            seed,
            evicted: AtomicU64::new(0),
        }
    }

    /// Its rate.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Places.
    #[must_use]
    pub fn places(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Bytes of memory, whoever comes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// Over how long a client that has used up everything may do all of it again.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.depth_ns)
    }

    /// Counts one request of a client.
    ///
    /// # Errors
    /// It came too early, and was not counted.
    pub fn take(&self, client: &[u8], now_ns: u64) -> Result<(), Wait> {
        let key = xxh3_64_with_seed(client, self.seed);
        let at = key as usize & (self.sets.len() - 1);
        let mut set = self.sets[at].lock();
        let known = set.iter().position(|entry| entry.key == key && entry.done_ns > now_ns);
        let place = known.unwrap_or_else(|| self.place(&set, now_ns));
        let done_ns = known.map_or(now_ns, |known| set[known].done_ns);
        let ahead_ns = (done_ns - now_ns).saturating_add(self.interval_ns);
        if ahead_ns > self.depth_ns {
            return Err(Wait(Duration::from_nanos(ahead_ns - self.depth_ns)));
        }
        set[place] = Entry { key, done_ns: now_ns.saturating_add(ahead_ns) };
        Ok(())
    }

    /// Where a client that is not known goes: the place of who is forgotten soonest, if not already.
    fn place(&self, set: &[Entry; WAYS], now_ns: u64) -> usize {
        let soonest = |at: &usize| set[*at].done_ns;
        let place = (0..WAYS).min_by_key(soonest).unwrap_or(0);
        if set[place].done_ns > now_ns {
            self.evicted.fetch_add(1, Relaxed);
        }
        place
    }

    /// Clients that are known at `now_ns`. Looks through the whole table: for metrics.
    #[must_use]
    pub fn known(&self, now_ns: u64) -> usize {
        let of = |set: &Mutex<[Entry; WAYS]>| {
            set.lock().iter().filter(|entry| entry.done_ns > now_ns).count()
        };
        self.sets.iter().map(of).sum()
    }

    /// Clients that were forgotten too early since the table was made.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }
}

#[cfg(test)]
mod tests;
