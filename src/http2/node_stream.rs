//! A stream to a node as a socket: a request in HTTP/1.1 is written to it, and the answer is read from it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::Response;

use super::body::{Inflow, Outflow};
use super::broken;
use super::gate::Gate;
use super::head::{self, Asks};
use super::node_head::{self, Asked};
use super::wire::Wire;
use crate::http1::body::Framing;
use crate::net::{Fate, Idle, Stream};

/// Bytes of a head of a request at most: those of clients are bounded before, and gain a few fields of ours.
const MAX_HEAD: usize = 128 * 1024;

/// What the streams of one connection to a node share.
pub struct Trunk {
    /// The connection.
    pub wire: Rc<Wire>,
    /// Bounds what waits for it, and knows what has come.
    pub gate: Gate,
    /// The node has refused a stream, or is about to close: no more are to be opened.
    pub spent: Cell<bool>,
}

/// One stream that we open.
pub struct NodeStream {
    state: RefCell<State>,
    trunk: Rc<Trunk>,
    /// What counts the stream as open.
    _place: Box<dyn std::any::Any>,
}

struct State {
    request: Out,
    answer: In,
    asks: Asks,
    accept: Option<String>,
    /// Heads that were not read yet, from `at` on.
    lead: Vec<u8>,
    at: usize,
    /// What the kernel had taken of the connection when the request began.
    written: u64,
    fate: Fate,
    encrypted: bool,
}

enum Out {
    /// The head was not sent; a part of one may be there.
    Head { send: SendRequest<Bytes>, partial: Vec<u8> },
    /// The head was sent.
    Body(Outflow),
}

enum In {
    /// Nothing was asked yet.
    Nothing,
    /// Interim answers may come, and the final one.
    Head(ResponseFuture),
    /// The final head came.
    Body(Inflow),
    /// It was reset, or its connection is gone.
    Broken,
}

impl NodeStream {
    /// A stream that is opened by the head that is written to it. `place` is dropped with it.
    pub fn new(
        send: SendRequest<Bytes>,
        trunk: Rc<Trunk>,
        place: Box<dyn std::any::Any>,
    ) -> NodeStream {
        let state = State {
            request: Out::Head { send, partial: Vec::new() },
            answer: In::Nothing,
            asks: Asks::Body,
            accept: None,
            lead: Vec::new(),
            at: 0,
            written: 0,
            fate: Fate::Unknown,
            encrypted: trunk.wire.socket().is_encrypted(),
        };
        NodeStream { state: RefCell::new(state), trunk, _place: place }
    }
}

