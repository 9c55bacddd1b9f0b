//! Sockets as the data path sees them: polled, shared by reference, one kind behind one type.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

mod address;
mod listening;
mod queue;
mod secure;
mod shortage;
mod socket_file;
mod stream;

pub use address::{
    Address, MAX_PATH, NoAddress, Peer, UNIX, bare_host, host_of, is_socket_path, socket_address,
    zone,
};
pub use listening::{ListenSocket, is_unix};
pub use queue::AcceptQueue;
pub use secure::{HandshakeError, Secure};
pub use shortage::shortage;
pub use socket_file::SocketFile;
pub use stream::{Fate, Stream};

/// A connected stream. Methods take `&self`, so that both directions can be polled in one task.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TLS. In a box: sockets are moved, and most are plain.
    Tls(Box<Secure>),
    /// One of several on a connection.
    Stream(Box<dyn Stream>),
}

/// What a peek at an idle connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Open, nothing to read.
    Clean,
    /// Closed or reset by the peer.
    Closed,
    /// Bytes that nobody asked for.
    Dirty,
}

impl Socket {
    /// Appends at most `max` bytes to `buf`; 0 is the end of the stream.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut Vec<u8>,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buf, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Appends what is there now, at most `max` bytes.
    pub fn try_read(&self, buf: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        use bytes::BufMut;
        buf.reserve(max);
        let read = match self {
            Socket::Tcp(stream) => stream.try_read_buf(&mut buf.limit(max)),
            Socket::Unix(stream) => stream.try_read_buf(&mut buf.limit(max)),
            Socket::Tls(_) | Socket::Stream(_) => {
                let end = buf.len() + max;
                return self.try_take(&mut |piece| {
                    let taken = piece.len().min(end - buf.len());
                    buf.extend_from_slice(&piece[..taken]);
                    taken
                });
            }
        };
        self.note_short(read, max)
    }

