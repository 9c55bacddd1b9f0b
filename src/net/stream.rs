//! A stream that is no socket of the kernel: one of several on a connection, polled like a socket.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use super::Idle;

/// One stream of a connection that carries several. What is read and written are bytes of HTTP/1.1; the
/// stream says in its own protocol what they mean. Both directions are polled from one task.
pub trait Stream: Debug {
    /// Ready when a read would not wait, at the end of the stream too.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there now. `take` is offered pieces in order and says how much of each it has taken;
    /// the rest is kept. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; anything else is the end of the stream, and not a clean one.
    fn try_read(&self, take: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize>;

    /// Ready when a write would not wait, and when none will ever succeed.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes what the peer has room for.
    ///
    /// # Errors
    /// `WouldBlock` if it has none; anything else is the end of the stream.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our direction.
    fn shutdown_write(&self);

    /// What is not whole when this is dropped is reset rather than ended, which dropping does anyway: here
    /// the end of the stream cannot be taken for the end of a message. What waits to be sent is dropped too.
    fn reset_on_drop(&self);

    /// What is known of an idle stream, without looking at the connection.
    fn peek_idle(&self) -> Idle;

    /// Ready when there is something to be read or the peer has gone: true if it has gone.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool>;

    /// Whether the connection that carries it is one of TLS.
    fn is_encrypted(&self) -> bool;

    /// What is known of why it ended without an answer.
    fn fate(&self) -> Fate {
        Fate::Unknown
    }
}

/// What became of a stream whose answer did not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is known: its connection was lost, if anything.
    #[default]
    Unknown,
    /// The peer has said, or it is known otherwise, that nothing of what was written was worked on.
    Unprocessed,
    /// It alone was reset, on a connection that is good.
    Reset,
    /// Nothing was sent: the request has no form in the peer's protocol, and would have none elsewhere.
    Unsayable,
}
