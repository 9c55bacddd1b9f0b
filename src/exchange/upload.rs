//! The request's body on its way to a node: read whole before a node is picked when it is small, and then
//! it can be sent again; streamed with back-pressure when it is not.

use std::cell::Cell;
use std::time::Duration;

use super::client::{Client, Unread};
use crate::error::Cause;
use crate::http1::Violation;
use crate::http1::body::{Body, Framing};
use crate::http1::buffers::{LARGE, SMALL};
use crate::http1::chunked;
use crate::http1::deadline::Deadline;
use crate::http1::io::write_all;
use crate::net::Socket;

/// A body up to this size is read whole, and so can be replayed (as Linkerd and Pingora do).
pub const REPLAYABLE: usize = 64 * 1024;

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
    /// Bytes that the kernel took so far.
    pub sent: &'a Cell<u64>,
}

/// What others may ask of a body while it is being streamed.
pub struct Flags {
    /// All of it was read and sent.
    pub done: Cell<bool>,
    /// Something went to the node that no other can be sent.
    pub streamed: Cell<bool>,
    /// The node took all that was sent so far.
    whole: bool,
}

impl Flags {
    /// As a body stands before it is streamed. `whole`: what was sent before was taken whole.
    pub fn of(upload: &Upload, whole: bool) -> Flags {
        let done = Cell::new(whole && upload.is_done());
        Flags { done, streamed: Cell::new(upload.streamed), whole }
    }

    /// There is more to send, and a node that takes it.
    pub fn streams(&self) -> bool {
        self.whole && !self.done.get()
    }
}

/// A request's body.
pub struct Upload {
    body: Body,
    framing: Framing,
    /// What was read so far, framed as a node gets it. Sent first, and again by a retry.
    wire: Vec<u8>,
    /// Bytes of data so far.
    received: u64,
    /// Bytes of data at most; 0 is no limit.
    limit: u64,
    /// Something beyond `wire` went to a node: no other can be sent the whole any more.
    streamed: bool,
}

impl Upload {
    /// At the body's first byte.
    ///
    /// # Errors
    /// A declared length over the limit.
    pub fn new(framing: Framing, limit: u64) -> Result<Upload, Cause> {
        match framing {
            Framing::Length(length) if limit != 0 && length > limit => Err(Cause::BodyTooLarge),
            _ => {
                let (body, wire) = (Body::new(framing), Vec::new());
                Ok(Upload { body, framing, wire, received: 0, limit, streamed: false })
            }
        }
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Whether a further node can be sent the whole.
    pub fn is_replayable(&self) -> bool {
        !self.streamed
    }

    /// Bytes of data read.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of memory that it holds.
    pub fn held(&self) -> usize {
        self.wire.capacity()
    }

    /// What is sent along with the head.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Reads the body whole if it is small, else as much of it as a replay may hold. A body that is known
    /// to be large is left alone: waiting for its first 64 KiB would only delay it.
    ///
    /// # Errors
    /// Odd framing, too large, too slow, or the client left.
    pub async fn buffer(
        &mut self,
        client: &Client<'_>,
        unread: &mut Unread,
        deadline: &Deadline,
    ) -> Result<(), Cause> {
        if matches!(self.framing, Framing::Length(length) if length > REPLAYABLE as u64) {
            return Ok(());
        }
        while !self.body.is_done() && self.wire.len() < REPLAYABLE {
            if unread.get().is_empty() {
                let patience = client.listener.settings.body_idle_timeout;
                client.read_body(unread, false, deadline, patience).await?;
            }
            let mut wire = std::mem::take(&mut self.wire);
            let step = self.step(unread, |piece| append(&mut wire, piece));
            self.wire = wire;
            step?;
        }
        Ok(())
    }

    /// Streams what is left. Comes back when all was sent, or the node stopped taking it: then its answer
    /// tells more than the failed write.
    ///
    /// # Errors
    /// Odd framing, too large, too slow, or the client left.
    pub async fn pump(
        &mut self,
        client: &Client<'_>,
        unread: &mut Unread,
        node: &Towards<'_>,
        flags: &Flags,
    ) -> Result<(), Cause> {
        let mut out = client.thread.buffers.large();
        let mut patience = node.first;
        while !self.body.is_done() {
            if unread.get().is_empty() {
                let large = self.body.expects() > SMALL as u64;
                client.read_body(unread, large, node.deadline, patience).await?;
                patience = client.listener.settings.body_idle_timeout;
            }
            self.streamed = true;
            flags.streamed.set(true);
            while !unread.get().is_empty() && !self.body.is_done() && out.len() < LARGE {
                self.step(unread, |piece| append(&mut out, piece))?;
            }
            let mut written = 0;
            let stall = (node.deadline, node.stall);
            let result = write_all(node.socket, [&out, &[], &[]], stall, &mut written).await;
            node.sent.set(node.sent.get() + written);
            if result.is_err() {
                return Ok(());
            }
            out.clear();
        }
        client.thread.buffers.give_back(out);
        flags.done.set(true);
        Ok(())
    }

    /// Takes one stretch out of `unread`.
    fn step(&mut self, unread: &mut Unread, mut emit: impl FnMut(Piece<'_>)) -> Result<(), Cause> {
        let chunked = self.framing == Framing::Chunked;
        let input = unread.get();
        let step = self.body.step(input).map_err(|violation| match violation {
            Violation::Malformed(what) => Cause::BadBody(what),
            _ => Cause::BadBody("odd framing"),
        })?;
        let data = &input[step.skip..step.skip + step.data];
        self.received += data.len() as u64;
        if self.limit != 0 && self.received > self.limit {
            return Err(Cause::BodyTooLarge);
        }
        if !data.is_empty() {
            emit(if chunked { Piece::Chunk(data) } else { Piece::Plain(data) });
        }
        if chunked && self.body.is_done() {
            emit(Piece::End(self.body.trailers()));
        }
        let used = step.skip + step.data;
        unread.consume(used);
        Ok(())
    }
}

/// A stretch of a body in the form a node gets it.
enum Piece<'a> {
    Plain(&'a [u8]),
    Chunk(&'a [u8]),
    End(&'a [u8]),
}

fn append(out: &mut Vec<u8>, piece: Piece<'_>) {
    match piece {
        Piece::Plain(data) => out.extend_from_slice(data),
        Piece::Chunk(data) => {
            chunked::write_size(out, data.len());
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
        Piece::End(trailers) => chunked::write_end(out, trailers),
    }
}
