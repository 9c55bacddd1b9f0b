//! Strangers who try to make cobalance hold more than it may: what is held stays within its bound, and who means it
//! is served all the while.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::support::origin::{Origin, gate};
use crate::support::tls::{Authority, connect, table};
use crate::support::{Answer, Proxy, parse, until};
use crate::{alone, errors};

pub(crate) const MIB: i64 = 1024 * 1024;
/// What may be held under a bound of 16 MiB: an answer that has begun is held whether there is room or not, and is
/// the next to give way.
pub(crate) const MOST: i64 = 16 * MIB + MIB / 4;
/// Of a listener: on a slow machine it takes long to make a crowd, and none of it is to leave for its age.
pub(crate) const PATIENT: &str =
    "request_head_timeout = \"10m\"\nbody_idle_timeout = \"10m\"\nsend_timeout = \"10m\"\n";

/// Answers `/big` with more than any socket holds, `/hang` not before the sender is dropped, and everything else
/// at once.
pub(crate) fn origin() -> (Origin, Sender<()>) {
    let (release, released) = gate();
    let origin = Origin::scripted(move |mut line| {
        while let Some(seen) = line.request() {
            match seen.head.split(' ').nth(1).unwrap_or_default() {
                "/big" => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20);
                    let piece = vec![b'x'; 1 << 20];
                    let mut written = line.stream.write_all(head.as_bytes());
                    for _ in 0..64 {
                        written = written.and_then(|()| line.stream.write_all(&piece));
                    }
                    if written.is_err() {
                        return;
                    }
                }
                "/hang" => {
                    let _ = released.lock().recv();
                    return;
                }
                _ => line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            }
        }
    });
    (origin, release)
}

fn start(origin: &Origin, threads: usize, most: &str) -> Proxy {
    Proxy::start(parse(&format!(
        "[server]\nthreads = {threads}\nmax_buffered = \"{most}\"\n[access_log]\nenabled = false\n\
         [[listener]]\nbind = \"127.0.0.1:0\"\n{PATIENT}[upstream.u]\nnodes = [\"{}\"]\n",
        origin.address
    )))
}

/// Opens so many connections that send this and then nothing.
fn attack(proxy: &Proxy, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = proxy.connect();
        // Those that have to give way may be gone before all is taken.
        let _ = stream.write_all(bytes);
        let held = proxy.metrics.buffered_now();
        assert!(held <= MOST, "{held}");
        stream
    };
    (0..count).map(one).collect()
}

/// A request on a connection of its own, in two parts, with a body that comes later: as slow as honest ones are.
pub(crate) fn serves(proxy: &Proxy) -> bool {
    let mut stream = proxy.connect();
    for part in ["POST /fresh HTTP/1.1\r\nHo", "st: t\r\nContent-Length: 4\r\n\r\n", "bo", "dy"] {
        // Who is refused may be so before all was sent.
        let _ = stream.write_all(part.as_bytes());
    }
    let answer = Answer::read(&mut stream);
    answer.is_some_and(|answer| (answer.status, answer.text().as_str()) == (200, "hi"))
}

fn is_served(proxy: &Proxy) {
    assert_eq!(proxy.get("/fresh").text(), "hi");
    assert!(serves(proxy));
}

/// Requests that wait at the node until they are released.
fn hanging(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.head.starts_with("GET /hang ")).count()
}

/// Waits until each of them is at the node or was turned away, and drops those that were.
fn settle(origin: &Origin, waiting: &mut Vec<TcpStream>) {
    until("all are told apart", || {
        waiting.retain_mut(|stream| !is_over(stream));
        waiting.len() == hanging(origin)
    });
}

/// Whether the proxy has had enough of a client.
fn is_over(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let ended = match stream.read(&mut [0; 1024]) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    ended
}

