//! `${NAME}` and `${NAME:-default}` inside strings.

use std::ops::Range;

/// Why a string cannot be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvError {
    /// Where in the string, with the braces.
    pub(super) place: Range<usize>,
    pub(super) problem: EnvProblem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EnvProblem {
    /// Not set, and no default is written.
    Missing(String),
    /// `${` without `}`.
    Unclosed,
    /// Not a name that a shell could export.
    BadName,
}

/// Replaces variables; `None` when there is nothing to replace. All problems are reported.
pub(super) fn expand(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, Vec<EnvError>> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut errors = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        out.push_str(&text[at..start]);
        let Some(length) = text[start..].find('}') else {
            errors.push(EnvError { place: start..text.len(), problem: EnvProblem::Unclosed });
            return Err(errors);
        };
        at = start + length + 1;
        match variable(&text[start + 2..at - 1], env) {
            Ok(value) => out.push_str(&value),
            Err(problem) => errors.push(EnvError { place: start..at, problem }),
        }
    }
    out.push_str(&text[at..]);
    if errors.is_empty() { Ok(Some(out)) } else { Err(errors) }
}

/// An empty variable takes the default, as in a shell; without a default it stays empty.
fn variable(inner: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, EnvProblem> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let first = name.bytes().next().ok_or(EnvProblem::BadName)?;
    if first.is_ascii_digit() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(EnvProblem::BadName);
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(EnvProblem::Missing(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced() {
        let cases = [
            ("plain $HOST {x}", None),
            ("${HOST}:80", Some("10.0.0.1:80")),
            ("${HOST}${HOST}", Some("10.0.0.110.0.0.1")),
            ("${PORT:-80}", Some("80")),
            ("${PORT:-}", Some("")),
            ("${EMPTY:-x}", Some("x")),
            ("${EMPTY}", Some("")),
            ("${HOST:-x}", Some("10.0.0.1")),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env), Ok(expected.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn every_problem_has_its_place() {
        let missing = |name: &str| EnvProblem::Missing(name.to_owned());
        let errors = expand("a${NO}b${NEVER}", &env).unwrap_err();
        assert_eq!(errors[0], EnvError { place: 1..6, problem: missing("NO") });
        assert_eq!(errors[1], EnvError { place: 7..15, problem: missing("NEVER") });
        let problem = |text| expand(text, &env).unwrap_err().remove(0).problem;
        assert_eq!(problem("${HOST"), EnvProblem::Unclosed);
        assert_eq!(problem("${}"), EnvProblem::BadName);
        assert_eq!(problem("${1A}"), EnvProblem::BadName);
        assert_eq!(problem("${A B}"), EnvProblem::BadName);
    }
}
