//! Secrets in a file's text are starred out before any of it is shown.
//!
//! This looks at characters, not at parsed values: a line with a syntax error must not leak either.

use std::ops::Range;

/// A copy of a text with its secrets starred out, one star for each character, so that columns stay.
pub(super) struct Redacted {
    pub(super) text: String,
    /// The ends of each secret, in the original and here.
    ends: Vec<(usize, usize)>,
}

impl Redacted {
    pub(super) fn new(original: &str) -> Self {
        let mut text = String::with_capacity(original.len());
        let mut ends = Vec::new();
        let mut end = 0;
        for secret in secrets(original) {
            text.push_str(&original[end..secret.start]);
            let stars = original[secret.clone()].chars().map(|c| if c == '\n' { c } else { '*' });
            text.extend(stars);
            end = secret.end;
            ends.push((end, text.len()));
        }
        text.push_str(&original[end..]);
        Self { text, ends }
    }

    /// Where a span of the original lies in the copy.
    pub(super) fn span(&self, original: &Range<usize>) -> Range<usize> {
        self.offset(original.start)..self.offset(original.end)
    }

    fn offset(&self, original: usize) -> usize {
        let next = self.ends.partition_point(|(end, _)| *end <= original);
        let (end, here) = next.checked_sub(1).map_or((0, 0), |last| self.ends[last]);
        // Inside a secret of wide characters the sum may be too large, but never beyond its end.
        let limit = self.ends.get(next).map_or(self.text.len(), |(_, here)| *here);
        self.text.floor_char_boundary((here + original - end).min(limit))
    }
}

/// Whether the value of a key is to be hidden; a file that holds the secret is no secret itself.
fn is_sensitive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words = ["secret", "token", "password"];
    let named = words.iter().any(|word| key.contains(word)) && !key.ends_with("_file");
    // A misspelt key has a true secret behind it, and is about to be shown as unknown.
    named || words.iter().any(|word| key.len() < 16 && strsim::damerau_levenshtein(&key, word) <= 2)
}

/// Byte ranges of the values of sensitive keys, without their quotes, in order.
fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (equals, _) in text.match_indices('=') {
        if found.last().is_some_and(|last| equals < last.end)
            || !is_sensitive(key_before(text, equals))
        {
            continue;
        }
        let value = value_after(text, equals + 1);
        if !value.is_empty() && !is_reference(&text[value.clone()]) {
            found.push(value);
        }
    }
    found
}

/// The last part of the key that ends just before an equals sign.
fn key_before(text: &str, equals: usize) -> &str {
    let key = text[..equals].trim_end_matches([' ', '\t', '"', '\'']);
    let start = key.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
    &key[start.map_or(0, |at| at + key[at..].chars().next().map_or(1, char::len_utf8))..]
}

fn value_after(text: &str, from: usize) -> Range<usize> {
    let rest = &text[from..];
    let start = from + rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let value = &text[start..];
    for quote in ["\"\"\"", "'''"] {
        if let Some(inner) = value.strip_prefix(quote) {
            let length = inner.find(quote).unwrap_or(inner.len());
            return start + 3..start + 3 + length;
        }
    }
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => start + 1..start + 1 + quoted_length(&value[1..], quote),
        _ => start..start + value.find([',', '}', '#', '\n', '\r']).unwrap_or(value.len()),
    }
}

/// Up to the closing quote, or the end of the line where there is none.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => return at,
            _ => {}
        }
    }
    text.len()
}

/// `${NAME}` and nothing else says where the secret is, not what it is.
fn is_reference(value: &str) -> bool {
    let name = value.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redacted(text: &str) -> String {
        Redacted::new(text).text
    }

    #[test]
    fn secrets_are_starred_out_in_every_form() {
        let cases = [
            ("secret = \"abc\" # why", "secret = \"***\" # why"),
            (
                "sticky = { secret='abc', cookie = \"c\" }",
                "sticky = { secret='***', cookie = \"c\" }",
            ),
            ("sticky.secret = \"a\\\"b\"", "sticky.secret = \"****\""),
            ("\"secret\" = \"abc\"", "\"secret\" = \"***\""),
            ("secret = \"unterminated\nx = 1", "secret = \"************\nx = 1"),
            ("secret = 1234, b = 2", "secret = ****, b = 2"),
            ("secret = \"\"\"a\nb\"\"\"\nc = 1", "secret = \"\"\"*\n*\"\"\"\nc = 1"),
            ("admin_token = \"a=b\"", "admin_token = \"***\""),
            ("sekrt = \"abc\"", "sekrt = \"***\""),
            ("secret = \"${KEY:-abc}\"", "secret = \"***********\""),
        ];
        for (text, expected) in cases {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn of_the_known_keys_only_the_secret_is_hidden() {
        let keys = crate::config::keys::tables().into_iter().flat_map(|table| table.keys);
        assert_eq!(keys.copied().filter(|key| is_sensitive(key)).collect::<Vec<_>>(), ["secret"]);
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in
            ["token_file = \"/run/token\"", "secret = \"${KEY}\"", "bind = \"a\"", "secret ="]
        {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn spans_after_a_wide_secret_move_with_the_text() {
        let text = "a = { secret = \"ßß\", cookie = 1 }";
        let copy = Redacted::new(text);
        let at = text.find("cookie").unwrap();
        let moved = copy.span(&(at..at + 6));
        assert_eq!(&copy.text[moved], "cookie");
    }

    proptest! {
        #[test]
        fn spans_stay_inside_and_on_characters(
            text in "(secret ?= ?|[\"'${}=ßa#,\n ]){0,40}",
            start in 0usize..60,
            end in 0usize..60,
        ) {
            let copy = Redacted::new(&text);
            let clamp = |at: usize| text.floor_char_boundary(at);
            let (start, end) = (clamp(start.min(end)), clamp(end.max(start)));
            let span = copy.span(&(start..end));
            prop_assert!(copy.text.get(span).is_some());
            prop_assert_eq!(copy.text.chars().count(), text.chars().count());
        }
    }
}
