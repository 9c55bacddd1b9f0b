//! Broken answers, and some that only look so.

/// What becomes of an answer.
pub(super) enum Verdict {
    /// 502 in our own shape, the node's connection closed.
    Refused,
    /// The client sees that it is not whole; the node's connection closed.
    Cut,
    /// Exactly these bytes, and the node's connection is closed.
    Passed(&'static str),
    /// Exactly these bytes, and the node's connection is used again.
    Kept(&'static str),
}

use Verdict::{Cut, Kept, Passed, Refused};

/// One case.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    /// Sent at once.
    pub(super) first: Vec<u8>,
    /// Sent when the client has the head.
    pub(super) then: Vec<u8>,
    /// The node closes then; else it waits for what comes.
    pub(super) closes: bool,
    pub(super) verdict: Verdict,
}

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = large();
    rows.extend(fixed().into_iter().map(|(name, method, first, then, closes, verdict)| Row {
        name,
        method,
        first: first.to_vec(),
        then: then.to_vec(),
        closes,
        verdict,
    }));
    rows
}

/// What crosses a bound is made, not written.
fn large() -> Vec<Row> {
    let row = |name, head: String| Row {
        name,
        method: "GET",
        first: format!("{head}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL").into_bytes(),
        then: Vec::new(),
        closes: false,
        verdict: Refused,
    };
    let (ok, long) = ("HTTP/1.1 200 OK\r\n", "x".repeat(33_000));
    vec![
        row("a huge field", format!("{ok}A: {long}\r\n\r\n")),
        row("a huge reason", format!("HTTP/1.1 200 {long}\r\n\r\n")),
        row("a first line without an end", long.clone()),
        row("too many fields", format!("{ok}{}\r\n", "A: b\r\n".repeat(201))),
        row("a huge head of small fields", format!("{ok}{}\r\n", "A: b\r\n".repeat(6000))),
        row("a huge interim answer", format!("HTTP/1.1 103 Early\r\nA: {long}\r\n\r\n")),
        row("endless interim answers", "HTTP/1.1 103 Early\r\n\r\n".repeat(100)),
        row("endless 100", "HTTP/1.1 100 Continue\r\n\r\n".repeat(100)),
    ]
}

type Fixed = (&'static str, &'static str, &'static [u8], &'static [u8], bool, Verdict);

