//! Fields of a head: where they stand in its buffer, and which of the names we care about each has.

use super::Violation;

/// A stretch of a head's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

impl Span {
    /// Where `part` stands within `whole`; both must be of one allocation.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(start + part.len() <= whole.len());
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    /// The bytes.
    pub fn get(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As received, case included.
    pub name: Span,
    /// Without white space around it.
    pub value: Span,
    /// Which of the names we care about it is.
    pub known: Known,
}

/// Names that a proxy must understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is the field of that name
pub enum Known {
    AcceptEncoding,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    /// The name of one of the others but for underscores: what CGI makes of both is the same.
    Lookalike,
    Other,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    XApp,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRealIp,
    XRequestId,
}

impl Known {
    /// Looks a name up.
    pub fn of(name: &[u8]) -> Known {
        match exact(name) {
            Known::Other if memchr::memchr(b'_', name).is_some() => lookalike(name),
            known => known,
        }
    }

    /// Whether it belongs to one connection (RFC 9110, 7.6.1), or passes for one that does, and is never
    /// passed on as it came.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::Lookalike
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
        )
    }
}

/// Bytes of the longest name that is known.
const LONGEST: usize = 19;

/// The length of a name picks at most three candidates, which are compared as a whole: an array of known
/// length is lowered and compared in a few words.
fn exact(name: &[u8]) -> Known {
    match name.len() {
        2 if lower(name) == *b"te" => Known::Te,
        4 if lower(name) == *b"host" => Known::Host,
        5 if lower(name) == *b"x-app" => Known::XApp,
        6 => match &lower::<6>(name) {
            b"cookie" => Known::Cookie,
            b"expect" => Known::Expect,
            _ => Known::Other,
        },
        7 => match &lower::<7>(name) {
            b"upgrade" => Known::Upgrade,
            b"referer" => Known::Referer,
            b"trailer" => Known::Trailer,
            _ => Known::Other,
        },
        9 => match &lower::<9>(name) {
            b"x-real-ip" => Known::XRealIp,
            b"forwarded" => Known::Forwarded,
            _ => Known::Other,
        },
        10 => match &lower::<10>(name) {
            b"connection" => Known::Connection,
            b"user-agent" => Known::UserAgent,
            b"keep-alive" => Known::KeepAlive,
            _ => Known::Other,
        },
        12 => match &lower::<12>(name) {
            b"content-type" => Known::ContentType,
            b"x-request-id" => Known::XRequestId,
            _ => Known::Other,
        },
        14 => match &lower::<14>(name) {
            b"content-length" => Known::ContentLength,
            b"http2-settings" => Known::Http2Settings,
            _ => Known::Other,
        },
        15 => match &lower::<15>(name) {
            b"x-forwarded-for" => Known::XForwardedFor,
            b"accept-encoding" => Known::AcceptEncoding,
            _ => Known::Other,
        },
        16 => match &lower::<16>(name) {
            b"x-forwarded-host" => Known::XForwardedHost,
            b"x-forwarded-port" => Known::XForwardedPort,
            b"proxy-connection" => Known::ProxyConnection,
            _ => Known::Other,
        },
        17 => match &lower::<17>(name) {
            b"transfer-encoding" => Known::TransferEncoding,
            b"x-forwarded-proto" => Known::XForwardedProto,
            _ => Known::Other,
        },
        18 if lower(name) == *b"proxy-authenticate" => Known::ProxyAuthenticate,
        19 if lower(name) == *b"proxy-authorization" => Known::ProxyAuthorization,
        _ => Known::Other,
    }
}

/// A name with `_` that becomes a known one where `_` counts as `-`. Rare, so it is only looked for where
/// there is one.
fn lookalike(name: &[u8]) -> Known {
    let mut dashed = [0; LONGEST];
    let Some(dashed) = dashed.get_mut(..name.len()) else { return Known::Other };
    dashed.copy_from_slice(name);
    dashed.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
    match exact(dashed) {
        Known::Other => Known::Other,
        _ => Known::Lookalike,
    }
}

/// Whether two names of one length become one where `_` counts as `-`, as in CGI (RFC 3875, 4.1.18), and
/// what follows it: WSGI, PHP, Rack.
pub fn same_but_for_underscores(name: &[u8], known: &[u8]) -> bool {
    let same = |(byte, known): (&u8, &u8)| {
        byte.eq_ignore_ascii_case(known) || (*byte == b'_' && *known == b'-')
    };
    name.len() == known.len() && name.iter().zip(known).all(same)
}

