//! A client that sends too much of what costs it nothing is shown out; one that sends a lot is not.

use std::io::Write;

use super::support::h2::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, usual,
};
use super::support::origin::Origin;
use super::support::{Proxy, until};
use super::{count, proxy};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Sends frames until the connection is ended, and looks why.
fn flood(proxy: &Proxy, kind: &str, at_most: u32, mut send: impl FnMut(&mut Raw, u32) -> bool) {
    let mut raw = Raw::connect(proxy.address);
    // What comes back must be read, or nobody reads what we send.
    let mut reader = Raw { stream: raw.stream.try_clone().unwrap() };
    let goaway = std::thread::spawn(move || reader.goaway());
    let taken = (0..at_most).take_while(|nth| send(&mut raw, *nth)).count();
    assert_eq!(goaway.join().unwrap(), Some(ENHANCE_YOUR_CALM), "{kind} after {taken}");
    until(kind, || count(proxy, "http2_floods_total", &[kind]) == 1.0);
}

#[test]
fn each_flood_ends_its_connection_and_no_other() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut calm = Client::plain(proxy.address);
    assert_eq!(calm.get("/").status, 200);
    flood(&proxy, "ping", 20_000, |raw, _| raw.send(PING, 0, 0, &[0; 8]));
    flood(&proxy, "settings", 20_000, |raw, _| raw.send(SETTINGS, 0, 0, &[]));
    flood(&proxy, "priority", 20_000, |raw, _| raw.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]));
    flood(&proxy, "window_update", 20_000, |raw, _| raw.send(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    flood(&proxy, "unknown", 20_000, |raw, _| raw.send(0x2f, 0, 0, b"x"));
    flood(&proxy, "continuation", 100, |raw, nth| match nth {
        0 => raw.send(HEADERS, 0, 1, &block(&usual("GET", "/"))[..5]),
        _ => raw.send(CONTINUATION, 0, 1, &[]),
    });
    flood(&proxy, "reset", 20_000, |raw, nth| {
        // In one piece: an answer that comes between the two would pay for the reset.
        let (stream, head) = (2 * nth + 1, block(&usual("GET", "/")));
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        raw.stream.write_all(&[opened, reset].concat()).is_ok()
    });
    assert_eq!(calm.get("/").status, 200);
}

#[test]
fn empty_data_is_bounded_too() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    let mut reader = Raw { stream: raw.stream.try_clone().unwrap() };
    let goaway = std::thread::spawn(move || reader.goaway());
    raw.open(1, END_HEADERS, &usual("POST", "/"));
    (0..20_000).all(|_| raw.send(DATA, 0, 1, &[]));
    assert_eq!(goaway.join().unwrap(), Some(ENHANCE_YOUR_CALM));
    let all = || count(&proxy, "http2_floods_total", &[]);
    until("it is counted", || all() == 1.0);
}

#[test]
fn streams_with_errors_are_bounded() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let bad = [("x", "no pseudo-field")];
    flood(&proxy, "other", 2_000, |raw, nth| raw.open(2 * nth + 1, END_HEADERS | END_STREAM, &bad));
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_go_on() {
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let origin = Origin::scripted(|mut line| line.wait_closed());
    let proxy = super::proxy_with(&origin, "max_streams = 3");
    let mut raw = Raw::connect(proxy.address);
    let told = raw.await_kind(SETTINGS).unwrap().payload;
    assert!(told.chunks(6).any(|one| one == [0, 3, 0, 0, 0, 3]), "{told:?}");
    assert!((0..5).all(|nth| raw.get(2 * nth + 1, "/")));
    let refused: Vec<_> = (0..2).map(|_| raw.await_kind(RST_STREAM).unwrap()).collect();
    assert_eq!(refused.iter().map(|frame| frame.stream).collect::<Vec<_>>(), [7, 9]);
    assert!(refused.iter().all(|frame| frame.payload == REFUSED_STREAM));
    until("three are at the node", || origin.connections() == 3);
}

