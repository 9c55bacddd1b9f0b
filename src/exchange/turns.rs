//! Exchanges of one data thread that wait in line, first come, first served: in the queue while all eligible
//! nodes are full, and parked while none is eligible.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Places that are asked in vain between two calls of [`Turns::wake`]: a line may be thousands long, and
/// none of them may have a use for the turn. The next search goes on where this one ended.
const SEARCHED: usize = 32;

/// The search has come to the end of the line.
const END: u64 = u64::MAX;

/// What it means for the others that somebody leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Whoever is first now may find a node free as well.
    WakesNext,
    /// Nothing: turns are given out at a pace, and one that left must not start all the others.
    WakesNobody,
}

/// The line.
pub struct Turns {
    leaving: Leaving,
    limit: Cell<usize>,
    /// In the order of their numbers.
    waiting: RefCell<VecDeque<Rc<Waiting>>>,
    /// How many have ever entered.
    entered: Cell<u64>,
    /// How many more may be asked in this search.
    searches: Cell<usize>,
    /// The search has come so far: to the place of this number.
    searched: Cell<u64>,
}

struct Waiting {
    number: u64,
    safe_to_repeat: bool,
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A place in the line; dropping it leaves.
pub struct Place<'a> {
    turns: &'a Turns,
    waiting: Rc<Waiting>,
}

impl Turns {
    /// An empty one without a limit.
    pub fn new(leaving: Leaving) -> Turns {
        Turns {
            leaving,
            limit: Cell::new(usize::MAX),
            waiting: RefCell::default(),
            entered: Cell::new(0),
            searches: Cell::new(0),
            searched: Cell::new(0),
        }
    }

    /// How many may wait; who waits already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// A place at the end, for what is safe to repeat or not; none when it is full.
    pub fn enter(&self, safe_to_repeat: bool) -> Option<Place<'_>> {
        let mut all = self.waiting.borrow_mut();
        if all.len() >= self.limit.get() {
            return None;
        }
        let number = self.entered.get() + 1;
        self.entered.set(number);
        let (woken, waker) = (Cell::new(false), RefCell::default());
        let waiting = Rc::new(Waiting { number, safe_to_repeat, woken, waker });
        all.push_back(waiting.clone());
        Some(Place { turns: self, waiting })
    }

    /// Lets the first look again.
    pub fn wake_first(&self) {
        self.wake(1);
    }

    /// Lets the first so many look again, in their order.
    pub fn wake(&self, many: usize) {
        self.give(many, |_| true);
    }

    /// Lets the first so many of those look again that are safe to repeat.
    pub fn wake_safe(&self, many: usize) {
        self.give(many, |waiting| waiting.safe_to_repeat);
    }

    fn give(&self, many: usize, to: impl Fn(&Waiting) -> bool) {
        let all = self.waiting.borrow();
        let mut last = 0;
        for waiting in all.iter().filter(|waiting| to(waiting)).take(many) {
            waiting.wake();
            last = waiting.number;
        }
        self.searches.set(SEARCHED);
        let before = self.searched.get();
        self.searched.set(last.max(if before == END { 0 } else { before }));
    }
}

impl Waiting {
    fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Place<'_> {
    /// Ready when it is this place's turn to look again.
    pub fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        if self.waiting.woken.replace(false) {
            return Poll::Ready(());
        }
        *self.waiting.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Lets somebody behind it look who has not yet: what is none for this one may be one for others.
    pub fn pass_on(&self) {
        let turns = self.turns;
        let Some(left) = turns.searches.get().checked_sub(1) else { return };
        turns.searches.set(left);
        let all = turns.waiting.borrow();
        let after = turns.searched.get().max(self.waiting.number);
        let next = all.get(all.partition_point(|waiting| waiting.number <= after));
        turns.searched.set(next.map_or(END, |next| next.number));
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut all = self.turns.waiting.borrow_mut();
        if let Ok(own) = all.binary_search_by_key(&self.waiting.number, |waiting| waiting.number) {
            all.remove(own);
        }
        drop(all);
        if self.turns.leaving == Leaving::WakesNext {
            self.turns.wake_first();
        }
    }
}

#[cfg(test)]
mod tests;
