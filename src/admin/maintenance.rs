//! `POST /api/v1/maintenance`.

use http::StatusCode;
use serde::Deserialize;

use super::orders;
use super::reply::{self, Reply};
use crate::control::Handle;
use crate::control::maintenance::{Change, MOST_ALLOWED, MOST_MESSAGE, Wanted, network};
use crate::control::who::Who;

/// What the body says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// Whether it is to be on.
    on: bool,
    /// Only this upstream.
    #[serde(default)]
    upstream: Option<String>,
    /// Addresses and networks of clients that reach the nodes.
    #[serde(default)]
    allow: Vec<String>,
    /// Whether browsers are let through that open a link.
    #[serde(default)]
    cookie: bool,
    /// The only node that these reach.
    #[serde(default)]
    node: Option<String>,
    /// What everybody else is told.
    #[serde(default)]
    message: Option<String>,
}

/// Does what is asked. 400 for what cannot be meant, 404 for an upstream or a node that is not known, 409
/// for a node that is set aside for a pinned one.
pub(super) async fn answer(handle: &Handle, body: &[u8], who: &Who) -> Reply {
    let change = match change(body, who) {
        Ok(change) => change,
        Err(message) => return reply::error(StatusCode::BAD_REQUEST, &message),
    };
    match handle.maintain(change).await {
        Some(Ok(changed)) => reply::json(StatusCode::OK, &changed),
        Some(Err(error)) => reply::error(orders::status(&error), &error.to_string()),
        None => super::routes::ended(),
    }
}

fn change(body: &[u8], who: &Who) -> Result<Change, String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))?;
    let lets = !body.allow.is_empty() || body.cookie;
    if !body.on && (lets || body.node.is_some() || body.message.is_some()) {
        return Err("`allow`, `cookie`, `node` and `message` are for `\"on\": true`".into());
    }
    if body.allow.len() > MOST_ALLOWED {
        return Err(format!("`allow`: at most {MOST_ALLOWED}; name networks"));
    }
    if body.message.as_ref().is_some_and(|message| message.chars().count() > MOST_MESSAGE) {
        return Err(format!("`message`: at most {MOST_MESSAGE} characters"));
    }
    if body.node.is_some() && !lets {
        let who = "name them in `allow`, or say `\"cookie\": true`";
        return Err(format!("`node` is for clients that are let through: {who}"));
    }
    let read = |text: &String| {
        let wrong = || format!("`allow`: `{text}` is no address and no network");
        network(text).ok_or_else(wrong)
    };
    let allow = body.allow.iter().map(read).collect::<Result<_, _>>()?;
    let wanted = Wanted { allow, cookie: body.cookie, node: body.node, message: body.message };
    Ok(Change { upstream: body.upstream, on: body.on.then_some(wanted), from: who.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_and_what_they_cannot_mean_is_told() {
        let read = |body: &str| change(body.as_bytes(), &[127, 0, 0, 1].into());
        assert_eq!(read(r#"{"on":false}"#).unwrap().on, None);
        assert_eq!(read(r#"{"on":true}"#).unwrap().on, Some(Wanted::default()));
        let all =
            r#"{"on":true,"upstream":"u","allow":["10.0.0.0/8","::1"],"node":"n","message":"m"}"#;
        let change = read(all).unwrap();
        assert_eq!(change.upstream.as_deref(), Some("u"));
        let wanted = change.on.unwrap();
        assert_eq!((wanted.allow.len(), wanted.node.as_deref()), (2, Some("n")));
        assert!(!wanted.cookie);
        let by_cookie = read(r#"{"on":true,"cookie":true,"node":"n"}"#).unwrap().on.unwrap();
        assert!(by_cookie.cookie && by_cookie.allow.is_empty());
        assert_eq!(wanted.message.as_deref(), Some("m"));
        let many = format!(r#"{{"on":true,"allow":[{}"::1"]}}"#, "\"::1\",".repeat(MOST_ALLOWED));
        let long = format!(r#"{{"on":true,"message":"{}"}}"#, "ü".repeat(MOST_MESSAGE + 1));
        for (body, part) in [
            ("", "the body"),
            ("{}", "missing field `on`"),
            (r#"{"on":true,"alow":[]}"#, "alow"),
            (r#"{"on":true,"allow":["x"]}"#, "`x` is no address"),
            (r#"{"on":true,"node":"n"}"#, "name them in `allow`"),
            (r#"{"on":false,"message":"m"}"#, "are for `\"on\": true`"),
            (&many, "at most 64"),
            (&long, "at most 1000"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
