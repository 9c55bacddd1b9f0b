//! How much of all streams' data waits for one connection: the windows are the client's to open, so that
//! without a bound of our own each stream could fill a buffer that a client never empties.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::source::Source;

/// Bytes of data of one connection that the library has and has not framed. Several times what is written at
/// once: some parts are sealed and sent while others gather.
pub const MAX_QUEUED: usize = 256 * 1024;

/// Shared by a connection and its streams.
#[derive(Debug, Default)]
pub struct Gate {
    /// What the library has. Atomic only because whatever owns shared bytes may have to cross threads.
    queued: Arc<AtomicUsize>,
    waiting: RefCell<Vec<Waker>>,
    /// Of the task that runs the connection.
    driver: RefCell<Option<Waker>>,
    /// That task has said that something is held, and must hear when that changes.
    told: Cell<bool>,
    /// Of bodies that may still come.
    bodies: RefCell<Vec<Rc<RefCell<Source>>>>,
    /// Bytes of requests' bodies that were taken from their streams.
    taken: Cell<u64>,
    /// Since it was asked last.
    progress: Cell<Progress>,
    /// Streams that were over before they had ended, since it was asked last.
    unended: Cell<usize>,
}

/// What streams have sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pieces of data.
    pub pieces: u32,
    /// Bytes of these.
    pub bytes: u64,
    /// Streams whose answers were sent whole.
    pub completed: u32,
}

/// Data that counts for as long as the library has it, whether it is sent or its stream is reset.
struct Piece {
    data: Vec<u8>,
    queued: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.data.len(), Relaxed);
    }
}

impl Gate {
    /// Bytes that the library has.
    pub fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    /// How much more may be queued.
    pub fn room(&self) -> usize {
        MAX_QUEUED.saturating_sub(self.queued())
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

    /// Data that a stream gives to the library.
    pub fn piece(&self, data: Vec<u8>) -> Bytes {
        let Progress { pieces, bytes, completed } = self.progress.get();
        let (pieces, bytes) = (pieces.saturating_add(1), bytes + data.len() as u64);
        self.progress.set(Progress { pieces, bytes, completed });
        self.queued.fetch_add(data.len(), Relaxed);
        self.tell();
        Bytes::from_owner(Piece { data, queued: self.queued.clone() })
    }

    /// Lets those go on that wait, if there is room again.
    pub fn open(&self) {
        if self.room() > 0 && !self.waiting.borrow().is_empty() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whoever runs the connection: who is to be woken.
    pub fn keep_driver(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
    }

    /// Makes it look again.
    pub fn wake_driver(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }

    /// It has counted what is held, and whether that is anything.
    pub fn count(&self, anything: bool) {
        self.told.set(anything);
    }

    /// The library does not wake it for data behind data that waits, nor for a little that was taken.
    fn tell(&self) {
        if self.told.get() {
            self.wake_driver();
        }
    }

    /// A body may come with this stream.
    pub fn expect_body(&self, source: &Rc<RefCell<Source>>) {
        self.bodies.borrow_mut().push(source.clone());
    }

    /// Whatever still comes of it is thrown away.
    pub fn forget_body(&self, source: &Rc<RefCell<Source>>) {
        self.bodies.borrow_mut().retain(|other| !Rc::ptr_eq(other, source));
        self.tell();
    }

    /// Bytes of bodies that have come and that nobody has taken.
    pub fn untaken(&self) -> usize {
        self.bodies.borrow().iter().map(|source| source.borrow_mut().untaken()).sum()
    }

    /// Puts them together, stream by stream.
    pub fn gather(&self) {
        self.bodies.borrow().iter().for_each(|source| source.borrow_mut().gather());
    }

    /// So much of a request's body was taken.
    pub fn take(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
        self.tell();
    }

    /// Bytes of requests' bodies that were taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// A stream's answer is complete.
    pub fn complete(&self) {
        let progress = self.progress.get();
        let completed = progress.completed.saturating_add(1);
        self.progress.set(Progress { completed, ..progress });
    }

    /// A stream is over, and has not ended both ways: the library remembers it.
    pub fn leave_unended(&self) {
        self.unended.set(self.unended.get() + 1);
        self.wake_driver();
    }

    /// How many of them there were since it was asked last.
    pub fn take_unended(&self) -> usize {
        self.unended.take()
    }

    /// What was sent since it was asked last.
    pub fn take_progress(&self) -> Progress {
        self.progress.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_when_it_is_full_and_opens_again() {
        let gate = Gate::default();
        let cx = Context::from_waker(Waker::noop());
        let large = gate.piece(vec![0; MAX_QUEUED - 1]);
        assert!(gate.poll_room(&cx).is_ready());
        let mut small = gate.piece(vec![0; 10]);
        assert!(gate.poll_room(&cx).is_pending() && gate.room() == 0);
        bytes::Buf::advance(&mut small, 10);
        gate.open();
        assert!(gate.poll_room(&cx).is_pending() && gate.queued() == MAX_QUEUED + 9);
        drop(large);
        assert!(gate.poll_room(&cx).is_ready() && gate.room() == MAX_QUEUED - 10);
        drop(small);
        assert_eq!(gate.queued(), 0);
        gate.complete();
        let sent = Progress { pieces: 2, bytes: MAX_QUEUED as u64 + 9, completed: 1 };
        assert_eq!((gate.take_progress(), gate.take_progress()), (sent, Progress::default()));
    }

    #[test]
    fn whoever_has_counted_something_hears_of_what_changes() {
        let woken = Arc::new(AtomicUsize::new(0));
        struct Wakes(Arc<AtomicUsize>);
        impl std::task::Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let waker = Waker::from(Arc::new(Wakes(woken.clone())));
        let gate = Gate::default();
        gate.keep_driver(&Context::from_waker(&waker));
        gate.take(1);
        let piece = gate.piece(vec![0; 10]);
        assert_eq!(woken.load(Relaxed), 0, "nothing was counted: the library wakes it");
        gate.count(true);
        gate.take(1);
        drop((gate.piece(vec![0; 10]), piece));
        assert_eq!(woken.load(Relaxed), 2);
        gate.count(false);
        gate.take(1);
        assert_eq!((woken.load(Relaxed), gate.taken()), (2, 3));
    }
}
