//! What nodes tell of themselves over `/ws`, and who else cannot.

use std::net::TcpStream;
use std::sync::Arc;

use cobalance::control::ConfigSource;
use cobalance::demo::node::{Journal, Pace, Phase, StandIn};
use cobalance::server;
use parking_lot::Mutex;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::QUICK;
use crate::support::actor::{Act, Actor, Whole, entries, entry};
use crate::support::origin::{Line, field};
use crate::support::said::{listen, said};
use crate::support::{parse, until};

/// After its first probes a node is asked again only for a reason.
const RARE: &str = "balance = \"round_robin\"\n\
    [upstream.{name}.health_check]\ninterval = \"1h\"\ntimeout = \"20s\"\n\
    [upstream.{name}.outlier_detection]\nenabled = false\n";

/// Each with the app that it belongs to.
type Sockets = Arc<Mutex<Vec<(String, WebSocket<TcpStream>)>>>;

/// A node that tells, as NocoBase does: to the sockets of an app, and the app is that of the handshake.
struct Teller {
    actor: Actor,
    sockets: Sockets,
}

impl Teller {
    fn new(name: &'static str) -> Teller {
        let sockets = Sockets::default();
        let open = sockets.clone();
        let speak = move |line: Line, head: &str| {
            let key = field(head, "sec-websocket-key").unwrap();
            // Without a name it is that of the host's app, for whom there is a plugin.
            let app = field(head, "x-app").unwrap_or("of the host").to_owned();
            let mut line = line;
            // Who hears of the handshake, and has something said then, finds the socket in its place.
            let mut all = open.lock();
            line.send(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {}\r\n\r\n",
                    derive_accept_key(key.as_bytes())
                )
                .as_bytes(),
            );
            let socket = |stream| WebSocket::from_raw_socket(stream, Role::Server, None);
            all.push((app, socket(line.stream.try_clone().unwrap())));
            drop(all);
            line.stream.set_read_timeout(None).unwrap();
            // Answers what the protocol wants answered, until the other side leaves.
            let mut reader = socket(line.stream);
            while reader.read().is_ok() {}
        };
        Teller { actor: Actor::speaking(name, Act::Ok("ok"), speak), sockets }
    }

    /// To all sockets of an app. Some may have left.
    fn say_to(&self, app: &str, message: &Message) {
        for (of, socket) in self.sockets.lock().iter_mut() {
            if of == app {
                let _ = socket.send(message.clone());
            }
        }
    }

    fn say(&self, code: &str, message: &str) {
        self.say_to("main", &state(code, message));
    }

    /// Waits until everything that was said has been heard: what is said last brings a probe.
    fn until_heard(&self, whole: &Whole, index: usize) {
        let before = frames(whole, index, "running");
        self.say("APP_RUNNING", "application main is running");
        until("it was heard", || frames(whole, index, "running") == before + 1);
        let probes = self.actor.probes();
        self.say("APP_RUNNING", "application main is running");
        until("it was asked", || self.actor.probes() > probes);
    }
}

fn state(code: &str, message: &str) -> Message {
    let payload = serde_json::json!({"code": code, "message": message});
    Message::text(serde_json::json!({"type": "maintaining", "payload": payload}).to_string())
}

fn frames(whole: &Whole, index: usize, kind: &str) -> u64 {
    let labels = [whole.upstream, &whole.node(index).name, kind];
    whole.running.handle().metrics().watch_frames.with_label_values(&labels).get()
}

fn gauge(whole: &Whole, index: usize) -> i64 {
    let labels = [whole.upstream, &whole.node(index).name];
    whole.running.handle().metrics().watch_connected.with_label_values(&labels).get()
}

fn until_watched(whole: &Whole, index: usize) {
    until("it is watched", || whole.node(index).watch == "connected");
    assert_eq!(gauge(whole, index), 1);
}

fn start(name: &'static str, tellers: &[&Teller]) -> Whole {
    let nodes: Vec<&Actor> = tellers.iter().map(|teller| &teller.actor).collect();
    let whole = Whole::start(name, &entries(&nodes), RARE).until_up();
    (0..tellers.len()).for_each(|n| until_watched(&whole, n));
    whole
}

