//! `[upstream.NAME]` and the tables below it

use super::certificate::{self, Certificates};
use super::{Placed, good_name, no_effect, node};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{OR_ZERO, POSITIVE, Span, Table, Text, Value};
use crate::config::{
    Balance, HashKey, HealthCheck, Hedge, OutlierDetection, Preset, Sticky, Upstream, address,
    defaults, implied, keys, suggest,
};
use crate::units;

const BALANCES: [(&str, Balance); 5] = [
    ("least_load", Balance::LeastLoad),
    ("round_robin", Balance::RoundRobin),
    ("least_requests", Balance::LeastRequests),
    ("random_two", Balance::RandomTwo),
    ("hash", Balance::Hash),
];

/// What was built, and every name that was written, in the same order unless one is no table.
pub(super) struct Upstreams {
    pub(super) built: Vec<Placed<Upstream>>,
    pub(super) names: Vec<(String, Span)>,
}

pub(super) fn all(root: &Table<'_>, known: &Certificates) -> Upstreams {
    let mut all = Upstreams { built: Vec::new(), names: Vec::new() };
    let Some(value) = root.get("upstream") else {
        if !root.misspelt("upstream") {
            none(root, root.cx.end());
        }
        return all;
    };
    let help = "write `[upstream.nocobase]`, in single brackets";
    let Some(entries) = value.entries("a table with a name", help) else { return all };
    if entries.is_empty() {
        none(root, value.span);
    }
    for (name, value) in entries {
        named(&Value { name: format!("`upstream.{name}`"), ..value }, name, known, &mut all);
    }
    all
}

fn none(root: &Table<'_>, place: Span) {
    root.cx.report_absent(
        Diagnostic::error("no-upstream", place, "there is no upstream".to_owned())
            .label("nowhere to send requests")
            .help("write `[upstream.nocobase]` and, below it, `nodes = [\"172.31.0.1:13000\"]`"),
    );
}

fn named(value: &Value<'_>, name: &str, known: &Certificates, all: &mut Upstreams) {
    let is_table = value.de.is_table();
    if !is_table && keys::UPSTREAM.keys.contains(&name) {
        let help = format!("write `[upstream.nocobase]` above `{name}`");
        let message = format!("`{name}` stands in `[upstream]`, which has no name");
        value.cx.report(
            Diagnostic::error("unnamed-upstream", value.key.clone(), message)
                .label("of which upstream?")
                .help(help),
        );
        return;
    }
    all.names.push((name.to_owned(), value.key.clone()));
    good_name(value.cx, name, &value.key, &format!("`{name}`"));
    if let Some(table) = value.table(&keys::UPSTREAM, &format!("`[upstream.{name}]`")) {
        let item = one(&table, name, known);
        all.built.push(Placed { item, name: value.key.clone(), place: value.key.clone() });
    }
}

fn one(table: &Table<'_>, name: &str, known: &Certificates) -> Upstream {
    let presets = [("nocobase", Preset::NocoBase), ("none", Preset::None)];
    let preset = table.text("preset").and_then(|text| text.choice(&presets));
    let preset = preset.unwrap_or(Preset::NocoBase);
    let plain = Upstream::named(name.to_owned(), preset);
    let api_path = api_path(table, preset);
    let (balance, hash_key) = balance(table, &plain);
    let upstream = Upstream {
        balance,
        hash_key,
        hash_balance_factor: table.factor(
            "hash_balance_factor",
            plain.hash_balance_factor,
            1.01..=10.0,
        ),
        retries: table.number("retries", plain.retries, 0..=10),
        retry_budget: table.share("retry_budget", plain.retry_budget),
        max_idle: table.number("max_idle", plain.max_idle, 0..=65_536),
        max_requests_per_connection: table.number(
            "max_requests_per_connection",
            plain.max_requests_per_connection,
            1..=1_000_000_000,
        ),
        max_message: table.size("max_message", plain.max_message, 0..=1 << 40),
        queue: table.number("queue", plain.queue, 0..=1_000_000),
        park_limit: table.number("park_limit", plain.park_limit, 1..=1_000_000),
        park_bytes: table.size("park_bytes", plain.park_bytes, 1024 * 1024..=1 << 40),
        nodes: node::all(table, preset),
        health_check: health_check(table, name, preset, &api_path),
        outlier_detection: outlier_detection(table, name),
        guard_changes: guard_changes(table, &plain),
        hedge: hedge(table, name),
        sticky: sticky(table, name),
        quiet_restarts: nocobase_flag(table, "quiet_restarts", preset, plain.quiet_restarts),
        tls: certificate::of_upstream(table, name, known),
        http2: http2(table, preset),
        api_path,
        ..with_times(table, plain)
    };
    check_tunnels(table, &upstream);
    certificate::check_names(table, &upstream);
    upstream
}

