//! An administrator's own work: the pages of that session see what comes of it.

use std::io::{Read, Write};

use cobalance::health::HealthState;
use cobalance::telemetry::metrics::DialogOutcome;

use super::pages::{Page, RESTART, Speaker, message};
use super::support::origin::Origin;
use super::support::{Answer, Proxy, config, until};
use super::{CLOSING, STOPPED, outcomes, proxy};

/// A token as NocoBase makes it, of user 1, issued at a time of its own.
fn token(issued: char) -> String {
    let payload = match issued {
        'a' => "eyJ1c2VySWQiOjEsImlhdCI6MSwic2lnbkluVGltZSI6N30",
        _ => "eyJ1c2VySWQiOjEsImlhdCI6Miwic2lnbkluVGltZSI6N30",
    };
    format!("eyJhbGciOiJIUzI1NiJ9.{payload}.{issued}")
}

fn post(proxy: &Proxy, target: &str, more: &str) {
    let mut stream = proxy.connect();
    write!(stream, "POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n{more}\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
}

#[test]
fn its_pages_keep_their_frames_and_the_others_are_moved() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    proxy.node(1).set_health(HealthState::Down);
    // Its token has been renewed since the page was opened.
    let mut own = Page::open(proxy.address, &token('a'));
    let mut other = Page::open(proxy.address, "another");
    a.until_open(2);
    proxy.node(1).set_health(HealthState::Up);
    let bearer = format!("Authorization: Bearer {}\r\n", token('b'));
    post(&proxy, "/api/pm:enable?filterByTk=x", &bearer);
    let loading = STOPPED.replace("APP_STOPPED", "APP_COMMANDING");
    a.say(&loading);
    own.reads(&message(&loading));
    assert_eq!(other.rest(), RESTART);
    let (withheld, at_work) = (DialogOutcome::Withheld as usize, DialogOutcome::AtWork as usize);
    assert_eq!((outcomes(&proxy, 0)[withheld], outcomes(&proxy, 0)[at_work]), (1, 1));
    // Nor is it moved when control hears of that.
    proxy.node(0).set_health(HealthState::Maintaining);
    proxy.node(0).set_not_serving();
    let mut third = Page::open(proxy.address, "third");
    b.until_open(1);
    let running = r#"{"type":"maintaining","payload":{"code":"APP_RUNNING","refresh":true}}"#;
    a.say(running);
    own.reads(&message(running));
    // If its process ends with it after all, the page is told of the end.
    a.say(STOPPED);
    own.reads(&message(STOPPED));
    a.end();
    assert!(own.rest().is_empty());
    Page::open(proxy.address, &token('a')).reads(&message(CLOSING));
    assert!(third.is_silent());
}

#[test]
fn without_a_session_its_address_counts() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "");
    a.until_open(1);
    post(&proxy, "/api/app:restart", "Authorization: Bearer x\r\n");
    a.say(STOPPED);
    page.reads(&message(STOPPED));
}

#[test]
fn what_only_reads_is_no_work() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    for target in ["/api/pm:list", "/api/app:getInfo", "/api/backups:taskStatus"] {
        post(&proxy, target, "Cookie: nb_auth_token_main=one\r\n");
    }
    // Of a session that is known nobody else at its address is.
    post(&proxy, "/api/pm:enable", "Cookie: nb_auth_token_main=two\r\n");
    a.say(STOPPED);
    assert_eq!(page.rest(), RESTART);
    until("it is gone", || proxy.node(0).tunnels() == 0);
}

#[test]
fn what_was_accepted_is_work_though_its_answer_breaks_off() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf";
    // It is its end that breaks the answer off, not somebody's patience.
    let breaking = Origin::answering_once(cut);
    let proxy = Proxy::start(config(&[breaking.address], "", ""));
    let quiet = &proxy.snapshot.upstreams[0].shared.quiet;
    let mut stream = proxy.connect();
    let head = "POST /api/app:restart HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut got = Vec::new();
    // Cut, so that nobody takes the half for the whole.
    let _ = stream.read_to_end(&mut got);
    assert!(got.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&got));
    assert_eq!(quiet.at_work(), 1);
    assert_eq!(quiet.remembered(cobalance::clock::now_ns()), 0, "nobody is owed anything");
    assert_eq!(quiet.at_work(), 1, "for a minute");
}

#[test]
fn what_a_node_did_not_accept_is_no_work() {
    let refusing = Origin::answering("HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(config(&[refusing.address], "", ""));
    let quiet = &proxy.snapshot.upstreams[0].shared.quiet;
    for n in 0..10 {
        let mut stream = proxy.connect();
        write!(
            stream,
            "POST /api/app:restart HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\
             Authorization: Bearer {n}\r\n\r\n"
        )
        .unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 401);
        until("it is forgotten", || quiet.at_work() == 0);
    }
    assert_eq!(refusing.seen().len(), 10);
}
