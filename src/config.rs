//! What the operator meant: the configuration, resolved, with every default filled in.
//!
//! A file goes through three types: `raw` (as written, with its places), [`Config`] (as meant, which
//! cannot hold a bad value) and `snapshot::Snapshot` (as run). Durations are `Duration`, sizes are
//! bytes; where zero means "no limit", the field says so.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::net::Address;
pub use crate::telemetry::access_log::{Format as LogFormat, Settings as AccessLog};

pub mod defaults;
pub mod diagnostic;
pub mod keys;
pub mod threads;

mod address;
mod admin;
mod env;
mod flags;
mod implied;
mod limits;
mod raw;
mod redact;
mod resolve;
mod suggest;
mod tls;

pub use admin::Admin;
pub use diagnostic::{Diagnostic, Severity, Source, render, summary, to_json};
pub use flags::{from_flags, listen_address};
pub use limits::{
    Access, ActionPattern, ListFile, ListProblem, NetworkList, Rate, RateKey, RateLimit, read_list,
};
pub use suggest::near;
pub use tls::{
    Authority, Certificate, ClientAuth, ExternalAccount, Order, TicketSecrets, Tls, UpstreamTls,
};

/// Reads a configuration. `env` looks up a variable of the environment; besides it and the text,
/// the default of `threads` depends on the machine, and so do the files of certificates that it names: they
/// are read and checked as well.
///
/// # Errors
///
/// All errors of the file, and its warnings, in the order of the file.
pub fn load(
    source: &Source,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (cx, root) = raw::Cx::parse(&source.text, env);
    let config = resolve::document(&cx, root.get_ref());
    let found = cx.finish();
    if found.iter().any(Diagnostic::is_error) { Err(found) } else { Ok((config, found)) }
}

/// Reads where a process with this configuration is asked, whatever is wrong with the rest of it: it may run with
/// what the file said before.
pub fn whereabouts(source: &Source, env: &dyn Fn(&str) -> Option<String>) -> Whereabouts {
    let (cx, root) = raw::Cx::parse(&source.text, env);
    resolve::whereabouts(&cx, root.get_ref())
}

/// Where a process is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Whereabouts {
    /// The admin listener.
    pub admin: Admin,
    /// The public probes, if wanted.
    pub probes: Option<Probes>,
    /// Whether both are as they were meant: these tables have no error, and the file is TOML.
    pub certain: bool,
}

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The process itself.
    pub server: Server,
    /// What TLS listeners have in common.
    pub tls: Tls,
    /// ACME authorities; names are unique.
    pub authorities: Vec<Authority>,
    /// Certificates; names are unique.
    pub certificates: Vec<Certificate>,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// In the order of the file; the most specific match wins, whatever the order. None at all:
    /// everything goes to the only upstream (a file with several upstreams and no route is refused).
    pub routes: Vec<Route>,
    /// How often clients may do what; names are unique.
    pub rate_limits: Vec<RateLimit>,
    /// At least one; names are unique.
    pub upstreams: Vec<Upstream>,
    /// Where slow uploads are kept until they are complete.
    pub spool: Spool,
    /// The admin listener.
    pub admin: Admin,
    /// The public `/livez`, `/readyz` and `/metrics`, if wanted.
    pub probes: Option<Probes>,
    /// The access log.
    pub access_log: AccessLog,
}

