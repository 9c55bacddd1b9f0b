//! What a request must pass before the admin routes see it, as one `tower` layer over a pure verdict.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use parking_lot::Mutex;
use tower::{Layer, Service};

use super::failures::Failures;
use super::reply::Reply;
use super::tokens::{Access, Found, Tokens};
use super::{audit, credentials};
use crate::clock;
use crate::control::who::{Peer, Who};
use crate::exchange::thread::RequestId;
use crate::telemetry::metrics::Metrics;

mod refusal;

pub(super) use refusal::Refusal;

/// Says how a request came to be: by a page of the same origin, by an address that was typed, or by another
/// site's (Fetch Metadata, W3C). Browsers set it, and no page can.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// In each answer, and in the audit line of a change.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// See [`Rules::tells`].
const TELL_EVERY_NS: u64 = 1_000_000_000;

/// What the checks compare with.
#[derive(Debug)]
pub(super) struct Rules {
    /// Names that the listener is called by, besides addresses and `localhost`.
    hosts: Vec<String>,
    /// None: whoever reaches the listener may do everything. Renewed while requests run.
    tokens: ArcSwapOption<Tokens>,
    failures: Mutex<Failures>,
    /// When somebody without a token was last told of.
    told_ns: AtomicU64,
}

/// Who asks, and which request it is: among the extensions of what has passed.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) who: Who,
    pub(super) id: RequestId,
}

impl Rules {
    pub(super) fn new(hosts: Vec<String>, tokens: Option<Tokens>) -> Rules {
        let tokens = ArcSwapOption::from_pointee(tokens);
        Rules { hosts, tokens, failures: Mutex::default(), told_ns: AtomicU64::new(0) }
    }

    /// These count from now on.
    pub(super) fn renew(&self, tokens: Option<Tokens>) {
        if self.tokens.load().as_deref() != tokens.as_ref() {
            tracing::info!(target: "cobalance::admin", "other tokens are in use");
            self.tokens.store(tokens.map(Arc::new));
        }
    }

    /// Whether a request may pass; if so, the name of its token. What comes first is what costs least, and
    /// says nothing of tokens to a page of a stranger.
    fn judge(&self, head: &Parts, peer: Peer, now: Duration) -> Result<Option<String>, Refusal> {
        let tokens = self.tokens.load();
        let authority = self.host(head, tokens.is_some())?;
        same_origin(head, authority)?;
        let (access, name) = match &*tokens {
            None => (Access::Full, None),
            Some(tokens) => self.token(tokens, &head.headers, peer, now)?,
        };
        match changes(head) {
            true if access == Access::Read => Err(Refusal::ReadOnly(name)),
            true if head.method == Method::POST && !is_json(&head.headers) => Err(Refusal::NotJson),
            _ => Ok(name),
        }
    }

    /// Whether a refusal is worth a line: what anybody can cause at any pace is told of once a second, and
    /// counted each time.
    fn tells(&self, refusal: &Refusal, now_ns: u64) -> bool {
        match refusal {
            Refusal::NoToken | Refusal::TooManyFailures(_) => false,
            // Few, by the bound on failures; and with a token of ours.
            Refusal::WrongToken { .. } | Refusal::ReadOnly(_) | Refusal::NotJson => true,
            Refusal::Host | Refusal::Origin | Refusal::Site => {
                let due = |last: u64| {
                    (last == 0 || now_ns >= last + TELL_EVERY_NS).then_some(now_ns.max(1))
                };
                self.told_ns.fetch_update(Relaxed, Relaxed, due).is_ok()
            }
        }
    }

