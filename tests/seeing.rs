//! What an operator sees: metrics that promtool accepts and whose label sets stay small.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use cobalance::control::ConfigSource;
use cobalance::server::{self, Running};
use support::origin::{Origin, node};
use support::{Answer, until};

fn start(nodes: &[Origin]) -> Running {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{}\"", node.address)).collect();
    let text = format!(
        "[server]\nthreads = 2\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [{}]\n",
        nodes.join(", ")
    );
    let running = server::start(support::parse(&text), ConfigSource::Flags).unwrap();
    until("ready", || running.handle().is_ready());
    running
}

fn scrape(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").unwrap();
    Answer::read(&mut stream).unwrap().text()
}

/// The series, without their values.
fn series(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect()
}

/// Sends requests with random paths, methods and hosts, pipelined in batches.
fn noise(address: SocketAddr, count: usize, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let connect = || BufReader::new(TcpStream::connect(address).unwrap());
    let mut stream = connect();
    for _ in 0..count / 100 {
        let batch: String = (0..100)
            .map(|_| {
                let method: String = (0..rng.usize(1..9)).map(|_| rng.uppercase()).collect();
                let method =
                    if rng.u8(0..4) == 0 && method != "CONNECT" { method } else { "GET".into() };
                let method = if method == "HEAD" { "GET".into() } else { method };
                format!(
                    "{method} /{}/{} HTTP/1.1\r\nHost: h{}.test\r\nX-App: a{}\r\n\r\n",
                    rng.u64(..),
                    rng.u64(..),
                    rng.u64(..),
                    rng.u64(..)
                )
            })
            .collect();
        stream.get_mut().write_all(batch.as_bytes()).unwrap();
        for n in 0..100 {
            let answer = Answer::read(&mut stream).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            if answer.field("connection") == Some("close") {
                // The rest of the batch was not read: that is what the bound on requests means.
                assert!(n == 99, "closed within a batch");
                stream = connect();
            }
        }
    }
}

#[test]
fn label_sets_stay_the_same_after_a_hundred_thousand_random_requests() {
    let nodes = [node("a"), node("b"), node("c")];
    let running = start(&nodes);
    let (public, admin) = (running.address("public").unwrap(), running.admin_address().unwrap());
    noise(public, 2_000, 1);
    let before = scrape(admin);
    noise(public, 100_000, 2);
    let after = scrape(admin);
    let new: Vec<&str> = series(&after).difference(&series(&before)).copied().collect();
    println!(
        "{} series before, {} after 100,000 requests",
        series(&before).len(),
        series(&after).len()
    );
    assert!(new.is_empty(), "{new:#?}");
}

#[test]
fn promtool_accepts_the_metrics() {
    let nodes = [node("a")];
    let running = start(&nodes);
    let admin = running.admin_address().unwrap();
    noise(running.address("public").unwrap(), 100, 3);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, from Debian's package prometheus; tests/run installs it");
    promtool.stdin.take().unwrap().write_all(scrape(admin).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("promtool check metrics: exit {:?}, {said:?}", output.status.code());
}