impl Config {
    /// The files of all lists of networks; one that is named twice comes twice.
    pub fn list_files(&self) -> impl Iterator<Item = &ListFile> {
        let listeners = self.listeners.iter().map(|listener| &listener.access);
        let routes = self.routes.iter().map(|route| &route.access);
        listeners.chain(routes).flat_map(Access::files)
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Data threads; at least 1.
    pub threads: usize,
    /// After SIGTERM: not ready, still accepting.
    pub shutdown_delay: Duration,
    /// From the end of the delay to exit.
    pub shutdown_timeout: Duration,
    /// How long the process of an upgrade may take until it is ready.
    pub upgrade_timeout: Duration,
    /// From an upgrade to the exit of the old process.
    pub upgrade_drain_timeout: Duration,
    /// Keeps what operators asked of nodes over a restart; `None` keeps nothing.
    pub state_file: Option<PathBuf>,
    /// How long a reloaded file is watched; zero: it counts as good at once.
    pub probation: Duration,
    /// Requests that tell enough of it.
    pub probation_requests: u64,
    /// Whether one that does worse is rolled back without asking.
    pub auto_rollback: bool,
    /// Bytes that are held for clients, over all data threads.
    pub max_buffered: usize,
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique; defaults to the text of `bind`.
    pub name: String,
    /// The address to bind.
    pub bind: Address,
    /// The bits of a Unix socket's file that say who may connect.
    pub socket_mode: u32,
    /// Open client connections; more are closed at once.
    pub max_connections: usize,
    /// Bytes of a head, request line included.
    pub max_head: usize,
    /// Fields of a head.
    pub max_fields: usize,
    /// Bytes of a body; 0 is no limit.
    pub max_body: u64,
    /// Requests on one connection before it is closed.
    pub max_requests: u64,
    /// The same of HTTP/2.
    pub max_requests_h2: u64,
    /// From the first byte of a head to its end.
    pub request_head_timeout: Duration,
    /// Between reads of a client's body.
    pub body_idle_timeout: Duration,
    /// Between the end of an answer and the next request.
    pub keep_alive_timeout: Duration,
    /// No progress writing to a client for so long: it is cut.
    pub send_timeout: Duration,
    /// Peers that must send a PROXY header, and whose word it is who the client is.
    pub proxy_protocol: Vec<IpNet>,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Names of the certificates that it shows, the first to clients that ask for no name it knows. None at
    /// all: it speaks no TLS.
    pub certificates: Vec<String>,
    /// What it asks of its clients; `None` asks nothing.
    pub client_auth: Option<ClientAuth>,
    /// What is spoken.
    pub protocols: Protocols,
    /// Streams that a client may have open on one connection of HTTP/2.
    pub max_streams: u32,
    /// Who may connect.
    pub access: Access,
    /// Open connections of one client; 0 is no limit.
    pub max_connections_per_client: u64,
    /// Open tunnels of one client; 0 is no limit.
    pub max_tunnels_per_client: u64,
    /// Bytes a second that a body or an answer must move at least; 0 is no limit.
    pub min_body_rate: u64,
}

/// Which versions of HTTP a listener speaks. On a plain one, HTTP/2 is known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// HTTP/1.0 and 1.1.
    pub h1: bool,
    /// HTTP/2.
    pub h2: bool,
}

impl Listener {
    /// Whether the words of a peer about its clients are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique; defaults to the text of its match.
    pub name: String,
    /// Which hosts; `None` is any.
    pub host: Option<HostMatch>,
    /// Which paths; `None` is any.
    pub path: Option<PathMatch>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Who may come this way.
    pub access: Access,
}

/// A host condition, lower case, without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostMatch {
    /// `crm.example.com`
    Exact(String),
    /// `*.example.com`, kept as `.example.com`; one or more labels stand for the star.
    Suffix(String),
}

/// A path condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathMatch {
    /// `/ws`
    Exact(String),
    /// `/api/*`, kept as `/api/`.
    Prefix(String),
}

/// What the nodes of an upstream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// NocoBase: its error grammar, actions and URL space are known.
    NocoBase,
    /// Any HTTP service.
    None,
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Peak-EWMA of the head time times load, best of up to three.
    LeastLoad,
    /// Smooth weighted round robin.
    RoundRobin,
    /// Fewest requests in flight per weight.
    LeastRequests,
    /// The less loaded of two random nodes.
    RandomTwo,
    /// Rendezvous hash with bounded load.
    Hash,
}

/// What `balance = "hash"` hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address (after trusted proxies).
    ClientIp,
    /// A request field, by lower-case name.
    Header(String),
    /// A cookie, by name.
    Cookie(String),
}

/// `[upstream.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The table's name.
    pub name: String,
    /// What its nodes are.
    pub preset: Preset,
    /// How a node is chosen.
    pub balance: Balance,
    /// Used by [`Balance::Hash`].
    pub hash_key: HashKey,
    /// Under [`Balance::Hash`], a node takes at most this many times its fair share (1.25).
    pub hash_balance_factor: f64,
    /// NocoBase's API path, with slashes at both ends (`/api/`).
    pub api_path: String,
    /// To open a connection.
    pub connect_timeout: Duration,
    /// From the request sent to the head of the answer.
    pub response_timeout: Duration,
    /// Between bytes of an answer; does not apply to event streams.
    pub body_idle_timeout: Duration,
    /// Silence in both directions of a tunnel.
    pub tunnel_idle_timeout: Duration,
    /// Bytes of one WebSocket message of a client; 0 is no limit.
    pub max_message: u64,
    /// Whether NocoBase's pages are moved away from a node that ends before they are told of that.
    pub quiet_restarts: bool,
    /// Attempts after the first.
    pub retries: u32,
    /// Share of requests that may be repeated after they were sent (0.2).
    pub retry_budget: f64,
    /// Over all attempts up to the head; zero is none.
    pub deadline: Duration,
    /// A larger body that is not there within so long, at the client's rate, is spooled first; zero: none is.
    pub stream_within: Duration,
    /// Asking a second node when the first is late; `None` is off.
    pub hedge: Option<Hedge>,
    /// Idle connections kept per node and data thread.
    pub max_idle: usize,
    /// Requests on one connection to a node.
    pub max_requests_per_connection: u64,
    /// Age of a connection to a node.
    pub max_connection_age: Duration,
    /// Requests waiting while all nodes are at `max_requests`, over all data threads.
    pub queue: usize,
    /// Longest wait in that queue.
    pub queue_timeout: Duration,
    /// Longest wait of a request while no node is eligible; zero: it is not parked.
    pub park: Duration,
    /// The same for WebSocket upgrades.
    pub park_upgrades: Duration,
    /// Exchanges of each kind (requests, upgrades) parked at once, over all data threads.
    pub park_limit: usize,
    /// Bytes that they hold together: heads, and bodies as far as they were read.
    pub park_bytes: usize,
    /// The nodes as written; names are resolved by control.
    pub nodes: Vec<Node>,
    /// Active checks; `None` is off.
    pub health_check: Option<HealthCheck>,
    /// From a node's return to its whole weight; zero is at once.
    pub slow_start: Duration,
    /// Ejection by live traffic.
    pub outlier_detection: OutlierDetection,
    /// Whether what changes one node of several is answered instead of passed on.
    pub guard_changes: bool,
    /// Stickiness; `None` is off.
    pub sticky: Option<Sticky>,
    /// How nodes are spoken to over TLS; `None` is plain.
    pub tls: Option<UpstreamTls>,
    /// Nodes are spoken to in HTTP/2 (`protocol = "h2"`).
    pub http2: bool,
}

