//! `cobalance status`: what a running process is doing, as a table.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::client::Client;
use super::{Failure, drain, good, maintenance};
use crate::control::status::{
    CertificateStatus, ConfigStatus, NodeStatus, ReloadResult, Status, UpstreamStatus,
};

/// Where a status is found.
pub(super) const PATH: &str = "/api/v1/status";

/// Asks for one.
pub(super) fn ask(client: &Client) -> Result<Status, Failure> {
    let answer = good(client.get(PATH)?)?;
    serde_json::from_str(&answer.body)
        .map_err(|error| anyhow::anyhow!("the answer is of another version: {error}").into())
}

/// Renders a status as it is at `now`.
pub(super) fn render(status: &Status, now: SystemTime) -> String {
    let mut out = head(status);
    out.push_str(&certificates(&status.certificates, now));
    out.push_str(&config(&status.config, now));
    out.push('\n');
    out.push_str(&table(&rows(status, now)));
    out.push_str(&unserved(&status.upstreams));
    for upstream in &status.upstreams {
        let Some(on) = &upstream.maintenance else { continue };
        let (name, from) = (&upstream.name, &on.from);
        let (terms, held) = (maintenance::terms(on), on.websockets);
        let _ = writeln!(
            out,
            "\n{name} is under maintenance for {}, from {from}; {terms}; WebSockets held: {held}",
            since(on.since, now)
        );
    }
    if !status.warnings.is_empty() {
        out.push_str("\nwarnings:\n");
        for warning in &status.warnings {
            let _ = writeln!(out, "  {}", warning.message);
        }
    }
    out
}

/// Upstreams that nobody serves, and what is parked there; some may still be when a node has come up.
fn unserved(upstreams: &[UpstreamStatus]) -> String {
    let mut out = String::new();
    for UpstreamStatus { name, eligible, parked, .. } in upstreams {
        let _ = match (eligible, parked) {
            (0, _) => {
                let held = "what is not parked gets 503";
                writeln!(out, "\nno node of {name} is eligible: {parked} parked; {held}")
            }
            (_, 0) => Ok(()),
            _ => writeln!(out, "\n{name}: {parked} parked, on their way to nodes"),
        };
    }
    out
}

