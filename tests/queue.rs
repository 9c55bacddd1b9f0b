//! Waiting while all nodes are at `max_requests`: one queue for all data threads, and a limit for all of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use support::origin::{Line, Origin, gate};
use support::{Answer, Proxy, parse, until};

/// A proxy of two data threads, at which nobody waits in vain.
fn proxy(origin: &Origin, upstream: &str) -> Proxy {
    Proxy::start(parse(&format!(
        "[server]\nthreads = 2\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         max_requests = 1_000_000\n[upstream.u]\nnodes = [\"{}\"]\nqueue_timeout = \"1h\"\n{upstream}\n",
        origin.address
    )))
}

/// Answers with the number of the connection, which stands for a data thread: each has a pool of its own, and
/// needs one connection for one request at a time.
fn answer(line: &mut Line) {
    let number = line.number.to_string();
    let head = format!("Content-Length: {}\r\nKeep-Alive: timeout=600", number.len());
    line.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{number}").as_bytes());
}

fn send(stream: &mut TcpStream, path: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
}

fn ask(stream: &mut TcpStream, path: &str) -> Answer {
    send(stream, path);
    Answer::read(stream).unwrap()
}

/// What only reads: it may use a kept connection however long that was idle.
const WHICH: &str = "/api/threads:get";

/// So many connections at one data thread, and so many at the other.
fn connections(proxy: &Proxy, wanted: [usize; 2]) -> [Vec<TcpStream>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    until("both threads have connections", || {
        let mut stream = proxy.connect();
        let thread: usize = ask(&mut stream, WHICH).text().parse().unwrap();
        if found[thread].len() < wanted[thread] {
            found[thread].push(stream);
        }
        found[0].len() == wanted[0] && found[1].len() == wanted[1]
    });
    found
}

/// Paths that the origin has seen, without those that [`connections`] asked for.
fn seen(origin: &Origin) -> Vec<String> {
    let path = |head: &str| head.split(' ').nth(1).unwrap().to_owned();
    let paths = origin.seen().into_iter().map(|seen| path(&seen.head));
    paths.filter(|path| path != WHICH).collect()
}

/// Answers what [`connections`] asks for at once, and everything else when the gate lets it.
fn gated() -> (std::sync::mpsc::Sender<()>, Origin) {
    let (open, wait) = gate();
    let origin = Origin::scripted(move |mut line| {
        while let Some(seen) = line.request() {
            if !seen.head.contains(WHICH) {
                let _ = wait.lock().recv();
            }
            answer(&mut line);
        }
    });
    (open, origin)
}

#[test]
fn who_waits_at_another_thread_for_longer_is_served_first() {
    let (open, origin) = gated();
    let proxy = proxy(&origin, "max_requests = 1");
    let [mut here, mut there] = connections(&proxy, [2, 1]);
    let queue = &proxy.snapshot.upstreams[0].metrics.queue;
    send(&mut here[0], "/api/first");
    until("the first is at the node", || seen(&origin).len() == 1);
    send(&mut there[0], "/api/second");
    until("the second waits", || queue.get() == 1);
    send(&mut here[1], "/api/third");
    until("the third waits", || queue.get() == 2);
    for (number, stream) in [&mut here[0], &mut there[0]].into_iter().enumerate() {
        open.send(()).unwrap();
        assert_eq!(Answer::read(stream).unwrap().status, 200);
        until("the next is at the node", || seen(&origin).len() == number + 2);
    }
    open.send(()).unwrap();
    assert_eq!(Answer::read(&mut here[1]).unwrap().status, 200);
    assert_eq!(seen(&origin), ["/api/first", "/api/second", "/api/third"]);
    assert_eq!(queue.get(), 0);
}

#[test]
fn the_queue_is_bounded_over_all_threads() {
    let (open, origin) = gated();
    let proxy = proxy(&origin, "max_requests = 1\nqueue = 1");
    let [mut here, mut there] = connections(&proxy, [2, 1]);
    send(&mut here[0], "/api/first");
    until("the first is at the node", || seen(&origin).len() == 1);
    send(&mut there[0], "/api/second");
    until("the second waits", || proxy.snapshot.upstreams[0].metrics.queue.get() == 1);
    let shed = ask(&mut here[1], "/api/third");
    assert_eq!((shed.status, shed.text().contains("QUEUE_FULL")), (503, true), "{}", shed.text());
    for stream in [&mut here[0], &mut there[0]] {
        open.send(()).unwrap();
        assert_eq!(Answer::read(stream).unwrap().status, 200);
    }
}

/// Requests that are asked for, over all connections together.
const ASKED: usize = 3_000;

/// How often each of a dozen clients was served, who ask again as soon as they have an answer, and the most
/// requests that the origin had at once.
fn closed_loops(limit: usize) -> (Vec<usize>, usize) {
    let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counted, peak) = (running.clone(), most.clone());
    let origin = Origin::scripted(move |mut line| {
        while line.request().is_some() {
            peak.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            counted.fetch_sub(1, Ordering::SeqCst);
            answer(&mut line);
        }
    });
    let proxy = proxy(&origin, &format!("max_requests = {limit}"));
    let [few, many] = connections(&proxy, [3, 9]);
    let left = AtomicUsize::new(ASKED);
    let take = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    let all_are_there = Barrier::new(12);
    let client = |mut stream: TcpStream| {
        all_are_there.wait();
        let mut served = 0;
        while take().is_ok() {
            assert_eq!(ask(&mut stream, "/api/a:list").status, 200);
            served += 1;
        }
        served
    };
    let served = std::thread::scope(|scope| {
        let spawn = |stream| scope.spawn(|| client(stream));
        let clients: Vec<_> = few.into_iter().chain(many).map(spawn).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(running.load(Ordering::SeqCst), 0);
    (served, most.load(Ordering::SeqCst))
}

#[test]
fn clients_of_all_threads_get_the_same_and_the_limit_holds() {
    for limit in [1, 3] {
        let (served, most) = closed_loops(limit);
        assert_eq!(served.iter().sum::<usize>(), ASKED);
        let (least, greatest) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        assert!(greatest <= &(4 * least), "max_requests = {limit}: {served:?}");
        assert!(most <= limit, "max_requests = {limit}: {most} at once");
    }
}
