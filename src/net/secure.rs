//! A TLS stream that is polled like a plain one.
//!
//! It holds no buffer while nothing moves: what comes from the kernel lies in `incoming` until it is a whole
//! record, what is not taken by the kernel in `outgoing`, and both are freed when they are empty. A write is
//! only acknowledged when the records that carry it are with the kernel; until then the caller must offer
//! the same bytes again, which all callers do.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ServerConfig};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Idle;

mod end;
mod owed;
mod session;
mod spare;

use end::End;
use owed::Owed;
use session::{Buffers, Job, Session};

/// Plaintext of one record at most (RFC 8446, 5.1).
const RECORD: usize = 16 * 1024;
/// Room for the largest record on the wire: TLS 1.2 allows 2 KiB of expansion, and there is a header.
const RECORD_ON_WIRE: usize = RECORD + 2048 + 5;
/// Plaintext that is sealed for one write.
const GATHER: usize = owed::MOST * RECORD;
/// What may wait for the end of a message of the handshake: a stranger can make us hold that much. A hello
/// with post-quantum keys has 2 KiB, a chain of a client's certificates some more.
const MAX_HANDSHAKE: usize = 32 * 1024;
/// What may wait afterwards: a whole record and the begin of the next. No message of the handshake that a
/// client may still send is longer.
const MAX_FROM_CLIENT: usize = 2 * RECORD_ON_WIRE;
/// A node may send tickets as long as it likes, and is ours.
const MAX_FROM_NODE: usize = 128 * 1024;

/// A TLS connection. Methods take `&self`, so that both directions can be polled in one task.
pub struct Secure {
    stream: TcpStream,
    state: RefCell<State>,
}

struct State {
    session: Session,
    /// From the kernel; used up to `used`.
    incoming: Vec<u8>,
    used: usize,
    /// Deciphered and not taken yet, from `taken` on.
    plain: Vec<u8>,
    taken: usize,
    /// For the kernel; written up to `sent`.
    outgoing: Vec<u8>,
    sent: usize,
    /// Plaintext of the records in `outgoing` that nobody was told of yet, each with where its record ends.
    owed: Owed,
    /// The stream has ended for the reader.
    ended: Option<End>,
    /// Our close_notify is in `outgoing`, or sent.
    said_goodbye: bool,
    /// Why TLS broke.
    failure: Option<Box<rustls::Error>>,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended or broke.
    #[error("{0}")]
    Closed(io::Error),
    /// The peer's messages, or its wishes, cannot be met.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The messages of its handshake are larger than any honest one.
    #[error("the handshake is too large")]
    TooLarge,
}

impl Secure {
    /// The server's side; `read` is what was read of the stream already.
    ///
    /// # Errors
    /// The configuration and the library do not agree.
    pub fn accept(
        stream: TcpStream,
        config: Arc<ServerConfig>,
        read: Vec<u8>,
    ) -> Result<Secure, rustls::Error> {
        let session = Session::server(UnbufferedServerConnection::new(config)?);
        let mut secure = Secure::new(stream, session);
        secure.state.get_mut().incoming = read;
        Ok(secure)
    }

