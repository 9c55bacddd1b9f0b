//! A node of which each frame is written by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;

use super::support::h2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, SETTINGS, block,
};
use super::support::{Answer, origin, until};
use super::{ask_all, to};

const ACK: u8 = 1;
const CANCEL: u32 = 8;

/// Answers that are whole, after the first, which waits for the end of all.
const WHOLE: usize = 600;
/// Those that their clients leave.
const LEFT: usize = 300;

struct Node {
    address: SocketAddr,
    /// Why streams were reset.
    resets: Arc<Mutex<Vec<u32>>>,
    connections: Arc<AtomicUsize>,
}

impl Node {
    fn start() -> Node {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let node = Node { address, resets: Arc::default(), connections: Arc::default() };
        let (resets, connections) = (node.resets.clone(), node.connections.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = socket.accept() {
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, SeqCst);
                let resets = resets.clone();
                std::thread::spawn(move || serve(Raw { stream }, &resets));
            }
        });
        node
    }

    fn cancelled(&self) -> usize {
        self.resets.lock().iter().filter(|reason| **reason == CANCEL).count()
    }
}

fn serve(mut raw: Raw, resets: &Mutex<Vec<u32>>) {
    let mut preface = [0; 24];
    raw.stream.read_exact(&mut preface).unwrap();
    raw.send(SETTINGS, 0, 0, &[]);
    let mut asked = 0;
    while let Some(frame) = raw.next() {
        let stream = frame.stream;
        match frame.kind {
            SETTINGS | PING if frame.flags & ACK == 0 => {
                raw.send(frame.kind, ACK, 0, if frame.kind == PING { &frame.payload } else { &[] });
            }
            HEADERS => {
                answer(&mut raw, stream, asked);
                asked += 1;
            }
            RST_STREAM => {
                // What was on its way when nobody wanted it any more.
                assert!((0..8).all(|_| raw.send(DATA, 0, stream, b"late")));
                resets.lock().push(u32::from_be_bytes(frame.payload.try_into().unwrap()));
            }
            _ => {}
        }
    }
}

fn answer(raw: &mut Raw, stream: u32, nth: usize) {
    let head = |length: &str| [&[0x88], &block(&[("content-length", length)])[..]].concat();
    match nth {
        0 => {
            raw.send(HEADERS, END_HEADERS, stream, &head("3"));
        }
        1..=WHOLE => {
            raw.send(HEADERS, END_HEADERS, stream, &head("5"));
            raw.send(DATA, END_STREAM, stream, b"whole");
        }
        _ if nth <= WHOLE + LEFT => {
            raw.send(HEADERS, END_HEADERS, stream, &head("100000"));
        }
        _ => {
            raw.send(DATA, END_STREAM, 1, b"end");
            raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &head("0"));
        }
    }
}

#[test]
fn clients_that_leave_take_nobody_along() {
    let node = Node::start();
    let proxy = to(&[node.address]);
    let ask = || ask_all(&proxy, 1).pop().unwrap();
    let mut first = ask();
    assert!(origin::read_head(&mut first).unwrap().starts_with("HTTP/1.1 200"));
    let mut busy = proxy.connect();
    for _ in 0..WHOLE {
        busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut busy).unwrap().text(), "whole");
    }
    for nth in 1..=LEFT {
        let mut leaves = ask();
        assert!(origin::read_head(&mut leaves).unwrap().starts_with("HTTP/1.1 200"));
        drop(leaves);
        until("it is cancelled", || node.cancelled() >= nth);
    }
    assert_eq!(proxy.get("/").status, 200);
    let mut end = [0; 3];
    first.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"end");
    // Each was cancelled once, and what came after it was expected.
    assert!(node.resets.lock().iter().all(|reason| *reason == CANCEL), "{:?}", node.resets);
    assert_eq!((node.cancelled(), node.connections.load(SeqCst)), (LEFT, 1));
}
