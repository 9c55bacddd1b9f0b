//! One of the two servers: bound as configured, moved by reloads, handed over by upgrades.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::guard::Rules;
use super::place::Place;
use super::routes::Surface;
use super::tokens::Tokens;
use super::{accept, audit, stack};
use crate::control::Handle;
use crate::control::upgrade::Reign;
use crate::control::who::Peer;
use crate::net::Address;

/// Another process that has taken over puts its socket in its place at once.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);
/// While that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Where letting go of the port did not help, this long it is not done again: connections that wait to be
/// accepted are lost each time.
const MAKE_WAY_AGAIN: Duration = Duration::from_secs(60);

/// What one server should be, besides the tokens that it asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) bind: Address,
    /// Of a Unix socket.
    pub(super) mode: u32,
    pub(super) hosts: Vec<String>,
}

/// One of the two servers.
pub(super) struct Server {
    surface: Surface,
    running: Option<Running>,
    /// What it let go of its port for in vain, and when.
    in_vain: Option<(Wanted, Instant)>,
}

struct Running {
    wanted: Wanted,
    listener: Listener,
    bound: Address,
    rules: Arc<Rules>,
    accepting: JoinHandle<()>,
}

/// What is accepted on.
#[derive(Clone)]
pub(super) enum Listener {
    Tcp(Arc<TcpListener>),
    Unix(Arc<Place>),
}

impl Server {
    pub(super) fn new(surface: Surface) -> Server {
        Server { surface, running: None, in_vain: None }
    }

    pub(super) fn bound(&self) -> Option<Address> {
        self.running.as_ref().map(|running| running.bound.clone())
    }

    /// Becomes what is wanted. The old listener stays when the new one cannot be bound.
    pub(super) async fn follow(
        &mut self,
        handle: &Handle,
        wanted: Option<Wanted>,
        tokens: Option<Tokens>,
    ) -> io::Result<()> {
        let Some(wanted) = wanted else {
            self.stop(handle);
            return Ok(());
        };
        let there = self.running.as_ref().filter(|running| running.listener.is_there());
        if let Some(running) = there.filter(|running| running.wanted == wanted) {
            // For connections that are open as well.
            running.rules.renew(tokens);
            return Ok(());
        }
        if let (Some(running), Some(_)) = (&self.running, &tokens) {
            // Whatever becomes of the rest: a token that was taken back is good for nothing from now on. That
            // there are none is another matter: where it listens now it may need them.
            running.rules.renew(tokens.clone());
        }
        let coming = *handle.reign().borrow() == Reign::Coming;
        if coming && there.is_some() {
            // What is in the way may be the other process's, which is the one that serves.
            return Ok(());
        }
        let same = |running: &&Running| {
            (&running.wanted.bind, running.wanted.mode) == (&wanted.bind, wanted.mode)
        };
        let listener = match there.filter(same) {
            Some(running) => running.listener.clone(),
            None => match self.listen(handle, &wanted).await {
                Err(error) if coming && error.kind() == io::ErrorKind::AddrInUse => {
                    return self.stand_in(handle, wanted, tokens).unwrap_or(Err(error));
                }
                Err(error) if self.is_in_the_way(&error, &wanted) => {
                    let made = self.make_way(handle, &wanted).await;
                    self.in_vain = made.is_err().then(|| (wanted.clone(), Instant::now()));
                    made?
                }
                listener => listener?,
            },
        };
        self.stop(handle);
        let rules = Rules::new(wanted.hosts.clone(), tokens);
        self.serve(handle, wanted, listener, Arc::new(rules))
    }

    fn serve(
        &mut self,
        handle: &Handle,
        wanted: Wanted,
        listener: Listener,
        rules: Arc<Rules>,
    ) -> io::Result<()> {
        let bound = listener.bound(&wanted.bind)?;
        let stack = stack(self.surface, handle.clone(), rules.clone());
        if let (Some(asked), Listener::Tcp(listener)) = (wanted.bind.tcp(), &listener) {
            handle.keep_server(self.surface.as_str(), Some((asked, listener.clone())));
        }
        let refused = handle.metrics().admin_refused.with_label_values(&[audit::CROWD]);
        let accepting = tokio::spawn(accept(listener.clone(), stack, handle.reign(), refused));
        tracing::info!(target: "cobalance::admin", address = %bound, "{} listening", self.surface.as_str());
        self.running = Some(Running { wanted, listener, bound, rules, accepting });
        Ok(())
    }