/// Whether nodes are spoken to in HTTP/2, which NocoBase does not understand.
fn http2(table: &Table<'_>, preset: Preset) -> bool {
    let words = [("h1", false), ("h2", true)];
    let http2 = table.text("protocol").and_then(|text| text.choice(&words)).unwrap_or(false);
    if http2
        && preset == Preset::NocoBase
        && let Some(value) = table.get("protocol")
    {
        let message = "NocoBase speaks HTTP/1.1 only".to_owned();
        let help = "remove it, or write `preset = \"none\"` if this is no NocoBase".to_owned();
        value.error("nocobase-h2", message, "its nodes would not understand a word", help);
    }
    http2
}

fn with_times(table: &Table<'_>, plain: Upstream) -> Upstream {
    let time = |key, default| table.duration(key, default, &POSITIVE);
    Upstream {
        connect_timeout: time("connect_timeout", plain.connect_timeout),
        response_timeout: time("response_timeout", plain.response_timeout),
        body_idle_timeout: time("body_idle_timeout", plain.body_idle_timeout),
        tunnel_idle_timeout: time("tunnel_idle_timeout", plain.tunnel_idle_timeout),
        max_connection_age: time("max_connection_age", plain.max_connection_age),
        queue_timeout: time("queue_timeout", plain.queue_timeout),
        park: table.duration("park", plain.park, &OR_ZERO),
        park_upgrades: table.duration("park_upgrades", plain.park_upgrades, &OR_ZERO),
        deadline: table.duration("deadline", plain.deadline, &OR_ZERO),
        stream_within: table.duration("stream_within", plain.stream_within, &OR_ZERO),
        slow_start: table.duration("slow_start", plain.slow_start, &OR_ZERO),
        ..plain
    }
}

fn check_tunnels(table: &Table<'_>, upstream: &Upstream) {
    let limit = implied::NOCOBASE_PING;
    if upstream.preset == Preset::NocoBase
        && upstream.tunnel_idle_timeout <= limit
        && let Some(value) = table.get("tunnel_idle_timeout")
    {
        let limit = units::format_duration(limit);
        let message =
            format!("NocoBase's pages speak only every {limit}: quiet tunnels will be cut");
        table.cx.report(
            Diagnostic::warning("tunnels-cut", value.span.clone(), message)
                .label(format!("not longer than {limit}"))
                .help("write \"15m\""),
        );
    }
}

/// `api_path`, or what follows from `public_path`.
fn api_path(table: &Table<'_>, preset: Preset) -> String {
    let public = table.text("public_path").and_then(|text| folder(&text));
    let api = table.text("api_path").and_then(|text| folder(&text));
    if preset == Preset::None {
        for key in ["public_path", "api_path"] {
            no_effect(table.get(key), "with `preset = \"none\"`", "remove it");
        }
    }
    let derived = public.map(|public| format!("{public}api/"));
    api.or(derived).unwrap_or_else(|| defaults::API_PATH.to_owned())
}

/// Which actions change a node is known of NocoBase alone.
fn guard_changes(table: &Table<'_>, plain: &Upstream) -> bool {
    if plain.preset == Preset::None {
        no_effect(table.get("guard_changes"), "with `preset = \"none\"`", "remove it");
    }
    table.flag("guard_changes", plain.guard_changes)
}

/// A path with a slash at both ends.
fn folder(text: &Text<'_>) -> Option<String> {
    let path = text.value.as_str();
    if address::is_path(path) && path.ends_with('/') && !path.contains(['?', '*']) {
        return Some(text.value.clone());
    }
    let inner = path.trim_matches('/');
    let fixed = if inner.is_empty() { "/".to_owned() } else { format!("/{inner}/") };
    let help = if !text.from_env && address::is_path(&fixed) && !fixed.contains(['?', '*']) {
        format!("write \"{fixed}\"")
    } else {
        "write a path as in a URL, with a slash at both ends".to_owned()
    };
    let message = format!("{} must begin and end with a slash", text.name);
    text.error("bad-path", message, "not a path with a slash at both ends", &help);
    None
}

