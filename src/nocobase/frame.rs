//! Frames of `/ws`: what a node says of its app without being asked.
//!
//! `{"type":"maintaining","payload":{"code","message","command"}}` goes to all sockets of an app on that node,
//! whenever its state or its progress text changes (server/gateway/ws-server.ts). Nothing is said on connect,
//! and nothing tells which app is meant: a socket belongs to the app that its handshake named.

use serde::Deserialize;
use serde_json::Value;

use super::Refusal;
use super::refusal::{self, RefusalKind};

/// The longest message that is read, in bytes: a state is told in a few hundred.
pub const MAX_FRAME: usize = 64 * 1024;

/// How the progress text of an app begins that is about to end, though its code is still `APP_RUNNING`:
/// `destroy()` and `stop()` in server/application.ts.
const ENDING: [&str; 2] = ["destroying app", "stopping app"];

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The app runs.
    Running,
    /// The app runs, and is about to close its database; its health check will not tell until that is done.
    Ending(Refusal),
    /// The app does not serve.
    NotServing(Refusal),
    /// Nothing of the app's state: another type, or a code that is not known.
    Other,
    /// Not a message of NocoBase.
    Garbage,
}

impl Frame {
    /// The word for it in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ending(_) => "ending",
            Self::NotServing(_) => "not_serving",
            Self::Other => "other",
            Self::Garbage => "garbage",
        }
    }
}

/// What a text message says; one over [`MAX_FRAME`] bytes says nothing.
#[must_use]
pub fn parse_frame(text: &str) -> Frame {
    if text.len() > MAX_FRAME {
        return Frame::Garbage;
    }
    match serde_json::from_str::<Envelope>(text) {
        Ok(envelope) if envelope.kind == "maintaining" => of_state(&envelope.payload),
        Ok(_) => Frame::Other,
        Err(_) => Frame::Garbage,
    }
}

fn of_state(payload: &Value) -> Frame {
    let Some(code) = payload.get("code").and_then(Value::as_str) else { return Frame::Garbage };
    let message = payload.get("message").map(refusal::message).unwrap_or_default();
    let command = payload.get("command").and_then(refusal::command);
    let refusal = |kind| Refusal { code: code.to_owned(), message: message.clone(), command, kind };
    if code == "APP_RUNNING" {
        return match ENDING.iter().any(|text| message.starts_with(text)) {
            true => Frame::Ending(refusal(RefusalKind::Maintaining)),
            false => Frame::Running,
        };
    }
    RefusalKind::known(code).map_or(Frame::Other, |kind| Frame::NotServing(refusal(kind)))
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    payload: Value,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(code: &str, message: &str) -> Frame {
        let payload = serde_json::json!({"code": code, "message": message});
        parse_frame(&serde_json::json!({"type": "maintaining", "payload": payload}).to_string())
    }

    #[test]
    fn a_running_app_may_be_about_to_end() {
        assert_eq!(told("APP_RUNNING", "application main is running"), Frame::Running);
        assert_eq!(told("APP_RUNNING", ""), Frame::Running);
        assert_eq!(told("APP_RUNNING", "load plugin [destroying app], 1/9"), Frame::Running);
        for text in ["destroying app...", "stopping app..."] {
            let Frame::Ending(refusal) = told("APP_RUNNING", text) else { panic!("{text}") };
            assert_eq!((refusal.kind, refusal.message.as_str()), (RefusalKind::Maintaining, text));
        }
    }

    #[test]
    fn each_state_is_read_by_its_code() {
        let cases = [
            ("APP_COMMANDING", RefusalKind::Maintaining),
            ("APP_INITIALIZING", RefusalKind::Starting),
            ("APP_STOPPED", RefusalKind::Down),
            ("APP_ERROR", RefusalKind::Down),
            ("APP_NOT_FOUND", RefusalKind::Down),
        ];
        for (code, kind) in cases {
            let Frame::NotServing(refusal) = told(code, "stopping app...") else {
                panic!("{code}")
            };
            assert_eq!((refusal.kind, refusal.code.as_str()), (kind, code));
        }
        let text = r#"{"type":"maintaining","payload":{"code":"APP_COMMANDING","message":"load\nplugin",
            "command":{"name":"pm.enable"}}}"#;
        let Frame::NotServing(refusal) = parse_frame(text) else { panic!("{text}") };
        assert_eq!(refusal.command.as_deref(), Some("pm.enable"));
        assert_eq!(refusal.message, "load plugin");
    }

    #[test]
    fn what_says_nothing_of_the_state() {
        let others = [
            r#"{"type":"notification","payload":{"code":"APP_STOPPED","type":"error"}}"#,
            r#"{"type":"authorized"}"#,
            r#"{"type":"maintaining","payload":{"code":"APP_ELSEWHERE"}}"#,
        ];
        for text in others {
            assert_eq!(parse_frame(text), Frame::Other, "{text}");
        }
        let garbage = [
            "",
            "ping",
            "[]",
            "null",
            r#"{"payload":{"code":"APP_STOPPED"}}"#,
            r#"{"type":"maintaining"}"#,
            r#"{"type":"maintaining","payload":"APP_STOPPED"}"#,
            r#"{"type":"maintaining","payload":{"code":["APP_STOPPED"]}}"#,
            r#"{"type":"maintaining","payload":{"code":"APP_STOPPED"}"#,
            r#"{"type":"maintaining","type":"maintaining","payload":{"code":"APP_STOPPED"}}"#,
        ];
        for text in garbage {
            assert_eq!(parse_frame(text), Frame::Garbage, "{text}");
        }
        let long = |length: usize| {
            let text = told_text(length);
            assert!(text.len() >= length);
            parse_frame(&text)
        };
        assert!(matches!(long(MAX_FRAME / 2), Frame::NotServing(_)));
        assert_eq!(long(MAX_FRAME + 1), Frame::Garbage);
    }

    fn told_text(length: usize) -> String {
        let message = "x".repeat(length);
        format!(
            r#"{{"type":"maintaining","payload":{{"code":"APP_STOPPED","message":"{message}"}}}}"#
        )
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_changes_nothing(text in ".{0,200}") {
            prop_assert!(matches!(parse_frame(&text), Frame::Garbage | Frame::Other));
        }

        #[test]
        fn a_message_is_bounded_and_clean(message in ".{0,400}") {
            if let Frame::NotServing(refusal) = told("APP_ERROR", &message) {
                prop_assert!(refusal.message.chars().count() <= 256);
                prop_assert!(!refusal.message.chars().any(char::is_control));
            }
        }
    }
}
