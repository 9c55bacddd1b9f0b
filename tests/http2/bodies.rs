//! Bodies and what goes around them.

use std::io::{Read, Write};

use http::HeaderMap;

use super::support::h2::{
    self, Client, DATA, END_HEADERS, HEADERS, RST_STREAM, Raw, get, request, usual,
};
use super::support::origin::{Origin, gate};
use super::support::until;
use super::{count, proxy, proxy_with};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// Answers with what it was sent.
pub(super) fn mirror() -> Origin {
    Origin::scripted(|mut line| {
        while let Some(seen) = line.request() {
            let length = seen.body.len();
            line.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
            line.send(&seen.body);
        }
    })
}

/// Reads heads alone, and wants no body.
pub(super) fn declining() -> Origin {
    Origin::scripted(|mut line| {
        super::support::origin::read_head(&mut line.stream);
        line.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!");
        line.wait_closed();
    })
}

#[test]
fn large_bodies_pass_both_ways() {
    let origin = mirror();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    for length in [0, 1, 16 * 1024, 65_535, 65_536, 3_000_000] {
        let body = pattern(length);
        let got = client.post("/x", &body, None).unwrap();
        assert_eq!(got.status, 200);
        assert!(got.body == body, "{length}");
    }
}

#[test]
fn a_length_that_is_announced_stays_one() {
    let origin = mirror();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let body = pattern(100_000);
    let mut head = request("PUT", "/x");
    head.headers_mut().insert("content-length", body.len().into());
    let (answer, mut send) = client.begin(head, false);
    let got = client.run(async {
        h2::send_all(&mut send, &body, true).await.unwrap();
        h2::whole(answer).await.unwrap()
    });
    assert!(got.body == body);
    assert!(origin.seen()[0].head.contains("Content-Length: 100000\r\n"));
}

#[test]
fn a_body_of_another_length_than_announced_is_no_request() {
    let origin = mirror();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    for length in [3u32, 5] {
        let mut head = request("POST", "/x");
        head.headers_mut().insert("content-length", length.into());
        let (answer, mut send) = client.begin(head, false);
        let error = client.run(async {
            let _ = h2::send_all(&mut send, b"four", true).await;
            h2::whole(answer).await.unwrap_err()
        });
        assert_eq!(error.reason(), Some(::h2::Reason::PROTOCOL_ERROR), "{length}");
    }
    assert!(origin.seen().is_empty());
    assert_eq!(client.get("/after").status, 200);
}

#[test]
fn chunks_and_trailers_of_a_node_become_data_and_trailers() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n\
         5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nGrpc-Status: 0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\n",
    );
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let mut head = get("/x");
    head.headers_mut().insert("te", "trailers".parse().unwrap());
    let got = client.ask(head).unwrap();
    assert_eq!((got.status, got.text()), (200, "hello world"));
    assert!(got.field("transfer-encoding").is_none() && got.field("trailer").is_some());
    let trailers = got.trailers.unwrap();
    assert_eq!(
        (trailers["grpc-status"].as_bytes(), trailers["x-sum"].as_bytes()),
        (&b"0"[..], &b"7"[..])
    );
    assert!(!trailers.contains_key("content-length"));
    let head = &origin.seen()[0].head;
    assert!(head.contains("TE: trailers\r\nConnection: TE\r\n"), "{head}");
    // Without trailers the last piece of data is the end.
    let got = client.get("/y");
    assert_eq!(got.text(), "hello world");
}

