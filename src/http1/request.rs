//! Heads of requests (RFC 9112, 3 to 6), read strictly: what passes has one meaning.

use std::mem::MaybeUninit;

use super::Violation;
use super::body::Framing;
use super::buffers::Buffers;
use super::field::{Claims, ConnectionOptions, Field, Known, Span};

/// Fields that fit the parser's stack; `max_fields` is held below it by the configuration.
pub const MAX_FIELDS: usize = 256;

/// The head of a request, in the buffer it was read into.
#[derive(Debug)]
pub struct RequestHead {
    /// The head as received; spans point into it.
    pub bytes: Vec<u8>,
    /// The method.
    pub method: Span,
    /// Path and query (origin form), or `*`.
    pub target: Span,
    /// In the order received.
    pub fields: Vec<Field>,
    /// `Host`, or the authority of an absolute target; empty only in HTTP/1.0.
    pub host: Span,
    /// How the body is framed.
    pub framing: Framing,
    /// HTTP/1.1 rather than 1.0.
    pub version_11: bool,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// What `Connection` says.
    pub connection: ConnectionOptions,
    /// `Expect: 100-continue`
    pub expect_continue: bool,
    /// A WebSocket handshake.
    pub websocket: bool,
    /// `TE` has `trailers`.
    pub te_trailers: bool,
}

impl RequestHead {
    /// The method.
    pub fn method(&self) -> &[u8] {
        self.method.get(&self.bytes)
    }

    /// Path and query, or `*`.
    pub fn target(&self) -> &[u8] {
        self.target.get(&self.bytes)
    }

    /// The path without the query.
    pub fn path(&self) -> &[u8] {
        match self.target() {
            // `http://host` alone (RFC 9112, 3.2.1).
            [] => b"/",
            target => &target[..memchr::memchr(b'?', target).unwrap_or(target.len())],
        }
    }

    /// `Host` as received, port included.
    pub fn host(&self) -> &[u8] {
        self.host.get(&self.bytes)
    }

    /// The value of the first field of a name.
    pub fn value(&self, known: Known) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| field.known == known)?;
        Some(field.value.get(&self.bytes))
    }

    /// The value of the first field of a name that is not a known one; lower case.
    pub fn value_named(&self, name: &[u8]) -> Option<&[u8]> {
        let named = |field: &&Field| field.name.get(&self.bytes).eq_ignore_ascii_case(name);
        Some(self.fields.iter().find(named)?.value.get(&self.bytes))
    }

    /// Moves it into memory of its own size, for a head that is to be kept for long.
    pub fn compact(&mut self, buffers: &Buffers) {
        if self.bytes.len() < self.bytes.capacity() {
            let exact = self.bytes.as_slice().to_vec();
            buffers.give_back(std::mem::replace(&mut self.bytes, exact));
            let exact = self.fields.as_slice().to_vec();
            buffers.give_back_fields(std::mem::replace(&mut self.fields, exact));
        }
    }

    /// Bytes of memory that it holds.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Gives the memory back.
    pub fn recycle(self, buffers: &Buffers) {
        buffers.give_back(self.bytes);
        buffers.give_back_fields(self.fields);
    }

    /// Reads a head whose end the scanner found; `bytes` is exactly the head.
    ///
    /// # Errors
    /// Whatever is malformed, open to two readings, or not for a proxy of this kind. The buffer comes back.
    pub fn parse(
        bytes: Vec<u8>,
        mut fields: Vec<Field>,
    ) -> Result<RequestHead, (Violation, Vec<u8>)> {
        match read_head(&bytes, &mut fields) {
            Ok(draft) => Ok(draft.finish(bytes, fields)),
            Err(violation) => Err((violation, bytes)),
        }
    }
}

/// What is known of a head while its fields are read.
struct Draft {
    method: Span,
    target: Span,
    authority: Option<Span>,
    version_11: bool,
    host: Option<Span>,
    claims: Claims,
    connection: ConnectionOptions,
    expect_continue: bool,
    upgrade_websocket: bool,
    te_trailers: bool,
}

