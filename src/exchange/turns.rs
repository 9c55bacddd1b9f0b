//! What is parked on one data thread, in line: turns are given out at a pace, and one that leaves gives nobody
//! another.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use crate::upstream::line::Line;

/// The line.
#[derive(Default)]
pub struct Turns(RefCell<Line>);

/// A place in the line; dropping it leaves.
pub struct Place<'a> {
    line: &'a RefCell<Line>,
    number: u64,
}

impl Turns {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// A place at the end, for what is safe to repeat or not.
    pub fn enter(&self, safe_to_repeat: bool) -> Place<'_> {
        let number = self.0.borrow_mut().enter(safe_to_repeat);
        Place { line: &self.0, number }
    }

    /// Lets the first so many look again, in their order.
    pub fn wake(&self, many: usize) {
        self.0.borrow_mut().give(many, false, Waker::wake);
    }

    /// Lets the first so many of those look again that are safe to repeat.
    pub fn wake_safe(&self, many: usize) {
        self.0.borrow_mut().give(many, true, Waker::wake);
    }
}

impl Place<'_> {
    /// Ready when it is this place's turn to look again.
    pub fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        self.line.borrow_mut().poll_turn(self.number, cx)
    }

    /// Lets somebody behind it look who has not yet: what is none for this one may be one for others.
    pub fn pass_on(&self) {
        let next = self.line.borrow_mut().pass_on(self.number);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.borrow_mut().leave(self.number);
    }
}

#[cfg(test)]
mod tests;
