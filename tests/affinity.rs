//! Requests that belong together at one node, and requests that must not be at the same one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "affinity/claims.rs"]
mod claims;
#[path = "affinity/flows.rs"]
mod flows;
#[path = "affinity/sub_apps.rs"]
mod sub_apps;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use support::origin::Origin;
use support::{Answer, Proxy, parse};

/// Two data threads in front of these nodes; `more` is what follows in the upstream's table.
fn proxy(nodes: &[&Origin], more: &str) -> Proxy {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{}\"", node.address)).collect();
    Proxy::start(parse(&format!(
        "[server]\nthreads = 2\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         [upstream.u]\nnodes = [{}]\n{more}\n",
        nodes.join(", ")
    )))
}

/// Sends a request on a connection of its own, so that it comes to any of the threads.
fn send(address: SocketAddr, method: &str, target: &str, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: test\r\n{length}{fields}\r\n").unwrap();
    stream
}

fn ask(proxy: &Proxy, method: &str, target: &str, fields: &str) -> Answer {
    Answer::read(&mut send(proxy.address, method, target, fields)).expect("an answer")
}

/// Who answers: the name is the body.
fn who(proxy: &Proxy, method: &str, target: &str, fields: &str) -> String {
    let answer = ask(proxy, method, target, fields);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.text()
}

/// A node's place by its name.
fn place(name: &str) -> usize {
    ["a", "b", "c"].iter().position(|known| *known == name).expect("one of the nodes")
}
