//! The sockets of listeners: one for each data thread, with `SO_REUSEPORT`, all bound or none.
//!
//! Control keeps a copy of each. A listener that is only renamed goes on with the same sockets, whose
//! queues lose nothing. Copies go before the data threads close theirs: a queue that nobody reads
//! would take connections as long as any copy is open.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config;
use crate::net;

/// Connections that wait for accept. The kernel caps it at `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;

/// A listener's sockets.
#[derive(Debug)]
pub(super) struct Bound {
    /// Name of the listener.
    pub name: String,
    /// As configured; the port may be 0.
    pub asked: SocketAddr,
    /// As bound.
    pub address: SocketAddr,
    /// One for each data thread, in their order. More, where a process with more threads has handed them
    /// over: what is in the queue of one that was closed, or about to get there, would be lost, so the
    /// threads share them.
    pub sockets: Vec<TcpListener>,
}

/// A data thread's sockets, by the listener's name.
pub(super) type Sockets = Vec<(String, TcpListener)>;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot bind {address}: {source}")]
pub struct BindError {
    name: String,
    address: SocketAddr,
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
        let error =
            |source| BindError { name: listener.name.clone(), address: listener.bind, source };
        let one = match same_socket(listener, held) {
            Some(old) => old.copy(&listener.name, threads),
            None => bind(listener, threads, ours(listener.bind, held, &bound)),
        };
        bound.push(one.map_err(error)?);
    }
    Ok(bound)
}

/// The held sockets that this listener goes on with. Port 0 asks for any port, so the name decides too.
fn same_socket<'a>(listener: &config::Listener, held: &'a [Bound]) -> Option<&'a Bound> {
    let same = |old: &&Bound| {
        old.asked == listener.bind && (old.asked.port() != 0 || old.name == listener.name)
    };
    held.iter().find(same)
}

/// Whether this process listens on the port already, at whatever address: then the guard of [`bind`]
/// would find ourselves.
fn ours(address: SocketAddr, held: &[Bound], bound: &[Bound]) -> bool {
    held.iter().chain(bound).any(|other| other.address.port() == address.port())
}

/// Binds the sockets of one listener. `SO_REUSEPORT` alone would silently share the port with another
/// process of the same user, so a first socket without it asks whether the port is free. Between its
/// end and the real sockets lie some microseconds in which two processes that start at once could both
/// succeed; they would have raced for the port anyway.
fn bind(listener: &config::Listener, threads: usize, ours: bool) -> io::Result<Bound> {
    if listener.bind.port() != 0 && !ours {
        drop(socket(listener.bind, false)?);
    }
    let first = socket(listener.bind, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        sockets.push(socket(address, true)?);
    }
    Ok(Bound { name: listener.name.clone(), asked: listener.bind, address, sockets })
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
        let copies = self.sockets.iter().map(TcpListener::try_clone);
        let mut sockets = copies.collect::<io::Result<Vec<_>>>()?;
        while sockets.len() < threads {
            sockets.push(socket(self.address, true)?);
        }
        Ok(Bound { name: name.into(), asked: self.asked, address: self.address, sockets })
    }
}

/// Sockets that another process has handed over, with the names of their listeners and what was configured.
///
/// # Errors
/// One is no listening socket.
pub(super) fn inherited(sockets: Vec<(String, SocketAddr, TcpListener)>) -> io::Result<Vec<Bound>> {
    let mut all: Vec<Bound> = Vec::new();
    for (name, asked, socket) in sockets {
        match all.iter_mut().find(|bound| bound.name == name && bound.asked == asked) {
            Some(bound) => bound.sockets.push(socket),
            None => {
                let address = socket.local_addr()?;
                all.push(Bound { name, asked, address, sockets: vec![socket] });
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
        let sockets = one.sockets.iter().skip(thread).step_by(threads);
        sockets.map(move |socket| Ok((one.name.clone(), socket.try_clone()?)))
    };
    bound.into_iter().flat_map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::support::listener;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn all_threads_listen_on_one_port() {
        let bound = bind_all(&[listener("a", ANY)], &[], 3).unwrap();
        let ports: Vec<u16> =
            bound[0].sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert_eq!(ports, vec![bound[0].address.port(); 3]);
        assert_ne!(ports[0], 0);
    }

    #[test]
    fn a_port_that_another_socket_shares_is_refused() {
        // As another cobalance of the same user would hold it.
        let other = socket(ANY.parse().unwrap(), true).unwrap();
        let address = other.local_addr().unwrap().to_string();
        let error = bind_all(&[listener("a", &address)], &[], 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("listener `a` cannot bind 127.0.0.1:"), "{error}");
    }

    #[test]
    fn a_renamed_listener_keeps_its_sockets() {
        let free = bind_all(&[listener("probe", ANY)], &[], 1).unwrap()[0].address.to_string();
        let held = bind_all(&[listener("old", &free)], &[], 2).unwrap();
        let client = std::net::TcpStream::connect(held[0].address).unwrap();
        let new = bind_all(&[listener("new", &free)], &held, 2).unwrap();
        drop(held);
        assert_eq!(new[0].name, "new");
        // What was in the queue before is still there for whoever holds the copy.
        let peers: Vec<_> = new[0].sockets.iter().filter_map(|s| s.accept().ok()).collect();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].1, client.local_addr().unwrap());
    }

    #[test]
    fn a_wider_address_on_our_own_port_is_no_conflict() {
        let held = bind_all(&[listener("a", ANY)], &[], 1).unwrap();
        let wide = format!("0.0.0.0:{}", held[0].address.port());
        assert!(bind_all(&[listener("b", &wide)], &held, 1).is_ok());
    }
}
