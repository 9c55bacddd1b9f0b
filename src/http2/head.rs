//! Heads and trailers between HTTP/2 and the normal form of HTTP/1.1.

use std::io;
use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use super::malformed;
use crate::http1::body::Framing;
use crate::http1::field::{self, Field, Known};
use crate::http1::request::{Assembly, MAX_FIELDS, RequestHead};
use crate::http1::{HeadLimits, Violation, websocket};

/// A head that was written in HTTP/1.1, for a stream.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields, without those of the connection.
    pub response: Response<()>,
    /// How the body that follows is framed in what is written.
    pub framing: Framing,
}

/// What a stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// An answer with a body.
    Body,
    /// An answer without one: HEAD.
    Head,
    /// A WebSocket (RFC 8441), with this key towards the node.
    WebSocket,
}

/// The head of a request in the form of HTTP/1.1. `bodiless`: the stream has ended with its head. `key` makes
/// sixteen random bytes for a WebSocket's handshake.
///
/// # Errors
/// What could not have been said in HTTP/1.1, or not by one who means well.
pub fn request(
    request: &Request<()>,
    bodiless: bool,
    (bytes, fields): (Vec<u8>, Vec<Field>),
    limits: HeadLimits,
    key: impl FnOnce() -> [u8; 16],
) -> Result<(RequestHead, Asks), Violation> {
    let (uri, headers) = (request.uri(), request.headers());
    let asks = asks(request)?;
    if !is_http(uri.scheme_str()) {
        return Err(Violation::Malformed("a scheme other than http and https"));
    }
    let method = if asks == Asks::WebSocket { &Method::GET } else { request.method() };
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let line = (method.as_str().as_bytes(), target.as_bytes());
    let mut head = Assembly::new(bytes, fields, line, limits)?;
    head.field(b"host", authority(request)?)?;
    // What announces nothing, and does not end, may still go wrong: its end is waited for.
    let length = headers.get(header::CONTENT_LENGTH).map(|length| field::length(length.as_bytes()));
    let open_nothing = !bodiless && matches!(length, Some(Ok(0)));
    for (name, value) in headers {
        match name.as_str() {
            "host" => {}
            // Crumbs are one field again (RFC 9113, 8.2.3).
            "cookie" => {}
            "content-length" if asks == Asks::WebSocket || open_nothing => {}
            name => head.field(name.as_bytes(), value.as_bytes())?,
        }
    }
    if headers.contains_key(header::COOKIE) {
        let crumbs = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
        head.joined(b"cookie", crumbs)?;
    }
    if asks == Asks::WebSocket {
        head.field(b"upgrade", b"websocket")?;
        head.field(b"connection", b"upgrade")?;
        if !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            head.field(b"sec-websocket-key", websocket::base64(&key()).as_bytes())?;
        }
    } else if !bodiless && (open_nothing || length.is_none()) {
        head.field(b"transfer-encoding", b"chunked")?;
    }
    Ok((head.finish()?, asks))
}

fn asks(request: &Request<()>) -> Result<Asks, Violation> {
    match (request.method(), request.extensions().get::<h2::ext::Protocol>()) {
        (&Method::HEAD, _) => Ok(Asks::Head),
        (&Method::CONNECT, None) => Err(Violation::NotImplemented("CONNECT")),
        (_, Some(protocol)) if protocol.as_str().eq_ignore_ascii_case("websocket") => {
            Ok(Asks::WebSocket)
        }
        (_, Some(_)) => Err(Violation::NotImplemented("a protocol other than websocket")),
        (_, None) => Ok(Asks::Body),
    }
}

/// As of a target in absolute form: both are taken, and what the node is told follows from the socket. Without
/// an `:authority` the library keeps no scheme.
fn is_http(scheme: Option<&str>) -> bool {
    let either =
        |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    scheme.is_none_or(either)
}

/// `:authority`, or else the one `host`. Whoever sends both must mean the same.
fn authority(request: &Request<()>) -> Result<&[u8], Violation> {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Violation::Malformed("more than one host"));
    }
    match (request.uri().authority(), host) {
        (Some(authority), Some(host))
            if !host.eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Err(Violation::Malformed("an authority that disagrees with the host"))
        }
        (Some(authority), _) => Ok(authority.as_str().as_bytes()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Violation::Malformed("no host")),
    }
}

