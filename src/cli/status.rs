//! `cobalance status`: what a running process is doing, as a table.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::client::Client;
use super::{Failure, drain, good, maintenance};
use crate::control::status::{
    ConfigStatus, DrainedAbsent, NodeStatus, ReloadResult, Status, UpstreamStatus,
};
use crate::control::words::{self, millis, since, span, state, weight};

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
    for one in &status.certificates {
        let _ = writeln!(out, "{}", words::certificate(one, now));
    }
    out.push_str(&config(&status.config, now));
    out.push('\n');
    out.push_str(&table(&rows(status, now)));
    out.push_str(&unserved(&status.upstreams));
    let pinned = status.upstreams.iter().filter_map(|one| words::pinned(one, now));
    pinned.for_each(|told| out.push_str(&format!("\n{told}\n")));
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
    for upstream in &status.upstreams {
        for DrainedAbsent { name, .. } in &upstream.drained_absent {
            let _ = writeln!(
                out,
                "\n{name} of {} is drained, and no node is called so now; `cobalance ready {name}` \
                 forgets it",
                upstream.name
            );
        }
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
    for UpstreamStatus { name, eligible, parked, pinned, .. } in upstreams {
        let _ = match (eligible, parked) {
            // Told beside the pin.
            (0, _) if pinned.as_ref().is_some_and(|pin| pin.turns_away) => Ok(()),
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
    for pid in &status.predecessors {
        let _ = writeln!(out, "process {pid}, which was upgraded, still finishes its work");
    }
    for listener in &status.listeners {
        let _ = write!(out, "listener {} on {}", listener.name, listener.address);
        let _ = writeln!(out, ", connections: {}", listener.connections);
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
    if let Some(told) = words::probation(config) {
        let _ = writeln!(out, "{told}");
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
        // Its health is no matter now, unless all are to come back together; what it still has is.
        let health = match node.operator.as_str() {
            "aside" => format!("; its health: {}", node.health),
            _ => String::new(),
        };
        return format!("{begun}; {}{health}", drain::left(node.in_flight, node.tunnels));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::PinStatus;

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
    fn a_pinned_node_that_does_not_serve_is_told_with_what_to_do() {
        let mut upstreams = status().upstreams;
        let mut told = |serves, turns_away| {
            let (node, from) = ("n1".into(), "10.0.0.7".into());
            upstreams[1].pinned = Some(PinStatus { node, since: 940, from, serves, turns_away });
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
            (words::pinned(&upstreams[1], now).unwrap(), unserved(&upstreams))
        };
        let well = "n1 is pinned in other for 1 min 0 s, from 10.0.0.7: it serves alone";
        assert_eq!(told(true, false).0, well);
        let (parked, nobody) = told(false, false);
        assert!(parked.contains("does not serve: nobody takes its place, and requests are parked"));
        assert!(nobody.contains("no node of other is eligible"), "{nobody}");
        let (turned_away, nobody) = told(false, true);
        assert!(turned_away.contains("clients are told to wait. Get it up, pin another"));
        assert_eq!(nobody, "", "it is said already");
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
}
