//! `cobalance check`: everything that is wrong with a file, before a process has to say so.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{self, diagnostic};

/// How findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shown {
    /// With the line and a caret, for people.
    Human,
    /// A JSON array, for editors and scripts.
    Json,
}

/// What a check found.
pub struct Report {
    /// All of it, ready to print.
    pub text: String,
    /// Whether the file can be used (and, if warnings are denied, has none).
    pub good: bool,
}

/// Reads a file and judges it.
///
/// # Errors
/// If the file cannot be read.
pub fn check(file: &Path, shown: Shown, deny_warnings: bool) -> Result<Report> {
    let source = read(file)?;
    let (found, usable) = match config::load(&source, &|name| std::env::var(name).ok()) {
        Ok((_, warnings)) => (warnings, true),
        Err(found) => (found, false),
    };
    let text = match shown {
        Shown::Json => diagnostic::to_json(&found, &source) + "\n",
        Shown::Human => {
            let color = std::io::stdout().is_terminal();
            diagnostic::render(&found, &source, color) + &summary(&source.name, &found) + "\n"
        }
    };
    Ok(Report { text, good: usable && !(deny_warnings && !found.is_empty()) })
}

/// A file as the configuration's loader wants it.
///
/// # Errors
/// If it cannot be read, or is no text.
pub fn read(file: &Path) -> Result<diagnostic::Source> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
    Ok(diagnostic::Source { name, text })
}

fn summary(name: &str, found: &[diagnostic::Diagnostic]) -> String {
    match found.is_empty() {
        true => format!("{name}: no findings"),
        false => format!("{name}: {}", diagnostic::summary(found)),
    }
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
        check(&file, shown, deny).unwrap()
    }

    #[test]
    fn a_good_file_passes() {
        let report = check_text(GOOD, Shown::Human, true);
        assert!(report.good, "{}", report.text);
        assert!(report.text.ends_with("cobalance.toml: no findings\n"), "{}", report.text);
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
    fn a_missing_file_is_no_finding() {
        assert!(check(Path::new("/nonexistent.toml"), Shown::Human, false).is_err());
    }
}
