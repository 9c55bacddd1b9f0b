//! What the TOML parser complains of, in this configuration's words.

use super::{Diagnostic, line_of};

/// How a complaint begins, what is wrong, and what to type.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "string values must be quoted",
        "a value is missing or not quoted",
        "write text in double quotes: \"text\"",
    ),
    ("missing value", "a value is missing", "write `key = value`"),
    ("key with no value", "a value is missing", "write `key = value`"),
    (
        "invalid value",
        "this is no value",
        "write text in double quotes, numbers and true or false without",
    ),
    (
        "invalid basic string",
        "a string does not end",
        "close it with `\"` on the same line, and write `\\\\` for a backslash",
    ),
    ("invalid literal string", "a string does not end", "close it with `'` on the same line"),
    ("invalid multi-line", "a string does not end", "close it with three quotes"),
    (
        "missing escaped value",
        "a lone backslash in a string",
        "write `\\\\` for a backslash, or use single quotes",
    ),
    ("missing assignment", "`=` is missing after a key", "write `key = value`"),
    ("extra assignment", "there is a second `=`", "write `key = value`"),
    ("extra `=`", "there is a second `=`", "write `key = value`"),
    (
        "missing comma between array",
        "a comma is missing in a list",
        "write `,` between the entries",
    ),
    (
        "missing comma between key",
        "a comma is missing in a table",
        "write `,` between `key = value` pairs",
    ),
    ("extra comma", "there is a comma too many", "remove it"),
    ("unclosed array table", "`]]` is missing", "write `[[name]]`"),
    ("unclosed array", "a list does not end", "write `]` after its last entry"),
    ("unclosed table", "`]` is missing", "write `[name]`"),
    ("unclosed inline table", "a table does not end", "write `}` after its last value"),
    (
        "unexpected `=` in array",
        "a list has no keys",
        "write `{ key = value }` for a table in a list",
    ),
    ("invalid unquoted key", "this is not a key", "use letters, digits, `_` and `-`, or quote it"),
    (
        "unexpected key or value",
        "something follows on the same line",
        "write each key on a line of its own",
    ),
    (
        "unexpected content",
        "something follows on the same line",
        "write each key on a line of its own",
    ),
    (
        "carriage return",
        "a carriage return without a line feed",
        "save the file with the line ends of Unix",
    ),
    (
        "cannot extend value",
        "this is not a table, so nothing can stand below it",
        "write it once, as a table",
    ),
    ("cannot recurse", "this is nested too deeply", "no key here needs more than three levels"),
];

/// The findings of a file, at most one for each line, because one slip makes several complaints; and
/// the place from which on nothing was read as it was meant, or the end.
pub(super) fn diagnostics(errors: &[toml::de::Error], text: &str) -> (Vec<Diagnostic>, usize) {
    let mut errors: Vec<_> = errors.iter().collect();
    let place = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    errors.sort_by_key(|error| place(error));
    errors.dedup_by_key(|error| line_of(text, place(error)));
    let mut found = Vec::new();
    for error in errors {
        if error.message().starts_with("missing comma between array")
            && begins_statement(text, place(error))
        {
            // All that follows was read as a part of the list and would be blamed for nothing.
            found.push(unclosed_list(place(error)));
            return (found, place(error));
        }
        found.push(diagnostic(error, text));
    }
    (found, text.len())
}

/// Whether a place is the beginning of a line with a header or a key.
fn begins_statement(text: &str, place: usize) -> bool {
    let (before, after) = text.split_at(text.floor_char_boundary(place));
    let line_start = before.trim_end_matches([' ', '\t']);
    let line = after.lines().next().unwrap_or_default();
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c);
    let has_key = line.split_once('=').is_some_and(|(key, _)| key.chars().all(is_key));
    line_start.ends_with('\n') && (line.starts_with('[') || has_key)
}

fn unclosed_list(place: usize) -> Diagnostic {
    let message = "this is not TOML: a list does not end".to_owned();
    Diagnostic::error("syntax", place..place, message)
        .label("the list above still goes on here")
        .help("write `]` after its last entry")
}

fn diagnostic(error: &toml::de::Error, text: &str) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let complaint = error.message();
    if complaint.starts_with("duplicate key") {
        return Diagnostic::error("duplicate-key", span, "this is written twice".to_owned())
            .label("already written above")
            .help("keep one of the two");
    }
    match KNOWN.iter().find(|(start, ..)| complaint.starts_with(start)) {
        Some((_, what, help)) => {
            Diagnostic::error("syntax", span, format!("this is not TOML: {what}"))
                .label("here")
                .help(*help)
        }
        None => Diagnostic::error("syntax", span, format!("this is not TOML: {complaint}"))
            .label("here")
            .help("see https://toml.io for the form of the file"),
    }
}
