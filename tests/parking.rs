//! Exchanges that come while no node can serve them: held, in order, bounded, and let go when one is back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cobalance::control::ConfigSource;
use cobalance::demo::node::{Journal, Pace, Phase, StandIn};
use cobalance::health::{HealthState, OperatorState, OutlierState};
use cobalance::server;
use cobalance::telemetry::metrics::{ParkMetrics, ParkOutcome};
use cobalance::upstream::parking::Kind;
use support::actor::{Act, Actor, Whole, entries};
use support::origin::{Origin, node, read_head};
use support::{Answer, PATIENCE, Proxy, config, until};

const COMMANDING: Act = Act::Refuse(503, "APP_COMMANDING", "upgrading");
/// Probes that soon tell.
const QUICK: &str = "[upstream.{name}.health_check]\ninterval = \"100ms\"\ntimeout = \"20s\"\n";
const GET: &str = "GET /api/posts:list HTTP/1.1\r\nHost: t\r\n\r\n";
const HANDSHAKE: &str =
    "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// One node that is down until a test says otherwise; `upstream` is more of its table. Who is parked stays so for
/// longer than any test takes, unless that says otherwise.
fn down(origin: &Origin, upstream: &str) -> Proxy {
    let mut table = upstream.to_owned();
    for key in ["park", "park_upgrades"] {
        if !upstream.contains(&format!("{key} = ")) {
            table.push_str(&format!("\n{key} = \"1h\""));
        }
    }
    let proxy = Proxy::start(config(&[origin.address], "", &table));
    proxy.node(0).set_health(HealthState::Down);
    proxy
}

fn send(proxy: &Proxy, request: &str) -> TcpStream {
    let mut stream = proxy.connect();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn post(n: usize, length: usize) -> String {
    let body = "x".repeat(length);
    format!(
        "POST /api/posts:create?{n} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// What is counted of requests, and of upgrades.
fn parked(proxy: &Proxy) -> &[ParkMetrics; 2] {
    &proxy.snapshot.upstreams[0].metrics.parked
}

fn until_parked(proxy: &Proxy, number: i64) {
    let now = || parked(proxy).iter().map(|kind| kind.now.get()).sum::<i64>();
    until(&format!("{number} are parked"), || now() == number);
}

fn outcomes(proxy: &Proxy, outcome: ParkOutcome) -> u64 {
    parked(proxy).iter().map(|kind| kind.outcomes[outcome as usize].get()).sum()
}

fn read(stream: &mut TcpStream) -> Answer {
    Answer::read(stream).expect("an answer")
}

fn assert_503(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("2")));
    assert!(answer.text().contains(code), "{}", answer.text());
}

#[test]
fn while_all_are_away_requests_wait_and_are_answered_in_order_and_once() {
    let actor = Actor::new("back", COMMANDING);
    // One at a time, so that the order in which they leave is the one in which they arrive.
    let more = format!("max_requests = 1\nqueue_timeout = \"1h\"\npark = \"1h\"\n{QUICK}");
    let whole = Whole::start("away", &entries(&[&actor]), &more);
    whole.until_state(0, "maintaining");
    let parked = || whole.status().upstreams[0].parked;
    let mut waiting = Vec::new();
    for n in 0..25 {
        let method = ["GET", "POST", "DELETE"][n % 3];
        waiting.push(whole.send(method, &format!("/api/posts:create?n={n}")));
        until("it waits as well", || parked() == n + 1);
    }
    assert_eq!(actor.requests(), 0);
    actor.health([Act::Ok("ok")]);
    for stream in &mut waiting {
        assert_eq!(read(stream).text(), "back");
    }
    assert_eq!(parked(), 0);
    let seen = actor.origin.seen();
    let order = seen.iter().filter_map(|seen| seen.head.split("?n=").nth(1)?.split(' ').next());
    let order: Vec<usize> = order.map(|n| n.parse().unwrap()).collect();
    assert_eq!(order, (0..25).collect::<Vec<_>>(), "each once, in the order in which they came");
}

#[test]
fn an_upgrade_waits_by_a_time_of_its_own() {
    let origin = node("x");
    let proxy = down(&origin, "park = \"0s\"");
    let mut tunnel = send(&proxy, HANDSHAKE);
    until_parked(&proxy, 1);
    assert_eq!(parked(&proxy)[1].now.get(), 1);
    // A request is not parked here.
    assert_503(&read(&mut send(&proxy, GET)), "DESTINATION_UNAVAILABLE");
    proxy.node(0).set_health(HealthState::Up);
    assert!(read_head(&mut tunnel).unwrap().starts_with("HTTP/1.1 101"));
    tunnel.write_all(b"\x81\x80abcd").unwrap();
    let mut echo = [0; 6];
    tunnel.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x80abcd");
    assert_eq!(outcomes(&proxy, ParkOutcome::Released), 1);
    let proxy = down(&origin, "park_upgrades = \"0s\"");
    assert_503(&read(&mut send(&proxy, HANDSHAKE)), "No node can serve");
    let mut request = send(&proxy, GET);
    until_parked(&proxy, 1);
    proxy.node(0).set_health(HealthState::Up);
    assert_eq!(read(&mut request).status, 200);
}

#[test]
fn when_the_time_is_over_the_client_is_told_to_come_back() {
    let origin = Origin::ok("no");
    let proxy = down(&origin, "park = \"100ms\"\npark_upgrades = \"200ms\"");
    let mut stream = proxy.connect();
    for n in 1..=2 {
        stream.write_all(GET.as_bytes()).unwrap();
        assert_503(&read(&mut stream), "PARKED_TIMEOUT");
        assert_eq!(outcomes(&proxy, ParkOutcome::Timeout), n, "the connection stays in use");
    }
    let mut upgrade = send(&proxy, &HANDSHAKE.replace("/ws", "/api/ws"));
    assert_503(&read(&mut upgrade), "PARKED_TIMEOUT");
    let waited = parked(&proxy).iter().map(|kind| kind.waited.get_sample_count()).sum::<u64>();
    assert_eq!((waited, origin.seen().len()), (3, 0));
    until_parked(&proxy, 0);
    // The deadline over all attempts counts meanwhile.
    let proxy = down(&origin, "deadline = \"100ms\"");
    let answer = read(&mut send(&proxy, GET));
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("DEADLINE_EXCEEDED"));
}

