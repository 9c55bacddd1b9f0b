//! Heads: what a node is told, and what no node is told.

use http::Request;

use super::support::h2::{
    CONTINUATION, Client, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, block, get,
    request, usual,
};
use super::support::origin::Origin;
use super::support::until;
use super::{count, proxy, proxy_with};

#[test]
fn a_node_gets_the_normal_form() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut client = Client::plain(proxy.address);
    let mut head = request("DELETE", "/api/a:destroy?x=%20");
    let fields = head.headers_mut();
    fields.append("cookie", "a=1".parse().unwrap());
    fields.append("x-one", "1".parse().unwrap());
    fields.append("cookie", "b=2; c=3".parse().unwrap());
    fields.append("x-one", "2".parse().unwrap());
    fields.append("te", "trailers".parse().unwrap());
    fields.append("x-forwarded-for", "6.6.6.6".parse().unwrap());
    fields.append("proxy-authorization", "x".parse().unwrap());
    assert_eq!(client.ask(head).unwrap().status, 200);
    let head = &origin.seen()[0].head;
    assert!(head.starts_with("DELETE /api/a:destroy?x=%20 HTTP/1.1\r\nHost: a.test\r\n"), "{head}");
    assert!(head.contains("cookie: a=1; b=2; c=3\r\n"), "{head}");
    assert!(head.contains("x-one: 1\r\nx-one: 2\r\n"), "{head}");
    assert!(!head.contains("6.6.6.6") && !head.contains("proxy-auth"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
}

#[test]
fn a_host_may_stand_for_the_authority_and_must_not_disagree_with_it() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    let alone = [(":method", "GET"), (":scheme", "http"), (":path", "/alone"), ("host", "b.test")];
    raw.open(1, END_HEADERS | END_STREAM, &alone);
    assert_eq!(raw.await_kind(HEADERS).unwrap().stream, 1);
    assert!(origin.seen()[0].head.contains("Host: b.test\r\n"));
    let mut both = usual("GET", "/both").to_vec();
    both.push(("host", "A.TEST"));
    raw.open(3, END_HEADERS | END_STREAM, &both);
    assert_eq!(raw.await_kind(HEADERS).unwrap().stream, 3);
    assert!(origin.seen()[1].head.contains("Host: a.test\r\n"));
    for (stream, fields) in [(5, &["b.test"][..]), (7, &["a.test", "a.test"]), (9, &["a.test:80"])]
    {
        let mut head = usual("GET", "/").to_vec();
        head.extend(fields.iter().map(|host| ("host", *host)));
        raw.open(stream, END_HEADERS | END_STREAM, &head);
        assert_eq!(raw.await_kind(HEADERS).unwrap().stream, stream);
    }
    raw.open(11, END_HEADERS | END_STREAM, &alone[..3]);
    assert_eq!(raw.await_kind(HEADERS).unwrap().stream, 11);
    assert_eq!(origin.seen().len(), 2, "no node was asked");
    until("all are counted", || count(&proxy, "requests_total", &["OTHER", "400"]) == 4.0);
}