#[test]
fn a_node_that_is_about_to_end_gets_no_more_work_though_its_probes_are_good() {
    listen();
    let (a, b) = (Teller::new("a"), Teller::new("b"));
    let whole = start("ending", &[&a, &b]);
    // No probe can have a part in it.
    a.actor.health([Act::Hold]);
    let good = whole.checks(0, "good");
    a.say("APP_RUNNING", "destroying app...");
    let node = whole.until_state(0, "maintaining");
    assert_eq!((node.cause.as_str(), whole.checks(0, "good")), ("watch: destroying app...", good));
    assert_eq!(whole.changes(0, "maintaining", "watch"), 1);
    assert_eq!(said(&["WARN", "ending", "watch: destroying app...", "node state"]).len(), 1);
    let before = a.actor.requests();
    assert!((0..10).all(|_| whole.get().text() == "b"));
    assert_eq!(a.actor.requests(), before);
    // NocoBase answers `ok` until its database is closed.
    a.actor.health([Act::Ok("ok")]);
    until("many good probes", || whole.checks(0, "good") >= good + 3);
    assert_eq!(whole.node(0).state, "maintaining");
    a.say("APP_RUNNING", "application main is running");
    whole.until_state(0, "up");
    assert!(whole.changes(0, "up", "good") >= 1, "by its probes, not by its word");
    until("it gets its share", || whole.get().text() == "a");
}

#[test]
fn a_word_of_maintenance_counts_at_once_and_a_word_of_the_end_of_it_brings_a_probe() {
    let a = Teller::new("a");
    let whole = start("words", &[&a]);
    let good = whole.checks(0, "good");
    a.say("APP_RUNNING", "application main is running");
    until("a probe, an hour before its time", || whole.checks(0, "good") > good);
    // From here on no probe comes back.
    a.actor.health([Act::Hold]);
    for (code, shown) in [("APP_COMMANDING", "maintaining"), ("APP_INITIALIZING", "starting")] {
        a.say(code, "loading plugins");
        let node = whole.until_state(0, shown);
        assert_eq!(node.cause, format!("watch: {code}: loading plugins"));
    }
    a.say("APP_STOPPED", "app main is stopped");
    whole.until_state(0, "down");
    assert_eq!(whole.node(0).watch, "connected", "an app may start again in its process");
    // The word alone brings nobody back.
    let running = frames(&whole, 0, "running");
    a.say("APP_RUNNING", "application main is running");
    until("it was heard", || frames(&whole, 0, "running") == running + 1);
    assert_eq!(whole.node(0).state, "down");
    a.actor.health([Act::Ok("ok")]);
    whole.until_state(0, "up");
    assert_eq!(frames(&whole, 0, "not_serving"), 3);
}