#[test]
fn a_full_lot_turns_away_at_once_and_who_leaves_makes_room() {
    let origin = Origin::ok("yes");
    let proxy = down(&origin, "park_limit = 2");
    let first = send(&proxy, GET);
    until_parked(&proxy, 1);
    let mut second = send(&proxy, GET);
    until_parked(&proxy, 2);
    assert_503(&read(&mut send(&proxy, GET)), "PARK_FULL");
    drop(first);
    until_parked(&proxy, 1);
    assert_eq!(outcomes(&proxy, ParkOutcome::Left), 1);
    // What it sends meanwhile is its next request.
    second.write_all(GET.as_bytes()).unwrap();
    let mut third = send(&proxy, GET);
    until_parked(&proxy, 2);
    proxy.node(0).set_health(HealthState::Up);
    for stream in [&mut second, &mut third] {
        assert_eq!(read(stream).text(), "yes");
    }
    assert_eq!(read(&mut second).text(), "yes");
    assert_eq!((origin.seen().len(), outcomes(&proxy, ParkOutcome::Full)), (3, 1));
}

#[test]
fn pages_that_come_back_take_no_place_and_no_time_of_requests() {
    const EACH: usize = 20;
    let origin = node("yes");
    let proxy = down(&origin, &format!("park_limit = {EACH}"));
    let pages: Vec<_> = (0..EACH).map(|_| send(&proxy, HANDSHAKE)).collect();
    until_parked(&proxy, EACH as i64);
    assert_503(&read(&mut send(&proxy, HANDSHAKE)), "No node can serve");
    let mut requests: Vec<_> = (0..EACH).map(|n| send(&proxy, &post(n, 10))).collect();
    until_parked(&proxy, 2 * EACH as i64);
    assert_503(&read(&mut send(&proxy, GET)), "PARK_FULL");
    let parking = &proxy.snapshot.upstreams[0].shared.parking;
    assert_eq!((parking.count(Kind::Request), parking.count(Kind::Upgrade)), (EACH, EACH));
    proxy.node(0).set_health(HealthState::Up);
    requests.iter_mut().for_each(|stream| assert_eq!(read(stream).status, 200));
    for mut page in pages {
        assert!(read_head(&mut page).unwrap().starts_with("HTTP/1.1 101"));
    }
    assert_eq!((parking.total(), parking.bytes()), (0, 0));
}

