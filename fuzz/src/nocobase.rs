//! What is read as NocoBase's words: refusals, messages of its WebSocket, and what a request calls.

use cobalance::config::Preset;
use cobalance::nocobase::{
    Dialog, Frame, MAX_FRAME, MAX_REFUSAL, action, app_name, changes_one_node, dialog,
    is_work_on_app, is_ws_path, maintaining_body, maintaining_frame, parse_frame, parse_refusal,
    running_frame, session, traits,
};

const API: [&str; 3] = ["/api/", "/nb/api/", "/v1/"];
const METHODS: [&str; 6] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "get"];
const STATUSES: [u16; 6] = [404, 503, 500, 200, 502, 400];
const KINDS: [Option<&str>; 4] =
    [Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("text/html"), None];

/// The first byte chooses what the rest is, and among what surrounds it. `Err`: what must not be.
pub fn run(bytes: &[u8]) -> Result<(), String> {
    let [mode, rest @ ..] = bytes else { return Ok(()) };
    let choice = usize::from(*mode / 4);
    match mode % 4 {
        0 => refusal(choice, rest),
        1 => frame(&String::from_utf8_lossy(rest)),
        2 => request(choice, &String::from_utf8_lossy(rest)),
        _ => ours(&String::from_utf8_lossy(rest)),
    }
}

fn refusal(choice: usize, body: &[u8]) -> Result<(), String> {
    let status = STATUSES[choice % STATUSES.len()];
    let kind = KINDS[choice / STATUSES.len() % KINDS.len()];
    let Some(found) = parse_refusal(status, kind, body) else { return Ok(()) };
    let has = |word: &[u8]| body.windows(word.len()).any(|at| at == word);
    // A key may be written with escapes, which this plain look does not read.
    let plain = !has(b"\\");
    let facts = [
        (matches!(status, 404 | 500 | 503), "a status that proves nothing"),
        (kind.is_some_and(|kind| kind.to_lowercase().starts_with("application/json")), "no JSON"),
        (body.len() <= MAX_REFUSAL, "too long"),
        (!plain || (has(b"\"maintaining\"") && has(b"true") && has(b"\"error\"")), "no refusal"),
        (is_clean(&found.message, 256) && is_clean(&found.code, 64), "an odd text"),
        (found.command.is_none_or(|command| is_clean(&command, 64)), "an odd command"),
    ];
    judge(&facts, &String::from_utf8_lossy(body))
}

fn frame(text: &str) -> Result<(), String> {
    let found = parse_frame(text);
    let said = match &found {
        Frame::NotServing(refusal) | Frame::Ending(refusal) => {
            is_clean(&refusal.message, 256)
                && refusal.command.as_ref().is_none_or(|command| is_clean(command, 64))
        }
        _ => true,
    };
    let plain = !text.contains('\\');
    let tells = matches!(found, Frame::NotServing(_) | Frame::Ending(_) | Frame::Running);
    let facts = [
        (said, "an odd text"),
        (text.len() <= MAX_FRAME || found == Frame::Garbage, "too long"),
        (!tells || !plain || text.contains("\"maintaining\""), "of no state"),
        (dialog(text) != Dialog::Opens || !plain || text.contains("\"maintaining\""), "a dialog"),
    ];
    judge(&facts, text)
}

fn request(choice: usize, target: &str) -> Result<(), String> {
    let (method, api) = (METHODS[choice % METHODS.len()], API[choice / METHODS.len() % API.len()]);
    let found = action(method, target, api);
    let of = traits(method, target, Preset::NocoBase, api);
    let changes = changes_one_node(method, target, api);
    let none = traits(method, target, Preset::None, api);
    let path = target.split('?').next().unwrap_or_default();
    let app = app_name(None, path, target.split_once('?').map(|(_, query)| query), api);
    let _ = is_ws_path(path.as_bytes(), api);
    let plain = matches!(method, "GET" | "HEAD" | "OPTIONS");
    let inside = path.starts_with(api);
    let facts = [
        (found.is_none() || inside, "an action outside of the API"),
        (changes.is_none() || found.is_some(), "a change without an action"),
        (changes.is_none() || method == "OPTIONS" || !of.safe_to_repeat, "a change that repeats"),
        (!of.safe_to_repeat || found.is_some() || plain, "unknown, and safe to repeat"),
        (none.safe_to_repeat == plain && none.flow.is_none(), "NocoBase without its preset"),
        (app.is_none_or(|app| !app.is_empty() && app != "main"), "an app that is none"),
        (!is_work_on_app(method, target, api) || inside, "work outside of the API"),
    ];
    judge(&facts, target)
}

/// What we say in NocoBase's way is read by our own reading as it is meant.
fn ours(message: &str) -> Result<(), String> {
    let json = Some("application/json");
    let body = maintaining_body(message, "id");
    let fits = body.len() <= MAX_REFUSAL;
    let read = parse_refusal(503, json, body.as_bytes());
    let frame = maintaining_frame(message);
    let running = running_frame();
    let facts = [
        (!fits || read.is_some(), "our maintenance is no refusal"),
        (matches!(parse_frame(&frame), Frame::NotServing(_)), "our frame says nothing"),
        (dialog(&frame) == Dialog::Opens, "our frame opens no dialog"),
        (parse_frame(&running) == Frame::Running, "our end says nothing"),
        (session(message.as_bytes()).is_none() == message.is_empty(), "a session of nothing"),
    ];
    judge(&facts, message)
}

fn is_clean(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.chars().any(char::is_control)
}

fn judge(facts: &[(bool, &str)], of: &str) -> Result<(), String> {
    match facts.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(format!("{what}: {of:?}")),
        None => Ok(()),
    }
}
