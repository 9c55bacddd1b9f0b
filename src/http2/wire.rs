//! A connection as the library sees it: one write for all that a turn has to say, and each frame that
//! comes is counted before it is believed.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::Gate;
use super::watch::Watch;
use crate::net::Socket;

/// What is gathered before it is written.
const FULL: usize = 64 * 1024;
/// What is read at once.
const READ: usize = 16 * 1024;

/// The connection; the library has a handle of it, and whoever runs the library another.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// Read before it was known what would be spoken.
    early: RefCell<Vec<u8>>,
    /// For the kernel, from `sent` on; without memory while there is nothing.
    out: RefCell<Vec<u8>>,
    sent: Cell<usize>,
    written: Cell<u64>,
    watch: RefCell<Watch>,
}

/// The library's handle.
#[derive(Clone, Debug)]
pub struct Handle(pub Rc<Wire>);

impl Wire {
    /// A connection of which `early` was read already.
    pub fn new(socket: Socket, early: Vec<u8>, watch: Watch) -> Rc<Wire> {
        Rc::new(Wire {
            socket,
            early: RefCell::new(early),
            out: RefCell::default(),
            sent: Cell::new(0),
            written: Cell::new(0),
            watch: RefCell::new(watch),
        })
    }

    /// The socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What was counted of its frames.
    pub fn watch(&self) -> std::cell::RefMut<'_, Watch> {
        self.watch.borrow_mut()
    }

    /// Puts together what streams have been sent in small frames, if there are many of these.
    pub fn gather(&self, gate: &Gate) {
        if self.watch.borrow().is_crowded() {
            gate.gather();
            self.watch.borrow_mut().gathered();
        }
    }

    /// Bytes that the kernel has taken so far.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Nothing waits for the kernel.
    pub fn is_empty(&self) -> bool {
        self.out.borrow().is_empty()
    }

    /// Bytes that wait for the kernel.
    pub fn waiting(&self) -> usize {
        self.out.borrow().len() - self.sent.get()
    }

    /// Writes what was gathered. Ready when all of it is with the kernel.
    pub fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.borrow_mut();
        while self.sent.get() < out.len() {
            let rest = [IoSlice::new(&out[self.sent.get()..])];
            // Mostly the kernel has room: it is asked before the runtime.
            let n = match self.socket.try_write(&rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write(cx, &rest))?
                }
                other => other?,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent.set(self.sent.get() + n);
            self.written.set(self.written.get() + n as u64);
        }
        (*out, _) = (Vec::new(), self.sent.set(0));
        Poll::Ready(Ok(()))
    }

    /// Room for what is to be gathered, made by writing if there is none.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.out.borrow().len() >= FULL {
            ready!(self.poll_out(cx))?;
        }
        Poll::Ready(Ok(FULL - self.out.borrow().len()))
    }

    fn append(&self, bytes: &[u8], room: usize) -> usize {
        let taken = bytes.len().min(room);
        let mut out = self.out.borrow_mut();
        if out.capacity() == 0 {
            out.reserve(taken.max(4096));
        }
        out.extend_from_slice(&bytes[..taken]);
        taken
    }

    fn read_early(&self, buf: &mut ReadBuf<'_>) -> bool {
        let mut early = self.early.borrow_mut();
        if early.is_empty() {
            return false;
        }
        let taken = early.len().min(buf.remaining());
        buf.put_slice(&early[..taken]);
        early.drain(..taken);
        if early.is_empty() {
            *early = Vec::new();
        }
        true
    }
}

impl AsyncRead for Handle {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &self.0;
        if wire.watch.borrow().verdict().is_some() {
            // Whoever runs the connection ends it. Nothing more of it is believed.
            return Poll::Pending;
        }
        if wire.watch.borrow().is_crowded() {
            // Whoever runs the connection puts together what has come, and then asks again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if !wire.read_early(buf) {
            let room = buf.remaining().min(READ);
            let n = ready!(wire.socket.poll_read_slice(cx, buf.initialize_unfilled_to(room)))?;
            buf.advance(n);
        }
        wire.watch.borrow_mut().look(&buf.filled()[before..]);
        if wire.watch.borrow().verdict().is_some() {
            buf.set_filled(before);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handle {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.0.poll_room(cx))?;
        Poll::Ready(Ok(self.0.append(bytes, room)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.0.poll_room(cx))?;
        let mut taken = 0;
        for slice in slices {
            taken += self.0.append(slice, room - taken);
        }
        Poll::Ready(Ok(taken))
    }

    /// What is gathered is gathered here.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not yet: whoever runs the connection writes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_out(cx))?;
        self.0.socket.poll_shutdown(cx).map(Ok)
    }
}