impl Draft {
    fn finish(self, bytes: Vec<u8>, fields: Vec<Field>) -> RequestHead {
        let framing = match (self.claims.length, self.claims.chunked) {
            (_, true) => Framing::Chunked,
            (Some(0) | None, false) => Framing::Empty,
            (Some(length), false) => Framing::Length(length),
        };
        let websocket = self.upgrade_websocket
            && self.connection.upgrade
            && self.version_11
            && framing == Framing::Empty
            && self.method.get(&bytes) == b"GET";
        RequestHead {
            keep_alive: match self.version_11 {
                true => !self.connection.close,
                false => self.connection.keep_alive && !self.connection.close,
            },
            host: self.host.or(self.authority).unwrap_or_default(),
            method: self.method,
            target: self.target,
            version_11: self.version_11,
            connection: self.connection,
            expect_continue: self.expect_continue && self.version_11 && framing != Framing::Empty,
            te_trailers: self.te_trailers,
            websocket,
            framing,
            bytes,
            fields,
        }
    }
}

fn read_head(bytes: &[u8], fields: &mut Vec<Field>) -> Result<Draft, Violation> {
    let mut raw = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut raw) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Ok(_) => return Err(Violation::Malformed("a head that ends in the middle")),
        Err(error) => return Err(token_violation(error)),
    }
    let method = request.method.unwrap_or_default().as_bytes();
    let target = request.path.unwrap_or_default().as_bytes();
    let (authority, target) = read_target(method, target)?;
    let mut draft = Draft {
        method: Span::of(method, bytes),
        target: if target.is_empty() { Span::default() } else { Span::of(target, bytes) },
        authority: authority.map(|authority| Span::of(authority, bytes)),
        version_11: request.version == Some(1),
        host: None,
        claims: Claims::default(),
        connection: ConnectionOptions::default(),
        expect_continue: false,
        upgrade_websocket: false,
        te_trailers: false,
    };
    for header in request.headers.iter() {
        let known = Known::of(header.name.as_bytes());
        read_field(&mut draft, known, header.value, bytes)?;
        let (name, value) =
            (Span::of(header.name.as_bytes(), bytes), Span::of(header.value, bytes));
        fields.push(Field { name, value, known });
    }
    check_whole(&draft, bytes)?;
    Ok(draft)
}

pub(super) fn token_violation(error: httparse::Error) -> Violation {
    Violation::Malformed(match error {
        httparse::Error::HeaderName => {
            "a field name with a forbidden byte, or space before the colon"
        }
        httparse::Error::HeaderValue => "a field value with a forbidden byte",
        httparse::Error::NewLine => "a line does not end in CR LF",
        httparse::Error::Status => "an odd status code or reason",
        httparse::Error::Token => "an odd request line",
        httparse::Error::TooManyHeaders => return Violation::TooManyFields,
        httparse::Error::Version => "an odd HTTP version",
    })
}

/// Splits a target into authority (absolute form only) and path with query (RFC 9112, 3.2).
fn read_target<'a>(
    method: &[u8],
    target: &'a [u8],
) -> Result<(Option<&'a [u8]>, &'a [u8]), Violation> {
    if method == b"CONNECT" {
        return Err(Violation::NotImplemented("CONNECT"));
    }
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#') {
        return Err(Violation::Malformed("a forbidden byte in the request target"));
    }
    match target {
        [b'/', ..] => Ok((None, target)),
        b"*" if method == b"OPTIONS" => Ok((None, target)),
        _ => absolute(target).ok_or(Violation::Malformed("an odd request target")),
    }
}

fn absolute(target: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| target.len() >= s.len() && target[..s.len()].eq_ignore_ascii_case(s))?;
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // `http://host?query` has an empty path; rather than invent a slash in a buffer that is kept as
    // received, it is refused. `http://host` alone means `/`, which is sent as such.
    let odd = path.first() == Some(&b'?') || !is_host(authority);
    (!odd).then_some((Some(authority), path))
}

