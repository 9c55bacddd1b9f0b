//! Shares follow weights, and a URL that never answers moves none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::origin::Origin;
use support::{Answer, Proxy, until};

/// An origin that never answers `/hang`, and counts the others.
fn origin(count: Arc<AtomicUsize>) -> Origin {
    Origin::scripted(move |mut line| {
        while let Some(seen) = line.request() {
            if seen.head.contains(" /hang") {
                return line.wait_closed();
            }
            count.fetch_add(1, Ordering::SeqCst);
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

struct Rig {
    origins: Vec<Origin>,
    counts: Vec<Arc<AtomicUsize>>,
    proxy: Proxy,
}

fn rig(balance: &str, weights: [u32; 3]) -> Rig {
    let counts: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
    let origins: Vec<Origin> = counts.iter().map(|count| origin(count.clone())).collect();
    let node =
        |n: usize| format!("{{ address = \"{}\", weight = {} }}", origins[n].address, weights[n]);
    let text = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         [upstream.u]\nbalance = \"{balance}\"\nhash_key = \"header:x-key\"\nnodes = [{}, {}, {}]\n",
        node(0),
        node(1),
        node(2)
    );
    let proxy = Proxy::start(support::parse(&text));
    Rig { origins, counts, proxy }
}

impl Rig {
    /// So many requests by each of so many clients, and what each node got.
    fn shares(&self, clients: usize, each: usize) -> Vec<usize> {
        let before = self.served();
        std::thread::scope(|scope| {
            for client in 0..clients {
                let mut stream = self.proxy.connect();
                scope.spawn(move || (0..each).for_each(|n| ask(&mut stream, client * each + n)));
            }
        });
        self.served().iter().zip(before).map(|(now, before)| now - before).collect()
    }

    fn served(&self) -> Vec<usize> {
        self.counts.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }
}

fn ask(stream: &mut TcpStream, key: usize) {
    write!(stream, "GET /api/a:list HTTP/1.1\r\nHost: t\r\nX-Key: k{key}\r\n\r\n").unwrap();
    assert_eq!(Answer::read(stream).unwrap().status, 200);
}

/// The largest distance of a share from its due, in percent of all.
fn off(shares: &[usize], weights: &[u32]) -> f64 {
    let (all, weight) = (shares.iter().sum::<usize>() as f64, weights.iter().sum::<u32>() as f64);
    let each = shares.iter().zip(weights);
    each.map(|(n, w)| (*n as f64 / all - f64::from(*w) / weight).abs() * 100.0).fold(0.0, f64::max)
}

#[test]
fn round_robin_is_exact() {
    let rig = rig("round_robin", [3, 2, 1]);
    assert_eq!(rig.shares(1, 600), [300, 200, 100]);
    assert_eq!(rig.shares(6, 100), [300, 200, 100]);
}

#[test]
fn the_others_follow_weights_within_five_percent() {
    for balance in ["least_load", "least_requests", "random_two"] {
        for weights in [[1, 1, 1], [2, 1, 1]] {
            let rig = rig(balance, weights);
            let shares = rig.shares(8, 500);
            println!("{balance} {weights:?} {shares:?}");
            assert!(off(&shares, &weights) <= 5.0, "{balance} {weights:?}: {shares:?}");
        }
    }
    let rig = rig("hash", [1, 1, 1]);
    let shares = rig.shares(8, 500);
    println!("hash {shares:?}");
    assert!(off(&shares, &[1, 1, 1]) <= 5.0, "{shares:?}");
}

#[test]
fn a_url_that_never_answers_moves_no_share() {
    let rig = rig("least_load", [1, 1, 1]);
    let done = AtomicBool::new(false);
    let quiet = off(&rig.shares(8, 500), &[1, 1, 1]);
    let hung: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = rig.proxy.connect();
            stream.write_all(b"GET /hang HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let hanging =
        |n: usize| rig.origins[n].seen().iter().filter(|s| s.head.contains("/hang")).count();
    until("all of them hang", || (0..3).map(hanging).sum::<usize>() == 20);
    // All three nodes have some of them.
    let shares = rig.shares(8, 1000);
    println!("quiet {quiet:.1} %, with hung requests {shares:?}");
    assert!(off(&shares, &[1, 1, 1]) <= 5.0, "{shares:?}");
    done.store(true, Ordering::SeqCst);
    drop(hung);
}
