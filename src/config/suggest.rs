//! What the operator may have meant by a word that means nothing here.

use super::keys::{self, TableKeys};

const TLS: &str = "write `[[certificate]]` with `name`, `chain` and `key`, and `certificates = [NAME]` in \
                   `[[listener]]`";
const ACME: &str = "write `[acme.NAME]` with `agree_to_terms`, and `acme = \"NAME\"` with `domains` in \
                    `[[certificate]]`";
const EJECTION: &str = "write `consecutive_failures` and `ejection_time` in \
                        `[upstream.NAME.outlier_detection]`";
const NODES: &str = "write `nodes = [\"HOST:PORT\"]`: the processes of an upstream are its nodes";
const LIMIT: &str = "write `[[rate_limit]]` with a `name` and a `rate`: how often a client may ask";

/// Words of other products, and of versions to come, with ours.
const FOREIGN: &[(&str, &str)] = &[
    ("ssl", TLS),
    ("ssl_certificate", TLS),
    ("ssl_certificate_key", TLS),
    ("cert", TLS),
    ("crt", TLS),
    ("ssl_client_certificate", "write `client_auth` and `client_ca` in `[[listener]]`"),
    ("ssl_verify_client", "write `client_auth` and `client_ca` in `[[listener]]`"),
    ("ssl_session_ticket_key", "write `ticket_secret_file` in `[tls]`"),
    ("acme", ACME),
    ("letsencrypt", ACME),
    ("acme_certificate", ACME),
    ("acme_issuer", ACME),
    ("certificates_resolvers", ACME),
    ("email", "write `contact = [\"ops@example.com\"]` in `[acme.NAME]`"),
    ("accept_terms_of_service", "write `agree_to_terms = true` in `[acme.NAME]`"),
    ("state_path", "write `state = \"/var/lib/cobalance/acme\"` in `[acme.NAME]`"),
    ("redirect_https", "write `https_only = true` in `[tls]`"),
    ("hsts", "write `https_only = true` in `[tls]`"),
    ("http2", "write `protocols = [\"h1\", \"h2\"]`"),
    ("alpn", "write `protocols = [\"h1\", \"h2\"]`"),
    ("http2_max_concurrent_streams", "write `max_streams`"),
    ("max_concurrent_streams", "write `max_streams`"),
    ("accept_proxy", "write `proxy_protocol` in `[[listener]]`, with the networks of the proxies"),
    ("limit_req", LIMIT),
    ("limit_req_zone", LIMIT),
    ("limit_conn", "write `max_connections_per_client` in `[[listener]]`"),
    ("backend", "write `[upstream.NAME]`: a named group of nodes is an upstream"),
    ("backends", "write `[upstream.NAME]`: a named group of nodes is an upstream"),
    ("cluster", "write `[upstream.NAME]`: a named group of nodes is an upstream"),
    ("clusters", "write `[upstream.NAME]`: a named group of nodes is an upstream"),
    ("service", "write `[upstream.NAME]`: a named group of nodes is an upstream"),
    ("services", "write `[upstream.NAME]`: a named group of nodes is an upstream"),
    ("frontend", "write `[[listener]]`: a socket to accept on is a listener"),
    ("entrypoint", "write `[[listener]]`: a socket to accept on is a listener"),
    ("listen", "write `bind = \"0.0.0.0:80\"` in `[[listener]]`"),
    ("location", "write `[[route]]` with `path` and `upstream`"),
    ("locations", "write `[[route]]` with `path` and `upstream`"),
    ("rule", "write `[[route]]` with `host`, `path` and `upstream`"),
    ("vhost", "write `[[route]]` with `host` and `upstream`"),
    ("server_name", "write `host` in `[[route]]`"),
    ("proxy_pass", "write `upstream = \"NAME\"` in `[[route]]`"),
    ("server", NODES),
    ("servers", NODES),
    ("targets", NODES),
    ("endpoints", NODES),
    ("members", NODES),
    ("keepalive", "write `max_idle` in `[upstream.NAME]`: idle connections kept for each node"),
    ("keepalive_timeout", "write `keep_alive_timeout` in `[[listener]]`"),
    (
        "keepalive_requests",
        "write `max_requests` in `[[listener]]`, or `max_requests_per_connection` in \
         `[upstream.NAME]`",
    ),
    ("max_fails", EJECTION),
    ("fail_timeout", EJECTION),
    ("circuit_breaker", EJECTION),
    ("proxy_read_timeout", "write `response_timeout` and `body_idle_timeout` in `[upstream.NAME]`"),
    ("proxy_send_timeout", "write `body_idle_timeout` in `[upstream.NAME]`"),
    ("proxy_connect_timeout", "write `connect_timeout` in `[upstream.NAME]`"),
    ("proxy_next_upstream", "write `retries` in `[upstream.NAME]`"),
    ("proxy_next_upstream_tries", "write `retries` in `[upstream.NAME]`"),
    ("timeout", "write `response_timeout` in `[upstream.NAME]`"),
    ("max_conns", "write `max_requests`: requests in flight at a node"),
    ("maxconn", "write `max_connections` in `[[listener]]`, or `max_requests` at a node"),
    ("slowstart", "write `slow_start = \"30s\"` in `[upstream.NAME]`"),
    ("warm_up", "write `slow_start = \"30s\"` in `[upstream.NAME]`"),
    ("warmup", "write `slow_start = \"30s\"` in `[upstream.NAME]`"),
    ("down", "write `disabled = true`"),
    ("drain", "run `cobalance drain NODE`, or write `disabled = true`"),
    ("priority", "write `weight` (1 to 1000)"),
    ("ip_hash", "write `balance = \"hash\"` and `hash_key = \"client_ip\"`"),
    ("least_conn", "write `balance = \"least_requests\"`"),
    ("algorithm", "write `balance`"),
    ("affinity", "write `[upstream.NAME.sticky]`"),
    ("health", "write `[upstream.NAME.health_check]`"),
    ("healthcheck", "write `[upstream.NAME.health_check]`"),
    ("check", "write `[upstream.NAME.health_check]`"),
    ("uri", "write `path`"),
    ("url", "write `address = \"HOST:PORT\"`"),
    ("client_max_body_size", "write `max_body` in `[[listener]]`"),
    ("client_header_timeout", "write `request_head_timeout` in `[[listener]]`"),
    ("client_body_timeout", "write `body_idle_timeout` in `[[listener]]`"),
    ("large_client_header_buffers", "write `max_head` in `[[listener]]`"),
    ("worker_processes", "write `threads` in `[server]`"),
    ("worker_connections", "write `max_connections` in `[[listener]]`"),
    ("workers", "write `threads` in `[server]`"),
    ("set_real_ip_from", "write `trusted_proxies` in `[[listener]]`"),
    ("real_ip_header", "write `trusted_proxies` in `[[listener]]`"),
    ("metrics", "metrics are at `/metrics` of `[admin]` and of `[probes]`"),
    ("api", "write `[admin]`"),
    ("log", "write `[access_log]`"),
];

