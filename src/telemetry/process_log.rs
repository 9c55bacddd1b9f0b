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

/// A wish that cannot be read must not cost the log: then the default is used, and the reason told.
fn filter(wanted: Option<&str>, default: &str) -> (EnvFilter, Option<String>) {
    match wanted.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error.to_string())),
        None => (EnvFilter::new(default), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_used_and_nonsense_is_told() {
        let (used, refused) = filter(None, DEFAULT);
        assert_eq!((used.to_string().as_str(), refused), ("info", None));
        let (used, refused) = filter(Some("warn,cobalance::control=debug"), DEFAULT);
        assert_eq!((used.to_string().as_str(), refused), ("cobalance::control=debug,warn", None));
        let (used, refused) = filter(Some("=loud=="), DEFAULT);
        assert_eq!(used.to_string(), "info");
        assert!(refused.is_some());
    }

    #[test]
    fn a_second_start_is_harmless() {
        init(DEFAULT);
        init(DEFAULT);
    }
}
