//! A node's answer on its way to the client: the head rewritten, the body through, counted and timed.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::Poll;

use super::client::Client;
use super::leg::Seen;
use crate::error::Cause;
use crate::headers::{self, ForClient};
use crate::http1::body::{Body, Framing};
use crate::http1::buffers::{Buffers, SMALL};
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
    /// What was learnt of that connection.
    pub seen: &'a Seen,
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

/// Passes on what is still to come of an answer. `beside` runs along; it only ever ends it.
///
/// # Errors
/// The node broke off or made no progress, or the client left or stopped reading.
pub async fn respond<S: Future<Output = Cause>>(
    through: &mut Through,
    responding: &Responding<'_>,
    deadline: &Deadline,
    beside: Pin<&mut S>,
    progress: &mut Progress,
) -> Result<(), Cause> {
    beside_of(beside, through.run(responding, deadline, progress)).await?
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

/// An answer on its way through.
pub struct Through {
    body: Body,
    /// Towards the client.
    chunked: bool,
    /// Towards the client, and not written yet.
    out: Vec<u8>,
    /// From the node; used up to `at`.
    input: Vec<u8>,
    at: usize,
    /// From `at` on, a stretch that the body was asked for and that goes as it lies.
    long: usize,
    /// The client understands trailers.
    trailers: bool,
    /// The end was written.
    ended: bool,
}

/// How far the bytes that are here go.
enum Gathered {
    /// To the end.
    All,
    /// More must come.
    More,
    /// To a stretch so long that it goes as it lies.
    Long,
}

impl Through {
    /// Rewrites the head, and takes from it what was read of the body.
    pub fn begin(head: &mut ResponseHead, responding: &Responding<'_>) -> Through {
        let buffers = &responding.client.thread.buffers;
        let mut out = buffers.small();
        headers::write_response(&mut out, head, &responding.parts);
        buffers.give_back_fields(std::mem::take(&mut head.fields));
        Through {
            body: Body::new(head.framing),
            chunked: responding.parts.framing == Framing::Chunked,
            at: head.length_of_head,
            long: 0,
            input: std::mem::take(&mut head.bytes),
            out,
            trailers: responding.parts.version_11,
            ended: false,
        }
    }

    /// Passes an answer on that is here whole, as most are, and that the kernel takes whole. False: not all
    /// of it has left, and [`respond`] goes on.
    ///
    /// # Errors
    /// The node's framing is odd.
    pub fn at_once(
        &mut self,
        responding: &Responding<'_>,
        progress: &mut Progress,
    ) -> Result<bool, Cause> {
        if !matches!(self.gather(progress)?, Gathered::All) {
            return Ok(false);
        }
        self.end(responding, progress)?;
        if !self.out.is_empty() {
            progress.begun = true;
            let written = responding.client.socket.try_write(&[IoSlice::new(&self.out)]);
            self.advance(written);
        }
        Ok(self.out.is_empty())
    }

    /// Gives the memory back.
    pub fn recycle(self, buffers: &Buffers) {
        buffers.give_back(self.input);
        buffers.give_back(self.out);
    }

    async fn run(
        &mut self,
        responding: &Responding<'_>,
        deadline: &Deadline,
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        let client = responding.client;
        loop {
            match self.gather(progress)? {
                Gathered::All => break,
                Gathered::Long => self.write_long(client, deadline, progress).await?,
                Gathered::More => {
                    self.flush(client, deadline, progress).await?;
                    self.more(responding, deadline).await?;
                }
            }
        }
        self.end(responding, progress)?;
        self.flush(client, deadline, progress).await
    }

    /// Small pieces are gathered, so that a usual answer is one write.
    fn gather(&mut self, progress: &mut Progress) -> Result<Gathered, Cause> {
        // Found before, and still to be written: the body must not be asked for it twice.
        if self.long > 0 {
            return Ok(Gathered::Long);
        }
        loop {
            let step = self.body.step(&self.input[self.at..]).map_err(response_cause)?;
            self.at += step.skip;
            let length = step.data;
            if length == 0 {
                return Ok(if self.body.is_done() { Gathered::All } else { Gathered::More });
            }
            if self.chunked {
                chunked::write_size(&mut self.out, length);
            }
            progress.bytes += length as u64;
            if self.out.len() + length > SMALL {
                self.long = length;
                return Ok(Gathered::Long);
            }
            self.out.extend_from_slice(&self.input[self.at..self.at + length]);
            if self.chunked {
                self.out.extend_from_slice(b"\r\n");
            }
            self.at += length;
        }
    }

    /// What comes after the body.
    fn end(&mut self, responding: &Responding<'_>, progress: &mut Progress) -> Result<(), Cause> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
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
            let written = responding.client.socket.try_write_last(&self.out);
            self.advance(written);
        }
        Ok(())
    }

    /// What did not leave is written again, and tells then why.
    fn advance(&mut self, written: io::Result<usize>) {
        match written.unwrap_or(0) {
            all if all == self.out.len() => self.out.clear(),
            some => drop(self.out.drain(..some)),
        }
    }

    /// A long stretch goes as it lies, behind what was gathered.
    async fn write_long(
        &mut self,
        client: &Client<'_>,
        deadline: &Deadline,
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        let data = &self.input[self.at..self.at + self.long];
        let end: &[u8] = if self.chunked { b"\r\n" } else { b"" };
        progress.begun = true;
        client.write([&self.out, data, end], deadline).await?;
        self.out.clear();
        self.at += std::mem::take(&mut self.long);
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
            Ok(Ok(0)) if self.body.end_of_stream() && !responding.seen.reset.get() => Ok(()),
            Ok(_) => Err(Cause::ResponseIncomplete),
            Err(_) => Err(Cause::ResponseBodyTimeout),
        }
    }
}
