//! Clients that send or take so little at a time that nobody waits for them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::origin::Origin;
use crate::support::{Answer, PATIENCE, Proxy, config, until};

/// Sends a byte of a body every few milliseconds, for as long as somebody takes it. The answer.
fn trickle(proxy: &Proxy, length: usize) -> Answer {
    let mut stream = proxy.connect();
    write!(stream, "POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n").unwrap();
    let watch = stream.try_clone().unwrap();
    watch.set_nonblocking(true).unwrap();
    until("it is answered", || {
        let _ = stream.write_all(b"x");
        !matches!(watch.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    stream.set_nonblocking(false).unwrap();
    Answer::read(&mut stream).expect("an answer")
}

#[test]
fn a_body_that_trickles_is_answered_408() {
    let origin = Origin::ok("never");
    let more = "preset = \"none\"";
    // Progress all the while, so that the idle time-out alone never comes.
    let listener = "body_idle_timeout = \"100ms\"\nmin_body_rate = \"1MiB\"";
    let proxy = Proxy::start(config(&[origin.address], listener, more));
    // One that is read before a node is asked, and one that goes there as it comes.
    for length in [60_000, 10_000_000] {
        let answer = trickle(&proxy, length);
        assert_eq!(answer.status, 408, "{length}");
        assert!(answer.text().contains("did not arrive in time"), "{}", answer.text());
    }
}

#[test]
fn without_a_rate_a_trickle_is_waited_for() {
    let origin = Origin::ok("there you are");
    let listener = "body_idle_timeout = \"100ms\"\nmin_body_rate = 0";
    let proxy = Proxy::start(config(&[origin.address], listener, ""));
    let answer = trickle(&proxy, 400);
    assert_eq!((answer.status, answer.text().as_str()), (200, "there you are"));
}

#[test]
fn in_a_conversation_a_body_has_its_own_pace() {
    let origin = Origin::scripted(|mut line| {
        let mut seen = Vec::new();
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            let mut byte = [0];
            line.stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        let mut body = vec![0; 100_000];
        if line.stream.read_exact(&mut body).is_ok() {
            line.send(b"hi");
        }
    });
    let listener = "body_idle_timeout = \"200ms\"\nmin_body_rate = \"1MiB\"";
    let proxy = Proxy::start(config(&[origin.address], listener, "preset = \"none\""));
    let mut stream = proxy.connect();
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nx").unwrap();
    // The head of the answer is there, so far as it can be seen without taking it.
    stream.peek(&mut [0]).unwrap();
    let (begun, mut sent) = (Instant::now(), 1);
    // Seven windows; three are too many for who is not answered.
    until("it has trickled for long", || {
        sent += stream.write(b"x").unwrap();
        begun.elapsed() > Duration::from_millis(1500)
    });
    stream.write_all(&vec![b'x'; 100_000 - sent]).unwrap();
    assert_eq!(Answer::read(&mut stream).expect("an answer").text(), "hi");
}

/// Takes a little of an answer every few milliseconds. Whether it came to its end.
fn sip(proxy: &Proxy, length: usize) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // Little room, so that what is not taken stays with the proxy.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let (mut taken, mut end) = (0, None);
    until("it ends", || {
        match stream.read(&mut [0; 512]) {
            Ok(0) => end = Some(taken >= length),
            Ok(n) => taken += n,
            Err(_) => end = Some(false),
        }
        std::thread::park_timeout(Duration::from_millis(8));
        end.is_some()
    });
    end.unwrap()
}

#[test]
fn an_answer_that_is_sipped_is_cut() {
    let body = "x".repeat(16 << 20);
    let origin = Origin::ok(&body);
    let listener = "send_timeout = \"100ms\"\nmin_body_rate = \"1GiB\"";
    let proxy = Proxy::start(config(&[origin.address], listener, ""));
    assert!(!sip(&proxy, body.len()));
    until("it is counted", || crate::errors(&proxy, "client_stalled") == 1);
}
