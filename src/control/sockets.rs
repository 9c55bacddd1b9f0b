//! The sockets of listeners: one for each data thread, with `SO_REUSEPORT`, all bound or none.
//!
//! Control keeps a copy of each. A listener that is only renamed goes on with the same sockets, whose
//! queues lose nothing. Copies go before the data threads close theirs: a queue that nobody reads
//! would take connections as long as any copy is open.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config;
use crate::net::{self, Address, ListenSocket, SocketFile};

mod lost;
mod remedy;

/// Connections that wait for accept. The kernel caps it at `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;

/// A listener's sockets.
#[derive(Debug)]
pub(super) struct Bound {
    /// The file of a Unix socket. It goes before the socket does, by whose life it is known to be the same file.
    file: Option<Arc<SocketFile>>,
    /// Name of the listener.
    pub name: String,
    /// As configured; the port may be 0.
    pub asked: Address,
    /// As bound.
    pub address: Address,
    /// One for each data thread, in their order. More, where a process with more threads has handed them
    /// over: what is in the queue of one that was closed, or about to get there, would be lost, so the
    /// threads share them. A Unix socket is one, which all threads accept on: the kernel has no way to
    /// spread its connections over several.
    pub sockets: Vec<ListenSocket>,
}

/// A data thread's sockets, by the listener's name.
pub(super) type Sockets = Vec<(String, ListenSocket)>;

/// Why a listener could not be bound, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot bind {address}: {source}{}", remedy::of(address, source))]
pub struct BindError {
    name: String,
    address: Address,
    source: io::Error,
}

/// Finds or makes the sockets of all `listeners`, in their order. What is in `held` at the same address
/// is used again; nothing is changed when one cannot be bound.
///
/// # Errors
/// The first listener whose address is taken or not ours to bind.
pub(super) fn bind_all(
    listeners: &[config::Listener],
    held: &[Bound],
    threads: usize,
) -> Result<Vec<Bound>, BindError> {
    let mut bound: Vec<Bound> = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let error = |source| BindError {
            name: listener.name.clone(),
            address: listener.bind.clone(),
            source,
        };
        let one = match same_socket(listener, held) {
            Some(old) => old.copy(&listener.name, threads),
            None => bind(listener, threads, |address| ours(address, held, &bound)),
        };
        bound.push(one.map_err(error)?);
    }
    // A reload may have changed them; only now, when nothing can fail any more.
    set_modes(listeners, &bound);
    Ok(bound)
}

/// Has the files of Unix sockets say who may connect, where they are this process's to change.
pub(super) fn set_modes(listeners: &[config::Listener], bound: &[Bound]) {
    for one in bound {
        let Some(listener) = listeners.iter().find(|listener| listener.name == one.name) else {
            continue;
        };
        let file = one.file.as_deref();
        if let Some(Err(error)) = file.map(|file| file.set_mode(listener.socket_mode)) {
            tracing::warn!(%error, "{} keeps its permissions", one.address);
        }
    }
}

/// The held sockets that this listener goes on with. Port 0 asks for any port, so the name decides too.
fn same_socket<'a>(listener: &config::Listener, held: &'a [Bound]) -> Option<&'a Bound> {
    let same = |old: &&Bound| {
        old.asked == listener.bind && (!old.asked.is_any_port() || old.name == listener.name)
    };
    held.iter().find(same)
}

/// Whether this process listens on the port already, at whatever address: then the guard of [`bind`]
/// would find ourselves.
fn ours(address: SocketAddr, held: &[Bound], bound: &[Bound]) -> bool {
    held.iter().chain(bound).any(|other| other.address.port() == Some(address.port()))
}

fn bind(
    listener: &config::Listener,
    threads: usize,
    ours: impl Fn(SocketAddr) -> bool,
) -> io::Result<Bound> {
    match &listener.bind {
        Address::Tcp(asked) => bind_tcp(&listener.name, *asked, threads, ours(*asked)),
        Address::Unix(path) => {
            let (socket, file) = bind_unix(Path::new(&**path), listener.socket_mode)?;
            Ok(Bound {
                file: Some(Arc::new(file)),
                name: listener.name.clone(),
                asked: listener.bind.clone(),
                address: listener.bind.clone(),
                sockets: vec![ListenSocket::Unix(socket)],
            })
        }
    }
}

/// Listens at `path`. What a process has left there that is gone is replaced.
fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    SocketFile::is_free(path)?;
    let stale = path.exists();
    let (socket, file) = SocketFile::listen(path, mode, BACKLOG)?;
    file.put()?;
    if stale {
        tracing::info!("{} was left by a process that is gone: replaced", path.display());
    }
    Ok((socket, file))
}

