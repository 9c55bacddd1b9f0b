//! How streams and connections end: who leaves, who breaks off, who is told to go.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use ::h2::Reason;

use super::support::h2::{self, Client, DATA, END_STREAM, GOAWAY, HEADERS, Raw, get};
use super::support::origin::{Origin, gate};
use super::support::{Proxy, config, until};
use super::{BOTH, count, proxy, proxy_with, secure};

/// A time for a client to say something in, also where the machine stands still for a moment.
const UNHURRIED: &str = "\"3s\"";

/// Takes a request, and tells when its connection has ended.
fn silent() -> (Origin, Arc<AtomicBool>) {
    let ended = Arc::new(AtomicBool::new(false));
    let tell = ended.clone();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.wait_closed();
        tell.store(true, SeqCst);
    });
    (origin, ended)
}

#[test]
fn a_client_that_resets_its_stream_ends_the_work_at_the_node() {
    let (origin, ended) = silent();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let (answer, mut send) = client.begin(get("/"), true);
    client.until(|| origin.seen().len() == 1);
    send.send_reset(Reason::CANCEL);
    assert!(client.run(h2::whole(answer)).is_err());
    let node = proxy.node(0);
    client.until(|| node.in_flight() == 0 && ended.load(SeqCst));
    until("it is counted", || count(&proxy, "errors_total", &["client_left"]) == 1.0);
}

#[test]
fn a_client_that_leaves_ends_all_its_streams() {
    let (origin, _) = silent();
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    assert!((0..10).all(|nth| raw.get(2 * nth + 1, "/")));
    until("the node has them", || origin.seen().len() == 10);
    drop(raw);
    until("nothing is left of them", || proxy.node(0).in_flight() == 0);
    until("they are counted", || count(&proxy, "errors_total", &["client_left"]) == 10.0);
}

#[test]
fn an_answer_that_breaks_off_is_reset_and_never_looks_whole() {
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for answer in answers {
        let origin = Origin::answering_once(answer);
        let proxy = proxy(&origin);
        let mut client = Client::plain(proxy.address);
        let error = client.ask(get("/")).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(client.ask(get("/")).unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
        until("both are counted", || count(&proxy, "errors_total", &[]) == 2.0);
    }
}

#[test]
fn a_node_that_is_gone_is_answered_for() {
    let origin = Origin::answering_once("");
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let got = client.post("/x", b"once", None).unwrap();
    assert_eq!(got.status, 502);
    assert!(got.text().contains("<h1>"), "{}", got.text());
}

#[test]
fn in_a_drain_open_streams_end_and_no_further_one_is_begun() {
    let (go, wait) = gate();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        wait.lock().recv().unwrap();
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        line.wait_closed();
    });
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    raw.get(1, "/");
    until("the node has it", || origin.seen().len() == 1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| proxy.drain(Duration::ZERO));
        let last = |frame: h2::Frame| u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
        assert_eq!(last(raw.await_kind(GOAWAY).unwrap()), 0x7fff_ffff, "first a warning");
        let ping = raw.await_kind(h2::PING).unwrap();
        // What was on its way is still served.
        raw.get(3, "/late");
        raw.send(h2::PING, 1, 0, &ping.payload);
        assert_eq!(last(raw.await_kind(GOAWAY).unwrap()), 3, "then the last that counts");
        until("both are at the node", || origin.seen().len() == 2);
        raw.get(5, "/too-late");
        go.send(()).unwrap();
        go.send(()).unwrap();
        let mut ended = Vec::new();
        while let Some(frame) = raw.next() {
            if frame.kind == DATA && frame.flags & END_STREAM != 0 {
                ended.push(frame.stream);
            }
        }
        ended.sort_unstable();
        assert_eq!(ended, [1, 3]);
        drained.join().unwrap();
    });
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn in_a_drain_an_idle_connection_ends_even_if_its_client_says_nothing() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    raw.get(1, "/");
    raw.await_kind(HEADERS).unwrap();
    proxy.drain(Duration::ZERO);
    assert_eq!(raw.goaway(), Some(0));
}

