//! The admin server, and the public probes: what is shown, and what may be changed, over HTTP/1.1 on the
//! control thread.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt};

use crate::config::Config;
use crate::control::Handle;
use crate::control::upgrade::Reign;

mod guard;
mod maintenance;
mod orders;
mod page;
mod process;
mod reply;
mod routes;
mod scrape;
pub(crate) mod segment;
pub(crate) mod upgrade;

use guard::{Check, Rules};
use reply::Reply;
use routes::Surface;

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
/// No descriptor is left: the next try may find one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Stack = BoxCloneService<Request<Incoming>, Reply, Infallible>;

/// Where the servers are bound.
#[derive(Debug, Default)]
pub struct Addresses {
    admin: parking_lot::RwLock<Option<SocketAddr>>,
    probes: parking_lot::RwLock<Option<SocketAddr>>,
}

impl Addresses {
    /// The admin server; none if it is off or could not be bound.
    pub fn admin(&self) -> Option<SocketAddr> {
        *self.admin.read()
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
    probes.follow(&handle, probes_wanted(&config)).await.map_err(refused)?;
    follow_admin(&mut admin, &handle, &config).await;
    *addresses.admin.write() = admin.address();
    *addresses.probes.write() = probes.address();
    let shared = addresses.clone();
    tokio::spawn(async move {
        while reloaded(&mut reloads, &handle).await {
            let config = handle.snapshot().config.clone();
            follow_admin(&mut admin, &handle, &config).await;
            let followed = probes.follow(&handle, probes_wanted(&config)).await;
            handle.degraded("probes", followed.err().map(|error| probes_refused(&error)));
            *shared.admin.write() = admin.address();
            *shared.probes.write() = probes.address();
        }
        // What nobody accepts any more must not be held open.
        admin.stop(&handle);
        probes.stop(&handle);
    });
    Ok(addresses)
}

/// Waits for a reload; false when another process has taken over, or control has ended.
async fn reloaded(reloads: &mut watch::Receiver<u64>, handle: &Handle) -> bool {
    tokio::select! {
        changed = reloads.changed() => changed.is_ok(),
        () = handle.handed_over() => false,
    }
}

fn probes_refused(error: &io::Error) -> String {
    format!("`[probes]` cannot be served as configured: {error}")
}

async fn follow_admin(admin: &mut Server, handle: &Handle, config: &Config) {
    let followed = match admin_wanted(config) {
        Ok(wanted) => admin.follow(handle, wanted).await,
        Err(error) => Err(error),
    };
    let message = |error| {
        format!("the admin server cannot be served as configured: {error}; see `[admin] bind`")
    };
    handle.degraded("admin", followed.err().map(message));
}

/// What one server should be: where it is bound, and the token it asks for.
#[derive(Clone, PartialEq)]
struct Wanted {
    bind: SocketAddr,
    token: Option<String>,
}

fn admin_wanted(config: &Config) -> io::Result<Option<Wanted>> {
    if !config.admin.enabled {
        return Ok(None);
    }
    let token = config.admin.token_file.as_ref().map(|path| {
        let token = std::fs::read_to_string(path).map(|text| text.trim().to_owned());
        let path = path.display();
        match token {
            Ok(token) if token.is_empty() => {
                Err(io::Error::other(format!("`token_file` {path} is empty")))
            }
            Err(error) => Err(io::Error::other(format!("`token_file` {path}: {error}"))),
            token => token,
        }
    });
    Ok(Some(Wanted { bind: config.admin.bind, token: token.transpose()? }))
}

fn probes_wanted(config: &Config) -> Option<Wanted> {
    config.probes.as_ref().map(|probes| Wanted { bind: probes.bind, token: None })
}

/// One of the two servers.
struct Server {
    surface: Surface,
    running: Option<Running>,
}

struct Running {
    wanted: Wanted,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Server {
    fn new(surface: Surface) -> Server {
        Server { surface, running: None }
    }

    fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|running| running.address)
    }

    /// Becomes what is wanted. The old listener stays when the new one cannot be bound.
    async fn follow(&mut self, handle: &Handle, wanted: Option<Wanted>) -> io::Result<()> {
        if self.running.as_ref().map(|running| &running.wanted) == wanted.as_ref() {
            return Ok(());
        }
        let Some(wanted) = wanted else {
            self.stop(handle);
            return Ok(());
        };
        let same = |running: &&Running| running.wanted.bind == wanted.bind;
        let listener = match self.running.as_ref().filter(same) {
            Some(running) => running.listener.clone(),
            None => Arc::new(match handle.inherited(self.surface.as_str(), wanted.bind) {
                Some(socket) => TcpListener::from_std(socket)?,
                None => bind(wanted.bind).await?,
            }),
        };
        self.stop(handle);
        let address = listener.local_addr()?;
        let stack = stack(self.surface, handle.clone(), address, wanted.token.as_deref());
        handle.keep_server(self.surface.as_str(), Some((wanted.bind, listener.clone())));
        let accepting = accept(listener.clone(), stack, handle.reign());
        let accepting = tokio::spawn(accepting).abort_handle();
        tracing::info!(target: "cobalance::admin", %address, "{} listening", self.surface.as_str());
        self.running = Some(Running { wanted, listener, address, accepting });
        Ok(())
    }

    fn stop(&mut self, handle: &Handle) {
        handle.keep_server(self.surface.as_str(), None);
        if let Some(running) = self.running.take() {
            running.accepting.abort();
        }
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

/// What a request goes through, from top to bottom.
fn stack(surface: Surface, handle: Handle, bound: SocketAddr, token: Option<&str>) -> Stack {
    let routes = tower::service_fn(move |request| routes::serve(handle.clone(), surface, request));
    let rules = Arc::new(Rules::new(bound, token));
    match surface {
        Surface::Probes => BoxCloneService::new(routes),
        Surface::Admin => BoxCloneService::new(
            ServiceBuilder::new()
                .layer(Check::host(rules.clone()))
                .layer(Check::token(rules.clone()))
                .layer(Check::changes(rules))
                .service(routes),
        ),
    }
}

async fn accept(listener: Arc<TcpListener>, stack: Stack, mut reign: watch::Receiver<Reign>) {
    let conversations = reign.clone();
    if reign.wait_for(|reign| *reign != Reign::Coming).await.is_err() {
        return;
    }
    tokio::select! {
        () = accept_all(listener, stack, conversations) => {}
        () = over(&mut reign) => {}
    }
}

/// Returns when another process has taken over.
async fn over(reign: &mut watch::Receiver<Reign>) {
    // Its sender outlives every connection.
    let _ = reign.wait_for(|reign| *reign == Reign::Over).await;
}

async fn accept_all(listener: Arc<TcpListener>, stack: Stack, reign: watch::Receiver<Reign>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Before accept, so that what is too much waits in the kernel's queue.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (stack, reign) = (stack.clone(), reign.clone());
                tokio::spawn(async move {
                    converse(stream, Peer(peer.ip()), stack, reign).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(target: "cobalance::admin", %error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who asks, among a request's extensions.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

/// One connection to its end. Its errors are the client's own affair.
async fn converse(stream: TcpStream, peer: Peer, stack: Stack, mut reign: watch::Receiver<Reign>) {
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
