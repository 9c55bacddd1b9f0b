//! The process: put together, told by signals, ended.
//!
//! SIGTERM and SIGINT drain and end, SIGHUP reloads, SIGUSR1 opens log files anew, SIGUSR2 hands over to a
//! new process. A second SIGTERM or SIGINT ends at once.

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
use crate::control::upgrade::{Estate, Heir, UpgradeError};
use crate::control::{self, ConfigSource, Control, Handle, Read, StartError};
use crate::listener::{self, ThreadParts};
use crate::net::Address;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notify;

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
/// At the end of `upgrade_drain_timeout`, for Close frames to those whose moment had not come.
const LAST_CLOSES: Duration = Duration::from_secs(5);
/// How often the log tells what an old process has left.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What to serve.
pub enum Options {
    /// A file, watched for changes.
    File(PathBuf),
    /// What the command line said.
    Flags(Box<Config>),
}

/// Serves until a signal ends it, or another process has taken over. Returns the exit code; the reason for
/// any other than 0 is on stderr or in the log.
pub fn run(options: Options) -> u8 {
    let mut heir = match Heir::of_environment() {
        Ok(heir) => heir,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_FAILURE;
        }
    };
    match configured(options).and_then(|begin| serve(begin, &mut heir)) {
        Ok(code) => code,
        Err(Unserved { code, why }) => {
            if let Some(heir) = heir {
                heir.fail(&why);
            }
            code
        }
    }
}

/// Why it did not come to serve; stderr has it.
struct Unserved {
    code: u8,
    why: String,
}

impl From<StartError> for Unserved {
    fn from(error: StartError) -> Unserved {
        eprintln!("error: {error}");
        Unserved { code: EXIT_FAILURE, why: error.to_string() }
    }
}

impl From<io::Error> for Unserved {
    fn from(error: io::Error) -> Unserved {
        StartError::from(error).into()
    }
}

/// What it begins with.
struct Begin {
    config: Config,
    source: ConfigSource,
    /// Of the file as it was read: whatever it has later is a change.
    text: Option<String>,
}

fn configured(options: Options) -> Result<Begin, Unserved> {
    let begin = match options {
        Options::Flags(config) => {
            Begin { config: *config, source: ConfigSource::Flags, text: None }
        }
        Options::File(path) => {
            let (config, text) = load(&path)?;
            Begin { config, source: ConfigSource::File(path), text: Some(text) }
        }
    };
    raise_descriptor_limit(&begin.config);
    Ok(begin)
}

/// From the start to the exit code. Signals are listened to first: a SIGHUP that comes while it starts
/// must not end it.
fn serve(begin: Begin, heir: &mut Option<Heir>) -> Result<u8, Unserved> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let estate = heir.as_mut().map(Heir::receive).transpose().map_err(StartError::Estate)?;
    let mut running = start_with(begin, estate, listener::spawn)?;
    // From here on there is nothing more to be said about a failure.
    let told = heir.take().map(Heir::take_over);
    let code = match told {
        None | Some(Some(_)) => {
            running.handle.take_over(told.flatten());
            notify::ready();
            runtime.block_on(attend(&running.handle, &mut signals))
        }
        Some(None) => {
            tracing::error!("the process that hands over has ended before it did: ending");
            runtime.block_on(end(&running.handle));
            EXIT_FAILURE
        }
    };
    let log = running.handle.snapshot().access_log.clone();
    running.stop();
    if log.is_some_and(|log| !log.flush_and_close()) {
        tracing::warn!("the access log was not written to its end");
    }
    Ok(code)
}

