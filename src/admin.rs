//! The admin server, and the public probes: what is shown, and what may be changed, over HTTP/1.1 on the
//! control thread.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt};

use crate::config::{self, Config};
use crate::control::Handle;
use crate::control::upgrade::Reign;
use crate::control::who::Peer;
use crate::net::Address;

mod audit;
mod credentials;
mod crowd;
mod failures;
mod guard;
mod maintenance;
mod orders;
mod page;
mod place;
mod process;
mod reply;
mod routes;
mod scrape;
pub(crate) mod segment;
pub(crate) mod tokens;
pub(crate) mod upgrade;

use crowd::Crowd;
use guard::{Guard, Rules};
use place::Place;
use reply::Reply;
use routes::Surface;
use tokens::Tokens;

/// An operator, a dashboard and a few scrapers; more would be an attack.
const MAX_CONNECTIONS: usize = 64;
/// As long as a client's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Then a connection is closed after its answer, so that idle ones do not use up the few there are,
const LIFE: Duration = Duration::from_secs(60);
/// or cut, if it does not take its answer.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// A head here is small.
const MAX_HEAD: usize = 16 * 1024;
/// How often the files of tokens are looked at: what was given out by mistake is taken back in that time.
const LOOK_AT_TOKENS: Duration = Duration::from_secs(2);
/// No descriptor is left: the next try may find one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Stack = BoxCloneService<Request<Incoming>, Reply, Infallible>;

/// Where the servers are bound.
#[derive(Debug, Default)]
pub struct Addresses {
    admin: parking_lot::RwLock<Option<Address>>,
    probes: parking_lot::RwLock<Option<SocketAddr>>,
}

impl Addresses {
    /// The admin server; none if it is off or could not be bound, or has no address.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.read().as_ref().and_then(Address::tcp)
    }

    /// The same as a socket in the file system.
    pub fn admin_socket(&self) -> Option<PathBuf> {
        self.admin.read().as_ref().and_then(Address::unix).map(Path::to_owned)
    }

    /// The public probes; none if they are off.
    pub fn probes(&self) -> Option<SocketAddr> {
        *self.probes.read()
    }
}

/// Binds what the configuration asks for, and follows its reloads from then on. Runs on control's runtime.
/// Nothing is accepted before this process is the one that serves, nor after another has taken over.
///
/// An admin address that is taken is a warning, and serving goes on: two balancers on one machine both
/// have the default.
///
/// # Errors
/// The `[probes]` address cannot be bound: who wrote it has something outside that depends on it.
pub async fn start(handle: Handle) -> io::Result<Arc<Addresses>> {
    let addresses = Arc::new(Addresses::default());
    let config = handle.snapshot().config.clone();
    let mut reloads = handle.reloads();
    let mut admin = Server::new(Surface::Admin);
    let mut probes = Server::new(Surface::Probes);
    let refused = |error: io::Error| io::Error::new(error.kind(), probes_refused(&error));
    probes.follow(&handle, probes_wanted(&config), None).await.map_err(refused)?;
    audit::show(handle.metrics());
    follow_admin(&mut admin, &handle, &config).await;
    *addresses.admin.write() = admin.bound();
    *addresses.probes.write() = probes.bound().and_then(|bound| bound.tcp());
    let shared = addresses.clone();
    tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK_AT_TOKENS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(why) = changed(&mut reloads, &handle, &mut look).await {
            let config = handle.snapshot().config.clone();
            follow_admin(&mut admin, &handle, &config).await;
            if why == Change::Reload {
                let followed = probes.follow(&handle, probes_wanted(&config), None).await;
                handle.degraded("probes", followed.err().map(|error| probes_refused(&error)));
            }
            *shared.admin.write() = admin.bound();
            *shared.probes.write() = probes.bound().and_then(|bound| bound.tcp());
        }
        if *handle.reign().borrow() == Reign::Over {
            admin.leave();
        }
        // What nobody accepts any more must not be held open.
        admin.stop(&handle);
        probes.stop(&handle);
    });
    Ok(addresses)
}