/// Binds the sockets of one listener. `SO_REUSEPORT` alone would silently share the port with another
/// process of the same user, so a first socket without it asks whether the port is free. Between its
/// end and the real sockets lie some microseconds in which two processes that start at once could both
/// succeed; they would have raced for the port anyway.
fn bind_tcp(name: &str, asked: SocketAddr, threads: usize, ours: bool) -> io::Result<Bound> {
    if asked.port() != 0 && !ours {
        drop(socket(asked, false)?);
    }
    let first = socket(asked, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first.into()];
    for _ in 1..threads {
        sockets.push(socket(address, true)?.into());
    }
    Ok(Bound {
        name: name.to_owned(),
        asked: asked.into(),
        address: address.into(),
        sockets,
        file: None,
    })
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Whatever the system's default is: `[::]` is both families. Where `0.0.0.0` is bound as well, the
        // kernel gives IPv4 to that one, whichever came first, so a reload that adds or removes it needs no
        // other socket here.
        socket.set_only_v6(false)?;
    }
    // Connections of the last run may still be in TIME_WAIT; they must not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit both, without a call each. An answer is written in one piece, and
    // waiting for more only delays it; and a client that vanished without a word is noticed in two minutes,
    // which matters where no deadline runs, as in an event stream.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&net::keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Bound {
    /// The same sockets again, for a listener of this name, and as many more as there are more threads.
    fn copy(&self, name: &str, threads: usize) -> io::Result<Bound> {
        let copies = self.sockets.iter().map(ListenSocket::try_clone);
        let mut sockets = copies.collect::<io::Result<Vec<_>>>()?;
        if let Address::Tcp(address) = self.address {
            while sockets.len() < threads {
                sockets.push(socket(address, true)?.into());
            }
        }
        Ok(Bound {
            name: name.into(),
            asked: self.asked.clone(),
            address: self.address.clone(),
            sockets,
            file: self.file.clone(),
        })
    }

    /// The file of a Unix socket is removed when its listener goes, unless it is `ours` no longer, or not
    /// yet: another process serves it.
    pub(super) fn own_file(&self, ours: bool) {
        self.file.iter().for_each(|file| file.own(ours));
    }

    /// Which file its Unix socket has, for a process that goes on with it.
    pub(super) fn file_of_socket(&self) -> Option<(u64, u64)> {
        self.file.as_ref().and_then(|file| file.identity())
    }

    /// Whether it is a Unix socket that none of these goes on with.
    pub(super) fn is_left_by(&self, others: &[Bound]) -> bool {
        self.file.is_some() && !others.iter().any(|other| other.asked == self.asked)
    }

    /// The sockets that one data thread accepts on.
    fn of_thread(&self, thread: usize, threads: usize) -> impl Iterator<Item = &ListenSocket> {
        let (first, step) = match self.address {
            Address::Tcp(_) => (thread, threads),
            Address::Unix(_) => (0, 1),
        };
        self.sockets.iter().skip(first).step_by(step)
    }
}

/// A socket that another process has handed over.
pub(super) struct HandedOver {
    /// Of the listener.
    pub(super) name: String,
    /// As configured.
    pub(super) asked: Address,
    /// The file of a Unix socket, by [`SocketFile::identity`].
    pub(super) file: Option<(u64, u64)>,
    pub(super) socket: ListenSocket,
}

/// What another process has handed over, by listener.
///
/// # Errors
/// One is no listening socket.
pub(super) fn inherited(sockets: Vec<HandedOver>) -> io::Result<Vec<Bound>> {
    let mut all: Vec<Bound> = Vec::new();
    for HandedOver { name, asked, file, socket } in sockets {
        match all.iter_mut().find(|bound| bound.name == name && bound.asked == asked) {
            Some(bound) => bound.sockets.push(socket),
            None => {
                let address = match &socket {
                    ListenSocket::Tcp(socket) => socket.local_addr()?.into(),
                    ListenSocket::Unix(_) => asked.clone(),
                };
                let file = asked.unix().map(|path| Arc::new(SocketFile::of_other(path, file)));
                all.push(Bound { name, asked, address, sockets: vec![socket], file });
            }
        }
    }
    Ok(all)
}

/// A data thread's own handles of its sockets.
///
/// # Errors
/// No descriptor is left.
pub(super) fn of_thread<'a>(
    bound: impl IntoIterator<Item = &'a Bound>,
    thread: usize,
    threads: usize,
) -> io::Result<Sockets> {
    let own = |one: &'a Bound| {
        let sockets = one.of_thread(thread, threads);
        sockets.map(move |socket| Ok((one.name.clone(), socket.try_clone()?)))
    };
    bound.into_iter().flat_map(own).collect()
}

#[cfg(test)]
mod tests;
