//! Which path answers what.

use std::convert::Infallible;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::guard::Asked;
use super::orders::{self, Target};
use super::reply::{self, Reply};
use super::{audit, maintenance, page, scrape, upgrade};
use crate::control::Handle;
use crate::control::rollback::RollbackError;
use crate::control::status::ReloadResult;
use crate::control::who::Who;

/// Bodies of changes are small.
const MAX_BODY: usize = 64 * 1024;

/// Which server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// Everything.
    Admin,
    /// What an orchestrator and a scraper need, and nothing that changes or tells addresses.
    Probes,
}

impl Surface {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Surface::Admin => "admin",
            Surface::Probes => "probes",
        }
    }
}

/// What a path means.
pub(super) enum Route {
    Livez,
    Readyz,
    Metrics,
    Status,
    Reload,
    Rollback,
    Maintenance,
    Upgrade,
    Unpin,
    Order(Target),
    Page,
}

impl Route {
    fn of(path: &str, surface: Surface) -> Option<Route> {
        let admin = surface == Surface::Admin;
        match path {
            "/livez" => Some(Route::Livez),
            "/readyz" => Some(Route::Readyz),
            "/metrics" => Some(Route::Metrics),
            "/api/v1/status" if admin => Some(Route::Status),
            "/api/v1/reload" if admin => Some(Route::Reload),
            "/api/v1/rollback" if admin => Some(Route::Rollback),
            "/api/v1/maintenance" if admin => Some(Route::Maintenance),
            upgrade::PATH if admin => Some(Route::Upgrade),
            "/api/v1/unpin" if admin => Some(Route::Unpin),
            "/" if admin => Some(Route::Page),
            _ if admin => Target::of(path).map(Route::Order),
            _ => None,
        }
    }

    /// All verbs, as labels.
    pub(super) const VERBS: [&'static str; 8] =
        ["reload", "rollback", "maintenance", "upgrade", "unpin", "drain", "ready", "pin"];

    /// What it changes; none if it only shows.
    fn verb(&self) -> Option<&'static str> {
        match self {
            Route::Livez | Route::Readyz | Route::Metrics | Route::Status | Route::Page => None,
            Route::Reload => Some("reload"),
            Route::Rollback => Some("rollback"),
            Route::Maintenance => Some("maintenance"),
            Route::Upgrade => Some("upgrade"),
            Route::Unpin => Some("unpin"),
            Route::Order(target) => Some(target.verb()),
        }
    }

    /// The node that it is about, as the path names it.
    pub(super) fn node(&self) -> Option<&str> {
        match self {
            Route::Order(target) => Some(target.node()),
            _ => None,
        }
    }

    fn changes(&self) -> bool {
        self.verb().is_some()
    }

    fn allows(&self, method: &Method) -> bool {
        match self {
            _ if self.changes() => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }

    fn allowed(&self) -> &'static str {
        match self {
            _ if self.changes() => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Answers one request.
pub(super) async fn serve(
    handle: Handle,
    surface: Surface,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let Some(route) = Route::of(request.uri().path(), surface) else {
        return Ok(reply::error(StatusCode::NOT_FOUND, "nothing is here"));
    };
    if !route.allows(request.method()) {
        let mut refusal = reply::error(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allowed()));
        return Ok(refusal);
    }
    let asked = request.extensions().get::<Asked>().cloned();
    // Read whole, so that the connection can be used again.
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        let reply = reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
        if let (Some(asked), Some(verb)) = (asked, route.verb()) {
            tell(&handle, (&route, verb), &[], &asked, &reply);
        }
        return Ok(reply);
    };
    let body = body.to_bytes();
    match (asked, route.verb()) {
        (Some(asked), Some(verb)) => Ok(change(handle, route, verb, body, asked).await),
        _ => Ok(show(&route, &handle).await),
    }
}

/// Does what is asked, and keeps a line of it, in a task of its own: whoever asks and leaves at once has asked
/// all the same.
async fn change(
    handle: Handle,
    route: Route,
    verb: &'static str,
    body: Bytes,
    asked: Asked,
) -> Reply {
    let changing = tokio::spawn(async move {
        let reply = answer(&route, &handle, &body, &asked.who).await;
        tell(&handle, (&route, verb), &body, &asked, &reply);
        reply
    });
    let failed = |error: tokio::task::JoinError| {
        reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
    };
    changing.await.unwrap_or_else(failed)
}

fn tell(
    handle: &Handle,
    change: (&Route, &'static str),
    body: &[u8],
    asked: &Asked,
    reply: &Reply,
) {
    audit::told(handle.metrics(), change, body, asked, (reply.status(), reply.extensions().get()));
}

async fn answer(route: &Route, handle: &Handle, body: &[u8], who: &Who) -> Reply {
    match route {
        Route::Order(target) => orders::answer(handle, target, body, who).await,
        Route::Maintenance => maintenance::answer(handle, body, who).await,
        Route::Unpin => orders::unpin(handle, body, who).await,
        Route::Reload => reload(handle).await,
        Route::Upgrade => upgrade::answer(handle).await,
        Route::Rollback => roll_back(handle, who).await,
        _ => show(route, handle).await,
    }
}

/// What changes nothing. Who that is need not be known.
async fn show(route: &Route, handle: &Handle) -> Reply {
    match route {
        // The loop that answers this is the one that probes and reloads.
        Route::Livez => reply::text(StatusCode::OK, "ok"),
        Route::Readyz => readyz(handle),
        Route::Metrics => metrics(handle),
        Route::Status => status(handle).await,
        Route::Page => page::render(handle).await,
        // Only the admin listener has these, and there everybody is known.
        _ => reply::error(StatusCode::FORBIDDEN, "nobody may change anything here"),
    }
}

fn readyz(handle: &Handle) -> Reply {
    let (status, mut body) = match handle.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    for upstream in &handle.snapshot().upstreams {
        let eligible =
            upstream.nodes.iter().filter(|member| member.node.shown().is_eligible()).count();
        // Writing to a String cannot fail.
        let (name, all) = (&upstream.settings.name, upstream.nodes.len());
        let _ = writeln!(body, "{name}: {eligible} of {all} nodes up");
    }
    reply::text(status, body)
}

fn metrics(handle: &Handle) -> Reply {
    match scrape::render(handle) {
        Ok(text) => reply::with_type(StatusCode::OK, scrape::CONTENT_TYPE, text),
        Err(error) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn status(handle: &Handle) -> Reply {
    match handle.status().await {
        Some(status) => reply::json(StatusCode::OK, &status),
        None => ended(),
    }
}

/// 200 with what came of it; 422 when the file is not used, with the reason in the same shape.
async fn reload(handle: &Handle) -> Reply {
    match handle.reload().await {
        Some(outcome) if outcome.result == ReloadResult::Invalid => {
            reply::json(StatusCode::UNPROCESSABLE_ENTITY, &outcome)
        }
        Some(outcome) => reply::json(StatusCode::OK, &outcome),
        None => ended(),
    }
}

/// 200 with what came of it; 409 when there is nothing to go back to, or it cannot be put in use.
async fn roll_back(handle: &Handle, who: &Who) -> Reply {
    match handle.roll_back(who.clone()).await {
        Some(Ok(rolled_back)) => reply::json(StatusCode::OK, &rolled_back),
        Some(Err(RollbackError::Ending)) | None => ended(),
        Some(Err(error)) => reply::error(StatusCode::CONFLICT, &error.to_string()),
    }
}

pub(super) fn ended() -> Reply {
    reply::error(StatusCode::SERVICE_UNAVAILABLE, "the process is ending")
}