    /// The client's side.
    ///
    /// # Errors
    /// The configuration and the library do not agree.
    pub fn connect(
        stream: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Secure, rustls::Error> {
        Ok(Secure::new(stream, Session::client(UnbufferedClientConnection::new(config, name)?)))
    }

    fn new(stream: TcpStream, session: Session) -> Secure {
        let state = State {
            session,
            incoming: Vec::new(),
            used: 0,
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            owed: Owed::default(),
            ended: None,
            said_goodbye: false,
            failure: None,
        };
        Secure { stream, state: RefCell::new(state) }
    }

    /// Looks at what both sides agreed on.
    pub fn with_session<T>(&self, look: impl FnOnce(&CommonState) -> T) -> T {
        look(self.state.borrow().session.common())
    }

    /// Advances the handshake. Ready when it is done and everything that belongs to it is with the kernel.
    pub fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<Result<(), HandshakeError>> {
        let mut state = self.state.borrow_mut();
        loop {
            let result = state.process(&mut |_| 0, Job::None);
            if let Err(error @ Error::InvalidMessage(InvalidMessage::InvalidContentType)) = result {
                // No TLS at all: an alert would be noise before what is said to it plainly.
                return Poll::Ready(Err(error.into()));
            }
            // An alert says to the peer what is wrong; it goes even though nothing else will.
            let flushed = self.poll_flush(&mut state, cx);
            result?;
            ready!(flushed).map_err(HandshakeError::Closed)?;
            if !state.session.common().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if state.incoming.len() - state.used > MAX_HANDSHAKE {
                return Poll::Ready(Err(HandshakeError::TooLarge));
            }
            ready!(self.poll_fill(&mut state, cx)).map_err(HandshakeError::Closed)?;
        }
    }

    fn poll_fill(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match state.fill(&self.stream) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match state.flush(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
            ready!(self.stream.poll_write_ready(cx))?;
        }
    }

    /// Reads what is there now. `take` is offered pieces in order and says how much of each it has taken;
    /// the rest is kept. 0 is the end of the stream.
    pub(super) fn try_read(&self, take: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let kept = state.give(take);
        if kept > 0 {
            return Ok(kept);
        }
        loop {
            if let Some(end) = state.ended {
                return end.into();
            }
            match state.fill(&self.stream) {
                Ok(0) => state.ended = Some(state.session.bare_end()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let taken = state.take_in(take);
            // What TLS itself has to say goes now, or with the next write.
            let _ = state.flush(&self.stream);
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    /// Bytes of memory that its buffers take: records that are not whole, or not with the kernel.
    pub(super) fn held(&self) -> usize {
        let State { incoming, plain, outgoing, .. } = &*self.state.borrow();
        incoming.capacity() + plain.capacity() + outgoing.capacity()
    }

    /// The stream beneath, to ask what the runtime knows of it.
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// Ready when a read would not wait, or the kernel has something that may come to nothing.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.state.borrow();
        match state.has_plain() || state.ended.is_some() {
            true => Poll::Ready(Ok(())),
            false => self.stream.poll_read_ready(cx),
        }
    }

    /// Ready when a write would not wait.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write_ready(cx)
    }

    /// Writes what fits now. After `WouldBlock` the same bytes must be offered again.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(slices, false)
    }

    /// Writes what fits now, and says that nothing follows, in one piece if it is not too large.
    pub(super) fn try_write_last(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write(&[IoSlice::new(bytes)], bytes.len() <= GATHER)
    }

    fn write(&self, slices: &[IoSlice<'_>], last: bool) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        // Also if a read has sent the rest of it meanwhile: nobody was told.
        if !state.outgoing.is_empty() || !state.owed.is_empty() {
            state.owed.check(slices);
            let done = state.push(&self.stream)?;
            if done > 0 {
                // These very bytes were offered before.
                return Ok(done);
            }
        }
        state.seal(slices)?;
        if last {
            state.say_goodbye();
        }
        state.push(&self.stream)
    }

    /// Writes past TLS what fits, to a peer that does not speak it. Nothing may follow.
    pub fn say_plainly(&self, text: &[u8]) {
        // It may be gone already. What it sent is read, so that closing does not reset the words away.
        let _ = self.stream.try_write(text);
        self.shutdown();
        let _ = self.stream.try_read(&mut [0; 4096]);
    }

    /// Why TLS broke, if it did: an alert of the peer, perhaps one that nobody has read yet.
    pub fn failure(&self) -> Option<Error> {
        // What there is to read decides; an end without words is no failure of TLS.
        let _ = self.peek_idle();
        self.state.borrow().failure.as_deref().cloned()
    }

    /// Looks at an idle connection without waiting. Words of TLS itself, such as the tickets that a server
    /// sends when it likes, are taken and are no answer.
    pub(super) fn peek_idle(&self) -> Idle {
        let mut state = self.state.borrow_mut();
        loop {
            if state.has_plain() {
                return Idle::Dirty;
            }
            if state.ended.is_some() {
                return Idle::Closed;
            }
            match state.fill_raw(&self.stream) {
                Err(rustix::io::Errno::AGAIN) => return Idle::Clean,
                Ok(0) | Err(_) => return Idle::Closed,
                Ok(_) => drop(state.take_in(&mut |_| 0)),
            }
        }
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl State {
    fn has_plain(&self) -> bool {
        self.taken < self.plain.len()
    }

    /// Offers what is deciphered already.
    fn give(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        if !self.has_plain() {
            return 0;
        }
        let given = take(&self.plain[self.taken..]);
        self.taken += given;
        if !self.has_plain() {
            self.taken = 0;
            spare::give_back(std::mem::take(&mut self.plain));
        }
        given
    }

    /// Deciphers what has come, and notes how it ends. Returns how much was taken; 0 if nothing came.
    fn take_in(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let mut taken = 0;
        let mut count = |piece: &[u8]| {
            let n = take(piece);
            taken += n;
            n
        };
        // An error is noted, and told to whoever reads next.
        let _ = self.process(&mut count, Job::None);
        if self.incoming.len() - self.used > self.session.max_incoming() {
            self.ended = Some(End::Broken);
        }
        taken
    }

    /// Room for what comes next: much if much is expected.
    fn make_room(&mut self) -> usize {
        if self.used > 0 {
            self.incoming.drain(..std::mem::take(&mut self.used));
        }
        if self.incoming.capacity() == 0 {
            self.incoming = spare::take();
        }
        self.incoming.reserve(RECORD_ON_WIRE);
        self.incoming.capacity() - self.incoming.len()
    }

    /// Reads from the kernel; 0 is the end.
    fn fill(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let room = self.make_room();
        let read = stream.try_read_buf(&mut self.incoming);
        if matches!(read, Ok(n) if n > 0 && n < room) {
            // As for plain sockets: it is empty, and the runtime need not ask.
            let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = stream.try_io(Interest::READABLE, empty);
        }
        self.free_empty();
        read
    }

    /// The same past the runtime, whose knowledge of an idle connection may be old.
    fn fill_raw(&mut self, stream: &TcpStream) -> Result<usize, rustix::io::Errno> {
        let mut buffer = [0; 1024];
        let (_, read) = rustix::net::recv(stream, &mut buffer, RecvFlags::DONTWAIT)?;
        self.make_room();
        self.incoming.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    fn free_empty(&mut self) {
        if self.used == self.incoming.len() {
            self.used = 0;
            spare::give_back(std::mem::take(&mut self.incoming));
        }
    }

    /// Writes `outgoing` down to nothing.
    fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            let written = match self.said_goodbye {
                // It leaves together with the end of our direction, which follows at once.
                true => stream.try_io(Interest::WRITABLE, || {
                    let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    Ok(rustix::net::send(stream, rest, flags)?)
                }),
                false => stream.try_write(rest),
            };
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.sent += n,
            }
        }
        self.sent = 0;
        spare::give_back(std::mem::take(&mut self.outgoing));
        Ok(())
    }

    /// Plaintext whose records are with the kernel since this was asked last.
    fn acknowledge(&mut self) -> usize {
        self.owed.settle(if self.outgoing.is_empty() { usize::MAX } else { self.sent })
    }

    /// Writes on; returns the plaintext that has left by it.
    fn push(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let flushed = self.flush(stream);
        match (self.acknowledge(), flushed) {
            (0, flushed) => flushed.map(|()| 0),
            (done, _) => Ok(done),
        }
    }

    /// Seals the first bytes of the slices.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut left = GATHER;
        let mut gathered = spare::take();
        for (nth, slice) in slices.iter().enumerate() {
            let part = &slice[..slice.len().min(left)];
            left -= part.len();
            if nth + 1 == slices.len() && gathered.is_empty() {
                spare::give_back(gathered);
                return self.seal_records(part);
            }
            gathered.extend_from_slice(part);
        }
        let sealed = self.seal_records(&gathered);
        spare::give_back(gathered);
        sealed
    }

    fn seal_records(&mut self, plain: &[u8]) -> io::Result<()> {
        if self.outgoing.capacity() == 0 {
            self.outgoing = spare::take();
        }
        for record in plain.chunks(RECORD) {
            self.process(&mut |_| 0, Job::Seal(record)).map_err(io::Error::other)?;
            self.owed.push(self.outgoing.len(), record);
        }
        Ok(())
    }

    fn say_goodbye(&mut self) {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            // A session that is broken has said what it had to say.
            let _ = self.process(&mut |_| 0, Job::Goodbye);
        }
    }

    /// Lets the session work on what has come, until it waits for more or for us.
    fn process(&mut self, take: &mut dyn FnMut(&[u8]) -> usize, job: Job<'_>) -> Result<(), Error> {
        if self.ended == Some(End::Broken) {
            return Err(Error::DecryptError);
        }
        let State { session, incoming, used, plain, taken, outgoing, .. } = self;
        let mut sink = |piece: &[u8]| {
            let gone = if *taken < plain.len() { 0 } else { take(piece) };
            if gone < piece.len() {
                if plain.capacity() == 0 {
                    *plain = spare::take();
                }
                plain.extend_from_slice(&piece[gone..]);
            }
        };
        let worked = session.work(Buffers { incoming, used, outgoing }, &mut sink, job);
        self.free_empty();
        match &worked {
            Ok(false) => {}
            Ok(true) => self.ended = Some(End::Clean),
            Err(error) => {
                self.ended = Some(End::Broken);
                self.failure.get_or_insert_with(|| Box::new(error.clone()));
            }
        }
        worked.map(drop)
    }
}
