//! Bodies between a stream of HTTP/2 and the framing of HTTP/1.1, in both directions.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::gate::Gate;
use super::source::Source;
use super::{broken, head, malformed};
use crate::http1::body::Framing;
use crate::http1::chunked::Decoder;

/// Data that is given to the library in one piece at most.
const MAX_PIECE: usize = 64 * 1024;

/// What comes in on a stream, as HTTP/1.1 would have it.
pub struct Inflow {
    source: Rc<RefCell<Source>>,
    chunked: bool,
    /// The end of the stream is the end of what can be read; else the peer is merely silent after it.
    ends: bool,
    stage: Stage,
    /// Framing, or a head, before `data`; given up to `at`.
    lead: Vec<u8>,
    at: usize,
    data: Bytes,
    /// What the announced length leaves; none without one.
    left: Option<u64>,
    /// The piece that ends the announced length, until it is known that nothing follows it: a message with
    /// more than it announces is malformed, and must not be passed on as a whole one (RFC 9113, 8.1.1).
    held: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Data may come; some has, if that is so.
    Data { begun: bool },
    /// All data has come, and what follows it is awaited.
    Trailers { begun: bool },
    /// All has come.
    Ended,
    /// It was reset, or its connection is gone.
    Broken,
}

impl Inflow {
    /// A body in this framing. With `Empty` nothing is expected.
    pub fn new(recv: RecvStream, framing: Framing) -> Inflow {
        let chunked = framing == Framing::Chunked;
        let left = match framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let (lead, data, held) = (Vec::new(), Bytes::new(), Bytes::new());
        let stage = Stage::Data { begun: false };
        let source = Rc::new(RefCell::new(Source::new(recv)));
        Inflow { source, chunked, ends: false, stage, lead, at: 0, data, left, held }
    }

    /// Bytes without framing, to the end of the stream.
    pub fn opaque(recv: RecvStream) -> Inflow {
        Inflow { ends: true, ..Inflow::new(recv, Framing::UntilClose) }
    }

    /// What has come and was not taken.
    pub fn source(&self) -> &Rc<RefCell<Source>> {
        &self.source
    }

    /// There is something to be given.
    pub fn has_some(&self) -> bool {
        self.at < self.lead.len() || !self.data.is_empty()
    }

    /// All has come, and was given.
    fn is_over(&self) -> bool {
        !self.has_some() && matches!(self.stage, Stage::Ended | Stage::Broken)
    }

    /// The peer has ended the stream, whatever was taken of it; nothing more is.
    pub fn has_ended(&self) -> bool {
        self.source.borrow_mut().has_ended()
    }

    /// It can be read that it has ended.
    pub fn is_at_end(&self) -> bool {
        self.is_over() && (self.ends || self.stage == Stage::Broken)
    }

