//! Flows that live in one node's memory.

use std::io::Write;
use std::net::TcpStream;

use cobalance::health::{HealthState, OperatorState};
use cobalance::telemetry::metrics::AffinityOutcome;

use crate::support::origin::{self, Origin};
use crate::support::{Answer, PATIENCE, Proxy, until};
use crate::{ask, place, proxy, send, who};

const ROUND: &str = "balance = \"round_robin\"";
const BACKUP: usize = 0;
const ADMIN: usize = 3;

fn counted(proxy: &Proxy, flow: usize, outcome: AffinityOutcome) -> u64 {
    proxy.snapshot.upstreams[0].metrics.affinity[flow][outcome as usize].get()
}

fn three() -> [Origin; 3] {
    ["a", "b", "c"].map(origin::node)
}

#[test]
fn what_asks_about_a_backup_comes_to_the_node_that_makes_it() {
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let run_by = who(&proxy, "POST", "/api/backups:create", "");
    for _ in 0..12 {
        for target in ["/api/backups:taskStatus", "/api/backups:restoreStatus", "/api/backups:list"]
        {
            assert_eq!(who(&proxy, "GET", target, ""), run_by);
        }
        who(&proxy, "GET", "/api/posts:list", "");
    }
    until("it is counted", || counted(&proxy, BACKUP, AffinityOutcome::Kept) == 36);
    until("it is counted", || counted(&proxy, BACKUP, AffinityOutcome::New) == 1);
    // Other requests are balanced as ever.
    let others: Vec<String> = (0..12).map(|_| who(&proxy, "GET", "/api/posts:list", "")).collect();
    assert!(["a", "b", "c"].iter().all(|name| others.iter().any(|other| other == name)));
}

#[test]
fn a_flow_that_nobody_remembers_has_a_node_all_the_same() {
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let first = who(&proxy, "GET", "/api/logger:download", "");
    assert!((0..12).all(|_| who(&proxy, "GET", "/api/logger:download", "") == first));
    // Not all flows have the same: sub-apps are spread.
    let apps = (0..20).map(|n| who(&proxy, "GET", &format!("/api/__app/x{n}/backups:list"), ""));
    let mut names: Vec<String> = apps.collect();
    names.sort();
    names.dedup();
    assert!(names.len() > 1, "{names:?}");
}

#[test]
fn a_node_that_takes_nothing_is_passed_over_and_not_forgotten() {
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let run_by = who(&proxy, "POST", "/api/backups:create", "");
    let node = proxy.node(place(&run_by));
    node.set_health(HealthState::Maintaining);
    let elsewhere = who(&proxy, "GET", "/api/backups:taskStatus", "");
    assert_ne!(elsewhere, run_by);
    until("it is counted", || counted(&proxy, BACKUP, AffinityOutcome::Lost) == 1);
    node.set_health(HealthState::Up);
    assert_eq!(who(&proxy, "GET", "/api/backups:taskStatus", ""), run_by);
    // A new one that begins elsewhere is followed there.
    node.set_health(HealthState::Down);
    let second = who(&proxy, "POST", "/api/backups:create", "");
    node.set_health(HealthState::Up);
    assert_eq!(who(&proxy, "GET", "/api/backups:taskStatus", ""), second);
}

#[test]
fn a_drained_node_tells_of_what_it_runs_and_begins_nothing() {
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let run_by = who(&proxy, "POST", "/api/backups:create", "");
    let node = proxy.node(place(&run_by));
    node.set_operator(OperatorState::Draining);
    assert_eq!(who(&proxy, "GET", "/api/backups:taskStatus", ""), run_by);
    node.set_operator(OperatorState::Disabled);
    assert_ne!(who(&proxy, "GET", "/api/backups:taskStatus", ""), run_by);
    node.set_operator(OperatorState::Draining);
    let next = who(&proxy, "POST", "/api/backups:create", "");
    assert_ne!(next, run_by);
    assert_eq!(who(&proxy, "GET", "/api/backups:taskStatus", ""), next);
}

