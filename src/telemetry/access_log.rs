//! One line for each exchange, written away from the data threads.
//!
//! A data thread renders lines into its [`LineBuffer`] and hands whole chunks to the writer thread
//! behind [`AccessLog`]. Handing over never waits: when the writer is behind, as on a full disk or a
//! stalled pipe, lines are dropped and counted, and requests go on.

use std::net::{IpAddr, Ipv4Addr};

use crate::net::Peer;

mod render;
mod time;
mod writer;

pub use render::{write_combined, write_json};
pub use time::TimeCache;
pub use writer::AccessLog;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Apache's combined format.
    Combined,
}

/// `[access_log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Off writes nothing.
    pub enabled: bool,
    /// `-` is stdout.
    pub path: String,
    /// How a line looks.
    pub format: Format,
}

/// What is told of one exchange. Bytes that came from outside are taken as they are: rendering makes
/// them safe. An empty text is "none".
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the exchange began, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Ours.
    pub request_id: &'a [u8],
    /// The node's own `X-Request-Id`.
    pub upstream_request_id: &'a [u8],
    /// Who asked, after trusted proxies.
    pub client: IpAddr,
    /// Who is at the other end of the connection, or who that is by a PROXY header.
    pub peer: Peer,
    /// As received.
    pub method: &'a [u8],
    /// As received, port included.
    pub host: &'a [u8],
    /// The target as received; values of secret query keys are hidden when it is rendered.
    pub path: &'a [u8],
    /// `HTTP/1.1`
    pub protocol: &'static str,
    /// What the client got; 499 and 598 when it got nothing.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// First byte of the request to the last of the answer, in microseconds.
    pub duration_us: u64,
    /// Waiting for a node below its limit, in microseconds.
    pub queue_us: u64,
    /// Parked while no node was eligible, in microseconds; none if it never was.
    pub parked_us: Option<u64>,
    /// Bytes of a slow upload that were kept before a node was asked, and the time that took in
    /// microseconds; none if it was not slow.
    pub spooled: Option<(u64, u64)>,
    /// Opening the connection, in microseconds; none if a kept one was used.
    pub connect_us: Option<u64>,
    /// Request sent to head received, in microseconds; none if no head came.
    pub header_us: Option<u64>,
    /// Name of the listener.
    pub listener: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Name of the upstream.
    pub upstream: &'a str,
    /// The node that answered, or was tried last.
    pub node: &'a str,
    /// NocoBase's app, if the request names one.
    pub app: &'a [u8],
    /// NocoBase's action, such as `posts:list`.
    pub action: &'a [u8],
    /// Whether a flow came to its node, a label of `metrics::AffinityOutcome`.
    pub affinity: &'a str,
    /// The client's `User-Agent`.
    pub user_agent: &'a [u8],
    /// The client's `Referer`; its secrets are hidden like those of the path.
    pub referer: &'a [u8],
    /// Why we answered or cut ourselves; empty when a node answered to the end.
    pub reason: &'a str,
    /// More on the reason.
    pub detail: &'a str,
    /// In the order they were made.
    pub attempts: &'a [Attempt<'a>],
    /// More than one attempt was made.
    pub retried: bool,
}

/// What is told of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// A label of `metrics::AttemptResult`.
    pub result: &'static str,
    /// Bytes of the request that were written.
    pub sent: u64,
    /// On a kept connection.
    pub reused: bool,
    /// Made beside another one that was late.
    pub hedge: bool,
    /// From the pick to its end, in microseconds.
    pub us: u64,
}

impl Default for Line<'_> {
    fn default() -> Self {
        Line {
            unix_ms: 0,
            request_id: b"",
            upstream_request_id: b"",
            client: Ipv4Addr::UNSPECIFIED.into(),
            peer: Peer::Ip(Ipv4Addr::UNSPECIFIED.into()),
            method: b"",
            host: b"",
            path: b"",
            protocol: "",
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            duration_us: 0,
            queue_us: 0,
            parked_us: None,
            spooled: None,
            connect_us: None,
            header_us: None,
            listener: "",
            route: "",
            upstream: "",
            node: "",
            app: b"",
            action: b"",
            affinity: "",
            user_agent: b"",
            referer: b"",
            reason: "",
            detail: "",
            attempts: &[],
            retried: false,
        }
    }
}

/// Lines go to the writer in chunks of about this many bytes: one write of it costs the kernel little
/// more than one line does, and it stays well below what a pipe takes (64 KiB).
const CHUNK: usize = 32 * 1024;

/// The lines of one data thread that the writer has not been given yet. The owner calls
/// [`LineBuffer::flush`] every 50 ms or so, so that a quiet log is still a fresh one.
pub struct LineBuffer {
    log: Option<AccessLog>,
    chunk: Vec<u8>,
    lines: u64,
    time: TimeCache,
}

impl LineBuffer {
    /// An empty buffer; without a log it takes lines and forgets them.
    pub fn new(log: Option<AccessLog>) -> LineBuffer {
        LineBuffer { log, chunk: Vec::new(), lines: 0, time: TimeCache::default() }
    }

    /// Sends lines somewhere else from now on; what was pushed before goes where it was meant to go.
    pub fn set_log(&mut self, log: Option<AccessLog>) {
        self.flush();
        self.log = log;
    }

    /// Whether lines are wanted at all; a caller may save itself the work.
    pub fn enabled(&self) -> bool {
        self.log.is_some()
    }

    /// Whether there is anything to flush.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Renders a line, and flushes when the chunk is full.
    pub fn push(&mut self, line: &Line<'_>) {
        let Some(log) = &self.log else { return };
        match log.format() {
            Format::Json => write_json(line, &mut self.time, &mut self.chunk),
            Format::Combined => write_combined(line, &mut self.time, &mut self.chunk),
        }
        self.lines += 1;
        if self.chunk.len() >= CHUNK {
            self.flush();
        }
    }

    /// Hands what there is to the writer. Never waits.
    pub fn flush(&mut self) {
        if let Some(log) = &self.log
            && !self.chunk.is_empty()
        {
            let chunk = std::mem::take(&mut self.chunk);
            let lines = std::mem::take(&mut self.lines);
            self.chunk = log.submit(chunk, lines).unwrap_or_default();
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
