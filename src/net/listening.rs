//! Sockets that clients connect to, of either family.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::task::{Context, Poll, ready};

use rustix::net::{AddressFamily, sockopt};

use super::{Peer, Socket};

/// A listening socket outside of any runtime; non-blocking.
#[derive(Debug)]
pub enum ListenSocket {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

/// The same within a runtime.
#[derive(Debug)]
pub enum Acceptor {
    /// Over TCP.
    Tcp(tokio::net::TcpListener),
    /// Over a Unix socket.
    Unix(tokio::net::UnixListener),
}

impl ListenSocket {
    /// A second handle of the same socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<ListenSocket> {
        Ok(match self {
            ListenSocket::Tcp(socket) => ListenSocket::Tcp(socket.try_clone()?),
            ListenSocket::Unix(socket) => ListenSocket::Unix(socket.try_clone()?),
        })
    }

    /// What a descriptor is that another process has handed over.
    ///
    /// # Errors
    /// It is no socket of a family that is listened on.
    pub fn of(descriptor: OwnedFd) -> io::Result<ListenSocket> {
        match is_unix(descriptor.as_fd())? {
            true => Ok(ListenSocket::Unix(descriptor.into())),
            false => Ok(ListenSocket::Tcp(descriptor.into())),
        }
    }

    /// Takes it into the runtime that this is called in.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn accepting(self) -> io::Result<Acceptor> {
        Ok(match self {
            ListenSocket::Tcp(socket) => Acceptor::Tcp(tokio::net::TcpListener::from_std(socket)?),
            ListenSocket::Unix(socket) => {
                Acceptor::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
        })
    }

    /// Takes a connection that is in the queue, without waiting.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or it cannot be taken.
    pub fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            ListenSocket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Socket::Tcp(tokio::net::TcpStream::from_std(stream)?), peer.into()))
            }
            ListenSocket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Socket::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix))
            }
        }
    }
}

impl Acceptor {
    /// Ready with a connection.
    ///
    /// # Errors
    /// The client has left already, or no descriptor is left.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        match self {
            Acceptor::Tcp(socket) => {
                let accepted = ready!(socket.poll_accept(cx));
                Poll::Ready(accepted.map(|(stream, peer)| (Socket::Tcp(stream), peer.into())))
            }
            Acceptor::Unix(socket) => {
                let accepted = ready!(socket.poll_accept(cx));
                Poll::Ready(accepted.map(|(stream, _)| (Socket::Unix(stream), Peer::Unix)))
            }
        }
    }
}

/// Whether a descriptor is a Unix socket.
///
/// # Errors
/// It is none that is spoken over here.
pub fn is_unix(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    match sockopt::socket_domain(descriptor)? {
        AddressFamily::UNIX => Ok(true),
        AddressFamily::INET | AddressFamily::INET6 => Ok(false),
        _ => Err(io::Error::other("a socket of a family that is not known here")),
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListenSocket::Tcp(socket) => socket.as_fd(),
            ListenSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl From<TcpListener> for ListenSocket {
    fn from(socket: TcpListener) -> ListenSocket {
        ListenSocket::Tcp(socket)
    }
}
