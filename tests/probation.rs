//! Reloads on probation, and going back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "probation/command.rs"]
mod command;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use cobalance::control::maintenance::{Change, Wanted};
use cobalance::control::operator::{Order, Ordered, Verb};
use cobalance::control::pin::Unpin;
use cobalance::control::rollback::{RollbackError, RolledBack};
use cobalance::control::status::{ConfigStatus, ReloadResult, Status};
use cobalance::control::warnings::Kind;
use cobalance::control::{ConfigSource, Handle};
use cobalance::server::{self, Running};
use support::actor::{Act, Actor};
use support::files::put;
use support::origin::Origin;
use support::ports::{Closed, free};
use support::{Answer, PATIENCE, parse, until};

/// With `probation_requests = 40`.
const ENOUGH: usize = 40;
/// Longer than any test; what is blatant is found after a sixth of it.
const LONG: &str = "probation = \"10m\"";

struct Rig {
    dir: tempfile::TempDir,
    running: Running,
}

impl Rig {
    fn start(text: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let running = server::start(parse(text), ConfigSource::File(path)).unwrap();
        Rig { dir, running }
    }

    fn handle(&self) -> &Handle {
        self.running.handle()
    }

    fn write(&self, text: &str) {
        put(&self.dir.path().join("c.toml"), text);
    }

    fn reload(&self, text: &str) {
        let before = self.config().generation;
        self.write(text);
        let outcome = wait(self.handle().reload()).unwrap();
        // Control looks at the file by itself as well, and may have been first.
        let first = outcome.result == ReloadResult::Unchanged && outcome.generation > before;
        assert!(first || outcome.result == ReloadResult::Ok, "{outcome:?}");
    }

    fn roll_back(&self) -> Result<RolledBack, RollbackError> {
        wait(self.handle().roll_back([127, 0, 0, 1].into())).unwrap()
    }

    fn order(&self, verb: Verb, node: SocketAddr) -> Ordered {
        let (node, from) = (node.to_string(), [127, 0, 0, 1].into());
        let order = Order { verb, node, upstream: None, window: None, force: true, from };
        wait(self.handle().order(order)).unwrap().unwrap()
    }

    fn status(&self) -> Status {
        wait(self.handle().status()).unwrap()
    }

    fn config(&self) -> ConfigStatus {
        self.status().config
    }

    fn state(&self) -> String {
        self.config().probation.map_or_else(String::new, |probation| probation.state)
    }

    fn warning(&self, kind: Kind) -> Option<String> {
        let warnings = self.status().warnings;
        warnings.into_iter().find(|one| one.kind == kind).map(|one| one.message)
    }

    /// So many requests, one after the other; their statuses.
    fn ask(&self, count: usize) -> Vec<u16> {
        let address = self.running.address("public").unwrap();
        let mut stream = None;
        let mut statuses = Vec::new();
        while statuses.len() < count {
            let mut open = stream.take().unwrap_or_else(|| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream
            });
            // A listener that a reload has touched may close it between two answers.
            let sent = open.write_all(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
            let Some(answer) = sent.ok().and_then(|()| Answer::read(&mut open)) else { continue };
            statuses.push(answer.status);
            stream = Some(open).filter(|_| answer.field("connection") != Some("close"));
        }
        statuses
    }

    /// Asks until the probation has come to this.
    fn until_state(&self, state: &str) {
        until(state, || {
            self.ask(10);
            self.state() == state
        });
    }

