//! Sockets that clients connect to, of either family.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketFlags, accept_with, acceptfrom_with, sockopt};
use tokio::net::{TcpStream, UnixStream};

use super::{Peer, Socket};

/// A listening socket; non-blocking.
#[derive(Debug)]
pub enum ListenSocket {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
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

    /// Takes a connection that is in the queue, without waiting. It is as it is used: it does not block, and
    /// is not passed on to a new program.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or it cannot be taken.
    pub fn accept(&self) -> io::Result<(Socket, Peer)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match self {
            ListenSocket::Tcp(listener) => {
                let (socket, peer) = acceptfrom_with(listener, flags)?;
                let peer: SocketAddr = peer.ok_or(io::ErrorKind::NotConnected)?.try_into()?;
                Ok((Socket::Tcp(TcpStream::from_std(socket.into())?), peer.into()))
            }
            ListenSocket::Unix(listener) => {
                let socket = accept_with(listener, flags)?;
                Ok((Socket::Unix(UnixStream::from_std(socket.into())?), Peer::Unix))
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

impl AsRawFd for ListenSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<TcpListener> for ListenSocket {
    fn from(socket: TcpListener) -> ListenSocket {
        ListenSocket::Tcp(socket)
    }
}
