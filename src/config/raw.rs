//! A file as written: tables, values and their places, with every wrong type reported on the way.
//!
//! Reading goes on after an error: a value that cannot be used is reported and counts as not written.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::env::{self, EnvProblem};
use super::keys::TableKeys;
use super::suggest;
use crate::units::{self, UnitError};

mod number;
mod syntax;

/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// Beyond this a duration is a slip.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// For times that bound something: zero would fail everything.
pub(super) const POSITIVE: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// For times that may be zero, which is none.
pub(super) const OR_ZERO: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;

/// What all readers share: the text, the environment and the findings.
pub(super) struct Cx<'a> {
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    found: RefCell<Vec<Diagnostic>>,
    /// Whether parts may not have been read.
    broken: bool,
    /// Up to here what was read is what was meant.
    sound: usize,
}

impl<'a> Cx<'a> {
    /// Parses what can be parsed; syntax errors are findings.
    pub(super) fn parse(
        text: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> (Self, Spanned<DeTable<'a>>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let (found, sound) = syntax::diagnostics(&errors, text);
        let broken = found.iter().any(|d| d.code == "syntax");
        (Self { text, env, found: RefCell::new(found), broken, sound }, root)
    }

    /// Looks up variables of the environment.
    pub(super) fn env(&self) -> &dyn Fn(&str) -> Option<String> {
        self.env
    }

    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Reports that something is absent, unless it may be in a part that could not be read.
    pub(super) fn report_absent(&self, diagnostic: Diagnostic) {
        if !self.broken {
            self.report(diagnostic);
        }
    }

    /// How many errors were reported until now.
    pub(super) fn errors(&self) -> usize {
        self.found.borrow().iter().filter(|found| found.is_error()).count()
    }

    /// The end of what is written, where something could be added.
    pub(super) fn end(&self) -> Span {
        let end = self.text.trim_end().len();
        end..end
    }

    /// All findings in the order of the file.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        let lines: Vec<usize> = found
            .iter()
            .filter(|d| d.code == "syntax")
            .map(|d| line_of(self.text, d.span.start))
            .collect();
        // What was recovered from a line with a syntax error is a guess, not worth a complaint.
        found.retain(|d| {
            let place = d.span.start;
            let guessed = place > self.sound || lines.contains(&line_of(self.text, place));
            d.code == "syntax" || !guessed
        });
        for diagnostic in &mut found {
            diagnostic.span = within(self.text, &diagnostic.span);
            if let Some(related) = &mut diagnostic.related {
                related.span = within(self.text, &related.span);
            }
        }
        found.sort_by_key(|d| (d.span.start, d.span.end));
        found
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

fn within(text: &str, span: &Span) -> Span {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    start..text.ceil_char_boundary(span.end.clamp(start, text.len()))
}

/// A table of the file. Unknown keys were reported when it was opened.
pub(super) struct Table<'a> {
    pub(super) cx: &'a Cx<'a>,
    /// Where to point when something is missing: the header, or the braces.
    pub(super) place: Span,
    title: String,
    keys: &'static TableKeys,
    map: Option<&'a DeTable<'a>>,
    misspelt: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// Opens a table and reports its unknown keys. `title` is how it is written: `[server]`.
    pub(super) fn open(
        cx: &'a Cx<'a>,
        keys: &'static TableKeys,
        title: String,
        place: Span,
        map: &'a DeTable<'a>,
    ) -> Self {
        let mut misspelt = Vec::new();
        for (key, _) in map {
            let word: &str = key.get_ref();
            if !keys.keys.contains(&word) {
                misspelt.extend(suggest::nearest(word, keys.keys.iter().copied()));
                cx.report(unknown_key(word, key.span(), &title, keys));
            }
        }
        Self { cx, place, title, keys, map: Some(map), misspelt }
    }

    /// The value of a key, if written.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(self.keys.keys.contains(&key), "{key} is missing in keys.rs");
        let (written, value) = self.map?.get_key_value(key)?;
        Some(Value {
            cx: self.cx,
            name: format!("`{key}`"),
            key: written.span(),
            span: value.span(),
            de: value.get_ref(),
        })
    }

    /// Reports that a key must be written, unless it was and is only misspelt.
    pub(super) fn missing(&self, key: &'static str, help: &str) {
        if !self.misspelt(key) {
            let message = format!("`{key}` is missing in {}", self.title);
            self.cx.report_absent(
                Diagnostic::error("missing-key", self.place.clone(), message)
                    .label(format!("without `{key}`"))
                    .help(help),
            );
        }
    }

    /// Whether an unknown key of this table looks like this one.
    pub(super) fn misspelt(&self, key: &str) -> bool {
        self.misspelt.contains(&key)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Text<'a>> {
        self.get(key)?.text()
    }

