//! What is held for clients while something is waited for, and who gives way when that is too much.
//!
//! Each deadline says how many bytes its task holds. A thread's holdings have a bound: the process's, divided by its
//! threads, so that nobody asks anybody. Where it is reached, those give way that have waited longest for their
//! clients: they are the ones that a slow attacker has made, and a client that means it is done in a moment. What
//! waits for a node is never cut; when there is nothing else, whoever comes is turned away.
//!
//! On the way of a request that waits for nobody these are a few plain numbers of the thread's own.

use std::cell::Cell;

use super::{Deadline, Entry, NEVER, Wheel};

/// When room is made, so much of the bound is made at once: to look for the oldest costs something.
const AT_ONCE: usize = 16;

/// What one thread holds.
#[derive(Default)]
pub(super) struct Ledger {
    held: Cell<usize>,
    /// 0: no bound.
    most: Cell<usize>,
    /// Waits that were cut short, until somebody asks.
    cut: Cell<usize>,
    /// Nobody was found who could give way; not looked for again before the next tick.
    futile: Cell<bool>,
}

/// What one task holds.
pub(super) struct Held {
    /// As long as its exchange lasts.
    base: Cell<usize>,
    /// Beside that, while it waits for its client.
    waiting: Cell<usize>,
    /// The same, by its socket itself.
    in_socket: Cell<usize>,
    /// Since when it does; never if it does not.
    since_ns: Cell<u64>,
    /// It has to give way.
    pub(super) cut: Cell<bool>,
}

impl Default for Held {
    fn default() -> Self {
        Held {
            base: Cell::new(0),
            waiting: Cell::new(0),
            in_socket: Cell::new(0),
            since_ns: Cell::new(NEVER),
            cut: Cell::new(false),
        }
    }
}

impl Held {
    fn total(&self) -> usize {
        self.base.get() + self.waiting.get() + self.in_socket.get()
    }
}

impl Ledger {
    /// Ends a wait that has to give way. Bytes that are free by that.
    fn cut_short(&self, wait: &Held) -> usize {
        let freed = wait.base.take() + wait.waiting.take() + wait.in_socket.take();
        self.held.set(self.held.get() - freed);
        self.cut.set(self.cut.get() + 1);
        wait.since_ns.set(NEVER);
        wait.cut.set(true);
        freed
    }
}

impl Wheel {
    /// Bounds what the thread may hold, in bytes; 0 is no bound. Said anew at each tick.
    pub fn bound_held(&self, most: usize) {
        self.0.ledger.futile.set(false);
        self.0.ledger.most.set(most);
    }

    /// Bytes that the thread holds.
    pub fn held(&self) -> usize {
        self.0.ledger.held.get()
    }

    /// How many waits were cut short since this was asked last.
    pub fn take_cut(&self) -> usize {
        self.0.ledger.cut.take()
    }

    /// Whether there is room for so many bytes more; makes it if need be, of others.
    fn has_room(&self, who: &Entry, more: usize) -> bool {
        let ledger = &self.0.ledger;
        let most = ledger.most.get();
        let fits = || most == 0 || ledger.held.get() + more <= most;
        fits()
            || !ledger.futile.get() && {
                self.make_room(who, more.max(most / AT_ONCE));
                fits()
            }
    }

    /// Cuts the longest waits until so many bytes are free, or none is left.
    fn make_room(&self, who: &Entry, bytes: usize) {
        let entries = self.0.entries.borrow();
        let waits = |entry: &&std::rc::Rc<Entry>| {
            let waits = entry.held.since_ns.get() != NEVER && entry.held.total() > 0;
            waits && !std::ptr::eq(&raw const ***entry, who)
        };
        let mut waiting: Vec<_> = entries.iter().flatten().filter(waits).collect();
        waiting.sort_unstable_by_key(|entry| entry.held.since_ns.get());
        let ledger = &self.0.ledger;
        let mut freed = 0;
        ledger.futile.set(waiting.is_empty());
        for entry in waiting {
            if freed >= bytes {
                break;
            }
            freed += ledger.cut_short(&entry.held);
            entry.wake();
        }
    }
}

