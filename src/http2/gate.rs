//! How much of all streams' data waits for one connection: the windows are the client's to open, so that
//! without a bound of our own each stream could fill a buffer that a client never empties.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Bytes of data of one connection that wait for the kernel. Twice what is written at once: one part is
/// sealed and sent while the other gathers.
pub const MAX_QUEUED: usize = 256 * 1024;

/// Shared by a connection and its streams.
#[derive(Debug, Default)]
pub struct Gate {
    queued: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    /// Bytes of requests' bodies that were taken from their streams.
    taken: Cell<u64>,
    /// Pieces that streams have sent since it was asked last.
    pieces: Cell<u32>,
    /// Streams whose answers were sent whole since it was asked last.
    completed: Cell<u32>,
}

impl Gate {
    /// How much more may be queued.
    pub fn room(&self) -> usize {
        MAX_QUEUED.saturating_sub(self.queued.get())
    }

    /// Ready when there is room.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.room() > 0 {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A stream has given so much to the library.
    pub fn queue(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
        self.pieces.set(self.pieces.get().saturating_add(1));
    }

    /// So much of a request's body was taken.
    pub fn take(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
    }

    /// Bytes of requests' bodies that were taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// A stream's answer is complete.
    pub fn complete(&self) {
        self.completed.set(self.completed.get().saturating_add(1));
    }

    /// So much has come to the kernel. `all`: nothing is left, whatever was reset on its way.
    pub fn written(&self, bytes: usize, all: bool) {
        let left = if all { 0 } else { self.queued.get().saturating_sub(bytes) };
        self.queued.set(left);
        if left < MAX_QUEUED && !self.waiting.borrow().is_empty() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Pieces sent and answers completed since it was asked last.
    pub fn take_progress(&self) -> (u32, u32) {
        (self.pieces.take(), self.completed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_when_it_is_full_and_opens_again() {
        let gate = Gate::default();
        let cx = Context::from_waker(Waker::noop());
        gate.queue(MAX_QUEUED - 1);
        assert!(gate.poll_room(&cx).is_ready());
        gate.queue(10);
        assert!(gate.poll_room(&cx).is_pending() && gate.room() == 0);
        gate.written(5, false);
        assert!(gate.poll_room(&cx).is_pending());
        gate.written(0, true);
        assert!(gate.poll_room(&cx).is_ready() && gate.room() == MAX_QUEUED);
        assert_eq!((gate.take_progress(), gate.take_progress()), ((2, 0), (0, 0)));
    }
}