/// What is to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Another configuration.
    Reload,
    /// Perhaps other tokens.
    Tokens,
}

/// Waits for that; none when another process has taken over, or control has ended.
async fn changed(
    reloads: &mut watch::Receiver<u64>,
    handle: &Handle,
    look: &mut tokio::time::Interval,
) -> Option<Change> {
    tokio::select! {
        changed = reloads.changed() => changed.is_ok().then_some(Change::Reload),
        _ = look.tick() => Some(Change::Tokens),
        () = handle.handed_over() => None,
    }
}

fn probes_refused(error: &io::Error) -> String {
    format!("`[probes]` cannot be served as configured: {error}")
}

async fn follow_admin(admin: &mut Server, handle: &Handle, config: &Config) {
    let followed = match tokens_wanted(config).await {
        Ok((tokens, warning)) => {
            handle.exposed("admin tokens", warning);
            admin.follow(handle, admin_wanted(config), tokens).await
        }
        // Those that were known go on to be.
        Err(error) => Err(error),
    };
    let message = |error| {
        format!("the admin server cannot be served as configured: {error}; see `[admin] bind`")
    };
    handle.degraded("admin", followed.err().map(message));
}

/// Files may be on a network: they are read beside the loop.
async fn tokens_wanted(config: &Config) -> io::Result<(Option<Tokens>, Option<String>)> {
    let admin = config.admin.clone();
    if !admin.enabled || admin.token_file.is_none() && admin.read_token_file.is_none() {
        return Ok((None, None));
    }
    let read = tokio::task::spawn_blocking(move || Tokens::read(&admin)).await;
    read.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// What one server should be, besides the tokens that it asks for.
#[derive(Clone, PartialEq)]
struct Wanted {
    bind: Address,
    /// Of a Unix socket.
    mode: u32,
    hosts: Vec<String>,
}

fn admin_wanted(config: &Config) -> Option<Wanted> {
    let config::Admin { bind, mode, hosts, .. } = config.admin.clone();
    config.admin.enabled.then_some(Wanted { bind, mode, hosts })
}

fn probes_wanted(config: &Config) -> Option<Wanted> {
    let bind = Address::Tcp(config.probes.as_ref()?.bind);
    Some(Wanted { bind, mode: 0, hosts: Vec::new() })
}

/// One of the two servers.
struct Server {
    surface: Surface,
    running: Option<Running>,
}

struct Running {
    wanted: Wanted,
    listener: Listener,
    bound: Address,
    rules: Arc<Rules>,
    accepting: AbortHandle,
}

/// What is accepted on.
#[derive(Clone)]
enum Listener {
    Tcp(Arc<TcpListener>),
    Unix(Arc<Place>),
}

impl Server {
    fn new(surface: Surface) -> Server {
        Server { surface, running: None }
    }

    fn bound(&self) -> Option<Address> {
        self.running.as_ref().map(|running| running.bound.clone())
    }

    /// Becomes what is wanted. The old listener stays when the new one cannot be bound.
    async fn follow(
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
        let same = |running: &&Running| {
            (&running.wanted.bind, running.wanted.mode) == (&wanted.bind, wanted.mode)
        };
        let listener = match there.filter(same) {
            Some(running) => running.listener.clone(),
            None => self.listen(handle, &wanted, there.map(|running| &running.wanted.bind)).await?,
        };
        self.stop(handle);
        let bound = listener.bound(&wanted.bind)?;
        let rules = Arc::new(Rules::new(wanted.hosts.clone(), tokens));
        let stack = stack(self.surface, handle.clone(), rules.clone());
        if let (Some(asked), Listener::Tcp(listener)) = (wanted.bind.tcp(), &listener) {
            handle.keep_server(self.surface.as_str(), Some((asked, listener.clone())));
        }
        let refused = handle.metrics().admin_refused.with_label_values(&[audit::CROWD]);
        let accepting = accept(listener.clone(), stack, handle.reign(), refused);
        let accepting = tokio::spawn(accepting).abort_handle();
        tracing::info!(target: "cobalance::admin", address = %bound, "{} listening", self.surface.as_str());
        self.running = Some(Running { wanted, listener, bound, rules, accepting });
        Ok(())
    }

    /// `ours` is where it listens until then.
    async fn listen(
        &self,
        handle: &Handle,
        wanted: &Wanted,
        ours: Option<&Address>,
    ) -> io::Result<Listener> {
        let coming = *handle.reign().borrow() == Reign::Coming;
        match &wanted.bind {
            Address::Unix(path) => {
                let ours = coming || ours == Some(&wanted.bind);
                unix(Path::new(&**path), wanted.mode, ours, coming)
            }
            Address::Tcp(address) => {
                let inherited = handle.inherited(self.surface.as_str(), *address);
                let listener = match inherited {
                    Some(socket) => TcpListener::from_std(socket)?,
                    None => bind(*address).await?,
                };
                Ok(Listener::Tcp(Arc::new(listener)))
            }
        }
    }

    /// What is put in its place by another process must not be taken away by this one.
    fn leave(&self) {
        if let Some(Running { listener: Listener::Unix(place), .. }) = &self.running {
            place.leave();
        }
    }

    fn stop(&mut self, handle: &Handle) {
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

/// What a request goes through, from top to bottom.
fn stack(surface: Surface, handle: Handle, rules: Arc<Rules>) -> Stack {
    let metrics = handle.metrics().clone();
    let routes = tower::service_fn(move |request| routes::serve(handle.clone(), surface, request));
    match surface {
        Surface::Probes => BoxCloneService::new(routes),
        Surface::Admin => BoxCloneService::new(
            ServiceBuilder::new().layer(Guard { rules, metrics }).service(routes),
        ),
    }
}

async fn accept(
    listener: Listener,
    stack: Stack,
    mut reign: watch::Receiver<Reign>,
    refused: IntCounter,
) {
    let conversations = reign.clone();
    if reign.wait_for(|reign| *reign != Reign::Coming).await.is_err() {
        return;
    }
    // It may have been told so since the socket was made.
    if let Listener::Unix(place) = &listener
        && *reign.borrow() == Reign::Here
        && let Err(error) = place.put()
    {
        tracing::error!(target: "cobalance::admin", %error, "the admin socket is not in its place");
    }
    tokio::select! {
        () = accept_all(listener, stack, conversations, refused) => {}
        () = over(&mut reign) => {}
    }
}

/// Returns when another process has taken over.
async fn over(reign: &mut watch::Receiver<Reign>) {
    // Its sender outlives every connection.
    let _ = reign.wait_for(|reign| *reign == Reign::Over).await;
}

async fn accept_all(
    listener: Listener,
    stack: Stack,
    reign: watch::Receiver<Reign>,
    refused: IntCounter,
) {
    let crowd = Arc::new(Crowd::default());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Before accept, so that what is too much waits in the kernel's queue.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(place) = crowd.enter(peer) else {
                    refused.inc();
                    continue;
                };
                let (stack, reign) = (stack.clone(), reign.clone());
                tokio::spawn(async move {
                    match stream {
                        Stream::Tcp(stream) => converse(stream, peer, stack, reign).await,
                        Stream::Unix(stream) => converse(stream, peer, stack, reign).await,
                    }
                    drop((permit, place));
                });
            }
            Err(error) => {
                tracing::debug!(target: "cobalance::admin", %error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// The next connection, and who is at its other end.
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
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

/// One connection to its end. Its errors are the client's own affair.
async fn converse<S>(stream: S, peer: Peer, stack: Stack, mut reign: watch::Receiver<Reign>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        stack.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(LIFE) => {}
        () = over(&mut reign) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
}

#[cfg(test)]
mod tests;
