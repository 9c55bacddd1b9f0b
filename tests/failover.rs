//! What is repeated at another node, and what never is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use cobalance::telemetry::metrics::{PoolEvent, RetryReason};
use cobalance::upstream::Signal;
use support::origin::Origin;
use support::ports::Closed;
use support::{Answer, Proxy, config, until};

const REFUSAL: &str =
    r#"{"error":{"status":503,"maintaining":true,"message":"m","code":"APP_COMMANDING"}}"#;

fn json(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ask(proxy: &Proxy, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = proxy.connect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    Answer::read(&mut stream).unwrap()
}

fn retries(proxy: &Proxy, reason: RetryReason) -> u64 {
    proxy.snapshot.upstreams[0].metrics.retries[reason as usize].get()
}

#[test]
fn what_was_not_sent_goes_elsewhere_whatever_its_method() {
    let (origin, dead) = (Origin::ok("ok"), [Closed::new(), Closed::new()]);
    let nodes = [dead[0].address, origin.address, dead[1].address];
    let proxy = Proxy::start(config(&nodes, "", "balance = \"round_robin\""));
    for n in 0..12 {
        let method = ["GET", "POST", "DELETE"][n % 3];
        assert_eq!(ask(&proxy, method, "/api/x:create", "body").status, 200);
    }
    assert_eq!(origin.seen().len(), 12, "each was run once");
    assert!(origin.seen().iter().all(|seen| seen.body == b"body"));
    assert!(retries(&proxy, RetryReason::Unsent) > 0);
}

#[test]
fn with_nobody_left_the_client_learns_why() {
    let dead = [Closed::new(), Closed::new()];
    let nodes = dead.each_ref().map(|node| node.address);
    let proxy = Proxy::start(config(&nodes, "", "park = \"0s\""));
    let answer = ask(&proxy, "GET", "/api/app:getInfo", "");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("CONNECTION_REFUSED"), "{}", answer.text());
    assert!(answer.text().contains(answer.field("x-request-id").unwrap()));
}

/// Reads a request, then closes without a byte.
fn closes_after_reading() -> Origin {
    Origin::scripted(|mut line| drop(line.request()))
}

#[test]
fn what_was_sent_is_repeated_only_if_that_is_safe() {
    let (bad, good) = (closes_after_reading(), Origin::ok("ok"));
    let proxy = Proxy::start(config(&[bad.address, good.address], "", "balance = \"round_robin\""));
    for path in ["/api/posts:list", "/api/posts:get?filterByTk=1"] {
        for method in ["GET", "POST"] {
            for _ in 0..2 {
                assert_eq!(ask(&proxy, method, path, "").status, 200, "{method} {path}");
            }
        }
    }
    let before = good.seen().len();
    let outcomes: Vec<u16> =
        (0..6).map(|_| ask(&proxy, "POST", "/api/posts:create", "once").status).collect();
    let created = |origin: &Origin| origin.seen().iter().filter(|s| s.body == b"once").count();
    assert_eq!(created(&bad) + created(&good), 6, "none was run twice");
    assert_eq!(
        outcomes.iter().filter(|status| **status == 200).count(),
        good.seen().len() - before
    );
    assert!(outcomes.contains(&502), "{outcomes:?}");
    // A GET that calls a writing action is as unsafe as a POST.
    let statuses: Vec<u16> =
        (0..4).map(|_| ask(&proxy, "GET", "/api/posts:destroy", "").status).collect();
    assert!(statuses.contains(&502), "{statuses:?}");
}

#[test]
fn a_proven_refusal_is_replayed_elsewhere_whatever_the_method() {
    let refusing = Origin::answering(json(503, REFUSAL));
    let good = Origin::ok("created");
    let mut proxy =
        Proxy::start(config(&[refusing.address, good.address], "", "balance = \"round_robin\""));
    for _ in 0..4 {
        assert_eq!(ask(&proxy, "POST", "/api/posts:create", "body").text(), "created");
    }
    assert_eq!(good.seen().len(), 4);
    assert!(good.seen().iter().all(|seen| seen.body == b"body"));
    assert!(!refusing.seen().is_empty());
    assert_eq!(retries(&proxy, RetryReason::Refused) as usize, refusing.seen().len());
    assert!(
        matches!(proxy.signals.try_recv(), Ok(Signal::ProbeNow(_))),
        "control is asked to look"
    );
    assert!(proxy.node(0).eligible(true), "a refusal alone changes no state");
}