    fn counted(&self, result: &str) -> u64 {
        let metrics = self.handle().metrics();
        metrics.config_probations.with_label_values(&[result]).get()
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// `server` are lines of `[server]`; `more` comes at the end, in the upstream's table.
fn text(server: &str, nodes: &[SocketAddr], more: &str) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
    format!(
        "[server]\nthreads = 1\nprobation_requests = {ENOUGH}\n{server}\n[access_log]\n\
         enabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n[[listener]]\nname = \"public\"\n\
         bind = \"127.0.0.1:0\"\n[upstream.u]\npreset = \"none\"\npark = \"0s\"\nnodes = [{}]\n{more}\n",
        nodes.join(", ")
    )
}

/// Who asks for enough has ten times that for it.
const SHORT: &str = "probation = \"1s\"";
const SHORT_AND_AUTO: &str = "probation = \"1s\"\nauto_rollback = true";
const CHECKED: &str =
    "[upstream.u.health_check]\nenabled = true\ninterval = \"20ms\"\nfall = 1\nrise = 1";

fn all(status: u16) -> Vec<u16> {
    vec![status; ENOUGH]
}

#[test]
fn a_reload_that_is_no_worse_passes_and_can_be_gone_back_from() {
    let origin = Origin::ok("a");
    let rig = Rig::start(&text(SHORT, &[origin.address], ""));
    assert_eq!(rig.config().probation, None, "the first has nothing to be compared with");
    assert_eq!(rig.config().rollback_to, None);
    assert_eq!(rig.ask(ENOUGH), all(200));
    rig.reload(&text(SHORT, &[origin.address], "retries = 1"));
    assert_eq!((rig.state().as_str(), rig.config().rollback_to), ("watched", Some(1)));
    assert_eq!(rig.handle().metrics().config_probation.get(), 1);
    rig.until_state("passed");
    let probation = rig.config().probation.unwrap();
    assert!(probation.generation == 2 && probation.requests >= 40, "{probation:?}");
    assert_eq!(rig.handle().metrics().config_probation.get(), 0);
    assert_eq!((rig.counted("passed"), rig.warning(Kind::WorseReload)), (1, None));
    let done = rig.roll_back().unwrap();
    assert_eq!((done.from, done.to, done.generation), (2, 1, 3));
    assert_eq!(rig.handle().snapshot().config.upstreams[0].retries, 2);
    assert_eq!(rig.ask(ENOUGH), all(200));
}

#[test]
fn a_reload_that_does_worse_is_told_and_gone_back_from() {
    let (origin, nobody) = (Origin::ok("a"), Closed::new());
    let good = text(SHORT, &[origin.address], "");
    let rig = Rig::start(&good);
    assert_eq!(rig.roll_back(), Err(RollbackError::Nothing));
    assert_eq!(rig.ask(ENOUGH), all(200));
    rig.reload(&text(SHORT, &[nobody.address], ""));
    rig.until_state("worse");
    let found = rig.config().probation.unwrap().found;
    assert!(found[0].starts_with("no connection to a node: "), "{found:?}");
    let told = rig.warning(Kind::WorseReload).unwrap();
    assert!(told.contains("configuration 2 does worse") && told.contains("before 0 of "), "{told}");
    assert!(told.contains("`cobalance rollback` goes back to configuration 1"), "{told}");
    assert_eq!((rig.counted("worse"), rig.handle().metrics().config_probation.get()), (1, 2));
    assert_eq!(rig.ask(1), [502], "it is not rolled back without being asked");
    let done = rig.roll_back().unwrap();
    assert_eq!((done.from, done.to, done.generation), (2, 1, 3));
    assert_eq!(done.found, found);
    assert_eq!(rig.ask(ENOUGH), all(200));
    assert_eq!(rig.roll_back(), Err(RollbackError::Already { from: 2, to: 1 }));
    // It is said wherever somebody looks.
    assert_eq!(rig.config().rolled_back, Some(done));
    assert!(
        rig.warning(Kind::RolledBack).unwrap().starts_with("the file on disk is not what runs")
    );
    let metrics = rig.handle().metrics().clone();
    assert_eq!(metrics.config_rolled_back.get(), 1);
    assert_eq!(metrics.config_rollbacks.with_label_values(&["operator"]).get(), 1);
    assert_eq!((rig.warning(Kind::WorseReload), metrics.config_probation.get()), (None, 0));
    // The file changes, and is in use as ever, without being asked for: it is what runs again.
    rig.write(&good.replace("retries", "").replace("park = \"0s\"", "park = \"0s\"\nretries = 1"));
    until("the file is in use", || rig.config().generation == 4);
    assert_eq!((rig.config().rolled_back, metrics.config_rolled_back.get()), (None, 0));
    assert_eq!((rig.warning(Kind::RolledBack), rig.state().as_str()), (None, "watched"));
}

#[test]
fn a_file_that_becomes_what_runs_is_no_other_any_more() {
    let origin = Origin::ok("a");
    let good = text(LONG, &[origin.address], "");
    let rig = Rig::start(&good);
    rig.reload(&text(LONG, &[origin.address], "retries = 1"));
    rig.roll_back().unwrap();
    rig.write(&good);
    until("they agree", || rig.config().rolled_back.is_none());
    assert_eq!(rig.config().generation, 3);
}

#[test]
fn with_auto_rollback_it_goes_back_by_itself() {
    let (origin, nobody) = (Origin::ok("a"), Closed::new());
    let rig = Rig::start(&text(SHORT_AND_AUTO, &[origin.address], ""));
    assert_eq!(rig.ask(ENOUGH), all(200));
    rig.reload(&text(SHORT_AND_AUTO, &[nobody.address], ""));
    until("it goes back", || {
        rig.ask(10);
        rig.config().rolled_back.is_some()
    });
    let config = rig.config();
    let done = config.rolled_back.unwrap();
    assert_eq!((done.from, done.to, done.by.as_str()), (2, 1, "its probation"));
    assert_eq!(config.probation.unwrap().state, "worse");
    let by = &rig.handle().metrics().config_rollbacks;
    assert_eq!(by.with_label_values(&["probation"]).get(), 1);
    assert_eq!(rig.ask(ENOUGH), all(200));
}

#[test]
fn it_does_not_go_back_by_itself_when_a_node_changed_its_state() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let server = "probation = \"6s\"\nauto_rollback = true";
    let nodes = [a.origin.address, b.origin.address];
    let checked = format!("{CHECKED}\npath = \"/api/__health_check\"");
    let rig = Rig::start(&text(server, &nodes, &checked));
    let states = || -> Vec<String> {
        let upstreams = rig.status().upstreams;
        upstreams.iter().flat_map(|one| &one.nodes).map(|node| node.state.clone()).collect()
    };
    until("both are up", || states() == ["up", "up"]);
    let route = "[[route]]\nhost = \"t\"\nupstream = \"u\"\n";
    let with = |host: &str| text(server, &nodes, &checked) + &route.replace("\"t\"", host);
    rig.reload(&with("\"t\""));
    assert_eq!(rig.ask(ENOUGH), all(200));
    b.health([Act::Status(500)]);
    until("one is down", || states() == ["up", "down"]);
    rig.reload(&with("\"nobody\""));
    rig.until_state("worse");
    let probation = rig.config().probation.unwrap();
    assert!(probation.found[0].starts_with("no route: "), "{probation:?}");
    let why = probation.kept.unwrap();
    assert!(why.contains("changed its state by itself"), "{why}");
    assert_eq!((rig.config().rolled_back, rig.ask(1)), (None, vec![404]));
}

