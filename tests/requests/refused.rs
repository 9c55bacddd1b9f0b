//! Requests that are refused: name, bytes, status, and the reason in metrics and log.

pub(super) type Row = (&'static str, Vec<u8>, u16, &'static str);

const BAD: &str = "http_request_error";

/// All of them; each is followed by another request on the same connection, which must never run.
pub(super) fn table() -> Vec<Row> {
    let fixed = LINES.iter().chain(FIELDS).chain(FRAMING).chain(CHUNKS);
    let mut rows: Vec<Row> = fixed.map(|row| (row.0, row.1.to_vec(), row.2, row.3)).collect();
    rows.extend(oversized());
    rows
}

/// What crosses a bound is made, not written.
fn oversized() -> Vec<Row> {
    let head = |middle: &str| format!("GET / HTTP/1.1\r\nHost: t\r\n{middle}\r\n").into_bytes();
    let long = "x".repeat(5000);
    vec![
        ("a head over its bytes", head(&format!("A: {long}\r\n")), 431, "request_head_too_large"),
        ("a name over the head's bytes", head(&format!("{long}: a\r\n")), 431, "request_head_too_large"),
        ("too many fields", head(&"A: b\r\n".repeat(20)), 431, "request_head_too_large"),
        ("a head over its bytes in many fields", head(&format!("A: {}\r\n", &long[..400]).repeat(12)), 431, "request_head_too_large"),
        ("a request line over the head's bytes", format!("GET /{long} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes(), 414, "uri_too_long"),
        ("a method over the head's bytes", format!("{long} / HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes(), 414, "uri_too_long"),
        (
            "an extension that is too long",
            format!("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3;{}\r\nabc\r\n0\r\n\r\n", &long[..300]).into_bytes(),
            400,
            "request_body_error",
        ),
        (
            "trailers that are too large",
            format!("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}\r\n", format!("A: {long}\r\n").repeat(2)).into_bytes(),
            400,
            "request_body_error",
        ),
    ]
}

type Fixed = (&'static str, &'static [u8], u16, &'static str);

/// Line ends, names, values, the request line and its target.
#[rustfmt::skip] // one row is one case
const LINES: &[Fixed] = &[
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: t\r\n\r\n", 400, BAD),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: t\n\n", 400, BAD),
    ("bare LF after a field", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\nC: d\r\n\r\n", 400, BAD),
    ("bare LF as the last line end", b"GET / HTTP/1.1\r\nHost: t\r\n\n", 400, BAD),
    ("LF CR instead of CR LF", b"GET / HTTP/1.1\n\rHost: t\n\r\n\r", 400, BAD),
    ("bare CR after the request line", b"GET / HTTP/1.1\rHost: t\r\n\r\n", 400, BAD),
    ("bare CR within a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\rc\r\n\r\n", 400, BAD),
    ("bare CR before CR LF", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\r\n\r\n", 400, BAD),
    ("CR CR LF ends the head", b"GET / HTTP/1.1\r\nHost: t\r\n\r\r\n\r\n", 400, BAD),
    ("a leading bare LF", b"\nGET / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("two leading empty lines", b"\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("an obs-fold by a space", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n c\r\n\r\n", 400, BAD),
    ("an obs-fold by a tab", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n\tc\r\n\r\n", 400, BAD),
    ("a fold that hides a length", b"POST / HTTP/1.1\r\nHost: t\r\nA: b\r\n Content-Length: 3\r\n\r\n", 400, BAD),
    ("an indented first field", b"GET / HTTP/1.1\r\n Host: t\r\n\r\n", 400, BAD),
    ("space before the colon", b"GET / HTTP/1.1\r\nHost: t\r\nA : b\r\n\r\n", 400, BAD),
    ("tab before the colon", b"GET / HTTP/1.1\r\nHost: t\r\nA\t: b\r\n\r\n", 400, BAD),
    ("space before the colon of a length", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length : 3\r\n\r\nabc", 400, BAD),
    ("space before the colon of a coding", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("space within a name", b"GET / HTTP/1.1\r\nHost: t\r\nA B: c\r\n\r\n", 400, BAD),
    ("an empty name", b"GET / HTTP/1.1\r\nHost: t\r\n: b\r\n\r\n", 400, BAD),
    ("a line without a colon", b"GET / HTTP/1.1\r\nHost: t\r\nnonsense\r\n\r\n", 400, BAD),
    ("NUL in a name", b"GET / HTTP/1.1\r\nHost: t\r\nA\0: b\r\n\r\n", 400, BAD),
    ("a control byte in a name", b"GET / HTTP/1.1\r\nHost: t\r\nA\x0b: b\r\n\r\n", 400, BAD),
    ("a control byte before a coding", b"POST / HTTP/1.1\r\nHost: t\r\n\x0bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a high byte in a name", b"GET / HTTP/1.1\r\nHost: t\r\nA\xe9: b\r\n\r\n", 400, BAD),
    ("a delimiter in a name", b"GET / HTTP/1.1\r\nHost: t\r\nA(b): c\r\n\r\n", 400, BAD),
    ("a quote in a name", b"GET / HTTP/1.1\r\nHost: t\r\n\"A\": c\r\n\r\n", 400, BAD),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\0c\r\n\r\n", 400, BAD),
    ("a control byte in a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\x01c\r\n\r\n", 400, BAD),
    ("DEL in a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\x7fc\r\n\r\n", 400, BAD),
    ("a vertical tab in a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: \x0bb\r\n\r\n", 400, BAD),
    ("escape in a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: \x1b[31m\r\n\r\n", 400, BAD),
    ("no version (HTTP/0.9)", b"GET /\r\n\r\n", 400, BAD),
    ("HTTP/0.9", b"GET / HTTP/0.9\r\nHost: t\r\n\r\n", 400, BAD),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: t\r\n\r\n", 400, BAD),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: t\r\n\r\n", 400, BAD),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 400, BAD),
    ("HTTP/3", b"GET / HTTP/3\r\nHost: t\r\n\r\n", 400, BAD),
    ("HTTP/01.1", b"GET / HTTP/01.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a version in lower case", b"GET / http/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a version of another protocol", b"GET / RTSP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, BAD),
    ("a space behind the version", b"GET / HTTP/1.1 \r\nHost: t\r\n\r\n", 400, BAD),
    ("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a tab for a space", b"GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a space within the target", b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a leading space", b" GET / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("no method", b"/ HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a method that is no token", b"GE(T / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a high byte in the method", b"G\xe9T / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("NUL in the method", b"GE\0T / HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400, BAD),
    ("NUL in the target", b"GET /a\0b HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a control byte in the target", b"GET /a\x01b HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("DEL in the target", b"GET /a\x7fb HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("bare CR in the target", b"GET /a\rb HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a target that is no path", b"GET a HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a target that is only a query", b"GET ?a HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a target that is not UTF-8", b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("* with GET", b"GET * HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("CONNECT", b"CONNECT t:443 HTTP/1.1\r\nHost: t\r\n\r\n", 501, "not_implemented"),
    ("CONNECT with a path", b"CONNECT / HTTP/1.1\r\nHost: t\r\n\r\n", 501, "not_implemented"),
    ("absolute form of another host", b"GET http://other/ HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("absolute form of another port", b"GET http://t:81/ HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("absolute form with a user", b"GET http://u@t/ HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("absolute form of another scheme", b"GET ftp://t/ HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("absolute form without a host", b"GET http:/// HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("absolute form with no path but a query", b"GET http://t?a HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("absolute form and no host field", b"GET http://t/ HTTP/1.1\r\n\r\n", 400, BAD),
];

/// Hosts.
#[rustfmt::skip] // one row is one case
const FIELDS: &[Fixed] = &[
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400, BAD),
    ("an empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, BAD),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n", 400, BAD),
    ("the same host twice", b"GET / HTTP/1.1\r\nHost: t\r\nhost: t\r\n\r\n", 400, BAD),
    ("two hosts in one field", b"GET / HTTP/1.1\r\nHost: t, u\r\n\r\n", 400, BAD),
    ("a host with a user", b"GET / HTTP/1.1\r\nHost: u@t\r\n\r\n", 400, BAD),
    ("a host with a path", b"GET / HTTP/1.1\r\nHost: t/a\r\n\r\n", 400, BAD),
    ("a host with a query", b"GET / HTTP/1.1\r\nHost: t?a\r\n\r\n", 400, BAD),
    ("a host with a space", b"GET / HTTP/1.1\r\nHost: t u\r\n\r\n", 400, BAD),
    ("a host with a high byte", b"GET / HTTP/1.1\r\nHost: t\xe9\r\n\r\n", 400, BAD),
    ("a host with only a port", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, BAD),
    ("a port that is no number", b"GET / HTTP/1.1\r\nHost: t:8o\r\n\r\n", 400, BAD),
    ("a port that is too long", b"GET / HTTP/1.1\r\nHost: t:655360\r\n\r\n", 400, BAD),
    ("a bracket that does not close", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, BAD),
    ("brackets without an address", b"GET / HTTP/1.1\r\nHost: [t]\r\n\r\n", 400, BAD),
    ("an odd host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: t/\r\n\r\n", 400, BAD),
    ("a quote in the host", b"GET / HTTP/1.1\r\nHost: t\"\r\n\r\n", 400, BAD),
];

/// Lengths and codings.
#[rustfmt::skip] // one row is one case
const FRAMING: &[Fixed] = &[
    ("a list of equal lengths", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3, 3\r\n\r\nabc", 400, BAD),
    ("a list of different lengths", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3, 4\r\n\r\nabc", 400, BAD),
    ("a length with a sign", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\nabc", 400, BAD),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -3\r\n\r\nabc", 400, BAD),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0x3\r\n\r\nabc", 400, BAD),
    ("a length with a space within", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3 3\r\n\r\nabc", 400, BAD),
    ("a length with a fraction", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3.0\r\n\r\nabc", 400, BAD),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: \r\n\r\nabc", 400, BAD),
    ("a length that is too long", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999999999999999\r\n\r\nabc", 400, BAD),
    ("a length beyond 64 bits", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551619\r\n\r\nabc", 400, BAD),
    ("a length with a letter", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3a\r\n\r\nabc", 400, BAD),
    ("a quoted length", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: \"3\"\r\n\r\nabc", 400, BAD),
    ("a length with a trailing comma", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3,\r\n\r\nabc", 400, BAD),
    ("repeated equal lengths", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, BAD),
    ("repeated different lengths", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\nabc", 400, BAD),
    ("repeated lengths in different case", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\ncontent-LENGTH: 3\r\n\r\nabc", 400, BAD),
    ("a length beside a coding", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a coding beside a length", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a length of 0 beside a coding", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a coding twice in two fields", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a coding twice in one field", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a coding in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("a coding in HTTP/1.0 with keep-alive", b"POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", 400, BAD),
    ("coding: gzip, chunked", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: chunked, gzip", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: gzip", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: identity", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: identity, chunked", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: a coding with a letter too many", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: a coding with a parameter", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: an empty coding", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \r\n\r\n0\r\n\r\n", 400, BAD),
    ("coding: a coding after a vertical tab", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, BAD),
    ("coding: a quoted coding", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400, BAD),
    ("coding: a coding with a comma before", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    ("coding: a coding with a control byte behind", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", 400, BAD),
    ("two codings in two fields", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400, BAD),
];

/// Chunks, bounds of bodies, and requests within requests.
#[rustfmt::skip] // one row is one case
const CHUNKS: &[Fixed] = &[
    ("a chunk size that is no number", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\ng\r\n", 400, "request_body_error"),
    ("an empty chunk size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400, "request_body_error"),
    ("a chunk size with a sign", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a negative chunk size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a chunk size with 0x", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a space before the chunk size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a space behind the chunk size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a chunk size with too many digits", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000003\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a chunk size that wraps", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("bare LF behind the chunk size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("bare LF behind the data", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", 400, "request_body_error"),
    ("bare CR behind the chunk size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("data longer than its size", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400, "request_body_error"),
    ("data without CR LF", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n", 400, "request_body_error"),
    ("bare LF in an extension", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("bare CR in an extension", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("NUL in an extension", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3;a\0\r\nabc\r\n0\r\n\r\n", 400, "request_body_error"),
    ("a trailer without a colon", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nnonsense\r\n\r\n", 400, "request_body_error"),
    ("a trailer with a space before the colon", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA : b\r\n\r\n", 400, "request_body_error"),
    ("a folded trailer", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c: d\r\n\r\n", 400, "request_body_error"),
    ("bare LF behind a trailer", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", 400, "request_body_error"),
    ("bare LF behind the trailers", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\n", 400, "request_body_error"),
    ("bare LF behind the last chunk", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n", 400, "request_body_error"),
    ("NUL in a trailer", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\0\r\n\r\n", 400, "request_body_error"),
    ("bare CR in a trailer", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\rc\r\n\r\n", 400, "request_body_error"),
    ("an unknown expectation", b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417, BAD),
    ("an expectation with a parameter", b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue; a\r\nContent-Length: 3\r\n\r\nabc", 417, BAD),
    ("two expectations in one field", b"POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue, x\r\nContent-Length: 3\r\n\r\nabc", 417, BAD),
    ("a connection option that is no token", b"GET / HTTP/1.1\r\nHost: t\r\nConnection: clo(se\r\n\r\n", 400, BAD),
    ("a declared body over the limit", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 33\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 413, "request_body_too_large"),
    ("a huge declared body", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 999999999999999999\r\n\r\n", 413, "request_body_too_large"),
    ("a chunked body over the limit", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nxxxxxxxxxxxxxxxx\r\n11\r\nyyyyyyyyyyyyyyyyy\r\n0\r\n\r\n", 413, "request_body_too_large"),
    ("a chunk over the limit", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n21\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n", 413, "request_body_too_large"),
    ("a refused length with a second request in its body", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("CL.TE with a second request behind the last chunk", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 42\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("TE.TE with a second request", b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n", 400, BAD),
    ("a method behind CR within a value", b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\rGET /smuggled HTTP/1.1\r\n\r\n", 400, BAD),
];
