//! The way of a request: what passes, in which form, and what ends it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufReader, Read, Write};

use support::origin::Origin;
use support::{Answer, Proxy, config, until};

#[test]
fn a_request_goes_there_and_the_answer_comes_back() {
    let origin = Origin::ok("hello");
    let proxy = Proxy::to(&origin);
    let answer = proxy.get("/a?b=c");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    let seen = &origin.seen()[0].head;
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\nHost: test\r\n"), "{seen}");
    assert!(seen.contains("X-Forwarded-For: 127.0.0.1\r\n"));
    assert_eq!(support::origin::field(seen, "x-request-id"), answer.field("x-request-id"));
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let origin = Origin::scripted(|mut line| {
        while let Some(seen) = line.request() {
            let path = seen.head.split(' ').nth(1).unwrap().to_owned();
            line.send(
                format!(
                    "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=600\r\nContent-Length: {}\r\n\r\n{path}",
                    path.len()
                )
                .as_bytes(),
            );
        }
    });
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    let request = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n");
    let all: String = (0..50).map(request).collect();
    stream.write_all(all.as_bytes()).unwrap();
    for n in 0..50 {
        assert_eq!(Answer::read(&mut stream).unwrap().text(), format!("/{n}"));
    }
    assert_eq!(origin.connections(), 1, "one connection to the node serves them all");
}

#[test]
fn bodies_go_up_counted_and_chunked_with_trailers() {
    let origin = Origin::ok("");
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    for length in [0usize, 1, 4096, 65_536, 65_537, 3_000_000] {
        write!(stream, "POST /{length} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")
            .unwrap();
        stream.write_all(&vec![b'x'; length]).unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 200, "{length}");
        assert_eq!(origin.seen().last().unwrap().body.len(), length);
    }
    for chunks in [1usize, 3, 100] {
        write!(
            stream,
            "POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        )
        .unwrap();
        for _ in 0..chunks {
            write!(stream, "7d0\r\n{}\r\n", "y".repeat(2000)).unwrap();
        }
        write!(stream, "0\r\nX-Sum: {chunks}\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.body.len(), chunks * 2000);
        assert_eq!(seen.trailers, format!("X-Sum: {chunks}\r\n"));
    }
}

#[test]
fn large_answers_come_down_counted_chunked_and_until_close() {
    let body = "z".repeat(1_000_000);
    let counted = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-T: 1\r\n\r\n",
        body.len()
    );
    let closing = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
    for (answer, trailers) in [(counted, ""), (chunked, "X-T: 1\r\n"), (closing, "")] {
        let origin = Origin::answering_once(answer);
        let proxy = Proxy::to(&origin);
        let answer = proxy.get("/");
        assert_eq!(answer.body.len(), body.len());
        assert_eq!(answer.trailers, trailers);
    }
}

#[test]
fn an_http_1_0_client_gets_a_plain_body_and_a_close() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let proxy = Proxy::to(&origin);
    let answer = proxy.raw(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"));
}

#[test]
fn expect_100_continue_is_asked_of_the_node_first() {
    let origin = Origin::ok("done");
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 100);
    stream.write_all(b"hello").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().text(), "done");
    assert_eq!(origin.seen()[0].body, b"hello");
}

#[test]
fn a_refused_expectation_leaves_the_body_unsent() {
    let origin = Origin::scripted(|mut line| {
        support::origin::read_head(&mut line.stream);
        line.send(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
        line.wait_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 500000\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
}

#[test]
fn interim_answers_are_passed_on() {
    let origin = Origin::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let early = Answer::read(&mut stream).unwrap();
    assert_eq!((early.status, early.field("link")), (103, Some("</a.css>")));
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
}

#[test]
fn event_streams_are_flushed_at_once() {
    let (open, wait) = support::origin::gate();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for n in 0..3 {
            line.send(format!("9\r\ndata: {n}\n\n\r\n").as_bytes());
            // The next event is sent only when the client has seen this one.
            let _ = wait.lock().recv();
        }
        line.send(b"0\r\n\r\n");
    });
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    support::origin::read_head(&mut stream).unwrap();
    for n in 0..3 {
        let mut event = [0; 14];
        stream.read_exact(&mut event).unwrap();
        assert_eq!(&event[..], format!("9\r\ndata: {n}\n\n\r\n").as_bytes());
        open.send(()).unwrap();
    }
}

#[test]
fn a_client_that_leaves_cancels_the_work_at_the_node() {
    let (closed, wait) = support::origin::gate();
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.wait_closed();
        let _ = closed.send(());
    });
    let proxy = Proxy::to(&origin);
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    until("the origin has the request", || origin.seen().len() == 1);
    drop(stream);
    wait.lock().recv_timeout(support::PATIENCE).expect("the node's connection was closed");
}

#[test]
fn a_client_that_stops_reading_is_cut() {
    let body = "x".repeat(32 << 20);
    let origin = Origin::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let proxy =
        Proxy::start(config(&[origin.address], "send_timeout = \"300ms\"", "preset = \"none\""));
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    until("the exchange was cut", || {
        proxy.node(0).connections() == (0, 0) && proxy.node(0).last_head_ns() > 0
    });
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(all.len() < body.len());
}