#[test]
fn trailers_of_a_request_reach_the_node() {
    let origin = mirror();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    for body in [&b"four"[..], b"", &pattern(200_000)] {
        let got = client.post("/x", body, Some(trailers.clone())).unwrap();
        assert!(got.body == body);
        let seen = origin.seen().pop().unwrap();
        assert!(seen.head.contains("Transfer-Encoding: chunked\r\n"), "{}", seen.head);
        assert_eq!(seen.trailers, "x-sum: 7\r\n");
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::scripted(|mut line| {
        while let Some(seen) = line.request() {
            let path = seen.head.split(' ').nth(1).unwrap();
            line.send(match path {
                "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            });
        }
    });
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    for (method, path, status, length) in [
        ("HEAD", "/head", 200, Some("5")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("9")),
        ("GET", "/empty", 200, Some("0")),
    ] {
        let (answer, _) = client.begin(request(method, path), true);
        let answer = client.run(answer).unwrap();
        assert!(answer.body().is_end_stream(), "{path}");
        assert_eq!(answer.status(), status);
        let got = answer.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(got, length, "{path}");
    }
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    let origin = Origin::answering_once("HTTP/1.1 200 OK\r\n\r\nto the end");
    let proxy = proxy(&origin);
    assert_eq!(Client::plain(proxy.address).get("/").text(), "to the end");
}

#[test]
fn interim_answers_pass() {
    let origin = Origin::scripted(|mut line| {
        line.request();
        line.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        line.wait_closed();
    });
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let (mut answer, _) = client.begin(get("/"), true);
    let (hint, got) = client.run(async {
        let hint = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        (hint.unwrap().unwrap(), h2::whole(answer).await.unwrap())
    });
    assert_eq!(
        (hint.status().as_u16(), &hint.headers()["link"]),
        (103, &"</a.css>".parse::<http::HeaderValue>().unwrap())
    );
    assert_eq!(got.text(), "ok");
}

#[test]
fn a_client_that_waits_to_be_told_is_told() {
    let origin = mirror();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let mut head = request("POST", "/x");
    head.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut answer, mut send) = client.begin(head, false);
    let (told, got) = client.run(async {
        let told = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        h2::send_all(&mut send, b"body", true).await.unwrap();
        (told.unwrap().unwrap(), h2::whole(answer).await.unwrap())
    });
    assert_eq!((told.status().as_u16(), got.text()), (100, "body"));
}

#[test]
fn an_answer_before_the_body_is_whole_and_the_rest_is_declined() {
    let origin = declining();
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let mut head = request("POST", "/x");
    head.headers_mut().insert("content-length", 10_000_000u32.into());
    let (answer, mut send) = client.begin(head, false);
    let (got, declined) = client.run(async {
        let got = h2::whole(answer).await.unwrap();
        (got, std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap())
    });
    assert_eq!((got.status, got.text()), (413, "no!"));
    assert_eq!(declined, ::h2::Reason::NO_ERROR);
}

#[test]
fn what_still_comes_of_declined_uploads_is_no_error() {
    let origin = declining();
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    let fields = [&usual("POST", "/")[..], &[("content-length", "10000000")]].concat();
    // More than are remembered by default, all within its time, and fewer than may be open.
    let streams = (0..100).map(|nth| 2 * nth + 1);
    for stream in streams.clone() {
        raw.open(stream, END_HEADERS, &fields);
        let declined = raw.await_kind(RST_STREAM).unwrap();
        assert_eq!((declined.stream, declined.payload), (stream, vec![0; 4]));
    }
    let remembered = || proxy.metrics.buffered_now();
    until("they are counted", || remembered() >= 100 * 512);
    for stream in streams.cycle().take(1_000) {
        raw.send(DATA, 0, stream, &[b'x'; 100]);
    }
    raw.open(201, END_HEADERS, &fields);
    let head = raw.await_kind(HEADERS).expect("the connection has ended");
    assert_eq!(head.stream, 201);
    assert_eq!(count(&proxy, "http2_floods_total", &[]), 0.0);
    drop(raw);
    until("and are forgotten with their connection", || remembered() == 0);
}

#[test]
fn what_a_client_does_not_take_waits_at_the_node() {
    const LENGTH: usize = 32 << 20;
    let (sent, written) = gate();
    let sent = parking_lot::Mutex::new(sent);
    let origin = Origin::scripted(move |mut line| {
        line.request();
        line.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
        line.stream.set_nonblocking(true).unwrap();
        let mut total = 0;
        let mut silent = 0;
        // Until nobody takes more for a while: whatever is between us is full.
        while silent < 200 {
            match line.stream.write(&[b'x'; 65_536]) {
                Ok(n) => (total, silent) = (total + n, 0),
                Err(_) => silent += 1,
            }
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        assert!(total < LENGTH / 4 * 3, "{total} bytes were taken for a client that reads nothing");
        sent.lock().send(()).unwrap();
        line.stream.set_nonblocking(false).unwrap();
        while total < LENGTH {
            let n = line.stream.write(&[b'x'; 65_536][..65_536.min(LENGTH - total)]).unwrap();
            total += n;
        }
        line.wait_closed();
    });
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let (answer, _) = client.begin(get("/"), true);
    let mut answer = client.run(answer).unwrap();
    written.lock().recv_timeout(super::support::PATIENCE).unwrap();
    let body = client.run(h2::read_all(answer.body_mut())).unwrap();
    assert_eq!(body.len(), LENGTH);
}

#[test]
fn what_a_node_does_not_take_waits_at_the_client() {
    let (go, wait) = gate();
    let origin = Origin::scripted(move |mut line| {
        super::support::origin::read_head(&mut line.stream);
        wait.lock().recv().unwrap();
        let mut left = 16 << 20;
        let mut buffer = vec![0; 65_536];
        while left > 0 {
            left -= line.stream.read(&mut buffer).unwrap();
        }
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        line.wait_closed();
    });
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let mut head = request("POST", "/x");
    head.headers_mut().insert("content-length", (16 << 20).into());
    let (answer, mut send) = client.begin(head, false);
    // Another stream is served while the first one's window is closed.
    let body = vec![0; 16 << 20];
    let got = client.run(async {
        let mut go = Some(go);
        let sending = h2::send_all(&mut send, &body, true);
        let mut sending = std::pin::pin!(sending);
        let stuck = tokio::time::timeout(std::time::Duration::from_millis(300), sending.as_mut());
        assert!(stuck.await.is_err(), "sixteen megabytes were taken for a node that reads nothing");
        go.take().unwrap().send(()).unwrap();
        sending.await.unwrap();
        h2::whole(answer).await.unwrap()
    });
    assert_eq!(got.text(), "ok");
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_announcement_or_when_it_comes() {
    let origin = mirror();
    let proxy = proxy_with(&origin, "max_body = \"100KiB\"");
    let mut client = Client::plain(proxy.address);
    let mut head = request("POST", "/x");
    head.headers_mut().insert("content-length", 200_000u32.into());
    let (answer, _send) = client.begin(head, false);
    assert_eq!(client.run(h2::whole(answer)).unwrap().status, 413);
    let got = client.post("/x", &pattern(200_000), None);
    // Either the answer was sooner, or the reset of what was still being sent.
    assert!(got.as_ref().map_or(true, |got| got.status == 413), "{got:?}");
    until("both are counted", || count(&proxy, "requests_total", &["POST", "413"]) == 2.0);
}
