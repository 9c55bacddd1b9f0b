//! A table of broken answers and what a client gets of each: 502, a cut, or the answer in normal form; and
//! in every case the next exchange gets its own answer and nothing of the broken one.
#![allow(clippy::unwrap_used)]

mod support;

#[path = "answers/over_http2.rs"]
mod over_http2;
#[path = "answers/table.rs"]
mod table;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::origin::{self, Origin};
use support::{Answer, Proxy, config, until};
use table::{End, Row, Verdict};

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const BROKEN: &str = "EVIL";

/// Breaks the first exchange of its first connection, and answers all others well.
struct Node {
    origin: Origin,
    open: std::sync::mpsc::Sender<()>,
    closed: Arc<AtomicBool>,
}

impl Node {
    fn start(first: Vec<u8>, then: Vec<u8>, end: End) -> Node {
        let (open, wait) = origin::gate();
        let closed = Arc::new(AtomicBool::new(false));
        let told = closed.clone();
        let origin = Origin::scripted(move |mut line| {
            if line.number == 0 {
                line.request();
                line.send(&first);
                if !then.is_empty() {
                    // The rest is sent only when the client has seen the beginning.
                    let _ = wait.lock().recv();
                    line.send(&then);
                }
                match end {
                    End::Waits => {}
                    End::Closes => return,
                    End::Resets => {
                        let socket = socket2::SockRef::from(&line.stream);
                        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                        return;
                    }
                }
            }
            while line.request().is_some() {
                line.send(GOOD);
            }
            if line.number == 0 {
                told.store(true, Ordering::SeqCst);
            }
        });
        Node { origin, open, closed }
    }

    fn proxy(&self) -> Proxy {
        let upstream = "preset = \"none\"\nretries = 0\nresponse_timeout = \"15s\"";
        Proxy::start(config(&[self.origin.address], "", upstream))
    }
}

#[test]
fn each_answer_gets_its_verdict_and_the_next_exchange_is_clean() {
    let wrong: Vec<String> = table::rows().into_iter().filter_map(|row| judge(row).err()).collect();
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
}

fn judge(row: Row) -> Result<(), String> {
    let Row { name, method, first, then, end, verdict } = row;
    let two_parts = !then.is_empty();
    let node = Node::start(first, then, end);
    let proxy = node.proxy();
    let mut stream = proxy.connect();
    stream.write_all(request(method, true).as_bytes()).unwrap();
    let mut all = String::new();
    if two_parts {
        all.push_str(&origin::read_head(&mut stream).ok_or(format!("{name}: no head"))?);
        node.open.send(()).unwrap();
    }
    all.push_str(&support::read_to_end(&mut stream));
    let all = normal(&all);
    verdict.holds(&all, method).map_err(|what| format!("{name}: {what}: {all:?}"))?;
    if !matches!(verdict, Verdict::Kept(_)) && end == End::Waits {
        until(&format!("{name}: the node's connection is closed"), || {
            node.closed.load(Ordering::SeqCst)
        });
    }
    for _ in 0..2 {
        let after = proxy.get("/after");
        if (after.status, after.text().as_str()) != (200, "good") {
            return Err(format!("{name}: the next got {after:?}"));
        }
    }
    let connections = node.origin.connections();
    match (&verdict, connections) {
        (Verdict::Kept(_), 1) | (Verdict::Refused | Verdict::Cut | Verdict::Passed(_), 2) => Ok(()),
        _ => Err(format!("{name}: {connections} connections")),
    }
}

fn request(method: &str, last: bool) -> String {
    let close = if last { "Connection: close\r\n" } else { "" };
    match method {
        "WS" => format!(
            "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\n{close}Upgrade: websocket\r\n\r\n"
        ),
        method => format!("{method} /broken HTTP/1.1\r\nHost: t\r\n{close}\r\n"),
    }
}

/// An answer that may be NocoBase's refusal is read before it is passed on.
#[test]
fn what_breaks_off_within_what_may_be_a_refusal_is_no_answer() {
    for length in ["", "Content-Length: 40\r\n"] {
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n{length}\r\n"
        );
        let first = format!("{head}{{\"error\":{{\"message\":\"{BROKEN}").into_bytes();
        let node = Node::start(first, Vec::new(), End::Resets);
        let proxy = Proxy::start(config(&[node.origin.address], "", "retries = 0"));
        let answer = proxy.get("/api/posts:list");
        assert_eq!(answer.status, 502, "{length}: {answer:?}");
        assert!(!answer.text().contains(BROKEN), "{}", answer.text());
        let after = proxy.get("/after");
        assert_eq!((after.status, after.text().as_str()), (200, "good"));
    }
}

/// The same answers to a client that sends its next request at once, on the same connection.
#[test]
fn what_follows_a_broken_answer_on_the_same_connection_is_its_own() {
    let wrong: Vec<String> =
        table::rows().into_iter().filter_map(|row| follow(row).err()).collect();
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
}

