//! Clients that send or take so little at a time that nobody waits for them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::origin::Origin;
use crate::support::{Answer, PATIENCE, Proxy, config, until};

/// The longest time from one byte to the next.
struct Pause {
    last: Instant,
    longest: Duration,
}

impl Pause {
    fn begin() -> Pause {
        Pause { last: Instant::now(), longest: Duration::ZERO }
    }

    /// Another byte is sent.
    fn end(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// Sends a byte of a body every few milliseconds, for as long as somebody takes it. The answer, and how long the
/// client paused at most.
fn trickle(proxy: &Proxy, length: usize) -> (Answer, Duration) {
    let mut pause = Pause::begin();
    let mut stream = proxy.connect();
    write!(stream, "POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n").unwrap();
    let watch = stream.try_clone().unwrap();
    watch.set_nonblocking(true).unwrap();
    until("it is answered", || {
        let _ = stream.write_all(b"x");
        pause.end();
        !matches!(watch.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    stream.set_nonblocking(false).unwrap();
    (Answer::read(&mut stream).expect("an answer"), pause.longest)
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
        let (answer, _) = trickle(&proxy, length);
        assert_eq!(answer.status, 408, "{length}");
        assert!(answer.text().contains("did not arrive in time"), "{}", answer.text());
    }
}

#[test]
fn without_a_rate_a_trickle_is_waited_for() {
    let origin = Origin::ok("there you are");
    let listener = "body_idle_timeout = \"100ms\"\nmin_body_rate = 0";
    let proxy = Proxy::start(config(&[origin.address], listener, ""));
    // Four windows; three are too many where there is a rate. A client that was held up itself tries again.
    until("nothing held it up", || {
        let (answer, paused) = trickle(&proxy, 400);
        let steady = paused < Duration::from_millis(100);
        let told = (answer.status, answer.text());
        assert!(!steady || told == (200, "there you are".to_owned()), "{told:?}");
        steady
    });
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
    // A client that was held up itself tries again.
    until("nothing held it up", || {
        let (answer, paused) = converse(&proxy);
        let steady = paused < Duration::from_millis(200);
        let text = answer.map(|answer| answer.text());
        assert!(!steady || text.as_deref() == Some("hi"), "{text:?}");
        steady
    });
}

/// Trickles for long after its answer has begun. What came of it, and how long the client paused at most.
fn converse(proxy: &Proxy) -> (Option<Answer>, Duration) {
    let mut stream = proxy.connect();
    let mut pause = Pause::begin();
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nx").unwrap();
    // The head of the answer is there, so far as it can be seen without taking it.
    stream.peek(&mut [0]).unwrap();
    let (begun, mut sent) = (Instant::now(), 1);
    // Seven windows; three are too many for who is not answered.
    until("it has trickled for long", || {
        // Who paused for too long may be gone.
        sent += stream.write(b"x").unwrap_or(0);
        pause.end();
        begun.elapsed() > Duration::from_millis(1500)
    });
    let _ = stream.write_all(&vec![b'x'; 100_000 - sent]);
    (Answer::read(&mut stream), pause.longest)
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
