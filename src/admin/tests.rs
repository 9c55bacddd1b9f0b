//! The admin server over real connections.

use std::fs;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::control::status::Status;
use crate::control::tests::support::{Obeyed, until};
use crate::control::{self, ConfigSource};
use crate::telemetry::metrics::Metrics;

const FILE: &str = "[[listener]]\nbind = \"127.0.0.1:0\"\n[access_log]\nenabled = false\n\
    [upstream.app]\npreset = \"none\"\nnodes = [\"127.0.0.1:9\"]\n";
const ANY_PORT: &str = "[admin]\nbind = \"127.0.0.1:0\"\n";
const JSON: &str = "Content-Type: application/json\r\n";

struct Rig {
    handle: Handle,
    addresses: Arc<Addresses>,
    path: PathBuf,
    dir: tempfile::TempDir,
}

impl Rig {
    /// `more` comes after [`FILE`]; `DIR` in it is the folder of the file.
    async fn start(more: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(dir.path().join("token"), "s3cret\n").unwrap();
        fs::write(&path, text(&dir, more)).unwrap();
        let config = control::read(&path).unwrap().found.unwrap().0;
        let source = ConfigSource::File(path.clone());
        let control = control::start(config, source, Metrics::new()).unwrap();
        for parts in control.threads {
            Obeyed::default().spawn(parts).unwrap();
        }
        let handle = control.handle;
        let addresses = handle.spawn(super::start(handle.clone())).await.unwrap().unwrap();
        Rig { handle, addresses, path, dir }
    }

    fn admin(&self) -> SocketAddr {
        self.addresses.admin().unwrap()
    }

    fn rewrite(&self, more: &str) {
        fs::write(&self.path, text(&self.dir, more)).unwrap();
    }

