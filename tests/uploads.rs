//! Uploads that are too slow for a node, and those that are not: who waits for whom, what is kept, and where.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "uploads/refusals.rs"]
mod refusals;
#[path = "uploads/sending.rs"]
mod sending;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cobalance::control::ConfigSource;
use cobalance::control::maintenance::{Change, Wanted};
use cobalance::health::HealthState;
use cobalance::server;
use cobalance::telemetry::metrics::{RetryReason, SpoolRefusal};
use parking_lot::Mutex;
use sending::{begin, begin_beside, send, send_slowly};
use support::origin::{Origin, field, node};
use support::said::{listen, said};
use support::{Answer, PATIENCE, Proxy, config, until};

/// Who has sent nothing for longer is slow.
const MOMENT: Duration = Duration::from_millis(1);
const SLOW: &str = "stream_within = \"1ms\"\n";
/// Everybody is.
const FAST: &str = "stream_within = \"1h\"\n";
/// Little memory, so that files are used soon.
const SPOOL: &str = "[spool]\nmemory = \"64KiB\"\n";
const BODY: usize = 1_000_000;

fn proxy(origin: &Origin, more: &str) -> Proxy {
    Proxy::start(config(&[origin.address], "", more))
}

/// Bytes that tell where they belong.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8).collect()
}

fn head(framing: &str) -> Vec<u8> {
    format!("POST /api/attachments:create HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n").into_bytes()
}

fn counted(length: usize) -> String {
    format!("Content-Length: {length}")
}

fn chunks(data: &[u8], each: usize) -> Vec<u8> {
    let chunk = |data: &[u8]| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
    data.chunks(each).flat_map(chunk).collect()
}

fn answer(stream: &mut TcpStream) -> Answer {
    Answer::read(stream).expect("an answer")
}

/// Bytes of all bodies, in memory and in files.
fn held(proxy: &Proxy) -> [i64; 2] {
    proxy.metrics.spool.bytes.each_ref().map(|gauge| gauge.get())
}

fn until_in_files(proxy: &Proxy, bytes: i64) {
    until(&format!("{bytes} bytes are in files"), || held(proxy)[1] >= bytes);
}

fn until_empty(proxy: &Proxy) {
    until("nothing is kept", || held(proxy) == [0, 0] && proxy.metrics.spool.bodies.get() == 0);
}

fn refused(proxy: &Proxy, why: SpoolRefusal) -> u64 {
    proxy.metrics.spool.refused[why as usize].get()
}

fn spooled(proxy: &Proxy) -> u64 {
    proxy.metrics.spool.spooled.get()
}

