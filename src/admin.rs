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
use tokio::sync::{Semaphore, watch};
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
mod server;
pub(crate) mod tokens;
pub(crate) mod upgrade;

use crowd::Crowd;
use guard::{Guard, Rules};
use reply::Reply;
use routes::Surface;
use server::{Listener, Server, Stream, Wanted};
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
        while changed(&mut reloads, &handle, &mut look).await {
            let config = handle.snapshot().config.clone();
            follow_admin(&mut admin, &handle, &config).await;
            let followed = probes.follow(&handle, probes_wanted(&config), None).await;
            handle.degraded("probes", followed.err().map(|error| probes_refused(&error)));
            *shared.admin.write() = admin.bound();
            *shared.probes.write() = probes.bound().and_then(|bound| bound.tcp());
        }
        // What nobody accepts any more must not be held open.
        probes.stop(&handle);
        if *handle.reign().borrow() == Reign::Over {
            admin.give_way().await;
        }
        admin.stop(&handle);
    });
    Ok(addresses)
}

/// Waits until there may be something to follow: another configuration, other tokens, or an address that has
/// become free. False when another process has taken over, or control has ended.
async fn changed(
    reloads: &mut watch::Receiver<u64>,
    handle: &Handle,
    look: &mut tokio::time::Interval,
) -> bool {
    tokio::select! {
        changed = reloads.changed() => changed.is_ok(),
        _ = look.tick() => true,
        () = handle.handed_over() => false,
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

fn admin_wanted(config: &Config) -> Option<Wanted> {
    let config::Admin { bind, mode, hosts, .. } = config.admin.clone();
    config.admin.enabled.then_some(Wanted { bind, mode, hosts })
}

fn probes_wanted(config: &Config) -> Option<Wanted> {
    let bind = Address::Tcp(config.probes.as_ref()?.bind);
    Some(Wanted { bind, mode: 0, hosts: Vec::new() })
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