fn follow(row: Row) -> Result<(), String> {
    let Row { name, method, first, then, end, verdict } = row;
    let two_parts = !then.is_empty();
    let node = Node::start(first, then, end);
    let proxy = node.proxy();
    let mut stream = proxy.connect();
    let next = "GET /after HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    write!(stream, "{}{next}", request(method, false)).unwrap();
    let mut all = String::new();
    if two_parts {
        all.push_str(&origin::read_head(&mut stream).ok_or(format!("{name}: no head"))?);
        node.open.send(()).unwrap();
    }
    all.push_str(&support::read_to_end(&mut stream));
    let own =
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\ngood";
    let all = normal(&all);
    let Some(broken) = all.strip_suffix(own) else {
        // After a cut nothing can follow; else there is an answer for each.
        return match verdict {
            Verdict::Cut => Ok(()),
            _ => Err(format!("{name}: the next was not answered: {all:?}")),
        };
    };
    match verdict {
        Verdict::Cut => Err(format!("{name}: something follows a cut: {all:?}")),
        Verdict::Refused if broken.contains(BROKEN) || !broken.contains("HTTP/1.1 502 ") => {
            Err(format!("{name}: no 502 of ours: {all:?}"))
        }
        Verdict::Refused => Ok(()),
        Verdict::Passed(expected) | Verdict::Kept(expected) => {
            match broken == expected.replacen("Connection: close\r\n", "", 1) {
                true => Ok(()),
                false => Err(format!("{name}: another form: {all:?}")),
            }
        }
    }
}

impl Verdict {
    fn holds(&self, all: &str, method: &str) -> Result<(), &'static str> {
        match self {
            Verdict::Refused => {
                let last = last_answer(all);
                let id = origin::field(last, "x-request-id");
                let ours = last.contains("Content-Type: text/html; charset=utf-8\r\n");
                match last.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && ours && id.is_some() {
                    true if all.contains(BROKEN) => Err("something of the answer got through"),
                    true => Ok(()),
                    false => Err("no 502 of ours"),
                }
            }
            Verdict::Cut => {
                let mut rest = all.as_bytes();
                let head = origin::read_head(&mut rest).ok_or("no head")?;
                let framed = head.contains("Content-Length: ") || head.contains("chunked\r\n");
                let whole = origin::read_body(&mut rest, &head, true).is_some();
                match framed && !whole && head.starts_with("HTTP/1.1 200 ") && method != "HEAD" {
                    true => Ok(()),
                    false => Err("the client cannot see that it was cut"),
                }
            }
            Verdict::Passed(expected) | Verdict::Kept(expected) => match all == *expected {
                true => Ok(()),
                false => Err("another form"),
            },
        }
    }
}

/// What follows the interim answers.
fn last_answer(all: &str) -> &str {
    let mut rest = all;
    while rest.starts_with("HTTP/1.1 1") {
        rest = rest.split_once("\r\n\r\n").unwrap().1;
    }
    rest
}

/// With the IDs of requests made equal.
fn normal(all: &str) -> String {
    let mut parts = all.split("X-Request-Id: ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("X-Request-Id: ID");
        out.push_str(&part[part.find("\r\n").unwrap()..]);
    }
    out
}

#[test]
fn the_table_is_large_and_its_names_unique() {
    let mut names: Vec<&str> = table::rows().iter().map(|row| row.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a name twice");
    assert!(all >= 150, "{all}");
}

/// What a node says on a kept connection while nobody has asked.
#[test]
fn bytes_on_an_idle_connection_answer_nothing() {
    for stray in [
        &b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\nEVIL"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
        b"EVIL",
        b"\r\n",
        b"H",
        b"",
    ] {
        let (sent, wait) = origin::gate();
        let (open, opened) = origin::gate();
        let stray = stray.to_vec();
        let origin = Origin::scripted(move |mut line| {
            while line.request().is_some() {
                line.send(GOOD);
                if line.number == 0 {
                    let _ = opened.lock().recv();
                    line.send(&stray);
                    if stray.is_empty() {
                        let _ = line.stream.shutdown(std::net::Shutdown::Both);
                    }
                    sent.send(()).unwrap();
                }
            }
        });
        let proxy = Proxy::to(&origin);
        assert_eq!(proxy.get("/1").text(), "good");
        until("the connection is kept", || proxy.node(0).connections() == (1, 0));
        open.send(()).unwrap();
        wait.lock().recv().unwrap();
        let answer = proxy.get("/2");
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        assert_eq!(origin.connections(), 2, "the connection was not used again");
    }
}

#[test]
fn a_reset_before_a_byte_is_502_for_what_must_not_be_repeated() {
    let origin = Origin::scripted(|mut line| {
        line.request();
        if line.number == 0 {
            let socket = socket2::SockRef::from(&line.stream);
            socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            return;
        }
        line.send(GOOD);
    });
    let proxy = Proxy::to(&origin);
    let all =
        proxy.raw(b"POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
    assert!(all.starts_with("HTTP/1.1 502 "), "{all}");
    assert_eq!(proxy.get("/after").text(), "good");
    assert_eq!(origin.seen().len(), 2, "sent once, and not again");
}

#[test]
fn an_http_1_0_client_sees_that_an_answer_was_cut() {
    let (open, wait) = origin::gate();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        let _ = wait.lock().recv();
    });
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n").unwrap();
    origin::read_head(&mut stream).unwrap();
    let mut data = [0; 3];
    stream.read_exact(&mut data).unwrap();
    open.send(()).unwrap();
    // The end of the stream would be the end of a whole answer.
    let end = stream.read(&mut data);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_answer_before_the_body_ends_closes_both_sides() {
    let origin = Origin::scripted(|mut line| {
        if origin::read_head(&mut line.stream).is_some() {
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
            line.wait_closed();
        }
    });
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nabc").unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("good", Some("close")));
    assert_eq!(proxy.get("/after").text(), "good");
    assert_eq!(origin.connections(), 2, "half a request is on the first");
}