    /// What has pieces of its own offers them.
    fn try_take(&self, take: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize> {
        match self {
            Socket::Tls(stream) => stream.try_read(take),
            Socket::Stream(stream) => stream.try_read(take),
            Socket::Tcp(_) | Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// A read that came short has emptied the socket: the next one would only say so. The runtime is told
    /// without asking the kernel; new bytes make the socket readable again.
    fn note_short(&self, read: io::Result<usize>, asked: usize) -> io::Result<usize> {
        if matches!(read, Ok(n) if n > 0 && n < asked) {
            self.note_empty();
        }
        read
    }

    fn note_empty(&self) {
        let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = match self {
            Socket::Tcp(stream) => stream.try_io(Interest::READABLE, empty),
            Socket::Unix(stream) => stream.try_io(Interest::READABLE, empty),
            Socket::Tls(stream) => stream.tcp().try_io(Interest::READABLE, empty),
            // It is never ready without something to read.
            Socket::Stream(_) => return,
        };
    }

    /// Reads into a slice; 0 is the end of the stream.
    pub fn poll_read_slice(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let read = match self {
                Socket::Tcp(stream) => self.note_short(stream.try_read(into), into.len()),
                Socket::Unix(stream) => self.note_short(stream.try_read(into), into.len()),
                Socket::Tls(_) | Socket::Stream(_) => {
                    let mut at = 0;
                    self.try_take(&mut |piece| {
                        let taken = piece.len().min(into.len() - at);
                        into[at..at + taken].copy_from_slice(&piece[..taken]);
                        at += taken;
                        taken
                    })
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when a read would not wait, at the end of the stream too.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
            Socket::Tls(stream) => stream.poll_read_ready(cx),
            Socket::Stream(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Looks at what is there without taking it; 0 is the end of the stream. Not for TLS, whose bytes are no
    /// text before they are taken, nor for a stream of many.
    pub fn poll_peek(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let peek = |fd: BorrowedFd<'_>, into: &mut [u8]| {
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                Ok(rustix::net::recv(fd, into, flags)?.1)
            };
            let peeked = match self {
                Socket::Tcp(stream) => {
                    stream.try_io(Interest::READABLE, || peek(stream.as_fd(), into))
                }
                Socket::Unix(stream) => {
                    stream.try_io(Interest::READABLE, || peek(stream.as_fd(), into))
                }
                Socket::Tls(_) | Socket::Stream(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when the peer has sent something, or closed; nothing is taken.
    pub fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<Idle> {
        while ready!(self.poll_read_ready(cx)).is_ok() {
            match self.peek_idle() {
                Idle::Clean => self.note_empty(),
                other => return Poll::Ready(other),
            }
        }
        Poll::Ready(Idle::Closed)
    }

    /// Writes what fits, from all slices in order.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_write(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Writes what fits now. After `WouldBlock` the same bytes must be offered again: over TLS they may be
    /// sealed already.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Socket::Tcp(stream), [one]) => stream.try_write(one),
            (Socket::Tcp(stream), many) => stream.try_write_vectored(many),
            (Socket::Unix(stream), many) => stream.try_write_vectored(many),
            (Socket::Tls(stream), many) => stream.try_write(many),
            (Socket::Stream(stream), many) => stream.try_write(many),
        }
    }

    /// Writes what fits now and lets the kernel keep it, so that it leaves together with the end of our
    /// direction: [`Socket::shutdown_write`] must follow at once.
    pub fn try_write_last(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_io(Interest::WRITABLE, || {
                let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(rustix::net::send(stream, bytes, flags)?)
            }),
            Socket::Unix(_) | Socket::Stream(_) => self.try_write(&[IoSlice::new(bytes)]),
            Socket::Tls(stream) => stream.try_write_last(bytes),
        }
    }

    /// Ready when a write would not wait.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
            Socket::Tls(stream) => stream.poll_write_ready(cx),
            Socket::Stream(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Ends our direction; what was written before still arrives.
    pub fn shutdown_write(&self) {
        // The peer may be gone already, and then there is nothing left to end.
        let _ = match self {
            Socket::Tcp(stream) => rustix::net::shutdown(stream, rustix::net::Shutdown::Write),
            Socket::Unix(stream) => rustix::net::shutdown(stream, rustix::net::Shutdown::Write),
            Socket::Tls(stream) => {
                stream.shutdown_write();
                Ok(())
            }
            Socket::Stream(stream) => {
                stream.shutdown_write();
                Ok(())
            }
        };
    }

    /// The same, ready when all that TLS has to say at its end is with the kernel. May be asked again.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Socket::Tls(stream) => stream.poll_shutdown(cx),
            _ => {
                self.shutdown_write();
                Poll::Ready(())
            }
        }
    }

    /// Bytes of memory that it holds beside what the kernel does: over TLS, what waits for the rest of its record
    /// or for its peer. What a stream of many holds belongs to its connection.
    pub fn held(&self) -> usize {
        self.tls().map_or(0, Secure::held)
    }

    /// The TLS connection, if it is one.
    pub fn tls(&self) -> Option<&Secure> {
        match self {
            Socket::Tls(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether nobody between can read it.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Socket::Tls(_) => true,
            Socket::Stream(stream) => stream.is_encrypted(),
            Socket::Tcp(_) | Socket::Unix(_) => false,
        }
    }

    /// What is known of why no answer came; of a connection of its own, nothing.
    pub fn fate(&self) -> Fate {
        match self {
            Socket::Stream(stream) => stream.fate(),
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Tls(_) => Fate::Unknown,
        }
    }

    /// Dropping it resets the connection: where the end of the stream is the end of the answer, only a
    /// reset says that the answer is not whole.
    pub fn reset_on_drop(&self) {
        match self {
            // It fails only on a socket that is gone.
            Socket::Tcp(stream) => {
                let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            }
            Socket::Unix(_) => {}
            Socket::Tls(stream) => stream.reset_on_drop(),
            Socket::Stream(stream) => stream.reset_on_drop(),
        }
    }

    /// Looks at an idle connection without waiting and without taking anything from it.
    pub fn peek_idle(&self) -> Idle {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut byte = [0u8; 1];
        let peeked = match self {
            Socket::Tcp(stream) => rustix::net::recv(stream, &mut byte, flags),
            Socket::Unix(stream) => rustix::net::recv(stream, &mut byte, flags),
            Socket::Tls(stream) => return stream.peek_idle(),
            Socket::Stream(stream) => return stream.peek_idle(),
        };
        match peeked {
            Err(rustix::io::Errno::AGAIN) => Idle::Clean,
            Ok((_, 0)) | Err(_) => Idle::Closed,
            Ok(_) => Idle::Dirty,
        }
    }
}

/// How a peer that vanished without a word is noticed: after a minute of silence four questions, 15 s apart.
pub fn keepalive() -> socket2::TcpKeepalive {
    let minute = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    minute.with_interval(Duration::from_secs(15)).with_retries(4)
}

/// An IPv4 address that came in over an IPv6 socket is shown, matched and forwarded as IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Addresses of private networks and this machine, where an outer proxy of ours would be.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
