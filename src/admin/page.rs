//! The page at `/`: what an operator wants to see at a glance, for people who come with a browser. It loads
//! itself anew, and holds no script and nothing from elsewhere.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::reply::{self, Reply};
use crate::control::Handle;
use crate::control::status::{
    ConfigStatus, DrainedAbsent, MaintenanceStatus, NodeStatus, Status, UpstreamStatus,
};
use crate::control::warnings::Kind;
use crate::control::words::{self, millis, since, span, weight};

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>cobalance</title>\
<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"5\">\
<style>:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#c62828;--wait:#9a6700}\
@media(prefers-color-scheme:dark){:root{--good:#4ac26b;--bad:#ff7b72;--wait:#d9a441}}\
body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:90rem;padding:0 1.25rem}\
h1{font-size:1.4rem;margin:0}p{margin:.2rem 0}small,.cause{opacity:.75}\
.scroll{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);\
vertical-align:top;white-space:nowrap}th{font-weight:600}.n{text-align:right}\
.cause{white-space:normal;min-width:9rem}.up{color:var(--good)}.bad{color:var(--bad)}\
.wait{color:var(--wait)}.note{border-left:4px solid var(--wait);padding:.4rem .8rem;margin:.5rem 0;\
background:#8881}.note.bad{border-color:var(--bad);color:inherit}code{font-size:.95em}</style>";

const COLUMNS: [(&str, bool); 12] = [
    ("upstream", false),
    ("node", false),
    ("address", false),
    ("state", false),
    ("for", true),
    ("weight", true),
    ("in flight", true),
    ("tunnels", true),
    ("latency", true),
    ("event-loop lag", true),
    ("watch", false),
    ("cause", false),
];

const LINKS: &str = "<ul><li><a href=\"/api/v1/status\">/api/v1/status</a>: all of this and more as \
JSON</li><li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\
<li><a href=\"/readyz\">/readyz</a>, <a href=\"/livez\">/livez</a>: for orchestrators</li></ul>\
<p>In a terminal, <code>cobalance status</code> shows the same as a table; <code>cobalance help</code> \
lists what can be changed.</p>";