/// The configuration of a file, and its text; what is wrong with it goes to stderr.
fn load(path: &std::path::Path) -> Result<(Config, String), Unserved> {
    let color = io::stderr().is_terminal();
    let unusable = |why| Unserved { code: EXIT_CONFIG, why };
    match control::read(path) {
        Ok(Read { source, found: Ok((config, warnings)) }) => {
            eprint!("{}", config::render(&warnings, &source, color));
            Ok((config, source.text))
        }
        Ok(Read { source, found: Err(found) }) => {
            let summary = format!("{}: {}", source.name, config::summary(&found));
            eprint!("{}", config::render(&found, &source, color));
            eprintln!("{summary}");
            Err(unusable(format!("{}{summary}", config::render(&found, &source, false))))
        }
        Err(error) => {
            let why = format!("{} cannot be read: {error}", path.display());
            eprintln!("error: {why}");
            Err(unusable(why))
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
    start_with(Begin { config, source, text: None }, None, listener::spawn)
}

fn start_with(
    begin: Begin,
    estate: Option<Estate>,
    spawn: impl Fn(ThreadParts) -> io::Result<JoinHandle<()>>,
) -> Result<Running, StartError> {
    let Begin { config, source, text } = begin;
    let Control { handle, threads: parts, thread } =
        control::start_with(config, source, text, Metrics::new(), estate)?;
    let mut running = Running { handle, admin: Arc::default(), threads: vec![thread] };
    // What can fail comes before the first connection is accepted: it may be another process's instead.
    running.admin = start_admin(&running.handle)?;
    for parts in parts {
        // An error drops `running`, which stops those that have started.
        running.threads.push(spawn(parts)?);
    }
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
    pub fn addresses(&self) -> Vec<(String, Address)> {
        self.handle.addresses()
    }

    /// A listener as bound.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses().into_iter().find(|(name, _)| name == listener)?.1.tcp()
    }

    /// The admin server; none if it is off or its address was taken.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.admin()
    }

    /// The same as a socket in the file system.
    pub fn admin_socket(&self) -> Option<PathBuf> {
        self.admin.admin_socket()
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
    upgrade: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Apart, so that the other signals can be listened to at the same time.
    async fn end(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }

    async fn ended(&mut self) -> &'static str {
        Signals::end(&mut self.terminate, &mut self.interrupt).await
    }
}

/// Does what signals say until one ends the process, or another has taken over.
async fn attend(handle: &Handle, signals: &mut Signals) -> u8 {
    loop {
        tokio::select! {
            _ = signals.reload.recv() => {
                tracing::info!("SIGHUP: the configuration is read");
                drop(tokio::spawn(reload(handle.clone())));
            }
            _ = signals.reopen.recv() => {
                tracing::info!("SIGUSR1: the access log is opened anew");
                handle.reopen_logs();
            }
            _ = signals.upgrade.recv() => {
                tracing::info!("SIGUSR2: another process is to take over");
                drop(tokio::spawn(upgrade(handle.clone())));
            }
            () = handle.failed() => return EXIT_FAILURE,
            () = handle.handed_over() => match leave(handle, signals).await {
                Some(name) => break tracing::info!("{name}: ending"),
                None => return EXIT_OK,
            },
            name = Signals::end(&mut signals.terminate, &mut signals.interrupt) => {
                notify::stopping();
                break tracing::info!("{name}: ending");
            }
        }
    }
    tokio::select! {
        () = end(handle) => EXIT_OK,
        name = signals.ended() => {
            tracing::warn!("{name} again: ending at once; cut: {}", open_work(handle));
            EXIT_CUT
        }
    }
}

/// What came of it is in the log and in `status`.
async fn reload(handle: Handle) {
    notify::reloading();
    handle.reload().await;
    // Whatever came of it: a file that is refused leaves the old one in use.
    notify::ready();
}

async fn upgrade(handle: Handle) {
    // A failure of the new process is in the log already.
    match handle.upgrade().await {
        Ok(_) | Err(UpgradeError::Failed(_)) => {}
        Err(error) => tracing::error!("SIGUSR2: no upgrade: {error}"),
    }
}

/// Another process has taken over: everything goes on to its end, within the time there is. The signal that
/// cuts it short, if one does.
async fn leave(handle: &Handle, signals: &mut Signals) -> Option<&'static str> {
    let within = handle.snapshot().config.server.upgrade_drain_timeout;
    let last = (within / 10).min(LAST_CLOSES);
    let patient = tokio::time::timeout(within - last, handle.leave(within / 2));
    tokio::select! {
        left = patient => {
            if left.is_ok() {
                tracing::info!("all work is done");
                return None;
            }
        }
        () = tell_what_is_left(handle) => {}
        name = signals.ended() => return Some(name),
    }
    // Whoever is still here is told, and then cut.
    if tokio::time::timeout(last, handle.finish(last / 2)).await.is_err() {
        tracing::warn!("upgrade_drain_timeout is over; cut: {}", open_work(handle));
    }
    None
}

/// Never ends.
async fn tell_what_is_left(handle: &Handle) {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        tracing::info!("another process has taken over; left here: {}", open_work(handle));
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
        Err(_) => tracing::warn!("shutdown_timeout is over; cut: {}", open_work(handle)),
    }
}

/// What is cut when it ends now.
fn open_work(handle: &Handle) -> String {
    let (requests, tunnels) = handle.snapshot().open_work();
    format!("{requests} requests, {tunnels} tunnels")
}

#[cfg(test)]
mod tests;
