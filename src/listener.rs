//! Data threads: each has its own runtime, its own sockets of every listener, and the connections it accepted.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Signals;

/// What control tells a data thread. Answered through `done`, so that control knows when all have followed.
pub enum Command {
    /// Use this snapshot from now on. Listeners that it no longer names are closed; `sockets` brings the
    /// thread's own socket for each that is new, by the listener's name.
    Renew {
        /// The whole to read from now on.
        snapshot: Arc<Snapshot>,
        /// New listeners' sockets.
        sockets: Vec<(String, TcpListener)>,
        /// Told when the thread has followed.
        done: oneshot::Sender<()>,
    },
    /// Accept what the queues still hold, then close the listeners, finish exchanges with
    /// `Connection: close`, close tunnels with Close 1001 spread over `tunnels_within`, and answer `done`
    /// when no connection is left.
    Drain {
        /// Over how long tunnels are closed.
        tunnels_within: Duration,
        /// Told when the last connection has ended.
        done: oneshot::Sender<()>,
    },
    /// End now, whatever is open.
    Stop,
}

/// What a data thread is born with.
pub struct ThreadParts {
    /// 0 for the first.
    pub index: usize,
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The thread's socket for each listener, by name; non-blocking, with `SO_REUSEPORT`.
    pub sockets: Vec<(String, TcpListener)>,
    /// Where it listens to control.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// Where it leaves notes for control.
    pub signals: Signals,
    /// For what belongs to no snapshot.
    pub metrics: Arc<Metrics>,
}
