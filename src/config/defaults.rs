//! Every default, each with its reason. Tables of the sources: NocoBase's generated Nginx file, Node's
//! own limits, and what the peers learnt.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::tls::challenges::Kind;

/// Kubernetes kills after 30 s; five remain for the process to end.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);
/// Names resolve within five seconds, nodes need not be waited for; what takes longer hangs.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);
/// As long as a request may take to its head by default, so that none is cut; at the pace of moves that is
/// also enough for 50,000 tunnels. The old process costs nothing but its memory meanwhile.
pub const UPGRADE_DRAIN_TIMEOUT: Duration = Duration::from_secs(600);
/// Nobody in front of us has to notice by default.
pub const SHUTDOWN_DELAY: Duration = Duration::ZERO;

/// systemd makes a directory for a unit with `StateDirectory=` and names it in this variable. Where nobody
/// has made one, nothing is kept: a process must not write where nobody asked it to.
pub const STATE_DIRECTORY: &str = "STATE_DIRECTORY";
/// Name of the state file there.
pub const STATE_FILE: &str = "state.json";

/// Long enough for each page of a busy system to be asked for, and for an operator to wait for.
pub const PROBATION: Duration = Duration::from_secs(30);
/// Five failures are then more than two in a hundred.
pub const PROBATION_REQUESTS: u64 = 200;

/// Well under the descriptor limit of 20,000 and more that an edge host has; two descriptors each.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Node's own `maxHeaderSize`: a larger head would only fail one step later.
pub const MAX_HEAD: usize = 16 * 1024;
/// Browsers send about 20, chains of proxies 40.
pub const MAX_FIELDS: usize = 100;
/// Nginx's, and what RFC 9113 (6.5.2) recommends at least is 100: a page of NocoBase asks for some sixty files
/// at once.
pub const MAX_STREAMS: u32 = 128;
/// Uploads are real, and unlimited is not a default.
pub const MAX_BODY: u64 = 1024 * 1024 * 1024;
/// Nginx's `keepalive_requests`: bounds what one connection can hold on to.
pub const MAX_REQUESTS: u64 = 1_000;
/// A connection of HTTP/2 carries all of a client's requests, and its end costs all of them a round trip.
pub const MAX_REQUESTS_H2: u64 = 100_000;
/// A browser needs well under a second; slowloris needs minutes.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Nginx's `client_body_timeout`.
pub const CLIENT_BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Nginx's `keepalive_timeout`, longer than the 60 s of common cloud balancers in front.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// Nginx's `send_timeout`.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// A modem of 1991 was faster. What comes more slowly holds a connection and a buffer for nobody's good: 64 KiB
/// would take more than a minute, a gigabyte 12 days.
pub const MIN_BODY_RATE: u64 = 1024;
/// What 5,000 exchanges hold with the largest head and a small body each; a NocoBase cluster under full load
/// has a few hundred.
pub const MAX_BUFFERED: usize = 256 * 1024 * 1024;
/// What 300 such exchanges hold on one thread.
pub const MAX_BUFFERED_OF_THREAD: usize = 16 * 1024 * 1024;
/// Clients that each rate remembers: 1.1 MiB of memory.
pub const RATE_LIMIT_CLIENTS: usize = 65_536;

/// Two weeks: automatic renewals happen before, so who is warned has one that does not work.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// Let's Encrypt, whom everybody trusts and who asks for no account elsewhere.
pub const ACME_DIRECTORY: &str = "letsencrypt";
/// It needs no port that a TLS listener does not have anyway.
pub const ACME_CHALLENGE: Kind = Kind::TlsAlpn01;
/// Name of the directory of ACME below the one that systemd makes.
pub const ACME_STATE: &str = "acme";
/// What Let's Encrypt puts in one certificate at most.
pub const ACME_DOMAINS: usize = 100;