#[test]
fn what_is_parked_is_counted_by_what_it_holds() {
    let origin = Origin::ok("yes");
    let proxy = down(&origin, "park_bytes = \"1MiB\"");
    let full = || outcomes(&proxy, ParkOutcome::Full);
    let mut waiting = Vec::new();
    while full() == 0 {
        waiting.push(send(&proxy, GET));
        let number = waiting.len() as i64;
        until("parked or not", || full() == 1 || parked(&proxy)[0].now.get() == number);
    }
    assert_503(&read(&mut waiting.pop().unwrap()), "PARK_FULL");
    let parking = &proxy.snapshot.upstreams[0].shared.parking;
    assert!((100..=146).contains(&waiting.len()), "{}", waiting.len());
    assert!(parking.bytes() <= 1024 * 1024, "{}", parking.bytes());
    // What clients send beyond their requests finds no room: it stays with the kernel, and whoever leaves
    // is noticed all the same.
    let mut leaving = waiting.split_off(80);
    leaving.iter_mut().for_each(|stream| stream.write_all(GET.as_bytes()).unwrap());
    drop(leaving);
    until_parked(&proxy, 80);
    assert!(parking.bytes() < 80 * 12 * 1024, "{}", parking.bytes());
    proxy.node(0).set_health(HealthState::Up);
    waiting.iter_mut().for_each(|stream| assert_eq!(read(stream).text(), "yes"));
    until_parked(&proxy, 0);
    assert_eq!(parking.bytes(), 0);
}

#[test]
fn what_only_reads_decides_for_a_node_on_probation_whatever_waits_before_it() {
    const POSTS: usize = 100;
    let origin = Origin::ok("yes");
    let proxy = down(&origin, "");
    let mut posts: Vec<_> = (0..POSTS).map(|n| send(&proxy, &post(n, 10))).collect();
    until_parked(&proxy, POSTS as i64);
    let mut first = send(&proxy, GET);
    until_parked(&proxy, POSTS as i64 + 1);
    let mut second = send(&proxy, GET);
    until_parked(&proxy, POSTS as i64 + 2);
    proxy.node(0).set_outlier(OutlierState::Probation);
    proxy.node(0).set_health(HealthState::Up);
    assert_eq!(read(&mut first).text(), "yes");
    assert_eq!(origin.seen().len(), 1, "and nobody else goes there before the verdict");
    proxy.node(0).set_outlier(OutlierState::In);
    posts.iter_mut().for_each(|stream| assert_eq!(read(stream).text(), "yes"));
    assert_eq!(read(&mut second).text(), "yes");
}

#[test]
fn bodies_count_and_come_whole() {
    const BODY: usize = 60_000;
    let origin = Origin::ok("yes");
    let proxy = down(&origin, "park_bytes = \"1MiB\"");
    let mut waiting = Vec::new();
    let refused = loop {
        let mut stream = send(&proxy, &post(waiting.len(), BODY));
        let full = || outcomes(&proxy, ParkOutcome::Full) == 1;
        let number = waiting.len() as i64 + 1;
        until("parked or not", || full() || parked(&proxy)[0].now.get() == number);
        if full() {
            break read(&mut stream);
        }
        waiting.push(stream);
    };
    assert_503(&refused, "PARK_FULL");
    assert!((4..=1024 * 1024 / BODY).contains(&waiting.len()), "{}", waiting.len());
    proxy.node(0).set_health(HealthState::Up);
    waiting.iter_mut().for_each(|stream| assert_eq!(read(stream).text(), "yes"));
    let seen = origin.seen();
    assert_eq!(seen.len(), waiting.len());
    assert!(seen.iter().all(|seen| seen.body.len() == BODY));
}

#[test]
fn a_large_body_stays_with_the_client() {
    const LARGE: usize = 20_000_000;
    let origin = Origin::ok("yes");
    // Far less than the body fits.
    let proxy = down(&origin, "park_bytes = \"1MiB\"");
    let mut stream = proxy.connect();
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || writer.write_all(post(0, LARGE).as_bytes()));
    until_parked(&proxy, 1);
    proxy.node(0).set_health(HealthState::Up);
    assert_eq!(read(&mut stream).text(), "yes");
    sending.join().unwrap().unwrap();
    assert_eq!(origin.seen()[0].body.len(), LARGE);
}