fn head(status: &Status) -> String {
    let state = match (status.draining, status.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let up = span(Duration::from_secs(status.uptime_s));
    let mut out = format!("cobalance {}, up {up}, {state}\n", status.version);
    for listener in &status.listeners {
        let _ = write!(out, "listener {} on {}", listener.name, listener.address);
        let _ = writeln!(out, ", connections: {}", listener.connections);
    }
    out
}

fn certificates(certificates: &[CertificateStatus], now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut out = String::new();
    for one in certificates {
        let left = one.not_after - now;
        let span = span(Duration::from_secs(left.unsigned_abs()));
        let when = match left {
            ..=0 => format!("expired {span} ago"),
            _ => format!("expires in {span}"),
        };
        let _ = writeln!(out, "certificate {} for {}, {when}", one.name, one.hosts.join(", "));
    }
    out
}

fn config(config: &ConfigStatus, now: SystemTime) -> String {
    let file = config.file.as_deref().unwrap_or("command line");
    let mut out = format!(
        "configuration {} ({file}), in use for {}\n",
        config.generation,
        since(config.loaded_at, now)
    );
    if let Some(reload) = &config.last_reload {
        let _ =
            write!(out, "last reload {} ago: {}", since(reload.at, now), reload.result.as_str());
        if reload.result == ReloadResult::Invalid {
            let _ = write!(out, "; generation {} stays", config.generation);
        }
        out.push('\n');
        for line in reload.error.iter().flat_map(|error| error.lines()) {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

const HEADER: [&str; 11] = [
    "UPSTREAM",
    "NODE",
    "ADDRESS",
    "STATE",
    "FOR",
    "WEIGHT",
    "IN FLIGHT",
    "TUNNELS",
    "LATENCY",
    "LAG",
    "CAUSE",
];
/// Columns of numbers are aligned to the right.
const RIGHT: [bool; 11] = [false, false, false, false, true, true, true, true, true, true, false];

type Row = [String; 11];

fn rows(status: &Status, now: SystemTime) -> Vec<Row> {
    let of = |upstream: &str, node: &NodeStatus| {
        [
            upstream.to_owned(),
            node.name.clone(),
            node.address.clone(),
            state(node),
            since(node.since, now),
            weight(node),
            node.in_flight.to_string(),
            node.tunnels.to_string(),
            millis(node.latency_ms),
            millis(node.event_loop_lag_ms),
            cause(node),
        ]
    };
    let nodes = status
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.nodes.iter().map(move |node| of(&upstream.name, node)));
    nodes.collect()
}

fn state(node: &NodeStatus) -> String {
    let mut state = node.state.clone();
    if node.role == "task" {
        state.push_str(" (task)");
    }
    if node.backup {
        state.push_str(" (backup)");
    }
    state
}

fn millis(ms: Option<f64>) -> String {
    ms.map_or("-".into(), |ms| format!("{ms:.1} ms"))
}

/// As configured; and what is in force while the node starts slowly.
fn weight(node: &NodeStatus) -> String {
    match node.effective_weight < f64::from(node.weight) {
        true => format!("{:.2} of {}", node.effective_weight, node.weight),
        false => node.weight.to_string(),
    }
}

/// Why the state holds; and while NocoBase works at something, what it says of its progress now.
///
/// The cause of a state is worded when the state begins and may hold the progress of that moment:
/// beside a newer one it would mislead.
fn cause(node: &NodeStatus) -> String {
    let check = node.last_check.as_ref();
    let told = |text: Option<&String>| {
        text.map(|text| one_line(text)).filter(|text| !text.trim().is_empty())
    };
    let now = [
        told(check.and_then(|check| check.command.as_ref())),
        told(check.and_then(|check| check.message.as_ref())),
    ];
    let begun = match check.and_then(|check| check.code.as_deref()) {
        Some(code) if now[1].is_some() && node.cause.starts_with(code) => code.to_owned(),
        _ => node.cause.clone(),
    };
    if node.operator != "ready" {
        // Its health is no matter now; what it still has is.
        return format!("{begun}; {}", drain::left(node.in_flight, node.tunnels));
    }
    std::iter::once(begun).chain(now.into_iter().flatten()).collect::<Vec<_>>().join("; ")
}

/// What a node says goes to a terminal: one line, no control characters, not too long.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(80).collect()
}

fn table(rows: &[Row]) -> String {
    let header = HEADER.map(str::to_owned);
    let lines: Vec<&Row> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADER.len()).filter_map(width).collect();
    let mut out = String::new();
    for row in lines {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match RIGHT[column] {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// From a Unix time to now; nothing is in the future, whatever two clocks say.
fn since(unix: u64, now: SystemTime) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(unix);
    span(now.duration_since(then).unwrap_or_default())
}

/// Two units are enough to know how long ago something was.
fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let node = |name: &str, state: &str, cause: &str| {
            serde_json::json!({
                "name": name, "address": "127.0.0.1:13000", "state": state, "operator": "ready",
                "health": "up", "outlier": "in", "since": 940, "cause": cause,
                "last_check": null, "weight": 1, "effective_weight": 1.0, "backup": false, "role": "serve",
                "in_flight": 12, "tunnels": 3, "latency_ms": 1.25, "event_loop_lag_ms": 0.5,
            })
        };
        let mut starting = node("n2", "starting", "503 APP_COMMANDING");
        starting["last_check"] = serde_json::json!({
            "result": "not_serving", "detail": "x", "code": "APP_COMMANDING", "took_ms": 1.0,
            "message": "loading\nplugins", "command": "start", "at": 999,
        });
        starting["latency_ms"] = serde_json::Value::Null;
        starting["event_loop_lag_ms"] = serde_json::Value::Null;
        starting["backup"] = true.into();
        starting["effective_weight"] = 0.25.into();
        serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "uptime_s": 3_700, "ready": true, "draining": false,
            "listeners": [{"name": "public", "address": "0.0.0.0:80", "connections": 5}],
            "certificates": [{"name": "a", "hosts": ["a.test", "*.b.test"], "not_before": 0, "not_after": 87_460}],
            "upstreams": [
                {"name": "nocobase", "eligible": 1, "median_latency_ms": 1.0,
                 "retry_budget_remaining": 10.0,
                 "nodes": [node("node1", "up", "2 good probes"), starting]},
                {"name": "other", "eligible": 0, "median_latency_ms": null,
                 "retry_budget_remaining": 10.0, "parked": 7, "nodes": []},
            ],
            "config": {"generation": 4, "loaded_at": 700, "file": "config/cobalance.toml",
                "last_reload": {"result": "invalid", "error": "line one\nline two",
                                "generation": 4, "at": 995}},
            "warnings": [],
        }))
        .unwrap()
    }

    #[test]
    fn a_status_is_a_table() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let expected = "\
cobalance 0.1.0, up 1 h 1 min, ready
listener public on 0.0.0.0:80, connections: 5
certificate a for a.test, *.b.test, expires in 1 d 0 h
configuration 4 (config/cobalance.toml), in use for 5 min 0 s
last reload 5 s ago: invalid; generation 4 stays
  line one
  line two