#[test]
fn after_so_many_requests_a_connection_ends_and_none_is_lost() {
    let origin = Origin::ok("x");
    let proxy = proxy_with(&origin, "max_requests = 3");
    let mut client = Client::plain(proxy.address);
    (0..3).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert!(client.ended().is_ok());
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn who_asks_for_nothing_is_told_to_go() {
    let origin = Origin::ok("x");
    let limits = format!("keep_alive_timeout = {UNHURRIED}\nrequest_head_timeout = {UNHURRIED}");
    let proxy = proxy_with(&origin, &limits);
    // Before the first request, between two, and with a PING now and then; all in the same time.
    let mut silent = Raw::connect(proxy.address);
    let mut lively = Raw::connect(proxy.address);
    lively.get(1, "/");
    let mut writer = Raw { stream: lively.stream.try_clone().unwrap() };
    let over = Arc::new(AtomicBool::new(false));
    let heard = over.clone();
    let pings = std::thread::spawn(move || {
        while !heard.load(SeqCst) && writer.send(h2::PING, 0, 0, &[1; 8]) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    let mut client = Client::plain(proxy.address);
    assert_eq!(client.get("/").status, 200);
    // Before the others: it takes part in its end only while it is waited for.
    assert!(client.ended().is_ok());
    assert_eq!(silent.goaway(), Some(0));
    assert_eq!(lively.goaway(), Some(0));
    over.store(true, SeqCst);
    pings.join().unwrap();
}

#[test]
fn a_head_that_does_not_end_ends_the_connection() {
    let (origin, _) = silent();
    let proxy = proxy_with(&origin, &format!("request_head_timeout = {UNHURRIED}"));
    // Within a block, within a frame, and within the head of one; each while a stream is open.
    let pieces = [
        h2::frame(HEADERS, 0, 3, &h2::block(&h2::usual("GET", "/"))),
        h2::frame(HEADERS, 4, 3, &h2::block(&h2::usual("GET", "/")))[..20].to_vec(),
        h2::frame(HEADERS, 4, 3, &[])[..5].to_vec(),
    ];
    let begin = |_| {
        let mut raw = Raw::connect(proxy.address);
        assert!(raw.get(1, "/"));
        raw
    };
    let mut all = [0; 3].map(begin);
    until("the node has them", || origin.seen().len() == 3);
    for (raw, piece) in all.iter_mut().zip(&pieces) {
        raw.stream.write_all(piece).unwrap();
    }
    for (mut raw, piece) in all.into_iter().zip(&pieces) {
        assert_eq!(raw.goaway(), Some(0), "{piece:?}");
    }
}

#[test]
fn a_preface_that_does_not_end_ends_the_connection() {
    let origin = Origin::ok("x");
    let proxy = proxy_with(&origin, &format!("request_head_timeout = {UNHURRIED}"));
    let mut stream = proxy.connect();
    stream.write_all(&cobalance::http2::PREFACE[..10]).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

/// An answer that is larger than all buffers on its way.
fn endless() -> Origin {
    Origin::scripted(|mut line| {
        let small = line.request().is_some_and(|seen| seen.head.starts_with("GET /small "));
        if small {
            return line.send(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while line.stream.write_all(&[b'x'; 65_536]).is_ok() {}
    })
}

#[test]
fn a_stream_that_its_client_does_not_take_is_reset_and_its_connection_goes_on() {
    let origin = endless();
    let proxy = proxy_with(&origin, "send_timeout = \"300ms\"");
    let mut client = Client::plain(proxy.address);
    let (answer, _) = client.begin(get("/"), true);
    let mut answer = client.run(answer).unwrap();
    // What came is not given back: the window stays closed.
    let error = client.run(async {
        loop {
            match answer.body_mut().data().await.unwrap() {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    });
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    // The window of the connection is closed too: only an answer without a body fits.
    assert_eq!(client.get("/small").status, 204);
    until("it is counted", || count(&proxy, "errors_total", &["client_stalled"]) == 1.0);
}

#[test]
fn a_connection_that_its_client_does_not_read_is_cut() {
    let origin = endless();
    let proxy = proxy_with(&origin, "send_timeout = \"300ms\"");
    let mut raw = Raw::connect(proxy.address);
    // Windows as wide as they can be.
    let most = 0x7fff_ffffu32.to_be_bytes();
    raw.send(h2::SETTINGS, 0, 0, &[&[0, 4][..], &most].concat());
    raw.send(h2::WINDOW_UPDATE, 0, 0, &(0x7fff_ffff - 65_535u32).to_be_bytes());
    raw.get(1, "/");
    // Before that nothing is open either.
    until("the node has it", || origin.seen().len() == 1);
    let listener = &proxy.snapshot.listeners[0];
    until("it is cut", || listener.open.load(SeqCst) == 0);
    until("also as one of HTTP/2", || listener.open_h2.load(SeqCst) == 0);
    until("nothing is left of it", || proxy.node(0).in_flight() == 0);
}

#[test]
fn a_node_that_is_killed_costs_no_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (first, second) = (Origin::answering(answer), Origin::answering(answer));
    let nodes = [first.address, second.address];
    let proxy = Proxy::start(config(&nodes, BOTH, "preset = \"none\"\nbalance = \"round_robin\""));
    let mut client = Client::plain(proxy.address);
    let mut first = Some(first);
    for round in 0..20 {
        let asked: Vec<_> =
            (0..50).map(|n| client.begin(get(&format!("/{round}/{n}")), true).0).collect();
        if round == 5 {
            // Its listener is closed; what it has accepted ends with its next request.
            drop(first.take());
        }
        for answer in asked {
            assert_eq!(client.run(h2::whole(answer)).unwrap().status, 200, "round {round}");
        }
    }
    until("all are counted", || count(&proxy, "requests_total", &["200"]) == 1000.0);
}

#[test]
fn over_tls_the_end_is_said() {
    let origin = Origin::ok("x");
    let (authority, proxy) = secure(&origin, "keep_alive_timeout = \"200ms\"");
    let mut client = Client::tls(proxy.address, authority.client(), "a.test");
    assert_eq!(client.get("/").status, 200);
    assert!(client.ended().is_ok());
}
