//! Heads between the normal form of HTTP/1.1 and a node's stream: the request's out, the answer's in.

use std::io::{self, Write};
use std::mem::MaybeUninit;

use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};

use super::head::{Asks, write_fields};
use super::malformed;
use crate::http1::body::Framing;
use crate::http1::field::{self, Known};
use crate::http1::request::MAX_FIELDS;
use crate::http1::websocket;

/// A request for a stream.
#[derive(Debug)]
pub struct Asked {
    /// Method, address and fields, without those of the connection.
    pub request: Request<()>,
    /// How the body that follows is framed in what is written.
    pub framing: Framing,
    /// What it asks for.
    pub asks: Asks,
    /// What proves a WebSocket's handshake to whoever asks for one in HTTP/1.1.
    pub accept: Option<String>,
}

/// Reads the whole head of a request as this program writes them for nodes.
///
/// # Errors
/// It is none, or cannot be said in HTTP/2.
pub fn request(bytes: &[u8], encrypted: bool) -> io::Result<Asked> {
    let mut raw = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, bytes, &mut raw)
        .map_err(|_| malformed("a head that cannot be read"))?;
    let method = parsed.method.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| malformed("an odd method"))?;
    let headers = HeaderMap::with_capacity(parsed.headers.len());
    let mut read = Fields { headers, ..Fields::default() };
    for line in parsed.headers.iter() {
        read.take(line)?;
    }
    let Fields { mut headers, length, chunked, websocket, host } = read;
    let asks = match (websocket, &method) {
        (true, _) => Asks::WebSocket,
        (false, &Method::HEAD) => Asks::Head,
        (false, _) => Asks::Body,
    };
    let framing = match (asks, chunked, length) {
        (Asks::WebSocket, ..) => Framing::UntilClose,
        (_, true, _) => Framing::Chunked,
        (_, false, None | Some(0)) => Framing::Empty,
        (_, false, Some(length)) => Framing::Length(length),
    };
    let key = headers.remove(header::SEC_WEBSOCKET_KEY).filter(|_| websocket);
    let mut request = Request::new(());
    *request.uri_mut() = address(parsed.path.unwrap_or("/"), host, encrypted)?;
    *request.method_mut() = method;
    *request.version_mut() = http::Version::HTTP_2;
    if websocket {
        // RFC 8441, 5: what is CONNECT here is GET there, and the stream needs no proof.
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    *request.headers_mut() = headers;
    let accept = key.map(|key| websocket::accept(key.as_bytes()));
    Ok(Asked { request, framing, asks, accept })
}

#[derive(Default)]
struct Fields<'a> {
    headers: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
    host: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &httparse::Header<'a>) -> io::Result<()> {
        match Known::of(line.name.as_bytes()) {
            Known::Host => self.host = line.value,
            Known::TransferEncoding => self.chunked = true,
            Known::Upgrade => self.websocket = true,
            // That trailers are understood is the one thing that may be said here (RFC 9113, 8.2.2).
            Known::Te => return self.keep(line),
            known if known.is_hop_by_hop() => {}
            Known::ContentLength => {
                let length = field::length(line.value).map_err(|_| malformed("an odd length"))?;
                self.length = Some(length);
                return self.keep(line);
            }
            _ => return self.keep(line),
        }
        Ok(())
    }

    fn keep(&mut self, line: &httparse::Header<'_>) -> io::Result<()> {
        let name =
            HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| malformed("an odd name"))?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| malformed("an odd value"))?;
        self.headers.append(name, value);
        Ok(())
    }
}

fn address(target: &str, host: &[u8], encrypted: bool) -> io::Result<Uri> {
    let odd = |_| malformed("an odd address");
    let path = PathAndQuery::try_from(target);
    let path = path.or_else(|_| PathAndQuery::try_from(escaped(target))).map_err(odd)?;
    let authority = Authority::try_from(host).map_err(|_| malformed("an odd host"))?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| malformed("an odd address"))
}

/// What clients of HTTP/1.1 send although no address has it (RFC 3986, 2), as they should have sent it.
fn escaped(target: &str) -> String {
    let mut out = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        match byte {
            b'<' | b'>' | b'"' | b'`' | b'{' | b'}' | b'|' | b'\\' | b'^' | ..=b' ' | 0x7f.. => {
                use std::fmt::Write;
                // Writing into a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            plain => out.push(char::from(plain)),
        }
    }
    out
}