#[test]
fn a_node_that_it_added_and_that_does_not_come_up_counts() {
    let (origin, nobody) = (Origin::ok("a"), Closed::new());
    let rig = Rig::start(&text(SHORT_AND_AUTO, &[origin.address], CHECKED));
    rig.reload(&text(SHORT_AND_AUTO, &[origin.address, nobody.address], CHECKED));
    // Without a single request: nodes are enough to tell.
    until("it goes back", || rig.config().rolled_back.is_some());
    let found = rig.config().rolled_back.unwrap().found;
    let expected = format!("node `{}` of upstream `u`, which it added, is down (", nobody.address);
    assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
    assert_eq!(rig.handle().snapshot().upstreams[0].nodes.len(), 1);
}

#[test]
fn a_health_check_that_takes_nodes_out_counts() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let rig = Rig::start(&text(SHORT_AND_AUTO, &[origin.address], CHECKED));
    until("it is up", || rig.status().upstreams[0].eligible == 1);
    let other = format!("{CHECKED}\nexpect_status = 204");
    rig.reload(&text(SHORT_AND_AUTO, &[origin.address], &other));
    until("it goes back", || rig.config().rolled_back.is_some());
    let found = rig.config().rolled_back.unwrap().found;
    assert!(found[0].contains("whose health check it changed, is down"), "{found:?}");
    until("it is up again", || rig.status().upstreams[0].eligible == 1);
}

#[test]
fn without_traffic_it_passes_and_says_why() {
    let origin = Origin::ok("a");
    let server = "probation = \"50ms\"";
    let rig = Rig::start(&text(server, &[origin.address], ""));
    rig.reload(&text(server, &[origin.address], "retries = 1"));
    until("a verdict", || rig.state() == "too_little_traffic");
    assert_eq!((rig.counted("too_little_traffic"), rig.config().rollback_to), (1, Some(1)));
}

