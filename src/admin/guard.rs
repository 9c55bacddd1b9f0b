//! What a request must pass before the admin routes see it, each as one `tower` layer.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use sha2::{Digest, Sha256};
use tower::{Layer, Service};

use super::reply::{self, Reply};
use crate::net::bare_host;

/// Says why a head is refused; none lets it pass.
type Verdict = fn(&http::request::Parts, &Rules) -> Option<Reply>;

/// What the checks compare with.
#[derive(Debug)]
pub(super) struct Rules {
    /// Where the listener is bound.
    pub bound: SocketAddr,
    /// SHA-256 of the token; none when none is asked for.
    token: Option<[u8; 32]>,
}

impl Rules {
    /// Rules for one listener. Only a digest of the token is kept.
    pub(super) fn new(bound: SocketAddr, token: Option<&str>) -> Rules {
        Rules { bound, token: token.map(|token| Sha256::digest(token.as_bytes()).into()) }
    }
}

/// A layer that lets pass what one check does not refuse.
#[derive(Clone)]
pub(super) struct Check {
    rules: Arc<Rules>,
    verdict: Verdict,
}

impl Check {
    /// Refuses names in `Host` that are not ours: a page of a stranger whose name resolves to loopback
    /// ("DNS rebinding") would otherwise be of the same origin as this server. An address cannot be
    /// rebound, and with a token there is nothing that a browser would send on its own.
    pub(super) fn host(rules: Arc<Rules>) -> Check {
        Check { rules, verdict: foreign_host }
    }

    /// Asks for `Authorization: Bearer` with the token, when one is configured.
    pub(super) fn token(rules: Arc<Rules>) -> Check {
        Check { rules, verdict: wrong_token }
    }

    /// Changes are POST with `application/json`, which a page of another origin cannot send without
    /// being allowed to first; nobody is.
    pub(super) fn changes(rules: Arc<Rules>) -> Check {
        Check { rules, verdict: not_a_change }
    }
}

fn foreign_host(head: &http::request::Parts, rules: &Rules) -> Option<Reply> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let known = rules.token.is_some() || host.is_some_and(|host| is_ours(host, rules.bound));
    (!known).then(|| {
        reply::error(
            StatusCode::MISDIRECTED_REQUEST,
            "this Host is not known here: use the address or `localhost`",
        )
    })
}

fn is_ours(host: &str, bound: SocketAddr) -> bool {
    let name = String::from_utf8_lossy(bare_host(host.as_bytes())).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || host == bound.to_string()
}

fn wrong_token(head: &http::request::Parts, rules: &Rules) -> Option<Reply> {
    let expected = rules.token.as_ref()?;
    let given = bearer(&head.headers).map(|token| Sha256::digest(token.as_bytes()));
    let right = given.is_some_and(|given| same(expected, &given));
    (!right).then(|| reply::error(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares digests without telling by time where they differ.
fn same(one: &[u8; 32], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

fn not_a_change(head: &http::request::Parts, _: &Rules) -> Option<Reply> {
    if head.method != Method::POST {
        return None;
    }
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let essence = kind.split(';').next().unwrap_or("").trim();
    (!essence.eq_ignore_ascii_case("application/json")).then(|| {
        let message = "changes need `Content-Type: application/json`";
        reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    })
}

impl<S> Layer<S> for Check {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked { check: self.clone(), inner }
    }
}

/// A service behind a [`Check`].
#[derive(Clone)]
pub(super) struct Checked<S> {
    check: Check,
    inner: S,
}

impl<B, S> Service<Request<B>> for Checked<S>
where
    S: Service<Request<B>, Response = Reply, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        match (self.check.verdict)(&head, &self.check.rules) {
            Some(refusal) => Box::pin(ready(Ok(refusal))),
            None => Box::pin(self.inner.call(Request::from_parts(head, body))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(token: Option<&str>) -> Rules {
        Rules::new("127.0.0.1:9901".parse().unwrap(), token)
    }

    fn head(method: Method, fields: &[(&'static str, &str)]) -> http::request::Parts {
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn names_that_can_be_rebound_are_refused() {
        let cases = [
            ("localhost", true),
            ("LOCALHOST:9901", true),
            ("cobalance.localhost:1", true),
            ("127.0.0.1", true),
            ("10.1.2.3:9901", true),
            ("[::1]:9901", true),
            ("[::1]", true),
            ("localhost.evil.example", false),
            ("evil.example:9901", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ];
        for (host, passes) in cases {
            let refused = foreign_host(&head(Method::GET, &[("host", host)]), &rules(None));
            assert_eq!(refused.is_none(), passes, "{host}");
        }
        assert!(foreign_host(&head(Method::GET, &[]), &rules(None)).is_some());
    }

    #[test]
    fn with_a_token_any_host_will_do_and_only_the_token_counts() {
        let rules = rules(Some("s3cret"));
        let cases = [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer s3cretx", false),
            ("Basic s3cret", false),
            ("s3cret", false),
        ];
        for (value, passes) in cases {
            let head = head(Method::GET, &[("host", "lb.example"), ("authorization", value)]);
            assert!(foreign_host(&head, &rules).is_none());
            assert_eq!(wrong_token(&head, &rules).is_none(), passes, "{value}");
        }
        assert!(wrong_token(&head(Method::GET, &[]), &rules).is_some());
        assert!(!format!("{rules:?}").contains("s3cret"));
    }

    #[test]
    fn a_change_needs_the_type_that_forms_cannot_send() {
        let refused = |kind| {
            not_a_change(&head(Method::POST, &[("content-type", kind)]), &rules(None)).is_some()
        };
        assert!(!refused("application/json"));
        assert!(!refused("Application/JSON; charset=utf-8"));
        assert!(refused("text/plain"));
        assert!(refused("application/x-www-form-urlencoded"));
        assert!(not_a_change(&head(Method::POST, &[]), &rules(None)).is_some());
        assert!(not_a_change(&head(Method::GET, &[]), &rules(None)).is_none());
    }
}