/// Everything as it is at this moment, and where to find more.
pub(super) async fn render(handle: &Handle) -> Reply {
    let Some(status) = handle.status().await else { return super::routes::ended() };
    let page = page(&status, SystemTime::now());
    reply::with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn page(status: &Status, now: SystemTime) -> String {
    let mut page = String::from(HEAD);
    head(&mut page, status, now);
    notes(&mut page, status, now);
    page.push_str("<div class=\"scroll\"><table><tr>");
    for (title, number) in COLUMNS {
        cell(&mut page, "th", if number { "n" } else { "" }, title);
    }
    for upstream in &status.upstreams {
        for node in &upstream.nodes {
            row(&mut page, upstream, node, now);
        }
    }
    page.push_str("</table></div>");
    page.push_str(LINKS);
    page
}

fn head(page: &mut String, status: &Status, now: SystemTime) {
    let state = match (status.draining, status.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let up = span(Duration::from_secs(status.uptime_s));
    let ConfigStatus { generation, file, loaded_at, last_reload, .. } = &status.config;
    let file = escape(file.as_deref().unwrap_or("the command line"));
    let used = since(*loaded_at, now);
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<h1>cobalance {}</h1><p>{state}, up {up}</p><p>configuration {generation} (<code>{file}</code>), \
         in use for {used}",
        escape(&status.version)
    );
    if let Some(reload) = last_reload {
        let (ago, result) = (since(reload.at, now), reload.result.as_str());
        let _ = write!(page, "; last reload {ago} ago: {result}");
    }
    page.push_str("</p>");
    for listener in &status.listeners {
        let (name, address) = (escape(&listener.name), escape(&listener.address));
        let open = listener.connections;
        let _ = write!(page, "<p>listener {name} on {address}, connections: {open}</p>");
    }
    for one in &status.certificates {
        let _ = write!(page, "<p>{}</p>", escape(&words::certificate(one, now)));
    }
}

/// What somebody should know who looks only for a moment.
fn notes(page: &mut String, status: &Status, now: SystemTime) {
    let config = &status.config;
    let worse = config.rolled_back.is_some()
        || config.probation.as_ref().is_some_and(|probation| probation.state == "worse");
    if let Some(told) = words::probation(config) {
        note(page, worse, &told);
    }
    for upstream in &status.upstreams {
        let UpstreamStatus { name, eligible, parked, .. } = upstream;
        if *eligible == 0 {
            note(page, true, &format!("no node of {name} is eligible; {parked} parked"));
        } else if *parked > 0 {
            note(page, false, &format!("{name}: {parked} parked, on their way to nodes"));
        }
        if let Some(told) = words::pinned(upstream, now) {
            note(page, upstream.pinned.as_ref().is_some_and(|pinned| !pinned.serves), &told);
        }
        if let Some(on) = &upstream.maintenance {
            note(page, false, &maintenance(name, on, now));
        }
        for DrainedAbsent { name: node, .. } in &upstream.drained_absent {
            let what = "is drained, and no node is called so now";
            note(page, false, &format!("{node} of {name} {what}"));
        }
    }
    for warning in &status.warnings {
        let bad = matches!(warning.kind, Kind::WorseReload | Kind::RolledBack);
        note(page, bad, &warning.message);
    }
}

fn maintenance(upstream: &str, on: &MaintenanceStatus, now: SystemTime) -> String {
    let through = match on.allow.is_empty() {
        true => "nobody".into(),
        false => on.allow.join(", "),
    };
    format!(
        "{upstream} is under maintenance for {}, from {}; let through: {through}; WebSockets held: {}",
        since(on.since, now),
        on.from,
        on.websockets
    )
}

fn note(page: &mut String, bad: bool, text: &str) {
    let class = if bad { "note bad" } else { "note" };
    let _ = write!(page, "<p class=\"{class}\">{}</p>", escape(text));
}

fn row(page: &mut String, upstream: &UpstreamStatus, node: &NodeStatus, now: SystemTime) {
    page.push_str("<tr>");
    cell(page, "td", "", &upstream.name);
    cell(page, "td", "", &node.name);
    cell(page, "td", "", &node.address);
    let class = match node.state.as_str() {
        "up" => "up",
        "down" | "ejected" => "bad",
        _ => "wait",
    };
    cell(page, "td", class, words::state(node));
    cell(page, "td", "n", since(node.since, now));
    cell(page, "td", "n", weight(node));
    cell(page, "td", "n", node.in_flight);
    cell(page, "td", "n", node.tunnels);
    cell(page, "td", "n", millis(node.latency_ms));
    cell(page, "td", "n", millis(node.event_loop_lag_ms));
    cell(page, "td", "", node.watch.replace('_', " "));
    cell(page, "td", "cause", &node.cause);
}

fn cell(page: &mut String, tag: &str, class: &str, text: impl Display) {
    let text = escape(&text.to_string());
    let _ = match class {
        "" => write!(page, "<{tag}>{text}"),
        class => write!(page, "<{tag} class=\"{class}\">{text}"),
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let node = |name: &str, state: &str, cause: &str| {
            serde_json::json!({
                "name": name, "address": "127.0.0.1:13000", "state": state, "operator": "ready",
                "health": "up", "outlier": "in", "since": 940, "cause": cause, "last_check": null,
                "watch": "not_connected", "weight": 1, "effective_weight": 0.5, "backup": true,
                "role": "serve", "in_flight": 12, "tunnels": 3, "latency_ms": 1.25,
                "event_loop_lag_ms": 250.0,
            })
        };
        let nodes = [node("n<1>", "up", "good"), node("n2", "down", "<script>x</script>")];
        serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "uptime_s": 3_700, "ready": true, "draining": false,
            "listeners": [{"name": "public", "address": "0.0.0.0:80", "connections": 5}],
            "upstreams": [{
                "name": "app", "eligible": 1, "parked": 0, "median_latency_ms": 1.0,
                "retry_budget_remaining": 10.0, "maintenance": null, "nodes": nodes,
            }],
            "config": {"generation": 4, "loaded_at": 700, "file": "<c>.toml", "last_reload": null},
            "warnings": [],
        }))
        .unwrap()
    }

    fn shown(status: &Status) -> String {
        page(status, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000))
    }

    #[test]
    fn names_and_causes_cannot_become_markup() {
        assert_eq!(escape("a<b>&c"), "a&lt;b&gt;&amp;c");
        let page = shown(&status());
        assert!(!page.contains("<script") && !page.contains("<c>") && !page.contains("n<1>"));
        assert!(page.contains("&lt;script&gt;x&lt;/script&gt;"), "{page}");
    }

    #[test]
    fn each_column_has_its_cell() {
        let page = shown(&status());
        let row = page.split("<tr>").nth(2).unwrap().split("</table>").next().unwrap();
        let cells: Vec<&str> = row.split("<td").skip(1).collect();
        let text: Vec<&str> = cells.iter().map(|cell| cell.split_once('>').unwrap().1).collect();
        assert_eq!(
            text,
            [
                "app",
                "n&lt;1&gt;",
                "127.0.0.1:13000",
                "up (backup)",
                "1 min 0 s",
                "0.50 of 1",
                "12",
                "3",
                "1.2 ms",
                "250.0 ms",
                "not connected",
                "good"
            ]
        );
        assert_eq!(text.len(), COLUMNS.len());
        assert_eq!(page.matches("class=\"note").count(), 0, "nothing to tell");
    }

    #[test]
    fn what_one_should_know_is_told() {
        let mut status = status();
        let upstream = &mut status.upstreams[0];
        (upstream.eligible, upstream.parked) = (0, 7);
        upstream.maintenance = serde_json::from_value(serde_json::json!({
            "since": 940, "from": "10.0.0.7", "allow": ["10.0.0.0/8"], "node": null, "message": "m",
            "websockets": 9, "cookie": false,
        }))
        .unwrap();
        let absent = DrainedAbsent { name: "b#10.0.0.3".into(), from: "x".into() };
        upstream.drained_absent = vec![absent];
        status.config.rolled_back = serde_json::from_value(serde_json::json!({
            "from": 5, "to": 3, "generation": 6, "by": "x", "found": [], "at": 0,
        }))
        .unwrap();
        upstream.pinned = serde_json::from_value(serde_json::json!({
            "node": "n<1>", "since": 940, "from": "10.0.0.7", "serves": false, "turns_away": true,
        }))
        .unwrap();
        status.certificates = serde_json::from_value(serde_json::json!([
            {"name": "c", "hosts": ["a.test"], "not_before": 0, "not_after": 0, "acme": null},
        ]))
        .unwrap();
        status.warnings = serde_json::from_value(serde_json::json!([
            {"kind": "degraded", "subject": "s", "message": "a warning", "since": 0, "last_seen": 0},
        ]))
        .unwrap();
        let page = shown(&status);
        for (class, told) in [
            (
                "note bad",
                "rolled back from configuration 5 to 3: THE FILE ON DISK IS NOT WHAT RUNS",
            ),
            ("note bad", "no node of app is eligible; 7 parked"),
            (
                "note",
                "app is under maintenance for 1 min 0 s, from 10.0.0.7; let through: 10.0.0.0/8; \
              WebSockets held: 9",
            ),
            (
                "note bad",
                "n&lt;1&gt; is pinned in app for 1 min 0 s, from 10.0.0.7, and does not serve",
            ),
            ("note", "b#10.0.0.3 of app is drained, and no node is called so now"),
            ("note", "a warning"),
        ] {
            assert!(page.contains(&format!("<p class=\"{class}\">{told}")), "{told}: {page}");
        }
        assert!(page.contains("<p>certificate c for a.test, none yet, handshakes are refused</p>"));
    }
}
