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

/// How a node goes on behind a broken answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It waits for what comes, and answers that well.
    Waits,
    /// It closes the connection.
    Closes,
    /// It resets the connection.
    Resets,
}

use End::{Closes, Resets, Waits};

/// One case.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Of the request; `WS` is a GET that asks for a WebSocket.
    pub(super) method: &'static str,
    /// Sent at once.
    pub(super) first: Vec<u8>,
    /// Sent when the client has the head.
    pub(super) then: Vec<u8>,
    /// What the node does then.
    pub(super) end: End,
    pub(super) verdict: Verdict,
}

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = large();
    rows.extend(fixed().into_iter().map(|(name, method, first, then, end, verdict)| Row {
        name,
        method,
        first: first.to_vec(),
        then: then.to_vec(),
        end,
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
        end: Waits,
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
        row("one interim answer too many", "HTTP/1.1 102 Processing\r\n\r\n".repeat(17)),
        row("a huge name", format!("{ok}{long}: a\r\n\r\n")),
    ]
}

type Fixed = (&'static str, &'static str, &'static [u8], &'static [u8], End, Verdict);

#[allow(clippy::too_many_lines)] // one row is one case
#[rustfmt::skip]
fn fixed() -> Vec<Fixed> {
    vec![
        ("surplus behind a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVILEVIL", b"", Waits, Refused),
        ("surplus behind an empty body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nEVIL", b"", Waits, Refused),
        ("surplus behind a chunked body", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\nEVIL", b"", Waits, Refused),
        ("two answers at once", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVILHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a line end behind a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL\r\n", b"", Waits, Refused),
        ("204 with a body", "GET", b"HTTP/1.1 204 No Content\r\n\r\nEVIL", b"", Waits, Refused),
        ("204 with a counted body", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("204 with a chunked body", "GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("304 with a body", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("HEAD with a body", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("HEAD with a chunked body", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("a length beside a coding", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", Waits, Refused),
        ("equal lengths", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("different lengths", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a list of lengths", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a signed length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a negative length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a hexadecimal length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nEVIL", b"", Waits, Refused),
        ("an empty length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nEVIL", b"", Waits, Refused),
        ("a length that is too long", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nEVIL", b"", Waits, Refused),
        ("coding: gzip", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nEVIL", b"", Closes, Refused),
        ("coding: gzip, chunked", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nEVIL", b"", Closes, Refused),
        ("coding: identity", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nEVIL", b"", Closes, Refused),
        ("coding: chunked twice", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\nEVIL", b"", Closes, Refused),
        ("coding: an unknown coding", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nEVIL", b"", Closes, Refused),
        ("coding: an empty coding", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\n\r\nEVIL", b"", Closes, Refused),
        ("two codings in two fields", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", Waits, Refused),
        ("a coding in HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("a chunk size that is no number", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nEVIL\r\n", b"", Waits, Refused),
        ("an empty chunk size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nEVIL", b"", Waits, Refused),
        ("a chunk size with a space", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4 \r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("a chunk size that is too long", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000004\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("bare LF behind a chunk size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("data longer than its size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("bare LF behind data", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\n0\r\n\r\n", b"", Waits, Refused),
        ("a trailer that is no field", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\nnonsense\r\n\r\n", b"", Waits, Refused),
        ("a folded trailer", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\nA: b\r\n c\r\n\r\n", b"", Waits, Refused),
        ("garbage", "GET", b"EVIL garbage\r\n\r\n", b"", Waits, Refused),
        ("garbage without an end", "GET", b"\x16\x03\x01\x02\nEVIL", b"", Waits, Refused),
        ("an answer of HTTP/0.9", "GET", b"<html>EVIL\n</html>\n", b"", Waits, Refused),
        ("bare LF ends lines", "GET", b"HTTP/1.1 200 OK\nContent-Length: 4\n\nEVIL", b"", Waits, Refused),
        ("bare LF in a field", "GET", b"HTTP/1.1 200 OK\r\nA: b\nB: c\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("bare CR in a value", "GET", b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("an obs-fold", "GET", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("NUL in a value", "GET", b"HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("NUL in a name", "GET", b"HTTP/1.1 200 OK\r\nA\0: b\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("NUL in the reason", "GET", b"HTTP/1.1 200 O\0K\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("space before the colon", "GET", b"HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a line without a colon", "GET", b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("an empty name", "GET", b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("status 99", "GET", b"HTTP/1.1 99 Low\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("status 099", "GET", b"HTTP/1.1 099 Low\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("status 600", "GET", b"HTTP/1.1 600 High\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("status 999", "GET", b"HTTP/1.1 999 High\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("status of four digits", "GET", b"HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("status that is no number", "GET", b"HTTP/1.1 2xx OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("HTTP/2.0", "GET", b"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("HTTP/1.2", "GET", b"HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a version in lower case", "GET", b"http/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a leading space", "GET", b" HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a leading empty line", "GET", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a request for an answer", "GET", b"GET / HTTP/1.1\r\nHost: EVIL\r\n\r\n", b"", Waits, Refused),
        ("a connection option that is no token", "GET", b"HTTP/1.1 200 OK\r\nConnection: a b\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("101 that nobody asked for", "GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nEVIL", b"", Waits, Refused),
        ("101 without an upgrade", "GET", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"", Waits, Refused),
        ("nothing at all", "GET", b"", b"", Closes, Refused),
        ("the end within the status line", "GET", b"HTTP/1.1 20", b"", Closes, Refused),
        ("the end within a field", "GET", b"HTTP/1.1 200 OK\r\nA: EVI", b"", Closes, Refused),
        ("the end before the empty line", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", b"", Closes, Refused),
        ("an interim answer and the end", "GET", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"", Closes, Refused),
        ("an interim answer with a coding and another", "GET", b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: gzip\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("an interim answer with a body", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nEVIL\r\n\r\n", b"", Waits, Refused),
        ("the end within a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"c", Closes, Cut),
        ("the end within a chunk", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", b"c", Closes, Cut),
        ("the end between chunks", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"4\r\nabcd\r\n", Closes, Cut),
        ("the end before the last line end", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\n", Closes, Cut),
        ("the end within the trailers", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\nA: b\r\n", Closes, Cut),
        ("an odd chunk size later on", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"EVIL\r\n", Waits, Cut),
        ("an odd line end later on", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", b"cdX\r\n0\r\n\r\n", Waits, Cut),
        ("an answer within a chunked body", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", Waits, Cut),
        ("an odd trailer later on", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\nEVIL\r\n\r\n", Waits, Cut),
        ("a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("an empty body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("a chunked body with extensions", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n004;a=b\r\nabcd\r\n00;c\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")),
        ("forbidden trailers", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\nSet-Cookie: a\r\nX-Sum: 1\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ("204 with a length", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"", Waits, Kept("HTTP/1.1 204 No Content\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("304 with a length", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", b"", Waits, Kept("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("HEAD with a length", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("HEAD with a coding", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("HEAD without a length", "HEAD", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nA: b\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("no reason", "GET", b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 200 \r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("an unknown status", "GET", b"HTTP/1.1 599 Odd\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 599 Odd\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("fields of the connection go", "GET", b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\nX-Stays: 1\r\nX-Request-Id: theirs\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 200 OK\r\nX-Stays: 1\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("interim answers", "GET", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("a 100 that nobody waits for", "GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("HTTP/1.0 with keep-alive", "GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Passed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("a node that closes", "GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Passed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("a body until the close", "GET", b"HTTP/1.1 200 OK\r\n\r\nabcd", b"", Closes, Passed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")),
        ("an answer within a body until the close", "GET", b"HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"", Closes, Passed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n13\r\nHTTP/1.1 200 OK\r\n\r\n\r\n0\r\n\r\n")),
        ("surplus later on, once the answer has begun", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0\r\n\r\nEVIL", Waits, Passed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")),
        ("204 whose body comes later", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", b"EVIL", Waits, Passed("HTTP/1.1 204 No Content\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("204 whose chunks come later", "GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nEVIL\r\n0\r\n\r\n", Waits, Passed("HTTP/1.1 204 No Content\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("204 with a length and nothing else", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", b"", Waits, Passed("HTTP/1.1 204 No Content\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n")),
        ("304 with a chunked body", "GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("304 and another answer", "GET", b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("HEAD and another answer", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"", Waits, Refused),
        ("an interim answer with a length", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nEVILHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("an interim answer that promises chunks", "GET", b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("an interim answer of no length", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("an interim answer with fields of its connection", "GET", b"HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\nX-Hop: 1\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("an interim answer with half a length", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("interim answers, and then garbage", "GET", b"HTTP/1.1 103 Early Hints\r\n\r\nEVIL EVIL\r\n\r\n", b"", Waits, Refused),
        ("a reset before a byte", "GET", b"", b"", Resets, Refused),
        ("a reset within the head", "GET", b"HTTP/1.1 200 OK\r\nContent-Le", b"", Resets, Refused),
        ("a reset within a counted body", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na", b"b", Resets, Cut),
        ("a reset within a chunk", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na", b"b", Resets, Cut),
        ("a reset before the last chunk", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", b"0", Resets, Cut),
        ("a reset within a body until the close", "GET", b"HTTP/1.1 200 OK\r\n\r\nabcd", b"e", Resets, Cut),
        ("a status line in two lines", "GET", b"HTTP/1.1 200\r\n OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("two spaces before the status", "GET", b"HTTP/1.1  200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a tab before the status", "GET", b"HTTP/1.1\t200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("no space behind the status", "GET", b"HTTP/1.1 200OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a signed status", "GET", b"HTTP/1.1 +20 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("no version", "GET", b"200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a version of another protocol", "GET", b"ICY 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("HTTP/1.10", "GET", b"HTTP/1.10 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("CR CR LF behind the status line", "GET", b"HTTP/1.1 200 OK\r\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a high byte in a name", "GET", b"HTTP/1.1 200 OK\r\nA\xe9: b\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a byte order mark", "GET", b"\xef\xbb\xbfHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("settings of HTTP/2", "GET", b"\0\0\0\x04\0\0\0\0\0\r\n\r\n", b"", Waits, Refused),
        ("an alert of TLS", "GET", b"\x15\x03\x01\0\x02\x02\x28\r\n\r\n", b"", Waits, Refused),
        ("a length with an underscore", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0_4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a length in two fields of different case", "GET", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a length beside an unknown coding", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("coding: a coding after a vertical tab", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\nEVIL", b"", Closes, Refused),
        ("coding: a quoted coding", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\nEVIL", b"", Closes, Refused),
        ("lengths that disagree to HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n", b"", Waits, Refused),
        ("a length beside a coding to HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", b"", Waits, Refused),
        ("a signed chunk size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("a chunk size of 64 bits", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000004\r\nEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("bare CR behind a chunk size", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\rEVIL\r\n0\r\n\r\n", b"", Waits, Refused),
        ("an answer where trailers stand", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("chunks where a length was said, later on", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n4\r", b"\nEVIL\r\n0\r\n\r\n", Waits, Passed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n4\r\nE")),
        ("two answers, the second later on", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"cdHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", Waits, Passed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("101 to what asked for a WebSocket, without a protocol", "WS", b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n\r\nEVIL", b"", Waits, Refused),
        ("101 to another protocol", "WS", b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nEVIL", b"", Waits, Refused),
        ("101 without Connection", "WS", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\nEVIL", b"", Waits, Refused),
        ("101 with a length", "WS", b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("101 with chunks", "WS", b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\nEVIL", b"", Waits, Refused),
        ("no WebSocket but an answer", "WS", b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("no WebSocket but two answers", "WS", b"HTTP/1.1 400 No\r\nContent-Length: 4\r\n\r\nEVILHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"", Waits, Refused),
        ("a field that passes for a coding by an underscore", "GET", b"HTTP/1.1 200 OK\r\nTransfer_Encoding: chunked\r\nContent-Length: 4\r\n\r\nabcd", b"", Waits, Kept("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\nabcd")),
        ("trailers that speak of the body or of a session", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nCache-Control: x\r\nWWW-Authenticate: x\r\nStrict-Transport-Security: x\r\nVary: x\r\nX-Sum: 1\r\n\r\n", b"", Waits, Kept("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: ID\r\nConnection: close\r\n\r\n0\r\nX-Sum: 1\r\n\r\n")),
    ]
}
