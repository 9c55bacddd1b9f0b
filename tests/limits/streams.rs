//! The same limits over HTTP/2, where one connection carries many requests: each stream is judged as a request of
//! its own, and what a connection holds beside them has a bound as well.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::attack::{MOST, PATIENT, origin, serves};
use crate::support::h2::{
    self, Client, DATA, END_HEADERS, HEADERS, Raw, SETTINGS, WINDOW_UPDATE, frame, request,
};
use crate::support::origin::{Origin, gate, node, read_head};
use crate::support::{Proxy, config, parse, until};
use crate::{alone, errors};

/// A proxy that speaks both versions in plain text.
fn both(origin: &Origin, listener: &str, more: &str) -> Proxy {
    let listener = format!("protocols = [\"h1\", \"h2\"]\n{listener}");
    Proxy::start(config(&[origin.address], &listener, more))
}

/// The same with one data thread and this bound on what is held.
fn bounded(origin: &Origin, most: &str) -> Proxy {
    Proxy::start(parse(&format!(
        "[server]\nthreads = 1\nmax_buffered = \"{most}\"\n[access_log]\nenabled = false\n\
         [[listener]]\nbind = \"127.0.0.1:0\"\nprotocols = [\"h1\", \"h2\"]\n{PATIENT}\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        origin.address
    )))
}

/// A head that does not end.
fn half_a_head() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &[0; 16_000])[..15_000].to_vec()
}

/// So many requests for far more than any socket holds, in windows as wide as they can be, or as they are.
fn ask_for_much(proxy: &Proxy, streams: u32, wide: bool) -> Raw {
    let mut raw = Raw::connect(proxy.address);
    if wide {
        raw.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        raw.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0xfe, 0, 0]);
    }
    // A connection that has to give way may be gone before all is asked.
    (0..streams).all(|nth| raw.get(2 * nth + 1, "/big"));
    raw
}

/// Whether a stream on a connection of its own is answered as it should be.
fn serves_http2(proxy: &Proxy) -> bool {
    let mut raw = Raw::connect(proxy.address);
    raw.get(1, "/fresh") && raw.await_kind(DATA).is_some_and(|frame| frame.payload == b"hi")
}

#[test]
fn what_a_connection_holds_beside_its_streams_is_counted() {
    let (origin, release) = origin();
    let proxy = bounded(&origin, "64MiB");
    let held = || proxy.metrics.buffered_now();
    let mut raw = Raw::connect(proxy.address);
    raw.stream.write_all(&half_a_head()[..100]).unwrap();
    until("a head that does not end", || held() >= 16_000);
    drop(raw);
    until("it is gone", || held() == 0);
    // Their exchanges hold 128 KiB each while they wait.
    let unread = ask_for_much(&proxy, 4, true);
    until("answers in the library, and on their way to the kernel", || {
        held() > 512 * 1024 + 200_000
    });
    drop(unread);
    until("they are gone", || held() == 0);
    drop(release);
}

#[test]
fn bodies_that_no_node_takes_are_counted() {
    let (go, wait) = gate();
    let origin = Origin::scripted(move |mut line| {
        read_head(&mut line.stream);
        let _ = wait.lock().recv();
        let mut buffer = vec![0; 65_536];
        while matches!(line.stream.read(&mut buffer), Ok(1..)) {}
    });
    let proxy = bounded(&origin, "64MiB");
    let mut client = Client::plain(proxy.address);
    let mut head = request("POST", "/x");
    head.headers_mut().insert("content-length", (16 << 20).into());
    let (_answer, mut send) = client.begin(head, false);
    send.send_data(Bytes::from(vec![0; 16 << 20]), false).unwrap();
    // Its exchange holds no more than 176 KiB while it waits for its node.
    client.until(|| proxy.metrics.buffered_now() > 176 * 1024 + 60_000);
    drop((send, client, go));
    until("nothing is left", || proxy.metrics.buffered_now() == 0);
}

