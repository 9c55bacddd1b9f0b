//! What is in [`super::status`], in words for people: in a terminal, and on the page.

use std::time::{Duration, SystemTime};

use super::rollback::RolledBack;
use super::status::{
    AcmeStatus, CertificateStatus, ConfigStatus, NodeStatus, PinStatus, ProbationStatus,
    UpstreamStatus,
};

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

/// A certificate, for whom it is, and what comes next.
pub(crate) fn certificate(one: &CertificateStatus, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let left = one.not_after - now;
    let span = span(Duration::from_secs(left.unsigned_abs()));
    let when = match left {
        _ if one.not_after == 0 => "none yet, handshakes are refused".to_owned(),
        ..=0 => format!("expired {span} ago"),
        _ => format!("expires in {span}"),
    };
    let order = one.acme.as_ref().map(|acme| format!("; {}", ordered(acme, now)));
    let (name, hosts) = (&one.name, one.hosts.join(", "));
    format!("certificate {name} for {hosts}, {when}{}", order.unwrap_or_default())
}

/// How the orders of a certificate go. Why they fail is among the warnings.
fn ordered(acme: &AcmeStatus, now: i64) -> String {
    let AcmeStatus { authority, state, next_at, failures, .. } = acme;
    let wait = span(Duration::from_secs(u64::try_from(next_at - now).unwrap_or(0)));
    match state.as_str() {
        "valid" => format!("{authority} renews it in {wait}"),
        "ordering" => format!("ordered from {authority} now"),
        "waiting" => format!("another process has begun an order from {authority}"),
        "failing" if *next_at > now => {
            let orders = if *failures == 1 { "order" } else { "orders" };
            format!("{failures} {orders} from {authority} failed, next in {wait}")
        }
        "failing" => format!("cannot be ordered from {authority}"),
        _ => format!("about to be ordered from {authority}"),
    }
}

/// The node that serves an upstream alone, if one does, and what it means if it does not.
pub(crate) fn pinned(upstream: &UpstreamStatus, now: SystemTime) -> Option<String> {
    let UpstreamStatus { name, pinned, .. } = upstream;
    let PinStatus { node, since: then, from, serves, turns_away } = pinned.as_ref()?;
    let pinned = format!("{node} is pinned in {name} for {}, from {from}", since(*then, now));
    let clients = match (serves, turns_away) {
        (true, _) => return Some(format!("{pinned}: it serves alone")),
        (false, true) => "clients are told to wait",
        (false, false) => "requests are parked",
    };
    Some(format!(
        "{pinned}, and does not serve: nobody takes its place, and {clients}. Get it up, pin another, or `cobalance \
         unpin`"
    ))
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
    fn of_a_certificate_that_is_ordered_it_tells_how_that_goes() {
        let told = |not_after, state: &str, next_at, failures| {
            let one: CertificateStatus = serde_json::from_value(serde_json::json!({
                "name": "a", "hosts": ["a.test"], "not_before": 0, "not_after": not_after,
                "acme": {"authority": "ca", "state": state, "next_at": next_at, "failures": failures, "error": "no"},
            }))
            .unwrap();
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
            certificate(&one, now).replace("certificate a for a.test, ", "")
        };
        for (not_after, state, next_at, failures, expected) in [
            (87_460, "valid", 1_060, 2, "expires in 1 d 0 h; ca renews it in 1 min 0 s"),
            (0, "ordering", 0, 2, "none yet, handshakes are refused; ordered from ca now"),
            (
                940,
                "waiting",
                0,
                2,
                "expired 1 min 0 s ago; another process has begun an order from ca",
            ),
            (
                87_460,
                "failing",
                1_005,
                2,
                "expires in 1 d 0 h; 2 orders from ca failed, next in 5 s",
            ),
            (
                0,
                "failing",
                1_005,
                1,
                "none yet, handshakes are refused; 1 order from ca failed, next in 5 s",
            ),
            (87_460, "failing", 0, 2, "expires in 1 d 0 h; cannot be ordered from ca"),
            (87_460, "due", 1_000, 2, "expires in 1 d 0 h; about to be ordered from ca"),
        ] {
            assert_eq!(told(not_after, state, next_at, failures), expected);
        }
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