    async fn degraded(&self) -> Vec<String> {
        let warnings = self.handle.status().await.unwrap().warnings;
        warnings.into_iter().map(|warning| warning.message).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn text(dir: &tempfile::TempDir, more: &str) -> String {
    format!("{FILE}{}", more.replace("DIR", dir.path().to_str().unwrap()))
}

/// Sends one request; returns status and body.
async fn ask(address: SocketAddr, line: &str, fields: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\n{fields}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path}"), &format!("Host: {address}\r\n"), "").await
}

#[tokio::test]
async fn each_path_answers_its_method_and_no_other() {
    let rig = Rig::start(ANY_PORT).await;
    let host = "Host: localhost\r\n";
    let json = &format!("{host}{JSON}");
    let cases = [
        ("GET /livez", host, 200),
        ("HEAD /livez", host, 200),
        ("GET /readyz", host, 200),
        ("GET /metrics", host, 200),
        ("GET /api/v1/status?pretty", host, 200),
        ("GET /", host, 200),
        ("GET /nothing", host, 404),
        ("GET /api/v1/reload", host, 405),
        ("GET /api/v1/nodes/a/drain", host, 405),
        ("POST /api/v1/nodes/a/drain", json, 404),
        ("POST /api/v1/nodes/127.0.0.1:9/drain", host, 415),
        ("POST /api/v1/nodes/127.0.0.1:9/stop", json, 404),
        ("DELETE /api/v1/status", host, 405),
        ("POST /api/v1/status", json, 405),
        ("POST /api/v1/reload", json, 200),
        ("POST /api/v1/reload", host, 415),
        ("GET /api/v1/rollback", host, 405),
        ("POST /api/v1/rollback", json, 409),
        ("POST /api/v1/rollback", host, 415),
        ("GET /livez", "Host: evil.example\r\n", 421),
        ("POST /api/v1/reload", "Host: evil.example\r\nContent-Type: application/json\r\n", 421),
        ("GET /livez", "", 421),
    ];
    for (line, fields, status) in cases {
        assert_eq!(ask(rig.admin(), line, fields, "").await.0, status, "{line} {fields}");
    }
    let large = "x".repeat(64 * 1024 + 1);
    let refused = rig.handle.metrics().admin_changes.with_label_values(&["reload", "refused"]);
    let before = refused.get();
    assert_eq!(ask(rig.admin(), "POST /api/v1/reload", json, &large).await.0, 413);
    assert_eq!(refused.get(), before + 1, "a change that was asked for");
}

#[tokio::test]
async fn status_and_page_name_the_nodes() {
    let rig = Rig::start(ANY_PORT).await;
    let (_, body) = get(rig.admin(), "/api/v1/status").await;
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!(status, rig.handle.status().await.unwrap());
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    let node = &value["upstreams"][0]["nodes"][0];
    for key in ["name", "address", "state", "weight", "in_flight", "tunnels"] {
        assert!(!node[key].is_null(), "{key}: {body}");
    }
    for key in ["generation", "loaded_at", "last_reload"] {
        assert!(value["config"].get(key).is_some(), "{key}: {body}");
    }
    assert!(get(rig.admin(), "/").await.1.contains("<td>127.0.0.1:9<td class=\"up\">up<td"));
}

#[tokio::test]
async fn a_reload_tells_what_came_of_it() {
    let rig = Rig::start(ANY_PORT).await;
    let fields = format!("Host: localhost\r\n{JSON}");
    let reload = || ask(rig.admin(), "POST /api/v1/reload", &fields, "{}");
    let (status, body) = reload().await;
    assert_eq!((status, body.contains("\"result\":\"unchanged\"")), (200, true), "{body}");
    rig.rewrite("nonsense");
    let (status, body) = reload().await;
    assert_eq!((status, body.contains("\"result\":\"invalid\"")), (422, true), "{body}");
}

#[tokio::test]
async fn a_node_is_drained_and_made_ready() {
    let rig = Rig::start(ANY_PORT).await;
    let fields = format!("Host: localhost\r\n{JSON}");
    let order = async |verb: &str, body: &str| {
        let line = format!("POST /api/v1/nodes/127.0.0.1%3A9/{verb}");
        ask(rig.admin(), &line, &fields, body).await
    };
    let (status, body) = order("drain", "{}").await;
    assert_eq!((status, body.contains("is the last node")), (409, true), "{body}");
    assert_eq!(order("drain", "{\"force\":1}").await.0, 400);
    let (status, body) = order("drain", "{\"force\":true,\"window\":\"5s\"}").await;
    assert_eq!((status, body.contains("\"state\":\"draining\"")), (200, true), "{body}");
    let (_, status) = get(rig.admin(), "/api/v1/status").await;
    let cause = "\"cause\":\"drained by the operator, from 127.0.0.1\"";
    assert!(status.contains(cause), "{status}");
    let (status, body) = order("ready", "").await;
    assert_eq!((status, body.contains("\"state\":\"up\"")), (200, true), "{body}");
}

#[tokio::test]
async fn with_a_token_nothing_is_told_without_it_and_a_reload_renews_it() {
    let with_token = "[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = \"DIR/token\"\n";
    let rig = Rig::start(with_token).await;
    let status = async |token: &str| {
        let fields = format!("Host: lb.example\r\nAuthorization: Bearer {token}\r\n");
        ask(rig.admin(), "GET /api/v1/status", &fields, "").await.0
    };
    assert_eq!(get(rig.admin(), "/metrics").await.0, 401);
    assert_eq!((status("s3cret").await, status("wrong").await), (200, 401));
    fs::write(rig.dir.path().join("token"), "other").unwrap();
    rig.handle.reload().await.unwrap();
    let renewed = || async { (status("other").await == 200).then_some(()) };
    until("the new token", renewed).await;
    assert_eq!(status("s3cret").await, 401);
}

#[tokio::test]
async fn probes_show_what_an_orchestrator_needs_and_no_more() {
    let rig = Rig::start("[admin]\nenabled = false\n[probes]\nbind = \"127.0.0.1:0\"\n").await;
    assert_eq!(rig.addresses.admin(), None);
    let probes = rig.addresses.probes().unwrap();
    // Any name: an orchestrator may ask by the pod's or the service's.
    let by_name =
        async |path: &str| ask(probes, &format!("GET {path}"), "Host: lb.example\r\n", "").await.0;
    assert_eq!([by_name("/livez").await, by_name("/metrics").await], [200, 200]);
    assert_eq!([by_name("/").await, by_name("/api/v1/status").await], [404, 404]);
    let drain = "POST /api/v1/nodes/127.0.0.1:9/drain";
    assert_eq!(ask(probes, drain, &format!("Host: x\r\n{JSON}"), "{}").await.0, 404);
    let (status, body) = get(probes, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, "ok\napp: 1 of 1 nodes up\n"));
    rig.handle.drain();
    let (status, body) = get(probes, "/readyz").await;
    assert_eq!((status, body.starts_with("draining\n")), (503, true));
    assert_eq!(get(probes, "/livez").await.0, 200);
}

