//! Who is to see what becomes of a node, and who may have seen too much of it: shared by the data threads,
//! because a page that comes back may meet another one.
//!
//! Clients are known by what stands for their session, or else for their address: numbers, never 0.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

mod work;

use work::AtWork;
pub use work::{Claim, MOST_AT_WORK};

/// A page comes back after a second; in a background tab after a minute; after an outage once a node is up.
const OWED_NS: u64 = 600_000_000_000;
/// Clients that are remembered to be owed the end of a dialog. At this bound everybody is.
pub const MOST_OWED: usize = 16_384;
/// A client whose frame was withheld a shorter time ago has been moved for that already.
const MOVED_LATELY_NS: u64 = 60_000_000_000;

/// What is remembered for quiet restarts at one upstream.
#[derive(Debug, Default)]
pub struct Quiet {
    at_work: Arc<AtWork>,
    owed: Remembered<Withheld>,
    /// More clients were owed the end of a dialog than are remembered: until then everybody is.
    everybody_until_ns: AtomicU64,
}

/// When a frame was last withheld from a client; 0 is never.
type Withheld = u64;

/// Clients, each until a time.
#[derive(Debug)]
struct Remembered<T> {
    known: Mutex<HashMap<u64, (u64, T)>>,
    count: AtomicUsize,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Remembered { known: Mutex::default(), count: AtomicUsize::new(0) }
    }
}

impl<T: Copy> Remembered<T> {
    fn get(&self, client: u64, now_ns: u64) -> Option<T> {
        // Nearly always there is nobody, and then no lock is taken.
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let known = self.known.lock();
        known.get(&client).filter(|(until_ns, _)| now_ns < *until_ns).map(|(_, what)| *what)
    }

    /// False if there is no room.
    fn put(&self, client: u64, until_ns: u64, what: T, (most, now_ns): (usize, u64)) -> bool {
        let mut known = self.known.lock();
        if known.len() >= most && !known.contains_key(&client) {
            known.retain(|_, (until_ns, _)| now_ns < *until_ns);
        }
        let room = known.len() < most || known.contains_key(&client);
        if room {
            known.insert(client, (until_ns, what));
        }
        self.count.store(known.len(), Relaxed);
        room
    }

    fn forget_old(&self, now_ns: u64) -> usize {
        if self.count.load(Relaxed) == 0 {
            return 0;
        }
        let mut known = self.known.lock();
        known.retain(|_, (until_ns, _)| now_ns < *until_ns);
        self.count.store(known.len(), Relaxed);
        known.len()
    }
}

impl Quiet {
    /// A client says that it works on the app: its pages show what comes of that while its request is open,
    /// because what comes of it may be said before the answer is, and for a minute after a node has accepted
    /// it.
    pub fn works(&self, client: u64, now_ns: u64) -> Claim {
        self.at_work.claim(client, now_ns)
    }

    /// Whether a client works on the app.
    pub fn is_at_work(&self, client: u64, now_ns: u64) -> bool {
        self.at_work.has(client, now_ns)
    }

    /// How many clients are remembered to work on the app.
    pub fn at_work(&self) -> usize {
        self.at_work.count()
    }

    /// A client's page may be under the dialog when it comes back. `withheld`: not by this, because it was
    /// not shown the frame.
    pub fn owe(&self, client: u64, withheld: bool, now_ns: u64) {
        let until_ns = now_ns + OWED_NS;
        let before = self.owed.get(client, now_ns).unwrap_or_default();
        let what = if withheld { now_ns } else { before };
        // Once everybody is, nobody looks for room for one more.
        let all = now_ns < self.everybody_until_ns.load(Relaxed);
        if all || !self.owed.put(client, until_ns, what, (MOST_OWED, now_ns)) {
            self.everybody_until_ns.fetch_max(until_ns, Relaxed);
        }
    }

    /// Whether a client is owed the end of the dialog. That stays so for its time: it may have several
    /// pages, and to those that need it not the frame says nothing new.
    pub fn owes(&self, client: u64, now_ns: u64) -> bool {
        now_ns < self.everybody_until_ns.load(Relaxed) || self.owed.get(client, now_ns).is_some()
    }

    /// Whether a client was moved within the last minute because of a frame that it was not shown.
    pub fn was_moved_lately(&self, client: u64, now_ns: u64) -> bool {
        let withheld_ns = self.owed.get(client, now_ns).unwrap_or_default();
        withheld_ns != 0 && now_ns.saturating_sub(withheld_ns) < MOVED_LATELY_NS
    }

    /// Clients that are owed the end of the dialog, those not whose time is over.
    pub fn remembered(&self, now_ns: u64) -> usize {
        self.at_work.forget_old(now_ns);
        self.owed.forget_old(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_client_is_owed_for_ten_minutes() {
        let quiet = Quiet::default();
        quiet.owe(1, false, 0);
        assert!(quiet.owes(1, 599 * SECOND) && quiet.owes(1, 0), "also its second page");
        assert!(!quiet.owes(2, 0) && !quiet.owes(1, 600 * SECOND));
        assert_eq!((quiet.remembered(SECOND), quiet.remembered(600 * SECOND)), (1, 0));
    }

    #[test]
    fn only_a_withheld_frame_is_a_move() {
        let quiet = Quiet::default();
        quiet.owe(1, false, SECOND);
        assert!(!quiet.was_moved_lately(1, SECOND));
        quiet.owe(1, true, SECOND);
        quiet.owe(1, false, 2 * SECOND);
        assert!(quiet.was_moved_lately(1, 60 * SECOND) && !quiet.was_moved_lately(1, 61 * SECOND));
    }

    #[test]
    fn at_the_bound_everybody_is_owed() {
        let quiet = Quiet::default();
        for client in 1..=MOST_OWED as u64 {
            quiet.owe(client, false, SECOND);
        }
        assert!(!quiet.owes(0, SECOND), "as long as there is room each is told apart");
        quiet.owe(u64::MAX, false, SECOND);
        assert_eq!(quiet.remembered(SECOND), MOST_OWED);
        assert!(quiet.owes(0, 600 * SECOND), "a frame too many does less harm than one too few");
        assert!(!quiet.owes(0, 601 * SECOND));
    }
}
