//! What a connection of HTTP/2 and its streams share.

use std::cell::{Cell, RefCell};

use std::rc::Rc;

use crate::connection::{Admitted, Open};
use crate::exchange::Deadlines;
use crate::exchange::thread::Thread;
use crate::http2::gate::Gate;
use crate::net::Peer;

/// Deadlines that a connection keeps for its next streams.
const KEPT_DEADLINES: usize = 8;

/// What a connection and its streams share. Lives as long as any of them.
pub(super) struct Shared {
    pub(super) thread: Rc<Thread>,
    pub(super) peer: Peer,
    pub(super) certificate: Box<[u8]>,
    pub(super) encrypted: bool,
    pub(super) gate: Rc<Gate>,
    pub(super) streams: Cell<usize>,
    /// Of streams that have ended, for the next.
    pub(super) deadlines: RefCell<Vec<Deadlines>>,
    /// It counts among those with wide windows.
    pub(super) wide: Cell<bool>,
    pub(super) _admitted: Admitted,
    pub(super) _open: Open,
}

impl Shared {
    pub(super) fn deadlines(&self) -> Deadlines {
        let kept = self.deadlines.borrow_mut().pop();
        let new = || self.thread.wheel.deadline();
        kept.unwrap_or_else(|| Deadlines { up: new(), down: new() })
    }

    pub(super) fn keep(&self, deadlines: Deadlines) {
        deadlines.up.clear();
        deadlines.down.clear();
        let mut kept = self.deadlines.borrow_mut();
        if kept.len() < KEPT_DEADLINES {
            kept.push(deadlines);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.wide.get() {
            self.thread.wide.set(self.thread.wide.get() - 1);
        }
    }
}

/// A stream's share.
pub(super) struct Place(pub(super) Rc<Shared>);

impl Place {
    pub(super) fn new(shared: &Rc<Shared>) -> Place {
        shared.streams.set(shared.streams.get() + 1);
        Place(shared.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        if left == 0 {
            // Its task must know that the last one has ended.
            self.0.gate.wake_driver();
        }
    }
}
