//! `POST /api/v1/nodes/NODE/drain`, `…/ready` and `…/pin`, and `POST /api/v1/unpin`.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::reply::{self, Reply};
use super::segment;
use crate::control::Handle;
use crate::control::operator::{Order, OrderError, Verb};
use crate::control::pin::Unpin;
use crate::control::who::Who;
use crate::units;

/// Nobody waits longer for a tunnel to move.
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Which node, and what to do with it, as the path says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    verb: Verb,
    node: String,
}

impl Target {
    /// The target of a path; none if it is of another shape.
    pub(super) fn of(path: &str) -> Option<Target> {
        let (node, verb) = path.strip_prefix("/api/v1/nodes/")?.split_once('/')?;
        let verb = match verb {
            "drain" => Verb::Drain,
            "ready" => Verb::Ready,
            "pin" => Verb::Pin,
            _ => return None,
        };
        let node = segment::decode(node).filter(|node| !node.is_empty())?;
        Some(Target { verb, node })
    }

    /// The verb, as the path has it.
    pub(super) fn verb(&self) -> &'static str {
        match self.verb {
            Verb::Drain => "drain",
            Verb::Ready => "ready",
            Verb::Pin => "pin",
        }
    }

    /// The node.
    pub(super) fn node(&self) -> &str {
        &self.node
    }
}

/// What the body may say; `{}` and nothing at all are the same.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    /// The upstream, where the name is not enough.
    upstream: Option<String>,
    /// Over how long tunnels are moved, as `"60s"`.
    window: Option<String>,
    /// Also the last node that serves is drained, and one that is not up is pinned.
    force: bool,
}

/// What the body of `unpin` may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UnpinBody {
    /// Only this upstream.
    upstream: Option<String>,
}

/// Does what is asked. 404 for a node that is not known, 409 where it must not be done.
pub(super) async fn answer(handle: &Handle, target: &Target, body: &[u8], who: &Who) -> Reply {
    let order = match order(target, body, who) {
        Ok(order) => order,
        Err(message) => return reply::error(StatusCode::BAD_REQUEST, &message),
    };
    match handle.order(order).await {
        Some(Ok(ordered)) => reply::json(StatusCode::OK, &ordered),
        Some(Err(error)) => reply::error(status(&error), &error.to_string()),
        None => super::routes::ended(),
    }
}

/// Has all nodes serve again. 404 for an upstream that is not known.
pub(super) async fn unpin(handle: &Handle, body: &[u8], who: &Who) -> Reply {
    let UnpinBody { upstream } = match read(body) {
        Ok(body) => body,
        Err(message) => return reply::error(StatusCode::BAD_REQUEST, &message),
    };
    match handle.unpin(Unpin { upstream, from: who.clone() }).await {
        Some(Ok(unpinned)) => reply::json(StatusCode::OK, &unpinned),
        Some(Err(error)) => reply::error(status(&error), &error.to_string()),
        None => super::routes::ended(),
    }
}

fn order(target: &Target, body: &[u8], who: &Who) -> Result<Order, String> {
    let body: Body = read(body)?;
    let window = body.window.as_deref().map(window).transpose()?;
    let Target { verb, node } = target;
    Ok(Order {
        verb: *verb,
        node: node.clone(),
        upstream: body.upstream,
        window,
        force: body.force,
        from: who.clone(),
    })
}

fn read<T: Default + DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    match body.trim_ascii() {
        [] => Ok(T::default()),
        text => serde_json::from_slice(text).map_err(|error| format!("the body: {error}")),
    }
}

fn window(text: &str) -> Result<Duration, String> {
    let window = units::parse_duration(text).map_err(|error| format!("`window`: {error}"))?;
    if window > LONGEST_WINDOW {
        return Err("`window`: at most 24h".into());
    }
    Ok(window)
}

/// The status that tells of a refusal.
pub(super) fn status(error: &OrderError) -> StatusCode {
    match error {
        OrderError::Unknown(_) => StatusCode::NOT_FOUND,
        OrderError::Ambiguous(_)
        | OrderError::Last { .. }
        | OrderError::Refused(_)
        | OrderError::TooMany
        | OrderError::Upgrading
        | OrderError::NotHere => StatusCode::CONFLICT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_node_and_a_verb() {
        let target = |path| Target::of(path).map(|target| (target.node, target.verb));
        let cases = [
            ("/api/v1/nodes/n1/drain", Some(("n1", Verb::Drain))),
            ("/api/v1/nodes/%5B::1%5D:80/ready", Some(("[::1]:80", Verb::Ready))),
            ("/api/v1/nodes/a%2Fb/drain", Some(("a/b", Verb::Drain))),
            ("/api/v1/nodes/n1/pin", Some(("n1", Verb::Pin))),
            ("/api/v1/nodes/n1", None),
            ("/api/v1/nodes//drain", None),
            ("/api/v1/nodes/n1/stop", None),
            ("/api/v1/nodes/n1/drain/x", None),
            ("/api/v1/nodes/%zz/drain", None),
        ];
        for (path, expected) in cases {
            let expected = expected.map(|(node, verb)| (node.to_owned(), verb));
            assert_eq!(target(path), expected, "{path}");
        }
    }

    #[test]
    fn bodies_are_read_and_what_they_cannot_mean_is_told() {
        let read = |body: &str| {
            let target = Target { verb: Verb::Drain, node: "n".into() };
            order(&target, body.as_bytes(), &[127, 0, 0, 1].into())
        };
        for nothing in ["", "{}", " { } "] {
            let order = read(nothing).unwrap();
            assert_eq!((order.window, order.upstream, order.force), (None, None, false));
        }
        let order = read(r#"{"window":"1.5s","upstream":"u","force":true}"#).unwrap();
        assert_eq!(order.window, Some(Duration::from_millis(1500)));
        assert_eq!((order.upstream.as_deref(), order.force), (Some("u"), true));
        for (body, part) in [
            ("1", "the body"),
            ("{\"windw\":\"1s\"}", "windw"),
            ("{\"window\":\"5\"}", "the unit is missing"),
            ("{\"window\":\"25h\"}", "at most 24h"),
            ("{\"force\":1}", "the body"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
