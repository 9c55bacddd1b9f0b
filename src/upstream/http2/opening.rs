//! Connections that are being opened: those who find no stream together need one for all of them, not one each.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::error::Cause;

/// All that are being opened.
#[derive(Default)]
pub(super) struct Openings {
    list: RefCell<Vec<Rc<Opening>>>,
    /// Streams that the newest connection was allowed; 0 before there was one.
    allowed: Cell<usize>,
}

impl Openings {
    /// A connection was opened, and is allowed so many streams.
    pub(super) fn allow(&self, streams: usize) {
        self.allowed.set(streams);
    }

    /// Joins those who wait for a connection that will have a stream for them, or begins to open one. Until
    /// it is known how many streams a node allows, there may be `most`.
    pub(super) fn join(&self, most: usize) -> Joined {
        let mut list = self.list.borrow_mut();
        list.retain(|opening| !opening.is_ended());
        let most = match self.allowed.get() {
            0 => most,
            allowed => allowed,
        };
        if let Some(opening) = list.iter().find(|opening| opening.waiting.get() + 1 < most) {
            return Joined::Waits(Waits::at(opening));
        }
        let opening = Rc::<Opening>::default();
        list.push(opening.clone());
        Joined::Opens(Opens(opening))
    }
}

/// A connection that is being opened.
#[derive(Default)]
struct Opening {
    /// Why not, if it could not be opened; an opening that was given up has no reason.
    ended: RefCell<Option<Option<Cause>>>,
    waiting: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

/// What somebody without a stream does.
pub(super) enum Joined {
    /// Another one opens it.
    Waits(Waits),
    /// It opens one itself.
    Opens(Opens),
}

/// Somebody who waits for a connection that another one opens.
pub(super) struct Waits(Rc<Opening>);

/// The one who opens it.
pub(super) struct Opens(Rc<Opening>);

impl Opening {
    fn is_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    fn end(&self, failed: Option<Cause>) {
        self.ended.borrow_mut().get_or_insert(failed);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }
}

impl Opens {
    /// It has ended, well or with a cause.
    pub(super) fn end(&self, failed: Option<Cause>) {
        self.0.end(failed);
    }
}

impl Drop for Opens {
    /// Given up, if it has not ended: somebody else may open it.
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl Waits {
    fn at(opening: &Rc<Opening>) -> Waits {
        opening.waiting.set(opening.waiting.get() + 1);
        Waits(opening.clone())
    }

    /// It has ended: there may be a stream now.
    ///
    /// # Errors
    /// It could not be opened.
    pub(super) async fn ended(&self) -> Result<(), Cause> {
        poll_fn(|cx| match &*self.0.ended.borrow() {
            Some(None) => Poll::Ready(Ok(())),
            Some(Some(cause)) => Poll::Ready(Err(cause.clone())),
            None => {
                self.0.wakers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}
