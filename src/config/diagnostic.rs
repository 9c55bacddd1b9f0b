//! What is wrong with a file, shown in the manner of rustc, or as JSON.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::redact;

/// A configuration as text, with the name it is known by.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as the operator gave it; shown before line and column.
    pub name: String,
    /// The whole file.
    pub text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and the operator ought to know.
    Warning,
}

impl Severity {
    /// The word for it in messages and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A second place that explains the first, such as the earlier of two equal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Bytes of the source.
    pub span: Range<usize>,
    /// What is seen there.
    pub label: &'static str,
}

/// One finding, with its place and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, in kebab case, for scripts: `unknown-key`.
    pub code: &'static str,
    /// One sentence without a full stop.
    pub message: String,
    /// Bytes of the source: the smallest text that must change. Always within the text, on
    /// character boundaries.
    pub span: Range<usize>,
    /// What is wrong with exactly that text; may be empty.
    pub label: String,
    /// What to type.
    pub help: Option<String>,
    /// The other place, if there is one.
    pub related: Option<Related>,
}

impl Diagnostic {
    pub(super) fn error(code: &'static str, span: Range<usize>, message: String) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message,
            span,
            label: String::new(),
            help: None,
            related: None,
        }
    }

    pub(super) fn warning(code: &'static str, span: Range<usize>, message: String) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, span: Range<usize>, label: &'static str) -> Self {
        self.related = Some(Related { span, label });
        self
    }

    /// Whether the file cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Shows findings with their lines, a caret and the remedy. Values of secrets are starred out.
#[must_use]
pub fn render(found: &[Diagnostic], source: &Source, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let shown = redact::Redacted::new(&source.text);
    let mut out = String::new();
    for diagnostic in found {
        out.push_str(&render_one(diagnostic, &source.name, &shown, &renderer));
        out.push_str("\n\n");
    }
    out
}

/// The findings as a JSON array of objects with `file`, `line`, `column`, `end_line`, `end_column`,
/// `severity`, `code`, `message`, `label` and `help`. Lines and columns count from 1, columns in
/// characters.
#[must_use]
pub fn to_json(found: &[Diagnostic], source: &Source) -> String {
    let objects = found.iter().map(|d| json_one(d, source)).collect();
    serde_json::Value::Array(objects).to_string()
}

/// How many of each: `8 errors and 1 warning`.
#[must_use]
pub fn summary(found: &[Diagnostic]) -> String {
    let errors = found.iter().filter(|d| d.is_error()).count();
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (errors, found.len() - errors) {
        (errors, 0) => count(errors, "error"),
        (0, warnings) => count(warnings, "warning"),
        (errors, warnings) => {
            format!("{} and {}", count(errors, "error"), count(warnings, "warning"))
        }
    }
}

fn render_one(
    diagnostic: &Diagnostic,
    name: &str,
    shown: &redact::Redacted,
    renderer: &Renderer,
) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let label = Some(diagnostic.label.as_str()).filter(|label| !label.is_empty());
    let primary = AnnotationKind::Primary.span(shown.span(&diagnostic.span)).label(label);
    let mut snippet = Snippet::source(shown.text.as_str()).path(name).annotation(primary);
    if let Some(related) = &diagnostic.related {
        let span = shown.span(&related.span);
        snippet = snippet.annotation(AnnotationKind::Context.span(span).label(related.label));
    }
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let mut group = title.element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

fn json_one(diagnostic: &Diagnostic, source: &Source) -> serde_json::Value {
    let (line, column) = position(&source.text, diagnostic.span.start);
    let (end_line, end_column) = position(&source.text, diagnostic.span.end);
    serde_json::json!({
        "file": source.name,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "severity": diagnostic.severity.as_str(),
        "code": diagnostic.code,
        "message": diagnostic.message,
        "label": diagnostic.label,
        "help": diagnostic.help,
    })
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a = 1\nb", 6), (2, 1));
        assert_eq!(position("# ü\nx", 4), (1, 4));
        assert_eq!(position("a\n", 99), (2, 1));
    }

    #[test]
    fn the_summary_counts() {
        let error = Diagnostic::error("x", 0..0, String::new());
        let warning = Diagnostic::warning("x", 0..0, String::new());
        assert_eq!(summary(&[error.clone(), error.clone()]), "2 errors");
        assert_eq!(summary(std::slice::from_ref(&warning)), "1 warning");
        assert_eq!(summary(&[error, warning]), "1 error and 1 warning");
    }

    #[test]
    fn json_has_both_ends_and_no_colour_is_plain() {
        let source = Source { name: "a.toml".into(), text: "x = 1\ny = 2\n".into() };
        let found = [Diagnostic::error("unknown-key", 6..7, "unknown key `y`".into())
            .label("here")
            .help("remove it")];
        let json: serde_json::Value = serde_json::from_str(&to_json(&found, &source)).unwrap();
        assert_eq!(json[0]["line"], 2);
        assert_eq!(json[0]["column"], 1);
        assert_eq!(json[0]["end_column"], 2);
        assert_eq!(json[0]["help"], "remove it");
        assert!(!render(&found, &source, false).contains('\u{1b}'));
        assert!(render(&found, &source, true).contains('\u{1b}'));
    }
}
