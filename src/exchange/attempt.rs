//! One try at one node: connect, send, await the head, say what it was.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::client::Client;
use super::leg::Seen;
use super::pick::InFlight;
use super::thread::Thread;
use crate::balance::silence::lingers;
use crate::clock;
use crate::config;
use crate::error::Cause;
use crate::headers;
use crate::http1::body::Body;
use crate::http1::deadline::Deadline;
use crate::http1::field::Known;
use crate::http1::io::{Failure, HeadRead, poll_head, write_all};
use crate::http1::response::ResponseHead;
use crate::http1::scan::Scanner;
use crate::http1::{HeadLimits, Violation};
use crate::net::{Fate, Secure, Socket};
use crate::nocobase::{self, MAX_REFUSAL, Refusal};
use crate::upstream::{LocalNode, Node};

/// Interim answers of one exchange: a few Early Hints and a 100, not an endless row.
const MAX_INTERIM: u32 = 16;
/// Bytes and fields of a node's head: what it adds to the client's request comes back as cookies.
const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, fields: 200 };
/// How often it is looked whether an exchange lingers, and whether its node fell silent.
const LINGER_CHECK_NS: u64 = 250_000_000;

/// What sending needs.
pub struct Sending<'a> {
    /// The head for the node.
    pub head: &'a [u8],
    /// What of the body goes with it.
    pub wire: &'a [u8],
    /// Learns how many bytes the kernel took.
    pub seen: &'a Seen,
}

impl Sending<'_> {
    /// Writes what the kernel takes at once, which nearly always is all. False: [`send`] goes on, or finds
    /// the same error.
    pub fn at_once(&self, socket: &Socket) -> bool {
        let [head, wire] = [self.head, self.wire].map(IoSlice::new);
        let written = match self.wire {
            [] => socket.try_write(&[head]),
            _ => socket.try_write(&[head, wire]),
        };
        let written = written.unwrap_or(0);
        self.seen.sent.set(written as u64);
        written == self.head.len() + self.wire.len()
    }
}

/// Writes what was not sent yet of the head and of what is there of the body. False: the node stopped
/// taking it, but may have answered already.
///
/// # Errors
/// Nothing was taken, or no more was taken for too long.
pub async fn send(
    socket: &Socket,
    sending: &Sending<'_>,
    deadline: &Deadline,
    timeout: Duration,
) -> Result<bool, Cause> {
    let mut written = sending.seen.sent.get();
    let (head, done) = (sending.head, written as usize);
    let rest = (&head[done.min(head.len())..], &sending.wire[done.saturating_sub(head.len())..]);
    let slices = [rest.0, rest.1, &[]];
    let result = write_all(socket, slices, (deadline, timeout), &mut written).await;
    sending.seen.sent.set(written);
    match result {
        Ok(()) => Ok(true),
        Err(Failure::Closed(error)) if written > 0 => {
            sending.seen.note(&error);
            Ok(false)
        }
        Err(Failure::Closed(_)) => Err(terminated(socket)),
        Err(Failure::Stalled) => Err(Cause::ResponseTimeout),
    }
}

/// A request that was sent whole and waits for its head. Ends when it is dropped.
pub struct Waiting<'a> {
    node: &'a LocalNode,
    thread: &'a Thread,
    since_ns: Cell<u64>,
    over: Cell<bool>,
}

impl<'a> Waiting<'a> {
    /// Of a request that is still being sent.
    pub fn new(node: &'a LocalNode, thread: &'a Thread) -> Waiting<'a> {
        Waiting { node, thread, since_ns: Cell::new(0), over: Cell::new(false) }
    }

    /// The last byte was sent: the node's time begins.
    pub fn begin(&self) {
        if self.over.get() {
            return;
        }
        let now = self.thread.look_at_clock();
        self.since_ns.set(now);
        self.node.node.sent(self.node.thread(), now);
    }

    /// When the last byte was sent; none while it has not been.
    pub fn since_ns(&self) -> Option<u64> {
        Some(self.since_ns.get()).filter(|since| *since != 0)
    }

    /// The head came, or nobody waits for it any more.
    pub fn end(&self) {
        if !self.over.replace(true) && self.since_ns().is_some() {
            self.node.node.answered(self.node.thread(), self.thread.now_ns());
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over.get() && self.since_ns().is_some() {
            // How long it was waited in vain is remembered.
            self.thread.look_at_clock();
        }
        self.end();
    }
}

