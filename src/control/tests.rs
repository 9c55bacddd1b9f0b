//! Control as a whole, with real origins and data threads that only obey.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use super::status::{NodeStatus, ReloadResult};
use super::warnings::Kind;
use super::*;
use crate::health::OperatorState;
use crate::health::outlier::FailureKind;
use crate::upstream::Signal;
use crate::upstream::claim::Probation;
use support::{Behaviour, Obeyed, Origin, config, unchecked, until};

mod operator;
mod reload;
pub(crate) mod support;

/// Control with its data threads; stops with the test.
struct Rig {
    handle: Handle,
    threads: Obeyed,
}

impl Rig {
    fn start(config: Config, source: ConfigSource) -> Rig {
        Rig::of(start(config, source, Metrics::new()).unwrap())
    }

    fn of(control: Control) -> Rig {
        let threads = Obeyed::default();
        for parts in control.threads {
            threads.spawn(parts).unwrap();
        }
        Rig { handle: control.handle, threads }
    }

    fn flags(config: Config) -> Rig {
        Rig::start(config, ConfigSource::Flags)
    }

    async fn node(&self, name: &str) -> NodeStatus {
        let status = self.handle.status().await.unwrap();
        let mut nodes = status.upstreams.into_iter().flat_map(|upstream| upstream.nodes);
        nodes.find(|node| node.name == name).unwrap()
    }

    async fn until_state(&self, name: &str, state: &str) -> NodeStatus {
        let look = || async { Some(self.node(name).await).filter(|node| node.state == state) };
        until(state, look).await
    }

    fn live(&self, name: &str) -> Arc<Node> {
        let snapshot = self.handle.snapshot();
        let mut members = snapshot.upstreams.iter().flat_map(|upstream| &upstream.nodes);
        members.find(|member| member.node.label == name).unwrap().node.clone()
    }

    async fn signal(&self, signal: Signal) {
        let sender = self.threads.signals.lock()[0].clone();
        sender.send(signal).await.unwrap();
    }

