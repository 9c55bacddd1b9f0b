//! Streams and connections that end before their time.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use cobalance::telemetry::metrics::AttemptResult;
use h2::Reason;
use http::Response;

use super::node::{Asked, Node};
use super::support::origin;
use super::support::{Answer, Proxy, config, read_to_end, until};
use super::{BOTH, H2, ask_all, held, to};

const POST: &[u8] =
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";

/// Each node after the other.
fn in_turn(nodes: &[std::net::SocketAddr]) -> Proxy {
    Proxy::start(config(nodes, BOTH, &format!("{H2}\nbalance = \"round_robin\"")))
}

fn post(proxy: &Proxy) -> Option<Answer> {
    let mut stream = proxy.connect();
    stream.write_all(POST).unwrap();
    Answer::read(&mut stream)
}

#[test]
fn an_answer_that_is_reset_is_not_taken_for_whole() {
    let (cut, gate) = tokio::sync::watch::channel(0);
    let node = Node::scripted(move |mut asked: Asked| {
        let mut gate = gate.clone();
        async move {
            let head = match asked.path() {
                "/length" => Response::builder().header("content-length", 10),
                _ => Response::builder(),
            };
            let mut send = asked.head(head, false).unwrap();
            send.send_data(Bytes::from_static(b"half"), false).unwrap();
            gate.wait_for(|cut| *cut > asked.nth).await.unwrap();
            send.send_reset(Reason::INTERNAL_ERROR);
        }
    });
    let proxy = to(&[node.address]);
    for (nth, path) in ["/length", "/chunked"].into_iter().enumerate() {
        let mut stream = proxy.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = origin::read_head(&mut stream).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut half = vec![0; if path == "/length" { 4 } else { 7 }];
        stream.read_exact(&mut half).unwrap();
        cut.send(nth + 1).unwrap();
        let rest = read_to_end(&mut stream);
        assert!(rest.is_empty() || rest == "\r\n", "{rest:?} is no end of {path}");
    }
    let mut client = super::Client::plain(proxy.address);
    let (answer, _) = client.begin(super::support::h2::get("/length"), true);
    let ended = client.run(async {
        let mut recv = answer.await.unwrap().into_body();
        assert_eq!(recv.data().await.unwrap().unwrap(), "half");
        cut.send(3).unwrap();
        recv.data().await
    });
    assert!(matches!(ended, Some(Err(_))), "{ended:?}");
}

#[test]
fn what_a_node_refuses_is_asked_again_even_if_it_must_not_run_twice() {
    let node = Node::scripted(|mut asked: Asked| async move {
        match asked.nth {
            1 => asked.respond.send_reset(Reason::REFUSED_STREAM),
            _ => asked.answer("ok").await,
        }
    });
    let proxy = to(&[node.address]);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(post(&proxy).unwrap().text(), "ok");
    assert_eq!((node.seen().len(), node.connections()), (3, 2));
    // Elsewhere, if that was the connection's first.
    let refuses = Node::scripted(|mut asked: Asked| async move {
        asked.respond.send_reset(Reason::REFUSED_STREAM);
    });
    let proxy = in_turn(&[refuses.address, node.address]);
    for _ in 0..4 {
        assert_eq!(post(&proxy).unwrap().text(), "ok");
    }
    assert!(!refuses.seen().is_empty());
}

#[test]
fn what_may_have_run_is_not_asked_again() {
    let node = Node::scripted(|mut asked: Asked| async move {
        match asked.nth {
            0 => asked.answer("ok").await,
            _ => asked.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    });
    let proxy = to(&[node.address]);
    assert_eq!(proxy.get("/").status, 200);
    // On a connection that is used again and good: that is the node's own doing.
    assert_eq!(post(&proxy).unwrap().status, 502);
    assert_eq!((node.seen().len(), node.connections()), (2, 1));
    let resets = &proxy.node(0).metrics.attempts[AttemptResult::Reset as usize];
    until("it is counted", || resets.get() == 1);
}

#[test]
fn what_cannot_be_said_to_a_node_is_no_fault_of_it() {
    let nodes = [Node::ok("ok"), Node::ok("ok")];
    let proxy = in_turn(&[nodes[0].address, nodes[1].address]);
    // A name that HTTP/1.1 admits, and no connection to a node of HTTP/2 can carry.
    let odd = b"GET / HTTP/1.1\r\nHost: a%b\r\nConnection: close\r\n\r\n";
    for _ in 0..12 {
        // Connections that were used before as well.
        assert_eq!(proxy.get("/").status, 200);
        let answer = proxy.raw(odd);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("no form in HTTP/2"), "{answer}");
    }
    assert_eq!(nodes.iter().map(|node| node.seen().len()).sum::<usize>(), 12);
    assert_eq!(nodes.iter().map(Node::connections).sum::<usize>(), 2);
    assert_eq!(proxy.count("retries_total", &[]), 0.0);
    for nth in 0..2 {
        let attempts = &proxy.node(nth).metrics.attempts;
        assert_eq!(attempts[AttemptResult::Reset as usize].get(), 0);
    }
    until("all are counted", || proxy.count("requests_total", &["400"]) == 12.0);
}

