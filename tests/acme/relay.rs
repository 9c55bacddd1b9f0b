//! Where the authority looks: a port that is known before whoever answers behind it.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

/// Passes connections on; one that comes too early waits.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    to: Arc<(Mutex<Option<SocketAddr>>, Condvar)>,
}

impl Relay {
    pub(crate) fn start() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to: Arc<(Mutex<Option<SocketAddr>>, Condvar)> = Arc::default();
        let relay = Relay { address, to: to.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                let to = to.clone();
                thread::spawn(move || {
                    let mut known = to.0.lock();
                    while known.is_none() {
                        to.1.wait(&mut known);
                    }
                    let address = known.unwrap();
                    drop(known);
                    // Nobody there is what the authority is to find.
                    if let (Ok(client), Ok(server)) = (client, TcpStream::connect(address)) {
                        pass(client, server);
                    }
                });
            }
        });
        relay
    }

    /// Where connections go from now on.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        *self.to.0.lock() = Some(address);
        self.to.1.notify_all();
    }
}

fn pass(client: TcpStream, server: TcpStream) {
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || copy(from, to));
    copy(server, client);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