fn balance(table: &Table<'_>, plain: &Upstream) -> (Balance, HashKey) {
    let balance = table.text("balance").and_then(|text| read_balance(&text));
    let hash_key = table.text("hash_key").and_then(|text| read_hash_key(&text));
    if table.get("balance").is_none() || balance.is_some_and(|b| b != Balance::Hash) {
        for key in ["hash_key", "hash_balance_factor"] {
            let help = "write `balance = \"hash\"`, or remove it";
            no_effect(table.get(key), "without `balance = \"hash\"`", help);
        }
    }
    (balance.unwrap_or(plain.balance), hash_key.unwrap_or_else(|| plain.hash_key.clone()))
}

fn read_balance(text: &Text<'_>) -> Option<Balance> {
    let words = BALANCES.map(|(word, _)| word);
    let meant = suggest::balance(&text.value, &words);
    match meant.filter(|word| *word != text.value && !text.from_env) {
        None => text.choice(&BALANCES),
        Some(word) => {
            let message = format!("`balance` cannot be {}", text.shown());
            let help = format!("did you mean \"{word}\"?");
            text.error("unknown-value", message, "not one of the known words", &help);
            None
        }
    }
}

fn read_hash_key(text: &Text<'_>) -> Option<HashKey> {
    let is_token = |name: &&str| {
        (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match text.value.split_once(':') {
        None if text.value == "client_ip" => return Some(HashKey::ClientIp),
        Some(("header", name)) if is_token(&name) => {
            return Some(HashKey::Header(name.to_ascii_lowercase()));
        }
        Some(("cookie", name)) if is_token(&name) => return Some(HashKey::Cookie(name.to_owned())),
        _ => {}
    }
    let message = format!("`hash_key` cannot be {}", text.shown());
    let help = "write \"client_ip\", \"header:NAME\" or \"cookie:NAME\"";
    text.error("unknown-value", message, "nothing that can be hashed", help);
    None
}

fn health_check(
    upstream: &Table<'_>,
    name: &str,
    preset: Preset,
    api_path: &str,
) -> Option<HealthCheck> {
    let plain = HealthCheck::of(preset, api_path);
    let Some(value) = upstream.get("health_check") else {
        return (preset == Preset::NocoBase).then_some(plain);
    };
    let table = value.table(&keys::HEALTH_CHECK, &format!("`[upstream.{name}.health_check]`"))?;
    let path = table.text("path").and_then(|text| health_path(&table, &text, preset));
    let time = |key, default| table.duration(key, default, &POSITIVE);
    let check = HealthCheck {
        path: path.unwrap_or(plain.path),
        host: table.text("host").and_then(|text| health_host(&text)).or(plain.host),
        expect_status: table.number("expect_status", plain.expect_status, 200..=599),
        expect_body: table.text("expect_body").map(|text| text.value).or(plain.expect_body),
        interval: time("interval", plain.interval),
        timeout: time("timeout", plain.timeout),
        rise: table.number("rise", plain.rise, 1..=100),
        fall: table.number("fall", plain.fall, 1..=100),
        watch: nocobase_flag(&table, "watch", preset, plain.watch),
    };
    table.flag("enabled", true).then_some(check)
}

/// Only NocoBase tells of itself.
fn nocobase_flag(table: &Table<'_>, key: &'static str, preset: Preset, default: bool) -> bool {
    if preset == Preset::None {
        no_effect(table.get(key), "with `preset = \"none\"`", "remove it");
    }
    table.flag(key, default) && preset == Preset::NocoBase
}

fn health_path(table: &Table<'_>, text: &Text<'_>, preset: Preset) -> Option<String> {
    if !address::is_path(&text.value) {
        let message = format!("`path` cannot be {}", text.shown());
        let (label, help) = if text.value.starts_with('/') {
            ("has a character that a path cannot have", "write it as in a URL")
        } else {
            ("does not begin with a slash", "write only the path, such as \"/api/__health_check\"")
        };
        text.error("bad-path", message, label, help);
        return None;
    }
    if preset == Preset::NocoBase && text.value.contains('?') {
        let message = "NocoBase's health check answers 404 to a query".to_owned();
        table.cx.report(
            Diagnostic::warning("health-path-query", text.span.clone(), message)
                .label("with a query")
                .help("remove everything from the `?` on"),
        );
    }
    Some(text.value.clone())
}

fn health_host(text: &Text<'_>) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if !text.value.is_empty() && text.value.len() <= 255 && text.value.bytes().all(allowed) {
        return Some(text.value.clone());
    }
    let message = format!("`host` cannot be {}", text.shown());
    text.error("bad-host", message, "not a host", "write a host, such as \"crm.example.com\"");
    None
}

fn outlier_detection(upstream: &Table<'_>, name: &str) -> OutlierDetection {
    let plain = OutlierDetection::default();
    let title = format!("`[upstream.{name}.outlier_detection]`");
    let value = upstream.get("outlier_detection");
    let Some(table) = value.and_then(|value| value.table(&keys::OUTLIER_DETECTION, &title)) else {
        return plain;
    };
    OutlierDetection {
        enabled: table.flag("enabled", plain.enabled),
        consecutive_failures: table.number(
            "consecutive_failures",
            plain.consecutive_failures,
            1..=1000,
        ),
        error_ratio: table.share("error_ratio", plain.error_ratio),
        ejection_time: table.duration("ejection_time", plain.ejection_time, &POSITIVE),
        max_ejected: table.share("max_ejected", plain.max_ejected),
    }
}

fn hedge(upstream: &Table<'_>, name: &str) -> Option<Hedge> {
    let title = format!("`[upstream.{name}.hedge]`");
    let table = upstream.get("hedge")?.table(&keys::HEDGE, &title)?;
    let after = table.text("after").and_then(|text| percentile(&text));
    Some(Hedge {
        after: after.unwrap_or(defaults::HEDGE_AFTER),
        at_least: table.duration("at_least", defaults::HEDGE_AT_LEAST, &POSITIVE),
    })
}

/// `p95` as a share.
fn percentile(text: &Text<'_>) -> Option<f64> {
    let number = text.value.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
    if let Some(number) = number.filter(|number| (50.0..=99.9).contains(number)) {
        return Some(number / 100.0);
    }
    let message = format!("`after` cannot be {}", text.shown());
    let label = "not a percentile from p50 to p99.9";
    text.error("unknown-value", message, label, "write \"p95\"");
    None
}

fn sticky(upstream: &Table<'_>, name: &str) -> Option<Sticky> {
    let title = format!("`[upstream.{name}.sticky]`");
    let table = upstream.get("sticky")?.table(&keys::STICKY, &title)?;
    if table.get("secret").is_none() {
        let help = "write `secret = \"${COBALANCE_STICKY_SECRET}\"`: the same on every replica";
        table.missing("secret", help);
    }
    let max_life = table.duration("max_life", defaults::STICKY_MAX_LIFE, &POSITIVE);
    let cookie = table.text("cookie").map(|text| cookie(&text));
    let secret = table.text("secret").and_then(|text| secret(&text))?;
    let cookie = cookie.unwrap_or_else(|| Some(defaults::STICKY_COOKIE.to_owned()))?;
    Some(Sticky { cookie, secret, max_life })
}

fn cookie(text: &Text<'_>) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=63).contains(&text.value.len()) && text.value.bytes().all(allowed) {
        return Some(text.value.clone());
    }
    let message = format!("`cookie` cannot be {}", text.shown());
    let help = "write 1 to 63 letters, digits, `_` and `-`";
    text.error("bad-name", message, "not the name of a cookie", help);
    None
}

/// Says nothing of the value itself.
fn secret(text: &Text<'_>) -> Option<String> {
    if (16..=1024).contains(&text.value.len()) {
        return Some(text.value.clone());
    }
    let message = "`secret` must have at least 16 and at most 1024 characters".to_owned();
    let label = if text.value.len() < 16 { "too short" } else { "too long" };
    text.error("bad-secret", message, label, "write one that `openssl rand -hex 32` prints");
    None
}
