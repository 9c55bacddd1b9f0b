//! What cobalance knows of NocoBase: its health URL, its error grammar, its actions and its apps.
//!
//! Read from NocoBase 2.2; each part names the file of NocoBase that it follows. Nothing here knows a
//! socket, and nothing outside of here knows NocoBase.

use serde::Serialize;

use crate::config::defaults::HEALTH_ENDPOINT;

mod action;
mod app;
mod dialog;
mod flow;
mod frame;
mod guard;
mod maintenance;
mod naming;
mod refusal;
mod session;

pub use action::{Action, Traits, action, traits};
pub use app::{MAIN, app_name};
pub use dialog::{Dialog, OPENING, closing_frame, dialog, is_work_on_app};
pub use flow::Flow;
pub use frame::{Frame, MAX_FRAME, parse_frame};
pub use guard::changes_one_node;
pub use maintenance::{is_ws_path, maintaining_body, maintaining_frame, running_frame};
pub use naming::Naming;
pub use refusal::{MAX_REFUSAL, Refusal, RefusalKind, parse_refusal};
pub use session::{bearer, query_token, session, token_cookie};

/// The path of the health check; a query would break it (`req.url.endsWith('/__health_check')` in
/// server/gateway/index.ts). `api_path` has slashes at both ends.
#[must_use]
pub fn health_path(api_path: &str) -> String {
    format!("{api_path}{HEALTH_ENDPOINT}")
}

/// The path of the WebSocket, beside the API (`WS_PATH` in packages/core/cli-v1/src/util.js). `api_path` has
/// slashes at both ends.
#[must_use]
pub fn ws_path(api_path: &str) -> String {
    format!("{}ws", api_path.strip_suffix("api/").unwrap_or("/"))
}

/// An answer of our own in the shape of NocoBase's gateway (server/gateway/errors.ts), which its client
/// shows to the user. `maintaining` puts the whole page under the maintenance overlay, so it is for
/// maintenance alone. The request ID is ours, for the operator's search.
#[must_use]
pub fn error_body(
    status: u16,
    code: &str,
    message: &str,
    maintaining: bool,
    request_id: &str,
) -> String {
    let error = OwnError { status, code, message, maintaining, request_id };
    // Strings, a number and a bool cannot fail to be written as JSON.
    serde_json::to_string(&Envelope { error }).unwrap_or_default()
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: OwnError<'a>,
}

#[derive(Serialize)]
struct OwnError<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    maintaining: bool,
    request_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_path_follows_the_api_path() {
        assert_eq!(health_path("/api/"), "/api/__health_check");
        assert_eq!(health_path("/nb/api/"), "/nb/api/__health_check");
    }

    #[test]
    fn the_websocket_is_beside_the_api() {
        let cases = [("/api/", "/ws"), ("/nb/api/", "/nb/ws"), ("/v1/", "/ws")];
        for (api_path, expected) in cases {
            assert_eq!(ws_path(api_path), expected);
        }
    }

    #[test]
    fn an_error_is_escaped_and_complete() {
        let body = error_body(503, "A\"B", "line\nbreak \u{1}</script>", false, "id-1");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        let expected = serde_json::json!({"error": {
            "status": 503,
            "code": "A\"B",
            "message": "line\nbreak \u{1}</script>",
            "maintaining": false,
            "request_id": "id-1",
        }});
        assert_eq!(value, expected);
    }

    #[test]
    fn only_maintenance_of_our_own_reads_as_a_refusal() {
        let json = Some("application/json");
        let ours = |maintaining| error_body(503, "APP_COMMANDING", "m", maintaining, "id");
        assert!(parse_refusal(503, json, ours(true).as_bytes()).is_some());
        assert!(parse_refusal(503, json, ours(false).as_bytes()).is_none());
    }
}