#[test]
fn strangers_over_http2_stay_within_the_bound_and_others_are_served() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = bounded(&origin, "16MiB");
    let held = || proxy.metrics.buffered_now();
    let serves = || {
        // What waits for a node does not give way: first the answers to all of it must have come.
        until("others are served", || {
            proxy.get("/fresh").text() == "hi" && serves(&proxy) && serves_http2(&proxy)
        });
    };
    let within = |raw: Raw| {
        let held = held();
        assert!(held <= MOST, "{held}");
        raw
    };
    let heads: Vec<Raw> = (0..1500)
        .map(|_| {
            let mut raw = Raw::connect(proxy.address);
            let _ = raw.stream.write_all(&half_a_head());
            within(raw)
        })
        .collect();
    until("it has filled up, and the oldest gave way", || proxy.metrics.cut() > 100);
    serves();
    // Two thousand streams that their clients do not take.
    let streams: Vec<Raw> = (0..40).map(|_| within(ask_for_much(&proxy, 50, false))).collect();
    serves();
    let before = proxy.metrics.cut();
    let unread: Vec<Raw> = (0..60).map(|_| within(ask_for_much(&proxy, 4, true))).collect();
    until("more gave way", || proxy.metrics.cut() > before);
    serves();
    assert!(held() <= MOST);
    drop((heads, streams, unread, release));
    until("nothing is left", || held() == 0);
    serves();
}

#[test]
fn each_stream_counts_for_the_rate() {
    let origin = Origin::ok("in");
    let proxy = both(&origin, "", "[[rate_limit]]\nname = \"all\"\nrate = \"2/h\"\n");
    let mut client = Client::plain(proxy.address);
    assert_eq!([(); 3].map(|()| client.get("/").status), [200, 200, 429]);
    let refused = client.get("/api/users:list");
    assert!(refused.status == 429 && refused.text().contains("RATE_LIMITED"), "{refused:?}");
    until("all are counted", || errors(&proxy, "rate_limited") == 2);
}

#[test]
fn a_route_s_lists_hold_for_streams() {
    let origin = Origin::ok("hi");
    let routes = "[[route]]\npath = \"/api/*\"\nupstream = \"u\"\ndeny = [\"127.0.0.0/8\"]\n\
        [[route]]\nupstream = \"u\"\n";
    let proxy = both(&origin, "", routes);
    let mut client = Client::plain(proxy.address);
    assert_eq!((client.get("/api/x").status, client.get("/x").status), (403, 200));
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_stream_s_body_that_trickles_is_answered_408() {
    let origin = Origin::ok("never");
    let listener = "body_idle_timeout = \"100ms\"\nmin_body_rate = \"1MiB\"";
    let proxy = both(&origin, listener, "preset = \"none\"");
    let mut client = Client::plain(proxy.address);
    for length in [60_000, 10_000_000] {
        let mut head = request("POST", "/x");
        head.headers_mut().insert("content-length", length.into());
        let (answer, mut send) = client.begin(head, false);
        let got = client.run(async {
            let mut answer = std::pin::pin!(h2::whole(answer));
            loop {
                let _ = send.send_data(Bytes::from_static(b"x"), false);
                let pause = Duration::from_millis(2);
                if let Ok(got) = tokio::time::timeout(pause, answer.as_mut()).await {
                    break got.unwrap();
                }
            }
        });
        assert_eq!(got.status, 408, "{length}");
    }
    assert_eq!(client.get("/").status, 200, "its connection goes on");
}

fn handshake() -> Request<()> {
    let protocol = ::h2::ext::Protocol::from_static("websocket");
    let head = Request::builder().method("CONNECT").uri("http://a.test/ws");
    let head = head.header("sec-websocket-version", "13").extension(protocol);
    head.body(()).unwrap()
}

#[test]
fn tunnels_on_one_connection_are_those_of_one_client() {
    let origin = node("hi");
    let proxy = both(&origin, "max_tunnels_per_client = 2", "");
    let mut client = Client::plain(proxy.address);
    let mut open = || {
        let (answer, send) = client.begin(handshake(), false);
        (client.run(answer).unwrap(), send)
    };
    let (first, second, third) = (open(), open(), open());
    let status = [&first, &second, &third].map(|(answer, _)| answer.status().as_u16());
    assert_eq!(status, [200, 200, 429]);
    drop((first, third));
    let tunnels = proxy.snapshot.listeners[0].tunnels.clone();
    client.until(|| tunnels.count() == 1);
    let (again, _send) = client.begin(handshake(), false);
    assert_eq!(client.run(again).unwrap().status(), 200);
    drop(second);
}
