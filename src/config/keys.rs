//! Every key there is, once: the reader, the suggestions and the reference all use these lists.

/// The keys of one kind of table.
#[derive(Debug)]
pub struct TableKeys {
    /// How the table is written: `[[listener]]`, `[upstream.NAME]`, `nodes`.
    pub title: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [&'static str],
}

pub(super) static ROOT: TableKeys = TableKeys {
    title: "the file",
    keys: &[
        "server",
        "tls",
        "acme",
        "certificate",
        "listener",
        "route",
        "rate_limit",
        "upstream",
        "spool",
        "admin",
        "probes",
        "access_log",
    ],
};

pub(super) static SERVER: TableKeys = TableKeys {
    title: "[server]",
    keys: &[
        "threads",
        "shutdown_delay",
        "shutdown_timeout",
        "upgrade_timeout",
        "upgrade_drain_timeout",
        "state_file",
        "probation",
        "probation_requests",
        "auto_rollback",
        "max_buffered",
    ],
};

pub(super) static TLS: TableKeys =
    TableKeys { title: "[tls]", keys: &["https_only", "ticket_secret_file"] };

pub(super) static CERTIFICATE: TableKeys =
    TableKeys { title: "[[certificate]]", keys: &["name", "chain", "key", "acme", "domains"] };

pub(super) static ACME: TableKeys = TableKeys {
    title: "[acme.NAME]",
    keys: &[
        "directory",
        "agree_to_terms",
        "contact",
        "challenge",
        "state",
        "ca",
        "external_account",
    ],
};

pub(super) static EXTERNAL_ACCOUNT: TableKeys =
    TableKeys { title: "`external_account`", keys: &["key_id", "key_file"] };

pub(super) static LISTENER: TableKeys = TableKeys {
    title: "[[listener]]",
    keys: &[
        "name",
        "bind",
        "socket_mode",
        "max_connections",
        "max_head",
        "max_fields",
        "max_body",
        "max_requests",
        "request_head_timeout",
        "body_idle_timeout",
        "keep_alive_timeout",
        "send_timeout",
        "proxy_protocol",
        "trusted_proxies",
        "certificates",
        "client_auth",
        "client_ca",
        "protocols",
        "max_streams",
        "allow",
        "allow_file",
        "deny",
        "deny_file",
        "max_connections_per_client",
        "max_tunnels_per_client",
        "min_body_rate",
    ],
};

pub(super) static ROUTE: TableKeys = TableKeys {
    title: "[[route]]",
    keys: &["name", "host", "path", "upstream", "allow", "allow_file", "deny", "deny_file"],
};

pub(super) static RATE_LIMIT: TableKeys = TableKeys {
    title: "[[rate_limit]]",
    keys: &["name", "by", "rate", "actions", "route", "upstream", "clients"],
};

pub(super) static UPSTREAM: TableKeys = TableKeys {
    title: "[upstream.NAME]",
    keys: &[
        "preset",
        "protocol",
        "public_path",
        "api_path",
        "balance",
        "hash_key",
        "hash_balance_factor",
        "connect_timeout",
        "response_timeout",
        "body_idle_timeout",
        "tunnel_idle_timeout",
        "max_message",
        "quiet_restarts",
        "retries",
        "retry_budget",
        "deadline",
        "stream_within",
        "hedge",
        "max_idle",
        "max_requests_per_connection",
        "max_connection_age",
        "max_requests",
        "queue",
        "queue_timeout",
        "park",
        "park_upgrades",
        "park_limit",
        "park_bytes",
        "slow_start",
        "guard_changes",
        "nodes",
        "health_check",
        "outlier_detection",
        "sticky",
        "tls",
    ],
};

pub(super) static NODE: TableKeys = TableKeys {
    title: "an entry of `nodes`",
    keys: &["name", "address", "weight", "backup", "role", "disabled", "max_requests"],
};

pub(super) static HEALTH_CHECK: TableKeys = TableKeys {
    title: "[upstream.NAME.health_check]",
    keys: &[
        "enabled",
        "path",
        "host",
        "expect_status",
        "expect_body",
        "interval",
        "timeout",
        "rise",
        "fall",
        "watch",
    ],
};

pub(super) static OUTLIER_DETECTION: TableKeys = TableKeys {
    title: "[upstream.NAME.outlier_detection]",
    keys: &["enabled", "consecutive_failures", "error_ratio", "ejection_time", "max_ejected"],
};

pub(super) static HEDGE: TableKeys =
    TableKeys { title: "[upstream.NAME.hedge]", keys: &["after", "at_least"] };

pub(super) static STICKY: TableKeys =
    TableKeys { title: "[upstream.NAME.sticky]", keys: &["cookie", "secret", "max_life"] };

pub(super) static SPOOL: TableKeys = TableKeys {
    title: "[spool]",
    keys: &["directory", "memory", "max_body", "total_memory", "total_files", "client_share"],
};

pub(super) static UPSTREAM_TLS: TableKeys = TableKeys {
    title: "[upstream.NAME.tls]",
    keys: &["enabled", "ca", "server_name", "certificate"],
};

pub(super) static ADMIN: TableKeys = TableKeys {
    title: "[admin]",
    keys: &["enabled", "bind", "mode", "hosts", "token_file", "read_token_file"],
};

pub(super) static PROBES: TableKeys = TableKeys { title: "[probes]", keys: &["bind"] };

pub(super) static ACCESS_LOG: TableKeys =
    TableKeys { title: "[access_log]", keys: &["enabled", "path", "format"] };

/// All tables, the file itself first.
#[must_use]
pub fn tables() -> [&'static TableKeys; 20] {
    [
        &ROOT,
        &SERVER,
        &TLS,
        &ACME,
        &EXTERNAL_ACCOUNT,
        &CERTIFICATE,
        &LISTENER,
        &ROUTE,
        &RATE_LIMIT,
        &UPSTREAM,
        &NODE,
        &HEALTH_CHECK,
        &OUTLIER_DETECTION,
        &HEDGE,
        &STICKY,
        &SPOOL,
        &UPSTREAM_TLS,
        &ADMIN,
        &PROBES,
        &ACCESS_LOG,
    ]
}