    /// An address to bind.
    pub(super) fn bind(&self) -> Option<Text<'a>> {
        self.get("bind")?.text_like("an address", "write it with its port: `bind = \"0.0.0.0:80\"`")
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|value| value.flag()).unwrap_or(default)
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: &RangeInclusive<Duration>,
    ) -> Duration {
        self.get(key).and_then(|value| value.duration(range)).unwrap_or(default)
    }

    /// The elements of an array, none when the key is not written.
    pub(super) fn elements(&self, key: &'static str, example: &str) -> Vec<Value<'a>> {
        self.get(key).and_then(|value| value.elements(example)).unwrap_or_default()
    }
}

fn unknown_key(word: &str, span: Span, title: &str, keys: &'static TableKeys) -> Diagnostic {
    let shown: String = word.chars().take(64).collect();
    Diagnostic::error("unknown-key", span, format!("unknown key `{shown}` in {title}"))
        .label("not known here")
        .help(suggest::key_help(word, keys))
}

/// A value of the file with the key it belongs to.
pub(super) struct Value<'a> {
    pub(super) cx: &'a Cx<'a>,
    /// For messages: `` `retries` ``, or `` an entry of `nodes` ``.
    pub(super) name: String,
    pub(super) key: Span,
    pub(super) span: Span,
    pub(super) de: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Reports something about this value.
    pub(super) fn error(&self, code: &'static str, message: String, label: &str, help: String) {
        self.cx.report(Diagnostic::error(code, self.span.clone(), message).label(label).help(help));
    }

    /// Reports a type that does not fit; `must` completes "X must be …".
    pub(super) fn wrong_type(&self, must: &str, help: &str) {
        let is = match self.de {
            DeValue::String(text) if text.contains("${") => "the variable does not hold that",
            DeValue::String(_) => "this is a string",
            DeValue::Integer(_) => "this is a whole number",
            DeValue::Float(_) => "this is a number with a fraction",
            DeValue::Boolean(_) => "this is true or false",
            DeValue::Datetime(_) => "this is a date or a time",
            DeValue::Array(_) => "this is a list",
            DeValue::Table(_) => "this is a table",
        };
        self.error("wrong-type", format!("{} must be {must}", self.name), is, help.to_owned());
    }

    /// A string with its variables replaced.
    pub(super) fn text(&self) -> Option<Text<'a>> {
        self.text_like("a string", "write it in double quotes")
    }

    /// The same, with an own complaint of another type.
    pub(super) fn text_like(&self, must: &str, help: &str) -> Option<Text<'a>> {
        let DeValue::String(written) = self.de else {
            self.wrong_type(must, help);
            return None;
        };
        self.expand(written)
    }

    /// A string, if it is one; another type is not reported.
    fn any_text(&self) -> Option<Text<'a>> {
        let DeValue::String(written) = self.de else { return None };
        self.expand(written)
    }

    fn expand(&self, written: &'a str) -> Option<Text<'a>> {
        match env::expand(written, self.cx.env) {
            Ok(None) => Some(self.as_text(written, written.to_owned(), false)),
            Ok(Some(value)) => Some(self.as_text(written, value, true)),
            Err(errors) => {
                for error in errors {
                    self.bad_variable(written, &error);
                }
                None
            }
        }
    }

    fn as_text(&self, written: &'a str, value: String, from_env: bool) -> Text<'a> {
        Text {
            cx: self.cx,
            name: self.name.clone(),
            span: self.span.clone(),
            written,
            value,
            from_env,
        }
    }

    fn bad_variable(&self, written: &str, error: &env::EnvError) {
        let span = self.part(written, &error.place);
        let diagnostic = match &error.problem {
            EnvProblem::Missing(name) => {
                let message = format!("the environment variable `{name}` is not set");
                Diagnostic::error("missing-variable", span, message)
                    .label("nothing to put here")
                    .help(format!("set {name}, or write a default: `${{{name}:-default}}`"))
            }
            EnvProblem::Unclosed => {
                Diagnostic::error("bad-variable", span, "`${` without `}`".to_owned())
                    .label("where does the name end?")
                    .help("write `${NAME}` or `${NAME:-default}`")
            }
            EnvProblem::BadName => {
                let message = "this is not the name of a variable".to_owned();
                Diagnostic::error("bad-variable", span, message)
                    .label("letters, digits and `_`, no digit first")
                    .help("write `${NAME}` or `${NAME:-default}`")
            }
        };
        self.cx.report(diagnostic);
    }

    /// A part of a string in the file; the whole where escapes make the two differ.
    fn part(&self, written: &str, part: &Span) -> Span {
        let inner = self.cx.text.get(self.span.clone()).and_then(|text| text.find(written));
        match inner {
            Some(at) => self.span.start + at + part.start..self.span.start + at + part.end,
            None => self.span.clone(),
        }
    }

    /// `true` or `false`, or a variable that says so.
    pub(super) fn flag(&self) -> Option<bool> {
        if let DeValue::Boolean(flag) = self.de {
            return Some(*flag);
        }
        let text = self.any_text();
        match text.as_ref().filter(|text| text.from_env).map(|text| text.value.as_str()) {
            Some("true") => return Some(true),
            Some("false") => return Some(false),
            _ => {}
        }
        if text.is_some() || !self.de.is_str() {
            self.wrong_type("true or false", "write `true` or `false`, without quotes");
        }
        None
    }

    /// A duration within a range.
    pub(super) fn duration(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let DeValue::String(_) = self.de else {
            let help = "write a number and a unit in quotes, such as \"30s\" or \"250ms\"";
            self.wrong_type("a duration", help);
            return None;
        };
        let text = self.text()?;
        let duration = units::parse_duration(&text.value).map_err(|error| {
            let help = match error {
                UnitError::NoUnit if !text.from_env => {
                    let number = text.written;
                    format!("write \"{number}s\" for seconds, \"{number}ms\" for milliseconds")
                }
                _ => {
                    "write one number and one unit: \"250ms\", \"2s\", \"15m\" or \"1h\"".to_owned()
                }
            };
            let message = format!("{} is not a duration: {}", self.name, text.shown());
            self.error("bad-duration", message, &error.to_string(), help);
        });
        self.in_range(duration.ok()?, range, units::format_duration)
    }

    /// Reports a value outside of its range.
    pub(super) fn in_range<T: PartialOrd + Copy>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (show(*range.start()), show(*range.end()));
        let (label, nearest) =
            if value < *range.start() { ("too small", &low) } else { ("too large", &high) };
        let message = format!("{} must be between {low} and {high}", self.name);
        self.error("out-of-range", message, label, format!("the nearest possible is {nearest}"));
        None
    }

    /// The elements of an array.
    pub(super) fn elements(&self, example: &str) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(array) = self.de else {
            self.wrong_type("a list", &format!("write {example}"));
            return None;
        };
        let element = |value: &'a Spanned<DeValue<'a>>| Value {
            cx: self.cx,
            name: format!("an entry of {}", self.name),
            key: self.key.clone(),
            span: value.span(),
            de: value.get_ref(),
        };
        Some(array.iter().map(element).collect())
    }

    /// The entries of a table whose keys are names, in the order of the file; `must` and `help` are said of
    /// anything else, as by [`Value::wrong_type`].
    pub(super) fn entries(&self, must: &str, help: &str) -> Option<Vec<(&'a str, Value<'a>)>> {
        let DeValue::Table(map) = self.de else {
            self.wrong_type(must, help);
            return None;
        };
        let mut written: Vec<_> = map.iter().collect();
        written.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let name: &str = key.get_ref();
            let shown = format!("`{}`", name.chars().take(64).collect::<String>());
            let (key, span, de) = (key.span(), value.span(), value.get_ref());
            (name, Value { cx: self.cx, name: shown, key, span, de })
        };
        Some(written.into_iter().map(entry).collect())
    }

    /// A table with these keys; `title` is how it is written.
    pub(super) fn table(&self, keys: &'static TableKeys, title: &str) -> Option<Table<'a>> {
        let DeValue::Table(map) = self.de else {
            self.wrong_type("a table", &format!("write {title}"));
            return None;
        };
        Some(Table::open(self.cx, keys, title.to_owned(), self.span.clone(), map))
    }
}