/// What awaiting a head needs.
pub struct Awaiting<'a> {
    /// The client, for interim answers.
    pub client: &'a Client<'a>,
    /// The node.
    pub node: &'a Node,
    /// Since when it owes a head.
    pub waiting: &'a Waiting<'a>,
    /// The stream to it.
    pub socket: &'a Socket,
    /// Its upstream's settings.
    pub settings: &'a config::Upstream,
    /// The request was HEAD.
    pub to_head: bool,
    /// The client waits for 100.
    pub expects_continue: bool,
    /// The client understands interim answers.
    pub interim: bool,
    /// End of the time for all attempts; `u64::MAX` is none.
    pub until_ns: u64,
    /// Asked now and then, with the time since when the node owes a head and the present: whether to give
    /// up because the node fell silent.
    pub give_up: &'a dyn Fn(u64, u64) -> bool,
}

/// Waits for the final head, passing interim ones on. `beside` runs along; it only ever ends the wait.
///
/// # Errors
/// What the node did wrong, the client's leaving, or a deadline.
pub async fn await_head<S: Future<Output = Cause>>(
    awaiting: &Awaiting<'_>,
    in_flight: &mut InFlight<'_>,
    deadline: &Deadline,
    mut beside: Pin<&mut S>,
) -> Result<ResponseHead, Cause> {
    let response_timeout = clock::nanos(awaiting.settings.response_timeout);
    let thread = awaiting.client.thread;
    let mut bytes = Vec::new();
    let mut interim = 0;
    loop {
        let check_ns = thread.now_ns() + LINGER_CHECK_NS;
        deadline.set_at(check_ns.min(awaiting.until_ns));
        let read = read_one(awaiting, &mut bytes, deadline, beside.as_mut()).await;
        match read {
            Err(Ended::Side(cause)) => return Err(cause),
            Err(Ended::Time) => {
                let now = thread.look_at_clock();
                let since = awaiting.waiting.since_ns();
                if now >= awaiting.until_ns {
                    return Err(Cause::Deadline);
                }
                // While the client still sends, the node owes nothing.
                let Some(since) = since else { continue };
                if now >= since.saturating_add(response_timeout) {
                    return Err(Cause::ResponseTimeout);
                }
                if (awaiting.give_up)(since, now) {
                    return Err(Cause::ResponseTimeout);
                }
                let node = awaiting.node;
                let last = node.last_traffic_head_ns();
                in_flight.set_lingering(lingers(since, last, node.latency_ns(), now));
            }
            Ok(Err(Cause::ConnectionTerminated)) if interim > 0 => {
                return Err(Cause::BadResponse("it ends after an interim answer"));
            }
            Ok(Err(cause)) => return Err(cause),
            Ok(Ok(length)) => {
                deadline.clear();
                let head = parse(awaiting, std::mem::take(&mut bytes), length)?;
                if !head.is_interim() {
                    return Ok(head);
                }
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(Cause::ResponseHeadTooLarge);
                }
                bytes = Box::pin(pass_interim(awaiting, head, deadline)).await?;
            }
        }
    }
}

enum Ended {
    Side(Cause),
    Time,
}

async fn read_one<S: Future<Output = Cause>>(
    awaiting: &Awaiting<'_>,
    bytes: &mut Vec<u8>,
    deadline: &Deadline,
    mut beside: Pin<&mut S>,
) -> Result<Result<usize, Cause>, Ended> {
    let mut scanner = Scanner::default();
    poll_fn(|cx| {
        let lent = (&mut *bytes, &awaiting.client.thread.buffers);
        if let Poll::Ready(read) = poll_head(awaiting.socket, cx, lent, LIMITS, &mut scanner) {
            return Poll::Ready(Ok(outcome(read, bytes.is_empty(), awaiting.socket)));
        }
        if let Poll::Ready(cause) = beside.as_mut().poll(cx) {
            return Poll::Ready(Err(Ended::Side(cause)));
        }
        deadline.poll(cx).map(|_| Err(Ended::Time))
    })
    .await
}

fn outcome(
    read: io::Result<Result<HeadRead, Violation>>,
    nothing_came: bool,
    socket: &Socket,
) -> Result<usize, Cause> {
    match read {
        Ok(Ok(HeadRead::Head(length))) => Ok(length),
        Ok(Ok(HeadRead::Ended(_))) | Err(_) if nothing_came => Err(terminated(socket)),
        Ok(Ok(HeadRead::Ended(_))) | Err(_) => Err(Cause::BadResponse("it ends within its head")),
        Ok(Err(violation)) => Err(response_cause(violation)),
    }
}

fn parse(awaiting: &Awaiting<'_>, bytes: Vec<u8>, length: usize) -> Result<ResponseHead, Cause> {
    let fields = awaiting.client.thread.buffers.fields();
    ResponseHead::parse(bytes, length, fields, awaiting.to_head).map_err(response_cause)
}

