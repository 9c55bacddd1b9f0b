//! Deadlines without a timer each: one coarse wheel per data thread.
//!
//! Setting a deadline is one store. A tick every [`TICK`] looks at all of them and wakes the tasks whose
//! time has come, so a deadline is late by a tick at most. None is early, unless its thread has stood still
//! for longer than a tick and the deadline is set before the next: it is early by what exceeds the tick then.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock;

mod holding;

use holding::{Held, Ledger};

/// How coarse the wheel is. The shortest deadline in use is a second or so; a tick costs about 2 ns for
/// each connection.
pub const TICK: Duration = Duration::from_millis(50);

/// Never.
const NEVER: u64 = u64::MAX;

/// The deadlines of one data thread.
#[derive(Clone, Default)]
pub struct Wheel(Rc<Inner>);

#[derive(Default)]
struct Inner {
    /// Time as of the last tick or look at the clock. All deadlines are measured by it, so that none asks the kernel.
    now_ns: Cell<u64>,
    entries: RefCell<Vec<Option<Rc<Entry>>>>,
    free: RefCell<Vec<usize>>,
    ledger: Ledger,
}

struct Entry {
    at_ns: Cell<u64>,
    /// How long the wait may still last once everything is to end; `u64::MAX`: as long as it likes.
    grace_ns: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    held: Held,
}

/// One task's deadline. Dropping it takes it off the wheel.
pub struct Deadline {
    entry: Rc<Entry>,
    slot: usize,
    wheel: Wheel,
}

/// A deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

impl Wheel {
    /// A deadline that is not set.
    pub fn deadline(&self) -> Deadline {
        let entry = Entry {
            at_ns: Cell::new(NEVER),
            grace_ns: Cell::new(NEVER),
            waker: RefCell::default(),
            held: Held::default(),
        };
        let entry = Rc::new(entry);
        let mut entries = self.0.entries.borrow_mut();
        let slot = self.0.free.borrow_mut().pop().unwrap_or_else(|| {
            entries.push(None);
            entries.len() - 1
        });
        entries[slot] = Some(entry.clone());
        Deadline { entry, slot, wheel: self.clone() }
    }

    /// Tells the time between two ticks, if somebody has looked.
    pub fn set_now(&self, now_ns: u64) {
        self.0.now_ns.set(now_ns);
    }

    /// Wakes the tasks whose time has come.
    pub fn tick(&self) {
        let now = clock::now_ns();
        self.0.now_ns.set(now);
        for entry in self.0.entries.borrow().iter().flatten() {
            if entry.at_ns.get() <= now {
                entry.wake();
            }
        }
    }

    /// Makes all tasks look again: something has changed that concerns all of them.
    pub fn wake_all(&self) {
        self.0.entries.borrow().iter().flatten().for_each(|entry| entry.wake());
    }

    /// Everything is to end: each wait that has a grace lasts no longer than that.
    pub fn end_waits(&self) {
        let now = clock::now_ns();
        for entry in self.0.entries.borrow().iter().flatten() {
            if entry.grace_ns.get() != NEVER {
                entry.at_ns.set(entry.at_ns.get().min(now + entry.grace_ns.get()));
                entry.wake();
            }
        }
    }
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Deadline {
    /// So long from now; zero is never. A tick more, because the wheel's time may be as old as that.
    pub fn set(&self, after: Duration) {
        let after_ns = clock::nanos(after).saturating_add(clock::nanos(TICK));
        let at = self.wheel.0.now_ns.get().saturating_add(after_ns);
        self.entry.at_ns.set(if after.is_zero() { NEVER } else { at });
    }

    /// At this point of [`clock::now_ns`]'s time.
    pub fn set_at(&self, at_ns: u64) {
        self.entry.at_ns.set(at_ns);
    }

    /// The wheel's time.
    pub fn now_ns(&self) -> u64 {
        self.wheel.0.now_ns.get()
    }

    /// Makes the task look again, after somebody else changed the deadline.
    pub fn wake(&self) {
        self.entry.wake();
    }

    /// Never.
    pub fn clear(&self) {
        self.entry.at_ns.set(NEVER);
    }

    /// How long the wait may still last after [`Wheel::end_waits`]; `None`: as long as it likes.
    pub fn set_grace(&self, grace: Option<Duration>) {
        self.entry.grace_ns.set(grace.map_or(NEVER, clock::nanos));
    }

    /// Ready once the time has come. Only the newest waker is kept: a deadline belongs to one task.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Expired> {
        let at = self.entry.at_ns.get();
        if at <= self.wheel.0.now_ns.get() || self.is_cut() {
            return Poll::Ready(Expired);
        }
        let mut waker = self.entry.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `work` until it ends or the deadline comes.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Expired> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| self.poll_guarded(work.as_mut(), cx)).await
    }

    fn poll_guarded<F: Future>(
        &self,
        work: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Expired>> {
        match work.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(Err),
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.release();
        self.wheel.0.entries.borrow_mut()[self.slot] = None;
        self.wheel.0.free.borrow_mut().push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll_once(deadline: &Deadline) -> Poll<Expired> {
        deadline.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn comes_when_its_time_has_come_and_slots_are_reused() {
        let wheel = Wheel::default();
        wheel.tick();
        let deadline = wheel.deadline();
        assert!(poll_once(&deadline).is_pending());
        deadline.set(Duration::from_secs(3600));
        assert!(poll_once(&deadline).is_pending());
        deadline.set_at(1);
        assert!(poll_once(&deadline).is_ready());
        drop(deadline);
        let _again = wheel.deadline();
        assert_eq!(wheel.0.entries.borrow().len(), 1);
    }

    #[test]
    fn only_waits_with_a_grace_are_ended() {
        let wheel = Wheel::default();
        wheel.tick();
        let (idle, first, busy) = (wheel.deadline(), wheel.deadline(), wheel.deadline());
        idle.set_grace(Some(Duration::ZERO));
        first.set_grace(Some(Duration::from_secs(3600)));
        wheel.end_waits();
        wheel.tick();
        assert!(poll_once(&idle).is_ready());
        assert!(poll_once(&first).is_pending() && first.entry.at_ns.get() < NEVER);
        assert!(poll_once(&busy).is_pending() && busy.entry.at_ns.get() == NEVER);
    }
}