#[test]
fn what_is_held_stays_within_its_bound_and_others_are_served() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = start(&origin, 1, "16MiB");
    let held = || proxy.metrics.buffered_now();
    // The largest heads, without their ends.
    let head = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}", "x".repeat(15_000));
    let heads = attack(&proxy, 1500, head.as_bytes());
    is_served(&proxy);
    until("the oldest gave way", || proxy.metrics.cut() > 0);
    until("it has filled up", || held() > 12 * MIB);
    // Small bodies, but for a byte.
    let body =
        [&b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 65536\r\n\r\n"[..], &[b'b'; 65_535]];
    let bodies = attack(&proxy, 400, &body.concat());
    is_served(&proxy);
    // Answers that nobody reads.
    let answered = || proxy.node(0).metrics.requests[1].get();
    let before = answered();
    let answers = attack(&proxy, 250, b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
    // Until its node has begun to answer them, they wait for it, and do not give way.
    until("they wait for their clients", || answered() >= before + 250);
    is_served(&proxy);
    // Requests behind one that is not answered: those wait for a node, and are not cut.
    let behind = [b"GET /hang HTTP/1.1\r\nHost: t\r\n\r\n", &[b'G'; 20_000][..]].concat();
    let pipelined = attack(&proxy, 100, &behind);
    until("they are with their node", || hanging(&origin) == 100);
    is_served(&proxy);
    // And heads again.
    let again = attack(&proxy, 500, head.as_bytes());
    is_served(&proxy);
    assert!(held() <= MOST);
    // Who has sent more than is read is not noticed to leave before its node has answered.
    drop((heads, bodies, answers, pipelined, again, release));
    until("nothing is left", || held() == 0);
    is_served(&proxy);
}

#[test]
fn who_has_waited_longest_is_told_that_there_is_no_room() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = start(&origin, 1, "16MiB");
    let mut first = proxy.connect();
    first.write_all(b"GET / HT").unwrap();
    until("it is held", || proxy.metrics.buffered_now() > 0);
    let others = attack(&proxy, 1200, b"GET / HTTP/1.1\r\nHost: t\r\nX: ");
    let answer = Answer::read(&mut first).expect("an answer");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("2")));
    until("it is counted", || errors(&proxy, "buffers_full") > 0);
    drop((others, release));
}

#[test]
fn an_answer_that_gave_way_is_not_its_client_s_fault() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = start(&origin, 1, "16MiB");
    let ask = b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n";
    let first = attack(&proxy, 1, ask);
    until("it is not read", || proxy.metrics.buffered_now() > 100_000);
    let mut others = attack(&proxy, 200, ask);
    // More of them, until it is the oldest: as long as its sockets still took some of it, others were older.
    let mut ended = None;
    until("it gave way", || {
        others.extend(attack(&proxy, 1, ask));
        ended = first[0].take_error().unwrap();
        ended.is_some()
    });
    // What had begun is broken off, so that no client takes it for whole.
    assert_eq!(ended.unwrap().kind(), ErrorKind::ConnectionReset);
    until("that is why", || errors(&proxy, "buffers_full") > 0);
    until("it is told", || proxy.metrics.cut() > 0);
    assert_eq!(errors(&proxy, "client_stalled"), 0);
    // A node has sent none of these.
    assert_eq!(proxy.count("requests_total", &["503", "upstream"]), 0.0);
    drop((first, others, release));
    until("nothing is left", || proxy.metrics.buffered_now() == 0);
}

#[test]
fn what_waits_for_a_node_stays_and_whoever_comes_is_turned_away() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = start(&origin, 1, "16MiB");
    let mut served = attack(&proxy, 400, b"GET /hang HTTP/1.1\r\nHost: t\r\n\r\n");
    settle(&origin, &mut served);
    until("no room is left", || proxy.get("/fresh").status == 503);
    assert!((300..400).contains(&served.len()), "{}", served.len());
    until("it is told why", || errors(&proxy, "buffers_full") > 0);
    assert_eq!(proxy.metrics.cut(), 0);
    drop((served, release));
    until("there is room again", || proxy.get("/fresh").status == 200);
}

