//! Nodes that say what a test wants, and pages at the other end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::origin::{Origin, field, read_head};
use crate::support::{PATIENCE, until};

/// The service restarts: Close frames as a server sends them.
pub(crate) const RESTART: [u8; 4] = [0x88, 2, 3, 0xf4];

/// One tunnel as a node sees it.
struct Line {
    stream: TcpStream,
    head: String,
    got: Arc<Mutex<Vec<u8>>>,
}

/// A node: it takes every WebSocket and answers every request.
pub(crate) struct Speaker {
    pub(crate) origin: Origin,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Speaker {
    /// With these bytes behind each of its handshakes.
    pub(crate) fn new(first: &'static [u8]) -> Speaker {
        let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
        let open = lines.clone();
        let origin = Origin::scripted(move |mut line| {
            while let Some(seen) = line.request() {
                if !seen.head.to_lowercase().contains("upgrade: websocket") {
                    line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    continue;
                }
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
                line.send(&[switch, first].concat());
                let (stream, got) = (line.stream.try_clone().unwrap(), Arc::default());
                open.lock().push(Line { stream, head: seen.head, got: Arc::clone(&got) });
                // An open tunnel may say nothing for as long as it likes.
                line.stream.set_read_timeout(None).unwrap();
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = line.stream.read(&mut buffer) {
                    got.lock().extend_from_slice(&buffer[..n]);
                }
                return drop(line.stream.shutdown(Shutdown::Both));
            }
        });
        Speaker { origin, lines }
    }

    /// Sends bytes through all its tunnels; their clients may have left.
    pub(crate) fn give(&self, bytes: &[u8]) {
        for line in self.lines.lock().iter_mut() {
            let _ = line.stream.write_all(bytes);
        }
    }

    /// A text message to all its tunnels.
    pub(crate) fn say(&self, text: &str) {
        self.give(&message(text));
    }

    /// Its process is killed: all its sockets end.
    pub(crate) fn end(&self) {
        for line in self.lines.lock().drain(..) {
            // The client may have been quicker.
            let _ = line.stream.shutdown(Shutdown::Both);
        }
    }

    /// What it was sent through its tunnels, each on its own.
    pub(crate) fn got(&self) -> Vec<Vec<u8>> {
        self.lines.lock().iter().map(|line| line.got.lock().clone()).collect()
    }

    /// Waits until so many tunnels have come.
    pub(crate) fn until_open(&self, count: usize) {
        until("the node has its tunnels", || self.lines.lock().len() == count);
    }

    /// Cookies of the handshakes.
    pub(crate) fn cookies(&self) -> Vec<String> {
        let lines = self.lines.lock();
        lines.iter().map(|line| field(&line.head, "cookie").unwrap_or_default().into()).collect()
    }
}

/// A text frame as a server sends it.
pub(crate) fn message(text: &str) -> Vec<u8> {
    part(0x81, text.as_bytes())
}

/// A frame with this first byte.
pub(crate) fn part(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(short as u8),
        medium @ ..65_536 => {
            frame.push(126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A page's tunnel.
pub(crate) struct Page {
    pub(crate) stream: TcpStream,
}

impl Page {
    /// Of a session, or of nobody who is signed in.
    pub(crate) fn open(address: SocketAddr, session: &str) -> Page {
        Page::open_at(address, "/ws", session).expect("a tunnel")
    }

    /// None if the handshake was refused.
    pub(crate) fn open_at(address: SocketAddr, target: &str, session: &str) -> Option<Page> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cookie = match session {
            "" => String::new(),
            session => format!("Cookie: a=b; nb_auth_token_main={session}\r\n"),
        };
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{cookie}\r\n"
        )
        .unwrap();
        let head = read_head(&mut stream)?;
        head.starts_with("HTTP/1.1 101").then_some(Page { stream })
    }

    /// Reads this and no more.
    pub(crate) fn reads(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.stream.read_exact(&mut got).unwrap();
        assert!(got == expected, "{}", String::from_utf8_lossy(&got));
    }

    /// Everything up to the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// It got nothing, so far, but what it has read.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let silent = self.stream.peek(&mut [0]).is_err();
        self.stream.set_nonblocking(false).unwrap();
        silent
    }
}

/// The code in a masked Close frame.
pub(crate) fn masked_code(frame: &[u8]) -> u16 {
    let [0x88, 0x82, a, b, _, _, high, low] = *frame else { panic!("no Close frame: {frame:x?}") };
    u16::from_be_bytes([high ^ a, low ^ b])
}
