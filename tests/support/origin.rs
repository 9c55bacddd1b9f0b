//! Origins: servers behind a node's address that do as a test says, byte by byte.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::PATIENCE;

/// A request as an origin read it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

/// A server on a port of its own.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

/// One accepted connection, in the hands of a test's script.
pub struct Line {
    pub stream: TcpStream,
    pub number: usize,
    input: BufReader<TcpStream>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// Runs a script on each connection, each in a thread of its own.
    pub fn scripted(script: impl Fn(Line) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Origin {
            address,
            seen: Arc::default(),
            connections: Arc::default(),
            stopped: Arc::default(),
        };
        let (seen, connections, stopped) =
            (origin.seen.clone(), origin.connections.clone(), origin.stopped.clone());
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let number = connections.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let input = BufReader::new(stream.try_clone().unwrap());
                let line = Line { stream, number, input, seen: seen.clone() };
                let script = script.clone();
                std::thread::spawn(move || script(line));
            }
        });
        origin
    }

    /// Answers every request with the same bytes, and keeps the connection.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Origin {
        let answer = answer.into();
        Origin::scripted(move |mut line| {
            while line.request().is_some() {
                line.send(&answer);
            }
        })
    }

    /// Answers every request with these bytes and closes.
    pub fn answering_once(answer: impl Into<Vec<u8>>) -> Origin {
        let answer = answer.into();
        Origin::scripted(move |mut line| {
            if line.request().is_some() {
                line.send(&answer);
            }
        })
    }

    /// 200 with a body.
    pub fn ok(body: &str) -> Origin {
        Origin::answering(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// What came, so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Connections accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Line {
    /// Reads one request and remembers it; `None` when the peer closed.
    pub fn request(&mut self) -> Option<Seen> {
        let head = read_head(&mut self.input)?;
        if field(&head, "expect").is_some() {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let (body, trailers) = read_body(&mut self.input, &head, false)?;
        let seen = Seen { head, body, trailers, connection: self.number };
        self.seen.lock().push(seen.clone());
        Some(seen)
    }

    /// Writes; the peer may be gone.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Waits until the peer closes.
    pub fn wait_closed(&mut self) {
        let mut buffer = [0; 1024];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }
}

/// A switch that scripts wait for.
pub fn gate() -> (mpsc::Sender<()>, Arc<Mutex<mpsc::Receiver<()>>>) {
    let (open, wait) = mpsc::channel();
    (open, Arc::new(Mutex::new(wait)))
}

/// Reads a head, empty line included.
pub fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The value of a field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Reads the body that a head announces, and its trailers.
pub fn read_body(
    stream: &mut impl Read,
    head: &str,
    until_close: bool,
) -> Option<(Vec<u8>, String)> {
    if field(head, "transfer-encoding").is_some() {
        return read_chunked(stream);
    }
    let mut body = Vec::new();
    match field(head, "content-length") {
        Some(length) => {
            body.resize(length.parse().ok()?, 0);
            stream.read_exact(&mut body).ok()?;
        }
        None if until_close => drop(stream.read_to_end(&mut body).ok()?),
        None => {}
    }
    Some((body, String::new()))
}

fn read_chunked(stream: &mut impl Read) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(read_line(stream)?.trim_end(), 16).ok()?;
        if size == 0 {
            break;
        }
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).ok()?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends in CR LF");
        body.extend_from_slice(&chunk[..size]);
    }
    let mut trailers = String::new();
    loop {
        let line = read_line(stream)?;
        if line == "\r\n" {
            return Some((body, trailers));
        }
        trailers.push_str(&line);
    }
}

fn read_line(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    String::from_utf8(line).ok()
}

/// Answers as a NocoBase node that is up: `ok` to its health check, a WebSocket at `/ws` that says what it
/// hears, and `body` to everything else.
pub fn node(body: &'static str) -> Origin {
    Origin::scripted(move |mut line| {
        while let Some(seen) = line.request() {
            let path = seen.head.split(' ').nth(1).unwrap_or_default();
            if path == "/ws" {
                return echo(line);
            }
            let body = if path.ends_with("/__health_check") { "ok" } else { body };
            let length = body.len();
            line.send(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
            );
        }
    })
}

/// A WebSocket that says what it hears.
pub fn echo(mut line: Line) {
    line.send(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    // An open tunnel may say nothing for as long as it likes.
    line.stream.set_read_timeout(None).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = line.stream.read(&mut buffer) {
        line.send(&buffer[..n]);
    }
}