#[test]
fn an_answer_of_the_application_is_never_replayed() {
    let plural = json(503, r#"{"errors":[{"message":"m","code":"APP_COMMANDING"}]}"#);
    let both = json(503, r#"{"error":{"maintaining":true,"code":"APP_COMMANDING"},"errors":[]}"#);
    let large = json(
        503,
        &format!(
            "{{\"error\":{{\"maintaining\":true,\"code\":\"X\",\"m\":\"{}\"}}}}",
            "x".repeat(5000)
        ),
    );
    let ok_status = json(200, REFUSAL);
    for answer in [plural, both, large, ok_status] {
        let first = Origin::answering(answer.clone());
        let second = Origin::ok("no");
        let proxy =
            Proxy::start(config(&[first.address, second.address], "", "balance = \"round_robin\""));
        let bodies: Vec<String> =
            (0..2).map(|_| ask(&proxy, "POST", "/api/a:b", "x").text()).collect();
        assert!(answer.ends_with(&bodies[0]) || answer.ends_with(&bodies[1]));
        assert_eq!(first.seen().len() + second.seen().len(), 2, "each ran once: {answer}");
    }
}

#[test]
fn when_all_refuse_the_client_gets_the_refusal() {
    let nodes = [Origin::answering(json(503, REFUSAL)), Origin::answering(json(503, REFUSAL))];
    let proxy = Proxy::start(config(&[nodes[0].address, nodes[1].address], "", ""));
    let answer = ask(&proxy, "POST", "/api/a:b", "x");
    assert_eq!((answer.status, answer.text().as_str()), (503, REFUSAL));
    assert_eq!(nodes.iter().map(|node| node.seen().len()).sum::<usize>(), 2, "each was asked once");
}

#[test]
fn strangers_who_name_apps_change_no_nodes_state() {
    let missing =
        r#"{"error":{"status":404,"maintaining":true,"message":"no","code":"APP_NOT_FOUND"}}"#;
    let answer = json(404, missing);
    let nodes: Vec<Origin> = (0..3).map(|_| Origin::answering(answer.clone())).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let proxy = Proxy::start(config(&addresses, "", ""));
    let mut stream = proxy.connect();
    for n in 0..300 {
        write!(
            stream,
            "GET /api/x:list?__appName=q{n} HTTP/1.1\r\nHost: h{n}\r\nX-App: a{n}\r\n\r\n"
        )
        .unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 404);
    }
    assert!((0..3).all(|n| proxy.node(n).eligible(false)));
}

#[test]
fn a_lost_race_repeats_a_get_and_never_a_post() {
    // Closes at the first byte of a second request on a connection, before answering it.
    let origin = Origin::scripted(|mut line| {
        line.request();
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let _ = std::io::Read::read(&mut line.stream, &mut [0]);
    });
    let proxy = Proxy::start(config(&[origin.address], "", "retries = 0"));
    let (mut lost, mut stream) = (0, proxy.connect());
    for n in 0..150 {
        let (method, path) =
            if n % 2 == 0 { ("GET", "/api/a:list") } else { ("POST", "/api/a:create") };
        write!(stream, "{method} {path}?n={n} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let status = Answer::read(&mut stream).unwrap().status;
        match (method, status) {
            (_, 200) => {}
            ("POST", 502) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost <= 2, "{lost} POSTs were lost");
    let posts = origin.seen().iter().filter(|seen| seen.head.starts_with("POST")).count();
    assert_eq!(posts, 75 - lost, "none was run twice");
    let races = proxy.node(0).metrics.pool_events[PoolEvent::StaleRace as usize].get();
    assert!(races > 0);
}

#[test]
fn a_large_body_is_streamed_and_not_repeated() {
    let (bad, good) = (closes_after_reading(), Origin::ok("ok"));
    let more = "balance = \"round_robin\"\nstream_within = \"0s\"";
    let proxy = Proxy::start(config(&[bad.address, good.address], "", more));
    let body = "x".repeat(300_000);
    let statuses: Vec<u16> =
        (0..2).map(|_| ask(&proxy, "POST", "/api/a:list", &body).status).collect();
    assert!(statuses.contains(&200) && statuses.contains(&502), "{statuses:?}");
}

#[test]
fn the_budget_bounds_repeats_of_what_was_sent() {
    let nodes = [closes_after_reading(), closes_after_reading()];
    let addresses = [nodes[0].address, nodes[1].address];
    let proxy = Proxy::start(config(&addresses, "", "outlier_detection = { enabled = false }"));
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(ask(&proxy, "GET", "/api/a:list", "").status, 502);
    }
    // A slow machine takes long enough for some more.
    let most = 200 / 5 + 60 + 3 * begun.elapsed().as_secs();
    let repeats = retries(&proxy, RetryReason::Reset);
    assert!((1..=most).contains(&repeats), "{repeats} repeats of 200");
}

#[test]
fn the_deadline_ends_all_attempts() {
    let silent = Origin::scripted(|mut line| {
        line.request();
        line.wait_closed();
    });
    let proxy = Proxy::start(config(&[silent.address], "", "deadline = \"200ms\""));
    let answer = ask(&proxy, "GET", "/api/a:list", "");
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("DEADLINE_EXCEEDED"));
}

#[test]
fn a_full_node_makes_requests_wait_and_a_full_queue_sheds() {
    let (open, wait) = support::origin::gate();
    let origin = Origin::scripted(move |mut line| {
        while line.request().is_some() {
            let _ = wait.lock().recv();
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start(config(&[origin.address], "", "max_requests = 1\nqueue = 1"));
    let send = || {
        let mut stream = proxy.connect();
        stream.write_all(b"GET /api/a:list HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        stream
    };
    let mut first = send();
    until("the first is at the node", || origin.seen().len() == 1);
    let mut second = send();
    let queue = &proxy.snapshot.upstreams[0].metrics.queue;
    until("the second waits", || queue.get() == 1);
    let mut third = send();
    let shed = Answer::read(&mut third).unwrap();
    assert_eq!((shed.status, shed.field("retry-after")), (503, Some("2")));
    assert!(shed.text().contains("QUEUE_FULL"));
    open.send(()).unwrap();
    assert_eq!(Answer::read(&mut first).unwrap().status, 200);
    open.send(()).unwrap();
    assert_eq!(Answer::read(&mut second).unwrap().status, 200);
    assert_eq!(queue.get(), 0);
}

#[test]
fn a_backup_is_used_when_no_primary_is_left() {
    let (primary, backup) = (Origin::ok("primary"), Origin::ok("backup"));
    let text = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         [upstream.u]\npark = \"0s\"\nnodes = [\"{}\", {{ address = \"{}\", backup = true }}]\n",
        primary.address, backup.address
    );
    let proxy = Proxy::start(support::parse(&text));
    assert_eq!(proxy.get("/").text(), "primary");
    proxy.node(0).set_health(cobalance::health::HealthState::Down);
    assert_eq!(proxy.get("/").text(), "backup");
    proxy.node(1).set_health(cobalance::health::HealthState::Down);
    assert_eq!(proxy.get("/").status, 503);
    proxy.node(0).set_fail_open(true);
    assert_eq!(proxy.get("/").text(), "primary", "fail open is for primary nodes");
}

#[test]
fn a_sticky_client_comes_back_to_its_node_and_the_app_sees_no_cookie() {
    let nodes: Vec<Origin> = (0..3).map(|n| Origin::ok(&n.to_string())).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let sticky = "balance = \"round_robin\"\nsticky = { secret = \"0123456789abcdef\" }";
    // Two replicas with the same secret.
    let replicas = [
        Proxy::start(config(&addresses, "", sticky)),
        Proxy::start(config(&addresses, "", sticky)),
    ];
    let first = replicas[0].get("/");
    let cookie = first.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for n in 0..9 {
        let mut stream = replicas[n % 2].connect();
        write!(stream, "GET / HTTP/1.1\r\nHost: t\r\nCookie: a=1; {cookie}\r\n\r\n").unwrap();
        let again = Answer::read(&mut stream).unwrap();
        assert_eq!(again.text(), first.text());
        assert_eq!(again.field("set-cookie"), None);
    }
    let node = &nodes[first.text().parse::<usize>().unwrap()];
    assert!(node.seen().iter().all(|seen| !seen.head.contains("cobalance_node")));
    assert!(node.seen().last().unwrap().head.contains("Cookie: a=1\r\n"));
}