/// An origin that says how much came, whether or not it is a whole request.
fn counting() -> (Origin, Arc<Mutex<Vec<u8>>>) {
    let came = Arc::new(Mutex::new(Vec::new()));
    let all = came.clone();
    let origin = Origin::scripted(move |mut line| {
        let mut buffer = [0; 65_536];
        while let Ok(n @ 1..) = line.stream.read(&mut buffer) {
            all.lock().extend_from_slice(&buffer[..n]);
            if all.lock().ends_with(b"END") {
                line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    (origin, came)
}

#[test]
fn a_slow_upload_reaches_its_node_only_when_it_is_complete() {
    let origin = Origin::ok("yes");
    let proxy = proxy(&origin, &[SLOW, SPOOL].concat());
    let body = body(BODY);
    let (most, last) = body.split_at(BODY - 1);
    let mut stream = begin(&proxy, &counted(BODY), most);
    until_in_files(&proxy, 900_000);
    let memory = held(&proxy)[0];
    assert!((1..=64 * 1024).contains(&memory), "{memory} bytes in memory");
    assert_eq!((origin.connections(), spooled(&proxy)), (0, 1));
    stream.write_all(last).unwrap();
    assert_eq!(answer(&mut stream).text(), "yes");
    let seen = origin.seen();
    assert!(seen.len() == 1 && seen[0].body == body, "whole, and once");
    assert_eq!(field(&seen[0].head, "content-length"), Some("1000000"));
    until_empty(&proxy);
    // The connection is as good as before.
    stream.write_all(&[&head("Content-Length: 1")[..], b"x"].concat()).unwrap();
    assert_eq!(answer(&mut stream).text(), "yes");
    assert_eq!(proxy.metrics.spool.refused.each_ref().map(|reason| reason.get()), [0; 4]);
}

#[test]
fn a_fast_upload_goes_to_its_node_as_it_comes() {
    let (origin, came) = counting();
    let proxy = proxy(&origin, &[FAST, SPOOL].concat());
    let body = [body(BODY), b"END".to_vec()].concat();
    let mut stream = begin(&proxy, &counted(body.len()), &body[..500_000]);
    until("half of it is there", || came.lock().len() > 500_000);
    // What was kept to measure it is given back as soon as the rest follows.
    until_empty(&proxy);
    stream.write_all(&body[500_000..]).unwrap();
    assert_eq!(answer(&mut stream).text(), "ok");
    assert!(came.lock().ends_with(&body));
    assert_eq!((spooled(&proxy), refused(&proxy, SpoolRefusal::Full)), (0, 0));
}

#[test]
fn without_a_shield_everybody_is_streamed() {
    for off in ["stream_within = \"0s\"", "preset = \"none\""] {
        let (origin, came) = counting();
        let proxy = proxy(&origin, off);
        let body = [body(BODY), b"END".to_vec()].concat();
        let mut stream = begin(&proxy, &counted(body.len()), &body[..10]);
        until("the first of it is there", || came.lock().ends_with(&body[..10]));
        stream.write_all(&body[10..]).unwrap();
        assert_eq!(answer(&mut stream).text(), "ok");
    }
}

/// Sends half of a body, waits until the node has it, and then the rest.
fn streams_although_slow(proxy: &Proxy, came: &Mutex<Vec<u8>>, why: SpoolRefusal) {
    let body = [body(BODY), b"END".to_vec()].concat();
    let mut stream = begin(proxy, &counted(body.len()), &body[..500_000]);
    until("half of it is there", || came.lock().len() > 500_000);
    assert_eq!(refused(proxy, why), 1);
    until_empty(proxy);
    stream.write_all(&body[500_000..]).unwrap();
    assert_eq!(answer(&mut stream).text(), "ok");
    assert!(came.lock().ends_with(&body), "nothing is lost and nothing twice");
    assert_eq!(came.lock().windows(4).filter(|four| four == b"POST").count(), 1);
}

#[test]
fn what_cannot_be_kept_is_streamed_and_told_of() {
    listen();
    let full = SpoolRefusal::Full;
    for (more, why) in [
        ("total_files = 0", full),
        ("total_files = \"256KiB\"\nclient_share = \"100%\"", full),
        ("total_files = \"256KiB\"", SpoolRefusal::ClientShare),
        ("max_body = \"192KiB\"", SpoolRefusal::TooLarge),
        ("directory = \"/proc/nowhere\"", SpoolRefusal::Error),
    ] {
        let (origin, came) = counting();
        let proxy = proxy(&origin, &[SLOW, SPOOL, more].concat());
        streams_although_slow(&proxy, &came, why);
    }
    for words in ["is full (`total_files`, 0 bytes)", "of [spool], 196608 bytes", "/proc/nowhere"] {
        let lines = said(&["WARN", "goes to its node as it comes, however slowly", words]);
        assert_eq!(lines.len(), 1, "{words}");
    }
}

#[test]
fn memory_is_bounded_over_all_bodies() {
    let (origin, came) = counting();
    let proxy = proxy(&origin, &[SLOW, SPOOL, "total_memory = \"64KiB\""].concat());
    let first = begin(&proxy, &counted(BODY), &body(200_000));
    until_in_files(&proxy, 128 * 1024);
    assert_eq!(held(&proxy)[0], 64 * 1024);
    let second = body(200_000);
    let stream = begin_beside(&proxy, 1, &counted(BODY), &second);
    until("the second is streamed", || came.lock().ends_with(&second));
    assert_eq!((refused(&proxy, SpoolRefusal::Full), held(&proxy)[0]), (1, 64 * 1024));
    drop((first, stream));
    until_empty(&proxy);
}

#[test]
fn who_leaves_or_stalls_leaves_nothing() {
    let origin = Origin::ok("no");
    let listener = "body_idle_timeout = \"500ms\"";
    let upstream = [SLOW, SPOOL].concat();
    let patient = proxy(&origin, &upstream);
    let stream = begin(&patient, &counted(BODY), &body(300_000));
    until_in_files(&patient, 200_000);
    drop(stream);
    until_empty(&patient);
    let hasty = Proxy::start(config(&[origin.address], listener, &upstream));
    let mut stream = begin(&hasty, &counted(BODY), &body(300_000));
    assert_eq!(answer(&mut stream).status, 408);
    until_empty(&hasty);
    // Nor does it help to send a byte now and then.
    let mut stream = begin(&hasty, &counted(BODY), &body(300_000));
    let mut writer = stream.try_clone().unwrap();
    let until_it_ends = std::thread::spawn(move || {
        let (mut sent, mut last) = (0, Instant::now());
        while sent < BODY - 300_001 && writer.write_all(b"x").is_ok() {
            until("a moment is over", || last.elapsed() > 10 * MOMENT);
            (sent, last) = (sent + 1, Instant::now());
        }
    });
    assert_eq!(answer(&mut stream).status, 408);
    until_empty(&hasty);
    drop(stream);
    until_it_ends.join().unwrap();
    assert_eq!(origin.connections(), 0);
}

#[test]
fn more_than_a_listener_takes_is_refused_although_it_is_kept() {
    let origin = Origin::ok("no");
    let upstream = [SLOW, SPOOL].concat();
    let proxy = Proxy::start(config(&[origin.address], "max_body = \"300KiB\"", &upstream));
    let mut stream = begin(&proxy, "Transfer-Encoding: chunked", &chunks(&body(400_000), 100_000));
    assert_eq!(answer(&mut stream).status, 413);
    until_empty(&proxy);
    assert_eq!((origin.connections(), spooled(&proxy)), (0, 1));
}

#[test]
fn a_chunked_body_that_was_kept_whole_has_a_length_unless_it_has_trailers() {
    let origin = Origin::ok("yes");
    let proxy = proxy(&origin, &[SLOW, SPOOL].concat());
    let body = body(BODY);
    let all = chunks(&body, 70_001);
    let mut stream = begin(&proxy, "Transfer-Encoding: chunked", &all[..500_000]);
    until_in_files(&proxy, 400_000);
    assert_eq!(origin.connections(), 0);
    stream.write_all(&[&all[500_000..], b"0\r\n\r\n"].concat()).unwrap();
    assert_eq!(answer(&mut stream).text(), "yes");
    let rest = [&all[..], b"0\r\nX-Sum: 7\r\n\r\n"].concat();
    let head = head("Transfer-Encoding: chunked\r\nTrailer: X-Sum");
    send(&proxy.metrics, 0, &mut stream, &head, &rest);
    assert_eq!(answer(&mut stream).text(), "yes");
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.body == body));
    assert_eq!(field(&seen[0].head, "content-length"), Some("1000000"));
    assert_eq!(field(&seen[0].head, "transfer-encoding"), None);
    assert_eq!(field(&seen[1].head, "transfer-encoding"), Some("chunked"));
    assert_eq!((seen[0].trailers.as_str(), seen[1].trailers.as_str()), ("", "X-Sum: 7\r\n"));
    until_empty(&proxy);
}

#[test]
fn a_chunked_body_that_is_streamed_stays_chunked() {
    let origin = Origin::ok("yes");
    for more in ["", "max_body = \"128KiB\""] {
        let pace = if more.is_empty() { FAST } else { SLOW };
        let proxy = proxy(&origin, &[pace, SPOOL, more].concat());
        let all = [&chunks(&body(BODY), 70_001)[..], b"0\r\nX-Sum: 7\r\n\r\n"].concat();
        let mut stream = begin(&proxy, "Transfer-Encoding: chunked", &all[..500_000]);
        until("it is on its way", || origin.connections() > 0);
        stream.write_all(&all[500_000..]).unwrap();
        assert_eq!(answer(&mut stream).text(), "yes");
        let seen = origin.seen().pop().unwrap();
        assert!(seen.body == body(BODY) && seen.trailers == "X-Sum: 7\r\n");
        assert_eq!(refused(&proxy, SpoolRefusal::TooLarge), u64::from(!more.is_empty()));
        until_empty(&proxy);
    }
}

#[test]
fn a_kept_body_is_sent_to_another_node_after_a_refusal() {
    const REFUSAL: &str =
        r#"{"error":{"status":503,"maintaining":true,"message":"m","code":"APP_COMMANDING"}}"#;
    let refusing = Origin::answering(format!(
        "HTTP/1.1 503 X\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n{REFUSAL}",
        REFUSAL.len()
    ));
    let good = Origin::ok("yes");
    let more = ["balance = \"round_robin\"\n", SLOW, SPOOL].concat();
    let proxy = Proxy::start(config(&[refusing.address, good.address], "", &more));
    let mut stream = proxy.connect();
    for _ in 0..2 {
        send(&proxy.metrics, 0, &mut stream, &head(&counted(BODY)), &body(BODY));
        assert_eq!(answer(&mut stream).text(), "yes");
    }
    let (there, here) = (refusing.seen(), good.seen());
    assert_eq!(here.len(), 2, "each once");
    assert!(!there.is_empty() && there.iter().chain(&here).all(|seen| seen.body == body(BODY)));
    let retries = &proxy.snapshot.upstreams[0].metrics.retries;
    assert_eq!(retries[RetryReason::Refused as usize].get(), there.len() as u64);
    until_empty(&proxy);
}

#[test]
fn a_kept_body_waits_for_a_node() {
    let origin = Origin::ok("yes");
    let proxy = proxy(&origin, &[SLOW, "park_bytes = \"1MiB\"\n", SPOOL].concat());
    let parked = || proxy.snapshot.upstreams[0].metrics.parked[0].now.get();
    let body = body(BODY);
    let mut stream = begin(&proxy, &counted(BODY), &body[..900_000]);
    until_in_files(&proxy, 800_000);
    proxy.node(0).set_health(HealthState::Down);
    stream.write_all(&body[900_000..]).unwrap();
    until("it is parked", || parked() == 1);
    // While there is nobody, nothing more is read that would have to be kept.
    let mut other = begin_beside(&proxy, 1, &counted(300_000), &body[..300_000]);
    until("both are parked", || parked() == 2);
    assert_eq!((proxy.metrics.spool.bodies.get(), spooled(&proxy)), (1, 1));
    proxy.node(0).set_health(HealthState::Up);
    for stream in [&mut stream, &mut other] {
        assert_eq!(answer(stream).text(), "yes");
    }
    let seen = origin.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| body.starts_with(&seen.body)));
    assert_eq!(spooled(&proxy), 2);
}