#[test]
fn no_request_fails_while_connections_are_sent_away() {
    let node = Arc::new(Node::scripted(|asked: Asked| asked.answer("ok")));
    let proxy = Arc::new(to(&[node.address]));
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (proxy, over, served) = (proxy.clone(), over.clone(), served.clone());
            std::thread::spawn(move || {
                let mut stream = proxy.connect();
                while !over.load(SeqCst) {
                    stream
                        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                        .unwrap();
                    let answer = Answer::read(&mut stream).unwrap();
                    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
                    served.fetch_add(1, SeqCst);
                    if answer.field("connection") == Some("close") {
                        stream = proxy.connect();
                    }
                }
            })
        })
        .collect();
    for round in 1..=10 {
        until("requests are served", || served.load(SeqCst) >= 50 * round);
        let before = node.connections();
        node.go_away();
        until("a new connection", || node.connections() > before);
    }
    over.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    until("the old ones are closed", || node.open() == 1);
}

#[test]
fn a_node_that_dies_takes_only_its_own_streams_along() {
    let (dying, _open) = held();
    let other = Node::ok("other");
    let proxy = in_turn(&[dying.address, other.address]);
    let mut asked = ask_all(&proxy, 8);
    until("both are asked", || dying.seen().len() + other.seen().len() >= 8);
    let lost = dying.seen().len();
    assert!(lost > 0);
    dying.die();
    // GET is safe to repeat.
    for stream in &mut asked {
        assert_eq!(Answer::read(stream).unwrap().text(), "other");
    }
    for _ in 0..4 {
        assert_eq!(proxy.get("/").text(), "other");
    }
}

#[test]
fn an_answer_before_the_end_of_a_request_ends_the_exchange() {
    let node = Node::scripted(|mut asked: Asked| async move {
        let head = Response::builder().status(413).header("content-length", 3);
        let mut send = asked.head(head, false).unwrap();
        // What the library does about the rest is RST_STREAM with NO_ERROR (RFC 9113, 8.1).
        send.send_data(Bytes::from_static(b"big"), true).unwrap();
    });
    let proxy = to(&[node.address]);
    let mut stream = proxy.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    // The answer does not wait for that: its connection may have ended by now.
    let _ = stream.write_all(&[b'x'; 100_000]);
    let answer = Answer::read(&mut stream).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
}

#[test]
fn a_client_that_leaves_cancels_its_stream() {
    let (ended, said) = std::sync::mpsc::channel();
    let node = Node::scripted(move |mut asked: Asked| {
        let ended = ended.clone();
        async move {
            let reason = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
            ended.send(reason.unwrap()).unwrap();
        }
    });
    let proxy = to(&[node.address]);
    let stream = ask_all(&proxy, 1);
    until("it is asked", || node.seen().len() == 1);
    drop(stream);
    assert_eq!(said.recv_timeout(super::support::PATIENCE).unwrap(), Reason::CANCEL);
    until("the connection stays", || proxy.node(0).connections() == (1, 0));
}

#[test]
fn a_drained_node_keeps_its_streams_and_then_no_connection() {
    let (node, open) = held();
    let other = Node::ok("other");
    let proxy = in_turn(&[node.address, other.address]);
    let mut asked = ask_all(&proxy, 2);
    until("it is asked", || !node.seen().is_empty());
    proxy.drain_node(0, Duration::from_secs(1));
    assert_eq!(proxy.get("/").text(), "other");
    open.send(true).unwrap();
    let answers: Vec<_> = asked.iter_mut().map(|s| Answer::read(s).unwrap().text()).collect();
    assert!(answers.contains(&"ok".to_owned()), "{answers:?}");
    until("it has no connection", || node.open() == 0);
    until("none is counted", || proxy.node(0).connections() == (0, 0));
}

#[test]
fn a_connection_serves_for_so_long_and_no_longer() {
    let node = Node::ok("x");
    let limits = format!("{H2}\nmax_requests_per_connection = 2");
    let proxy = Proxy::start(config(&[node.address], BOTH, &limits));
    for _ in 0..5 {
        assert_eq!(proxy.get("/").text(), "x");
    }
    assert_eq!(node.connections(), 3);
    until("old ones are closed", || node.open() <= 1);
}

#[test]
fn a_broken_answer_says_so_to_its_client() {
    // A length that the node does not keep.
    let node = Node::scripted(|mut asked: Asked| async move {
        let head = Response::builder().header("content-length", 100_000);
        let mut send = asked.head(head, false).unwrap();
        let _ = super::support::h2::send_all(&mut send, &[b'x'; 50_000], false).await;
        let _ = send.send_data(Bytes::new(), true);
    });
    let proxy = to(&[node.address]);
    let mut stream = proxy.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = origin::read_head(&mut stream).unwrap();
    let rest = read_to_end(&mut stream);
    assert!(rest.len() < 100_000, "{head}");
}
