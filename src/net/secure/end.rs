//! How a connection ends: what the peer has said at the end, and what we say.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Secure;

/// How the peer's direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a close_notify, or where the end cannot cut anything off.
    Clean,
    /// Without: whatever came may have been cut.
    Cut,
    /// TLS itself broke.
    Broken,
}

impl From<End> for io::Result<usize> {
    fn from(end: End) -> io::Result<usize> {
        match end {
            End::Clean => Ok(0),
            End::Cut => Err(io::ErrorKind::UnexpectedEof.into()),
            End::Broken => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Secure {
    /// Ends our direction: first TLS, then the stream below it.
    pub(in crate::net) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        state.say_goodbye();
        // A peer that is gone needs no end.
        let _ = ready!(self.poll_flush(&mut state, cx));
        self.shutdown();
        Poll::Ready(())
    }

    /// The same without waiting: what does not fit is left out.
    pub(in crate::net) fn shutdown_write(&self) {
        let mut state = self.state.borrow_mut();
        state.say_goodbye();
        let flushed = state.flush(&self.stream);
        if !matches!(flushed, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.shutdown();
        }
    }

    pub(super) fn shutdown(&self) {
        // The peer may be gone already, and then there is nothing left to end.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }

    pub(in crate::net) fn reset_on_drop(&self) {
        // It fails only on a socket that is gone.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}
