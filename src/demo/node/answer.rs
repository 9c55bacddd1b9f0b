//! What a stand-in answers: NocoBase's dispatch order, and its two grammars of errors.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::response::Builder;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::http1::websocket;

use super::{Journal, Phase};

/// Of a request's body; NocoBase takes 10 MiB of JSON.
const MAX_BODY: usize = 10 * 1024 * 1024;
/// The longest that `/api/slow:list?ms=` waits.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Which node answers, and where it writes down what it ran.
pub(super) struct Site {
    pub(super) name: String,
    pub(super) journal: Journal,
    /// Created here so far, for their IDs.
    pub(super) posts: AtomicU64,
}

/// Answers one request.
///
/// # Errors
/// For an upgrade that nobody serves: NocoBase destroys such a connection without a word.
pub(super) async fn answer(
    site: &Site,
    phase: &Phase,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if request.headers().contains_key(UPGRADE) {
        return match path == "/ws" {
            true => upgrade(site, request.headers()),
            false => Err(io::Error::other("nobody listens for this upgrade")),
        };
    }
    if path.ends_with("/__umi/api/bundle-status") {
        return reply(site, StatusCode::OK, "", "ok");
    }
    if !path.starts_with("/api/") {
        return page(site);
    }
    if let Some(app) = other_app(request.uri(), request.headers()) {
        return error(site, 404, &refusal("APP_NOT_FOUND", &format!("app {app} not found"), None));
    }
    if let Some((status, body)) = refused(phase) {
        return error(site, status, &body);
    }
    if path.ends_with("/__health_check") {
        // The only answer without a content type and a request ID.
        let answer = builder(site, StatusCode::OK).body("ok".into());
        return answer.map_err(io::Error::other);
    }
    action(site, request).await
}

/// What the API does when the app runs.
async fn action(site: &Site, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let uri = request.uri().clone();
    let action = uri.path().trim_start_matches("/api/");
    match action {
        "app:getInfo" => api(
            site,
            200,
            &json!({"data": {
                "database": {"dialect": "postgres"}, "version": "2.2.15", "lang": "en-US",
                "name": "main", "theme": "default", "node": site.name,
            }}),
        ),
        "posts:create" => {
            let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| io::Error::other(error.to_string()))?.to_bytes();
            create(site, &body)
        }
        "posts:list" => api(site, 200, &json!({"data": [], "meta": {"count": 0}})),
        "slow:list" => {
            tokio::time::sleep(wait(&uri)).await;
            api(site, 200, &json!({"data": [], "node": site.name}))
        }
        "fail" => api(
            site,
            500,
            &json!({"errors": [
                {"message": "the stand-in was asked to fail", "code": "DEMO_FAILED"},
            ]}),
        ),
        _ => reply(site, StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "Not Found"),
    }
}

fn create(site: &Site, body: &[u8]) -> io::Result<Response<Full<Bytes>>> {
    let Ok(mut post) = serde_json::from_slice::<Value>(body) else {
        return api(site, 400, &json!({"errors": [{"message": "the body is not JSON"}]}));
    };
    if let Some(title) = post["title"].as_str() {
        *site.journal.lock().entry(title.to_owned()).or_default() += 1;
    }
    let id = site.posts.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(post) = post.as_object_mut() {
        post.insert("id".into(), id.into());
        post.insert("node".into(), site.name.clone().into());
    }
    api(site, 200, &json!({"data": post}))
}

/// The app that a request names, if it is not `main`: the stand-in has no other.
pub(super) fn other_app<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let header = headers.get("x-app").and_then(|value| value.to_str().ok());
    header.or_else(|| query(uri, "__appName")).filter(|app| *app != "main")
}

fn query<'a>(uri: &'a Uri, key: &str) -> Option<&'a str> {
    let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, value)| value)
}

fn wait(uri: &Uri) -> Duration {
    let ms = query(uri, "ms").and_then(|ms| ms.parse().ok()).unwrap_or_default();
    Duration::from_millis(ms).min(MAX_WAIT)
}