#[test]
fn another_reload_meanwhile_is_compared_with_the_same() {
    let (origin, nobody) = (Origin::ok("a"), Closed::new());
    let rig = Rig::start(&text(SHORT, &[origin.address], ""));
    assert_eq!(rig.ask(ENOUGH), all(200));
    rig.reload(&text(LONG, &[nobody.address], ""));
    assert_eq!(rig.ask(5 * ENOUGH), vec![502; 5 * ENOUGH]);
    // No better than the one before, and worse than what passed.
    rig.reload(&text(SHORT, &[nobody.address], "retries = 1"));
    assert_eq!((rig.counted("replaced"), rig.config().rollback_to), (1, Some(1)));
    rig.until_state("worse");
    let found = rig.config().probation.unwrap().found;
    assert!(found[0].ends_with("before 0 of 40 requests (0.0 %)"), "{found:?}");
    let done = rig.roll_back().unwrap();
    assert_eq!((done.from, done.to), (3, 1));
    assert_eq!(rig.ask(ENOUGH), all(200));
    // What the bad ones did is not what is usual now.
    rig.reload(&text(SHORT, &[nobody.address], ""));
    rig.until_state("worse");
}

#[test]
fn the_file_that_passed_is_good_at_once_and_so_is_any_without_probation() {
    let origin = Origin::ok("a");
    let good = text(LONG, &[origin.address], "");
    let rig = Rig::start(&good);
    rig.reload(&text(LONG, &[origin.address], "retries = 1"));
    rig.reload(&good);
    assert_eq!((rig.state().as_str(), rig.config().rollback_to), ("replaced", None));
    rig.reload(&text("probation = \"0s\"", &[origin.address], ""));
    assert_eq!(rig.config().rollback_to, Some(3));
    assert_eq!(rig.handle().metrics().config_probation.get(), 0);
}

#[test]
fn a_verdict_while_a_file_is_read_waits_for_what_it_says() {
    let (origin, nobody) = (Origin::ok("a"), Closed::new());
    let rig = Rig::start(&text(SHORT_AND_AUTO, &[origin.address], ""));
    assert_eq!(rig.ask(ENOUGH), all(200));
    let bad = text(SHORT_AND_AUTO, &[nobody.address], "");
    rig.reload(&bad);
    // A file that is read for as long as somebody writes it.
    let (slow, path) = (rig.dir.path().join("slow"), rig.dir.path().join("c.toml"));
    assert!(std::process::Command::new("mkfifo").arg(&slow).status().unwrap().success());
    std::fs::rename(&slow, &path).unwrap();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| wait(rig.handle().reload()).unwrap());
        let mut writing = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        rig.write(&bad);
        rig.until_state("worse");
        assert_eq!(rig.config().rolled_back, None);
        writing.write_all(bad.as_bytes()).unwrap();
        drop(writing);
        assert_eq!(reload.join().unwrap().result, ReloadResult::Unchanged);
    });
    until("it goes back", || rig.config().rolled_back.is_some());
    assert_eq!(rig.ask(ENOUGH), all(200));
}

#[test]
fn a_pinned_node_is_not_rolled_back_from() {
    let (a, b) = (Origin::ok("a"), Origin::ok("b"));
    let rig = Rig::start(&text(LONG, &[a.address], ""));
    rig.reload(&text(LONG, &[a.address, b.address], ""));
    rig.order(Verb::Pin, b.address);
    let refused = rig.roll_back().unwrap_err();
    assert!(matches!(refused, RollbackError::Failed(1, _)), "{refused}");
    assert!(refused.to_string().contains("then `cobalance rollback`"), "{refused}");
    assert_eq!(rig.config().generation, 2);
    let unpin = Unpin { upstream: None, from: [127, 0, 0, 1].into() };
    wait(rig.handle().unpin(unpin)).unwrap().unwrap();
    assert_eq!(rig.roll_back().unwrap().to, 1);
}

#[test]
fn what_operators_had_said_holds_again_with_the_configuration_it_was_about() {
    let (a, b) = (Origin::ok("a"), Origin::ok("b"));
    let good = text(LONG, &[a.address, b.address], "");
    let rig = Rig::start(&good);
    let drained = rig.order(Verb::Drain, a.address);
    assert_eq!(drained.nodes[0].state, "draining");
    let states = || -> Vec<String> {
        let nodes = rig.status().upstreams.remove(0).nodes;
        nodes.into_iter().map(|node| node.state).collect()
    };
    let before = states();
    // Another name is another upstream, of which nothing was said.
    rig.reload(&good.replace("upstream.u", "upstream.v"));
    assert!(states().iter().all(|state| state != "draining"));
    rig.roll_back().unwrap();
    assert_eq!(states(), before);
}