#[test]
fn an_upload_that_a_node_has_begun_with_waits_for_room_and_is_not_cut() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\nmax_buffered = \"16MiB\"\n[access_log]\nenabled = false\n\
         [[listener]]\nbind = \"127.0.0.1:0\"\n{PATIENT}\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        origin.address
    )));
    let mut upload = proxy.connect();
    let piece = vec![b'b'; 100_000];
    // So little of it that any socket takes it at once: what is held to move it is soon given back.
    let head = "POST /up HTTP/1.1\r\nHost: t\r\nContent-Length: 101000\r\n\r\n";
    upload.write_all(&[head.as_bytes(), &piece[..1000]].concat()).unwrap();
    until("a node has begun with it", || origin.connections() == 1);
    until("it waits for more", || {
        proxy.node(0).in_flight() == 1 && (1..MIB / 8).contains(&proxy.metrics.buffered_now())
    });
    let mut hanging = attack(&proxy, 400, b"GET /hang HTTP/1.1\r\nHost: t\r\n\r\n");
    settle(&origin, &mut hanging);
    until("no room is left", || proxy.get("/fresh").status == 503);
    upload.write_all(&piece).unwrap();
    // By then the piece was seen as well.
    (0..3).for_each(|_| assert_eq!(proxy.get("/fresh").status, 503));
    assert!(!is_over(&mut upload));
    drop((hanging, release));
    assert_eq!(Answer::read(&mut upload).expect("an answer").text(), "hi");
    assert_eq!(
        origin.seen().iter().find(|seen| seen.head.contains("/up")).unwrap().body.len(),
        101_000
    );
}

#[test]
fn each_thread_has_its_part() {
    let _alone = alone();
    let (origin, release) = origin();
    let proxy = start(&origin, 4, "16MiB");
    let heads = attack(&proxy, 1500, b"GET / HTTP/1.1\r\nHost: t\r\nX: ");
    until("all are full", || proxy.metrics.buffered_now() > 14 * MIB);
    (0..8).for_each(|_| is_served(&proxy));
    drop((heads, release));
}

#[test]
fn records_of_tls_that_do_not_end_give_way() {
    let _alone = alone();
    let origin = Origin::ok("hi");
    let authority = Authority::new();
    let proxy = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\nmax_buffered = \"16MiB\"\n[access_log]\nenabled = false\n{}\
         [[listener]]\nbind = \"127.0.0.1:0\"\n{PATIENT}certificates = [\"a\"]\n\
         [upstream.u]\nnodes = [\"{}\"]\n",
        table("a", &authority.issue("a", &["a.test"])),
        origin.address
    )));
    let config = Arc::new(authority.client());
    // The beginning of a record, which nobody can read yet.
    let begun = [&[0x17, 3, 3, 0x40, 0][..], &[b'x'; 16_000]].concat();
    let open = |_| {
        let client = connect(proxy.address, &config, "a.test").unwrap();
        let mut stream = client.sock.try_clone().unwrap();
        stream.write_all(&begun).unwrap();
        let held = proxy.metrics.buffered_now();
        assert!(held <= MOST, "{held}");
        stream
    };
    let mut first = open(0);
    until("it is counted", || proxy.metrics.buffered_now() >= 16_000);
    let others: Vec<_> = (0..950).map(open).collect();
    until("the oldest gave way", || proxy.metrics.cut() > 0);
    // It reads to the end: what is said to it before is a ticket.
    while matches!(first.read(&mut [0; 1024]), Ok(1..)) {}
    let mut honest = connect(proxy.address, &config, "a.test").unwrap();
    honest.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut honest).expect("an answer").text(), "hi");
    drop((honest, others));
    until("nothing is left", || proxy.metrics.buffered_now() == 0);
}