    /// Ready when there is something to be given, or it is over.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.has_some() {
            self.stage = match self.stage {
                Stage::Data { begun } => match ready!(self.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() => Stage::Data { begun },
                    Some(Ok(data)) => {
                        self.take_in(data, begun);
                        Stage::Data { begun: true }
                    }
                    Some(Err(_)) => Stage::Broken,
                    None if self.chunked => Stage::Trailers { begun },
                    None => {
                        self.data = std::mem::take(&mut self.held);
                        Stage::Ended
                    }
                },
                Stage::Trailers { begun } => match ready!(self.poll_trailers(cx)) {
                    Ok(trailers) => {
                        self.lead.clear();
                        self.at = 0;
                        self.lead.extend_from_slice(if begun { b"\r\n0\r\n" } else { b"0\r\n" });
                        trailers
                            .iter()
                            .for_each(|fields| head::write_fields(&mut self.lead, fields));
                        self.lead.extend_from_slice(b"\r\n");
                        Stage::Ended
                    }
                    Err(_) => Stage::Broken,
                },
                Stage::Ended | Stage::Broken => break,
            };
        }
        Poll::Ready(())
    }

    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        self.source.borrow_mut().poll_data(cx)
    }

    fn poll_trailers(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<http::HeaderMap>, h2::Error>> {
        self.source.borrow_mut().poll_trailers(cx)
    }

    /// The library refuses data beyond the announced length when it comes, which is after the piece before.
    fn take_in(&mut self, data: Bytes, begun: bool) {
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        match self.left {
            Some(0) if !self.source.borrow().is_at_end() => self.held = data,
            _ => self.frame(data, begun),
        }
    }

    /// Each piece is a chunk. Its line end goes with the next one's size: nobody waits for it.
    fn frame(&mut self, data: Bytes, begun: bool) {
        if self.chunked {
            self.lead.clear();
            self.at = 0;
            // Writing into a Vec cannot fail.
            let _ = write!(self.lead, "{}{:x}\r\n", if begun { "\r\n" } else { "" }, data.len());
        }
        self.data = data;
    }

    /// Gives what is there. 0 is the end; the peer may send as much again as was taken.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; else it was reset.
    pub fn try_read(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize> {
        if !self.has_some() {
            return match self.stage {
                Stage::Broken => Err(io::ErrorKind::ConnectionReset.into()),
                Stage::Ended if self.ends => Ok(0),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let mut given = 0;
        if self.at < self.lead.len() {
            given = take(&self.lead[self.at..]);
            self.at += given;
        }
        if self.at == self.lead.len() && !self.data.is_empty() {
            let taken = take(&self.data);
            self.data = self.data.slice(taken..);
            given += taken;
            self.source.borrow_mut().release(taken);
        }
        Ok(given)
    }
}

/// What goes out on a stream: bytes of HTTP/1.1's framing in, DATA and trailers out.
pub struct Outflow {
    send: SendStream<Bytes>,
    form: Form,
}

enum Form {
    /// So many bytes are left.
    Length(u64),
    Chunked(Box<Decoder>),
    /// Without framing, until our direction is ended.
    Opaque,
    /// The stream has ended.
    Over,
}

impl Outflow {
    /// A body in this framing. With `Empty` the stream has ended with its head.
    pub fn new(send: SendStream<Bytes>, framing: Framing) -> Outflow {
        let form = match framing {
            Framing::Empty => Form::Over,
            Framing::Length(length) => Form::Length(length),
            Framing::Chunked => Form::Chunked(Box::default()),
            Framing::UntilClose => Form::Opaque,
        };
        Outflow { send, form }
    }

    /// The stream has ended, cleanly.
    pub fn is_over(&self) -> bool {
        matches!(self.form, Form::Over)
    }

    /// Ready when the peer has room, or nothing more can be sent.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_over() || self.send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        self.send.reserve_capacity(1);
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has reset the stream, or the connection is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(cx).map(drop)
    }

    /// Sends as much of the slices as the peer, and the gate, allow. Returns how much was used.
    ///
    /// # Errors
    /// `WouldBlock` if nothing was used; odd framing; the stream is gone.
    pub fn try_write(
        &mut self,
        first: &[u8],
        more: &[IoSlice<'_>],
        gate: &Gate,
    ) -> io::Result<usize> {
        let offered = first.len() + more.iter().map(|slice| slice.len()).sum::<usize>();
        if offered == 0 {
            return Ok(0);
        }
        let wanted = match self.form {
            Form::Over => return Err(malformed("bytes after the end of a message")),
            Form::Length(left) => offered.min(usize::try_from(left).unwrap_or(usize::MAX)),
            Form::Chunked(_) | Form::Opaque => offered,
        };
        self.send.reserve_capacity(wanted.min(MAX_PIECE));
        let room = self.send.capacity().min(gate.room()).min(MAX_PIECE);
        let mut data = Vec::with_capacity(wanted.min(room));
        let mut used = 0;
        for slice in std::iter::once(first).chain(more.iter().map(|slice| &**slice)) {
            let taken = self.take(slice, room, &mut data)?;
            used += taken;
            if taken < slice.len() {
                break;
            }
        }
        if used == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.send(data, gate)?;
        Ok(used)
    }

    /// Takes one slice apart, as far as `data` may grow.
    fn take(&mut self, slice: &[u8], room: usize, data: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        while used < slice.len() {
            let (rest, free) = (&slice[used..], room - data.len());
            let (skip, length) = match &mut self.form {
                Form::Length(left) => {
                    let length = rest.len().min(free).min(usize::try_from(*left).unwrap_or(free));
                    *left -= length as u64;
                    (0, length)
                }
                Form::Chunked(decoder) => {
                    let skip = decoder.skip(rest).map_err(|_| malformed("odd chunks"))?;
                    let data = &rest[skip..rest.len().min(skip + free)];
                    let step = decoder.step(data).map_err(|_| malformed("odd chunks"))?;
                    (skip, step.data)
                }
                Form::Opaque => (0, rest.len().min(free)),
                Form::Over => (0, 0),
            };
            data.extend_from_slice(&rest[skip..skip + length]);
            used += skip + length;
            if skip + length == 0 {
                break;
            }
        }
        Ok(used)
    }

    /// Sends data, and the end of the stream if it is the last.
    fn send(&mut self, data: Vec<u8>, gate: &Gate) -> io::Result<()> {
        let (over, trailers) = match &self.form {
            Form::Length(left) => (*left == 0, None),
            Form::Chunked(decoder) if decoder.is_done() => (true, trailers(decoder)?),
            _ => (false, None),
        };
        let ends = over && trailers.is_none();
        if ends || !data.is_empty() {
            let data = if data.is_empty() { Bytes::new() } else { gate.piece(data) };
            self.send.send_data(data, ends).map_err(broken)?;
        }
        if let Some(trailers) = trailers {
            self.send.send_trailers(trailers).map_err(broken)?;
        }
        if over {
            self.form = Form::Over;
        }
        Ok(())
    }

    /// Ends our direction, where no framing does.
    pub fn end(&mut self) {
        if matches!(self.form, Form::Opaque) {
            // It fails only if the stream is gone.
            let _ = self.send.send_data(Bytes::new(), true);
            self.form = Form::Over;
        }
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: h2::Reason) {
        self.send.send_reset(reason);
    }
}

fn trailers(decoder: &Decoder) -> io::Result<Option<http::HeaderMap>> {
    match decoder.trailers() {
        [] => Ok(None),
        lines => head::trailers(lines).map(Some),
    }
}