#[test]
fn a_busy_client_is_no_flood() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    // Far more than any bucket holds, each with what belongs to it.
    for nth in 0..1_500u32 {
        let stream = 2 * nth + 1;
        raw.get(stream, "/");
        raw.send(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        raw.send(PING, 0, 0, &[0; 8]);
        loop {
            let frame = raw.next().unwrap();
            if frame.kind == DATA && frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!(count(&proxy, "http2_floods_total", &[]), 0.0);
}

/// Takes the whole answer on stream 1, of so many bytes, and does something after each piece.
fn take(raw: &mut Raw, length: usize, mut after: impl FnMut(&mut Raw, usize)) {
    let mut total = 0;
    while total < length {
        let frame = raw.next().expect("the connection has ended");
        if frame.kind == DATA {
            total += frame.payload.len();
            after(raw, frame.payload.len());
        }
    }
}

#[test]
fn a_client_that_counts_each_read_is_no_flood() {
    const LENGTH: usize = 8 << 20;
    // As Go's client does: two updates for each 4 KiB, as it takes them, or all at once when it has.
    let body = "x".repeat(LENGTH);
    let origin =
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{body}"));
    let proxy = proxy(&origin);
    let updates = |bytes: usize| -> Vec<u8> {
        let update = |stream| frame(WINDOW_UPDATE, 0, stream, &4096u32.to_be_bytes());
        (0..bytes.div_ceil(4096)).flat_map(|_| [update(1), update(0)].concat()).collect()
    };
    let mut prompt = Raw::connect(proxy.address);
    prompt.get(1, "/");
    take(&mut prompt, LENGTH, |raw, taken| raw.stream.write_all(&updates(taken)).unwrap());
    // One with windows that take it whole.
    let mut late = Raw::connect(proxy.address);
    late.send(SETTINGS, 0, 0, &[0, 4, 0x10, 0, 0, 0]);
    late.send(WINDOW_UPDATE, 0, 0, &(256u32 << 20).to_be_bytes());
    late.get(1, "/");
    take(&mut late, LENGTH, |_, _| {});
    late.stream.write_all(&updates(LENGTH)).unwrap();
    late.get(3, "/");
    assert!(late.await_kind(HEADERS).is_some_and(|head| head.stream == 3));
    assert_eq!(count(&proxy, "http2_floods_total", &[]), 0.0);
}

/// The bytes of the answer on this stream.
fn answer(raw: &mut Raw, stream: u32) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let frame = raw.next().expect("the connection has ended");
        assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        if frame.kind == DATA && frame.stream == stream {
            body.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                return body;
            }
        }
    }
}

#[test]
fn many_small_frames_in_one_breath_are_a_body() {
    let origin = super::bodies::mirror();
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    let sent: Vec<u8> = (0..24_000u32).map(|n| (n % 251) as u8).collect();
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&usual("POST", "/")));
    bytes.extend(sent.chunks(20).flat_map(|piece| frame(DATA, 0, 1, piece)));
    bytes.extend(frame(DATA, END_STREAM, 1, b"."));
    raw.stream.write_all(&bytes).unwrap();
    assert!(answer(&mut raw, 1) == [&sent[..], b"."].concat());
    assert_eq!(count(&proxy, "http2_floods_total", &[]), 0.0);
}

#[test]
fn what_was_on_its_way_to_a_stream_that_is_over_is_no_flood() {
    let origin = super::bodies::declining();
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    let fields = [&usual("POST", "/")[..], &[("content-length", "10000000")]].concat();
    raw.open(1, END_HEADERS, &fields);
    assert_eq!(raw.await_kind(RST_STREAM).unwrap().payload, [0; 4]);
    let stray: Vec<u8> = (0..1_000).flat_map(|_| frame(DATA, 0, 1, b"0123456789")).collect();
    raw.stream.write_all(&stray).unwrap();
    raw.open(3, END_HEADERS, &fields);
    assert_eq!(answer(&mut raw, 3), b"no!");
}