#[allow(clippy::too_many_lines)] // one row is one case
#[rustfmt::skip]
fn fixed() -> Vec<Fixed> {
    vec![
        ("surplus behind a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVILEVIL", b"", false, Refused),
        ("surplus behind an empty body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nEVIL", b"", false, Refused),
        ("surplus behind a chunked body", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\nEVIL", b"", false, Refused),
        ("two answers at once", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVILHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("a line end behind a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL\r\n", b"", false, Refused),
        ("204 with a body", "GET", b"HTTP/1.1 204 No Content\r\n\r\nEVIL", b"", false, Refused),
        ("204 with a counted body", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("204 with a chunked body", "GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("304 with a body", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("HEAD with a body", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("HEAD with a chunked body", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("a length beside a coding", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", false, Refused),
        ("equal lengths", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("different lengths", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("a list of lengths", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nEVIL", b"", false, Refused),
        ("a signed length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nEVIL", b"", false, Refused),
        ("a negative length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nEVIL", b"", false, Refused),
        ("a hexadecimal length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nEVIL", b"", false, Refused),
        ("an empty length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nEVIL", b"", false, Refused),
        ("a length that is too long", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nEVIL", b"", false, Refused),
        ("coding: gzip", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nEVIL", b"", true, Refused),
        ("coding: gzip, chunked", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nEVIL", b"", true, Refused),
        ("coding: identity", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nEVIL", b"", true, Refused),
        ("coding: chunked twice", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\nEVIL", b"", true, Refused),
        ("coding: an unknown coding", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nEVIL", b"", true, Refused),
        ("coding: an empty coding", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\n\r\nEVIL", b"", true, Refused),
        ("two codings in two fields", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", false, Refused),
        ("a coding in HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("a chunk size that is no number", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nEVIL\r\n", b"", false, Refused),
        ("an empty chunk size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nEVIL", b"", false, Refused),
        ("a chunk size with a space", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4 \r\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("a chunk size that is too long", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000004\r\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("bare LF behind a chunk size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("data longer than its size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEVIL\r\n0\r\n\r\n", b"", false, Refused),
        ("bare LF behind data", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\n0\r\n\r\n", b"", false, Refused),
        ("a trailer that is no field", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\nnonsense\r\n\r\n", b"", false, Refused),
        ("a folded trailer", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\nA: b\r\n c\r\n\r\n", b"", false, Refused),
        ("garbage", "GET", b"EVIL garbage\r\n\r\n", b"", false, Refused),
        ("garbage without an end", "GET", b"\x16\x03\x01\x02\nEVIL", b"", false, Refused),
        ("an answer of HTTP/0.9", "GET", b"<html>EVIL\n</html>\n", b"", false, Refused),
        ("bare LF ends lines", "GET", b"HTTP/1.1 200 OK\nContent-Length: 4\n\nEVIL", b"", false, Refused),
        ("bare LF in a field", "GET", b"HTTP/1.1 200 OK\r\nA: b\nB: c\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("bare CR in a value", "GET", b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("an obs-fold", "GET", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("NUL in a value", "GET", b"HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("NUL in a name", "GET", b"HTTP/1.1 200 OK\r\nA\0: b\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("NUL in the reason", "GET", b"HTTP/1.1 200 O\0K\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("space before the colon", "GET", b"HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nEVIL", b"", false, Refused),
        ("a line without a colon", "GET", b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("an empty name", "GET", b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("status 99", "GET", b"HTTP/1.1 99 Low\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("status 099", "GET", b"HTTP/1.1 099 Low\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("status 600", "GET", b"HTTP/1.1 600 High\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("status 999", "GET", b"HTTP/1.1 999 High\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("status of four digits", "GET", b"HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("status that is no number", "GET", b"HTTP/1.1 2xx OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("HTTP/2.0", "GET", b"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("HTTP/1.2", "GET", b"HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("a version in lower case", "GET", b"http/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("a leading space", "GET", b" HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("a leading empty line", "GET", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("a request for an answer", "GET", b"GET / HTTP/1.1\r\nHost: EVIL\r\n\r\n", b"", false, Refused),
        ("a connection option that is no token", "GET", b"HTTP/1.1 200 OK\r\nConnection: a b\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("101 that nobody asked for", "GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nEVIL", b"", false, Refused),
        ("101 without an upgrade", "GET", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"", false, Refused),
        ("nothing at all", "GET", b"", b"", true, Refused),
        ("the end within the status line", "GET", b"HTTP/1.1 20", b"", true, Refused),
        ("the end within a field", "GET", b"HTTP/1.1 200 OK\r\nA: EVI", b"", true, Refused),
        ("the end before the empty line", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", b"", true, Refused),
        ("an interim answer and the end", "GET", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"", true, Refused),
        ("an interim answer with a coding and another", "GET", b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: gzip\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", false, Refused),
        ("an interim answer with a body", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nEVIL\r\n\r\n", b"", false, Refused),
        ("the end within a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"c", true, Cut),
        ("the end within a chunk", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", b"c", true, Cut),
        ("the end between chunks", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"4\r\nabcd\r\n", true, Cut),
        ("the end before the last line end", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\n", true, Cut),
        ("the end within the trailers", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\nA: b\r\n", true, Cut),
        ("an odd chunk size later on", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"EVIL\r\n", false, Cut),
        ("an odd line end later on", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", b"cdX\r\n0\r\n\r\n", false, Cut),
        ("an answer within a chunked body", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", false, Cut),
        ("an odd trailer later on", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\nEVIL\r\n\r\n", false, Cut),
        ("a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("an empty body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", false, Kept("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("a chunked body with extensions", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n004;a=b\r\nabcd\r\n00;c\r\n\r\n", b"", false, Kept("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")),
        ("forbidden trailers", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\nSet-Cookie: a\r\nX-Sum: 1\r\n\r\n", b"", false, Kept("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ("204 with a length", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"", false, Kept("HTTP/1.1 204 No Content\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("304 with a length", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", b"", false, Kept("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("HEAD with a length", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"", false, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("HEAD with a coding", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", false, Kept("HTTP/1.1 200 OK\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("HEAD without a length", "HEAD", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", b"", false, Kept("HTTP/1.1 200 OK\r\nA: b\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("no reason", "GET", b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 200 \r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("an unknown status", "GET", b"HTTP/1.1 599 Odd\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 599 Odd\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("fields of the connection go", "GET", b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\nX-Stays: 1\r\nX-Request-Id: theirs\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 200 OK\r\nX-Stays: 1\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("interim answers", "GET", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("a 100 that nobody waits for", "GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("HTTP/1.0 with keep-alive", "GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Passed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("a node that closes", "GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd", b"", false, Passed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("a body until the close", "GET", b"HTTP/1.1 200 OK\r\n\r\nabcd", b"", true, Passed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")),
        ("an answer within a body until the close", "GET", b"HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"", true, Passed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n13\r\nHTTP/1.1 200 OK\r\n\r\n\r\n0\r\n\r\n")),
        ("surplus later on, once the answer has begun", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\n\r\nEVIL", false, Passed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")),
    ]
}