    async fn warnings(&self, kind: Kind) -> Vec<String> {
        let standing = self.handle.status().await.unwrap().warnings;
        standing.into_iter().filter(|one| one.kind == kind).map(|one| one.message).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn text(address: SocketAddr) -> String {
    address.to_string()
}

#[tokio::test]
async fn a_node_follows_what_it_says_of_itself() {
    let origin = Origin::start(Behaviour::Silent).await;
    let name = text(origin.address());
    let rig = Rig::flags(config(&[&name]));
    assert_eq!(rig.node(&name).await.state, "unchecked");
    assert!(rig.handle.not_ready().unwrap().contains("no node of `app`"));
    origin.behave(Behaviour::commanding());
    origin.close_all().await;
    let node = rig.until_state(&name, "maintaining").await;
    let check = node.last_check.unwrap();
    assert_eq!(check.code.as_deref(), Some("APP_COMMANDING"));
    assert_eq!(check.message.as_deref(), Some("loading plugins"));
    assert_eq!(check.command.as_deref(), Some("start"));
    origin.behave(Behaviour::Ok);
    let node = rig.until_state(&name, "up").await;
    assert!(node.cause.contains("good probes in a row: 2"), "{}", node.cause);
    assert!(rig.handle.is_ready());
    let changes = &rig.handle.metrics().state_changes;
    let count = |to, cause| changes.with_label_values(&["app", &name, to, cause]).get();
    assert_eq!((count("maintaining", "not_serving"), count("up", "good")), (1, 1));
}

#[tokio::test]
async fn a_refusing_port_takes_a_node_down_and_a_probe_on_request_finds_it() {
    let origin = Origin::start(Behaviour::Ok).await;
    let name = text(origin.address());
    let mut config = config(&[&name]);
    // Without a kick there would be no second probe during this test.
    let check = config.upstreams[0].health_check.as_mut().unwrap();
    (check.interval, check.fall) = (Duration::from_secs(3600), 1);
    let rig = Rig::flags(config);
    rig.until_state(&name, "up").await;
    let asked = origin.asked();
    rig.signal(Signal::ProbeNow(rig.live(&name))).await;
    until("a kicked probe", || async { (origin.asked() > asked).then_some(()) }).await;
    origin.stop().await;
    rig.signal(Signal::ProbeNow(rig.live(&name))).await;
    let node = rig.until_state(&name, "down").await;
    assert_eq!(node.last_check.unwrap().result, "refused");
    assert!(!rig.live(&name).may_fail_open());
}

#[tokio::test]
async fn without_a_health_check_a_node_is_up_at_once() {
    let rig = Rig::flags(unchecked(&["127.0.0.1:9"]));
    let node = rig.node("127.0.0.1:9").await;
    assert_eq!((node.state.as_str(), node.last_check), ("up", None));
    assert!(rig.handle.is_ready());
}

#[tokio::test]
async fn failing_nodes_are_ejected_but_not_the_last_one() {
    let names = ["127.0.0.1:9", "127.0.0.1:19"];
    let rig = Rig::flags(unchecked(&names));
    for name in names {
        rig.signal(Signal::Failing(rig.live(name), FailureKind::GatewayError)).await;
    }
    let node = rig.until_state(names[0], "ejected").await;
    assert!(node.cause.starts_with("failures in a row (gateway_error)"), "{}", node.cause);
    // Signals are served in their order: an answer to a question after them says they were.
    rig.signal(Signal::Failing(rig.live(names[1]), FailureKind::GatewayError)).await;
    assert_eq!(rig.node(names[1]).await.state, "up");
    until("fail open", || async { rig.live(names[0]).may_fail_open().then_some(()) }).await;
}

#[tokio::test]
async fn an_ejection_becomes_probation_and_ends_by_a_real_request() {
    let names = ["127.0.0.1:9", "127.0.0.1:19"];
    let mut config = unchecked(&names);
    config.upstreams[0].outlier_detection.ejection_time = Duration::from_millis(1);
    let rig = Rig::flags(config);
    let node = rig.live(names[0]);
    rig.signal(Signal::Failing(node.clone(), FailureKind::Reset)).await;
    let awaits = || async { node.awaits_probation().then_some(()) };
    until("probation", awaits).await;
    let _claim = Probation::claim(&node).unwrap();
    assert!(!node.eligible(true), "only one request may try");
    rig.signal(Signal::Probation(node.clone(), true)).await;
    rig.until_state(names[0], "up").await;
    assert!(node.eligible(false));
}

#[tokio::test]
async fn a_health_path_that_answers_a_page_is_told_until_it_is_repaired() {
    let page = Behaviour::Answer(200, "text/html", "<!doctype html>");
    let origin = Origin::start(page).await;
    let name = text(origin.address());
    let rig = Rig::flags(config(&[&name]));
    let standing = || async { rig.warnings(Kind::HealthPathHtml).await.pop() };
    let message = until("a warning", standing).await;
    assert!(message.contains("`/api/__health_check`") && message.contains("`public_path`"));
    origin.behave(Behaviour::Ok);
    rig.until_state(&name, "up").await;
    assert_eq!(rig.warnings(Kind::HealthPathHtml).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_outer_proxy_that_is_not_trusted_is_told_with_the_line_to_add() {
    let rig = Rig::flags(unchecked(&["127.0.0.1:9"]));
    let peer = "172.18.0.1".parse().unwrap();
    let field = "x-forwarded-proto";
    let listener = "public".to_owned();
    rig.signal(Signal::UntrustedForwarding { listener, peer, field }).await;
    let standing = || async { rig.warnings(Kind::UntrustedForwarding).await.pop() };
    let message = until("a warning", standing).await;
    assert!(message.contains("`trusted_proxies = [\"172.18.0.1/32\"]`"), "{message}");
}

#[tokio::test]
async fn more_nodes_than_nocobase_has_numbers_for_are_told() {
    let names: Vec<String> = (1..=33).map(|n| format!("127.0.1.{n}:9")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rig = Rig::flags(config(&names));
    assert!(rig.warnings(Kind::TooManyNodes).await[0].contains("33 nodes"));
}

#[tokio::test]
async fn names_are_resolved_and_unknown_ones_say_why_they_are_down() {
    let origin = Origin::start(Behaviour::Ok).await;
    let known = format!("localhost:{}", origin.address().port());
    let rig = Rig::flags(config(&[&known, "no-such-host.invalid:13000"]));
    let node = rig.until_state(&known, "up").await;
    assert_eq!(node.address, text(origin.address()));
    let node = rig.node("no-such-host.invalid:13000").await;
    assert_eq!((node.state.as_str(), node.address.as_str()), ("down", node.name.as_str()));
    assert!(node.cause.starts_with("its name does not resolve: "), "{}", node.cause);
    assert!(!rig.live(&node.name).may_fail_open());
}

#[tokio::test]
async fn a_name_that_resolves_later_becomes_a_node_without_a_new_generation() {
    let origin = Origin::start(Behaviour::Ok).await;
    let name = "app.invalid:13000";
    let rig = Rig::flags(config(&[name]));
    assert_eq!(rig.node(name).await.state, "down");
    let resolved = |found: &[SocketAddr]| {
        let answer = (name.to_owned(), Ok(found.to_vec()));
        assert!(rig.handle.inner.events.send(Event::Resolved(vec![answer])).is_ok());
    };
    resolved(&[origin.address()]);
    let node = rig.until_state(name, "up").await;
    assert_eq!(node.address, text(origin.address()));
    assert_eq!(rig.handle.snapshot().generation, 1);
    let told = || async { (rig.threads.renewed.lock().len() == 2).then_some(()) };
    until("both threads to follow", told).await;
    // A second address is a second node; the first keeps its name and what is known of it.
    resolved(&[origin.address(), "127.0.0.2:9".parse().unwrap()]);
    rig.until_state("app.invalid:13000#127.0.0.2", "down").await;
    assert_eq!(rig.node(name).await.state, "up");
}

#[tokio::test]
async fn the_end_reaches_every_thread_in_turn() {
    let rig = Rig::flags(unchecked(&["127.0.0.1:9"]));
    let address = rig.handle.addresses()[0].1.tcp().unwrap();
    rig.handle.drain();
    assert_eq!(rig.handle.not_ready().as_deref(), Some("draining"));
    assert!(std::net::TcpStream::connect(address).is_ok(), "not ready, yet accepting");
    rig.handle.finish(Duration::ZERO).await;
    assert_eq!(rig.threads.drained.load(SeqCst), 2);
    // No copy of a socket may be left with control: its queue would take connections for nobody.
    assert!(std::net::TcpStream::connect(address).is_err());
    rig.handle.stop();
    until("both stop", || async { (rig.threads.stopped.load(SeqCst) == 2).then_some(()) }).await;
    until("control ends", || async { rig.handle.status().await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn a_data_thread_that_dies_is_noticed() {
    let control = start(unchecked(&["127.0.0.1:9"]), ConfigSource::Flags, Metrics::new()).unwrap();
    drop(control.threads);
    control.handle.failed().await;
    control.handle.stop();
}

#[test]
fn a_listener_that_cannot_bind_keeps_it_from_starting() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = unchecked(&["127.0.0.1:9"]);
    config.listeners[0].bind = other.local_addr().unwrap().into();
    let error = start(config, ConfigSource::Flags, Metrics::new()).err().unwrap();
    assert!(error.to_string().starts_with("listener `public` cannot bind "), "{error}");
}
