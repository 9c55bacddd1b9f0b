//! Browsers that are let through by a cookie, and the link that gives them one.

use std::io::Write;
use std::time::SystemTime;

use crate::error::Cause;
use crate::exchange::{Exchange, Next, unix_s};
use crate::headers::forwarded::Forwarding;
use crate::headers::{self, write_field};
use crate::http1::request::RequestHead;
use crate::upstream::maintenance::{COOKIE_LIFE, Pass, QUERY_KEY, Terms};

/// For who opens a link too late.
const STALE: &str = "The link that was opened here is too old, or of another maintenance. \
                     `cobalance maintenance on --cookie` prints a new one.";

/// A link that was opened: its token, and its address without that.
pub(super) struct Link<'a> {
    token: &'a [u8],
    address: Vec<u8>,
}

impl<'a> Link<'a> {
    /// The link that a request opens, if it does.
    pub(super) fn of(head: &'a RequestHead) -> Option<Link<'a>> {
        let opens = matches!(head.method(), b"GET" | b"HEAD") && !head.websocket;
        opens.then(|| Link::parse(head.target())).flatten()
    }

    fn parse(target: &'a [u8]) -> Option<Link<'a>> {
        let at = target.iter().position(|byte| *byte == b'?')?;
        let (path, query) = (&target[..at], &target[at + 1..]);
        let parts = || query.split(|byte| *byte == b'&');
        let token = |part: &'a [u8]| part.strip_prefix(QUERY_KEY.as_bytes())?.strip_prefix(b"=");
        let found = parts().find_map(token)?;
        // Two slashes, or what browsers take for them, would name another host.
        let path = path.iter().position(|byte| !matches!(byte, b'/' | b'\\')).map(|at| &path[at..]);
        let mut address = [b"/", path.unwrap_or_default()].concat();
        for (nth, part) in parts().filter(|part| token(part).is_none()).enumerate() {
            address.push(if nth == 0 { b'?' } else { b'&' });
            address.extend_from_slice(part);
        }
        Some(Link { token: found, address })
    }

    /// Whether it opens anything now.
    pub(super) fn is_good(&self, pass: &Pass) -> bool {
        pass.opens(self.token, unix_s())
    }
}

/// What somebody is told who opened a link that opens nothing.
pub(super) fn stale(message: &str) -> String {
    format!("{message}\n\n{STALE}")
}

impl Exchange<'_> {
    /// Whether the client has a cookie that lets it through.
    pub(super) fn has_pass(&self, terms: &Terms) -> bool {
        terms.pass.as_ref().is_some_and(|pass| {
            headers::cookie(self.head, pass.cookie_name())
                .is_some_and(|value| pass.admits(value, unix_s()))
        })
    }

    /// Gives the browser the cookie, and sends it to where the link leads.
    pub(super) async fn admit(&mut self, pass: &Pass, link: &Link<'_>) -> Next {
        let proxies = &self.client.listener.settings.trusted_proxies;
        let forwarding = Forwarding::new(self.client.peer.ip(), proxies, self.head);
        let secure = if forwarding.is_https(self.head) { "; Secure" } else { "" };
        let (name, value) = (pass.cookie_name(), pass.cookie(unix_s()));
        let life = COOKIE_LIFE.as_secs();
        let keep_alive = self.body_done && self.keeps_alive();
        self.record.status = 303;
        self.record.cause = Some(Cause::Maintenance);
        let mut out = self.client.thread.buffers.small();
        out.extend_from_slice(b"HTTP/1.1 303 See Other\r\n");
        write_field(&mut out, b"Date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
        write_field(&mut out, b"Location", &link.address);
        // Writing into a Vec cannot fail.
        let _ = write!(
            out,
            "Set-Cookie: {name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}\r\n"
        );
        write_field(&mut out, b"Content-Length", b"0");
        write_field(&mut out, b"Cache-Control", b"no-store");
        write_field(&mut out, b"Referrer-Policy", b"no-referrer");
        write_field(&mut out, b"X-Request-Id", self.record.id.as_str().as_bytes());
        let connection: &[u8] = if keep_alive { b"keep-alive" } else { b"close" };
        write_field(&mut out, b"Connection", connection);
        out.extend_from_slice(b"\r\n");
        self.deliver(out, keep_alive).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_its_address_without_the_token_and_never_to_another_host() {
        for (target, expected) in [
            ("/?cobalance-pass=ab", Some(("ab", "/"))),
            ("/nb/admin?cobalance-pass=ab", Some(("ab", "/nb/admin"))),
            ("/a?x=1&cobalance-pass=ab&y=2", Some(("ab", "/a?x=1&y=2"))),
            ("/a?cobalance-pass=ab&cobalance-pass=cd", Some(("ab", "/a"))),
            ("//evil.example/a?cobalance-pass=ab", Some(("ab", "/evil.example/a"))),
            ("/\\evil.example?cobalance-pass=ab", Some(("ab", "/evil.example"))),
            ("//?cobalance-pass=", Some(("", "/"))),
            ("/cobalance-pass=ab", None),
            ("/?cobalance-pas=ab", None),
            ("/?cobalance-passx=ab", None),
            ("/?", None),
        ] {
            let found = Link::parse(target.as_bytes());
            let found = found.as_ref().map(|link| (link.token, link.address.as_slice()));
            let expected = expected
                .map(|(token, address): (&str, &str)| (token.as_bytes(), address.as_bytes()));
            assert_eq!(found, expected, "{target}");
        }
    }
}
