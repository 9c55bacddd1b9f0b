//! PROXY headers: who must send them, and what follows from them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use super::last_field;
use super::support::origin::Origin;
use super::support::tls::{Authority, ask_once, connect_over, shown, table};
use super::support::{Answer, Proxy, config, parse, read_to_end, until};

const LISTED: &str = "proxy_protocol = [\"127.0.0.0/8\"]";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.2 5000 80\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// Version 2 of 203.0.113.7, with a part that says nothing to us.
fn v2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12 + 5]);
    header.extend([203, 0, 113, 7, 192, 0, 2, 2, 0x13, 0x88, 0, 80]);
    header.extend([0x05, 0, 2, 7, 7]);
    header
}

fn rig(listener: &str) -> (Origin, Proxy) {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(config(&[origin.address], listener, "preset = \"none\""));
    (origin, proxy)
}

fn headers(proxy: &Proxy, result: &str) -> f64 {
    proxy.count("proxy_headers_total", &[result])
}

/// Waits for the end of a connection that gets no answer.
fn is_closed_without_a_word(mut stream: TcpStream) {
    match stream.read(&mut [0; 64]) {
        Ok(read) => assert_eq!(read, 0, "nothing is said to it"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn the_client_is_who_the_header_says_however_it_is_cut() {
    let (origin, proxy) = rig(LISTED);
    for header in [V1.to_vec(), v2(1)] {
        let bytes = [&header[..], GET].concat();
        for cut in [1, 5, header.len() - 1, header.len(), header.len() + 1, bytes.len()] {
            let mut stream = proxy.connect();
            for piece in bytes.chunks(cut) {
                stream.write_all(piece).unwrap();
            }
            assert_eq!(Answer::read(&mut stream).unwrap().status, 200, "{cut}");
            assert_eq!(last_field(&origin, "x-forwarded-for"), "203.0.113.7");
            // The rest of the connection is of the same client.
            stream.write_all(GET).unwrap();
            assert_eq!(Answer::read(&mut stream).unwrap().status, 200, "{cut}");
            assert_eq!(last_field(&origin, "x-real-ip"), "203.0.113.7");
        }
    }
    assert_eq!(headers(&proxy, "client"), 12.0);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let (origin, proxy) = rig(LISTED);
    for header in [v2(0), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut stream = proxy.connect();
        stream.write_all(&[&header[..], GET].concat()).unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
        assert_eq!(last_field(&origin, "x-forwarded-for"), "127.0.0.1");
    }
    assert_eq!(headers(&proxy, "local"), 2.0);
}

#[test]
fn who_is_not_listed_is_plain_and_not_believed() {
    let (origin, proxy) = rig("proxy_protocol = [\"192.0.2.0/24\"]");
    let mut stream = proxy.connect();
    stream.write_all(GET).unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
    assert_eq!(last_field(&origin, "x-forwarded-for"), "127.0.0.1");
    let answer = proxy.raw(&[V1, GET].concat());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(headers(&proxy, "client"), 0.0);
}

#[test]
fn who_is_listed_and_sends_none_is_closed_and_counted() {
    let (origin, proxy) = rig(LISTED);
    let cases = [
        (GET.to_vec(), "missing"),
        (b"PROXY TCP4 x\r\n".to_vec(), "malformed"),
        ([&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0, 0xff, 0xff]].concat(), "too_large"),
        (
            [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0, 0, 7, 3, 0, 4, 1, 2, 3, 4]].concat(),
            "checksum",
        ),
    ];
    for (bytes, result) in cases {
        let mut stream = proxy.connect();
        stream.write_all(&bytes).unwrap();
        is_closed_without_a_word(stream);
        assert_eq!(headers(&proxy, result), 1.0, "{result}");
    }
    // As an outer balancer looks whether the port is open.
    drop(proxy.connect());
    until("it is counted", || headers(&proxy, "closed") == 1.0);
    assert!(origin.seen().is_empty());
    until("all places are free", || {
        proxy.snapshot.listeners[0].open.load(std::sync::atomic::Ordering::SeqCst) == 0
    });
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let (_origin, proxy) = rig(&format!("{LISTED}\nrequest_head_timeout = \"500ms\""));
    let mut stream = proxy.connect();
    stream.write_all(&V1[..20]).unwrap();
    is_closed_without_a_word(stream);
    assert_eq!(headers(&proxy, "timeout"), 1.0);
    // The time is one for the header and the first head.
    let mut stream = proxy.connect();
    stream.write_all(V1).unwrap();
    // On a machine that pauses it may be over before the header came, which is then a reset.
    let rest = read_to_end(&mut stream);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
}

#[test]
fn proxies_in_the_header_are_trusted_by_their_own_address() {
    let (origin, proxy) = rig(&format!("{LISTED}\ntrusted_proxies = [\"203.0.113.7\"]"));
    let forwarded = b"GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n";
    let mut stream = proxy.connect();
    stream.write_all(&[V1, forwarded].concat()).unwrap();
    Answer::read(&mut stream).unwrap();
    assert_eq!(last_field(&origin, "x-forwarded-for"), "198.51.100.9, 203.0.113.7");
    // Whoever sends the header is believed about nothing else.
    let (origin, proxy) = rig(&format!("{LISTED}\ntrusted_proxies = [\"127.0.0.1\"]"));
    let mut stream = proxy.connect();
    stream.write_all(&[V1, forwarded].concat()).unwrap();
    Answer::read(&mut stream).unwrap();
    assert_eq!(last_field(&origin, "x-forwarded-for"), "203.0.113.7");
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let text = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n{}[[listener]]\nbind = \"127.0.0.1:0\"\n\
         certificates = [\"a\"]\n{LISTED}\n[upstream.u]\npreset = \"none\"\nnodes = [\"{}\"]\n",
        table("a", &pair),
        origin.address
    );
    let proxy = Proxy::start(parse(&text));
    let client = Arc::new(authority.client());
    let mut stream = proxy.connect();
    // Together with the first bytes of the handshake in one packet, as far as that is ours to say.
    stream.write_all(&v2(1)).unwrap();
    let mut client = connect_over(stream, &client, "a.test").unwrap();
    assert_eq!(shown(&client), "a");
    let answer = ask_once(&mut client, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(last_field(&origin, "x-forwarded-for"), "203.0.113.7");
    assert_eq!(last_field(&origin, "x-forwarded-proto"), "https");
}