/// Where a head ends that `bytes` begin with, its empty line included.
pub fn end_of(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Adds to a head that comes in pieces, which is rare: whole once its end is there, with how many of `bytes`
/// belong to it.
///
/// # Errors
/// It does not end within `most` bytes.
pub fn gather(
    partial: &mut Vec<u8>,
    bytes: &[u8],
    most: usize,
) -> io::Result<(Option<Vec<u8>>, usize)> {
    let had = partial.len();
    partial.extend_from_slice(bytes);
    match end_of(partial) {
        None if partial.len() > most => Err(malformed("a head without an end")),
        None => Ok((None, bytes.len())),
        Some(length) => {
            let mut whole = std::mem::take(partial);
            whole.truncate(length);
            Ok((Some(whole), length - had))
        }
    }
}

/// Reads the whole head of an answer as this program writes them.
///
/// # Errors
/// It is none.
pub fn answer(bytes: &[u8], asks: Asks) -> io::Result<Answer> {
    let mut raw = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut raw)
        .map_err(|_| malformed("a head that cannot be read"))?;
    let code = parsed.code.unwrap_or_default();
    let upgraded = code == 101;
    if upgraded && asks != Asks::WebSocket {
        return Err(malformed("an upgrade that nobody asked for"));
    }
    // One piece of memory for all values.
    let memory = Bytes::copy_from_slice(bytes);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    let (mut length, mut chunked) = (None, false);
    for line in parsed.headers.iter() {
        match Known::of(line.name.as_bytes()) {
            Known::TransferEncoding => {
                chunked = true;
                continue;
            }
            Known::ContentLength => {
                length = Some(field::length(line.value).map_err(|_| malformed("an odd length"))?);
            }
            known if known.is_hop_by_hop() => continue,
            _ if upgraded && line.name.eq_ignore_ascii_case("sec-websocket-accept") => continue,
            _ => {}
        }
        add(&mut headers, line, &memory, bytes)?;
    }
    let framing = match (length, chunked) {
        _ if upgraded => Framing::UntilClose,
        _ if asks == Asks::Head || matches!(code, 100..200 | 204 | 304) => Framing::Empty,
        (_, true) => Framing::Chunked,
        (Some(0), false) => Framing::Empty,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::UntilClose,
    };
    let mut response = Response::new(());
    let code = if upgraded { 200 } else { code };
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| malformed("an odd status"))?;
    *response.headers_mut() = headers;
    Ok(Answer { response, framing })
}

fn add(
    headers: &mut HeaderMap,
    line: &httparse::Header<'_>,
    memory: &Bytes,
    bytes: &[u8],
) -> io::Result<()> {
    let name =
        HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| malformed("an odd name"))?;
    let value = match line.value {
        [] => Bytes::new(),
        value => {
            let start = value.as_ptr() as usize - bytes.as_ptr() as usize;
            memory.slice(start..start + value.len())
        }
    };
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| malformed("an odd value"))?;
    headers.append(name, value);
    Ok(())
}

/// Lines of a trailer section, each ending in CR LF.
///
/// # Errors
/// One is no field.
pub fn trailers(lines: &[u8]) -> io::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line).ok_or_else(|| malformed("an odd trailer"))?;
        let name =
            HeaderName::from_bytes(&line[..colon]).map_err(|_| malformed("an odd trailer"))?;
        if Known::of(name.as_str().as_bytes()).is_hop_by_hop() {
            continue;
        }
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii())
            .map_err(|_| malformed("an odd trailer"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Appends field lines.
pub fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, asks: Asks) -> io::Result<Answer> {
        answer(text.as_bytes(), asks)
    }

    #[test]
    fn an_answer_loses_what_belongs_to_its_connection() {
        let text = "HTTP/1.1 200 Fine\r\nX-One: 1\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n\
            X-One: 2\r\nTransfer-Encoding: chunked\r\nEmpty:\r\n\r\n";
        let Answer { response, framing } = read(text, Asks::Body).unwrap();
        assert_eq!((response.status().as_u16(), framing), (200, Framing::Chunked));
        let fields = response.headers();
        assert_eq!(fields.get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(fields.len(), 3);
        assert_eq!(fields["empty"], "");
    }

    #[test]
    fn framing_follows_status_and_what_was_asked() {
        let framing = |text: &str, asks| read(text, asks).unwrap().framing;
        let five = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(five, Asks::Body), Framing::Length(5));
        assert_eq!(framing(five, Asks::Head), Framing::Empty);
        assert_eq!(framing(&five.replace("200", "304"), Asks::Body), Framing::Empty);
        assert_eq!(framing(&five.replace('5', "0"), Asks::Body), Framing::Empty);
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", Asks::Body), Framing::UntilClose);
        assert_eq!(framing("HTTP/1.1 103 E\r\n\r\n", Asks::Body), Framing::Empty);
    }

    #[test]
    fn an_upgrade_becomes_200_for_whoever_asked() {
        let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: y\r\n\r\n";
        let Answer { response, framing } = read(text, Asks::WebSocket).unwrap();
        assert_eq!((response.status().as_u16(), framing), (200, Framing::UntilClose));
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["sec-websocket-protocol"], "y");
        assert!(read(text, Asks::Body).is_err());
    }

    #[test]
    fn trailers_are_lines() {
        let fields = trailers(b"grpc-status: 0\r\nX-A:b\r\nTransfer-Encoding: x\r\n").unwrap();
        assert_eq!(fields.len(), 2);
        assert_eq!(fields["grpc-status"], "0");
        assert!(trailers(b"no colon\r\n").is_err() && trailers(b"a b: c\r\n").is_err());
        let mut out = Vec::new();
        write_fields(&mut out, &fields);
        assert_eq!(out, b"grpc-status: 0\r\nx-a: b\r\n");
    }
}
