//! How a connection ends: at once, or after what the client still sends was read.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use super::Connection;
use crate::exchange::client::Unread;
use crate::exchange::thread::Thread;
use crate::http1::deadline::Deadline;
use crate::net::{Idle, Socket};

/// After an answer to a request that was not read whole, this much more is read and thrown away, so that
/// the kernel does not reset the connection before the client has seen the answer.
const LINGER_BYTES: usize = 1024 * 1024;
/// And for no longer than this.
const LINGER_TIME: Duration = Duration::from_secs(2);

impl Connection {
    /// Nothing is under way: over TLS the peer is told that this end is meant.
    pub(super) fn part(&self) {
        if self.socket.tls().is_some() {
            self.socket.shutdown_write();
        }
    }

    /// The last answer was sent. With more requests behind it, which one that `would_stay` may have sent, closing
    /// at once would reset the answer away (RFC 9112, 9.6).
    pub(super) async fn finish(&self, unread: &mut Unread, would_stay: bool) {
        let more = !unread.get().is_empty() || would_stay && self.socket.peek_idle() == Idle::Dirty;
        if more { self.linger().await } else { self.close().await }
    }

    /// Ends our direction. Over TLS that is a message, which waits until there is room for it.
    async fn close(&self) {
        if self.socket.tls().is_none() {
            return self.socket.shutdown_write();
        }
        let down = &self.deadlines.down;
        down.set(self.listener.settings.send_timeout);
        // Whatever came of it, the connection ends now.
        let _ = down.guard(poll_fn(|cx| self.socket.poll_shutdown(cx))).await;
    }

    /// Reads on a little and throws it away.
    pub(super) async fn linger(&self) {
        Box::pin(self.close()).await;
        linger(&self.thread, &self.socket, &self.deadlines.down).await;
    }
}

/// Reads what still comes to an end that was announced, and throws it away.
pub(super) async fn linger(thread: &Thread, socket: &Socket, deadline: &Deadline) {
    deadline.set(LINGER_TIME);
    let mut left = LINGER_BYTES;
    let drained = poll_fn(|cx| {
        let mut scratch = thread.scratch.borrow_mut();
        while left > 0 {
            match ready!(socket.poll_read_slice(cx, &mut scratch)) {
                Ok(n @ 1..) => left = left.saturating_sub(n),
                _ => break,
            }
        }
        Poll::Ready(())
    });
    // Whatever came of it, the connection ends now.
    let _ = deadline.guard(drained).await;
}
