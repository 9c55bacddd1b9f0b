//! The dialog that NocoBase's client puts over its whole page while its app does not serve, and that only
//! another frame takes away (client/src/application/Application.tsx, `loadWebSocket`).

use serde_json::{Value, json};

use super::action::{self, Action};

/// How the message begins that opens or closes the dialog, as server/gateway/ws-server.ts writes it: by this
/// it is told from all others without being read.
pub const OPENING: &[u8] = b"{\"type\":\"maintaining\"";

/// What a message does to the dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialog {
    /// Puts it up, or keeps it there with another text.
    Opens,
    /// Takes it away, if it is there.
    Closes,
    /// Neither.
    Untouched,
}

/// What a text message does to the dialog. Any code but `APP_RUNNING` opens it, also one that nobody knows:
/// an app that failed to start gives the code of its error.
#[must_use]
pub fn dialog(text: &str) -> Dialog {
    // As JavaScript reads it: of keys that are given twice the last one counts.
    let Ok(message) = serde_json::from_str::<Value>(text) else { return Dialog::Untouched };
    let of = |name: &str| message.get("payload").and_then(|payload| payload.get(name));
    match message.get("type").and_then(Value::as_str) {
        // The page loads itself anew.
        _ if of("refresh") == Some(&Value::Bool(true)) => Dialog::Closes,
        Some("notification") => Dialog::Untouched,
        Some("maintaining") => match of("code") {
            Some(code) if code == "APP_RUNNING" => Dialog::Closes,
            Some(_) => Dialog::Opens,
            None => Dialog::Untouched,
        },
        _ => Dialog::Closes,
    }
}

/// The message that takes the dialog away and leaves the page as it is. The client signs in over its
/// WebSocket after it, which it does not do under the dialog.
#[must_use]
pub fn closing_frame() -> String {
    let payload = json!({ "code": "APP_RUNNING", "message": "" });
    json!({ "type": "maintaining", "payload": payload }).to_string()
}

/// Whether a request is an administrator's work on the app itself, whose progress the pages of that session
/// should show: plugins, the app's commands, backups. `api_path` has slashes at both ends.
#[must_use]
pub fn is_work_on_app(method: &str, target: &str, api_path: &str) -> bool {
    // Looked at for every request: what is something else is soon told.
    let Some(rest) = target.strip_prefix(api_path) else { return false };
    let may_be = ["pm:", "app:", "backup", "__app/"].iter().any(|begin| rest.starts_with(begin));
    may_be && action::action(method, target, api_path).is_some_and(|action| works_on_app(&action))
}

/// Reading, and asking how far it is, changes nothing.
fn works_on_app(action: &Action<'_>) -> bool {
    let asks = action.reads() || action.action.ends_with("Status") || action.action == "status";
    matches!(action.resource, "pm" | "app" | "backup" | "backups") && !asks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_client_does_with_each_message() {
        let cases = [
            (r#"{"type":"maintaining","payload":{"code":"APP_STOPPED"}}"#, Dialog::Opens),
            (r#"{"type":"maintaining","payload":{"code":"APP_COMMANDING"}}"#, Dialog::Opens),
            (r#"{"type":"maintaining","payload":{"code":"SOME_DATABASE_ERROR"}}"#, Dialog::Opens),
            (r#"{"type":"maintaining","payload":{"code":28}}"#, Dialog::Opens),
            (r#"{"type":"maintaining","payload":{"code":"APP_RUNNING"}}"#, Dialog::Closes),
            (r#"{"type":"authorized"}"#, Dialog::Closes),
            (r#"{"type":"async-tasks:created","payload":{"code":"x"}}"#, Dialog::Closes),
            (
                r#"{"type":"maintaining","payload":{"code":"APP_STOPPED","refresh":true}}"#,
                Dialog::Closes,
            ),
            (r#"{"type":"notification","payload":{"message":"x"}}"#, Dialog::Untouched),
            (r#"{"type":"maintaining"}"#, Dialog::Untouched),
            (r#"{"type":"maintaining","payload":{}}"#, Dialog::Untouched),
            ("ping", Dialog::Untouched),
        ];
        for (text, expected) in cases {
            assert_eq!(dialog(text), expected, "{text}");
        }
    }

    #[test]
    fn ours_closes_it_and_reloads_nothing() {
        let frame = closing_frame();
        assert_eq!(dialog(&frame), Dialog::Closes);
        assert!(!frame.contains("refresh"), "{frame}");
    }

    #[test]
    fn messages_of_nocobase_begin_as_expected() {
        let message = r#"{"type":"maintaining","payload":{"message":"x","code":"APP_STOPPED"}}"#;
        assert!(message.as_bytes().starts_with(OPENING));
    }

    #[test]
    fn only_what_changes_the_app_is_work_on_it() {
        let cases = [
            ("POST", "/api/pm:enable?filterByTk=x", true),
            ("GET", "/api/pm:enable/x", true),
            ("POST", "/api/app:restart", true),
            ("POST", "/api/__app/hr/app:refresh", true),
            ("POST", "/api/backups:create", true),
            ("POST", "/api/backup:restoreUpload", true),
            ("GET", "/api/pm:list", false),
            ("GET", "/api/pm:listEnabled", false),
            ("GET", "/api/app:getInfo", false),
            ("GET", "/api/app:getLang?locale=x", false),
            ("GET", "/api/backups:taskStatus", false),
            ("GET", "/api/backup:status", false),
            ("POST", "/api/users:update/1", false),
            ("POST", "/api/applications:create", false),
            ("POST", "/pm:enable", false),
        ];
        for (method, target, is) in cases {
            assert_eq!(is_work_on_app(method, target, "/api/"), is, "{method} {target}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            prop_assert_ne!(dialog(&text), Dialog::Opens);
        }
    }
}
