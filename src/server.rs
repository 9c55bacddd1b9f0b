//! The process: put together, told by signals, ended.
//!
//! SIGTERM and SIGINT drain and end, SIGHUP reloads, SIGUSR1 opens log files anew. A second SIGTERM or
//! SIGINT ends at once.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, Addresses};
use crate::config::{self, Config};
use crate::control::{self, ConfigSource, Control, Handle, Read, StartError};
use crate::listener::{self, ThreadParts};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;

/// Everything that was accepted has been answered.
pub const EXIT_OK: u8 = 0;
/// It could not start, or a data thread died.
pub const EXIT_FAILURE: u8 = 1;
/// The configuration cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// A second signal cut what was still running; the shell's number for an end by SIGINT.
pub const EXIT_CUT: u8 = 130;

/// How long the end waits for threads that were told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// What to serve.
pub enum Options {
    /// A file, watched for changes.
    File(PathBuf),
    /// What the command line said.
    Flags(Box<Config>),
}

/// Serves until a signal ends it. Returns the exit code; the reason for any other than 0 is on stderr or
/// in the log.
pub fn run(options: Options) -> u8 {
    let (config, source) = match options {
        Options::Flags(config) => (*config, ConfigSource::Flags),
        Options::File(path) => match load(&path) {
            Some(config) => (config, ConfigSource::File(path)),
            None => return EXIT_CONFIG,
        },
    };
    raise_descriptor_limit(&config);
    match serve(config, source) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_FAILURE
        }
    }
}

/// From the start to the exit code. Signals are listened to first: a SIGHUP that comes while it starts
/// must not end it.
fn serve(config: Config, source: ConfigSource) -> Result<u8, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime.block_on(async { Signals::new() })?;
    let mut running = start(config, source)?;
    let code = runtime.block_on(attend(&running.handle, signals));
    let log = running.handle.snapshot().access_log.clone();
    running.stop();
    if log.is_some_and(|log| !log.flush_and_close()) {
        tracing::warn!("the access log was not written to its end");
    }
    Ok(code)
}

/// The configuration of a file; what is wrong with it goes to stderr.
fn load(path: &std::path::Path) -> Option<Config> {
    let color = io::stderr().is_terminal();
    match control::read(path) {
        Ok(Read { source, found: Ok((config, warnings)) }) => {
            eprint!("{}", config::render(&warnings, &source, color));
            Some(config)
        }
        Ok(Read { source, found: Err(found) }) => {
            eprint!("{}", config::render(&found, &source, color));
            eprintln!("{}: {}", source.name, config::summary(&found));
            None
        }
        Err(error) => {
            eprintln!("error: {} cannot be read: {error}", path.display());
            None
        }
    }
}

/// Each connection of a client may need one to a node: use what the system allows, and say when that is
/// less than the configuration promises.
fn raise_descriptor_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // None is no limit.
    let Some(limit) = (if raised.is_ok() { maximum } else { current }) else { return };
    let promised: usize = config.listeners.iter().map(|one| one.max_connections).sum();
    let needed = 2 * promised as u64;
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "fewer descriptors than `max_connections` may need: raise the limit (ulimit -n, \
             LimitNOFILE) or lower `max_connections`"
        );
    }
}

/// A cobalance that runs in this process. Dropping it stops it without waiting.
pub struct Running {
    handle: Handle,
    admin: Arc<Addresses>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts data threads, control and admin; returns when all listeners are bound. It may be called from
/// within another runtime, as tests do.
///
/// # Errors
/// What keeps the configuration from being run; an admin address that is taken does not.
pub fn start(config: Config, source: ConfigSource) -> Result<Running, StartError> {
    start_with(config, source, listener::spawn)
}

fn start_with(
    config: Config,
    source: ConfigSource,
    spawn: impl Fn(ThreadParts) -> io::Result<JoinHandle<()>>,
) -> Result<Running, StartError> {
    let Control { handle, threads: parts, thread } =
        control::start(config, source, Metrics::new())?;
    let mut running = Running { handle, admin: Arc::default(), threads: vec![thread] };
    for parts in parts {
        // An error drops `running`, which stops those that have started.
        running.threads.push(spawn(parts)?);
    }
    running.admin = start_admin(&running.handle)?;
    Ok(running)
}

fn start_admin(handle: &Handle) -> io::Result<Arc<Addresses>> {
    let (tell, told) = std::sync::mpsc::channel();
    let starting = admin::start(handle.clone());
    handle.spawn(async move {
        // The starting thread waits for it.
        let _ = tell.send(starting.await);
    });
    told.recv().map_err(|_| io::Error::other("the control thread died"))?
}

impl Running {
    /// Listeners as bound, by name.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.handle.addresses()
    }

    /// A listener as bound.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses().into_iter().find(|(name, _)| name == listener).map(|(_, address)| address)
    }

    /// The admin server; none if it is off or its address was taken.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.admin()
    }

    /// The public probes; none if they are off.
    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.admin.probes()
    }

    /// To ask control.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops at once, whatever is open, and waits a second at most until all threads have ended.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.handle.stop();
        let deadline = Instant::now() + STOP_WITHIN;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// The signals that are listened to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Apart, so that the other signals can be listened to at the same time.
    async fn end(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

/// Does what signals say until one ends the process.
async fn attend(handle: &Handle, mut signals: Signals) -> u8 {
    loop {
        tokio::select! {
            _ = signals.reload.recv() => {
                let handle = handle.clone();
                // What came of it is in the log and in `status`.
                tokio::spawn(async move { handle.reload().await });
            }
            _ = signals.reopen.recv() => handle.reopen_logs(),
            () = handle.failed() => return EXIT_FAILURE,
            name = Signals::end(&mut signals.terminate, &mut signals.interrupt) => {
                tracing::info!("{name}: ending");
                break;
            }
        }
    }
    tokio::select! {
        () = end(handle) => EXIT_OK,
        name = Signals::end(&mut signals.terminate, &mut signals.interrupt) => {
            tracing::warn!("{name} again: ending at once; {}", open_work(&handle.snapshot()));
            EXIT_CUT
        }
    }
}

/// Not ready, still accepting for the delay; then no longer, until all is done or the time is over.
async fn end(handle: &Handle) {
    handle.drain();
    let config = handle.snapshot().config.clone();
    let (delay, within) = (config.server.shutdown_delay, config.server.shutdown_timeout);
    tokio::time::sleep(delay).await;
    match tokio::time::timeout(within, handle.finish(within / 2)).await {
        Ok(()) => tracing::info!("all work is done"),
        Err(_) => {
            tracing::warn!("shutdown_timeout is over; {}", open_work(&handle.snapshot()));
        }
    }
}

/// What is cut when it ends now.
fn open_work(snapshot: &Snapshot) -> String {
    let nodes = || snapshot.upstreams.iter().flat_map(|upstream| &upstream.nodes);
    let requests: u32 = nodes().map(|member| member.node.in_flight()).sum();
    let tunnels: u32 = nodes().map(|member| member.node.tunnels()).sum();
    format!("cut: {requests} requests, {tunnels} tunnels")
}

#[cfg(test)]
mod tests;