/// A name of this length in lower case.
fn lower<const N: usize>(name: &[u8]) -> [u8; N] {
    let mut lower = [0; N];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    lower
}

/// Elements of a comma-separated list, trimmed, without empty ones.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Bytes of a token (RFC 9110, 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(token)
}

/// A length: digits only, at most 18 of them, so that it always fits.
///
/// # Errors
/// Anything else: a sign, a list, a space, nothing.
pub fn length(value: &[u8]) -> Result<u64, Violation> {
    let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    if !plain {
        return Err(Violation::Malformed("a content-length that is no plain number"));
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// What the `Connection` fields of a head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// How many other fields it names, which belong to the connection too.
    pub named_fields: u8,
}

/// Fields that `Connection` may name. Each is compared with each field: more is somebody's game.
const MAX_NAMED: u8 = 16;

impl ConnectionOptions {
    /// Adds one field's value.
    ///
    /// # Errors
    /// An element that is no token.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), Violation> {
        // What nearly everybody says.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return Ok(());
        }
        for option in list(value) {
            if !is_token(option) {
                return Err(Violation::Malformed("a connection option that is no token"));
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if self.named_fields == MAX_NAMED {
                return Err(Violation::Malformed("too many connection options"));
            } else {
                self.named_fields += 1;
            }
        }
        Ok(())
    }
}

/// The framing that fields claim, collected while they are read.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

impl Claims {
    /// A `Content-Length` field. A second one is refused even if it says the same: the next reader may
    /// take the other.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.length.replace(length(value)?).is_some() {
            return Err(Violation::Malformed("more than one content-length"));
        }
        Ok(())
    }

    /// A `Transfer-Encoding` field: once, and nothing but `chunked`.
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.chunked {
            return Err(Violation::Malformed("more than one transfer-encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            let repeats = list(value).filter(|c| c.eq_ignore_ascii_case(b"chunked")).count() > 1;
            let tokens = list(value)
                .all(|c| is_token(c.split(|b| *b == b';').next().unwrap_or(c).trim_ascii()));
            return Err(match !repeats && tokens && list(value).next().is_some() {
                true => Violation::NotImplemented("a transfer coding other than chunked"),
                false => Violation::Malformed("an odd transfer-encoding"),
            });
        }
        self.chunked = true;
        Ok(())
    }

    /// Both at once is how requests are smuggled.
    pub(super) fn check(&self) -> Result<(), Violation> {
        match self.length.is_some() && self.chunked {
            true => Err(Violation::Malformed("content-length beside transfer-encoding")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_in_any_case() {
        assert_eq!(Known::of(b"Transfer-ENCODING"), Known::TransferEncoding);
        assert_eq!(Known::of(b"X-App"), Known::XApp);
        assert_eq!(Known::of(b"hosts"), Known::Other);
        for name in [&b"Content_Length"[..], b"transfer_encoding", b"X_Forwarded-For", b"X_REAL_IP"]
        {
            assert_eq!(Known::of(name), Known::Lookalike);
        }
        for name in [&b"content_lengths"[..], b"h_st", b"x_y", b"nb_auth_token1"] {
            assert_eq!(Known::of(name), Known::Other);
        }
        assert_eq!(Known::of(b""), Known::Other);
    }

    #[test]
    fn lengths_are_plain() {
        assert_eq!(length(b"0"), Ok(0));
        assert_eq!(length(b"999999999999999999"), Ok(999_999_999_999_999_999));
        for odd in ["", "+1", "-1", "1 ", "1,1", "0x1", "1.0", "1000000000000000000", "\u{661}"] {
            assert!(length(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[test]
    fn transfer_encoding_verdicts() {
        let verdict = |value: &[u8]| Claims::default().transfer_encoding(value);
        assert!(verdict(b"Chunked").is_ok());
        assert!(matches!(verdict(b"gzip, chunked"), Err(Violation::NotImplemented(_))));
        assert!(matches!(verdict(b"identity"), Err(Violation::NotImplemented(_))));
        assert!(matches!(verdict(b"chunked, chunked"), Err(Violation::Malformed(_))));
        assert!(matches!(verdict(b"\x0bchunked"), Err(Violation::Malformed(_))));
        assert!(matches!(verdict(b""), Err(Violation::Malformed(_))));
    }
}
