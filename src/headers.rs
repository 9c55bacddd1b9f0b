//! What is written into the heads that are passed on: fields of the connection stripped, forwarding
//! fields rebuilt, framing written anew. Pure: bytes in, bytes out.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

use crate::balance::sticky::{find_cookie, remove_cookie};
use crate::http1::body::Framing;
use crate::http1::field::{Field, Known, list};
use crate::http1::request::RequestHead;
use crate::http1::response::ResponseHead;

pub mod client_certificate;
pub mod forwarded;

use forwarded::Forwarding;

/// A year (RFC 6797). Nothing is said of subdomains: whether they can do without HTTP is not ours to know.
pub const HSTS: &[u8] = b"max-age=31536000";

/// What the head for a node needs beside the client's.
pub struct ForNode<'a> {
    /// Who asks, and what may be believed of what it says about that.
    pub forwarding: &'a Forwarding<'a>,
    /// The ID of the exchange.
    pub request_id: &'a str,
    /// Written when the client (HTTP/1.0) named no host.
    pub default_host: &'a str,
    /// Names of the cookies to hide from the node.
    pub hidden_cookies: [Option<&'a str>; 2],
    /// How the body will be framed.
    pub framing: Framing,
    /// The client waits to be told to send the body.
    pub expect_continue: bool,
}

/// Appends the head for a node, empty line included.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, parts: &ForNode<'_>) {
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(if head.target().is_empty() { b"/" } else { head.target() });
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(
        out,
        b"Host",
        if head.host().is_empty() { parts.default_host.as_bytes() } else { head.host() },
    );
    let mut run = Run::new(&head.bytes);
    for field in &head.fields {
        write_request_field((out, &mut run), head, field, parts);
    }
    run.write(out);
    match parts.framing {
        // No body, and said so: some servers ask a POST for its length (411) even then.
        Framing::Empty if head.value(Known::ContentLength).is_some() => {
            write_framing(out, Framing::Length(0));
        }
        framing => write_framing(out, framing),
    }
    if parts.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    match (head.websocket, head.te_trailers) {
        (true, _) => out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        (false, true) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n"),
        (false, false) => {}
    }
    parts.forwarding.write(out, head);
    write_field(out, b"X-Request-Id", parts.request_id.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_request_field(
    (out, run): (&mut Vec<u8>, &mut Run<'_>),
    head: &RequestHead,
    field: &Field,
    parts: &ForNode<'_>,
) {
    match field.known {
        // Written in their places, or anew.
        Known::Host | Known::ContentLength | Known::Expect | Known::XRequestId => {}
        known if known.is_hop_by_hop() || forwarded::is_forwarding(known) => {}
        Known::Cookie if parts.hidden_cookies != [None, None] => {
            run.write(out);
            write_cookie(out, head, field, parts.hidden_cookies);
        }
        _ if is_named(head, field) => {}
        _ if parts.forwarding.hides(field.name.get(&head.bytes)) => {}
        _ => run.add(out, field),
    }
}

/// Lines that are passed on as they were received. What stands in a row is copied as one piece: a browser
/// sends a dozen of them.
struct Run<'a> {
    bytes: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Run<'a> {
    fn new(bytes: &'a [u8]) -> Run<'a> {
        Run { bytes, start: 0, end: 0 }
    }

    fn add(&mut self, out: &mut Vec<u8>, field: &Field) {
        let (name, value) = (field.name, field.value);
        let (colon, end) = (name.end as usize, value.end as usize);
        // Only if it lies there as it would be written.
        let plain = value.start == name.end + 2
            && self.bytes.get(colon..colon + 2) == Some(b": ")
            && self.bytes.get(end..end + 2) == Some(b"\r\n");
        if !plain {
            self.write(out);
            return write_field(out, name.get(self.bytes), value.get(self.bytes));
        }
        if self.end != name.start as usize {
            self.write(out);
            self.start = name.start as usize;
        }
        self.end = end + 2;
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[self.start..self.end]);
        self.start = self.end;
    }
}

/// Whether `Connection` names the field. Fields that carry meaning end to end cannot be named away.
fn is_named(head: &RequestHead, field: &Field) -> bool {
    head.connection.named_fields > 0
        && named(&head.bytes, &head.fields, field.name.get(&head.bytes))
        && field.known == Known::Other
        && !field.name.get(&head.bytes).eq_ignore_ascii_case(b"authorization")
}

fn named(bytes: &[u8], fields: &[Field], name: &[u8]) -> bool {
    let connection = fields.iter().filter(|field| field.known == Known::Connection);
    connection
        .flat_map(|field| list(field.value.get(bytes)))
        .any(|option| option.eq_ignore_ascii_case(name))
}

fn write_cookie(out: &mut Vec<u8>, head: &RequestHead, field: &Field, hidden: [Option<&str>; 2]) {
    let mut kept: Cow<'_, [u8]> = field.value.get(&head.bytes).into();
    for name in hidden.into_iter().flatten() {
        if let Cow::Owned(left) = remove_cookie(&kept, name) {
            kept = left.into();
        }
    }
    if !kept.is_empty() {
        write_field(out, field.name.get(&head.bytes), &kept);
    }
}

/// The value of a cookie.
pub fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let cookies = head.fields.iter().filter(|field| field.known == Known::Cookie);
    cookies.map(|field| field.value.get(&head.bytes)).find_map(|value| find_cookie(value, name))
}

