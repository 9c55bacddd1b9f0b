//! Both ends of a proxy in one thread: the nodes behind it, and clients that ask at moments of their own.
//!
//! A load generator and origins that share a core wait for each other's time slices, and a proxy's tail
//! latency drowns in that. Here one loop serves both, so that what is left of a late answer is the
//! proxy's, and the same few microseconds of this loop for each proxy.
//!
//! `both_ends COMMANDS NODE…` (ports) serves nodes for as long as it lives. A line
//! `PORT RATE SECONDS CONNECTIONS` on a connection to the commands' port sends that many requests a second
//! there, at moments of a Poisson process, and is answered with a line of JSON. A request's latency counts
//! from the moment at which it was due, whether or not a connection was free then. The requests come in
//! bursts with rests between them: a thread that spins without an end would be held back by the kernel where
//! it runs with real-time priority.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

/// A node's answer to everything but its health check.
const BODY: usize = 1024;
/// Connections are opened and used once before a run counts.
const OPENING: Duration = Duration::from_millis(300);
/// Requests are sent for so long at a time.
const BURST: Duration = Duration::from_millis(400);
/// And then none for so long.
const REST: Duration = Duration::from_millis(200);
/// What is not answered so long after a run's end is an error.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let ports: Vec<u16> =
        std::env::args().skip(1).map(|port| port.parse()).collect::<Result<_, _>>()?;
    let (commands, nodes) = ports.split_first().ok_or("usage: both_ends COMMANDS NODE…")?;
    let mut ends = Ends::new(nodes)?;
    let commands = TcpListener::bind((Ipv4Addr::LOCALHOST, *commands))?;
    ends.add(Socket::Commands(commands))?;
    loop {
        ends.turn(None)?;
        while let Some((token, order)) = ends.orders.pop_front() {
            let told = ends.run(&order)?;
            if let Some(Socket::Command(stream)) = &mut ends.sockets[token] {
                stream.set_nonblocking(false)?;
                writeln!(stream, "{told}")?;
            }
            ends.sockets[token] = None;
        }
    }
}

/// Everything that the loop watches.
enum Socket {
    Commands(TcpListener),
    Node(TcpListener),
    Command(TcpStream),
    /// A proxy's connection to a node, and what of a request has come.
    Asked(TcpStream, Vec<u8>),
    Client(Client),
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request that it waits for was due.
    due: Option<Instant>,
}

struct Order {
    port: u16,
    rate: f64,
    seconds: f64,
    connections: usize,
}

