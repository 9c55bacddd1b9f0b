//! What is in [`super::status`], in words for people: in a terminal, and on the page.

use std::time::{Duration, SystemTime};

use super::rollback::RolledBack;
use super::status::{ConfigStatus, NodeStatus, ProbationStatus};

/// What is not known yet, or speaks against what runs; one that is over well needs no line.
pub(crate) fn probation(config: &ConfigStatus) -> Option<String> {
    if let Some(RolledBack { from, to, .. }) = &config.rolled_back {
        return Some(format!(
            "rolled back from configuration {from} to {to}: THE FILE ON DISK IS NOT WHAT RUNS"
        ));
    }
    let ProbationStatus { state, left_s, requests, enough, .. } = config.probation.as_ref()?;
    let so_far = format!("{requests} of {enough} requests so far");
    match (state.as_str(), left_s) {
        ("watched", 0) => Some(format!("on probation until more is known; {so_far}")),
        ("watched", left) => Some(format!("on probation for {left} s at least; {so_far}")),
        ("worse", _) => {
            let what = "WORSE than what was in use before it: `cobalance rollback` goes back";
            Some(what.into())
        }
        _ => None,
    }
}

/// The state, and what else a node is.
pub(crate) fn state(node: &NodeStatus) -> String {
    let mut state = node.state.clone();
    if node.role == "task" {
        state.push_str(" (task)");
    }
    if node.backup {
        state.push_str(" (backup)");
    }
    state
}

/// A time, or that it is not known.
pub(crate) fn millis(ms: Option<f64>) -> String {
    ms.map_or("-".into(), |ms| format!("{ms:.1} ms"))
}

/// As configured; and what is in force while the node starts slowly.
pub(crate) fn weight(node: &NodeStatus) -> String {
    match node.effective_weight < f64::from(node.weight) {
        true => format!("{:.2} of {}", node.effective_weight, node.weight),
        false => node.weight.to_string(),
    }
}

/// From a Unix time to now; nothing is in the future, whatever two clocks say.
pub(crate) fn since(unix: u64, now: SystemTime) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(unix);
    span(now.duration_since(then).unwrap_or_default())
}

/// Two units are enough to know how long ago something was.
pub(crate) fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probation_is_told_while_it_matters() {
        let mut config: ConfigStatus = serde_json::from_value(serde_json::json!({
            "generation": 4, "loaded_at": 700, "file": null, "last_reload": null,
        }))
        .unwrap();
        assert_eq!(probation(&config), None);
        let of = |state: &str, left_s: u64| -> ProbationStatus {
            serde_json::from_value(serde_json::json!({
                "generation": 4, "state": state, "since": 700, "left_s": left_s, "requests": 12,
                "enough": 200, "found": [], "kept": null,
            }))
            .unwrap()
        };
        for (state, left, told) in [
            ("watched", 7, "on probation for 7 s at least; 12 of 200 requests so far"),
            ("watched", 0, "on probation until more is known; 12 of 200 requests so far"),
            ("passed", 0, ""),
        ] {
            config.probation = Some(of(state, left));
            assert_eq!(probation(&config).unwrap_or_default(), told);
        }
        config.probation = Some(of("worse", 0));
        assert!(probation(&config).unwrap().contains("`cobalance rollback`"));
        config.rolled_back = serde_json::from_value(serde_json::json!({
            "from": 5, "to": 3, "generation": 6, "by": "x", "found": [], "at": 0,
        }))
        .unwrap();
        assert!(probation(&config).unwrap().contains("from configuration 5 to 3: THE FILE"));
    }

    #[test]
    fn spans_have_two_units() {
        let cases = [(0, "0 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(since(2_000, SystemTime::UNIX_EPOCH), "0 s");
    }
}