/// Node's base path of the API when `APP_PUBLIC_PATH` is `/`.
pub const API_PATH: &str = "/api/";
/// One SYN retransmission (1 s) fits; a busy Node still accepts in the kernel.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// NocoBase's own Nginx file: exports and imports take minutes.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(600);
/// The same, between bytes.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// NocoBase's client pings every 300 s and the server never answers.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// NocoBase's own bound (`maxPayload` of `ws`): a longer message would only fail one step later.
pub const MAX_MESSAGE: u64 = 100 * 1024 * 1024;
/// Three nodes begin with a request at most by lost connections; what no node has seen is not counted.
pub const RETRIES: u32 = 2;
/// What Envoy and Linkerd agree on.
pub const RETRY_BUDGET: f64 = 0.2;
/// None: `response_timeout` bounds each attempt.
pub const DEADLINE: Duration = Duration::ZERO;
/// A fifth of Node's `requestTimeout` (300 s for a whole request): clients become five times slower than they
/// were measured, and rarely more. Of other services nobody knows how long they wait, and some clients wait for an
/// answer before they send the rest: there it is off.
pub const STREAM_WITHIN: Duration = Duration::from_secs(60);
/// One request in twenty may be asked twice: what Dean and Barroso, "The tail at scale", found cheap.
pub const HEDGE_AFTER: f64 = 0.95;
/// Less than a tick of our own deadlines would be noise, and a node that answers in less is not late.
pub const HEDGE_AT_LEAST: Duration = Duration::from_millis(50);
/// More idle connections than that help no node, each holds a socket on both sides.
pub const MAX_IDLE: usize = 128;
/// Nginx's `keepalive_requests` of an upstream.
pub const MAX_REQUESTS_PER_CONNECTION: u64 = 1_000;
/// So that changed weights and PM2 workers behind one port take their share.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
/// A second of traffic at 1,000 requests/s: more would only wait to time out.
pub const QUEUE: usize = 1_000;
/// A browser's user is still there.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// A restart that takes longer is noticed anyway, and a browser's user is still there.
pub const PARK: Duration = Duration::from_secs(10);
/// NocoBase's pages give up after 30 failed reconnects, a second apart: held for so long each, that is 13
/// minutes instead of 30 seconds; and shorter than the 30 s and more that proxies in front of us wait.
pub const PARK_UPGRADES: Duration = Duration::from_secs(25);
/// What comes in `PARK` at 500 requests/s, far above the load of a NocoBase cluster; and as many pages.
pub const PARK_LIMIT: usize = 5_000;
/// About 6,000 requests with the heads of a browser and without bodies fit, 8 to 14 KiB each.
pub const PARK_BYTES: usize = 64 * 1024 * 1024;
/// The hash spreads at most a quarter beyond the fair share (Mirrokni and others, 2016).
pub const HASH_BALANCE_FACTOR: f64 = 1.25;

/// HAProxy's `inter`; costs Node almost nothing and finds a dead node in two to three seconds.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// A probe's time-out, the same.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// NocoBase's health endpoint under the API path.
pub const HEALTH_ENDPOINT: &str = "__health_check";
/// Two good probes admit a node.
pub const RISE: u32 = 2;
/// Three bad ones take it out.
pub const FALL: u32 = 3;
/// NocoBase's Snowflake worker ids end at 31 (packages/core/snowflake-id).
pub const MAX_NOCOBASE_NODES: usize = 32;

/// So long V8 needs for NocoBase's hot code, and a node for its database connections and caches.
pub const SLOW_START: Duration = Duration::from_secs(30);

/// Failures in a row until an ejection.
pub const CONSECUTIVE_FAILURES: u32 = 5;
/// A node that fails every second request is worse than none; less may be what clients ask for.
pub const ERROR_RATIO: f64 = 0.5;
/// Short, because recovery is quick and the time grows with each ejection.
pub const EJECTION_TIME: Duration = Duration::from_secs(5);
/// Half: Envoy's tenth can never eject one of nine.
pub const MAX_EJECTED: f64 = 0.5;

/// Off: an operator who has never heard of it would look for the fault in NocoBase.
pub const GUARD_CHANGES: bool = false;

/// A working day: long enough to be worth it, short enough to spread again.
pub const STICKY_MAX_LIFE: Duration = Duration::from_secs(8 * 3600);
/// Name of the sticky cookie.
pub const STICKY_COOKIE: &str = "cobalance_node";

/// Where temporary files go unless `TMPDIR` names another place.
pub const SPOOL_DIRECTORY: &str = "/tmp";
/// Names that place (POSIX).
pub const TEMPORARY_DIRECTORY: &str = "TMPDIR";
/// Most attachments of NocoBase fit; a client that sends so much in a moment is fast.
pub const SPOOL_MEMORY: usize = 1024 * 1024;
/// Whatever a listener takes by default.
pub const SPOOL_MAX_BODY: u64 = MAX_BODY;
/// Five hundred slow uploads with what one has beside its file (128 KiB).
pub const SPOOL_TOTAL_MEMORY: usize = 64 * 1024 * 1024;
/// Two hundred attachments of NocoBase's default bound (20 MiB), or four of the largest bodies; small beside
/// the disk of a host that runs NocoBase.
pub const SPOOL_TOTAL_FILES: u64 = 4 * 1024 * 1024 * 1024;
/// One of the largest bodies, or fifty attachments, of one office behind one address; three such leave room.
pub const SPOOL_CLIENT_SHARE: f64 = 0.25;

/// Whoever runs the process, and its group: what connects is trusted as this machine is.
pub const SOCKET_MODE: u32 = 0o660;

/// Loopback, a port that no common service has.
pub const ADMIN_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// Whoever may connect may do everything: the user of the process, and root.
pub const ADMIN_SOCKET_MODE: u32 = 0o600;