/// What the head for a client needs beside the node's.
pub struct ForClient<'a> {
    /// How the body will be framed.
    pub framing: Framing,
    /// The client speaks HTTP/1.1.
    pub version_11: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The ID of the exchange.
    pub request_id: &'a str,
    /// A whole `Set-Cookie` value, for stickiness.
    pub set_cookie: Option<&'a str>,
    /// The client is to come over HTTPS alone from now on, unless the node says otherwise.
    pub hsts: bool,
}

/// Appends the head for a client, empty line included. Serves for 101 too.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead, parts: &ForClient<'_>) {
    write_status(out, head);
    let mut run = Run::new(&head.bytes);
    for field in &head.fields {
        let written_anew = matches!(field.known, Known::ContentLength | Known::XRequestId);
        let goes = field.known.is_hop_by_hop() || is_named_by_node(head, field);
        if !written_anew && !goes {
            run.add(out, field);
        }
    }
    run.write(out);
    match (parts.framing, head.length) {
        // HEAD and 304 tell the length of what is not sent; 204 and 1xx must not (RFC 9110, 8.6).
        (Framing::Empty, Some(length)) if head.status >= 200 && head.status != 204 => {
            write_framing(out, Framing::Length(length));
        }
        (framing, _) => write_framing(out, framing),
    }
    if let Some(cookie) = parts.set_cookie {
        write_field(out, b"Set-Cookie", cookie.as_bytes());
    }
    if parts.hsts && !has(head, b"strict-transport-security") {
        write_field(out, b"Strict-Transport-Security", HSTS);
    }
    write_field(out, b"X-Request-Id", parts.request_id.as_bytes());
    match (head.status, parts.keep_alive, parts.version_11) {
        (101, ..) => out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        (_, false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (_, true, false) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (_, true, true) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the node's `Connection` names the field.
fn is_named_by_node(head: &ResponseHead, field: &Field) -> bool {
    head.connection.named_fields > 0
        && field.known == Known::Other
        && named(&head.bytes, &head.fields, field.name.get(&head.bytes))
}

fn has(head: &ResponseHead, name: &[u8]) -> bool {
    head.fields.iter().any(|field| field.name.get(&head.bytes).eq_ignore_ascii_case(name))
}

/// Appends an interim answer as the node sent it, without the fields of its connection.
pub fn write_interim(out: &mut Vec<u8>, head: &ResponseHead) {
    write_status(out, head);
    for field in &head.fields {
        let name = field.name.get(&head.bytes);
        let goes = field.known.is_hop_by_hop() || is_named_by_node(head, field);
        if !goes && field.known != Known::ContentLength {
            write_field(out, name, field.value.get(&head.bytes));
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status(out: &mut Vec<u8>, head: &ResponseHead) {
    out.extend_from_slice(b"HTTP/1.1 ");
    // Of three digits, as it was read.
    let digit = |unit: u16| b'0' + (head.status / unit % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(head.reason.get(&head.bytes));
    out.extend_from_slice(b"\r\n");
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Appends one field line.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends an address as text. Written out for IPv4, as it is done a few times for each request.
fn write_ip(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(v4) = address else {
        let _ = write!(out, "{address}");
        return;
    };
    let (mut text, mut length) = ([0; 16], 0);
    let mut push = |byte: u8| {
        text[length] = byte;
        length += 1;
    };
    for octet in v4.octets() {
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
        push(b'.');
    }
    // All but the last dot.
    out.extend_from_slice(&text[..length - 1]);
}

/// Appends a decimal number, without the machinery of `fmt`.
fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests;