#[test]
fn who_leaves_in_the_middle_of_a_large_body_leaves_the_line() {
    let origin = Origin::ok("no");
    let proxy = down(&origin, "park = \"1h\"");
    let mut stream = proxy.connect();
    let begun = &post(0, 20_000_000)[..100_000];
    stream.write_all(begun.as_bytes()).unwrap();
    until_parked(&proxy, 1);
    assert!(proxy.snapshot.upstreams[0].shared.parking.bytes() < 60_000, "it is left unread");
    drop(stream);
    until_parked(&proxy, 0);
    assert_eq!((outcomes(&proxy, ParkOutcome::Left), origin.seen().len()), (1, 0));
}

#[test]
fn what_ends_or_was_taken_out_is_not_waited_for() {
    let origin = Origin::ok("no");
    let proxy = down(&origin, "");
    let mut waiting = send(&proxy, GET);
    until_parked(&proxy, 1);
    proxy.drain(Duration::ZERO);
    let answer = read(&mut waiting);
    assert_503(&answer, "DESTINATION_UNAVAILABLE");
    assert_eq!(answer.field("connection"), Some("close"));
    let proxy = down(&origin, "");
    proxy.node(0).set_operator(OperatorState::Disabled);
    assert_503(&read(&mut send(&proxy, GET)), "DESTINATION_UNAVAILABLE");
}

#[test]
fn what_was_sent_is_not_parked() {
    let origin = Origin::scripted(|mut line| drop(line.request()));
    let proxy = Proxy::start(config(&[origin.address], "", "park = \"1h\""));
    for request in [GET.to_owned(), post(0, 10)] {
        let answer = read(&mut send(&proxy, &request));
        assert!(answer.status == 502, "{}", answer.text());
    }
}

#[test]
fn who_finds_everybody_gone_before_probes_say_so_waits_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let journal = Journal::default();
    let node = StandIn::new("a", &journal).unwrap();
    let start = || async {
        node.start(Pace::NONE).await;
        node.wait_for(|phase| *phase == Phase::Running).await;
    };
    runtime.block_on(start());
    // Probes hardly ever come by themselves.
    let slow = format!("park = \"1h\"\n{}", QUICK.replace("100ms", "1h"));
    let whole = Whole::start("gone", &[format!("\"{}\"", node.address())], &slow).until_up();
    runtime.block_on(node.kill());
    let create = r#"{"title":"once"}"#;
    let mut stream = whole.connect();
    write!(
        stream,
        "POST /api/posts:create HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{create}",
        create.len()
    )
    .unwrap();
    until("it waits", || whole.status().upstreams[0].parked == 1);
    runtime.block_on(start());
    assert_eq!(read(&mut stream).status, 200);
    assert_eq!(journal.lock().get("once"), Some(&1));
}

#[test]
fn a_reload_brings_what_is_parked_to_other_nodes() {
    let (gone, new) = (Actor::new("gone", COMMANDING), Actor::up("new"));
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("c.toml"), dir.path().join("access.log"));
    let text = |node: &Actor| {
        format!(
            "[server]\nthreads = 1\n[admin]\nenabled = false\n[access_log]\npath = \"{}\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.a]\nnodes = [\"{}\"]\npark = \"1h\"\n",
            log.display(),
            node.origin.address
        )
    };
    std::fs::write(&file, text(&gone)).unwrap();
    let config = support::parse(&text(&gone));
    let running = server::start(config, ConfigSource::File(file.clone())).unwrap();
    let address = running.address("public").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(post(7, 100).as_bytes()).unwrap();
    let parked = || running.handle().snapshot().upstreams[0].shared.parking.total();
    until("it waits", || parked() == 1);
    std::fs::write(&file, text(&new)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(running.handle().reload());
    assert_eq!(read(&mut stream).text(), "new");
    let seen = new.origin.seen();
    let posts: Vec<_> = seen.iter().filter(|seen| seen.head.starts_with("POST")).collect();
    assert_eq!((posts.len(), posts[0].body.len(), gone.requests()), (1, 100, 0));
    let line = || std::fs::read_to_string(&log).unwrap_or_default();
    until("its line", || line().ends_with('\n'));
    let line: serde_json::Value = serde_json::from_str(&line()).unwrap();
    assert!(line["parked_ms"].as_f64().unwrap() > 0.0, "{line}");
    assert_eq!((&line["status"], &line["upstream"]), (&200.into(), &"a".into()));
}

