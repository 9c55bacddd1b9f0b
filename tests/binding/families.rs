//! Both families of IP: who comes over which, and nodes that have an address of either.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use super::last_field;
use super::support::origin::Origin;
use super::support::{Answer, PATIENCE, Proxy, parse};

/// What the origin is told of a client that comes from this address to a listener at `bind`.
fn seen_as(bind: &str, more: &str, from: &str) -> String {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(parse(&format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"{bind}\"\n{more}\n\
         [upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        origin.address
    )));
    let to = SocketAddr::new(from.parse::<IpAddr>().unwrap(), proxy.address.port());
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
    last_field(&origin, "x-forwarded-for")
}

#[test]
fn a_client_over_ipv4_is_seen_as_such_on_a_listener_of_both() {
    assert_eq!(seen_as("[::]:0", "", "127.0.0.1"), "127.0.0.1");
    assert_eq!(seen_as("[::]:0", "", "::1"), "::1");
    assert_eq!(seen_as("0.0.0.0:0", "", "127.0.0.1"), "127.0.0.1");
}

#[test]
fn networks_of_ipv4_are_found_on_a_listener_of_both() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    assert_eq!(seen_as("[::]:0", trusted, "127.0.0.1"), "192.0.2.9, 127.0.0.1");
    assert_eq!(seen_as("[::]:0", trusted, "::1"), "::1");
}

#[test]
fn a_node_may_have_an_address_of_ipv6() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        super::support::origin::read_head(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix").unwrap();
    });
    let config = super::support::config(&[address], "", "preset = \"none\"");
    assert_eq!(Proxy::start(config).get("/").text(), "six");
}
