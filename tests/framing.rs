//! A table of raw requests and what becomes of each: refused in our own error shape before a node hears of
//! it, or passed on in one normal form, byte for byte.
#![allow(clippy::unwrap_used)]

mod support;

#[path = "framing/only_http2.rs"]
mod only_http2;
#[path = "framing/over_http2.rs"]
mod over_http2;
#[path = "framing/passed.rs"]
mod passed;
#[path = "../fuzz/src/reference.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)] // the fuzz targets read answers by it as well
mod reference;
#[path = "framing/refused.rs"]
mod refused;
#[path = "framing/said.rs"]
mod said;

use std::io::{Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use support::origin::{self, Origin};
use support::{Answer, Proxy, config, until};

/// Follows every request of the tables on the same connection.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
/// Small bounds, so that a table can cross them.
const BOUNDS: &str = "max_head = \"4KiB\"\nmax_fields = 20\nmax_body = \"32B\"";

/// An origin that keeps every byte it was sent.
struct Recording {
    origin: Origin,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Recording {
    fn start() -> Recording {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = bytes.clone();
        let origin = Origin::scripted(move |line| {
            let mut reader = Tee { from: line.stream.try_clone().unwrap(), to: kept.clone() };
            let mut writer = line.stream;
            while let Some(head) = origin::read_head(&mut reader) {
                if origin::field(&head, "expect").is_some() {
                    let _ = writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                if origin::read_body(&mut reader, &head, false).is_none() {
                    return;
                }
                let body = if head.starts_with("HEAD ") { "" } else { "ok" };
                let _ = write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
            }
        });
        Recording { origin, bytes }
    }

    /// What came since the last call, with the IDs of requests made equal.
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.bytes.lock());
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let mut parts = text.split("X-Request-Id: ");
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out.push_str("X-Request-Id: ID");
            out.push_str(&part[part.find("\r\n").unwrap()..]);
        }
        out
    }
}

/// Copies what is read through it.
struct Tee<R> {
    from: R,
    to: Arc<Mutex<Vec<u8>>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(into)?;
        self.to.lock().extend_from_slice(&into[..n]);
        Ok(n)
    }
}

/// A counter's value; 0 before it was first counted.
fn counter(proxy: &Proxy, name: &str, label: (&str, &str)) -> u64 {
    let families = proxy.metrics.registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let matching = metrics
        .iter()
        .filter(|metric| metric.get_label().iter().any(|l| (l.name(), l.value()) == label));
    matching.map(|metric| metric.get_counter().get_value() as u64).sum()
}

#[test]
fn refused_requests_reach_no_node_and_end_their_connection() {
    let recording = Recording::start();
    let proxy = Proxy::start(config(&[recording.origin.address], BOUNDS, "preset = \"none\""));
    let judged = refused::table().into_iter().map(|row| refused(&recording, &proxy, row));
    let wrong: Vec<String> = judged.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
}

fn refused(recording: &Recording, proxy: &Proxy, row: refused::Row) -> Result<(), String> {
    let (name, raw, status, reason) = row;
    let code = status.to_string();
    let count = || {
        let requests = counter(proxy, "cobalance_requests_total", ("code", &code));
        (requests, counter(proxy, "cobalance_errors_total", ("reason", reason)))
    };
    let before = count();
    let all = proxy.raw(&[&raw[..], NEXT].concat());
    let mut rest = all.as_bytes();
    let answer = read_answer(&mut rest).ok_or(format!("{name}: no answer in {all:?}"))?;
    let kind = answer.field("content-type").unwrap_or_default();
    let id = answer.field("x-request-id").unwrap_or("no ID at all");
    let after = (before.0 + 1, before.1 + 1);
    let facts = [
        (answer.status == status, "another status"),
        (rest.is_empty(), "more than one answer"),
        (answer.field("connection") == Some("close"), "it does not say that it closes"),
        (kind == "text/html; charset=utf-8", "another shape"),
        (answer.text().contains(id), "the body does not name the request"),
        (recording.take().is_empty(), "a node heard of it"),
    ];
    if let Some((_, what)) = facts.iter().find(|(holds, _)| !holds) {
        return Err(format!("{name}: {what}: {all:?}"));
    }
    until(&format!("{name} was counted as {code} {reason}"), || count() == after);
    Ok(())
}

