//! What only HTTP/2 can say, and most of it must not.

use h2::Reason;

use super::support::forge::Part;
use super::support::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};

/// What becomes of a stream.
#[derive(Debug)]
pub(super) enum End {
    /// It is reset, and no node hears of it.
    Reset(Reason),
    /// The library ends the whole connection, and no node hears of it.
    Gone,
    /// The library answers, before we know of it.
    Bare(u16),
    /// It is answered by us, and no node hears of it.
    Answered(u16),
    /// The node gets this; `>` as in the table of HTTP/1.1.
    Passed(&'static str),
}

use End::{Answered, Bare, Gone, Passed, Reset};

pub(super) type Row = (&'static str, Vec<Part>, End);

const WRONG: Reason = Reason::PROTOCOL_ERROR;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;
const PUSH_PROMISE: u8 = 5;

const M: Field = (":method", b"GET");
const S: Field = (":scheme", b"http");
const A: Field = (":authority", b"t");
const P: Field = (":path", b"/x");

type Field = (&'static str, &'static [u8]);

/// A stream that is nothing but this head.
fn head(fields: &[Field]) -> Vec<Part> {
    vec![(HEADERS, END_HEADERS | END_STREAM, block(fields))]
}

/// A GET with more fields.
fn more(fields: &[Field]) -> Vec<Part> {
    head(&[&[M, S, A, P], fields].concat())
}

/// A POST with more fields and pieces of a body, of which the last is the end.
fn body(fields: &[Field], pieces: &[&[u8]]) -> Vec<Part> {
    let head = [&[(":method", &b"POST"[..]), S, A, P], fields].concat();
    let mut parts = vec![(HEADERS, END_HEADERS, block(&head))];
    parts.extend(pieces.iter().map(|piece| (DATA, 0, piece.to_vec())));
    parts.last_mut().unwrap().1 |= END_STREAM;
    parts
}

/// A POST with trailers.
fn trailers(fields: &[Field]) -> Vec<Part> {
    let mut parts = body(&[], &[b"abc"]);
    parts[1].1 = 0;
    parts.push((HEADERS, END_HEADERS | END_STREAM, block(fields)));
    parts
}

/// The streams.
pub(super) fn streams() -> Vec<Row> {
    let all =
        [pseudo(), names_and_values(), of_the_connection(), hosts(), bodies(), plain(), large()];
    all.into_iter().flatten().collect()
}

#[rustfmt::skip] // one row is one case
fn pseudo() -> Vec<Row> {
    vec![
        ("a pseudo-field behind others", head(&[M, S, A, ("a", b"b"), P]), Reset(WRONG)),
        ("a method behind others", head(&[S, A, P, ("a", b"b"), M]), Reset(WRONG)),
        ("two methods", more(&[M]), Reset(WRONG)),
        ("two methods at once", head(&[M, (":method", b"POST"), S, A, P]), Reset(WRONG)),
        ("two schemes", head(&[M, S, S, A, P]), Reset(WRONG)),
        ("two authorities", head(&[M, S, A, A, P]), Reset(WRONG)),
        ("two authorities that disagree", head(&[M, S, A, (":authority", b"u"), P]), Reset(WRONG)),
        ("two paths", head(&[M, S, A, P, (":path", b"/y")]), Reset(WRONG)),
        ("an unknown pseudo-field", head(&[M, S, A, P, (":odd", b"1")]), Gone),
        ("a pseudo-field in upper case", head(&[M, S, A, P, (":Path", b"/y")]), Gone),
        ("a status", head(&[M, S, A, P, (":status", b"200")]), Reset(WRONG)),
        ("no method", head(&[S, A, P]), Reset(WRONG)),
        ("no scheme", head(&[M, A, P]), Reset(WRONG)),
        ("no path", head(&[M, S, A]), Reset(WRONG)),
        ("no pseudo-field", head(&[("host", b"t")]), Reset(WRONG)),
        ("nothing at all", head(&[]), Reset(WRONG)),
        ("an empty method", head(&[(":method", b""), S, A, P]), Gone),
        ("a method with a space", head(&[(":method", b"GET /y"), S, A, P]), Gone),
        ("a method with a line end", head(&[(":method", b"GET / HTTP/1.1\r\na: b\r\n\r\nGET"), S, A, P]), Gone),
        ("an empty path", head(&[M, S, A, (":path", b"")]), Reset(WRONG)),
        ("a path without a slash", head(&[M, S, A, (":path", b"x")]), Reset(WRONG)),
        ("a path that is a query", head(&[M, S, A, (":path", b"?a")]), Answered(400)),
        ("a path that is a whole address", head(&[M, S, A, (":path", b"http://t/x")]), Reset(WRONG)),
        ("a path that is an authority", head(&[M, S, A, (":path", b"t:80")]), Reset(WRONG)),
        ("a path with a space", head(&[M, S, A, (":path", b"/a b")]), Reset(WRONG)),
        ("a path with a version", head(&[M, S, A, (":path", b"/ HTTP/1.1")]), Reset(WRONG)),
        ("a path with a line end and a field", head(&[M, S, A, (":path", b"/ HTTP/1.1\r\nhost: u\r\na: b")]), Reset(WRONG)),
        ("a path with LF", head(&[M, S, A, (":path", b"/\n")]), Reset(WRONG)),
        ("a path with CR", head(&[M, S, A, (":path", b"/\r")]), Reset(WRONG)),
        ("a path with NUL", head(&[M, S, A, (":path", b"/\0")]), Reset(WRONG)),
        ("a path with a tab", head(&[M, S, A, (":path", b"/\t")]), Reset(WRONG)),
        ("a path with DEL", head(&[M, S, A, (":path", b"/\x7f")]), Reset(WRONG)),
        ("a path that is not UTF-8", head(&[M, S, A, (":path", b"/\xff")]), Gone),
        // The library has taken the fragment off before we see the path.
        ("a path with a fragment", head(&[M, S, A, (":path", b"/a#b")]), Passed("GET /a HTTP/1.1\r\nHost: t\r\n>")),
        ("a path that is *", head(&[M, S, A, (":path", b"*")]), Answered(400)),
        ("OPTIONS with a path that is *", head(&[(":method", b"OPTIONS"), S, A, (":path", b"*")]), Passed("OPTIONS * HTTP/1.1\r\nHost: t\r\n>")),
        ("a scheme of files", head(&[M, (":scheme", b"ftp"), A, P]), Answered(400)),
        ("a scheme of WebSockets", head(&[M, (":scheme", b"ws"), A, P]), Answered(400)),
        ("an empty scheme", head(&[M, (":scheme", b""), A, P]), Answered(400)),
        ("a scheme with a space", head(&[M, (":scheme", b"ht tp"), A, P]), Reset(WRONG)),
        ("a scheme with a line end", head(&[M, (":scheme", b"http\r\na: b"), A, P]), Reset(WRONG)),
        ("a scheme with more behind it", head(&[M, (":scheme", b"http://u/y?"), A, P]), Reset(WRONG)),
        ("a scheme of TLS without TLS", head(&[M, (":scheme", b"https"), A, P]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("CONNECT", head(&[(":method", b"CONNECT"), (":authority", b"t:443")]), Answered(501)),
        ("CONNECT with a scheme and a path", head(&[(":method", b"CONNECT"), S, A, P]), Reset(WRONG)),
        ("CONNECT to nobody", head(&[(":method", b"CONNECT")]), Answered(501)),
        ("a tunnel of HTTP/2", head(&[(":method", b"CONNECT"), (":protocol", b"h2c"), S, A, P]), Answered(501)),
        ("a tunnel of addresses", head(&[(":method", b"CONNECT"), (":protocol", b"connect-ip"), S, A, P]), Answered(501)),
        ("a tunnel of an empty protocol", head(&[(":method", b"CONNECT"), (":protocol", b""), S, A, P]), Answered(501)),
        ("a tunnel of two protocols", head(&[(":method", b"CONNECT"), (":protocol", b"websocket, h2c"), S, A, P]), Answered(501)),
        ("a tunnel without a path", head(&[(":method", b"CONNECT"), (":protocol", b"websocket"), S, A]), Reset(WRONG)),
        ("a tunnel without a scheme", head(&[(":method", b"CONNECT"), (":protocol", b"websocket"), A, P]), Reset(WRONG)),
        ("a protocol without CONNECT", head(&[M, (":protocol", b"websocket"), S, A, P]), Reset(WRONG)),
        ("a protocol twice", head(&[(":method", b"CONNECT"), (":protocol", b"websocket"), (":protocol", b"h2c"), S, A, P]), Reset(WRONG)),
        ("TRACE", head(&[(":method", b"TRACE"), S, A, P]), Answered(501)),
    ]
}

#[rustfmt::skip] // one row is one case
fn names_and_values() -> Vec<Row> {
    vec![
        ("a name in upper case", more(&[("X-Upper", b"1")]), Gone),
        ("one letter in upper case", more(&[("a-B", b"1")]), Gone),
        ("an empty name", more(&[("", b"1")]), Gone),
        ("a space in a name", more(&[("a b", b"1")]), Gone),
        ("a colon in a name", more(&[("a:b", b"1")]), Gone),
        ("a colon behind a name", more(&[("content-length:", b"1")]), Gone),
        ("CR in a name", more(&[("a\rb", b"1")]), Gone),
        ("LF in a name", more(&[("a\nb", b"1")]), Gone),
        ("a line in a name", more(&[("a: b\r\ntransfer-encoding", b"chunked")]), Gone),
        ("a request in a name", more(&[("a: b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost", b"t")]), Gone),
        ("NUL in a name", more(&[("a\0", b"1")]), Gone),
        ("DEL in a name", more(&[("a\x7f", b"1")]), Gone),
        ("a tab in a name", more(&[("a\t", b"1")]), Gone),
        ("a delimiter in a name", more(&[("a(b)", b"1")]), Gone),
        ("UTF-8 in a name", more(&[("\u{e9}", b"1")]), Gone),
        ("CR in a value", more(&[("a", b"b\rc")]), Gone),
        ("LF in a value", more(&[("a", b"b\nc")]), Gone),
        ("a line in a value", more(&[("a", b"b\r\ntransfer-encoding: chunked")]), Gone),
        ("a request in a value", more(&[("a", b"b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: t")]), Gone),
        ("a line end at the end of a value", more(&[("a", b"b\r\n")]), Gone),
        ("NUL in a value", more(&[("a", b"b\0c")]), Gone),
        ("DEL in a value", more(&[("a", b"b\x7f")]), Gone),
        ("a control byte in a value", more(&[("a", b"b\x01")]), Gone),
        ("a line end in a cookie", more(&[("cookie", b"a=b\r\nc: d")]), Gone),
        ("a space before a value", more(&[("a", b" b")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\na: b\r\n>")),
        ("a tab behind a value", more(&[("a", b"b\t")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\na: b\r\n>")),
        ("a space before a coding", more(&[("transfer-encoding", b" chunked")]), Reset(WRONG)),
        ("a space before a length", body(&[("content-length", b" 3")], &[b"abc"]), Reset(WRONG)),
    ]
}

#[rustfmt::skip] // one row is one case
fn of_the_connection() -> Vec<Row> {
    vec![
        ("connection: close", more(&[("connection", b"close")]), Reset(WRONG)),
        ("connection: keep-alive", more(&[("connection", b"keep-alive")]), Reset(WRONG)),
        ("connection that names a field", more(&[("connection", b"x-forwarded-for"), ("x-a", b"1")]), Reset(WRONG)),
        ("an empty connection", more(&[("connection", b"")]), Reset(WRONG)),
        ("keep-alive", more(&[("keep-alive", b"timeout=5")]), Reset(WRONG)),
        ("proxy-connection", more(&[("proxy-connection", b"keep-alive")]), Reset(WRONG)),
        ("transfer-encoding: chunked", more(&[("transfer-encoding", b"chunked")]), Reset(WRONG)),
        ("transfer-encoding: identity", more(&[("transfer-encoding", b"identity")]), Reset(WRONG)),
        ("an empty transfer-encoding", more(&[("transfer-encoding", b"")]), Reset(WRONG)),
        ("transfer-encoding with a body", body(&[("transfer-encoding", b"chunked")], &[b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"]), Reset(WRONG)),
        ("transfer-encoding with a length", body(&[("transfer-encoding", b"chunked"), ("content-length", b"3")], &[b"abc"]), Reset(WRONG)),
        ("upgrade: websocket", more(&[("upgrade", b"websocket")]), Reset(WRONG)),
        ("upgrade: h2c", more(&[("upgrade", b"h2c")]), Reset(WRONG)),
        ("te: gzip", more(&[("te", b"gzip")]), Reset(WRONG)),
        ("te: trailers and more", more(&[("te", b"trailers, gzip")]), Reset(WRONG)),
        ("te: trailers with a weight", more(&[("te", b"trailers;q=0.5")]), Reset(WRONG)),
        ("te: trailers", more(&[("te", b"trailers")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: TE\r\n>")),
        ("proxy-authorization", more(&[("proxy-authorization", b"x")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("settings in a field", more(&[("http2-settings", b"AAMA")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("a coding by an underscore", more(&[("transfer_encoding", b"chunked")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
    ]
}

#[rustfmt::skip] // one row is one case
fn hosts() -> Vec<Row> {
    vec![
        ("an authority with a user", head(&[M, S, (":authority", b"u@t"), P]), Answered(400)),
        ("an authority with a password", head(&[M, S, (":authority", b"u:p@t"), P]), Answered(400)),
        ("an authority with an empty user", head(&[M, S, (":authority", b"@t"), P]), Answered(400)),
        ("an empty authority", head(&[M, S, (":authority", b""), P]), Reset(WRONG)),
        ("an empty authority beside a host", head(&[M, S, (":authority", b""), P, ("host", b"t")]), Reset(WRONG)),
        ("an authority with a path", head(&[M, S, (":authority", b"t/y"), P]), Reset(WRONG)),
        ("an authority with a scheme", head(&[M, S, (":authority", b"http://t"), P]), Reset(WRONG)),
        ("an authority with a space", head(&[M, S, (":authority", b"t u"), P]), Reset(WRONG)),
        ("an authority with a comma", head(&[M, S, (":authority", b"t,u"), P]), Answered(400)),
        ("an authority with a line end", head(&[M, S, (":authority", b"t\r\na: b"), P]), Reset(WRONG)),
        ("an authority with NUL", head(&[M, S, (":authority", b"t\0"), P]), Reset(WRONG)),
        ("an authority with a port out of range", head(&[M, S, (":authority", b"t:65536"), P]), Answered(400)),
        ("an authority that is a port", head(&[M, S, (":authority", b":80"), P]), Answered(400)),
        ("an authority with a backslash", head(&[M, S, (":authority", b"t\\u"), P]), Reset(WRONG)),
        ("an authority and another host", more(&[("host", b"u")]), Answered(400)),
        ("an authority and the host with a port", more(&[("host", b"t:80")]), Answered(400)),
        ("an authority and two hosts", more(&[("host", b"t"), ("host", b"t")]), Answered(400)),
        ("an authority and an empty host", more(&[("host", b"")]), Answered(400)),
        ("two hosts and no authority", head(&[M, S, P, ("host", b"t"), ("host", b"t")]), Answered(400)),
        ("neither host nor authority", head(&[M, S, P]), Answered(400)),
        ("an authority and the same host", more(&[("host", b"t")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("an authority and the same host in upper case", more(&[("host", b"T")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("a host and no authority", head(&[M, S, P, ("host", b"t")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
    ]
}

#[rustfmt::skip] // one row is one case
fn bodies() -> Vec<Row> {
    vec![
        ("less than was announced", body(&[("content-length", b"4")], &[b"abc"]), Reset(WRONG)),
        ("less than was announced, in pieces", body(&[("content-length", b"4")], &[b"a", b"b", b""]), Reset(WRONG)),
        ("more than was announced", body(&[("content-length", b"2")], &[b"abc"]), Reset(WRONG)),
        ("more than was announced, in pieces", body(&[("content-length", b"2")], &[b"ab", b"c"]), Reset(WRONG)),
        ("a length, and the end with the head", head(&[(":method", b"POST"), S, A, P, ("content-length", b"3")]), Reset(WRONG)),
        ("a length, and an empty end", body(&[("content-length", b"3")], &[b""]), Reset(WRONG)),
        ("a length of 0, and data", body(&[("content-length", b"0")], &[b"a"]), Reset(WRONG)),
        ("a length that trailers cut short", [&body(&[("content-length", b"4")], &[b"abc"])[..1], &trailers(&[("x-sum", b"1")])[1..]].concat(), Reset(WRONG)),
        ("two lengths that disagree", body(&[("content-length", b"3"), ("content-length", b"4")], &[b"abc"]), Reset(WRONG)),
        ("the same length twice", body(&[("content-length", b"3"), ("content-length", b"3")], &[b"abc"]), Answered(400)),
        ("a list of lengths", body(&[("content-length", b"3, 3")], &[b"abc"]), Reset(WRONG)),
        ("a length with a sign", body(&[("content-length", b"+3")], &[b"abc"]), Reset(WRONG)),
        ("an empty length", body(&[("content-length", b"")], &[b"abc"]), Reset(WRONG)),
        ("a hexadecimal length", body(&[("content-length", b"0x3")], &[b"abc"]), Reset(WRONG)),
        ("a length that is too long", body(&[("content-length", b"99999999999999999999")], &[b"abc"]), Reset(WRONG)),
        ("a declared body over the limit", body(&[("content-length", b"33")], &[&[b'x'; 33]]), Answered(413)),
        ("a body over the limit", body(&[], &[&[b'x'; 20], &[b'y'; 13]]), Answered(413)),
        ("data behind the end", [body(&[], &[b"abc"]), vec![(DATA, END_STREAM, b"EVIL".to_vec())]].concat(), Gone),
        // Those that it knows, it leaves out.
        ("trailers with a path", trailers(&[(":path", b"/y")]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\n\r\n")),
        ("trailers with a status", trailers(&[(":status", b"200")]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\n\r\n")),
        ("trailers with an unknown pseudo-field", trailers(&[(":odd", b"1")]), Gone),
        ("trailers in upper case", trailers(&[("X-Sum", b"1")]), Gone),
        ("trailers with a line", trailers(&[("x-sum", b"1\r\n\r\nGET /smuggled HTTP/1.1")]), Gone),
        ("trailers with NUL", trailers(&[("x-sum", b"\0")]), Gone),
        ("trailers with a connection", trailers(&[("connection", b"close")]), Reset(WRONG)),
        ("trailers with a coding", trailers(&[("transfer-encoding", b"chunked")]), Reset(WRONG)),
        ("trailers that are not the end", vec![trailers(&[])[0].clone(), (DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS, block(&[("x-sum", b"1")]))], Reset(WRONG)),
        ("trailers with framing and hosts", trailers(&[("content-length", b"9"), ("host", b"e"), ("authorization", b"a"), ("cookie", b"c"), ("x-forwarded-for", b"6.6.6.6"), ("x-sum", b"1")]),
         Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")),
    ]
}

#[rustfmt::skip] // one row is one case
fn plain() -> Vec<Row> {
    let whole = block(&[M, S, A, P]);
    let (first, rest) = whole.split_at(9);
    let (second, third) = rest.split_at(1);
    let padded = [&[3][..], &whole, &[0; 3]].concat();
    let weighed = [&[0, 0, 0, 0, 9][..], &whole].concat();
    vec![
        ("crumbs of a cookie", more(&[("cookie", b"a=b"), ("x-a", b"1"), ("cookie", b"c=d"), ("cookie", b"e=f; g=h")]),
         Passed("GET /x HTTP/1.1\r\nHost: t\r\nx-a: 1\r\ncookie: a=b; c=d; e=f; g=h\r\n>")),
        ("an empty crumb", more(&[("cookie", b"a=b"), ("cookie", b"")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\ncookie: a=b; \r\n>")),
        ("no length and the end with the head", head(&[(":method", b"POST"), S, A, P]), Passed("POST /x HTTP/1.1\r\nHost: t\r\n>")),
        ("no length and an empty end", body(&[], &[b""]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>0\r\n\r\n")),
        ("a length in pieces", body(&[("content-length", b"3")], &[b"a", b"", b"b", b"c"]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n>abc")),
        ("a length with leading zeros", body(&[("content-length", b"003")], &[b"abc"]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n>abc")),
        ("a request within data", body(&[], &[b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>18\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n\r\n0\r\n\r\n")),
        ("trailers", trailers(&[("x-sum", b"1")]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")),
        ("empty trailers", trailers(&[]), Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\n\r\n")),
        ("a head in pieces", vec![(HEADERS, END_STREAM, first.to_vec()), (CONTINUATION, 0, second.to_vec()), (CONTINUATION, END_HEADERS, third.to_vec())], Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("a padded head", vec![(HEADERS, END_HEADERS | END_STREAM | PADDED, padded)], Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("a head with a weight", vec![(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, weighed)], Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("a stranger's forwarding fields", more(&[("x-forwarded-for", b"6.6.6.6"), ("forwarded", b"for=6.6.6.6"), ("x-request-id", b"mine")]), Passed("GET /x HTTP/1.1\r\nHost: t\r\n>")),
        ("an unknown frame within", vec![(HEADERS, END_HEADERS, block(&[(":method", &b"POST"[..]), S, A, P])), (0x2f, 0xff, b"x".to_vec()), (DATA, END_STREAM, b"abc".to_vec())], Passed("POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\n\r\n")),
    ]
}

/// Bounds, which the table's listener has small.
fn large() -> Vec<Row> {
    let long = |length: usize| -> &'static [u8] { Box::leak(vec![b'x'; length].into()) };
    let path: &'static [u8] = Box::leak([&b"/"[..], long(5000)].concat().into());
    let name: &'static str = str::from_utf8(long(5000)).unwrap();
    let cut = "POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n>3\r\nabc\r\n0\r\n";
    let cut: &'static str = Box::leak(format!("{cut}a: {name}\r\n\r\n").into());
    vec![
        ("a head over its bytes", more(&[("a", long(5000))]), Answered(431)),
        ("a head far over its bytes", more(&[("a", long(12_000))]), Bare(431)),
        ("a name over the head's bytes", more(&[(name, b"b")]), Answered(431)),
        ("too many fields", more(&[("a", &b"b"[..]); 21]), Answered(431)),
        ("too many crumbs", more(&[("cookie", long(400)); 12]), Answered(431)),
        ("a path over the head's bytes", head(&[M, S, A, (":path", path)]), Answered(414)),
        (
            "a method over the head's bytes",
            head(&[(":method", long(5000)), S, A, P]),
            Answered(414),
        ),
        // The library leaves out what is too much.
        (
            "trailers that are too large",
            trailers(&[("a", long(5000)), ("b", long(5000))]),
            Passed(cut),
        ),
    ]
}

/// What is said behind the preface and empty settings, and why the connection ends.
pub(super) fn connections() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let whole = block(&[M, S, A, P]);
    let open = |stream: u32, flags: u8| frame(HEADERS, END_HEADERS | flags, stream, &whole);
    let mut all = states(&whole, open);
    all.extend(frames());
    all.extend(codings());
    all
}

type Broken = (&'static str, Vec<u8>, Reason);

/// Frames where none of their kind may be (RFC 9113, 5.1, 6).
#[rustfmt::skip] // one row is one case
fn states(whole: &[u8], open: impl Fn(u32, u8) -> Vec<u8>) -> Vec<Broken> {
    let bad = frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&[("a", "b")]));
    vec![
        ("an even stream", open(2, END_STREAM), WRONG),
        ("stream 0", open(0, END_STREAM), WRONG),
        ("a stream below the last", [bad, open(1, END_STREAM)].concat(), WRONG),
        ("data before a head", frame(DATA, END_STREAM, 1, b"abc"), WRONG),
        ("data on stream 0", frame(DATA, 0, 0, b"abc"), WRONG),
        ("a reset before a head", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), WRONG),
        ("a reset of stream 0", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), WRONG),
        ("a window before a head", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), WRONG),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, whole), WRONG),
        ("a continuation of another stream", [frame(HEADERS, END_STREAM, 1, &whole[..5]), frame(CONTINUATION, END_HEADERS, 3, &whole[5..])].concat(), WRONG),
        ("a ping within a head", [frame(HEADERS, END_STREAM, 1, &whole[..5]), frame(PING, 0, 0, &[0; 8])].concat(), WRONG),
        ("data within a head", [frame(HEADERS, 0, 1, &whole[..5]), frame(DATA, END_STREAM, 1, b"abc")].concat(), WRONG),
        ("another head within a head", [frame(HEADERS, END_STREAM, 1, &whole[..5]), open(3, END_STREAM)].concat(), WRONG),
        ("an unknown frame within a head", [frame(HEADERS, END_STREAM, 1, &whole[..5]), frame(0x2f, 0, 1, b"x")].concat(), WRONG),
        ("a promise of a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], whole].concat()), WRONG),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), WRONG),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8]), WRONG),
        ("a farewell of a stream", frame(7, 0, 1, &[0; 8]), WRONG),
    ]
}

/// Frames of an odd form.
#[rustfmt::skip] // one row is one case
fn frames() -> Vec<Broken> {
    let size = Reason::FRAME_SIZE_ERROR;
    vec![
        ("a frame over the size that was agreed", frame(DATA, 0, 1, &vec![0; 16_385]), size),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7]), size),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), size),
        ("an acknowledgement with settings", frame(SETTINGS, 1, 0, &[0, 3, 0, 0, 0, 1]), size),
        ("a window of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), size),
        ("a reset of three bytes", frame(RST_STREAM, 0, 1, &[0; 3]), size),
        ("a window that opens by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), WRONG),
        ("a window beyond its bound", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Reason::FLOW_CONTROL_ERROR),
        ("an initial window beyond its bound", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Reason::FLOW_CONTROL_ERROR),
        ("frames of a size that is not allowed", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), WRONG),
        ("promises neither on nor off", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), WRONG),
        ("padding beyond the frame of a head", frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[9, 0x82]), WRONG),
        ("a weight cut short", frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, &[0; 4]), size),
        ("a priority of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), size),
    ]
}

/// Heads that cannot be decoded (RFC 7541).
#[rustfmt::skip] // one row is one case
fn codings() -> Vec<Broken> {
    let head = |bytes: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes);
    let wrong = Reason::COMPRESSION_ERROR;
    vec![
        ("an index of nothing", head(&[0x80]), wrong),
        ("an index beyond the tables", head(&[0xff, 0x80, 0x01]), wrong),
        ("a name beyond the tables", head(&[0x7f, 0x80, 0x01, 1, b'a']), wrong),
        ("an index without an end", head(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), wrong),
        ("a text beyond the head", head(&[0, 1, b'a', 100, b'b']), wrong),
        ("a field cut short", head(&[0, 1]), wrong),
        ("a table beyond its bound", head(&[0x3f, 0xff, 0xff, 0x03]), wrong),
        ("an end of text within a text", head(&[0, 1, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]), wrong),
    ]
}