    async fn listen(&self, handle: &Handle, wanted: &Wanted) -> io::Result<Listener> {
        match &wanted.bind {
            Address::Unix(path) => {
                let coming = *handle.reign().borrow() == Reign::Coming;
                let there = self.running.as_ref().filter(|running| running.listener.is_there());
                let ours = there.is_some_and(|running| running.wanted.bind == wanted.bind);
                unix(Path::new(&**path), wanted.mode, coming || ours, coming)
            }
            Address::Tcp(address) => {
                let same = |asked: SocketAddr, _| asked == *address;
                let listener = match handle.inherited(self.surface.as_str(), same) {
                    Some((_, socket)) => TcpListener::from_std(socket)?,
                    None => bind(*address).await?,
                };
                Ok(Listener::Tcp(Arc::new(listener)))
            }
        }
    }

    /// Whether an address is taken because this server has the port itself, at another host, and letting go of
    /// it was not in vain a moment ago.
    fn is_in_the_way(&self, error: &io::Error, wanted: &Wanted) -> bool {
        let lately =
            |(tried, at): &(Wanted, Instant)| tried == wanted && at.elapsed() < MAKE_WAY_AGAIN;
        if self.in_vain.as_ref().is_some_and(lately) {
            return false;
        }
        let ours = self.running.as_ref().and_then(|running| running.bound.port());
        error.kind() == io::ErrorKind::AddrInUse && ours.is_some() && ours == wanted.bind.port()
    }

    /// Lets go of the port to bind it anew; if that fails, it goes on where it was.
    async fn make_way(&mut self, handle: &Handle, wanted: &Wanted) -> io::Result<Listener> {
        let Some(Running { wanted: before, listener, bound, rules, accepting }) =
            self.running.take()
        else {
            return self.listen(handle, wanted).await;
        };
        handle.keep_server(self.surface.as_str(), None);
        accepting.abort();
        // Until then the task has the socket as well.
        let _ = accepting.await;
        drop(listener);
        let error = match self.listen(handle, wanted).await {
            Err(error) => error,
            listening => return listening,
        };
        let back = self.listen(handle, &Wanted { bind: bound, ..before.clone() }).await;
        if let Err(lost) = back.and_then(|back| self.serve(handle, before, back, rules)) {
            tracing::error!(target: "cobalance::admin", error = %lost, "nor can it listen where it did");
        }
        Err(error)
    }

    /// Serves where the process did that is to be followed, if that is what is in the way: once it is gone, the
    /// next look moves this. None if it is not, or if that address needs tokens and there are none any more.
    fn stand_in(
        &mut self,
        handle: &Handle,
        wanted: Wanted,
        tokens: Option<Tokens>,
    ) -> Option<io::Result<()>> {
        let port = wanted.bind.port()?;
        let needless = self.surface == Surface::Probes || tokens.is_some();
        let same = |asked: SocketAddr, bound: SocketAddr| {
            bound.port() == port && (needless || asked.ip().is_loopback())
        };
        let (asked, socket) = handle.inherited(self.surface.as_str(), same)?;
        let rules = Arc::new(Rules::new(wanted.hosts.clone(), tokens));
        let listener = TcpListener::from_std(socket);
        Some(listener.and_then(|listener| {
            let wanted = Wanted { bind: asked.into(), ..wanted };
            self.serve(handle, wanted, Listener::Tcp(Arc::new(listener)), rules)
        }))
    }

    /// Accepts no more, and leaves the name of its Unix socket until another process has put its own there: only
    /// one that listens elsewhere does not, and then it goes.
    pub(super) async fn give_way(&mut self) {
        let Some(running) = &self.running else { return };
        running.accepting.abort();
        let Listener::Unix(place) = &running.listener else { return };
        let replaced = async {
            while place.is_put() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Whatever came of it, the file goes if it is still the same.
        let _ = tokio::time::timeout(REPLACED_WITHIN, replaced).await;
    }

    pub(super) fn stop(&mut self, handle: &Handle) {
        handle.keep_server(self.surface.as_str(), None);
        if let Some(running) = self.running.take() {
            running.accepting.abort();
        }
    }
}

impl Listener {
    /// Where it is, if this was asked for.
    fn bound(&self, asked: &Address) -> io::Result<Address> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Listener::Unix(_) => Ok(asked.clone()),
        }
    }

    /// Whether those who connect still come here.
    fn is_there(&self) -> bool {
        match self {
            Listener::Tcp(_) => true,
            Listener::Unix(place) => place.is_there(),
        }
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

/// While another process serves there and is to be followed (`coming`), its socket stays where it is.
fn unix(path: &Path, mode: u32, ours: bool, coming: bool) -> io::Result<Listener> {
    let place = Place::listen(path, mode, ours)?;
    if !coming {
        place.put()?;
    }
    Ok(Listener::Unix(Arc::new(place)))
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// The next connection, and who is at its other end.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Peer::Address(peer.ip().to_canonical())))
            }
            Listener::Unix(place) => {
                let stream = place.accept().await?;
                let peer = stream.peer_cred()?;
                let peer = Peer::User { uid: peer.uid(), pid: peer.pid() };
                Ok((Stream::Unix(stream), peer))
            }
        }
    }
}