#[test]
fn passed_requests_arrive_in_normal_form() {
    let recording = Recording::start();
    let proxy = Proxy::start(config(&[recording.origin.address], BOUNDS, "preset = \"none\""));
    let judged = passed::table().into_iter().map(|row| passed(&recording, &proxy, row));
    let wrong: Vec<String> = judged.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
}

fn passed(recording: &Recording, proxy: &Proxy, row: passed::Row) -> Result<(), String> {
    let (name, raw, expected, keeps) = row;
    let all = proxy.raw(&[&raw[..], NEXT].concat());
    let mut wanted = with_forwarding(&expected);
    if keeps {
        wanted += &with_forwarding("GET /next HTTP/1.1\r\nHost: t\r\n>");
    }
    let seen = recording.take();
    let answers = all.matches("HTTP/1.1 200 OK\r\n").count();
    let closes = all.matches("Connection: close\r\n").count();
    if seen != wanted || answers != wanted.matches("X-Request-Id: ID").count() || closes != 1 {
        return Err(format!("{name}:\n wanted {wanted:?}\n    got {seen:?}\n answer {all:?}"));
    }
    Ok(())
}

/// A second reading of HTTP/1.1, which shares no code with ours, finds the same requests in what a client
/// has sent and in what the node gets.
#[test]
fn a_second_reading_finds_the_same_before_and_after() {
    for (name, raw, expected, _) in passed::table() {
        let expected = with_forwarding(&expected);
        let sent: Vec<u8> = expected.chars().map(|byte| byte as u8).collect();
        let (before, after) = (requests(&raw), requests(&sent));
        assert!(!after.is_empty(), "{name}: nothing is found in {expected:?}");
        assert_eq!(before, after, "{name}");
    }
}

/// Method, target and body of each request; all bytes have to be of one.
fn requests(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut cursor = reference::Cursor::new(bytes, true);
    let mut all = Vec::new();
    while let Ok(request) = cursor.request() {
        all.push((request.method, request.target, request.body));
        if request.last {
            break;
        }
    }
    all
}

/// Rows that other versions of HTTP can say as well are the same requests when they are said plainly.
#[test]
fn what_is_said_in_another_form_arrives_the_same() {
    let recording = Recording::start();
    let proxy = Proxy::start(config(&[recording.origin.address], BOUNDS, "preset = \"none\""));
    let mut rows = 0;
    for (name, raw, expected, keeps) in passed::table() {
        let Some(said) = said::said(&raw) else { continue };
        rows += 1;
        let all = proxy.raw(&[&said.in_http_1()[..], NEXT].concat());
        let next = if keeps { "GET /next HTTP/1.1\r\nHost: t\r\n>" } else { "" };
        let wanted = with_forwarding(&expected) + &with_forwarding(next);
        // Names have no case there.
        let same = recording.take().to_lowercase() == wanted.to_lowercase();
        assert!(same, "{name}: {wanted:?}, answered {all:?}");
    }
    assert!(rows >= 40, "{rows}");
}

#[test]
fn what_is_refused_is_refused_in_another_form() {
    let recording = Recording::start();
    let proxy = Proxy::start(config(&[recording.origin.address], BOUNDS, "preset = \"none\""));
    let mut rows = 0;
    for (name, raw, status, reason) in refused::table() {
        let Some(said) = said::said(&raw) else { continue };
        rows += 1;
        let row = (name, said.in_http_1(), status, reason);
        refused(&recording, &proxy, row).unwrap();
    }
    assert!(rows >= 60, "{rows}");
}