impl Stream for NodeStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().poll_answer(cx, &self.trunk).map(Ok)
    }

    fn try_read(&self, take: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let mut given = 0;
        if state.has_lead() {
            given = take(&state.lead[state.at..]);
            state.at += given;
            if state.has_lead() {
                return Ok(given);
            }
            (state.lead, state.at) = (Vec::new(), 0);
        }
        let more = match &mut state.answer {
            In::Nothing | In::Head(_) => Err(io::ErrorKind::WouldBlock.into()),
            In::Body(inflow) => inflow.try_read(take),
            In::Broken => Err(io::ErrorKind::ConnectionReset.into()),
        };
        match more {
            // The head goes first, whatever comes after it.
            Err(_) if given > 0 => Ok(given),
            more => more.map(|more| given + more),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state.borrow_mut().request {
            Out::Head { .. } => Poll::Ready(Ok(())),
            Out::Body(outflow) => {
                ready!(outflow.poll_ready(cx))?;
                self.trunk.gate.poll_room(cx).map(Ok)
            }
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let gate = &self.trunk.gate;
        let mut used = 0;
        for (nth, slice) in slices.iter().enumerate() {
            let taken = state.take_head(slice, &self.trunk)?;
            used += taken;
            let Out::Body(outflow) = &mut state.request else { continue };
            match outflow.try_write(&slice[taken..], &slices[nth + 1..], gate) {
                Ok(more) => used += more,
                // The head has gone.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && used > 0 => {}
                Err(error) => return Err(error),
            }
            break;
        }
        Ok(used)
    }

    fn shutdown_write(&self) {
        if let Out::Body(outflow) = &mut self.state.borrow_mut().request {
            outflow.end();
        }
    }

    /// It is, unless both directions have ended.
    fn reset_on_drop(&self) {}

    fn peek_idle(&self) -> Idle {
        let state = self.state.borrow();
        match &state.answer {
            _ if state.has_lead() => Idle::Dirty,
            In::Body(inflow) if inflow.has_some() => Idle::Dirty,
            In::Body(inflow) if inflow.is_at_end() => Idle::Closed,
            In::Broken => Idle::Closed,
            In::Nothing | In::Head(_) | In::Body(_) => Idle::Clean,
        }
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool> {
        ready!(self.state.borrow_mut().poll_answer(cx, &self.trunk));
        Poll::Ready(self.peek_idle() == Idle::Closed)
    }

    fn is_encrypted(&self) -> bool {
        self.state.borrow().encrypted
    }

    fn fate(&self) -> Fate {
        self.state.borrow().fate
    }
}

impl State {
    fn has_lead(&self) -> bool {
        self.at < self.lead.len()
    }

    /// Ready when there is something to be read, if only that it is broken.
    fn poll_answer(&mut self, cx: &mut Context<'_>, trunk: &Trunk) -> Poll<()> {
        while !self.has_lead() {
            match &mut self.answer {
                // Whoever writes the head asks again.
                In::Nothing => return Poll::Pending,
                In::Broken => break,
                In::Head(response) => match ready!(poll_head(response, cx)) {
                    Ok((answer, recv)) => self.begin(&answer, recv, &trunk.gate),
                    Err(error) => self.fail(&error, trunk),
                },
                In::Body(inflow) => {
                    ready!(inflow.poll_ready(cx));
                    if inflow.has_some() || inflow.is_at_end() {
                        break;
                    }
                    // All has come, and a node says nothing after that.
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    /// A head has come; what is interim comes without a stream.
    fn begin(&mut self, answer: &Response<()>, recv: Option<RecvStream>, gate: &Gate) {
        (self.lead, self.at) = (Vec::with_capacity(512), 0);
        let ended = recv.as_ref().is_some_and(RecvStream::is_end_stream);
        let asked = (self.asks, self.accept.as_deref());
        let framing = node_head::write_answer(&mut self.lead, answer, asked, ended);
        let Some(recv) = recv else { return };
        let inflow = match framing {
            Framing::UntilClose => Inflow::opaque(recv),
            framing => Inflow::new(recv, framing),
        };
        if !ended {
            gate.expect_body(inflow.source());
        }
        self.answer = In::Body(inflow);
    }

    /// There will be no answer. Whether its request was worked on is known of streams that were refused, of
    /// those above the last that a GOAWAY names (RFC 9113, 8.7), and of what never came to the kernel.
    fn fail(&mut self, error: &h2::Error, trunk: &Trunk) {
        self.answer = In::Broken;
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let told = error.is_remote() && (error.is_go_away() || refused);
        if told {
            trunk.spent.set(true);
        }
        self.fate = match error.is_reset() {
            _ if told || trunk.wire.written() == self.written => Fate::Unprocessed,
            true => Fate::Reset,
            false => Fate::Unknown,
        };
    }

    /// Sends the head that `bytes` begin with, or gathers it. Returns how much belonged to it.
    fn take_head(&mut self, bytes: &[u8], trunk: &Trunk) -> io::Result<usize> {
        let Out::Head { partial, .. } = &mut self.request else { return Ok(0) };
        if partial.is_empty()
            && let Some(length) = head::end_of(bytes)
        {
            self.send_head(&bytes[..length], trunk)?;
            return Ok(length);
        }
        let (whole, used) = head::gather(partial, bytes, MAX_HEAD)?;
        if let Some(whole) = whole {
            self.send_head(&whole, trunk)?;
        }
        Ok(used)
    }

    fn send_head(&mut self, bytes: &[u8], trunk: &Trunk) -> io::Result<()> {
        let Out::Head { send, .. } = &mut self.request else { return Ok(()) };
        let asked = node_head::request(bytes, self.encrypted);
        let asked = asked.inspect_err(|_| self.fate = Fate::Unsayable);
        let Asked { request, framing, asks, accept } = asked?;
        let ends = framing == Framing::Empty;
        let (response, stream) = send.send_request(request, ends).map_err(broken)?;
        self.written = trunk.wire.written();
        self.answer = In::Head(response);
        self.request = Out::Body(Outflow::new(stream, framing));
        (self.asks, self.accept) = (asks, accept);
        Ok(())
    }
}

/// A head, and what follows it unless it is interim.
type Head = (Response<()>, Option<RecvStream>);

/// The next head.
fn poll_head(response: &mut ResponseFuture, cx: &mut Context<'_>) -> Poll<Result<Head, h2::Error>> {
    // Both wait for the same: whoever finds nothing leaves the waker where the other one does.
    if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
        return Poll::Ready(interim.map(|answer| (answer, None)));
    }
    let (parts, recv) = ready!(Pin::new(response).poll(cx))?.into_parts();
    Poll::Ready(Ok((Response::from_parts(parts, ()), Some(recv))))
}

impl Drop for NodeStream {
    /// Before the stream's last handle is gone, so that the library can let go of it.
    fn drop(&mut self) {
        if let In::Body(inflow) = &self.state.borrow().answer {
            self.trunk.gate.forget_body(inflow.source());
        }
    }
}

impl Drop for State {
    /// What is not whole is no longer wanted. The library would take a stream that has ended both ways for one that
    /// was reset as well, and has few places for those.
    fn drop(&mut self) {
        let Out::Body(outflow) = &mut self.request else { return };
        let ended = || matches!(&self.answer, In::Body(inflow) if inflow.has_ended());
        if !(outflow.is_over() && ended()) {
            outflow.reset(Reason::CANCEL);
        }
    }
}

impl fmt::Debug for NodeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeStream").finish_non_exhaustive()
    }
}