/// Appends the head of an answer. `ended`: nothing comes after it.
pub fn write_answer(
    out: &mut Vec<u8>,
    answer: &Response<()>,
    (asks, accept): (Asks, Option<&str>),
    ended: bool,
) -> Framing {
    let (status, fields) = (answer.status(), answer.headers());
    if asks == Asks::WebSocket && status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        if let Some(accept) = accept {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "Sec-WebSocket-Accept: {accept}\r\n");
        }
        write_fields(out, fields);
        out.extend_from_slice(b"\r\n");
        return Framing::UntilClose;
    }
    // HTTP/2 has no words for a status, and HTTP/1.1 has room for them.
    let reason = status.canonical_reason().unwrap_or_default();
    let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
    write_fields(out, fields);
    let bodiless =
        asks == Asks::Head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let length = fields.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| field::length(value.as_bytes()).ok());
    let framing = match (bodiless, length, ended) {
        (true, ..) => Framing::Empty,
        (false, Some(length), _) => Framing::Length(length),
        (false, None, true) => {
            out.extend_from_slice(b"content-length: 0\r\n");
            Framing::Length(0)
        }
        (false, None, false) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        request(text.as_bytes(), false).unwrap()
    }

    #[test]
    fn a_request_keeps_what_is_not_of_its_connection() {
        let asked = asked(
            "POST /a?b=%20c HTTP/1.1\r\nHost: a.test:80\r\nX-Odd: 1\r\nx-odd: 2\r\nTE: trailers\r\n\
             Connection: TE\r\nTransfer-Encoding: chunked\r\ngrpc-timeout: 1S\r\n\r\n",
        );
        assert_eq!((asked.framing, asked.asks), (Framing::Chunked, Asks::Body));
        assert_eq!(asked.request.uri(), "http://a.test:80/a?b=%20c");
        let headers = asked.request.headers();
        let odd: Vec<_> = headers.get_all("x-odd").iter().collect();
        assert_eq!(odd, ["1", "2"]);
        assert_eq!(
            (&headers["te"], &headers["grpc-timeout"]),
            (&"trailers".parse().unwrap(), &"1S".parse().unwrap())
        );
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn framing_follows_the_fields() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, Asks::Body),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, Asks::Head),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::Empty, Asks::Body),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n",
                Framing::Length(7),
                Asks::Body,
            ),
        ];
        for (text, framing, asks) in cases {
            let asked = asked(text);
            assert_eq!((asked.framing, asked.asks), (framing, asks), "{text}");
        }
    }

    #[test]
    fn a_websocket_is_an_extended_connect() {
        let asked = asked(
            "GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!((asked.asks, asked.request.method()), (Asks::WebSocket, &Method::CONNECT));
        assert_eq!(asked.accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(asked.request.headers().len(), 1);
    }

    #[test]
    fn odd_addresses_are_escaped_and_stars_are_not() {
        for (target, expected) in
            [("/a<b>", "/a%3Cb%3E"), ("*", "*"), ("/%7B", "/%7B"), ("/a?b<", "/a?b%3C")]
        {
            let uri = address(target, b"a", true).unwrap();
            assert_eq!(uri.path_and_query().unwrap(), expected);
            assert_eq!(uri.scheme_str(), Some("https"));
        }
        assert!(address("/", b"a b", false).is_err());
    }

    #[test]
    fn answers_are_framed_as_their_stream_ends() {
        let written = |status: u16, length: Option<&str>, asks: Asks, ended: bool| {
            let mut answer = Response::builder().status(status);
            if let Some(length) = length {
                answer = answer.header("content-length", length);
            }
            let mut out = Vec::new();
            let answer = answer.body(()).unwrap();
            let framing = write_answer(&mut out, &answer, (asks, Some("proof")), ended);
            (framing, String::from_utf8(out).unwrap())
        };
        let (framing, text) = written(200, None, Asks::Body, false);
        assert_eq!(framing, Framing::Chunked);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(written(200, None, Asks::Body, true).0, Framing::Length(0));
        assert_eq!(written(200, Some("5"), Asks::Body, false).0, Framing::Length(5));
        assert_eq!(written(200, Some("5"), Asks::Head, true).0, Framing::Empty);
        assert_eq!(written(304, Some("5"), Asks::Body, true).0, Framing::Empty);
        assert_eq!(written(103, None, Asks::Body, false).0, Framing::Empty);
        let (framing, text) = written(200, None, Asks::WebSocket, false);
        assert_eq!(framing, Framing::UntilClose);
        assert!(text.starts_with("HTTP/1.1 101 ") && text.contains("Accept: proof\r\n"));
        assert_eq!(written(403, None, Asks::WebSocket, true).0, Framing::Length(0));
    }
}
