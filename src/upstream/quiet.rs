//! Who is to see what becomes of a node, and who may have seen too much of it: shared by the data threads,
//! because a page that comes back may meet another one.
//!
//! Clients are known by what stands for their session, or else for their address: numbers, never 0.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// For so long after an administrator's work on the app that session's pages show its progress.
const WORK_NS: u64 = 60_000_000_000;
/// Administrators at work at once on one upstream; more are somebody's game.
pub const MOST_AT_WORK: usize = 256;
/// A page comes back after a second; in a background tab after a minute; after an outage once a node is up.
const OWED_NS: u64 = 600_000_000_000;
/// Clients that are remembered to be owed the end of a dialog. At this bound everybody is.
pub const MOST_OWED: usize = 16_384;
/// A client whose frame was withheld a shorter time ago has been moved for that already.
const MOVED_LATELY_NS: u64 = 60_000_000_000;

/// What is remembered for quiet restarts at one upstream.
#[derive(Debug, Default)]
pub struct Quiet {
    at_work: Remembered<()>,
    owed: Remembered<Withheld>,
    /// More clients were owed the end of a dialog than are remembered: until then everybody is.
    everybody_until_ns: AtomicU64,
}

/// That a client works, as long as no node has accepted it.
#[derive(Debug)]
pub struct Mark {
    client: u64,
    /// Until when it was remembered before; 0: it was not.
    before_ns: u64,
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

    /// Makes room, if need be, by forgetting whose time is over first.
    fn make_room(&self, client: u64, (most, now_ns): (usize, u64)) {
        let mut known = self.known.lock();
        if known.len() < most || known.contains_key(&client) {
            return;
        }
        known.retain(|_, (until_ns, _)| now_ns < *until_ns);
        if known.len() >= most
            && let Some(first) =
                known.iter().min_by_key(|(_, (until_ns, _))| *until_ns).map(|(client, _)| *client)
        {
            known.remove(&first);
        }
    }

    /// Until when it is remembered; 0 if it is not.
    fn until_ns(&self, client: u64) -> u64 {
        self.known.lock().get(&client).map_or(0, |(until_ns, _)| *until_ns)
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

impl Remembered<()> {
    fn put_back(&self, Mark { client, before_ns }: Mark) {
        let mut known = self.known.lock();
        match before_ns {
            0 => drop(known.remove(&client)),
            _ => drop(known.insert(client, (before_ns, ()))),
        }
        self.count.store(known.len(), Relaxed);
    }
}

impl Quiet {
    /// A client works on the app: its pages show what comes of that, from now on, because what comes of it may
    /// be said before the answer is. Returns what [`Quiet::did_not_work`] takes.
    pub fn works(&self, client: u64, now_ns: u64) -> Mark {
        let bound = (MOST_AT_WORK, now_ns);
        let before_ns = self.at_work.until_ns(client);
        // Whose answer is long there shows what there is to show by now.
        self.at_work.make_room(client, bound);
        let _ = self.at_work.put(client, now_ns + WORK_NS, (), bound);
        Mark { client, before_ns }
    }

    /// It was refused: what it says of itself is nobody's proof, and everybody else's pages are moved as ever.
    pub fn did_not_work(&self, mark: Mark) {
        self.at_work.put_back(mark);
    }

    /// Whether a client works on the app.
    pub fn is_at_work(&self, client: u64, now_ns: u64) -> bool {
        self.at_work.get(client, now_ns).is_some()
    }

    /// How many clients are remembered to work on the app.
    pub fn at_work(&self) -> usize {
        self.at_work.count.load(Relaxed)
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
    fn work_is_remembered_for_a_minute() {
        let quiet = Quiet::default();
        assert!(!quiet.is_at_work(1, 0));
        quiet.works(1, SECOND);
        assert!(quiet.is_at_work(1, 60 * SECOND) && !quiet.is_at_work(2, 60 * SECOND));
        assert!(!quiet.is_at_work(1, 61 * SECOND));
        for client in 0..MOST_AT_WORK as u64 + 10 {
            quiet.works(100 + client, 70 * SECOND);
        }
        let at_work = (100..).take(MOST_AT_WORK + 10).filter(|n| quiet.is_at_work(*n, 71 * SECOND));
        assert_eq!(at_work.count(), MOST_AT_WORK, "there is a bound");
        quiet.works(8, 72 * SECOND);
        quiet.works(9, 73 * SECOND);
        assert!(quiet.is_at_work(8, 74 * SECOND), "who was last stays");
        quiet.works(7, 200 * SECOND);
        assert!(quiet.is_at_work(7, 200 * SECOND), "time makes room");
    }

    #[test]
    fn what_was_refused_was_no_work() {
        let quiet = Quiet::default();
        let accepted = quiet.works(1, SECOND);
        let refused = [quiet.works(1, 30 * SECOND), quiet.works(2, 30 * SECOND)];
        refused.into_iter().for_each(|mark| quiet.did_not_work(mark));
        assert!(quiet.is_at_work(1, 60 * SECOND) && !quiet.is_at_work(1, 61 * SECOND));
        assert!(!quiet.is_at_work(2, 31 * SECOND));
        quiet.did_not_work(accepted);
        assert!(!quiet.is_at_work(1, 31 * SECOND));
    }

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