#[test]
fn who_asks_first_is_told_to_go_on_before_a_node_is_asked() {
    let origin = Origin::ok("yes");
    let proxy = proxy(&origin, &[SLOW, SPOOL].concat());
    let expects = |length| format!("{}\r\nExpect: 100-continue", counted(length));
    let mut stream = begin(&proxy, &expects(BODY), b"");
    assert_eq!(answer(&mut stream).status, 100);
    assert_eq!(origin.connections(), 0);
    send_slowly(&mut stream, &body(BODY));
    assert_eq!((answer(&mut stream).text().as_str(), spooled(&proxy)), ("yes", 1));
    let seen = origin.seen();
    assert!(seen[0].body == body(BODY) && field(&seen[0].head, "expect").is_none());
    // What is small is asked of the node, as ever.
    let mut stream = begin(&proxy, &expects(3), b"");
    assert_eq!(answer(&mut stream).status, 100);
    stream.write_all(b"abc").unwrap();
    assert_eq!(answer(&mut stream).text(), "yes");
    assert!(field(&origin.seen()[1].head, "expect").is_some());
}

#[test]
fn a_large_body_that_fits_in_memory_can_be_sent_again() {
    let bad = Origin::scripted(|mut line| drop(line.request()));
    let good = Origin::ok("yes");
    let more = format!("balance = \"round_robin\"\n{FAST}");
    let proxy = Proxy::start(config(&[bad.address, good.address], "", &more));
    for _ in 0..2 {
        let mut stream = proxy.connect();
        let head = format!(
            "POST /api/posts:list HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
            500_000
        );
        stream.write_all(&[head.as_bytes(), &body(500_000)].concat()).unwrap();
        assert_eq!(answer(&mut stream).text(), "yes");
    }
    assert!(!bad.seen().is_empty());
    assert_eq!((good.seen().len(), spooled(&proxy)), (2, 0));
}