fn read_field(
    draft: &mut Draft,
    known: Known,
    value: &[u8],
    bytes: &[u8],
) -> Result<(), Violation> {
    match known {
        Known::Host => {
            if draft.host.replace(Span::of(value, bytes)).is_some() {
                return Err(Violation::Malformed("more than one host"));
            }
            if !is_host(value) {
                return Err(Violation::Malformed("an odd host"));
            }
        }
        Known::ContentLength => draft.claims.content_length(value)?,
        Known::TransferEncoding => draft.claims.transfer_encoding(value)?,
        Known::Connection => draft.connection.add(value)?,
        Known::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
            draft.expect_continue = true
        }
        Known::Expect => return Err(Violation::Expectation),
        Known::Upgrade => draft.upgrade_websocket |= value.eq_ignore_ascii_case(b"websocket"),
        Known::Te => {
            draft.te_trailers |=
                super::field::list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        }
        _ => {}
    }
    Ok(())
}

fn check_whole(draft: &Draft, bytes: &[u8]) -> Result<(), Violation> {
    draft.claims.check()?;
    if draft.claims.chunked && !draft.version_11 {
        return Err(Violation::Malformed("transfer-encoding in HTTP/1.0"));
    }
    match (draft.host, draft.authority) {
        (None, _) if draft.version_11 => Err(Violation::Malformed("no host")),
        (Some(host), Some(authority))
            if !host.get(bytes).eq_ignore_ascii_case(authority.get(bytes)) =>
        {
            Err(Violation::Malformed("a target that disagrees with the host"))
        }
        _ => Ok(()),
    }
}

/// `host[:port]` (RFC 3986, 3.2.2): a registered name, an IPv4 address, or a bracketed IPv6 address.
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.first() {
        Some(b'[') => {
            let Some(end) = memchr::memchr(b']', value) else { return false };
            let inside = &value[1..end];
            let v6 = str::from_utf8(inside).is_ok_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok());
            if !v6 {
                return false;
            }
            (inside, &value[end + 1..])
        }
        _ => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:".contains(byte);
    let port_ok = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host.iter().all(named) && port_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RequestHead, Violation> {
        RequestHead::parse(text.as_bytes().to_vec(), Vec::new()).map_err(|(violation, _)| violation)
    }

    #[test]
    fn reads_a_usual_request() {
        let head =
            parse("GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nConnection: keep-alive, X-Y\r\n\r\n")
                .unwrap();
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.target(), b"/a?b=c");
        assert_eq!(head.path(), b"/a");
        assert_eq!(head.host(), b"x:80");
        assert!(head.keep_alive && head.connection.named_fields == 1);
        assert_eq!(head.framing, Framing::Empty);
    }

    #[test]
    fn absolute_form_is_taken_apart() {
        let head = parse("GET http://a.b:1/x HTTP/1.1\r\nHost: A.b:1\r\n\r\n").unwrap();
        assert_eq!((head.target(), head.host()), (&b"/x"[..], &b"A.b:1"[..]));
        let head = parse("GET http://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n").unwrap();
        assert_eq!(head.target(), b"");
    }

    #[test]
    fn websocket_needs_all_of_its_signs() {
        let ws = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
        assert!(parse(ws).unwrap().websocket);
        assert!(!parse(&ws.replace("Connection: Upgrade\r\n", "")).unwrap().websocket);
        assert!(!parse(&ws.replace("GET", "POST")).unwrap().websocket);
        assert!(!parse(&ws.replace("WebSocket", "h2c")).unwrap().websocket);
        assert!(!parse(&ws.replace("HTTP/1.1", "HTTP/1.0")).unwrap().websocket);
    }

    #[test]
    fn hosts() {
        for good in ["a", "a.b:1", "1.2.3.4:80", "[::1]", "[::1]:8080", "a:", "x_y"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in
            ["", ":80", "a b", "a/b", "a@b", "[::1", "[a]", "a:b", "a:123456", "[::1]x", "a\\b"]
        {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
