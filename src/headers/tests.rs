use super::*;
use crate::http1::Violation;

fn request(text: &str) -> RequestHead {
    let parsed = RequestHead::parse(text.as_bytes().to_vec(), Vec::new());
    parsed.map_err(|(violation, _): (Violation, _)| violation).unwrap()
}

fn forwarded(text: &str, peer: &str, proxies: &[&str], cookie: Option<&str>) -> String {
    let head = request(text);
    let proxies: Vec<ipnet::IpNet> = proxies.iter().map(|net| net.parse().unwrap()).collect();
    let forwarding = Forwarding::new(peer.parse().unwrap(), &proxies, &head);
    let mut out = Vec::new();
    let parts = ForNode {
        forwarding: &forwarding,
        request_id: "id-1",
        default_host: "node:1",
        hidden_cookies: [None, cookie],
        framing: head.framing,
        expect_continue: head.expect_continue,
    };
    write_request(&mut out, &head, &parts);
    String::from_utf8(out).unwrap()
}

const CHAIN: &str = "GET / HTTP/1.1\r\nHost: a:81\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.0.0.2\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example:444\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\r\n";

#[test]
fn a_strangers_words_are_replaced() {
    let out = forwarded(CHAIN, "1.2.3.4", &[], None);
    assert_eq!(
        out,
        "GET / HTTP/1.1\r\nHost: a:81\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: a:81\r\n\
         Forwarded: for=1.2.3.4;host=\"a:81\";proto=http\r\nX-Request-Id: id-1\r\n\r\n"
    );
}

#[test]
fn a_trusted_chain_is_walked_from_its_near_end() {
    let out = forwarded(CHAIN, "10.0.0.1", &["10.0.0.0/8"], None);
    assert!(out.contains("X-Forwarded-For: 9.9.9.9, 10.0.0.1\r\n"), "{out}");
    assert!(out.contains("X-Forwarded-Proto: https\r\n"));
    assert!(out.contains("X-Forwarded-Host: b.example:444\r\n"));
    assert!(out.contains("Forwarded: for=9.9.9.9;host=\"b.example:444\";proto=https\r\n"));
    assert!(!out.contains("6.6.6.6"));
}

#[test]
fn garbage_in_a_trusted_chain_ends_the_walk() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, junk, 10.0.0.2\r\n\r\n";
    let out = forwarded(text, "10.0.0.1", &["10.0.0.0/8"], None);
    assert!(out.contains("X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n"), "{out}");
}

#[test]
fn fields_of_the_connection_are_stripped_and_stripping_is_idempotent() {
    let text = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret, authorization\r\nX-Secret: s\r\n\
        Keep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\nTE: gzip, trailers\r\n\
        Trailer: X-Sum\r\nAuthorization: Bearer t\r\nTransfer-Encoding: chunked\r\nX-Keep: k\r\n\r\n";
    let once = forwarded(text, "1.2.3.4", &[], None);
    for gone in ["X-Secret", "Keep-Alive", "Proxy-Connection", "Upgrade", "HTTP2", "gzip"] {
        assert!(!once.contains(gone), "{gone} in {once}");
    }
    for kept in [
        "Trailer: X-Sum",
        "Authorization: Bearer t",
        "Transfer-Encoding: chunked",
        "X-Keep: k",
        "TE: trailers",
    ] {
        assert!(once.contains(kept), "{kept} not in {once}");
    }
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&forwarded(&once, "1.2.3.4", &[], None)), lines(&once));
}

#[test]
fn the_sticky_cookie_is_hidden_and_others_stay() {
    let cookies = |value: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {value}\r\n\r\n");
        let out = forwarded(&text, "1.2.3.4", &[], Some("lb"));
        out.lines().find_map(|line| line.strip_prefix("Cookie: ")).map(str::to_owned)
    };
    assert_eq!(cookies("a=1; lb=x; b=2").as_deref(), Some("a=1; b=2"));
    assert_eq!(cookies("lb=x; b=2").as_deref(), Some("b=2"));
    assert_eq!(cookies("lb=x"), None);
    assert_eq!(cookies("xlb=1; lb2=2").as_deref(), Some("xlb=1; lb2=2"));
    let head = request("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; lb=v=w\r\n\r\n");
    assert_eq!(cookie(&head, "lb"), Some(&b"v=w"[..]));
}

#[test]
fn a_request_of_http_1_0_gets_a_host() {
    assert!(forwarded("GET / HTTP/1.0\r\n\r\n", "1.2.3.4", &[], None).contains("Host: node:1\r\n"));
}

fn answered(text: &str, to_head: bool, version_11: bool, keep_alive: bool) -> String {
    let head =
        ResponseHead::parse(text.as_bytes().to_vec(), text.len(), Vec::new(), to_head).unwrap();
    let parts = ForClient {
        framing: head.framing,
        version_11,
        keep_alive,
        request_id: "id-1",
        set_cookie: None,
        hsts: false,
    };
    let mut out = Vec::new();
    write_response(&mut out, &head, &parts);
    String::from_utf8(out).unwrap()
}

#[test]
fn answers_keep_what_is_end_to_end() {
    let node = "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n\
        X-Hop: 1\r\nX-Request-Id: theirs\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n";
    assert_eq!(
        answered(node, false, true, true),
        "HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 3\r\nX-Request-Id: id-1\r\n\r\n"
    );
    assert!(answered(node, true, true, false).contains("Content-Length: 3\r\n"));
    assert!(answered(node, true, true, false).contains("Connection: close\r\n"));
    assert!(answered(node, false, false, true).contains("Connection: keep-alive\r\n"));
    let none = "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n";
    assert!(!answered(none, false, true, true).contains("Content-Length"));
}