#[test]
fn a_reload_turns_nobody_away_who_is_parked() {
    const EACH: usize = 5;
    let node = Actor::new("back", COMMANDING);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let text = |limit: usize| {
        format!(
            "[server]\nthreads = 1\n[admin]\nenabled = false\n[access_log]\nenabled = false\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.a]\nnodes = [\"{}\"]\npark = \"1h\"\npark_limit = {limit}\n{}",
            node.origin.address,
            QUICK.replace("{name}", "a"),
        )
    };
    std::fs::write(&file, text(EACH)).unwrap();
    let config = support::parse(&text(EACH));
    let running = server::start(config, ConfigSource::File(file.clone())).unwrap();
    let address = running.address("public").unwrap();
    let connect = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(GET.as_bytes()).unwrap();
        stream
    };
    let snapshot = || running.handle().snapshot();
    let parked = || snapshot().upstreams[0].shared.parking.total();
    let mut waiting: Vec<TcpStream> = Vec::new();
    for n in 1..=EACH {
        waiting.push(connect());
        until("it waits", || parked() == n);
    }
    // There is less room than they take, and they stay all the same.
    std::fs::write(&file, text(1)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(running.handle().reload());
    assert_503(&read(&mut connect()), "PARK_FULL");
    assert_eq!((parked(), snapshot().upstreams[0].settings.park_limit), (EACH, 1));
    node.health([Act::Ok("ok")]);
    waiting.iter_mut().for_each(|stream| assert_eq!(read(stream).text(), "back"));
    until("all have left", || parked() == 0);
}

#[test]
fn a_reload_that_takes_the_route_of_what_is_parked_away_is_answered_and_logged() {
    // The route alone goes, then its upstream with it: there is nothing at their places.
    for keeps_upstream in [true, false] {
        let (good, gone) = (Actor::up("good"), Actor::new("gone", COMMANDING));
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("c.toml"), dir.path().join("access.log"));
        let address = |node: &Actor| node.origin.address;
        let head = format!(
            "[server]\nthreads = 1\n[admin]\nenabled = false\n[access_log]\npath = \"{}\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
             [upstream.a]\nnodes = [\"{}\"]\n\
             [[route]]\nname = \"one\"\nhost = \"a\"\nupstream = \"a\"\n",
            log.display(),
            address(&good)
        );
        let upstream = format!("[upstream.b]\nnodes = [\"{}\"]\npark = \"1h\"\n", address(&gone));
        let named = |name: &str, host: &str, upstream: &str| {
            format!("[[route]]\nname = \"{name}\"\nhost = \"{host}\"\nupstream = \"{upstream}\"\n")
        };
        let before = format!("{head}{}{upstream}", named("two", "b", "b"));
        let after = match keeps_upstream {
            true => format!("{}{upstream}", head.replace("upstream = \"a\"", "upstream = \"b\"")),
            false => head.clone(),
        };
        std::fs::write(&file, &before).unwrap();
        let config = support::parse(&before);
        let running = server::start(config, ConfigSource::File(file.clone())).unwrap();
        let mut stream = TcpStream::connect(running.address("public").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(post(7, 100).replace("Host: t", "Host: b").as_bytes()).unwrap();
        let parked = || running.handle().snapshot().upstreams[1].shared.parking.total();
        until("it waits", || parked() == 1);
        std::fs::write(&file, &after).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(running.handle().reload());
        assert_eq!(read(&mut stream).status, 404);
        let line = || std::fs::read_to_string(&log).unwrap_or_default();
        until("its line", || line().ends_with('\n'));
        let line: serde_json::Value = serde_json::from_str(&line()).unwrap();
        assert_eq!((&line["status"], &line["route"]), (&404.into(), &"none".into()), "{line}");
        assert_eq!(line["upstream"], serde_json::Value::Null, "{line}");
        assert_eq!(gone.requests(), 0);
    }
}
