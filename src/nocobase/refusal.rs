//! Refusals: answers that NocoBase's gateway gives instead of running a request.
//!
//! `{"error":{…,"maintaining":true}}`, singular, comes from server/gateway/errors.ts before the
//! application is asked: the request was provably not run and may be sent elsewhere, whatever its
//! method. `{"errors":[…]}`, plural, comes from the application: it was run, at least in part.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A longer body is no refusal: the gateway's are a few hundred bytes.
pub const MAX_REFUSAL: usize = 4 * 1024;
/// Characters of a message that are kept; some carry a database's whole complaint.
const MAX_MESSAGE: usize = 256;
/// Characters of a code or a command's name that are kept.
const MAX_CODE: usize = 64;

/// A proven refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// NocoBase's code, as `APP_COMMANDING`; empty if it gave none.
    pub code: String,
    /// Its text for people, at most 256 characters, without control characters.
    pub message: String,
    /// The command that runs, as `start` or `pm.enable`.
    pub command: Option<String>,
    /// What the code says about the app.
    pub kind: RefusalKind,
}

/// What a refusal says about the app that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// It comes up by itself.
    Starting,
    /// A command runs; it comes back when that ends.
    Maintaining,
    /// It is stopped, broken or not there.
    Down,
}

impl RefusalKind {
    /// By the states in server/app-supervisor/types.ts; what is not known, or is an error's own code,
    /// is down.
    fn of(code: &str) -> Self {
        Self::known(code).unwrap_or(Self::Down)
    }

    /// The same for the codes of server/gateway/errors.ts alone.
    pub(super) fn known(code: &str) -> Option<Self> {
        match code {
            "APP_PREPARING" | "APP_INITIALIZING" | "APP_INITIALIZED" | "APP_STARTING" => {
                Some(Self::Starting)
            }
            "APP_COMMANDING" | "COMMAND_ERROR" | "COMMAND_END" => Some(Self::Maintaining),
            "APP_NOT_FOUND" | "APP_ERROR" | "APP_STOPPED" | "APP_ENVIRONMENT_UNAVAILABLE" => {
                Some(Self::Down)
            }
            _ => None,
        }
    }
}

/// The refusal in a whole answer, if it proves one: status 404 or 503 (500 for the gateway's
/// `UNKNOWN_ERROR`), JSON of at most [`MAX_REFUSAL`] bytes, one `error` object whose `maintaining` is
/// true, and no `errors`. Keys that are given twice prove nothing.
#[must_use]
pub fn parse_refusal(status: u16, content_type: Option<&str>, body: &[u8]) -> Option<Refusal> {
    if !matches!(status, 404 | 500 | 503) || body.len() > MAX_REFUSAL || !is_json(content_type?) {
        return None;
    }
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    let error = envelope.error;
    if envelope.errors || !error.maintaining {
        return None;
    }
    let code = clean(&text(&error.code), MAX_CODE);
    let message = message(&error.message);
    // For a state it does not know, the gateway puts the raw state into `code` and leaves only the
    // fixed text of `UNKNOWN_ERROR` to tell by (`getErrorWithCode`).
    if status == 500 && code != "UNKNOWN_ERROR" && message != "unknown error" {
        return None;
    }
    Some(Refusal { kind: RefusalKind::of(&code), code, message, command: command(&error.command) })
}

/// The name of the command that runs.
pub(super) fn command(value: &Value) -> Option<String> {
    value.get("name").and_then(Value::as_str).map(|name| clean(name, MAX_CODE))
}

/// A text for people.
pub(super) fn message(value: &Value) -> String {
    clean(&text(value), MAX_MESSAGE)
}

#[derive(Deserialize)]
struct Envelope {
    error: Inner,
    #[serde(default, deserialize_with = "present")]
    errors: bool,
}

/// Only `maintaining` must have its type; the rest is for people, and odd values must not hide it.
#[derive(Deserialize)]
struct Inner {
    maintaining: bool,
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    command: Value,
}

