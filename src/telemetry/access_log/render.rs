//! Lines as bytes. Nothing is allocated but the room in the buffer, and whatever bytes a client sends,
//! a line stays one line: valid JSON, or fields that keep their quotes.

use std::io::Write;
use std::net::IpAddr;

use super::{Attempt, Line, TimeCache};
use crate::net::Peer;

/// Query keys whose values are secrets: NocoBase takes its login token in the first three, the next is what a
/// form sent by GET would leak, and the last lets through maintenance.
const SECRET_KEYS: [&[u8]; 5] =
    [b"token", b"temporaryAccessToken", b"access_token", b"password", b"cobalance-pass"];
/// Stands for a secret.
const HIDDEN: &[u8] = b"***";

/// Appends one JSON object and a line feed. Fields that are "none" are left out; times are in
/// milliseconds with three decimals.
pub fn write_json(line: &Line<'_>, time: &mut TimeCache, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    time.write_rfc3339(line.unix_ms, out);
    out.push(b'"');
    request(line, out);
    outcome(line, out);
    names(line, out);
    attempts(line.attempts, out);
    out.extend_from_slice(b",\"retried\":");
    boolean(line.retried, out);
    out.extend_from_slice(b"}\n");
}

/// Appends a line of Apache's combined format and a line feed: client, time, request line, status,
/// bytes, referer, user agent. What could break its quotes is written `\xNN`, as nginx does.
pub fn write_combined(line: &Line<'_>, time: &mut TimeCache, out: &mut Vec<u8>) {
    address(line.client, out);
    out.extend_from_slice(b" - - [");
    time.write_combined(line.unix_ms, out);
    out.extend_from_slice(b"] \"");
    quoted(line.method, out);
    out.push(b' ');
    redacted(line.path, out, quoted);
    out.push(b' ');
    quoted(line.protocol.as_bytes(), out);
    out.extend_from_slice(b"\" ");
    number(line.status.into(), out);
    out.push(b' ');
    number(line.bytes_out, out);
    for (text, hides) in [(line.referer, true), (line.user_agent, false)] {
        out.extend_from_slice(b" \"");
        match (text.is_empty(), hides) {
            (true, _) => out.push(b'-'),
            (false, true) => redacted(text, out, quoted),
            (false, false) => quoted(text, out),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

fn request(line: &Line<'_>, out: &mut Vec<u8>) {
    text("request_id", line.request_id, out);
    text("upstream_request_id", line.upstream_request_id, out);
    for (name, peer) in [("client", Peer::Ip(line.client)), ("peer", line.peer)] {
        key(name, out);
        out.push(b'"');
        match peer {
            Peer::Ip(ip) => address(ip, out),
            Peer::Unix => out.extend_from_slice(crate::net::UNIX.as_bytes()),
        }
        out.push(b'"');
    }
    text("method", line.method, out);
    text("host", line.host, out);
    url("path", line.path, out);
    text("protocol", line.protocol.as_bytes(), out);
}

fn outcome(line: &Line<'_>, out: &mut Vec<u8>) {
    for (name, value) in
        [("status", line.status.into()), ("bytes_in", line.bytes_in), ("bytes_out", line.bytes_out)]
    {
        key(name, out);
        number(value, out);
    }
    if let Some((bytes, _)) = line.spooled {
        key("spooled", out);
        number(bytes, out);
    }
    for (name, us) in [
        ("duration_ms", Some(line.duration_us)),
        ("queue_ms", Some(line.queue_us)),
        ("parked_ms", line.parked_us),
        ("spooled_ms", line.spooled.map(|(_, us)| us)),
        ("connect_ms", line.connect_us),
        ("header_ms", line.header_us),
    ] {
        if let Some(us) = us {
            key(name, out);
            milliseconds(us, out);
        }
    }
}

fn names(line: &Line<'_>, out: &mut Vec<u8>) {
    text("listener", line.listener.as_bytes(), out);
    text("route", line.route.as_bytes(), out);
    text("upstream", line.upstream.as_bytes(), out);
    text("node", line.node.as_bytes(), out);
    text("app", line.app, out);
    text("action", line.action, out);
    text("affinity", line.affinity.as_bytes(), out);
    text("user_agent", line.user_agent, out);
    url("referer", line.referer, out);
    text("reason", line.reason.as_bytes(), out);
    text("detail", line.detail.as_bytes(), out);
}

fn attempts(attempts: &[Attempt<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"attempts\":[");
    for (nth, attempt) in attempts.iter().enumerate() {
        out.extend_from_slice(if nth == 0 { b"{\"node\":\"" } else { b",{\"node\":\"" });
        escaped(attempt.node.as_bytes(), out);
        out.push(b'"');
        text("result", attempt.result.as_bytes(), out);
        key("sent", out);
        number(attempt.sent, out);
        key("reused", out);
        boolean(attempt.reused, out);
        if attempt.hedge {
            out.extend_from_slice(b",\"hedge\":true");
        }
        key("ms", out);
        milliseconds(attempt.us, out);
        out.push(b'}');
    }
    out.push(b']');
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        key(name, out);
        out.push(b'"');
        escaped(value, out);
        out.push(b'"');
    }
}

fn url(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        key(name, out);
        out.push(b'"');
        redacted(value, out, escaped);
        out.push(b'"');
    }
}

fn boolean(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Decimal digits, from the last to the first.
fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn milliseconds(us: u64, out: &mut Vec<u8>) {
    number(us / 1000, out);
    let rest = us % 1000;
    out.extend([b'.', digit(rest / 100), digit(rest / 10 % 10), digit(rest % 10)]);
}

fn digit(value: u64) -> u8 {
    b'0' + value as u8
}

fn address(ip: IpAddr, out: &mut Vec<u8>) {
    // A dual-stack socket calls an IPv4 client `::ffff:a.b.c.d`; nobody searches a log for that. Writing
    // into a Vec cannot fail.
    let _ = write!(out, "{}", ip.to_canonical());
}

/// Writes a URL with `write`, the values of secret query keys hidden.
fn redacted(url: &[u8], out: &mut Vec<u8>, write: fn(&[u8], &mut Vec<u8>)) {
    let Some(mark) = memchr::memchr(b'?', url) else { return write(url, out) };
    let (path, query) = url.split_at(mark + 1);
    write(path, out);
    for (nth, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if nth > 0 {
            write(b"&", out);
        }
        match memchr::memchr(b'=', pair) {
            Some(equals) if is_secret(&pair[..equals]) => {
                write(&pair[..=equals], out);
                write(HIDDEN, out);
            }
            _ => write(pair, out),
        }
    }
}

fn is_secret(key: &[u8]) -> bool {
    SECRET_KEYS.iter().any(|secret| {
        let mut rest = key;
        secret.iter().all(|byte| decoded(&mut rest).is_some_and(|b| b.eq_ignore_ascii_case(byte)))
            && rest.is_empty()
    })
}

/// Takes one byte off a key, percent-decoded: `%74oken` is the same key to a node.
fn decoded(rest: &mut &[u8]) -> Option<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let (byte, taken) = match **rest {
        [b'%', high, low, ..] => match (hex(high), hex(low)) {
            (Some(high), Some(low)) => (high << 4 | low, 3),
            _ => (b'%', 1),
        },
        [byte, ..] => (byte, 1),
        [] => return None,
    };
    *rest = &rest[taken..];
    Some(byte)
}

/// Inside a JSON string. A byte that is no UTF-8 becomes the text `\xNN`, so that nothing is lost.
fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.iter().all(|byte| is_plain(*byte)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // Also DEL, the C1 controls that move a terminal's cursor, and the line separators.
                char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
                    let code = u32::from(char);
                    out.extend_from_slice(b"\\u");
                    out.extend([12, 8, 4, 0].map(|shift| hex_digit((code >> shift) as u8)));
                }
                char => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            out.push(b'\\');
            hex_escape(*byte, out);
        }
    }
}

/// Inside a quoted field of the combined format.
fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.iter().all(|byte| is_plain(*byte)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            let mut utf8 = [0; 4];
            let utf8 = char.encode_utf8(&mut utf8).as_bytes();
            match char {
                '"' | '\\' => utf8.iter().for_each(|byte| hex_escape(*byte, out)),
                char if char.is_control() => utf8.iter().for_each(|byte| hex_escape(*byte, out)),
                _ => out.extend_from_slice(utf8),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex_escape(*byte, out));
    }
}

/// Needs no escape anywhere.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn hex_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend([b'\\', b'x', hex_digit(byte >> 4), hex_digit(byte)]);
}

fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}
