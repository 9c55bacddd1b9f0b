//! What NocoBase's client takes for maintenance: the answers of its gateway (server/gateway/errors.ts) and
//! the frames of its WebSocket server (server/gateway/ws-server.ts), in a state of our own.

use serde_json::json;

/// The client's overlay shows the progress text of this code, and the command's name as its title.
const CODE: &str = "APP_COMMANDING";
/// NocoBase has no command of this name: the client shows it as it is.
const COMMAND: &str = "Maintenance";

/// The answer to an API request: the client puts its page under the overlay. The request ID is ours.
#[must_use]
pub fn maintaining_body(message: &str, request_id: &str) -> String {
    let error = json!({
        "status": 503,
        "code": CODE,
        "message": message,
        "maintaining": true,
        "command": { "name": COMMAND },
        "request_id": request_id,
    });
    json!({ "error": error }).to_string()
}

/// The frame that keeps the overlay up.
#[must_use]
pub fn maintaining_frame(message: &str) -> String {
    let payload = json!({ "code": CODE, "message": message, "command": { "name": COMMAND } });
    json!({ "type": "maintaining", "payload": payload }).to_string()
}

/// The frame that takes the overlay down and has the page load itself anew.
#[must_use]
pub fn running_frame() -> String {
    let payload =
        json!({ "code": "APP_RUNNING", "message": "Maintenance is over.", "refresh": true });
    json!({ "type": "maintaining", "payload": payload }).to_string()
}

/// Whether a path, without its query, is that of the client's WebSocket: `ws` beside the API path.
#[must_use]
pub fn is_ws_path(path: &[u8], api_path: &str) -> bool {
    let public = api_path.strip_suffix("api/").unwrap_or("/");
    path.strip_prefix(public.as_bytes()) == Some(b"ws")
}

#[cfg(test)]
mod tests {
    use super::super::parse_refusal;
    use super::*;

    #[test]
    fn our_maintenance_reads_as_nocobase_s() {
        let body = maintaining_body("a \"b\" </script>", "id-1");
        let refusal = parse_refusal(503, Some("application/json"), body.as_bytes()).unwrap();
        assert_eq!(refusal.code, "APP_COMMANDING");
        assert_eq!(refusal.message, "a \"b\" </script>");
        assert_eq!(refusal.command.as_deref(), Some("Maintenance"));
        assert!(body.contains("id-1"));
    }

    #[test]
    fn frames_have_the_shape_that_the_client_reads() {
        let frame: serde_json::Value = serde_json::from_str(&maintaining_frame("soon")).unwrap();
        assert_eq!(
            (&frame["type"], &frame["payload"]["message"]),
            (&"maintaining".into(), &"soon".into())
        );
        assert_eq!(frame["payload"]["code"], "APP_COMMANDING");
        let frame: serde_json::Value = serde_json::from_str(&running_frame()).unwrap();
        assert_eq!(
            (&frame["payload"]["code"], &frame["payload"]["refresh"]),
            (&"APP_RUNNING".into(), &true.into())
        );
    }

    #[test]
    fn the_path_follows_the_api_path() {
        for (path, api_path, is) in [
            ("/ws", "/api/", true),
            ("/ws/", "/api/", false),
            ("/x/ws", "/api/", false),
            ("/nb/ws", "/nb/api/", true),
            ("/ws", "/nb/api/", false),
            ("/ws", "/v1/", true),
        ] {
            assert_eq!(is_ws_path(path.as_bytes(), api_path), is, "{path} {api_path}");
        }
    }
}