#[test]
fn head_204_and_304_have_no_body_and_keep_the_connection() {
    for head in ["HTTP/1.1 204 No\r\n", "HTTP/1.1 304 Same\r\nContent-Length: 9\r\nETag: x\r\n"] {
        // Kept for longer than any test takes.
        let origin = Origin::answering(format!("{head}Keep-Alive: timeout=600\r\n\r\n"));
        let proxy = Proxy::to(&origin);
        let mut stream = proxy.connect();
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            assert!(Answer::read(&mut stream).unwrap().status >= 204);
        }
        assert_eq!(origin.connections(), 1);
    }
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    let proxy = Proxy::to(&origin);
    let answer = proxy.raw(b"HEAD / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("Content-Length: 9\r\n") && answer.ends_with("\r\n\r\n"));
}

#[test]
fn a_listener_has_no_more_connections_than_it_may_tunnels_included() {
    let origin = support::origin::node("ok");
    let proxy = Proxy::start(config(&[origin.address], "max_connections = 2", "preset = \"none\""));
    let mut tunnel = proxy.connect();
    tunnel
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    assert!(support::origin::read_head(&mut tunnel).unwrap().starts_with("HTTP/1.1 101"));
    let mut kept = proxy.connect();
    let mut ask = || {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        Answer::read(&mut kept).unwrap().status
    };
    assert_eq!(ask(), 200);
    let mut third = proxy.connect();
    assert_eq!(support::read_to_end(&mut third), "", "closed at once, without a byte");
    let rejected = &proxy.snapshot.listeners[0].metrics.rejected_limit;
    assert_eq!(rejected.get(), 1);
    drop(tunnel);
    let open = &proxy.snapshot.listeners[0].open;
    until("the tunnel's place is free", || open.load(std::sync::atomic::Ordering::SeqCst) == 1);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(ask(), 200);
}

#[test]
fn a_connection_serves_so_many_requests_and_no_more() {
    let origin = Origin::ok("ok");
    let proxy = Proxy::start(config(&[origin.address], "max_requests = 3", "preset = \"none\""));
    let mut stream = proxy.connect();
    for n in 1..=3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        assert_eq!(answer.field("connection"), (n == 3).then_some("close"));
    }
    assert_eq!(support::read_to_end(&mut stream), "");
}

#[test]
fn an_idle_client_connection_is_closed_in_silence() {
    let origin = Origin::ok("ok");
    let limits = "keep_alive_timeout = \"200ms\"";
    let proxy = Proxy::start(config(&[origin.address], limits, "preset = \"none\""));
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
    assert_eq!(support::read_to_end(&mut stream), "", "no 408 to who asked for nothing");
}

#[test]
fn a_body_that_stops_is_408_and_a_slow_node_is_504() {
    let origin = Origin::scripted(|mut line| {
        line.request();
        line.wait_closed();
    });
    let proxy = Proxy::start(config(
        &[origin.address],
        "body_idle_timeout = \"200ms\"",
        "preset = \"none\"\nresponse_timeout = \"300ms\"",
    ));
    let mut stream = proxy.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 408);
    assert_eq!(proxy.get("/").status, 504);
}

#[test]
fn between_requests_the_head_timeout_does_not_run() {
    let origin = Origin::ok("ok");
    let text = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         keep_alive_timeout = \"60s\"\nrequest_head_timeout = \"3s\"\n[upstream.u]\npreset = \"none\"\n\
         nodes = [\"{}\"]\n[[route]]\npath = \"/a/*\"\nupstream = \"u\"\n",
        origin.address
    );
    let proxy = Proxy::start(support::parse(&text));
    let mut stream = proxy.connect();
    stream.write_all(b"GET /b HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 404);
    // Longer than a head may take: between requests that limit does not run.
    let mut other = proxy.connect();
    other.write_all(b"GET").unwrap();
    assert!(support::read_to_end(&mut other).starts_with("HTTP/1.1 408"));
    stream.write_all(b"GET /a/x HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
}

/// Everything but `/a/` is answered by the proxy itself.
fn answers_itself(origin: &Origin) -> Proxy {
    let text = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n\
         [[route]]\npath = \"/a/*\"\nupstream = \"u\"\n",
        origin.address
    );
    Proxy::start(support::parse(&text))
}

#[test]
fn requests_in_a_row_that_no_node_is_asked_for_do_not_keep_others_waiting() {
    const IN_A_ROW: usize = 900;
    let proxy = answers_itself(&Origin::ok("ok"));
    let ask = "HEAD /b HTTP/1.1\r\nHost: t\r\n\r\n";
    let answered = || proxy.metrics.ended().reasons.iter().map(|(_, count)| count).sum::<u64>();
    let mut other = proxy.connect();
    // The other one may come too early or too late; sooner or later it comes while they are answered.
    let between = (0..100).any(|_| {
        let mut stream = proxy.connect();
        // A connection that is known, as the other one is.
        stream.write_all(ask.as_bytes()).unwrap();
        support::origin::read_head(&mut stream).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                (0..IN_A_ROW).for_each(|_| drop(support::origin::read_head(&mut reader)))
            });
            let before = answered();
            stream.write_all(ask.repeat(IN_A_ROW).as_bytes()).unwrap();
            other.write_all(ask.as_bytes()).unwrap();
            assert!(support::origin::read_head(&mut other).unwrap().starts_with("HTTP/1.1 404"));
            (3..IN_A_ROW as u64 / 2).contains(&(answered() - before))
        })
    });
    assert!(between, "they were answered all at once, each time");
}
