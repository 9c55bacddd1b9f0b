//! A node's answer on its way to the client: the head rewritten, the body through, counted and timed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::client::Client;
use crate::error::Cause;
use crate::headers::{self, ForClient};
use crate::http1::body::{Body, Framing};
use crate::http1::buffers::SMALL;
use crate::http1::chunked;
use crate::http1::deadline::Deadline;
use crate::http1::io::poll_fill;
use crate::http1::response::ResponseHead;
use crate::net::Socket;

use super::attempt::response_cause;

/// What passing an answer on needs.
pub struct Responding<'a> {
    /// To whom.
    pub client: &'a Client<'a>,
    /// From where.
    pub socket: &'a Socket,
    /// How the head is written.
    pub parts: ForClient<'a>,
    /// Longest silence between bytes; zero is none.
    pub idle: std::time::Duration,
    /// The client's connection ends with this answer.
    pub last: bool,
}

/// How far an answer got, whatever became of it.
#[derive(Default)]
pub struct Progress {
    /// Bytes of the head or the body have gone to the client: no other answer can follow.
    pub begun: bool,
    /// Bytes of data.
    pub bytes: u64,
    /// Nothing was read beyond the answer: the connection can be used again.
    pub clean: bool,
}

/// Passes a whole answer on. `beside` runs along; it only ever ends it.
///
/// # Errors
/// The node broke off or made no progress, or the client left or stopped reading.
pub async fn respond<S: Future<Output = Cause>>(
    responding: &Responding<'_>,
    mut head: ResponseHead,
    deadline: &Deadline,
    beside: Pin<&mut S>,
    progress: &mut Progress,
) -> Result<(), Cause> {
    let buffers = &responding.client.thread.buffers;
    let mut out = buffers.small();
    headers::write_response(&mut out, &head, &responding.parts);
    let mut through = Through {
        body: Body::new(head.framing),
        chunked: responding.parts.framing == Framing::Chunked,
        at: head.length_of_head,
        input: std::mem::take(&mut head.bytes),
        out,
        trailers: responding.parts.version_11,
    };
    buffers.give_back_fields(head.fields);
    let work = through.run(responding, deadline, progress);
    let result = beside_of(beside, work).await;
    buffers.give_back(through.input);
    buffers.give_back(through.out);
    result?
}

/// Runs `work` while `side` runs along, which can only end it.
pub(super) async fn beside_of<S, W>(mut side: Pin<&mut S>, work: W) -> Result<W::Output, Cause>
where
    S: Future<Output = Cause>,
    W: Future,
{
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        side.as_mut().poll(cx).map(Err)
    })
    .await
}

/// A body on its way through.
struct Through {
    body: Body,
    /// Towards the client.
    chunked: bool,
    /// Towards the client, and not written yet.
    out: Vec<u8>,
    /// From the node; used up to `at`.
    input: Vec<u8>,
    at: usize,
    /// The client understands trailers.
    trailers: bool,
}

impl Through {
    async fn run(
        &mut self,
        responding: &Responding<'_>,
        deadline: &Deadline,
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        let client = responding.client;
        loop {
            let step = self.body.step(&self.input[self.at..]).map_err(response_cause)?;
            self.at += step.skip;
            if step.data > 0 {
                self.data(step.data, client, deadline, progress).await?;
                continue;
            }
            if self.body.is_done() {
                break;
            }
            self.flush(client, deadline, progress).await?;
            self.more(responding, deadline).await?;
        }
        if self.chunked {
            let trailers = if self.trailers { self.body.trailers() } else { &[] };
            chunked::write_end(&mut self.out, trailers);
        }
        progress.clean = self.at == self.input.len();
        // An answer with something behind it that nobody asked for is not to be trusted as a whole, if
        // that shows before the client has seen any of it.
        if !progress.clean && !progress.begun {
            return Err(Cause::BadResponse("bytes after its end"));
        }
        if responding.last && !self.out.is_empty() {
            // In one packet with the end of the connection, if all of it fits.
            progress.begun = true;
            let written = client.socket.try_write_last(&self.out).unwrap_or(0);
            self.out.drain(..written);
        }
        self.flush(client, deadline, progress).await
    }

    /// Small pieces are gathered, so that a usual answer is one write; large ones go as they lie.
    async fn data(
        &mut self,
        length: usize,
        client: &Client<'_>,
        deadline: &Deadline,
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        let data = &self.input[self.at..self.at + length];
        if self.chunked {
            chunked::write_size(&mut self.out, length);
        }
        progress.bytes += length as u64;
        let end: &[u8] = if self.chunked { b"\r\n" } else { b"" };
        if self.out.len() + length <= SMALL {
            self.out.extend_from_slice(data);
            self.out.extend_from_slice(end);
        } else {
            progress.begun = true;
            client.write([&self.out, data, end], deadline).await?;
            self.out.clear();
        }
        self.at += length;
        Ok(())
    }

    async fn flush(
        &mut self,
        client: &Client<'_>,
        deadline: &Deadline,
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        if self.out.is_empty() {
            return Ok(());
        }
        progress.begun = true;
        client.write([&self.out, &[], &[]], deadline).await?;
        self.out.clear();
        Ok(())
    }

    /// Reads more. While there is nothing to read, no buffer is held.
    async fn more(
        &mut self,
        responding: &Responding<'_>,
        deadline: &Deadline,
    ) -> Result<(), Cause> {
        let buffers = &responding.client.thread.buffers;
        self.at = 0;
        buffers.give_back(std::mem::take(&mut self.input));
        buffers.give_back(std::mem::take(&mut self.out));
        deadline.set(responding.idle);
        let (input, socket) = (&mut self.input, responding.socket);
        let large = self.body.expects() > SMALL as u64;
        let read = poll_fn(|cx| poll_fill(socket, cx, input, buffers, large));
        let read = deadline.guard(read).await;
        deadline.clear();
        self.out = buffers.small();
        match read {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0)) if self.body.end_of_stream() => Ok(()),
            Ok(_) => Err(Cause::ResponseIncomplete),
            Err(_) => Err(Cause::ResponseBodyTimeout),
        }
    }
}