/// Puts what the proxy adds to every head in the place of `>`, for the host of the head.
fn with_forwarding(expected: &str) -> String {
    let mut out = String::new();
    for part in expected.split_inclusive('>') {
        let Some(head) = part.strip_suffix('>') else {
            out.push_str(part);
            continue;
        };
        let host = head.rsplit("\r\nHost: ").next().unwrap().split("\r\n").next().unwrap();
        out.push_str(head);
        out.push_str("X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n");
        out.push_str("X-Forwarded-Proto: http\r\n");
        // The name of the upstream stands in for a host that HTTP/1.0 need not send.
        if host == "u" {
            out.push_str("Forwarded: for=127.0.0.1;proto=http\r\n");
        } else {
            out.push_str(&format!("X-Forwarded-Host: {host}\r\n"));
            out.push_str(&format!("Forwarded: for=127.0.0.1;host=\"{host}\";proto=http\r\n"));
        }
        out.push_str("X-Request-Id: ID\r\n\r\n");
    }
    out
}

fn read_answer(rest: &mut &[u8]) -> Option<Answer> {
    let head = origin::read_head(rest)?;
    let (body, trailers) = origin::read_body(rest, &head, true)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body, trailers })
}

/// The tables hold each kind of attack; nobody should thin them out unseen.
#[test]
fn the_tables_are_large_and_their_names_unique() {
    let (refused, passed) = (refused::table(), passed::table());
    assert!(refused.len() >= 300 && passed.len() >= 80, "{} {}", refused.len(), passed.len());
    let mut names: Vec<&str> = refused.iter().map(|row| row.0).collect();
    names.extend(passed.iter().map(|row| row.0));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a name twice");
}

#[test]
fn a_head_or_body_that_does_not_come_is_408() {
    let recording = Recording::start();
    // A time to say something in, also where the machine stands still for a moment.
    let limits = "request_head_timeout = \"3s\"\nbody_idle_timeout = \"3s\"";
    let proxy = Proxy::start(config(&[recording.origin.address], limits, "preset = \"none\""));
    let heads: [&[u8]; 3] =
        [b"G", b"GET / HTTP/1.1\r\nHost: t\r\n", b"GET / HTTP/1.1\r\nHost: t\r\n\r"];
    let bodies: [&[u8]; 2] = [
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhell",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for (late, reason) in [(&heads[..], "request_head_timeout"), (&bodies, "request_body_timeout")]
    {
        // They wait side by side.
        let begin = |raw: &&[u8]| {
            let mut stream = proxy.connect();
            stream.write_all(raw).unwrap();
            stream
        };
        let begun: Vec<_> = late.iter().map(begin).collect();
        for mut stream in begun {
            let all = support::read_to_end(&mut stream);
            let answer = read_answer(&mut all.as_bytes()).expect(reason);
            assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
        }
        until(reason, || {
            counter(&proxy, "cobalance_errors_total", ("reason", reason)) == late.len() as u64
        });
        assert_eq!(recording.take(), "");
    }
}

#[test]
fn silence_before_a_request_and_a_head_cut_short_are_no_exchange() {
    let recording = Recording::start();
    // A time to say something in, also where the machine stands still for a moment.
    let limits = "request_head_timeout = \"3s\"\nkeep_alive_timeout = \"3s\"";
    let proxy = Proxy::start(config(&[recording.origin.address], limits, "preset = \"none\""));
    // They wait side by side.
    let mut silent = proxy.connect();
    // A stray empty line behind a request is no beginning of another.
    let mut stray = proxy.connect();
    stray.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n\r\n").unwrap();
    let mut cut = proxy.connect();
    cut.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(support::read_to_end(&mut cut), "");
    let all = support::read_to_end(&mut stray);
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert_eq!(support::read_to_end(&mut silent), "");
    assert_eq!(counter(&proxy, "cobalance_requests_total", ("source", "proxy")), 0);
}

#[test]
fn a_leading_empty_line_is_passed_over_however_it_is_cut() {
    let recording = Recording::start();
    let proxy = Proxy::to(&recording.origin);
    let request = b"\r\nGET /first HTTP/1.1\r\nHost: t\r\n\r\n";
    for piece in [1, 2, 3, request.len()] {
        let mut stream = proxy.connect();
        for part in request.chunks(piece) {
            stream.write_all(part).unwrap();
            // The kernel may still join two parts; each cut is then tried by the next length.
            std::thread::yield_now();
        }
        stream.write_all(NEXT).unwrap();
        let all = support::read_to_end(&mut stream);
        assert_eq!(all.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{piece}: {all}");
    }
}
