//! What a stranger cannot do.

use std::io::Write;
use std::net::TcpStream;

use crate::QUICK;
use crate::support::actor::{Act, Actor, Whole, entries};
use crate::support::{Answer, origin};

const NOT_FOUND: Act = Act::Refuse(404, "APP_NOT_FOUND", "app not found");
const INITIALIZING: Act = Act::Refuse(503, "APP_INITIALIZING", "app initializing");

/// A request for an app that does not exist, named in one of three ways.
fn strange(rng: &mut fastrand::Rng, method: &str) -> String {
    let app: String = (0..rng.usize(1..12)).map(|_| rng.alphanumeric()).collect();
    let (target, host, field) = match rng.u8(0..3) {
        0 => ("/api/posts:list".into(), "test".into(), format!("X-App: {app}\r\n")),
        1 => (format!("/api/posts:list?__appName={app}"), "test".into(), String::new()),
        _ => ("/api/posts:list".into(), format!("{app}.example.com"), String::new()),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n")
}

/// Sends one and reads its status, on the connection that is there.
fn send(stream: &mut TcpStream, whole: &Whole, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    let (status, closes) = match request.starts_with("HEAD ") {
        true => {
            let head = origin::read_head(stream).expect("a head");
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, origin::field(&head, "connection") == Some("close"))
        }
        false => {
            let answer = Answer::read(stream).expect("an answer");
            (answer.status, answer.field("connection") == Some("close"))
        }
    };
    if closes {
        *stream = whole.connect();
    }
    status
}

#[test]
fn a_thousand_requests_for_apps_that_do_not_exist_change_no_node() {
    // Outlier detection is on here: it must not be misled either.
    let quick = QUICK.split("[upstream.{name}.outlier_detection]").next().unwrap();
    let nodes = [Actor::up("a"), Actor::up("b"), Actor::up("c")];
    let whole = Whole::start("strangers", &entries(&nodes.each_ref()), quick).until_up();
    let shown = || {
        let nodes = whole.status().upstreams[0].nodes.clone();
        nodes.into_iter().map(|n| (n.state, n.health, n.outlier, n.since)).collect::<Vec<_>>()
    };
    let before = (shown(), whole.all_changes());
    let mut rng = fastrand::Rng::with_seed(7);
    let mut stream = whole.connect();
    for (act, status) in [(NOT_FOUND, 404), (INITIALIZING, 503)] {
        nodes.iter().for_each(|node| node.traffic([act.clone()]));
        for n in 0..500 {
            let method = if n % 5 == 4 { "HEAD" } else { "GET" };
            let request = strange(&mut rng, method);
            assert_eq!(send(&mut stream, &whole, &request), status, "{request}");
        }
    }
    let asked: usize = nodes.iter().map(Actor::requests).sum();
    assert!(asked > 2_000, "each GET went to all three before its refusal was passed on: {asked}");
    // Probes that were asked for meanwhile have said what they had to say.
    let probed = nodes.each_ref().map(Actor::probes);
    let more = || nodes.iter().zip(probed).all(|(node, before)| node.probes() > before + 1);
    crate::support::until("later probes", more);
    assert_eq!((shown(), whole.all_changes()), before);
    // And everybody else is served, by all of them.
    for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
        node.traffic([Act::Ok(name)]);
    }
    let mut served: Vec<String> = (0..9).map(|_| whole.get().text()).collect();
    served.sort();
    served.dedup();
    assert_eq!(served, ["a", "b", "c"]);
}
