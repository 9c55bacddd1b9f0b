//! A client's stream as a socket: the request's body is read from it, and an answer is written to it.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};

use super::body::{Inflow, Outflow};
use super::broken;
use super::gate::Gate;
use super::head::{self, Answer, Asks};
use crate::http1::body::Framing;
use crate::net::{Idle, Stream};

/// Bytes of a head of an answer at most: those of nodes are bounded before, and gain a few fields of ours.
const MAX_HEAD: usize = 64 * 1024;

/// One stream that a client has opened.
pub struct ClientStream {
    state: RefCell<State>,
    gate: Rc<Gate>,
    encrypted: bool,
}

struct State {
    inflow: Inflow,
    out: Out,
    asks: Asks,
    /// The client has reset it, or has gone.
    gone: bool,
    /// It is to be reset even if all was sent: what waits may go nowhere.
    cut: bool,
}

enum Out {
    /// No final head was sent; a part of one may be there.
    Head { respond: SendResponse<Bytes>, partial: Vec<u8> },
    /// The final head was sent.
    Body(Outflow),
}

impl ClientStream {
    /// A stream whose head has come. `framing` is the one of the request's body.
    pub fn new(
        (recv, respond): (RecvStream, SendResponse<Bytes>),
        framing: Framing,
        asks: Asks,
        gate: Rc<Gate>,
        encrypted: bool,
    ) -> ClientStream {
        let comes = !recv.is_end_stream();
        let inflow = match asks {
            Asks::WebSocket => Inflow::opaque(recv),
            Asks::Body | Asks::Head => Inflow::new(recv, framing),
        };
        if comes {
            gate.expect_body(inflow.source());
        }
        let out = Out::Head { respond, partial: Vec::new() };
        let state = State { inflow, out, asks, gone: false, cut: false };
        ClientStream { state: RefCell::new(state), gate, encrypted }
    }
}

impl Stream for ClientStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        let more = state.inflow.poll_ready(cx);
        if more.is_ready() && (state.inflow.has_some() || state.inflow.is_at_end()) {
            return Poll::Ready(Ok(()));
        }
        // The whole request has come; what can still happen is that its client does not want the answer.
        ready!(state.poll_gone(cx));
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, take: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        match state.inflow.try_read(take) {
            Err(_) if state.gone => Err(io::ErrorKind::ConnectionReset.into()),
            other => other.inspect(|taken| self.gate.take(*taken)),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        match &mut state.out {
            Out::Head { .. } => Poll::Ready(Ok(())),
            Out::Body(outflow) => {
                ready!(outflow.poll_ready(cx))?;
                self.gate.poll_room(cx).map(Ok)
            }
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let mut used = 0;
        for (nth, slice) in slices.iter().enumerate() {
            let taken = state.take_heads(slice)?;
            used += taken;
            let Out::Body(outflow) = &mut state.out else { continue };
            let was_over = outflow.is_over();
            match outflow.try_write(&slice[taken..], &slices[nth + 1..], &self.gate) {
                Ok(more) => used += more,
                // The head has gone.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && used > 0 => {}
                Err(error) => return Err(error),
            }
            if outflow.is_over() && (taken > 0 || !was_over) {
                self.gate.complete();
            }
            break;
        }
        Ok(used)
    }

    fn shutdown_write(&self) {
        if let Out::Body(outflow) = &mut self.state.borrow_mut().out {
            outflow.end();
        }
    }

    fn reset_on_drop(&self) {
        self.state.borrow_mut().cut = true;
    }

    fn peek_idle(&self) -> Idle {
        let state = self.state.borrow();
        match state.inflow.has_some() {
            true => Idle::Dirty,
            false if state.gone || state.inflow.is_at_end() => Idle::Closed,
            false => Idle::Clean,
        }
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let state = &mut *self.state.borrow_mut();
        if state.poll_gone(cx).is_ready() {
            return Poll::Ready(true);
        }
        ready!(state.inflow.poll_ready(cx));
        match state.inflow.has_some() || state.inflow.is_at_end() {
            true => Poll::Ready(state.inflow.is_at_end()),
            false => Poll::Pending,
        }
    }

    fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

impl State {
    /// Both ways, and so that nothing is left to be said.
    fn has_ended(&self) -> bool {
        let sent = matches!(&self.out, Out::Body(outflow) if outflow.is_over());
        sent && !self.cut && self.inflow.has_ended()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.gone {
            match &mut self.out {
                Out::Head { respond, .. } => drop(ready!(respond.poll_reset(cx))),
                Out::Body(outflow) => ready!(outflow.poll_reset(cx)),
            }
            self.gone = true;
        }
        Poll::Ready(())
    }

    /// Sends the heads that `bytes` begin with, interim ones too. Returns how much belonged to them.
    fn take_heads(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        while let Out::Head { partial, .. } = &mut self.out
            && used < bytes.len()
        {
            let rest = &bytes[used..];
            if partial.is_empty()
                && let Some(length) = head::end_of(rest)
            {
                self.send_head(head::answer(&rest[..length], self.asks)?)?;
                used += length;
                continue;
            }
            used += self.gather_head(rest)?;
        }
        Ok(used)
    }

    fn gather_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Out::Head { partial, .. } = &mut self.out else { return Ok(0) };
        let (whole, used) = head::gather(partial, bytes, MAX_HEAD)?;
        if let Some(whole) = whole {
            self.send_head(head::answer(&whole, self.asks)?)?;
        }
        Ok(used)
    }

    fn send_head(&mut self, answer: Answer) -> io::Result<()> {
        let Out::Head { respond, .. } = &mut self.out else { return Ok(()) };
        let Answer { response, framing } = answer;
        if response.status().is_informational() {
            return respond.send_informational(response).map_err(broken);
        }
        let ends = framing == Framing::Empty;
        let send = respond.send_response(response, ends).map_err(broken)?;
        self.out = Out::Body(Outflow::new(send, framing));
        Ok(())
    }
}

impl Drop for ClientStream {
    /// Before the stream's last handle is gone, so that the library can let go of it.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        self.gate.forget_body(state.inflow.source());
        if !state.has_ended() {
            self.gate.leave_unended();
        }
    }
}

impl Drop for State {
    /// An answer that is not whole must not look so.
    fn drop(&mut self) {
        match &mut self.out {
            Out::Head { respond, .. } => respond.send_reset(Reason::INTERNAL_ERROR),
            // As a socket that is closed (RFC 8441, 5).
            Out::Body(outflow) if self.asks == Asks::WebSocket && !self.cut => outflow.end(),
            Out::Body(outflow) if self.cut || !outflow.is_over() => {
                outflow.reset(Reason::INTERNAL_ERROR);
            }
            Out::Body(_) => {}
        }
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("encrypted", &self.encrypted).finish_non_exhaustive()
    }
}