UPSTREAM  NODE   ADDRESS          STATE                    FOR  WEIGHT  IN FLIGHT  TUNNELS  LATENCY     LAG  CAUSE
nocobase  node1  127.0.0.1:13000  up                1 min 0 s       1         12        3   1.2 ms  0.5 ms  2 good probes
nocobase  n2     127.0.0.1:13000  starting (backup)  1 min 0 s  0.25 of 1         12        3        -       -  503 APP_COMMANDING; start; loading plugins

no node of other is eligible: 7 parked; what is not parked gets 503
";
        let shown = render(&status(), now);
        let squeezed = |text: &str| {
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        let (shown_words, expected_words): (Vec<String>, Vec<String>) =
            (squeezed(&shown), squeezed(expected));
        assert_eq!(shown_words, expected_words);
        // Aligned: where a column begins in the header, it begins in each row.
        let rows: Vec<&str> = shown.lines().filter(|line| line.contains("  ")).collect();
        let table: Vec<_> = rows.iter().filter(|row| row.contains("127.0.0.1:13000")).collect();
        let header = rows.iter().find(|row| row.starts_with("UPSTREAM")).unwrap();
        for (title, cell) in [("ADDRESS", "127.0.0.1:13000"), ("CAUSE", "2 good")] {
            assert_eq!(header.find(title), table[0].find(cell), "{shown}");
        }
    }

    #[test]
    fn of_a_node_that_is_drained_it_tells_what_is_left() {
        let mut node = status().upstreams[0].nodes[1].clone();
        (node.operator, node.cause) = ("draining".into(), "drained by the operator".into());
        (node.in_flight, node.tunnels) = (1, 12);
        let told = "drained by the operator; 1 request in flight, 12 tunnels left";
        assert_eq!(cause(&node), told);
        (node.in_flight, node.tunnels) = (0, 0);
        assert_eq!(cause(&node), "drained by the operator; nothing left");
    }

    #[test]
    fn progress_is_told_once_and_is_the_latest() {
        let mut node = status().upstreams[0].nodes[1].clone();
        node.cause = "APP_COMMANDING: load plugin [acl], 8/77".into();
        assert_eq!(cause(&node), "APP_COMMANDING; start; loading plugins");
        // A probe without a message takes nothing away.
        node.last_check.as_mut().unwrap().message = None;
        assert_eq!(cause(&node), "APP_COMMANDING: load plugin [acl], 8/77; start");
        // Another code than the one that began the state: both are worth knowing.
        node.cause = "APP_PREPARING".into();
        node.last_check.as_mut().unwrap().message = Some("loading".into());
        assert_eq!(cause(&node), "APP_PREPARING; start; loading");
    }

    #[test]
    fn spans_have_two_units() {
        let cases = [(0, "0 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(since(2_000, SystemTime::UNIX_EPOCH), "0 s");
    }
}
