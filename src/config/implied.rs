//! What is meant where nothing is written.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    Access, AccessLog, Balance, HashKey, HealthCheck, Listener, LogFormat, Node, OutlierDetection,
    Preset, Protocols, Role, Server, Spool, Upstream, defaults, threads,
};
use crate::net::Address;

impl Default for Server {
    fn default() -> Self {
        Self {
            threads: threads::available(),
            shutdown_delay: defaults::SHUTDOWN_DELAY,
            shutdown_timeout: defaults::SHUTDOWN_TIMEOUT,
            upgrade_timeout: defaults::UPGRADE_TIMEOUT,
            upgrade_drain_timeout: defaults::UPGRADE_DRAIN_TIMEOUT,
            state_file: None,
            probation: defaults::PROBATION,
            probation_requests: defaults::PROBATION_REQUESTS,
            auto_rollback: false,
            max_buffered: Self::implied_max_buffered(threads::available()),
        }
    }
}

impl Server {
    /// Each thread has its part, and honest clients are not spread evenly: with many threads it takes more.
    pub fn implied_max_buffered(threads: usize) -> usize {
        defaults::MAX_BUFFERED.max(threads.saturating_mul(defaults::MAX_BUFFERED_OF_THREAD))
    }

    /// The state file where none is written: in the first of systemd's directories, if there is one.
    /// `env` looks up a variable of the environment.
    pub fn implied_state_file(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        Some(state_directory(env)?.join(defaults::STATE_FILE))
    }
}

impl Listener {
    /// A listener with every default, named after its address.
    #[must_use]
    pub fn at(bind: impl Into<Address>) -> Self {
        let bind = bind.into();
        Self {
            name: bind.to_string(),
            bind,
            socket_mode: defaults::SOCKET_MODE,
            max_connections: defaults::MAX_CONNECTIONS,
            max_head: defaults::MAX_HEAD,
            max_fields: defaults::MAX_FIELDS,
            max_body: defaults::MAX_BODY,
            max_requests: defaults::MAX_REQUESTS,
            max_requests_h2: defaults::MAX_REQUESTS_H2,
            request_head_timeout: defaults::REQUEST_HEAD_TIMEOUT,
            body_idle_timeout: defaults::CLIENT_BODY_IDLE_TIMEOUT,
            keep_alive_timeout: defaults::KEEP_ALIVE_TIMEOUT,
            send_timeout: defaults::SEND_TIMEOUT,
            proxy_protocol: Vec::new(),
            trusted_proxies: Vec::new(),
            certificates: Vec::new(),
            client_auth: None,
            protocols: Protocols { h1: true, h2: false },
            max_streams: defaults::MAX_STREAMS,
            access: Access::default(),
            max_connections_per_client: 0,
            max_tunnels_per_client: 0,
            min_body_rate: defaults::MIN_BODY_RATE,
        }
    }
}

impl Upstream {
    /// An upstream with every default and no nodes.
    #[must_use]
    pub fn named(name: String, preset: Preset) -> Self {
        Self {
            name,
            preset,
            balance: Balance::LeastLoad,
            hash_key: HashKey::ClientIp,
            hash_balance_factor: defaults::HASH_BALANCE_FACTOR,
            api_path: defaults::API_PATH.to_owned(),
            connect_timeout: defaults::CONNECT_TIMEOUT,
            response_timeout: defaults::RESPONSE_TIMEOUT,
            body_idle_timeout: defaults::BODY_IDLE_TIMEOUT,
            tunnel_idle_timeout: defaults::TUNNEL_IDLE_TIMEOUT,
            max_message: match preset {
                Preset::NocoBase => defaults::MAX_MESSAGE,
                Preset::None => 0,
            },
            quiet_restarts: preset == Preset::NocoBase,
            retries: defaults::RETRIES,
            retry_budget: defaults::RETRY_BUDGET,
            deadline: defaults::DEADLINE,
            stream_within: match preset {
                Preset::NocoBase => defaults::STREAM_WITHIN,
                Preset::None => Duration::ZERO,
            },
            hedge: None,
            max_idle: defaults::MAX_IDLE,
            max_requests_per_connection: defaults::MAX_REQUESTS_PER_CONNECTION,
            max_connection_age: defaults::MAX_CONNECTION_AGE,
            queue: defaults::QUEUE,
            queue_timeout: defaults::QUEUE_TIMEOUT,
            park: defaults::PARK,
            park_upgrades: defaults::PARK_UPGRADES,
            park_limit: defaults::PARK_LIMIT,
            park_bytes: defaults::PARK_BYTES,
            nodes: Vec::new(),
            health_check: match preset {
                Preset::NocoBase => Some(HealthCheck::of(preset, defaults::API_PATH)),
                Preset::None => None,
            },
            slow_start: defaults::SLOW_START,
            outlier_detection: OutlierDetection::default(),
            guard_changes: defaults::GUARD_CHANGES,
            sticky: None,
            tls: None,
            http2: false,
        }
    }
}

impl Node {
    /// A node with every default, named after its address.
    #[must_use]
    pub fn at(address: String) -> Self {
        Self {
            name: address.clone(),
            address,
            weight: 1,
            backup: false,
            role: Role::Serve,
            disabled: false,
            max_requests: 0,
        }
    }
}

impl HealthCheck {
    /// The check of a preset: NocoBase answers 200 and `ok` under its API path, of others nothing
    /// is known but that `/` ought to answer 200.
    #[must_use]
    pub fn of(preset: Preset, api_path: &str) -> Self {
        let (path, expect_body) = match preset {
            Preset::NocoBase => {
                (format!("{api_path}{}", defaults::HEALTH_ENDPOINT), Some("ok".to_owned()))
            }
            Preset::None => ("/".to_owned(), None),
        };
        Self {
            path,
            host: None,
            expect_status: 200,
            expect_body,
            interval: defaults::HEALTH_INTERVAL,
            timeout: defaults::HEALTH_TIMEOUT,
            rise: defaults::RISE,
            fall: defaults::FALL,
            watch: preset == Preset::NocoBase,
        }
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: defaults::CONSECUTIVE_FAILURES,
            error_ratio: defaults::ERROR_RATIO,
            ejection_time: defaults::EJECTION_TIME,
            max_ejected: defaults::MAX_EJECTED,
        }
    }
}

impl Spool {
    /// A spool with every default. `env` looks up a variable of the environment.
    pub fn implied(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let named = env(defaults::TEMPORARY_DIRECTORY).filter(|named| !named.is_empty());
        Self {
            directory: named.unwrap_or_else(|| defaults::SPOOL_DIRECTORY.to_owned()).into(),
            memory: defaults::SPOOL_MEMORY,
            max_body: defaults::SPOOL_MAX_BODY,
            total_memory: defaults::SPOOL_TOTAL_MEMORY,
            total_files: defaults::SPOOL_TOTAL_FILES,
            client_share: defaults::SPOOL_CLIENT_SHARE,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { enabled: true, path: "-".to_owned(), format: LogFormat::Json }
    }
}

/// NocoBase's own client pings this often and the server never answers: an idle limit at or below
/// it cuts every quiet tunnel.
pub(super) const NOCOBASE_PING: Duration = Duration::from_secs(300);

/// The directory that systemd has made for state, if it has.
pub(super) fn state_directory(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let directories = env(defaults::STATE_DIRECTORY)?;
    let first = directories.split(':').next().filter(|first| !first.is_empty())?;
    Some(PathBuf::from(first))
}
