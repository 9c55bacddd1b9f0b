//! Addresses that are nobody else's.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use socket2::{Domain, Socket, Type};

/// Where those begin that are chosen here: all are below those that the system gives to whoever asks for any.
const FIRST: u16 = 10_000;
const LAST: u16 = 30_000;

/// An address that refuses connections for as long as this lives: bound, so that nobody else is given it, and
/// nobody listens there.
pub struct Closed {
    pub address: SocketAddr,
    _socket: Socket,
}

impl Closed {
    #[allow(clippy::new_without_default)] // it takes a port
    pub fn new() -> Closed {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Closed { address, _socket: socket }
    }
}

/// An address to listen at later, which nobody is given by chance, nor twice by this.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Programs that run side by side begin at different places.
    let first = (std::process::id() % 1000) as u16 * 20;
    let one = |_| {
        let port = FIRST + (first + NEXT.fetch_add(1, Relaxed)) % (LAST - FIRST);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        TcpListener::bind(address).is_ok().then_some(address)
    };
    (FIRST..LAST).find_map(one).expect("a free port")
}
