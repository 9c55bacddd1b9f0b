//! Exchanges of one data thread that wait in line, first come, first served: in the queue while all eligible
//! nodes are full, and parked while none is eligible.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

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
    waiting: RefCell<VecDeque<Rc<Waiting>>>,
}

#[derive(Default)]
struct Waiting {
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
    pub fn new(leaving: Leaving) -> Rc<Turns> {
        let limit = Cell::new(usize::MAX);
        Rc::new(Turns { leaving, limit, waiting: RefCell::default() })
    }

    /// How many may wait; who waits already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// A place at the end; none when it is full.
    pub fn enter(&self) -> Option<Place<'_>> {
        let mut all = self.waiting.borrow_mut();
        if all.len() >= self.limit.get() {
            return None;
        }
        let waiting = Rc::<Waiting>::default();
        all.push_back(waiting.clone());
        Some(Place { turns: self, waiting })
    }

    /// Lets the first look again.
    pub fn wake_first(&self) {
        self.wake(1);
    }

    /// Lets the first so many look again, in their order.
    pub fn wake(&self, many: usize) {
        self.waiting.borrow().iter().take(many).for_each(|waiting| waiting.wake());
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

    /// Lets the next in line look: what is none for this one may be one for others.
    pub fn pass_on(&self) {
        let all = self.turns.waiting.borrow();
        let own = all.iter().position(|other| Rc::ptr_eq(other, &self.waiting));
        if let Some(next) = own.and_then(|own| all.get(own + 1)) {
            next.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiting));
        if self.turns.leaving == Leaving::WakesNext {
            self.turns.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ready(place: &Place<'_>) -> bool {
        place.poll_turn(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_line_is_bounded_and_in_order() {
        let turns = Turns::new(Leaving::WakesNext);
        turns.set_limit(2);
        let (first, second) = (turns.enter().unwrap(), turns.enter().unwrap());
        assert!(turns.enter().is_none());
        turns.wake_first();
        assert!(is_ready(&first) && !is_ready(&second));
        drop(first);
        assert!(is_ready(&second), "the next one is woken when the first leaves");
        drop(second);
        assert!(turns.is_empty());
    }

    #[test]
    fn turns_are_given_out_so_many_at_a_time() {
        let turns = Turns::new(Leaving::WakesNobody);
        let mut places: Vec<Place<'_>> = (0..5).map(|_| turns.enter().unwrap()).collect();
        turns.wake(2);
        let ready: Vec<bool> = places.iter().map(is_ready).collect();
        assert_eq!(ready, [true, true, false, false, false]);
        places.drain(..2);
        assert!(!places.iter().any(is_ready), "nobody has a turn because others left");
        // A turn that is of no use to one is the next one's.
        turns.wake_first();
        assert!(is_ready(&places[0]));
        places[0].pass_on();
        assert!(is_ready(&places[1]) && !is_ready(&places[2]));
        places.clear();
        assert!(turns.is_empty());
    }
}