#[test]
fn what_is_not_about_the_state_of_the_node_changes_nothing() {
    let a = Teller::new("a");
    let whole = start("strange", &[&a]);
    let before = whole.all_changes();
    let garbage = ["", "ping", "[1]", "{\"type\":7}", "{\"type\":\"maintaining\",\"payload\":{}}"];
    for text in garbage {
        a.say_to("main", &Message::text(text));
    }
    a.say_to("main", &Message::binary(b"{\"type\":\"maintaining\"}".to_vec()));
    a.say_to("main", &Message::text(r#"{"type":"notification","payload":{"code":"APP_STOPPED"}}"#));
    a.say("APP_OF_TOMORROW", "destroying app...");
    a.until_heard(&whole, 0);
    assert_eq!((frames(&whole, 0, "garbage"), frames(&whole, 0, "other")), (6, 2));
    // A state in a message that is too long is none, and the connection is a new one.
    a.say("APP_STOPPED", &"x".repeat(100_000));
    until("it was given up", || frames(&whole, 0, "too_large") == 1);
    until("it comes back", || a.sockets.lock().len() == 2);
    until_watched(&whole, 0);
    a.until_heard(&whole, 0);
    assert_eq!((whole.all_changes(), whole.node(0).state.as_str()), (before, "up"));
}

#[test]
fn other_apps_on_the_node_are_not_heard() {
    let a = Teller::new("a");
    let whole = start("apps", &[&a]);
    let before = whole.all_changes();
    for app in ["of the host", "hr"] {
        a.say_to(app, &state("APP_STOPPED", "app hr is stopped"));
    }
    a.until_heard(&whole, 0);
    assert_eq!(frames(&whole, 0, "not_serving"), 0);
    assert_eq!(whole.all_changes(), before);
}

#[test]
fn a_node_without_it_is_judged_by_its_probes() {
    let a = Actor::up("a");
    let whole = Whole::start("without", &entries(&[&a]), QUICK).until_up();
    until("it is tried more than once", || a.watches() >= 2);
    assert_eq!((whole.node(0).watch.as_str(), gauge(&whole, 0)), ("not_connected", 0));
    assert_eq!((whole.get().text().as_str(), whole.all_changes() as u64), ("a", 1));
    a.health([Act::Refuse(503, "APP_COMMANDING", "x")]);
    whole.until_state(0, "maintaining");
}

#[test]
fn nobody_is_watched_who_should_not_be() {
    let [a, b, c] = ["a", "b", "c"].map(Teller::new);
    let off = QUICK.replace("interval", "watch = false\ninterval");
    let none = Whole::start("off", &entries(&[&a.actor]), &off).until_up();
    let nodes = [entry(&b.actor, ", role = \"task\""), entry(&c.actor, ", disabled = true")];
    let nodes = [nodes.to_vec(), entries(&[&a.actor])].concat();
    let some = Whole::start("roles", &nodes, QUICK);
    until_watched(&some, 0);
    until_watched(&some, 2);
    let probes = || [&a, &c].map(|teller| teller.actor.probes());
    let before = probes();
    until("more probes", || probes().iter().zip(before).all(|(now, then)| *now > then + 5));
    assert_eq!((a.actor.watches(), c.actor.watches()), (1, 0), "one of two balancers watches a");
    assert_eq!((none.node(0).watch.as_str(), some.node(1).watch.as_str()), ("off", "off"));
    // A task node is not routed to, but what it does is shown.
    b.say("APP_COMMANDING", "upgrading");
    some.until_state(0, "maintaining");
}

#[test]
fn a_reload_ends_a_watch_with_what_was_said_there_and_begins_one() {
    let a = Teller::new("a");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let text = |watch: bool| {
        format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.reloaded]\nnodes = [\"{}\"]\n\
             [upstream.reloaded.health_check]\ninterval = \"100ms\"\nwatch = {watch}\n",
            a.actor.origin.address
        )
    };
    std::fs::write(&file, text(true)).unwrap();
    let running = server::start(parse(&text(true)), ConfigSource::File(file.clone())).unwrap();
    let whole = Whole { running, upstream: "reloaded" }.until_up();
    until_watched(&whole, 0);
    let reload = |watch| {
        std::fs::write(&file, text(watch)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(whole.running.handle().reload());
    };
    a.say("APP_RUNNING", "stopping app...");
    whole.until_state(0, "maintaining");
    let good = whole.checks(0, "good");
    until("good probes", || whole.checks(0, "good") > good + 3);
    assert_eq!(whole.node(0).state, "maintaining");
    reload(false);
    assert_eq!((whole.node(0).watch.as_str(), gauge(&whole, 0)), ("off", 0));
    whole.until_state(0, "up");
    reload(true);
    until_watched(&whole, 0);
    assert_eq!(a.actor.watches(), 2);
}

fn stand_in(name: &'static str) -> (tokio::runtime::Runtime, StandIn, Whole) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let node = StandIn::new(name, &Journal::default()).unwrap();
    runtime.block_on(node.start(Pace::NONE));
    let whole = Whole::start(name, &[format!("\"{}\"", node.address())], QUICK).until_up();
    until_watched(&whole, 0);
    (runtime, node, whole)
}

#[test]
fn a_node_that_is_restarted_is_watched_again() {
    let (runtime, node, whole) = stand_in("again");
    for _ in 0..2 {
        runtime.block_on(node.kill());
        until("it is not watched", || whole.node(0).watch == "not_connected");
        whole.until_state(0, "down");
        assert_eq!(gauge(&whole, 0), 0);
        runtime.block_on(node.start(Pace::NONE));
        whole.until_state(0, "up");
        until_watched(&whole, 0);
    }
}

#[test]
fn a_node_that_is_terminated_is_out_before_it_stops_and_is_not_held_up() {
    let (runtime, node, whole) = stand_in("terminated");
    runtime.block_on(node.terminate());
    // Of its last phases only those in which its probes are good are told as this state.
    until("it is out", || whole.changes(0, "maintaining", "watch") == 1);
    assert!(runtime.block_on(node.wait_for(|phase| *phase == Phase::Off)));
    until("it is let go", || whole.node(0).watch == "not_connected");
    whole.until_state(0, "down");
    runtime.block_on(node.start(Pace::NONE));
    whole.until_state(0, "up");
    until_watched(&whole, 0);
}