/// What breaks RFC 9113 (8.2, 8.3), each with the code it is reset with.
#[test]
fn what_is_malformed_is_reset() {
    const PROTOCOL_ERROR: u32 = 1;
    let get = usual("GET", "/x");
    let with = |more: &[(&'static str, &'static str)]| [&get[..], more].concat();
    let cases = [
        ("an upper-case name", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "1")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te", with(&[("te", "gzip")])),
        ("a pseudo-field behind others", with(&[("a", "b"), (":path", "/y")])),
        ("two paths", with(&[(":path", "/y")])),
        ("an unknown pseudo-field", with(&[(":odd", "1")])),
        ("a status", with(&[(":status", "200")])),
        ("no method", get[1..].to_vec()),
        ("no scheme", vec![get[0], get[2], get[3]]),
        ("no path", get[..3].to_vec()),
        ("an empty path", vec![get[0], get[1], get[2], (":path", "")]),
        ("a line end in a value", with(&[("a", "b\r\nc: d")])),
        ("NUL in a value", with(&[("a", "b\0c")])),
        ("a line end in a path", vec![get[0], get[1], get[2], (":path", "/\r\nx")]),
        ("a space in a method", vec![(":method", "GET /"), get[1], get[2], get[3]]),
        ("an odd authority", vec![get[0], get[1], (":authority", "a b"), get[3]]),
        ("a space in a name", with(&[("a b", "c")])),
        ("a colon in a name", with(&[("a:b", "c")])),
        ("an empty name", with(&[("", "c")])),
        (":protocol without CONNECT", with(&[(":protocol", "websocket")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
        ("an odd length", with(&[("content-length", "+1")])),
        ("a length without a body", with(&[("content-length", "1")])),
        ("CONNECT with a path", vec![(":method", "CONNECT"), get[1], get[2], get[3]]),
    ];
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    for (what, fields) in cases {
        let mut raw = Raw::connect(proxy.address);
        raw.open(1, END_HEADERS | END_STREAM, &fields);
        let end = std::iter::from_fn(|| raw.next())
            .find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY | HEADERS));
        let end = end.unwrap_or_else(|| panic!("{what}: nothing came"));
        let code = |at: usize| u32::from_be_bytes(end.payload[at..at + 4].try_into().unwrap());
        match end.kind {
            RST_STREAM => assert_eq!(code(0), PROTOCOL_ERROR, "{what}"),
            GOAWAY => assert_eq!(code(4), PROTOCOL_ERROR, "{what}"),
            // Ours, with a body that says why.
            _ => assert_eq!(end.flags & END_STREAM, 0, "{what}"),
        }
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[test]
fn what_cannot_be_said_is_answered() {
    let origin = Origin::ok("x");
    let proxy = proxy_with(&origin, "max_head = \"2KiB\"\nmax_fields = 10");
    let mut client = Client::plain(proxy.address);
    let mut ask = |change: &dyn Fn(&mut Request<()>)| {
        let mut head = get("/");
        change(&mut head);
        client.ask(head).unwrap()
    };
    let got = ask(&|head| *head.uri_mut() = "http://u@a.test/".parse().unwrap());
    assert_eq!((got.status, got.text().contains("an odd host")), (400, true));
    let got = ask(&|head| {
        *head.uri_mut() = format!("http://a.test/{}", "x".repeat(3000)).parse().unwrap()
    });
    assert_eq!(got.status, 414);
    let got = ask(&|head| drop(head.headers_mut().insert("a", "x".repeat(3000).parse().unwrap())));
    assert_eq!(got.status, 431);
    let got = ask(&|head| {
        for n in 0..11u32 {
            head.headers_mut().append("a", n.into());
        }
    });
    assert_eq!(got.status, 431);
    let got = ask(&|head| drop(head.headers_mut().insert("expect", "miracles".parse().unwrap())));
    assert_eq!(got.status, 417);
    assert!(got.field("x-request-id").is_some());
    let (answer, _) = client
        .begin(Request::builder().method("CONNECT").uri("a.test:443").body(()).unwrap(), false);
    assert_eq!(client.run(answer).unwrap().status(), 501);
    for (code, times) in [("400", 1.0), ("414", 1.0), ("417", 1.0), ("431", 2.0), ("501", 1.0)] {
        until(code, || count(&proxy, "requests_total", &["OTHER", code]) == times);
    }
}

#[test]
fn options_of_the_whole_server_pass() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    raw.open(1, END_HEADERS | END_STREAM, &usual("OPTIONS", "*"));
    assert_eq!(raw.await_kind(HEADERS).unwrap().stream, 1);
    assert!(origin.seen()[0].head.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[test]
fn a_far_too_large_head_is_not_even_read() {
    let origin = Origin::ok("x");
    let proxy = proxy_with(&origin, "max_head = \"2KiB\"\nmax_fields = 10");
    let mut client = Client::plain(proxy.address);
    let mut head = get("/");
    head.headers_mut().insert("a", "x".repeat(6000).parse().unwrap());
    let got = client.ask(head);
    assert!(got.map_or(true, |got| got.status == 431));
    assert!(origin.seen().is_empty());
}

#[test]
fn a_head_in_pieces_is_one_head() {
    let origin = Origin::ok("x");
    let proxy = proxy(&origin);
    let mut raw = Raw::connect(proxy.address);
    let head = block(&usual("GET", "/pieces"));
    let (first, rest) = head.split_at(20);
    raw.send(HEADERS, END_STREAM, 1, first);
    let (second, third) = rest.split_at(10);
    raw.send(CONTINUATION, 0, 1, second);
    raw.send(CONTINUATION, END_HEADERS, 1, third);
    assert_eq!(raw.await_kind(HEADERS).unwrap().stream, 1);
    assert!(origin.seen()[0].head.starts_with("GET /pieces "));
}