/// True for a key that is there, whatever it holds.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// The inner code of an error may be a number.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Messages end up on terminals and in logs, so control characters become spaces.
fn clean(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: Option<&str> = Some("application/json");

    fn parse(status: u16, body: &str) -> Option<Refusal> {
        parse_refusal(status, JSON, body.as_bytes())
    }

    #[test]
    fn a_refusal_is_read_whole() {
        let body = r#"{"error":{"status":503,"maintaining":true,"message":"loading\nplugins",
            "command":{"name":"start","components":{}},"code":"APP_COMMANDING"}}"#;
        let refusal = Refusal {
            code: "APP_COMMANDING".into(),
            message: "loading plugins".into(),
            command: Some("start".into()),
            kind: RefusalKind::Maintaining,
        };
        assert_eq!(parse(503, body), Some(refusal));
    }

    #[test]
    fn each_code_says_what_the_app_is() {
        let cases = [
            (404, "APP_NOT_FOUND", RefusalKind::Down),
            (503, "APP_ERROR", RefusalKind::Down),
            (503, "APP_NOT_INSTALLED_ERROR", RefusalKind::Down),
            (503, "APP_STOPPED", RefusalKind::Down),
            (503, "APP_ENVIRONMENT_UNAVAILABLE", RefusalKind::Down),
            (503, "APP_PREPARING", RefusalKind::Starting),
            (503, "APP_INITIALIZING", RefusalKind::Starting),
            (503, "APP_INITIALIZED", RefusalKind::Starting),
            (503, "APP_STARTING", RefusalKind::Starting),
            (503, "APP_COMMANDING", RefusalKind::Maintaining),
            (503, "COMMAND_ERROR", RefusalKind::Maintaining),
            (503, "COMMAND_END", RefusalKind::Maintaining),
            (500, "UNKNOWN_ERROR", RefusalKind::Down),
        ];
        for (status, code, kind) in cases {
            let body = format!(r#"{{"error":{{"maintaining":true,"code":"{code}"}}}}"#);
            assert_eq!(parse(status, &body).map(|r| r.kind), Some(kind), "{code}");
        }
    }

    #[test]
    fn odd_fields_do_not_hide_a_refusal() {
        let bodies = [
            r#"{"error":{"maintaining":true}}"#,
            r#"{"error":{"maintaining":true,"code":28,"message":null,"command":"start"}}"#,
            r#"{"error":{"maintaining":true,"code":["x"],"message":{},"command":{"name":1}},"a":1}"#,
        ];
        for body in bodies {
            assert!(parse(503, body).is_some(), "{body}");
        }
        let raw = r#"{"error":{"maintaining":true,"code":"weird","message":"unknown error"}}"#;
        assert!(parse(500, raw).is_some());
    }

    #[test]
    fn what_proves_nothing() {
        let bodies = [
            "",
            "ok",
            "[]",
            "null",
            r#"{"error":null}"#,
            r#"{"error":[{"maintaining":true}]}"#,
            r#"{"error":{"maintaining":false,"code":"APP_RUNNING"}}"#,
            r#"{"error":{"maintaining":"true"}}"#,
            r#"{"error":{"maintaining":1}}"#,
            r#"{"error":{"code":"APP_STOPPED"}}"#,
            r#"{"errors":[{"message":"x","maintaining":true}]}"#,
            r#"{"error":{"maintaining":true},"errors":[]}"#,
            r#"{"error":{"maintaining":true},"errors":null}"#,
            r#"{"error":{"maintaining":true,"maintaining":true}}"#,
            r#"{"error":{"maintaining":true},"error":{"maintaining":true}}"#,
            r#"{"error":{"maintaining":true}"#,
            r#"{"error":{"maintaining":true}} x"#,
        ];
        for body in bodies {
            assert_eq!(parse(503, body), None, "{body}");
        }
    }

    #[test]
    fn the_envelope_of_a_refusal_must_fit() {
        let body = r#"{"error":{"maintaining":true,"code":"APP_STOPPED"}}"#;
        for status in [200, 301, 400, 403, 500, 502, 504] {
            assert_eq!(parse(status, body), None, "{status}");
        }
        for other in [None, Some("text/html"), Some(""), Some("application/json5")] {
            assert_eq!(parse_refusal(503, other, body.as_bytes()), None, "{other:?}");
        }
        for json in ["application/json; charset=utf-8", "Application/JSON"] {
            assert!(parse_refusal(503, Some(json), body.as_bytes()).is_some(), "{json}");
        }
        let room = MAX_REFUSAL - body.len();
        assert!(parse(503, &format!("{body}{}", " ".repeat(room))).is_some());
        assert!(parse(503, &format!("{body}{}", " ".repeat(room + 1))).is_none());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let body =
            format!(r#"{{"error":{{"maintaining":true,"message":"{}"}}}}"#, "é".repeat(1_000));
        assert_eq!(parse(503, &body).unwrap().message, "é".repeat(MAX_MESSAGE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse_refusal(503, JSON, &body), None);
        }

        #[test]
        fn a_message_is_bounded_and_clean(message in ".{0,400}") {
            let error = serde_json::json!({"error": {"maintaining": true, "message": message}});
            if let Some(refusal) = parse(503, &error.to_string()) {
                prop_assert!(refusal.message.chars().count() <= MAX_MESSAGE);
                prop_assert!(!refusal.message.chars().any(char::is_control));
            }
        }
    }
}