/// Other names of the algorithms.
const FOREIGN_BALANCE: &[(&str, &str)] = &[
    ("least_conn", "least_requests"),
    ("leastconn", "least_requests"),
    ("least_request", "least_requests"),
    ("least_connections", "least_requests"),
    ("ip_hash", "hash"),
    ("source", "hash"),
    ("ring_hash", "hash"),
    ("maglev", "hash"),
    ("roundrobin", "round_robin"),
    ("wrr", "round_robin"),
    ("random", "random_two"),
    ("p2c", "random_two"),
    ("ewma", "least_load"),
    ("peak_ewma", "least_load"),
];

/// The nearest of `known`, if it is near enough to be a slip of the hand.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(&word.to_ascii_lowercase().replace('-', "_"), known)
}

/// The same for any names, which are compared as they are.
pub fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long word makes the distance slow to compute and is near to nothing.
    if word.len() > 64 {
        return None;
    }
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|(distance, known)| *distance <= limit && *distance < known.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The algorithm that another product's word means, or the nearest of ours.
pub(super) fn balance<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = word.to_ascii_lowercase().replace('-', "_");
    FOREIGN_BALANCE
        .iter()
        .find(|(foreign, _)| *foreign == folded)
        .map(|(_, ours)| *ours)
        .or_else(|| nearest(word, known.iter().copied()))
}

/// Help for a key that its table does not know.
pub(super) fn key_help(word: &str, table: &TableKeys) -> String {
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let near = nearest(&folded, table.keys.iter().copied());
    let slip = near.filter(|key| strsim::damerau_levenshtein(&folded, key) == 1);
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == folded);
    match (slip, foreign, near) {
        (None, Some((_, help)), _) => return (*help).to_owned(),
        (Some(key), _, _) | (None, None, Some(key)) => return format!("did you mean `{key}`?"),
        (None, None, None) => {}
    }
    if let Some(other) = keys::tables().into_iter().find(|t| t.keys.contains(&folded.as_str())) {
        return format!("`{folded}` belongs to {}", place(other));
    }
    let keys: Vec<String> = table.keys.iter().map(|key| format!("`{key}`")).collect();
    format!("known here: {}", keys.join(", "))
}

fn place(table: &TableKeys) -> String {
    if table.title.starts_with('[') { format!("`{}`", table.title) } else { table.title.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["retries", "nodes", "balance", "fall"];
        for (word, expected) in [
            ("retrys", Some("retries")),
            ("node", Some("nodes")),
            ("Balance", Some("balance")),
            ("blance", Some("balance")),
            ("zzz", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"n".repeat(100_000), known), None);
    }

    #[test]
    fn words_of_others_become_ours() {
        assert!(key_help("max_fails", &keys::NODE).contains("consecutive_failures"));
        assert!(key_help("ssl_certificate", &keys::LISTENER).contains("[[certificate]]"));
        assert!(key_help("weight", &keys::UPSTREAM).contains("an entry of `nodes`"));
        assert!(key_help("zzzzzz", &keys::PROBES).contains("known here: `bind`"));
        assert_eq!(balance("least-conn", &["least_requests"]), Some("least_requests"));
        assert_eq!(balance("ip_hash", &["hash"]), Some("hash"));
    }

    #[test]
    fn no_foreign_word_hides_a_key_of_its_own_table() {
        // `server` is ours at the top and nginx's word inside an upstream: only there is it foreign. So is
        // `server_name`, but the other way round.
        let ours: Vec<_> = keys::tables().iter().flat_map(|t| t.keys.iter()).collect();
        for (word, _) in FOREIGN {
            assert!(
                !ours.contains(&word)
                    || ["acme", "server", "server_name", "timeout"].contains(word),
                "{word}"
            );
        }
    }
}