#[tokio::test]
async fn a_taken_admin_address_is_a_warning_until_it_is_repaired() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let rig = Rig::start(&format!("[admin]\nbind = \"{address}\"\n")).await;
    assert_eq!(rig.addresses.admin(), None);
    let told = || async { rig.degraded().await.pop() };
    let warning = until("a warning", told).await;
    assert!(warning.contains(&address.to_string()) && warning.contains("`[admin] bind`"));
    rig.rewrite(ANY_PORT);
    rig.handle.reload().await.unwrap();
    let bound = until("an address", || async { rig.addresses.admin() }).await;
    assert_eq!(get(bound, "/livez").await.0, 200);
    until("no warning", || async { rig.degraded().await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_taken_probes_address_keeps_it_from_starting_and_later_is_a_warning() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let probes = format!("{ANY_PORT}[probes]\nbind = \"{}\"\n", taken.local_addr().unwrap());
    let rig = Rig::start(ANY_PORT).await;
    rig.rewrite(&probes);
    assert_eq!(rig.handle.reload().await.unwrap().error, None);
    let told = || async { rig.degraded().await.pop() };
    assert!(until("a warning", told).await.starts_with("`[probes]` cannot be served"));
    let again = rig.handle.spawn(super::start(rig.handle.clone())).await.unwrap();
    assert!(again.unwrap_err().to_string().starts_with("`[probes]` cannot be served"));
}

#[tokio::test]
async fn a_reload_moves_the_admin_server() {
    let rig = Rig::start(ANY_PORT).await;
    let old = rig.admin();
    // Its port is below those that the system chooses from, so that nobody is given it by chance.
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    let mut all = (first..30_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let free = all.find(|address| std::net::TcpListener::bind(address).is_ok()).unwrap();
    rig.rewrite(&format!("[admin]\nbind = \"{free}\"\n"));
    rig.handle.reload().await.unwrap();
    let moved = || async { (rig.addresses.admin() == Some(free)).then_some(()) };
    until("the new address", moved).await;
    assert_eq!(get(free, "/livez").await.0, 200);
    let refused = || async { TcpStream::connect(old).await.is_err().then_some(()) };
    until("the old one to close", refused).await;
}

/// Loopback and the rest of the machine, with a token.
fn at(address: &str, port: u16) -> String {
    format!("[admin]\nbind = \"{address}:{port}\"\ntoken_file = \"DIR/token\"\n")
}

#[tokio::test]
async fn a_reload_changes_the_host_and_keeps_the_port() {
    let more = |address: &str, admin: u16, probes: u16| {
        format!("{}[probes]\nbind = \"{address}:{probes}\"\n", at(address, admin))
    };
    let rig = Rig::start(&more("127.0.0.1", 0, 0)).await;
    let (admin, probes) = (rig.admin().port(), rig.addresses.probes().unwrap().port());
    for address in ["0.0.0.0", "127.0.0.1"] {
        rig.rewrite(&more(address, admin, probes));
        assert_eq!(rig.handle.reload().await.unwrap().error, None);
        let at = |port| Some(format!("{address}:{port}").parse::<SocketAddr>().unwrap());
        let moved = || async {
            let there = (rig.addresses.admin(), rig.addresses.probes());
            (there == (at(admin), at(probes))).then_some(())
        };
        until(address, moved).await;
        let loopback = |port| format!("127.0.0.1:{port}").parse().unwrap();
        assert_eq!(get(loopback(admin), "/livez").await.0, 401);
        assert_eq!(get(loopback(probes), "/livez").await.0, 200);
        let stays = |message: &String| message.contains("cannot be served");
        let none = || async { (!rig.degraded().await.iter().any(stays)).then_some(()) };
        until("no warning", none).await;
    }
}

#[tokio::test]
async fn a_token_that_is_taken_back_is_so_wherever_the_server_cannot_move() {
    let rig = Rig::start(&at("127.0.0.1", 0)).await;
    let admin = rig.admin();
    let listening = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let taken = listening.local_addr().unwrap();
    let status = async |token: &str| {
        let fields = format!("Host: lb.example\r\nAuthorization: Bearer {token}\r\n");
        ask(admin, "GET /api/v1/status", &fields, "").await.0
    };
    rig.rewrite(&at("127.0.0.2", taken.port()));
    rig.handle.reload().await.unwrap();
    let told =
        || async { rig.degraded().await.into_iter().find(|m| m.contains("cannot be served")) };
    until("a warning", told).await;
    assert_eq!(status("s3cret").await, 200);
    fs::write(rig.dir.path().join("token"), "other").unwrap();
    let gone = || async { (status("s3cret").await == 401).then_some(()) };
    until("the end of the old token", gone).await;
    assert_eq!(status("other").await, 200);
    // Nor does it lose those it has when the file it cannot follow has none.
    rig.rewrite(&format!("[admin]\nbind = \"{taken}\"\n"));
    rig.handle.reload().await.unwrap();
    let tokens = || async { rig.handle.snapshot().config.admin.token_file.is_none().then_some(()) };
    until("the new file", tokens).await;
    assert_eq!((status("s3cret").await, get(admin, "/api/v1/status").await.0), (401, 401));
    drop(listening);
    let free = || async { (rig.addresses.admin() == Some(taken)).then_some(()) };
    until("the address to be free", free).await;
}

#[tokio::test]
async fn who_cannot_have_its_port_elsewhere_stays() {
    let rig = Rig::start(&at("127.0.0.1", 0)).await;
    let admin = rig.admin();
    // So that the wildcard is another's as well.
    let _other = std::net::TcpListener::bind(("127.0.0.2", admin.port())).unwrap();
    rig.rewrite(&at("0.0.0.0", admin.port()));
    rig.handle.reload().await.unwrap();
    let told =
        || async { rig.degraded().await.into_iter().find(|m| m.contains("cannot be served")) };
    until("a warning", told).await;
    assert_eq!(rig.addresses.admin(), Some(admin));
    let answers = || async { TcpStream::connect(admin).await.is_ok().then_some(()) };
    until("it answers where it was", answers).await;
    assert_eq!(get(admin, "/livez").await.0, 401);
}

#[tokio::test]
async fn metrics_are_whole_and_follow_the_nodes() {
    let rig = Rig::start(ANY_PORT).await;
    let (_, text) = get(rig.admin(), "/metrics").await;
    let mut types = std::collections::HashMap::new();
    let mut series = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name), "{line} twice");
            let family = name.split('{').next().unwrap();
            let known = |suffix| types.contains_key(family.trim_end_matches(suffix));
            assert!(["", "_bucket", "_sum", "_count"].into_iter().any(known), "{line}");
        }
    }
    let prefixes = ["cobalance_", "process_"];
    assert!(types.keys().all(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))));
    for expected in [
        "cobalance_upstream_node_state{node=\"127.0.0.1:9\",upstream=\"app\"} 7",
        "cobalance_upstream_nodes{state=\"up\",upstream=\"app\"} 1",
        "cobalance_upstream_weight_effective{node=\"127.0.0.1:9\",upstream=\"app\"} 1",
        "cobalance_upstream_retry_budget_remaining{upstream=\"app\"} 30",
        "cobalance_config_generation 1",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
    rig.rewrite(&ANY_PORT.replace("[admin]", "[upstream.b]\npreset = \"none\"\nnodes = [\"127.0.0.1:19\"]\n[[route]]\nupstream = \"b\"\n[admin]"));
    assert_eq!(rig.handle.reload().await.unwrap().error, None);
    let (_, text) = get(rig.admin(), "/metrics").await;
    assert!(text.contains("cobalance_upstream_nodes{state=\"up\",upstream=\"b\"} 1"), "{text}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let rig = Rig::start(ANY_PORT).await;
    let address = rig.admin();
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // An answer proves that the connection was accepted and holds its place.
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
        held.push(stream);
    }
    let mut waiting = Box::pin(get(address, "/livez"));
    tokio::select! {
        biased;
        // The server had every chance to answer by the time it has answered others often.
        _ = &mut waiting => panic!("more than {MAX_CONNECTIONS} at once"),
        () = async {
            for stream in &mut held {
                stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
            }
        } => {}
    }
    held.pop();
    assert_eq!(waiting.await.0, 200);
}