    /// Refuses names that are not ours: a page of a stranger whose name resolves to loopback ("DNS
    /// rebinding") would otherwise be of the same origin as this server. An address cannot be rebound, and
    /// with a token there is nothing that a browser would send to another name on its own.
    fn host<'a>(&self, head: &'a Parts, tokens: bool) -> Result<&'a str, Refusal> {
        let host = one(&head.headers, &HOST).ok_or(Refusal::Host)?;
        // A target with a host of its own (absolute-form) must mean the same.
        let target = head.uri.authority().map_or(host, |authority| authority.as_str());
        if !target.eq_ignore_ascii_case(host) || host.is_empty() {
            return Err(Refusal::Host);
        }
        let any = tokens && self.hosts.is_empty();
        if any || self.is_ours(host) { Ok(host) } else { Err(Refusal::Host) }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = name.to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || literal.unwrap_or(&name).parse::<IpAddr>().is_ok()
            || self.hosts.contains(&name)
    }

    fn token(
        &self,
        tokens: &Tokens,
        headers: &HeaderMap,
        peer: Peer,
        now: Duration,
    ) -> Result<(Access, Option<String>), Refusal> {
        let given = credentials::token(headers);
        let found = given.as_deref().and_then(|given| tokens.find(given));
        let mut failures = self.failures.lock();
        match (found, failures.refused_for(peer, now)) {
            (Some(Found { access, name, short }), refused) if refused.is_none() || !short => {
                Ok((access, Some(name.to_owned())))
            }
            (_, Some(wait)) => Err(Refusal::TooManyFailures(wait)),
            _ if given.is_none() => Err(Refusal::NoToken),
            _ => Err(Refusal::WrongToken { last: failures.count(peer, now) }),
        }
    }
}

/// The value of a field that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let (field, None) = (all.next()?, all.next()) else { return None };
    field.to_str().ok()
}

/// Refuses what a page of another origin has sent, whatever it is: nobody else's page has anything to ask
/// here, and a browser adds a password that it knows without being asked. A link to the page is no danger: who
/// follows it sees what is behind it, and the other page does not.
fn same_origin(head: &Parts, authority: &str) -> Result<(), Refusal> {
    if head.headers.contains_key(ORIGIN) {
        let origin = one(&head.headers, &ORIGIN).unwrap_or_default();
        let of = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        if !of.is_some_and(|of| of.eq_ignore_ascii_case(authority)) {
            return Err(Refusal::Origin);
        }
    }
    if !head.headers.contains_key(SEC_FETCH_SITE) {
        return Ok(());
    }
    let says = |name: &HeaderName, word: &str| one(&head.headers, name) == Some(word);
    let own = says(&SEC_FETCH_SITE, "same-origin") || says(&SEC_FETCH_SITE, "none");
    let link =
        !changes(head) && says(&SEC_FETCH_MODE, "navigate") && says(&SEC_FETCH_DEST, "document");
    if own || link { Ok(()) } else { Err(Refusal::Site) }
}

/// Whatever is no plain question is taken for a change.
fn changes(head: &Parts) -> bool {
    head.method != Method::GET && head.method != Method::HEAD
}

/// Forms cannot send it, and a page of another origin only if it is allowed to first; nobody is.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = one(headers, &CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The layer that lets pass what the rules do not refuse, counts and logs the rest, and numbers all.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) rules: Arc<Rules>,
    pub(super) metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub(super) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<B, S> Service<Request<B>> for Guarded<S>
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
        let (mut head, body) = request.into_parts();
        let Guard { rules, metrics } = &self.guard;
        let id = new_id();
        // Every connection has one.
        let peer = head.extensions.get::<Peer>().copied();
        let peer = peer.unwrap_or(Peer::Address(IpAddr::from([0; 4])));
        let now_ns = clock::now_ns();
        match rules.judge(&head, peer, Duration::from_nanos(now_ns)) {
            Err(refusal) => {
                metrics.admin_refused.with_label_values(&[refusal.label()]).inc();
                if rules.tells(&refusal, now_ns) {
                    audit::refused(&refusal, &head, peer, id);
                }
                Box::pin(ready(Ok(numbered(refusal.reply(), id))))
            }
            Ok(token) => {
                head.extensions.insert(Asked { who: Who { peer, token }, id });
                let answer = self.inner.call(Request::from_parts(head, body));
                Box::pin(async move { answer.await.map(|reply| numbered(reply, id)) })
            }
        }
    }
}

fn new_id() -> RequestId {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    RequestId::new(u64::try_from(now.as_millis()).unwrap_or_default(), &mut fastrand::Rng::new())
}

fn numbered(mut reply: Reply, id: RequestId) -> Reply {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}

#[cfg(test)]
mod tests;
