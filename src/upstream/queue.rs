//! Exchanges that wait while all nodes are at `max_requests`: one queue for all data threads.
//!
//! A queue for each would serve whoever came to the thread that happens to hold the node, again and again: its
//! own next one takes what has become free before another thread can look. Only upstreams whose nodes have
//! limits come here, and the lock is taken only while somebody waits.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::line::Line;

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<Line>,
    /// Its length. Whoever enters sets this and then looks whether a node is free; whoever frees one looks
    /// at this afterwards: in one order for all threads, so that one of the two sees the other.
    len: AtomicUsize,
}

/// A place in the queue; dropping it leaves, and lets whoever is first then look.
#[derive(Debug)]
pub struct Place<'a> {
    queue: &'a Queue,
    number: u64,
    wakes_next: bool,
}

impl Queue {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len.load(SeqCst) == 0
    }

    /// A place at the end, for what is safe to repeat or not; none when so many wait already.
    #[must_use]
    pub fn enter(&self, safe_to_repeat: bool, limit: usize) -> Option<Place<'_>> {
        let mut line = self.line.lock();
        if line.len() >= limit {
            return None;
        }
        let number = line.enter(safe_to_repeat);
        self.len.store(line.len(), SeqCst);
        Some(Place { queue: self, number, wakes_next: true })
    }

    /// Lets the first look again, at whatever thread it is.
    pub fn wake_first(&self) {
        if self.is_empty() {
            return;
        }
        let mut first = None;
        self.line.lock().give(1, false, |waker| first = Some(waker));
        // Without the lock: it may take a system call.
        if let Some(first) = first {
            first.wake();
        }
    }
}

impl Place<'_> {
    /// Ready when it is this place's turn to look again.
    pub fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        self.queue.line.lock().poll_turn(self.number, cx)
    }

    /// Lets somebody behind it look who has not yet: what is none for this one may be one for others.
    pub fn pass_on(&self) {
        let next = self.queue.line.lock().pass_on(self.number);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Leaves with a node, and without a turn for anybody else.
    pub fn leave(mut self) {
        self.wakes_next = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock();
        line.leave(self.number);
        self.queue.len.store(line.len(), SeqCst);
        drop(line);
        if self.wakes_next {
            self.queue.wake_first();
        }
    }
}

#[cfg(test)]
mod tests;
