//! Who works on the app: as long as the request for it is open, because what comes of it may be said before
//! its answer is, and for a minute after a node has accepted it.
//!
//! Anybody can ask for such work, so what only asks never takes the place of what was accepted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// For so long after an administrator's work on the app that session's pages show its progress.
const WORK_NS: u64 = 60_000_000_000;
/// Clients at work at once on one upstream; more are somebody's game.
pub const MOST_AT_WORK: usize = 256;

/// Clients at work.
#[derive(Debug, Default)]
pub(super) struct AtWork {
    table: Mutex<Table>,
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<u64, Work>,
    /// Entries that there have been.
    entries: u64,
}

/// One client's.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Its requests that are open.
    claims: usize,
    /// Accepted work counts until then; 0: there was none.
    accepted_until_ns: u64,
    /// Told apart from an earlier entry of the same client; the older, the smaller.
    entry: u64,
}

/// An open request of a client that says it works on the app. It ends with this.
#[derive(Debug)]
pub struct Claim {
    at: Arc<AtWork>,
    client: u64,
    entry: u64,
}

impl AtWork {
    /// A request has begun.
    pub(super) fn claim(self: &Arc<Self>, client: u64, now_ns: u64) -> Claim {
        let mut table = self.table.lock();
        let entry = match table.entry(client, false, now_ns) {
            Some(work) => {
                work.claims += 1;
                work.entry
            }
            // All there is room for was accepted.
            None => 0,
        };
        self.count.store(table.known.len(), Relaxed);
        Claim { at: self.clone(), client, entry }
    }

    /// Whether a client is at work.
    pub(super) fn has(&self, client: u64, now_ns: u64) -> bool {
        // Nearly always there is nobody, and then no lock is taken.
        if self.count.load(Relaxed) == 0 {
            return false;
        }
        self.table.lock().known.get(&client).is_some_and(|work| work.holds(now_ns))
    }

    /// How many are remembered.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Forgets those whose time is over.
    pub(super) fn forget_old(&self, now_ns: u64) {
        if self.count.load(Relaxed) > 0 {
            let mut table = self.table.lock();
            table.known.retain(|_, work| work.holds(now_ns));
            self.count.store(table.known.len(), Relaxed);
        }
    }
}

impl Work {
    fn is_accepted(&self, now_ns: u64) -> bool {
        now_ns < self.accepted_until_ns
    }

    fn holds(&self, now_ns: u64) -> bool {
        self.claims > 0 || self.is_accepted(now_ns)
    }
}

impl Table {
    /// The entry of a client, new if need be. None if there is no room for one that was not `accepted`.
    fn entry(&mut self, client: u64, accepted: bool, now_ns: u64) -> Option<&mut Work> {
        if self.known.len() >= MOST_AT_WORK && !self.known.contains_key(&client) {
            self.known.retain(|_, work| work.holds(now_ns));
            if self.known.len() >= MOST_AT_WORK {
                let gives_way = self.gives_way(accepted, now_ns)?;
                self.known.remove(&gives_way);
            }
        }
        self.entries += 1;
        let new = Work { claims: 0, accepted_until_ns: 0, entry: self.entries };
        Some(self.known.entry(client).or_insert(new))
    }

    /// Who is forgotten for another: who has only asked, the first of these; else, if the other's work was
    /// accepted, whose time is over first, because whose answer is long there shows what there is to show.
    fn gives_way(&self, accepted: bool, now_ns: u64) -> Option<u64> {
        let asks = |(_, work): &(&u64, &Work)| !work.is_accepted(now_ns);
        let asking = self.known.iter().filter(asks).min_by_key(|(_, work)| work.entry);
        let first = || self.known.iter().min_by_key(|(_, work)| work.accepted_until_ns);
        asking.or_else(|| first().filter(|_| accepted)).map(|(client, _)| *client)
    }
}

