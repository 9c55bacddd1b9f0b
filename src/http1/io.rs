//! Moving bytes between sockets and buffers, under deadlines.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::buffers::Buffers;
use super::deadline::{Deadline, Expired};
use super::scan::Scanner;
use super::{HeadLimits, Violation};
use crate::clock;
use crate::net::Socket;

/// Why bytes did not move.
#[derive(Debug)]
pub enum Failure {
    /// The peer closed or reset the connection.
    Closed(io::Error),
    /// No progress for too long, or not for as long as there was room to wait: see [`Deadline::is_cut`].
    Stalled,
}

/// Slices to be written in order; three are enough for head or framing, data, and line end.
pub type Slices<'a> = [&'a [u8]; 3];

/// Writes all of the slices. `written` grows with each byte that the kernel took, so that a caller whose
/// future is dropped still knows. `stall` bounds the time without progress.
///
/// # Errors
/// The connection broke or made no progress.
pub async fn write_all(
    socket: &Socket,
    slices: Slices<'_>,
    stall: (&Deadline, Duration),
    written: &mut u64,
) -> Result<(), Failure> {
    let (deadline, stall) = stall;
    let patience = Patience { deadline, stall, most: || Duration::MAX, holding: 0 };
    write_patiently(socket, slices, &patience, written).await
}

/// How long a peer is waited for.
pub struct Patience<'a, F> {
    /// Bounds the wait.
    pub deadline: &'a Deadline,
    /// Without progress.
    pub stall: Duration,
    /// For all of it, however it trickles. Asked only when it has to be waited for.
    pub most: F,
    /// Bytes of memory that are held meanwhile, beside those of the socket itself; 0: nothing is counted.
    pub holding: usize,
}

/// [`write_all`], to a peer that has no more than so much patience of ours.
///
/// # Errors
/// The connection broke or made too little progress, or what is held for it is needed elsewhere.
pub async fn write_patiently<F: Fn() -> Duration>(
    socket: &Socket,
    slices: Slices<'_>,
    patience: &Patience<'_, F>,
    written: &mut u64,
) -> Result<(), Failure> {
    let mut rest = Rest { slices };
    // Nearly every write fits at once: no deadline is set for it.
    match rest.try_once(socket, written) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(Failure::Closed(error)),
    }
    let deadline = patience.deadline;
    if patience.holding > 0 {
        // Over TLS all of it may be sealed by now, and is held twice.
        let holding = patience.holding + socket.held();
        if !deadline.wait_holding(holding) {
            deadline.wait_holding_anyway(holding);
        }
    }
    let until_ns = deadline.now_ns().saturating_add(clock::nanos((patience.most)()));
    while !rest.is_empty() {
        let left = Duration::from_nanos(until_ns.saturating_sub(deadline.now_ns()).max(1));
        // Without a bound on either there is none.
        deadline.set(if patience.stall.is_zero() { left } else { patience.stall.min(left) });
        match deadline.guard(poll_fn(|cx| rest.poll_once(socket, cx, written))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Failure::Closed(error)),
            Err(_) => return Err(Failure::Stalled),
        }
    }
    deadline.clear();
    if patience.holding > 0 {
        deadline.end_wait();
    }
    Ok(())
}

struct Rest<'a> {
    slices: Slices<'a>,
}

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        self.slices.iter().all(|slice| slice.is_empty())
    }

    fn try_once(&mut self, socket: &Socket, written: &mut u64) -> io::Result<bool> {
        let n = self.with_slices(|slices| socket.try_write(slices))?;
        self.advance(n, written)?;
        Ok(self.is_empty())
    }

    fn poll_once(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        let n = ready!(self.with_slices(|slices| socket.poll_write(cx, slices)))?;
        Poll::Ready(self.advance(n, written))
    }

    /// Empty slices are left out, so that one slice is a plain write.
    fn with_slices<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        match self.slices {
            [one, [], []] | [[], one, []] | [[], [], one] => write(&[IoSlice::new(one)]),
            [one, two, []] | [one, [], two] | [[], one, two] => {
                write(&[IoSlice::new(one), IoSlice::new(two)])
            }
            all => write(&all.map(IoSlice::new)),
        }
    }

    fn advance(&mut self, mut n: usize, written: &mut u64) -> io::Result<()> {
        if n == 0 && !self.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *written += n as u64;
        for slice in &mut self.slices {
            let taken = n.min(slice.len());
            *slice = &slice[taken..];
            n -= taken;
        }
        Ok(())
    }
}

/// Reads what comes next into `buffer`, which is borrowed from `buffers` only while there is something in
/// it: readiness is a hint, and a wait may be long. 0 is the end of the stream.
pub fn poll_fill(
    socket: &Socket,
    cx: &mut Context<'_>,
    buffer: &mut Vec<u8>,
    buffers: &Buffers,
    large: bool,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        if buffer.capacity() == 0 {
            *buffer = if large { buffers.large() } else { buffers.small() };
        }
        let room = buffer.capacity() - buffer.len();
        match socket.try_read(buffer, room.max(1024)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if buffer.is_empty() {
                    buffers.give_back(std::mem::take(buffer));
                }
            }
            other => return Poll::Ready(other),
        }
    }
}

/// What reading a head came to.
#[derive(Debug)]
pub enum HeadRead {
    /// The first so many bytes of the buffer are the head.
    Head(usize),
    /// The stream ended, after so many bytes of a head.
    Ended(usize),
}

/// What waiting for a client came to. As long as it is not over, what its socket holds of a record that is not
/// whole counts, and may have to give way.
pub fn poll_client<T>(socket: &Socket, deadline: &Deadline, polled: Poll<T>) -> Poll<T> {
    if polled.is_pending() {
        deadline.wait_in_socket(socket.held());
    }
    polled
}

/// Reads until the buffer begins with a whole head of a client, as long as its `deadline` lets it be waited for.
///
/// # Errors
/// `Ok(Err)`: what came breaks the rules. `Err`: the connection broke.
pub async fn read_head(
    socket: &Socket,
    buffer: &mut Vec<u8>,
    buffers: &Buffers,
    limits: HeadLimits,
    deadline: &Deadline,
) -> Result<io::Result<Result<HeadRead, Violation>>, Expired> {
    let mut scanner = Scanner::default();
    let head = poll_fn(|cx| {
        let polled = poll_head(socket, cx, (buffer, buffers), limits, &mut scanner);
        poll_client(socket, deadline, polled)
    });
    deadline.guard(head).await
}

/// Reads until the buffer begins with a whole head.
pub fn poll_head(
    socket: &Socket,
    cx: &mut Context<'_>,
    (buffer, buffers): (&mut Vec<u8>, &Buffers),
    limits: HeadLimits,
    scanner: &mut Scanner,
) -> Poll<io::Result<Result<HeadRead, Violation>>> {
    loop {
        match scanner.scan(buffer, limits) {
            Err(violation) => return Poll::Ready(Ok(Err(violation))),
            Ok(Some(length)) => return Poll::Ready(Ok(Ok(HeadRead::Head(length)))),
            Ok(None) => {}
        }
        if ready!(poll_fill(socket, cx, buffer, buffers, false))? == 0 {
            return Poll::Ready(Ok(Ok(HeadRead::Ended(buffer.len()))));
        }
    }
}