impl Deadline {
    /// Holds so many bytes from now on, beside what is held while a client is waited for. False: there is no
    /// room, and nothing has changed.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> bool {
        let held = &self.entry.held;
        let has = held.base.get();
        if bytes > has && !self.wheel.has_room(&self.entry, bytes - has) {
            return false;
        }
        held.base.set(bytes);
        self.account(bytes, has);
        true
    }

    /// The same, whether there is room or not: for what a node is waited for, which is never cut. Others may
    /// have to give way.
    pub fn hold_anyway(&self, bytes: usize) {
        if !self.hold(bytes) {
            self.account(bytes, self.entry.held.base.replace(bytes));
        }
    }

    /// Holds nothing any more, and does not have to give way.
    pub fn release(&self) -> usize {
        let held = &self.entry.held;
        let base = held.base.take();
        self.account(0, base + held.waiting.take() + held.in_socket.take());
        held.since_ns.set(NEVER);
        held.cut.set(false);
        base
    }

    /// Holds so many bytes while a client is waited for, from now on or since it was said before. False: there
    /// is no room, and nothing has changed.
    #[must_use]
    pub fn wait_holding(&self, bytes: usize) -> bool {
        let has = self.entry.held.waiting.get();
        let fits = bytes <= has || self.wheel.has_room(&self.entry, bytes - has);
        if fits {
            self.wait_holding_anyway(bytes);
        }
        fits
    }

    /// The same, whether there is room or not: for an answer that has begun. It is the next to give way, so the
    /// bound is exceeded by one of them at most.
    pub fn wait_holding_anyway(&self, bytes: usize) {
        let held = &self.entry.held;
        self.account(bytes, held.waiting.replace(bytes));
        held.since_ns.set(held.since_ns.get().min(self.wheel.0.now_ns.get()));
        self.wheel.0.ledger.futile.set(false);
    }

    /// The client is not waited for any more. If it should have given way, it was faster: what follows waits for
    /// others, and is not cut for that.
    pub fn end_wait(&self) {
        let held = &self.entry.held;
        self.account(0, held.waiting.take() + held.in_socket.take());
        held.since_ns.set(NEVER);
        held.cut.set(false);
    }

    /// Says what the socket itself holds while a client is waited for, beside all else: as often as it is looked at,
    /// and 0 if it is nothing. Where there is no room for it, it has to give way itself.
    pub fn wait_in_socket(&self, bytes: usize) {
        let held = &self.entry.held;
        let has = held.in_socket.get();
        if bytes == has || held.cut.get() {
            return;
        }
        if bytes > has && !self.wheel.has_room(&self.entry, bytes - has) {
            self.wheel.0.ledger.cut_short(held);
        } else if bytes == 0 && held.waiting.get() == 0 {
            self.end_wait();
        } else {
            held.in_socket.set(bytes);
            self.account(bytes, has);
            held.since_ns.set(held.since_ns.get().min(self.wheel.0.now_ns.get()));
            self.wheel.0.ledger.futile.set(false);
        }
    }

    /// Counts it among those that were cut: there is no room for what it holds already. Always false, as what
    /// has no room is told.
    pub fn give_way(&self) -> bool {
        let ledger = &self.wheel.0.ledger;
        ledger.cut.set(ledger.cut.get() + 1);
        false
    }

    /// Whether it had to give way.
    pub fn is_cut(&self) -> bool {
        self.entry.held.cut.get()
    }

    fn account(&self, bytes: usize, before: usize) {
        let ledger = &self.wheel.0.ledger;
        ledger.held.set(ledger.held.get() + bytes - before);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::*;

    fn is_over(deadline: &Deadline) -> bool {
        deadline.poll(&Context::from_waker(Waker::noop())).is_ready()
    }

    fn wheel(most: usize) -> Wheel {
        let wheel = Wheel::default();
        wheel.set_now(1);
        wheel.bound_held(most);
        wheel
    }

    #[test]
    fn who_has_waited_longest_gives_way() {
        let wheel = wheel(1600);
        let all: Vec<_> = (0..16).map(|_| wheel.deadline()).collect();
        for (at, deadline) in all.iter().enumerate() {
            // The second has waited longest.
            wheel.set_now(if at == 1 { 5 } else { 10 + at as u64 });
            assert!(deadline.wait_holding(100));
        }
        assert_eq!(wheel.held(), 1600);
        let late = wheel.deadline();
        assert!(late.wait_holding(150));
        assert_eq!((wheel.held(), wheel.take_cut(), wheel.take_cut()), (1550, 2, 0));
        let over: Vec<usize> = (0..16).filter(|at| is_over(&all[*at])).collect();
        assert_eq!(over, [0, 1]);
        assert!(all[1].is_cut() && !all[2].is_cut() && !is_over(&late));
        // A deadline that is set anew does not bring it back, before it has let go.
        all[0].set_at(NEVER);
        assert!(is_over(&all[0]));
        all[0].release();
        assert!(!is_over(&all[0]) && !all[0].is_cut());
    }

    #[test]
    fn what_does_not_wait_for_a_client_stays_and_whoever_comes_is_turned_away() {
        let wheel = wheel(1000);
        let (a, b, c) = (wheel.deadline(), wheel.deadline(), wheel.deadline());
        assert!(a.hold(600) && b.hold(400));
        assert!(!c.hold(1) && !c.wait_holding(1));
        assert_eq!(wheel.held(), 1000);
        assert!(a.hold(500) && c.hold(100), "less is always possible");
        assert!(!b.hold(401) && wheel.held() == 1000);
        drop(a);
        assert!(b.hold(900) && wheel.held() == 1000);
        assert_eq!(b.release(), 900);
        assert_eq!(wheel.held(), 100);
    }

    #[test]
    fn a_wait_within_an_exchange_ends_all_of_it() {
        let wheel = wheel(1000);
        let (a, b) = (wheel.deadline(), wheel.deadline());
        assert!(a.hold(300) && a.wait_holding(500));
        assert_eq!(wheel.held(), 800);
        assert!(b.hold(300));
        assert_eq!((wheel.held(), a.is_cut()), (300, true));
        a.release();
        assert_eq!((a.is_cut(), wheel.held()), (false, 300));
    }

    #[test]
    fn who_was_faster_than_the_cut_is_not_cut_in_what_follows() {
        let wheel = wheel(1000);
        let (a, b) = (wheel.deadline(), wheel.deadline());
        assert!(a.hold(300) && a.wait_holding(500) && b.hold(300) && is_over(&a));
        a.end_wait();
        assert!(!a.is_cut() && !is_over(&a), "it waits for a node now");
    }

    #[test]
    fn what_a_node_has_begun_goes_over_the_bound_and_gives_way_first() {
        let wheel = wheel(1000);
        let (a, b, c) = (wheel.deadline(), wheel.deadline(), wheel.deadline());
        assert!(a.hold(600) && b.hold(400) && !a.wait_holding(300));
        a.wait_holding_anyway(300);
        assert_eq!((wheel.held(), a.is_cut()), (1300, false));
        b.hold_anyway(500);
        assert_eq!((wheel.held(), a.is_cut()), (500, true), "it had waited");
        c.hold_anyway(600);
        assert_eq!(wheel.held(), 1100);
    }

    #[test]
    fn a_wait_that_goes_on_keeps_its_age() {
        let wheel = wheel(1000);
        let (a, b, c) = (wheel.deadline(), wheel.deadline(), wheel.deadline());
        assert!(a.wait_holding(100));
        wheel.set_now(2);
        assert!(b.wait_holding(800));
        wheel.set_now(3);
        assert!(a.wait_holding(150), "it trickles");
        assert!(c.hold(60));
        assert!(a.is_cut() && !b.is_cut());
    }

    #[test]
    fn what_a_socket_holds_is_beside_all_else_and_gives_way_itself() {
        let wheel = wheel(1000);
        let (a, b) = (wheel.deadline(), wheel.deadline());
        a.wait_in_socket(300);
        assert!(a.hold(100) && a.wait_holding(200));
        assert_eq!(wheel.held(), 600);
        a.wait_in_socket(0);
        a.end_wait();
        wheel.set_now(2);
        b.wait_in_socket(500);
        assert_eq!((wheel.held(), b.is_cut()), (600, false));
        // It grows, and there is nobody but itself.
        b.wait_in_socket(950);
        assert_eq!((wheel.held(), is_over(&b), wheel.take_cut()), (100, true, 1));
        b.wait_in_socket(950);
        assert_eq!(wheel.held(), 100, "who is cut holds nothing more");
        b.release();
        b.wait_in_socket(400);
        assert!(a.hold(700) && b.is_cut(), "others need it");
    }

    #[test]
    fn a_socket_that_has_let_go_is_no_wait_any_more() {
        let wheel = wheel(1000);
        let (a, b) = (wheel.deadline(), wheel.deadline());
        a.wait_in_socket(300);
        a.wait_in_socket(0);
        assert!(a.hold(600) && !b.hold(500) && !a.is_cut());
    }

    #[test]
    fn without_a_bound_nobody_gives_way() {
        let wheel = wheel(0);
        let all: Vec<_> = (0..100).map(|_| wheel.deadline()).collect();
        assert!(all.iter().all(|one| one.hold(usize::MAX / 400) && one.wait_holding(1)));
    }

    proptest! {
        #[test]
        fn the_sum_is_always_right_and_within_the_bound(
            steps in proptest::collection::vec((0usize..6, 0u8..6, 0usize..400), 1..120),
        ) {
            let wheel = wheel(1000);
            let all: Vec<_> = (0..6).map(|_| wheel.deadline()).collect();
            for (now, (which, what, bytes)) in steps.into_iter().enumerate() {
                wheel.set_now(now as u64 + 2);
                let one = &all[which];
                match what {
                    0 => drop(one.hold(bytes)),
                    1 | 2 => drop(one.wait_holding(bytes)),
                    3 => one.end_wait(),
                    4 => one.wait_in_socket(bytes),
                    _ => drop(one.release()),
                }
                let sum: usize = all.iter().map(|one| one.entry.held.total()).sum();
                prop_assert_eq!(wheel.held(), sum);
                prop_assert!(sum <= 1000);
            }
            drop(all);
            prop_assert_eq!(wheel.held(), 0);
        }
    }
}