/// A string of the file, with its variables replaced.
pub(super) struct Text<'a> {
    cx: &'a Cx<'a>,
    pub(super) name: String,
    pub(super) span: Span,
    /// As in the file; the only form that a message may repeat.
    pub(super) written: &'a str,
    /// With variables replaced.
    pub(super) value: String,
    /// Whether the two differ, so that `value` must not be shown.
    pub(super) from_env: bool,
}

impl<'a> Text<'a> {
    /// What it was read with.
    pub(super) fn cx(&self) -> &'a Cx<'a> {
        self.cx
    }

    /// For messages: the file's own text, shortened.
    pub(super) fn shown(&self) -> String {
        let short: String = self.written.chars().take(60).collect();
        let more = if short.len() < self.written.len() { "…" } else { "" };
        format!("`{short}{more}`")
    }

    /// Reports something about this text.
    pub(super) fn error(&self, code: &'static str, message: String, label: &str, help: &str) {
        self.cx.report(Diagnostic::error(code, self.span.clone(), message).label(label).help(help));
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let found = choices.iter().find(|(word, _)| *word == self.value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let list =
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let near = suggest::nearest(&self.value, words).filter(|_| !self.from_env);
            let help = near.map_or_else(
                || format!("write one of {list}"),
                |word| format!("did you mean \"{word}\"? Known are {list}"),
            );
            let message = format!("{} cannot be {}", self.name, self.shown());
            self.error("unknown-value", message, "not one of the known words", &help);
        }
        found.map(|(_, value)| *value)
    }
}