fn started(node: &Origin, log: &Path, more: &str) -> server::Running {
    let text = format!(
        "[server]\nthreads = 1\n[admin]\nenabled = false\n[access_log]\npath = \"{}\"\n\
         [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         [upstream.a]\nnodes = [\"{}\"]\n{more}",
        log.display(),
        node.address
    );
    let file = log.with_file_name("cobalance.toml");
    std::fs::write(&file, &text).unwrap();
    server::start(support::parse(&text), ConfigSource::File(file)).unwrap()
}

#[test]
fn the_access_log_tells_what_was_kept_and_how_long() {
    let origin = node("yes");
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let running = started(&origin, &log, &[SLOW, SPOOL].concat());
    let mut stream = TcpStream::connect(running.address("public").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    send(running.handle().metrics(), 0, &mut stream, &head(&counted(BODY)), &body(BODY));
    assert_eq!(answer(&mut stream).text(), "yes");
    let line = || std::fs::read_to_string(&log).unwrap_or_default();
    until("its line", || line().ends_with('\n'));
    let line: serde_json::Value = serde_json::from_str(&line()).unwrap();
    assert_eq!((&line["status"], &line["spooled"]), (&200.into(), &BODY.into()));
    let (spooled, node) = (&line["spooled_ms"], &line["attempts"][0]["ms"]);
    assert!(spooled.as_f64() > Some(0.0) && node.as_f64() > Some(0.0), "{line}");
    assert!(line["attempts"][0]["sent"].as_u64().unwrap() > BODY as u64);
    let posts = origin.seen().iter().filter(|seen| seen.head.starts_with("POST")).count();
    assert_eq!(posts, 1);
}

#[test]
fn where_nothing_can_be_kept_a_warning_stands_until_it_can() {
    let origin = node("yes");
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let more = format!("[spool]\ndirectory = \"{}\"\n", spool.display());
    let running = started(&origin, &dir.path().join("log"), &more);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let warnings = || runtime.block_on(running.handle().status()).unwrap().warnings;
    until("it is told of", || warnings().iter().any(|warning| warning.subject == "spool"));
    assert!(warnings()[0].message.contains("/spool: No such file"), "{:?}", warnings());
    // It is looked at again by and by, and at once after a reload.
    std::fs::create_dir(&spool).unwrap();
    let file = dir.path().join("cobalance.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replace("threads = 1\n", "threads = 1\nshutdown_delay = \"1ms\"\n");
    std::fs::write(&file, changed).unwrap();
    runtime.block_on(running.handle().reload());
    until("it is taken back", || warnings().is_empty());
}

#[test]
fn what_happened_meanwhile_counts() {
    let origin = node("no");
    let dir = tempfile::tempdir().unwrap();
    let running = started(&origin, &dir.path().join("log"), &[SLOW, SPOOL].concat());
    let mut stream = TcpStream::connect(running.address("public").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let metrics = running.handle().metrics();
    send(metrics, 0, &mut stream, &head(&counted(BODY)), &body(BODY - 1));
    until("most is kept", || metrics.spool.bytes[1].get() > 900_000);
    let from = [127, 0, 0, 1].into();
    let change = Change { upstream: None, on: Some(Wanted::default()), from };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(running.handle().maintain(change)).unwrap().unwrap();
    stream.write_all(b"x").unwrap();
    let answer = answer(&mut stream);
    assert!(answer.status == 503 && answer.text().contains("APP_COMMANDING"), "{}", answer.text());
    assert!(origin.seen().iter().all(|seen| !seen.head.starts_with("POST")));
}

#[test]
fn a_deadline_is_for_the_nodes_time() {
    let origin = Origin::ok("yes");
    // Longer than a pause of this machine: from the last byte on it is the node's.
    let proxy = proxy(&origin, &[SLOW, "deadline = \"3s\"\n", SPOOL].concat());
    let mut stream = begin(&proxy, &counted(BODY), &body(BODY - 1));
    let begun = Instant::now();
    until("it took its time", || begun.elapsed() > Duration::from_millis(3200));
    stream.write_all(b"x").unwrap();
    assert_eq!(answer(&mut stream).text(), "yes");
}

#[test]
fn what_is_slow_does_not_keep_a_drained_process_from_serving_it() {
    let origin = Origin::ok("yes");
    let proxy = proxy(&origin, &[SLOW, SPOOL].concat());
    let body = body(BODY);
    let mut stream = begin(&proxy, &counted(BODY), &body[..500_000]);
    until_in_files(&proxy, 400_000);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| proxy.drain(Duration::ZERO));
        until("nobody is let in", || TcpStream::connect(proxy.address).is_err());
        stream.write_all(&body[500_000..]).unwrap();
        let answer = answer(&mut stream);
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("yes", Some("close")));
        drained.join().unwrap();
    });
    assert!(origin.seen()[0].body == body);
}