impl Claim {
    /// A node has accepted it.
    pub fn accept(&mut self, now_ns: u64) {
        let mut table = self.at.table.lock();
        // Others may have taken its place meanwhile: then it takes one of theirs.
        if let Some(work) = table.entry(self.client, true, now_ns) {
            work.accepted_until_ns = work.accepted_until_ns.max(now_ns + WORK_NS);
        }
        self.at.count.store(table.known.len(), Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.at.table.lock();
        let known = table.known.get_mut(&self.client).filter(|work| work.entry == self.entry);
        let Some(work) = known else { return };
        work.claims = work.claims.saturating_sub(1);
        if work.claims == 0 && work.accepted_until_ns == 0 {
            table.known.remove(&self.client);
        }
        self.at.count.store(table.known.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_counts_while_it_is_open_and_for_a_minute_after_it_was_accepted() {
        let at = Arc::new(AtWork::default());
        let mut claim = at.claim(1, SECOND);
        assert!(at.has(1, 300 * SECOND) && !at.has(2, SECOND), "what takes long is shown");
        claim.accept(300 * SECOND);
        drop(claim);
        assert!(at.has(1, 359 * SECOND) && !at.has(1, 360 * SECOND));
        at.forget_old(360 * SECOND);
        assert_eq!(at.count(), 0);
    }

    #[test]
    fn requests_that_overlap_do_not_undo_each_other() {
        let at = Arc::new(AtWork::default());
        // The refused one begins before the accepted one and ends after it.
        let refused = at.claim(1, SECOND);
        let mut accepted = at.claim(1, 2 * SECOND);
        accepted.accept(3 * SECOND);
        drop(accepted);
        drop(refused);
        assert!(at.has(1, 62 * SECOND) && !at.has(1, 63 * SECOND));
        // Two that are refused, in any order, leave nothing.
        let (one, other) = (at.claim(2, SECOND), at.claim(2, 2 * SECOND));
        drop(one);
        assert!(at.has(2, 2 * SECOND));
        drop(other);
        assert!(!at.has(2, 2 * SECOND));
        // Nor does one that is refused make accepted work last longer.
        drop(at.claim(1, 50 * SECOND));
        assert!(!at.has(1, 63 * SECOND));
    }

    #[test]
    fn who_only_asks_takes_no_place_of_accepted_work() {
        let at = Arc::new(AtWork::default());
        let mut admin = at.claim(7, SECOND);
        admin.accept(SECOND);
        drop(admin);
        let strangers: Vec<Claim> = (100..100 + 2 * MOST_AT_WORK as u64)
            .map(|client| at.claim(client, 2 * SECOND))
            .collect();
        assert_eq!(at.count(), MOST_AT_WORK, "there is a bound");
        assert!(at.has(7, 2 * SECOND));
        // One who asks among them is remembered once it is accepted, whatever came in between.
        let mut other = at.claim(8, 3 * SECOND);
        let more: Vec<Claim> = (1_000..1_000 + 2 * MOST_AT_WORK as u64)
            .map(|client| at.claim(client, 3 * SECOND))
            .collect();
        other.accept(4 * SECOND);
        drop((strangers, more, other));
        assert!(at.has(7, 5 * SECOND) && at.has(8, 5 * SECOND));
        assert_eq!(at.count(), 2, "whose place was taken takes nobody's with it");
    }

    #[test]
    fn of_accepted_work_the_first_gives_way() {
        let at = Arc::new(AtWork::default());
        for client in 0..=MOST_AT_WORK as u64 {
            at.claim(client, client * 1_000).accept(client * 1_000);
        }
        let now = MOST_AT_WORK as u64 * 1_000;
        assert!(!at.has(0, now) && at.has(1, now) && at.has(MOST_AT_WORK as u64, now));
        let late = at.claim(9_999, now);
        assert!(!at.has(9_999, now), "all there is room for was accepted");
        drop(late);
        assert_eq!(at.count(), MOST_AT_WORK);
    }
}
