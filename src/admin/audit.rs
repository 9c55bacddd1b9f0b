//! Who changed what: one line of the log for each change that was asked for, done or not, and one for each
//! request that did not get so far. Target `audit`, which the log keeps whatever else it leaves out.

use http::StatusCode;
use http::request::Parts;

use super::guard::{Asked, Refusal};
use super::reply::Said;
use super::routes::Route;
use crate::control::who::Peer;
use crate::exchange::thread::RequestId;
use crate::telemetry::metrics::Metrics;

/// Longer bodies are cut there: the longest message of maintenance fits.
const MOST_ARGUMENTS: usize = 2048;
/// The label of connections that were closed because one address had too many.
pub(super) const CROWD: &str = "connections";
/// How a change ended, as labels.
const RESULTS: [&str; 3] = ["done", "refused", "failed"];

/// Tells of a change that was asked for, and what came of it.
pub(super) fn told(
    metrics: &Metrics,
    (route, verb): (&Route, &'static str),
    body: &[u8],
    asked: &Asked,
    (status, said): (StatusCode, Option<&Said>),
) {
    let result = match status.as_u16() {
        ..400 => RESULTS[0],
        400..500 => RESULTS[1],
        _ => RESULTS[2],
    };
    metrics.admin_changes.with_label_values(&[verb, result]).inc();
    let (who, id, node) = (&asked.who, asked.id.as_str(), route.node().map(plain));
    let arguments = plain(&String::from_utf8_lossy(body));
    let (status, why) = (status.as_u16(), said.map(|said| plain(&said.0)));
    let pid = pid(who.peer);
    if result == RESULTS[0] {
        tracing::info!(target: "audit", verb, node, %arguments, %who, pid, status, id, "audit: done");
    } else {
        tracing::warn!(target: "audit", verb, node, %arguments, %who, pid, status, id, why,
            "audit: not done");
    }
}

/// Tells of a request that was refused at the door.
pub(super) fn refused(refusal: &Refusal, head: &Parts, peer: Peer, id: RequestId) {
    let (reason, id, pid) = (refusal.label(), id.as_str(), pid(peer));
    let (method, path) = (head.method.as_str(), plain(head.uri.path()));
    match refusal {
        Refusal::WrongToken { last: true } => {
            tracing::warn!(target: "audit", who = %peer, pid, method, %path, reason, id,
                "audit: refused; for a while no guess from there is looked at");
        }
        Refusal::ReadOnly(token) => {
            tracing::warn!(target: "audit", who = %peer, pid, token, method, %path, reason, id,
                "audit: refused");
        }
        _ => tracing::warn!(target: "audit", who = %peer, pid, method, %path, reason, id,
            "audit: refused"),
    }
}

/// A rate of what has never been counted would be none, not zero.
pub(super) fn show(metrics: &Metrics) {
    for reason in Refusal::LABELS.into_iter().chain([CROWD]) {
        metrics.admin_refused.with_label_values(&[reason]);
    }
    for verb in Route::VERBS {
        for result in RESULTS {
            metrics.admin_changes.with_label_values(&[verb, result]);
        }
    }
}

fn pid(peer: Peer) -> Option<i32> {
    match peer {
        Peer::User { pid, .. } => pid,
        Peer::Address(_) => None,
    }
}

/// On one line, whatever it holds, and not too long: nobody writes a second line into this log.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for char in text.trim().chars() {
        if out.len() >= MOST_ARGUMENTS {
            out.push('…');
            break;
        }
        // What turns the direction of writing would make a line look like another one.
        let turns = matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match char.is_control() || turns {
            true => out.extend(char.escape_default()),
            false => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_makes_a_second_line() {
        assert_eq!(plain(" {\"node\":\"ü\"}\n"), "{\"node\":\"ü\"}");
        assert_eq!(plain("a\nb\u{1b}[0m\u{85}\u{202e}c"), "a\\nb\\u{1b}[0m\\u{85}\\u{202e}c");
        let long = plain(&"x".repeat(MOST_ARGUMENTS + 9));
        assert!(long.ends_with("x…") && long.len() == MOST_ARGUMENTS + '…'.len_utf8());
    }
}
