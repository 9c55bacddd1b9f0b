//! A node that a body is streamed to.

use std::time::Duration;

use super::leg::Seen;
use crate::http1::deadline::Deadline;
use crate::http1::io::{Failure, Slices, write_all};
use crate::net::Socket;

/// The way to a node.
pub struct Towards<'a> {
    /// The stream.
    pub socket: &'a Socket,
    /// How long it may take nothing.
    pub stall: Duration,
    /// How long the client may take to begin: with `Expect: 100-continue` as long as the node may take.
    pub first: Duration,
    /// Bounds both.
    pub deadline: &'a Deadline,
    /// Learns how many bytes the kernel took.
    pub seen: &'a Seen,
}

impl Towards<'_> {
    /// Writes all of it. False: the node stopped taking it.
    pub(super) async fn write(&self, slices: Slices<'_>) -> bool {
        let mut written = 0;
        let stall = (self.deadline, self.stall);
        let result = write_all(self.socket, slices, stall, &mut written).await;
        self.seen.sent.set(self.seen.sent.get() + written);
        if let Err(Failure::Closed(error)) = &result {
            self.seen.note(error);
        }
        result.is_ok()
    }
}
