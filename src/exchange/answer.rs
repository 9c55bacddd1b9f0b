//! Answers of our own: what a client sees when no node's answer can be passed on.

use std::io::Write;
use std::time::SystemTime;

use super::{Exchange, Next};
use crate::error::{Cause, Limited};
use crate::headers::forwarded::Forwarding;
use crate::headers::{HSTS, write_field};
use crate::nocobase;

/// What shapes an answer of our own.
pub struct Shape<'a> {
    /// NocoBase's JSON rather than HTML: the request was for the API.
    pub json: bool,
    /// No body follows the head (HEAD).
    pub to_head: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// Puts NocoBase's page under its maintenance overlay.
    pub maintaining: bool,
    /// The ID of the exchange.
    pub request_id: &'a str,
}

/// What an answer says.
pub struct Content<'a> {
    /// Its status.
    pub status: u16,
    /// Seconds after which the client may try again.
    pub retry_after: Option<u32>,
    /// What it is told of the rate limit that it met.
    pub limited: Option<&'a Limited>,
    /// The body's media type.
    pub kind: &'a [u8],
    /// The body.
    pub body: &'a str,
}

impl Exchange<'_> {
    /// Sends an answer of our own, which ends the exchange.
    pub(super) async fn deliver(&mut self, mut out: Vec<u8>, keep_alive: bool) -> Next {
        if self.is_to_stay_on_https() {
            stay_on_https(&mut out);
        }
        let written = self.client.write([&out, &[], &[]], &self.deadlines.down).await;
        self.client.thread.buffers.give_back(out);
        match (written, keep_alive, self.body_done) {
            (Err(_), ..) => Next::Cut,
            (Ok(()), true, _) => Next::KeepAlive,
            (Ok(()), false, true) => Next::Close,
            (Ok(()), false, false) => Next::Linger,
        }
    }
}

impl Exchange<'_> {
    /// As for the answers of nodes: over TLS, to us or to a trusted proxy, where the operator wants nothing else.
    fn is_to_stay_on_https(&self) -> bool {
        let proxies = &self.client.listener.settings.trusted_proxies;
        let secure = || {
            self.client.socket.is_encrypted()
                || Forwarding::new(self.client.peer.ip(), proxies, self.head).is_https(self.head)
        };
        self.view.snapshot.config.tls.https_only && secure()
    }
}

/// Tells the client of a whole answer to come over HTTPS alone from now on (RFC 6797).
pub fn stay_on_https(answer: &mut Vec<u8>) {
    let Some(end) = answer.iter().position(|byte| *byte == b'\n') else { return };
    let mut field = Vec::new();
    write_field(&mut field, b"Strict-Transport-Security", HSTS);
    answer.splice(end + 1..end + 1, field);
}

/// Appends a whole answer for a cause.
pub fn write(out: &mut Vec<u8>, cause: &Cause, shape: &Shape<'_>) {
    let kind: &[u8] =
        if shape.json { b"application/json; charset=utf-8" } else { b"text/html; charset=utf-8" };
    let body = body(cause, shape);
    let (status, retry_after) = (cause.status(), cause.retry_after());
    let limited = match cause {
        Cause::RateLimited(limited) => Some(&**limited),
        _ => None,
    };
    write_content(out, &Content { status, retry_after, limited, kind, body: &body }, shape);
}

/// Appends a whole answer.
pub(super) fn write_content(out: &mut Vec<u8>, content: &Content<'_>, shape: &Shape<'_>) {
    let Content { status, retry_after, limited, kind, body } = *content;
    // Writing into a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status));
    let date = httpdate::fmt_http_date(SystemTime::now());
    write_field(out, b"Date", date.as_bytes());
    write_field(out, b"Content-Type", kind);
    let _ = write!(out, "Content-Length: {}\r\n", body.len());
    write_field(out, b"Cache-Control", b"no-store");
    write_field(out, b"X-Request-Id", shape.request_id.as_bytes());
    if let Some(seconds) = retry_after {
        let _ = write!(out, "Retry-After: {seconds}\r\n");
    }
    if let Some(limited) = limited {
        write_limited(out, limited);
    }
    let connection: &[u8] = if shape.keep_alive { b"keep-alive" } else { b"close" };
    write_field(out, b"Connection", connection);
    out.extend_from_slice(b"\r\n");
    if !shape.to_head {
        out.extend_from_slice(body.as_bytes());
    }
}

/// As structured fields (draft-ietf-httpapi-ratelimit-headers). A name has nothing in it that must be escaped.
fn write_limited(out: &mut Vec<u8>, limited: &Limited) {
    let Limited { limit, quota, window_s, after_s } = limited;
    // Writing into a Vec cannot fail.
    let _ = write!(out, "RateLimit-Policy: \"{limit}\";q={quota};w={window_s}\r\n");
    let _ = write!(out, "RateLimit: \"{limit}\";r=0;t={after_s}\r\n");
}

fn body(cause: &Cause, shape: &Shape<'_>) -> String {
    let status = cause.status();
    if shape.json {
        let code = cause.reason().to_ascii_uppercase();
        let message = cause.to_string();
        return nocobase::error_body(status, &code, &message, shape.maintaining, shape.request_id);
    }
    let phrase = phrase(status);
    // The cause's text is ours and the ID is plain: nothing needs escaping but `&<>` of our own texts.
    let message = cause.to_string().replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {phrase}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34em;padding:0 1em;\
         color:#222}}small{{color:#777}}</style></head>\n<body><h1>{phrase}</h1>\n<p>{message}</p>\n\
         <p><small>{status} · request {id}</small></p></body></html>\n",
        id = shape.request_id,
    )
}

fn phrase(status: u16) -> &'static str {
    let code = http::StatusCode::from_u16(status).ok();
    code.and_then(|code| code.canonical_reason()).unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cause: &Cause, json: bool, to_head: bool) -> String {
        let shape =
            Shape { json, to_head, keep_alive: false, maintaining: false, request_id: "id-1" };
        let mut out = Vec::new();
        write(&mut out, cause, &shape);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_shape_that_nocobases_client_reads() {
        let answer = text(&Cause::NoEligibleNode, true, false);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(head.contains("Retry-After: 2"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["error"]["status"], 503);
        assert_eq!(json["error"]["code"], "DESTINATION_UNAVAILABLE");
        assert_eq!(json["error"]["maintaining"], false);
        assert!(body.contains("id-1"));
    }

    #[test]
    fn html_for_people_and_no_body_for_head() {
        assert!(text(&Cause::BadRequest("no host"), false, false).contains("<h1>Bad Request</h1>"));
        let head = text(&Cause::NoRoute, false, true);
        assert!(head.ends_with("\r\n\r\n") && !head.contains("html>"));
    }
}