/// `[upstream.NAME.hedge]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// Share of the heads that came sooner (0.95).
    pub after: f64,
    /// Never sooner than this.
    pub at_least: Duration,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves requests.
    Serve,
    /// Background work only: watched, never routed to.
    Task,
}

/// One of `nodes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique in its upstream; defaults to the text of `address`.
    pub name: String,
    /// `host:port`; the host may be a name, an IPv4 or a bracketed IPv6 address.
    pub address: String,
    /// 1 to 1000.
    pub weight: u32,
    /// Picked only when no primary node is eligible.
    pub backup: bool,
    /// What it is for.
    pub role: Role,
    /// Taken out by the operator.
    pub disabled: bool,
    /// Requests in flight at most; 0 is no limit.
    pub max_requests: u32,
}

/// `[upstream.NAME.health_check]`
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Path and query of the probe.
    pub path: String,
    /// `Host` of the probe; `None` is the node's address.
    pub host: Option<String>,
    /// The only good status.
    pub expect_status: u16,
    /// The only good body, compared after trimming; `None` is any.
    pub expect_body: Option<String>,
    /// Between probes of a node that is up.
    pub interval: Duration,
    /// For one probe, connecting included.
    pub timeout: Duration,
    /// Good probes in a row until a node is up.
    pub rise: u32,
    /// Bad probes in a row until it is down.
    pub fall: u32,
    /// A WebSocket to each node over which NocoBase tells of itself; never with another preset.
    pub watch: bool,
}

/// `[upstream.NAME.outlier_detection]`
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// Off leaves active checks alone in charge.
    pub enabled: bool,
    /// Failures in a row, within 10 s, until a node is ejected.
    pub consecutive_failures: u32,
    /// Share of its requests within 10 s that fail at a node which is ejected, if that is four times the
    /// others' median (0.5); 0 is off.
    pub error_ratio: f64,
    /// The first ejection; later ones are multiples.
    pub ejection_time: Duration,
    /// Share of the primary nodes that may be ejected at once (0.5).
    pub max_ejected: f64,
}

/// `[upstream.NAME.sticky]`
#[derive(Clone, PartialEq)]
pub struct Sticky {
    /// Name of the cookie.
    pub cookie: String,
    /// Signs the cookie's value; the same on every replica.
    pub secret: String,
    /// After so long the client is balanced anew.
    pub max_life: Duration,
}

impl std::fmt::Debug for Sticky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sticky")
            .field("cookie", &self.cookie)
            .field("secret", &"(hidden)")
            .field("max_life", &self.max_life)
            .finish()
    }
}

/// `[spool]`
#[derive(Clone, Debug, PartialEq)]
pub struct Spool {
    /// Where files are made; they have no name there.
    pub directory: PathBuf,
    /// Bytes of one body in memory; what is more goes into its file.
    pub memory: usize,
    /// Bytes of one body.
    pub max_body: u64,
    /// Bytes of all bodies in memory.
    pub total_memory: usize,
    /// Bytes of all bodies in files.
    pub total_files: u64,
    /// Share of both that the bodies of one client may hold (0.25).
    pub client_share: f64,
}

/// `[probes]`
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    /// Any address; serves nothing that needs a token.
    pub bind: SocketAddr,
}
