//! Tunnels that go from one process to another: what is said of each, and how a data thread goes on with it.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use serde::{Deserialize, Serialize};

use crate::connection::Admitted;
use crate::exchange::thread::Thread;
use crate::exchange::tunnel::Counted;
use crate::exchange::tunnel::leaving::{Adopted, Given, Place, Taker, adopt};
use crate::net::{Address, Socket, is_unix};
use crate::upstream::NodeKey;

/// A tunnel on its way.
pub struct Passed {
    /// What is said of it.
    pub about: About,
    /// The socket to the client.
    pub client: OwnedFd,
    /// The socket to the node.
    pub node: OwnedFd,
}

/// What is said of a tunnel.
#[derive(Debug, Serialize, Deserialize)]
pub struct About {
    listener: String,
    upstream: String,
    node: String,
    address: Option<Address>,
    /// Whose connection and whose tunnel it is, where those are bounded.
    #[serde(default)]
    clients: [Option<IpAddr>; 2],
    place: Place,
}

/// Takes the tunnels of a data thread to whoever listens.
pub(super) fn taker(sender: Sender<Passed>) -> Taker {
    Box::new(move |given| {
        let passed = Passed::of(given);
        // Nobody listens only if the other process has ended.
        if let Err(lost) = sender.send(passed) {
            lost.0.part();
        }
    })
}

impl Passed {
    fn of(given: Given) -> Passed {
        let admitted = given.admitted.downcast_ref::<Admitted>();
        let listener = admitted.map(Admitted::listener);
        let clients = [admitted.and_then(Admitted::client), given.client_of_tunnel];
        let NodeKey { upstream, name, address } = given.node.key.clone();
        let about = About {
            listener: listener.unwrap_or_default().to_owned(),
            upstream,
            node: name,
            address,
            clients,
            place: given.place,
        };
        Passed { about, client: given.client, node: given.to_node }
    }

    /// Nobody goes on with it: its client is told to come back, if a frame has a place where it is.
    pub fn part(self) {
        if let Some(farewell) = self.about.place.farewell() {
            // A client that cannot take four bytes learns it from the end of the connection.
            let _ = File::from(self.client).write_all(&farewell);
        }
    }

    /// Goes on with it on this thread. One whose listener or node is not configured here is parted.
    pub(super) fn adopt(self, thread: &Rc<Thread>) {
        let view = thread.view();
        let About { listener, upstream, node, address, .. } = &self.about;
        let listener = view.snapshot.listener(listener);
        let upstream = view.upstreams.iter().find(|u| u.upstream.settings.name == *upstream);
        let member = upstream.and_then(|upstream| {
            let key = |key: &NodeKey| key.name == *node && key.address == *address;
            upstream.nodes.iter().find(|member| key(&member.local.node.key))
        });
        let (Some(upstream), Some(member)) = (upstream, member) else { return self.part() };
        let Some(mut admitted) = listener.and_then(Admitted::admit) else { return self.part() };
        let [of_connection, of_tunnel] = self.about.clients;
        admitted.adopt_client(of_connection);
        let share = listener.zip(of_tunnel);
        let share = share.and_then(|(listener, of)| listener.tunnels.take(of, 1, u64::MAX));
        let share = share.map(Box::new);
        let sockets = stream(self.client).and_then(|client| Ok((client, stream(self.node)?)));
        match sockets {
            Err(error) => {
                tracing::warn!(%error, "a tunnel was lost on its way from the old process")
            }
            Ok((client, node)) => adopt(
                thread.clone(),
                Adopted {
                    client,
                    node,
                    counted: Counted::new(member.local.clone(), share),
                    quiet: upstream
                        .upstream
                        .settings
                        .quiet_restarts
                        .then(|| upstream.upstream.shared.quiet.clone()),
                    admitted: Box::new(admitted),
                    idle: upstream.upstream.settings.tunnel_idle_timeout,
                    max_message: upstream.upstream.settings.max_message,
                    place: self.about.place,
                },
            ),
        }
    }
}

fn stream(descriptor: OwnedFd) -> io::Result<Socket> {
    if is_unix(descriptor.as_fd())? {
        let stream = UnixStream::from(descriptor);
        stream.set_nonblocking(true)?;
        return Ok(Socket::Unix(tokio::net::UnixStream::from_std(stream)?));
    }
    let stream = TcpStream::from(descriptor);
    stream.set_nonblocking(true)?;
    Ok(Socket::Tcp(tokio::net::TcpStream::from_std(stream)?))
}