#[test]
fn conversations_are_apart_by_session() {
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let mut nodes = Vec::new();
    for n in 0..20 {
        let token = format!("Authorization: Bearer token-{n}\r\n");
        let node = who(&proxy, "POST", "/api/aiConversations:sendMessages", &token);
        assert_eq!(who(&proxy, "POST", "/api/aiConversations:resumeStream", &token), node);
        nodes.push(node);
    }
    nodes.sort();
    nodes.dedup();
    assert!(nodes.len() > 1, "not all at one node: {nodes:?}");
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Opens a WebSocket. Returns the place of the node that has it.
fn tunnel(proxy: &Proxy, fields: &str) -> usize {
    let before: Vec<u32> = (0..3).map(|index| proxy.node(index).tunnels()).collect();
    let mut stream = send(proxy.address, "GET", "/ws", &format!("{UPGRADE}{fields}"));
    let head = origin::read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let more = |index: &usize| proxy.node(*index).tunnels() > before[*index];
    until("it is open", || (0..3).any(|index| more(&index)));
    let node = (0..3).find(more).unwrap();
    // It stays open: the next one would go to the node with the fewest.
    std::mem::forget(stream);
    node
}

#[test]
fn a_session_stays_at_the_node_that_it_has_changed() {
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let admin = "Authorization: Bearer of-the-admin\r\n";
    let cookie = "Cookie: x=1; nb_auth_token_main=of-the-admin\r\n";
    let changed = who(&proxy, "POST", "/api/pm:enable?filterByTk=x", admin);
    for _ in 0..6 {
        assert_eq!(who(&proxy, "GET", "/api/pm:listEnabled", admin), changed);
        assert_eq!(who(&proxy, "GET", "/static/plugins/x/client.js", cookie), changed);
        assert_eq!(tunnel(&proxy, cookie), place(&changed));
    }
    assert_eq!(tunnel(&proxy, ""), place(&changed), "from the same address, and without a token");
    assert_eq!(counted(&proxy, ADMIN, AffinityOutcome::Lost), 0);
    // Whoever else comes from that address goes anywhere.
    let other = "Authorization: Bearer of-somebody\r\n";
    let mut nodes: Vec<String> =
        (0..9).map(|_| who(&proxy, "GET", "/api/posts:list", other)).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3);
    // Nothing new for a node that is drained.
    proxy.node(place(&changed)).set_operator(OperatorState::Draining);
    assert_ne!(who(&proxy, "GET", "/api/pm:listEnabled", admin), changed);
    until("it is counted", || counted(&proxy, ADMIN, AffinityOutcome::Lost) > 0);
}

#[test]
fn what_a_node_did_not_accept_is_not_remembered() {
    let refusing = || Origin::answering("HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n");
    let nodes = [refusing(), refusing(), refusing()];
    let proxy = proxy(&nodes.each_ref(), ROUND);
    for n in 0..20 {
        let token = format!("Authorization: Bearer {n}\r\n");
        assert_eq!(ask(&proxy, "POST", "/api/pm:enable", &token).status, 401);
        assert_eq!(ask(&proxy, "POST", "/api/backups:create", &token).status, 401);
    }
    assert_eq!(proxy.snapshot.upstreams[0].shared.affinity.count(), 0);
}

#[test]
fn a_flow_comes_before_the_sticky_cookie_and_leaves_it_as_it_is() {
    let [a, b, c] = three();
    let sticky = "balance = \"round_robin\"\nsticky = { secret = \"0123456789abcdef\" }";
    let proxy = proxy(&[&a, &b, &c], sticky);
    let run_by = who(&proxy, "POST", "/api/backups:create", "");
    let at_another = loop {
        let answer: Answer = ask(&proxy, "GET", "/", "");
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        if answer.text() != run_by {
            break format!("Cookie: {cookie}\r\n");
        }
    };
    let answer = ask(&proxy, "GET", "/api/backups:taskStatus", &at_another);
    assert_eq!((answer.text(), answer.field("set-cookie")), (run_by.clone(), None));
    assert_ne!(who(&proxy, "GET", "/", &at_another), run_by);
}

#[test]
fn a_large_body_follows_to_a_drained_node_although_nobody_else_is_there() {
    const BODY: usize = 100_000;
    let [a, b, c] = three();
    let proxy = proxy(&[&a, &b, &c], ROUND);
    let run_by = place(&who(&proxy, "POST", "/api/backups:create", ""));
    proxy.node(run_by).set_operator(OperatorState::Draining);
    let others = [0, 1, 2].into_iter().filter(|other| *other != run_by);
    others.for_each(|other| proxy.node(other).set_health(HealthState::Down));
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /api/backups:taskStatus HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[b'x'; BODY]).unwrap();
    let answer = Answer::read(&mut stream).expect("an answer");
    assert_eq!((answer.status, place(&answer.text())), (200, run_by));
}
