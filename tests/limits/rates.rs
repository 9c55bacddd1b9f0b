//! How often a client may do what.

use std::io::Write;
use std::time::Instant;

use crate::support::actor::{Actor, Whole, entry};
use crate::support::origin::Origin;
use crate::support::{Answer, Proxy, config, until};
use crate::{ask, behind_proxy, counter, errors};

const SIGN_IN: &str =
    "[[rate_limit]]\nname = \"sign-in\"\nactions = { \"auth:signIn\" = \"3/h\" }\n";

#[test]
fn an_action_has_its_rate_however_it_is_spelled() {
    let origin = Origin::ok("in");
    let proxy = Proxy::start(config(&[origin.address], "", SIGN_IN));
    let mut stream = proxy.connect();
    let mut post = |target: &str| {
        let head = format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(head.as_bytes()).unwrap();
        Answer::read(&mut stream).expect("an answer")
    };
    for target in ["/api/auth:signIn", "/api/auth:signIn/", "/api/__app/crm/auth:signIn?x=1"] {
        assert_eq!(post(target).status, 200, "{target}");
    }
    for target in
        ["/api/auth:signIn", "/api/auth%3AsignIn", "//api/auth:signIn:x", "/api/x/1/auth:signIn"]
    {
        // Refused before its body is read: the connection ends with the answer.
        let answer = post_once(&proxy, target);
        assert_eq!(answer.status, 429, "{target}");
    }
    assert_eq!(post("/api/users:list").status, 200, "others are not counted");
    assert_eq!(origin.seen().len(), 4);
    until("all are counted", || errors(&proxy, "rate_limited") == 4);
    assert_eq!(counter(&proxy, "cobalance_rate_limited_total", "sign-in"), 4.0);
}

fn post_once(proxy: &Proxy, target: &str) -> Answer {
    let mut stream = proxy.connect();
    let head = format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{{}}");
    stream.write_all(head.as_bytes()).unwrap();
    Answer::read(&mut stream).expect("an answer")
}

#[test]
fn the_answer_says_when_in_words_for_people_and_programs() {
    let origin = Origin::ok("in");
    let proxy = Proxy::start(config(&[origin.address], "", SIGN_IN));
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(post_once(&proxy, "/api/auth:signIn").status, 200);
    }
    let answer = post_once(&proxy, "/api/auth:signIn");
    assert_eq!(answer.status, 429);
    let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    // As much less as the test itself has taken since.
    assert!((1199 - begun.elapsed().as_secs()..=1200).contains(&after), "{after}");
    assert_eq!(answer.field("ratelimit-policy"), Some("\"sign-in\";q=3;w=3600"));
    assert_eq!(answer.field("ratelimit"), Some(&*format!("\"sign-in\";r=0;t={after}")));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["error"]["code"], "RATE_LIMITED");
    assert_eq!(
        (&json["error"]["status"], &json["error"]["maintaining"]),
        (&429.into(), &false.into())
    );
    let text = json["error"]["message"].as_str().unwrap();
    assert!(text.contains(&format!("{after} s")), "{text}");
}

#[test]
fn each_client_has_its_own_count_and_a_64_is_one() {
    let origin = Origin::ok("hi");
    let limit = "[[rate_limit]]\nname = \"all\"\nrate = \"1/h burst 2\"\n";
    let proxy = behind_proxy(&origin, "", limit);
    let mut stream = proxy.connect();
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("::ffff:192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1::2", 200),
        ("2001:db8:0:1:ffff::3", 429),
        ("2001:db8:0:2::1", 200),
    ] {
        assert_eq!(ask(&mut stream, client, "GET /", "").status, status, "{client}");
    }
}

#[test]
fn a_field_tells_clients_apart_and_who_has_none_counts_by_address() {
    let origin = Origin::ok("hi");
    let limit = "[[rate_limit]]\nname = \"keys\"\nby = \"header:X-Api-Key\"\nrate = \"1/h\"\n";
    let proxy = behind_proxy(&origin, "", limit);
    let mut stream = proxy.connect();
    for (client, field, status) in [
        ("192.0.2.1", "X-Api-Key: a\r\n", 200),
        ("192.0.2.2", "x-api-key: a\r\n", 429),
        ("192.0.2.2", "X-Api-Key: b\r\n", 200),
        ("192.0.2.3", "", 200),
        ("192.0.2.3", "", 429),
        ("192.0.2.4", "", 200),
    ] {
        assert_eq!(ask(&mut stream, client, "GET /", field).status, status, "{client} {field}");
    }
}

#[test]
fn a_limit_may_be_of_one_route_only() {
    let origin = Origin::ok("hi");
    let more = "[[route]]\nname = \"api\"\npath = \"/api/*\"\nupstream = \"u\"\n\
        [[route]]\nname = \"rest\"\nupstream = \"u\"\n\
        [[rate_limit]]\nname = \"x\"\nroute = \"api\"\nrate = \"1/h\"\n\
        [[rate_limit]]\nname = \"y\"\nupstream = \"u\"\nrate = \"3/h\"\n";
    let proxy = behind_proxy(&origin, "", more);
    let mut stream = proxy.connect();
    let mut status = |path: &str| ask(&mut stream, "192.0.2.1", &format!("GET {path}"), "").status;
    assert_eq!(["/api/a", "/api/b", "/", "/", "/"].map(&mut status), [200, 429, 200, 200, 429]);
}

#[test]
fn every_data_thread_counts_the_same() {
    let origin = Origin::ok("hi");
    let mut config = config(
        &[origin.address],
        "trusted_proxies = [\"127.0.0.1\"]",
        "[[rate_limit]]\nname = \"all\"\nrate = \"5/h\"\n",
    );
    config.server.threads = 3;
    let proxy = Proxy::start(config);
    let passed =
        (0..24).filter(|_| ask(&mut proxy.connect(), "192.0.2.1", "GET /", "").status == 200);
    assert_eq!(passed.count(), 5);
}

#[test]
fn a_websocket_is_a_request_like_any_other() {
    let origin = crate::support::origin::node("hi");
    let limit = "[[rate_limit]]\nname = \"all\"\nrate = \"1/h\"\n";
    let proxy = Proxy::start(config(&[origin.address], "", limit));
    assert!(crate::shares::open(&proxy).is_ok());
    assert_eq!(crate::shares::open(&proxy).unwrap_err().status, 429);
}

#[test]
fn what_was_counted_goes_on_over_a_reload() {
    let node = Actor::up("n");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cobalance.toml");
    let write = |rate: &str, more: &str| {
        let text = format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n{more}\
             [upstream.app]\nnodes = [{}]\n[[rate_limit]]\nname = \"all\"\nrate = \"{rate}\"\n",
            entry(&node, "")
        );
        std::fs::write(&file, &text).unwrap();
        text
    };
    let config = crate::support::parse(&write("2/h", ""));
    let source = cobalance::control::ConfigSource::File(file.clone());
    let running = cobalance::server::start(config, source).unwrap();
    let whole = Whole { running, upstream: "app" }.until_up();
    let statuses = |n: usize| (0..n).map(|_| whole.get().status).collect::<Vec<_>>();
    assert_eq!(statuses(3), [200, 200, 429]);
    let reload = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(whole.running.handle().reload());
    };
    write("2/h", "max_requests = 500\n");
    reload();
    assert_eq!(statuses(1), [429], "the same rate");
    write("3/h", "max_requests = 500\n");
    reload();
    assert_eq!(statuses(4), [200, 200, 200, 429], "another one begins anew");
}
