//! The process log: what happened to us and our nodes, in lines for people, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Says what is logged: a level (`info`), or levels by module (`warn,cobalance::control=debug`).
pub const VARIABLE: &str = "COBALANCE_LOG";
/// One line per change of state, nothing per request.
pub const DEFAULT: &str = "info";

/// Starts the log with what [`VARIABLE`] asks for, else with `default`. A second call in one process
/// changes nothing, so that tests may each call it.
pub fn init(default: &str) {
    let wanted = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let (filter, refused) = filter(wanted.as_deref(), default);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours help a person and are noise in a file.
        .with_ansi(std::io::stderr().is_terminal())
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .finish();
    let started = subscriber.try_init().is_ok();
    if started && let Some(error) = refused {
        tracing::warn!("{VARIABLE} is not understood ({error}); logging at \"{default}\"");
    }
}

/// Who changed what is told whatever else is not, unless the wish names it.
const ALWAYS: &str = "audit";

/// A wish that cannot be read must not cost the log: then the default is used, and the reason told.
fn filter(wanted: Option<&str>, default: &str) -> (EnvFilter, Option<String>) {
    let audited = |text: &str| match text.contains(ALWAYS) {
        true => text.to_owned(),
        false => format!("{text},{ALWAYS}=info"),
    };
    match wanted.map(|text| EnvFilter::try_new(audited(text))) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(audited(default)), Some(error.to_string())),
        None => (EnvFilter::new(audited(default)), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_used_and_nonsense_is_told() {
        let (used, refused) = filter(None, DEFAULT);
        assert_eq!((used.to_string().as_str(), refused), ("audit=info,info", None));
        let (used, refused) = filter(Some("warn,cobalance::control=debug"), DEFAULT);
        let expected = "cobalance::control=debug,audit=info,warn";
        assert_eq!((used.to_string().as_str(), refused), (expected, None));
        let (used, _) = filter(Some("warn,audit=off"), DEFAULT);
        assert_eq!(used.to_string(), "audit=off,warn", "whoever says so means it");
        let (used, refused) = filter(Some("=loud=="), DEFAULT);
        assert_eq!(used.to_string(), "audit=info,info");
        assert!(refused.is_some());
    }

    #[test]
    fn a_second_start_is_harmless() {
        init(DEFAULT);
        init(DEFAULT);
    }
}
