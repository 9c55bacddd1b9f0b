use proptest::prelude::*;

use super::*;

fn json(line: &Line<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    write_json(line, &mut TimeCache::default(), &mut out);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

fn combined(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    write_combined(line, &mut TimeCache::default(), &mut out);
    String::from_utf8(out).unwrap()
}

fn full() -> Line<'static> {
    Line {
        unix_ms: 1_795_384_575_042,
        request_id: b"0192-abc",
        upstream_request_id: b"node-1",
        client: "203.0.113.9".parse().unwrap(),
        peer: Peer::Ip("::ffff:10.0.0.1".parse().unwrap()),
        method: b"POST",
        host: b"crm.example.com:8080",
        path: b"/api/posts:create?a=1",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_in: 12,
        bytes_out: u64::MAX,
        duration_us: 1_234_567,
        queue_us: 8,
        parked_us: Some(7_000),
        spooled: Some((70_000, 1_500)),
        connect_us: Some(90),
        header_us: Some(123_456),
        listener: "public",
        route: "all",
        upstream: "nocobase",
        node: "node2",
        app: b"main",
        action: b"posts:create",
        affinity: "kept",
        user_agent: b"curl/8",
        referer: b"http://crm.example.com/x?token=secret",
        reason: "connection_terminated",
        detail: "reset",
        attempts: &[
            Attempt {
                node: "node1",
                result: "connect",
                sent: 0,
                reused: false,
                hedge: false,
                us: 1,
            },
            Attempt {
                node: "node2",
                result: "ok",
                sent: 345,
                reused: true,
                hedge: true,
                us: 1_000,
            },
        ],
        retried: true,
    }
}

#[test]
fn a_full_line_tells_everything() {
    let expected = serde_json::json!({
        "time": "2026-11-22T21:56:15.042Z", "request_id": "0192-abc",
        "upstream_request_id": "node-1", "client": "203.0.113.9", "peer": "10.0.0.1",
        "method": "POST", "host": "crm.example.com:8080", "path": "/api/posts:create?a=1",
        "protocol": "HTTP/1.1", "status": 200, "bytes_in": 12, "bytes_out": u64::MAX,
        "duration_ms": 1234.567, "queue_ms": 0.008, "parked_ms": 7.0, "spooled": 70_000, "spooled_ms": 1.5, "connect_ms": 0.09, "header_ms": 123.456,
        "listener": "public", "route": "all", "upstream": "nocobase", "node": "node2",
        "app": "main", "action": "posts:create", "affinity": "kept", "user_agent": "curl/8",
        "referer": "http://crm.example.com/x?token=***",
        "reason": "connection_terminated", "detail": "reset",
        "attempts": [
            {"node": "node1", "result": "connect", "sent": 0, "reused": false, "ms": 0.001},
            {"node": "node2", "result": "ok", "sent": 345, "reused": true, "hedge": true, "ms": 1.0},
        ],
        "retried": true,
    });
    assert_eq!(json(&full()), expected);
}

#[test]
fn what_is_none_is_left_out() {
    let value = json(&Line::default());
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "attempts",
        "bytes_in",
        "bytes_out",
        "client",
        "duration_ms",
        "peer",
        "queue_ms",
        "retried",
        "status",
        "time",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn a_combined_line() {
    let line = Line { path: b"/a \"b\"\\\n\xff\xc3\xa9?password=x", bytes_out: 7, ..full() };
    let expected = "203.0.113.9 - - [22/Nov/2026:21:56:15 +0000] \
        \"POST /a \\x22b\\x22\\x5c\\x0a\\xffé?password=*** HTTP/1.1\" 200 7 \
        \"http://crm.example.com/x?token=***\" \"curl/8\"\n";
    assert_eq!(combined(&line), expected);
    let bare = combined(&Line::default());
    assert_eq!(bare, "0.0.0.0 - - [01/Jan/1970:00:00:00 +0000] \"  \" 0 0 \"-\" \"-\"\n");
}

#[test]
fn secrets_are_hidden() {
    let cases: [(&[u8], &str); 9] = [
        (b"/a", "/a"),
        (b"/a?", "/a?"),
        (b"/a?token", "/a?token"),
        (b"/a?token=", "/a?token=***"),
        (b"/a?x=1&token=abc=d&y=2", "/a?x=1&token=***&y=2"),
        (b"/ws?__appName=a&%74oKen=abc", "/ws?__appName=a&%74oKen=***"),
        (
            b"/f?temporaryAccessToken=1&access_token=2",
            "/f?temporaryAccessToken=***&access_token=***",
        ),
        (b"/token=1?tokens=2&atoken=3&token%=4", "/token=1?tokens=2&atoken=3&token%=4"),
        (b"/a?b?password=1&password=2", "/a?b?password=1&password=***"),
    ];
    for (path, expected) in cases {
        assert_eq!(json(&Line { path, ..Line::default() })["path"], expected);
    }
}

#[test]
fn odd_bytes_become_text() {
    let cases: [(&[u8], &str); 4] = [
        (b"a\"b\\c\r\n\t\0\x7f", "a\"b\\c\r\n\t\0\x7f"),
        (b"\xff\xc3", "\\xff\\xc3"),
        ("é\u{85}\u{2028}".as_bytes(), "é\u{85}\u{2028}"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
    ];
    for (user_agent, expected) in cases {
        assert_eq!(json(&Line { user_agent, ..Line::default() })["user_agent"], expected);
    }
}

proptest! {
    #[test]
    fn whatever_comes_a_line_is_json(
        path in prop::collection::vec(any::<u8>(), 0..80),
        other in prop::collection::vec(any::<u8>(), 0..80),
        number in any::<u64>(),
    ) {
        let line = Line {
            unix_ms: number, path: &path, method: &other, host: &other, user_agent: &other,
            referer: &path, request_id: &other, app: &path, bytes_in: number, duration_us: number,
            ..Line::default()
        };
        let value = json(&line);
        prop_assert_eq!(value["bytes_in"].as_u64(), Some(number));
        let text = combined(&line);
        prop_assert_eq!(text.matches('\n').count(), 1);
        prop_assert_eq!(text.matches('"').count(), 6);
    }

    #[test]
    fn valid_text_comes_back_unchanged(text in "\\PC*") {
        let value = json(&Line { action: text.as_bytes(), ..Line::default() });
        let back = value.get("action").and_then(|action| action.as_str()).unwrap_or_default();
        prop_assert_eq!(back, text);
    }
}