/// A connection that ended before the head of an answer. In TLS 1.3 a node judges our certificate after our
/// handshake is done, and says then what it does not like. A request that cannot be said to it is none of its faults.
pub fn terminated(socket: &Socket) -> Cause {
    if socket.fate() == Fate::Unsayable {
        return Cause::BadRequest("it has no form in HTTP/2, which the nodes speak");
    }
    match socket.tls().and_then(Secure::failure) {
        Some(why) => Cause::NodeTls(why.to_string().into()),
        None => Cause::ConnectionTerminated,
    }
}

/// What a node's violation is to the client.
pub fn response_cause(violation: Violation) -> Cause {
    match violation {
        Violation::Malformed(what) | Violation::NotImplemented(what) => Cause::BadResponse(what),
        Violation::Expectation => Cause::BadResponse("an odd expectation"),
        Violation::HeadTooLarge | Violation::LineTooLong | Violation::TooManyFields => {
            Cause::ResponseHeadTooLarge
        }
    }
}

/// Passes an interim answer on, and returns what was read after it.
async fn pass_interim(
    awaiting: &Awaiting<'_>,
    head: ResponseHead,
    deadline: &Deadline,
) -> Result<Vec<u8>, Cause> {
    // A 100 that the client does not wait for would be taken for its answer by old clients.
    let wanted = awaiting.interim && (head.status != 100 || awaiting.expects_continue);
    let buffers = &awaiting.client.thread.buffers;
    if wanted {
        let mut out = buffers.small();
        headers::write_interim(&mut out, &head);
        awaiting.client.write([&out, &[], &[]], deadline).await?;
        buffers.give_back(out);
    }
    let ResponseHead { mut bytes, length_of_head, fields, .. } = head;
    buffers.give_back_fields(fields);
    bytes.drain(..length_of_head);
    Ok(bytes)
}

/// Whether an answer is a refusal.
pub enum Refused {
    /// It is none.
    No,
    /// It may be one, and nothing can prove it: no body, too long, or not whole in time.
    Unproven,
    /// It is.
    Proven(Refusal),
}

/// Whether an answer may be a refusal, by its head.
pub fn may_refuse(awaiting: &Awaiting<'_>, head: &ResponseHead) -> bool {
    let nocobase = awaiting.settings.preset == config::Preset::NocoBase;
    nocobase && matches!(head.status, 404 | 500 | 503) && is_json(head)
}

/// Reads the body of an answer that may be a refusal, keeping it to be passed on.
///
/// # Errors
/// The connection ended within it.
pub async fn refused(
    awaiting: &Awaiting<'_>,
    head: &mut ResponseHead,
    deadline: &Deadline,
) -> Result<Refused, Cause> {
    if awaiting.to_head || head.length.is_some_and(|length| length > MAX_REFUSAL as u64) {
        return Ok(Refused::Unproven);
    }
    let Some(data) = small_body(awaiting, head, deadline).await? else {
        return Ok(Refused::Unproven);
    };
    let kind = head.value(Known::ContentType).and_then(|kind| str::from_utf8(kind).ok());
    Ok(nocobase::parse_refusal(head.status, kind, &data).map_or(Refused::No, Refused::Proven))
}

/// The data of a small body, if it is one; what was read for it stays behind the head.
async fn small_body(
    awaiting: &Awaiting<'_>,
    head: &mut ResponseHead,
    deadline: &Deadline,
) -> Result<Option<Vec<u8>>, Cause> {
    let mut body = Body::new(head.framing);
    let mut data = Vec::new();
    let mut at = head.length_of_head;
    while !body.is_done() {
        let Ok(step) = body.step(&head.bytes[at..]) else { return Ok(None) };
        data.extend_from_slice(&head.bytes[at + step.skip..at + step.skip + step.data]);
        at += step.skip + step.data;
        if data.len() > MAX_REFUSAL || at - head.length_of_head > 2 * MAX_REFUSAL {
            return Ok(None);
        }
        if step.data == 0 && !body.is_done() {
            deadline.set(REFUSAL_TIME);
            let read = poll_fn(|cx| awaiting.socket.poll_read(cx, &mut head.bytes, 4096));
            let read = deadline.guard(read).await;
            deadline.clear();
            match read {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) if body.end_of_stream() => {}
                // Nobody has seen any of it: it is told whole, or not at all.
                Ok(_) => return Err(Cause::ResponseIncomplete),
                Err(_) => return Ok(None),
            }
        }
    }
    Ok(Some(data))
}

/// For the few hundred bytes after a head: the gateway writes both at once.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

fn is_json(head: &ResponseHead) -> bool {
    let kind = head.value(Known::ContentType).unwrap_or_default();
    kind.len() >= 16 && kind[..16].eq_ignore_ascii_case(b"application/json")
}
