//! Heads of nodes' answers (RFC 9112, 4 to 6), held to the same strictness as requests.

use std::mem::MaybeUninit;
use std::time::Duration;

use super::Violation;
use super::body::Framing;
use super::buffers::Buffers;
use super::field::{Claims, ConnectionOptions, Field, Known, Span};
use super::request::{MAX_FIELDS, token_violation};

/// The head of an answer, in the buffer it was read into.
#[derive(Debug)]
pub struct ResponseHead {
    /// The head as received, and what was read after it; spans point into it.
    pub bytes: Vec<u8>,
    /// Where the head ends and the body begins.
    pub length_of_head: usize,
    /// 100 to 599.
    pub status: u16,
    /// As received; may be empty.
    pub reason: Span,
    /// In the order received.
    pub fields: Vec<Field>,
    /// How the body is framed, given the request's method.
    pub framing: Framing,
    /// What `Content-Length` says, also where there is no body (HEAD, 304).
    pub length: Option<u64>,
    /// Whether the node keeps the connection.
    pub keep_alive: bool,
    /// What `Connection` says.
    pub connection: ConnectionOptions,
    /// `Keep-Alive: timeout=N`
    pub keep_alive_hint: Option<Duration>,
    /// `Upgrade: websocket`, and `Connection: upgrade`
    pub upgrade_websocket: bool,
    /// `Content-Type: text/event-stream`
    pub event_stream: bool,
}

impl ResponseHead {
    /// The value of the first field of a name.
    pub fn value(&self, known: Known) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| field.known == known)?;
        Some(field.value.get(&self.bytes))
    }

    /// Whether it is an interim answer; 101 is not one.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Gives the memory back.
    pub fn recycle(self, buffers: &Buffers) {
        buffers.give_back(self.bytes);
        buffers.give_back_fields(self.fields);
    }

    /// Reads a head whose end the scanner found: the first `length_of_head` bytes.
    ///
    /// # Errors
    /// Whatever is malformed or open to two readings.
    pub fn parse(
        bytes: Vec<u8>,
        length_of_head: usize,
        mut fields: Vec<Field>,
        to_head: bool,
    ) -> Result<ResponseHead, Violation> {
        let draft = read_head(&bytes[..length_of_head], &mut fields)?;
        let Draft { status, version_11, ref claims, connection, .. } = draft;
        let framing = match (claims.length, claims.chunked) {
            _ if to_head || status < 200 || status == 204 || status == 304 => Framing::Empty,
            (_, true) => Framing::Chunked,
            (Some(0), false) => Framing::Empty,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::UntilClose,
        };
        let persistent = match version_11 {
            true => !connection.close,
            false => connection.keep_alive && !connection.close,
        };
        Ok(ResponseHead {
            status,
            reason: draft.reason,
            length: claims.length,
            keep_alive: persistent && framing != Framing::UntilClose && !draft.surplus,
            connection,
            keep_alive_hint: draft.hint,
            upgrade_websocket: draft.upgrade_websocket && connection.upgrade,
            event_stream: draft.event_stream,
            framing,
            length_of_head,
            bytes,
            fields,
        })
    }
}

struct Draft {
    status: u16,
    reason: Span,
    version_11: bool,
    claims: Claims,
    connection: ConnectionOptions,
    hint: Option<Duration>,
    upgrade_websocket: bool,
    event_stream: bool,
    /// It claims a body that it cannot have: what comes may be one all the same.
    surplus: bool,
}

fn read_head(bytes: &[u8], fields: &mut Vec<Field>) -> Result<Draft, Violation> {
    let mut raw = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut raw,
    );
    match parsed {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Ok(_) => return Err(Violation::Malformed("a head that ends in the middle")),
        Err(error) => return Err(token_violation(error)),
    }
    let status = response.code.unwrap_or_default();
    if !(100..=599).contains(&status) {
        return Err(Violation::Malformed("a status out of range"));
    }
    let reason = response.reason.unwrap_or_default().as_bytes();
    let mut draft = Draft {
        status,
        reason: if reason.is_empty() { Span::default() } else { Span::of(reason, bytes) },
        version_11: response.version == Some(1),
        claims: Claims::default(),
        connection: ConnectionOptions::default(),
        hint: None,
        upgrade_websocket: false,
        event_stream: false,
        surplus: false,
    };
    for header in response.headers.iter() {
        let known = Known::of(header.name.as_bytes());
        read_field(&mut draft, known, header.value)?;
        let (name, value) =
            (Span::of(header.name.as_bytes(), bytes), Span::of(header.value, bytes));
        fields.push(Field { name, value, known });
    }
    draft.claims.check()?;
    if draft.claims.chunked && !draft.version_11 {
        return Err(Violation::Malformed("transfer-encoding in HTTP/1.0"));
    }
    let claims_body = draft.claims.chunked || draft.claims.length.is_some_and(|length| length > 0);
    // RFC 9110, 8.6, and RFC 9112, 6.1: neither field may stand there.
    if claims_body && status < 200 {
        return Err(Violation::Malformed("an interim answer with a body"));
    }
    draft.surplus = claims_body && status == 204;
    Ok(draft)
}

fn read_field(draft: &mut Draft, known: Known, value: &[u8]) -> Result<(), Violation> {
    match known {
        Known::ContentLength => draft.claims.content_length(value)?,
        Known::TransferEncoding => {
            draft.claims.transfer_encoding(value).map_err(|violation| match violation {
                // A node must not use a coding that nobody asked for.
                Violation::NotImplemented(what) => Violation::Malformed(what),
                other => other,
            })?;
        }
        Known::Connection => draft.connection.add(value)?,
        Known::KeepAlive => draft.hint = hint(value),
        Known::Upgrade => draft.upgrade_websocket = value.eq_ignore_ascii_case(b"websocket"),
        Known::ContentType => {
            let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
            draft.event_stream = kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream");
        }
        _ => {}
    }
    Ok(())
}

/// `timeout=5, max=100` (RFC 2068, 19.7.1.1; Node sends it).
fn hint(value: &[u8]) -> Option<Duration> {
    let value = super::field::list(value).find_map(|item| {
        let (name, value) = item.split_at_checked(8)?;
        name.eq_ignore_ascii_case(b"timeout=").then_some(value)
    })?;
    let seconds = super::field::length(value.trim_ascii()).ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, to_head: bool) -> Result<ResponseHead, Violation> {
        ResponseHead::parse(text.as_bytes().to_vec(), text.len(), Vec::new(), to_head)
    }

    #[test]
    fn framing_follows_status_and_method() {
        let framing = |text: &str, to_head| parse(text, to_head).unwrap().framing;
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false),
            Framing::Length(5)
        );
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Framing::Empty);
        assert_eq!(framing("HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", false), Framing::Empty);
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", false), Framing::UntilClose);
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            Framing::Chunked
        );
        assert_eq!(framing("HTTP/1.1 204 No\r\n\r\n", false), Framing::Empty);
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 99 Low\r\n\r\n",
            "HTTP/1.1 600 High\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        ] {
            assert!(parse(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn keep_alive_and_its_hint() {
        let head = parse(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nKeep-Alive: Timeout=5, max=3\r\n\r\n",
            false,
        );
        let head = head.unwrap();
        assert!(head.keep_alive);
        assert_eq!(head.keep_alive_hint, Some(Duration::from_secs(5)));
        assert!(!parse("HTTP/1.1 200 OK\r\n\r\n", false).unwrap().keep_alive);
        assert!(!parse("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false).unwrap().keep_alive);
        assert!(
            !parse("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", false)
                .unwrap()
                .keep_alive
        );
    }
}