struct Ends {
    epoll: OwnedFd,
    sockets: Vec<Option<Socket>>,
    events: Vec<epoll::Event>,
    orders: VecDeque<(usize, Order)>,
    free: VecDeque<usize>,
    took: Vec<Duration>,
    errors: usize,
    answer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Ends {
    fn new(nodes: &[u16]) -> Result<Ends, Box<dyn Error>> {
        let mut ends = Ends {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sockets: Vec::new(),
            events: Vec::with_capacity(256),
            orders: VecDeque::new(),
            free: VecDeque::new(),
            took: Vec::new(),
            errors: 0,
            answer: response(&"x".repeat(BODY)),
            scratch: vec![0; 64 * 1024],
        };
        for node in nodes {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *node))?;
            ends.add(Socket::Node(listener))?;
        }
        Ok(ends)
    }

    fn add(&mut self, socket: Socket) -> io::Result<usize> {
        let token = self.sockets.len();
        let data = epoll::EventData::new_u64(token as u64);
        let flags = epoll::EventFlags::IN;
        match &socket {
            Socket::Commands(listener) | Socket::Node(listener) => {
                listener.set_nonblocking(true)?;
                epoll::add(&self.epoll, listener, data, flags)?;
            }
            Socket::Command(stream)
            | Socket::Asked(stream, _)
            | Socket::Client(Client { stream, .. }) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                epoll::add(&self.epoll, stream, data, flags)?;
            }
        }
        self.sockets.push(Some(socket));
        Ok(token)
    }

    /// Serves what is there; waits so long for something, or until there is. Within a burst the loop spins,
    /// because the kernel's time-outs are coarser than the pauses between two requests.
    fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let nanos = |wait: Duration| i64::from(wait.subsec_nanos());
        let timeout =
            wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: nanos(wait) });
        self.events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref())?;
        for index in 0..self.events.len() {
            let token = self.events[index].data.u64() as usize;
            let Some(socket) = self.sockets[token].take() else { continue };
            self.sockets[token] = self.serve(token, socket)?;
        }
        Ok(())
    }

    /// What is left of a socket when what was there has been read.
    fn serve(&mut self, token: usize, socket: Socket) -> io::Result<Option<Socket>> {
        match socket {
            Socket::Commands(listener) => {
                let (stream, _) = listener.accept()?;
                self.add(Socket::Command(stream))?;
                Ok(Some(Socket::Commands(listener)))
            }
            Socket::Node(listener) => {
                while let Ok((stream, _)) = listener.accept() {
                    self.add(Socket::Asked(stream, Vec::new()))?;
                }
                Ok(Some(Socket::Node(listener)))
            }
            Socket::Command(stream) => Ok(self.ordered(token, stream)),
            Socket::Asked(stream, received) => Ok(self.answer(stream, received)),
            Socket::Client(client) => Ok(self.answered(token, client)),
        }
    }

    /// Reads an order; a line comes in one piece.
    fn ordered(&mut self, token: usize, mut stream: TcpStream) -> Option<Socket> {
        let length = stream.read(&mut self.scratch).ok().filter(|length| *length > 0)?;
        let line = String::from_utf8_lossy(&self.scratch[..length]).into_owned();
        let mut words = line.split_whitespace();
        let order = Order {
            port: words.next()?.parse().ok()?,
            rate: words.next()?.parse().ok()?,
            seconds: words.next()?.parse().ok()?,
            connections: words.next()?.parse().ok()?,
        };
        self.orders.push_back((token, order));
        Some(Socket::Command(stream))
    }

    /// As a node: answers each request that has come whole. None has a body.
    fn answer(&mut self, mut stream: TcpStream, mut received: Vec<u8>) -> Option<Socket> {
        match stream.read(&mut self.scratch) {
            Ok(0) => return None,
            Ok(length) => received.extend_from_slice(&self.scratch[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        while let Some(end) = find(&received, b"\r\n\r\n") {
            let health = find(&received[..end], b"__health_check").is_some();
            let answer = if health { &response("ok") } else { &self.answer };
            stream.write_all(answer).ok()?;
            received.drain(..end + 4);
        }
        Some(Socket::Asked(stream, received))
    }

    /// As a client: notes an answer that has come whole.
    fn answered(&mut self, token: usize, mut client: Client) -> Option<Socket> {
        match client.stream.read(&mut self.scratch) {
            Ok(length) if length > 0 => client.received.extend_from_slice(&self.scratch[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => {
                self.errors += 1;
                return None;
            }
        }
        if let Some(good) = whole(&client.received) {
            client.received.clear();
            self.free.push_back(token);
            match client.due.take() {
                Some(due) if good => self.took.push(due.elapsed()),
                _ => self.errors += 1,
            }
        }
        Some(Socket::Client(client))
    }

    /// One run, told as JSON.
    fn run(&mut self, order: &Order) -> Result<serde_json::Value, Box<dyn Error>> {
        (self.took, self.errors) = (Vec::new(), 0);
        self.free.clear();
        let begin = Instant::now() + OPENING;
        for _ in 0..order.connections {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, order.port))?;
            let client = Client { stream, received: Vec::new(), due: None };
            let token = self.add(Socket::Client(client))?;
            self.free.push_back(token);
            self.ask(Instant::now());
        }
        while Instant::now() < begin {
            self.turn(Some(Duration::ZERO))?;
        }
        let opened = self.took.len();
        self.took.clear();
        let sent = self.send_all(order, begin)?;
        let errors = self.errors + (order.connections - opened) + (sent - self.took.len());
        self.close_clients();
        self.took.sort_unstable();
        let at = |share: f64| {
            let index = (share * self.took.len().saturating_sub(1) as f64) as usize;
            self.took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        Ok(serde_json::json!({
            "requests": self.took.len(), "seconds": order.seconds, "errors": errors,
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999),
        }))
    }

    /// All bursts with their rests. How many were sent.
    fn send_all(&mut self, order: &Order, mut begin: Instant) -> io::Result<usize> {
        let mut left = Duration::from_secs_f64(order.seconds);
        let mut sent = 0;
        while !left.is_zero() {
            let burst = left.min(BURST);
            sent += self.send_burst(order.rate, begin, begin + burst)?;
            left -= burst;
            begin = Instant::now() + REST;
            while let Some(rest) = begin.checked_duration_since(Instant::now()) {
                // Nodes are probed meanwhile.
                self.turn(Some(rest))?;
            }
        }
        Ok(sent)
    }

    /// Sends at the moments of a Poisson process, and waits for the last answers. How many were sent.
    fn send_burst(&mut self, rate: f64, begin: Instant, end: Instant) -> io::Result<usize> {
        let (mut next, mut sent, before) = (begin, 0, self.took.len());
        let mut waiting = VecDeque::new();
        while next < end {
            while next <= Instant::now() && next < end {
                waiting.push_back(next);
                next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
            }
            while !waiting.is_empty() && !self.free.is_empty() {
                self.ask(waiting.pop_front().unwrap_or(next));
                sent += 1;
            }
            self.turn(Some(Duration::ZERO))?;
        }
        let given_up = Instant::now() + PATIENCE;
        while self.took.len() < before + sent && Instant::now() < given_up {
            self.turn(Some(Duration::ZERO))?;
        }
        // Those that never found a free connection have failed as well.
        Ok(sent + waiting.len())
    }

    /// Sends a request on the connection that has been free for longest.
    fn ask(&mut self, due: Instant) {
        let Some(token) = self.free.pop_front() else { return };
        if let Some(Socket::Client(client)) = &mut self.sockets[token] {
            client.due = Some(due);
            let request = b"GET /api/posts:list HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
            if client.stream.write_all(request).is_err() {
                self.errors += 1;
            }
        }
    }

    fn close_clients(&mut self) {
        for socket in &mut self.sockets {
            if matches!(socket, Some(Socket::Client(_))) {
                *socket = None;
            }
        }
        // Numbers are given again from the last that is in use.
        while self.sockets.last().is_some_and(Option::is_none) {
            self.sockets.pop();
        }
    }
}

fn response(body: &str) -> Vec<u8> {
    let length = body.len();
    let kept = "Connection: keep-alive\r\nKeep-Alive: timeout=5";
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{kept}\r\n\r\n{body}")
        .into_bytes()
}

/// Whether an answer has come whole, and then whether it was a 200.
fn whole(received: &[u8]) -> Option<bool> {
    let head = find(received, b"\r\n\r\n")?;
    let lower = received[..head].to_ascii_lowercase();
    let length = find(&lower, b"content-length:").map_or(0, |at| {
        let digits = &lower[at + b"content-length:".len()..];
        let digits = digits.iter().skip_while(|b| **b == b' ').take_while(|b| b.is_ascii_digit());
        digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
    });
    (received.len() >= head + 4 + length).then(|| received.starts_with(b"HTTP/1.1 200 "))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}