#[test]
fn what_operators_ended_meanwhile_does_not_come_back_with_the_configuration() {
    let (a, b) = (Origin::ok("a"), Origin::ok("b"));
    let good = text(LONG, &[a.address, b.address], "");
    let other = good.replace("upstream.u", "upstream.v");
    let states = |rig: &Rig| -> Vec<String> {
        let nodes = rig.status().upstreams.remove(0).nodes;
        nodes.into_iter().map(|node| node.state).collect()
    };
    let maintain = |rig: &Rig, on| {
        let change = Change { upstream: None, on, from: [127, 0, 0, 1].into() };
        wait(rig.handle().maintain(change)).unwrap().unwrap()
    };
    let rig = Rig::start(&good);
    rig.order(Verb::Drain, a.address);
    maintain(&rig, Some(Wanted::default()));
    rig.reload(&other);
    // The node is there under another upstream's name, and was never drained as that.
    rig.reload(&good.replace("nodes = [", "retries = 1\nnodes = ["));
    assert!(states(&rig).iter().all(|state| state != "draining"));
    rig.order(Verb::Ready, a.address);
    let off = maintain(&rig, None);
    assert!(!off.upstreams[0].was_on, "{off:?}");
    rig.roll_back().unwrap();
    assert!(states(&rig).iter().all(|state| state != "draining"));
    assert_eq!(rig.status().upstreams[0].maintenance, None);
}

#[test]
fn nor_does_what_was_ended_while_nothing_was_configured_to_hold_it() {
    let (a, b, c) = (Origin::ok("a"), Origin::ok("b"), Origin::ok("c"));
    let good = text(LONG, &[a.address, b.address], "");
    let rig = Rig::start(&good);
    rig.order(Verb::Pin, b.address);
    rig.order(Verb::Drain, a.address);
    let change = |on| Change { upstream: Some("u".into()), on, from: [127, 0, 0, 1].into() };
    wait(rig.handle().maintain(change(Some(Wanted::default())))).unwrap().unwrap();
    rig.reload(&text(LONG, &[c.address], "").replace("upstream.u", "upstream.v"));
    let ready = rig.order(Verb::Ready, a.address);
    assert_eq!((ready.nodes.len(), ready.forgotten), (0, vec![a.address.to_string()]));
    let unpin = Unpin { upstream: Some("u".into()), from: [127, 0, 0, 1].into() };
    let unpinned = wait(rig.handle().unpin(unpin.clone())).unwrap().unwrap().upstreams;
    assert_eq!(unpinned.len(), 1);
    assert_eq!(unpinned[0].node, Some(b.address.to_string()));
    let off = wait(rig.handle().maintain(change(None))).unwrap().unwrap().upstreams;
    assert!(off.len() == 1 && off[0].was_on && off[0].maintenance.is_none(), "{off:?}");
    // Once is enough: now nothing is known of these.
    assert!(wait(rig.handle().unpin(unpin)).unwrap().is_err());
    assert!(wait(rig.handle().maintain(change(None))).unwrap().is_err());
    rig.roll_back().unwrap();
    let status = rig.status().upstreams.remove(0);
    assert_eq!((status.name.as_str(), status.maintenance, status.pinned), ("u", None, None));
    assert!(status.nodes.iter().all(|node| node.operator == "ready"), "{:?}", status.nodes);
}

#[test]
fn what_cannot_be_put_in_use_any_more_changes_nothing() {
    let origin = Origin::ok("a");
    let free = free();
    let with = |more: &str| text(LONG, &[origin.address], more);
    let listener = format!("[[listener]]\nname = \"other\"\nbind = \"{free}\"");
    let rig = Rig::start(&with(&listener));
    rig.reload(&with(""));
    let mut taken = None;
    until("its port is free", || {
        taken = TcpListener::bind(free).ok();
        taken.is_some()
    });
    let refused = rig.roll_back().unwrap_err();
    assert!(matches!(refused, RollbackError::Failed(1, _)), "{refused}");
    assert!(refused.to_string().contains("listener `other` cannot bind"), "{refused}");
    assert_eq!((rig.config().generation, rig.state().as_str()), (2, "watched"));
    drop(taken);
    assert_eq!(rig.roll_back().unwrap().generation, 3);
    assert!(rig.running.address("other").is_some());
}