/// Code, status and text of a phase in which the app does not run.
fn refused(phase: &Phase) -> Option<(u16, Value)> {
    match phase {
        Phase::Running | Phase::Ending { .. } => None,
        Phase::Commanding { command, message } => {
            Some((503, refusal("APP_COMMANDING", message, Some(command))))
        }
        Phase::Stopped => Some((503, refusal("APP_STOPPED", "app main is stopped", None))),
        Phase::Off | Phase::Destroyed => {
            Some((404, refusal("APP_NOT_FOUND", "app main not found", None)))
        }
    }
}

/// The singular grammar: the gateway has not run the request.
fn refusal(code: &str, message: &str, command: Option<&str>) -> Value {
    let mut error = json!({"code": code, "message": message, "maintaining": true});
    if let Some(name) = command {
        error["command"] = json!({"name": name});
    }
    error
}

fn error(site: &Site, status: u16, error: &Value) -> io::Result<Response<Full<Bytes>>> {
    let mut error = error.clone();
    error["status"] = status.into();
    api(site, status, &json!({"error": error}))
}

/// The frame that tells a change of phase over `/ws`; none once nobody could send it.
pub(super) fn maintaining(phase: &Phase) -> Option<String> {
    let payload = match phase {
        Phase::Off | Phase::Destroyed => return None,
        Phase::Running => json!({"code": "APP_RUNNING", "message": "application main is running"}),
        Phase::Ending { message } => json!({"code": "APP_RUNNING", "message": message}),
        phase => {
            let mut payload = refused(phase)?.1;
            payload.as_object_mut()?.remove("maintaining");
            payload
        }
    };
    // The type comes first, as NocoBase's server writes it.
    Some(format!(r#"{{"type":"maintaining","payload":{payload}}}"#))
}

fn upgrade(site: &Site, headers: &HeaderMap) -> io::Result<Response<Full<Bytes>>> {
    let Some(key) = headers.get("sec-websocket-key") else {
        return reply(site, StatusCode::BAD_REQUEST, "text/plain", "no Sec-WebSocket-Key");
    };
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header("sec-websocket-accept", websocket::accept(key.as_bytes()))
        .header("x-served-by", &site.name);
    answer.body(Full::default()).map_err(io::Error::other)
}

fn api(site: &Site, status: u16, body: &Value) -> io::Result<Response<Full<Bytes>>> {
    let status = StatusCode::from_u16(status).map_err(io::Error::other)?;
    reply(site, status, "application/json; charset=utf-8", &body.to_string())
}

fn page(site: &Site) -> io::Result<Response<Full<Bytes>>> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"1\"><title>{name}</title>\
         <body style=\"font-family: sans-serif; margin: 4rem\"><h1>Served by {name}</h1>\
         <p>A stand-in for a NocoBase node, behind cobalance. The page loads itself anew each second: \
         see which node serves it while the demo restarts them.</p></body></html>",
        name = site.name
    );
    reply(site, StatusCode::OK, "text/html; charset=utf-8", &html)
}

fn reply(
    site: &Site,
    status: StatusCode,
    kind: &str,
    body: &str,
) -> io::Result<Response<Full<Bytes>>> {
    let mut answer = builder(site, status).header("x-request-id", request_id());
    if !kind.is_empty() {
        answer = answer.header(CONTENT_TYPE, kind);
    }
    answer.body(Full::from(body.to_owned())).map_err(io::Error::other)
}

fn builder(site: &Site, status: StatusCode) -> Builder {
    Response::builder()
        .status(status)
        .header("x-served-by", &site.name)
        .header(CONNECTION, "keep-alive")
        .header("keep-alive", "timeout=5")
}

/// As NocoBase's: a random UUID.
fn request_id() -> String {
    let id = fastrand::u128(..) & !(0xf << 76) | (4 << 76);
    let id = format!("{:032x}", id & !(3 << 62) | (2 << 62));
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}
