//! Where the operator wants HTTPS alone: whoever comes without it is sent there, with the method and all.

use std::io::Write;
use std::time::SystemTime;

use super::{Exchange, Next};
use crate::error::Cause;
use crate::headers::forwarded::Forwarding;
use crate::headers::write_field;
use crate::net::host_of;

/// Permanent Redirect (RFC 9110, 15.4.9): a POST stays one.
const STATUS: u16 = 308;

impl Exchange<'_> {
    /// `None`: the client speaks TLS, to us or to a trusted proxy.
    pub(super) async fn redirect_to_https(&mut self) -> Option<Result<Next, Cause>> {
        let (client, head) = (self.client, self.head);
        if client.socket.is_encrypted() {
            return None;
        }
        let proxies = &client.listener.settings.trusted_proxies;
        if Forwarding::new(client.peer.ip(), proxies, head).is_https(head) {
            return None;
        }
        let port = self.view.snapshot.https_port();
        let Some(location) = location(head.host(), port, head.target()) else {
            return Some(Err(Cause::BadRequest("no host to be sent to")));
        };
        self.record.status = STATUS;
        let keep_alive = self.keeps_alive() && self.body_done;
        let mut out = client.thread.buffers.small();
        out.extend_from_slice(b"HTTP/1.1 308 Permanent Redirect\r\n");
        write_field(&mut out, b"Date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
        write_field(&mut out, b"Location", &location);
        write_field(&mut out, b"Content-Length", b"0");
        // Writing into a Vec cannot fail.
        let _ = write!(out, "X-Request-Id: {}\r\n", self.record.id.as_str());
        write_field(&mut out, b"Connection", if keep_alive { b"keep-alive" } else { b"close" });
        out.extend_from_slice(b"\r\n");
        Some(Ok(self.deliver(out, keep_alive).await))
    }
}

/// The same target over HTTPS; `None` without a host.
fn location(host: &[u8], port: Option<u16>, target: &[u8]) -> Option<Vec<u8>> {
    let host = host_of(host);
    if host.is_empty() {
        return None;
    }
    let mut location = b"https://".to_vec();
    location.extend_from_slice(host);
    if let Some(port) = port {
        // Writing into a Vec cannot fail.
        let _ = write!(location, ":{port}");
    }
    // The asterisk of OPTIONS is no path.
    match target {
        [b'/', ..] => location.extend_from_slice(target),
        _ => location.push(b'/'),
    }
    Some(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_what_it_is_and_the_port_becomes_that_of_https() {
        let cases = [
            (("a.test", None, "/x?y=z"), Some("https://a.test/x?y=z")),
            (("a.test:80", None, "/"), Some("https://a.test/")),
            (("a.test:8080", Some(8443), "/"), Some("https://a.test:8443/")),
            (("[::1]:80", Some(444), "/"), Some("https://[::1]:444/")),
            (("[::1]", None, "*"), Some("https://[::1]/")),
            (("", None, "/"), None),
        ];
        for ((host, port, target), expected) in cases {
            let found = location(host.as_bytes(), port, target.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{host} {target}");
        }
    }
}
