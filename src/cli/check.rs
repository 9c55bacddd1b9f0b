//! `cobalance check`: everything that is wrong with a file, before a process has to say so.

use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{render, summary, to_json};
use crate::control;

/// How findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shown {
    /// With the line and a caret
    Human,
    /// As a JSON array
    Json,
}

/// What a check found.
pub(super) struct Report {
    /// All of it, ready to print.
    pub(super) text: String,
    /// Whether the file can be used (and, if warnings are denied, has none).
    pub(super) good: bool,
}

/// Reads a file and judges it.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn check(file: &Path, shown: Shown, deny_warnings: bool, color: bool) -> Result<Report> {
    let name = file.display();
    let read = control::read(file).with_context(|| format!("{name} cannot be read"))?;
    let (found, usable) = match read.found {
        Ok((_, warnings)) => (warnings, true),
        Err(found) => (found, false),
    };
    let text = match shown {
        Shown::Json => to_json(&found, &read.source),
        Shown::Human if found.is_empty() => format!("{name}: no findings"),
        Shown::Human => {
            let all = render(&found, &read.source, color);
            format!("{all}{name}: {}", summary(&found))
        }
    };
    let denied = deny_warnings && !found.is_empty();
    Ok(Report { text, good: usable && !denied })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[listener]]\nbind = \"127.0.0.1:8080\"\n\
                        [upstream.nocobase]\nnodes = [\"127.0.0.1:13000\"]\n";

    fn check_text(text: &str, shown: Shown, deny: bool) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cobalance.toml");
        std::fs::write(&file, text).unwrap();
        check(&file, shown, deny, false).unwrap()
    }

    #[test]
    fn a_good_file_passes() {
        let report = check_text(GOOD, Shown::Human, true);
        assert!(report.good, "{}", report.text);
        assert!(report.text.ends_with("cobalance.toml: no findings"), "{}", report.text);
    }

    #[test]
    fn every_mistake_is_shown_at_once() {
        let bad = GOOD.replace("bind", "bnid").replace("nodes", "noods");
        let report = check_text(&bad, Shown::Human, false);
        assert!(!report.good);
        for text in ["bnid", "noods", "cobalance.toml:2", "errors"] {
            assert!(report.text.contains(text), "{text} in {}", report.text);
        }
        let report = check_text(&bad, Shown::Json, false);
        let found: serde_json::Value = serde_json::from_str(&report.text).unwrap();
        assert!(found.as_array().unwrap().len() >= 2);
    }

    #[test]
    fn warnings_are_denied_on_demand() {
        let warned = format!("{GOOD}max_requests_per_connection = 1\n");
        let report = check_text(&warned, Shown::Json, false);
        let found: serde_json::Value = serde_json::from_str(&report.text).unwrap();
        let warnings = found.as_array().unwrap().len();
        assert_eq!(check_text(&warned, Shown::Human, true).good, report.good && warnings == 0);
    }

    #[test]
    fn a_missing_file_is_no_finding() {
        assert!(check(Path::new("/nonexistent.toml"), Shown::Human, false, false).is_err());
    }
}
