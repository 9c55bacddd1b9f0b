//! Holds the code to its layers (ARCHITECTURE.md), its sizes and its words. Each violation is printed as
//! `file:line: what is wrong`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest to the highest: a module uses its own layer and those before it.
const LAYERS: [&[&str]; 10] = [
    &["error", "clock", "disk", "net", "units"],
    &["telemetry", "tls", "http1", "http2", "proxy_protocol"],
    &["config"],
    &["route", "balance", "health", "limit", "headers", "nocobase", "probation"],
    &["spool", "upstream"],
    &["snapshot"],
    &["exchange"],
    &["connection", "listener"],
    &["control", "admin"],
    &["server", "cli", "demo", "main", "lib"],
];
/// These decide: they get the time as an argument, and never wait.
const PURE: usize = 3;
/// These may read the machine, but never wait either.
const NEVER_WAITS: [usize; 3] = [0, 2, PURE];
/// Longer files are two files.
const MAX_LINES: usize = 500;
/// Unfinished work, and words for which the glossary has others. Split, so that this file is clean.
const BANNED: [(&str, &str); 4] = [
    (concat!("TO", "DO"), "finish it, or say what is absent and why"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("dbg", "!"), "remove it"),
    (concat!("back", "end"), "say node, or upstream"),
];

/// Here the words of others are what it is about: what somebody who comes from them may type.
const SPEAKS_OF_OTHERS: [&str; 2] = ["src/config/suggest.rs", "tests/config/words_of_others.toml"];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in files(root) {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        found.extend(judge(&file, &text));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn each_rule_finds_its_violation() {
    let cases = [
        (
            "src/balance/ewma.rs",
            "use crate::exchange::Exchange;",
            "layer 3 must not use `exchange`",
        ),
        ("src/route.rs", "use crate::{error, listener};", "layer 3 must not use `listener`"),
        ("src/route.rs", "use crate::{\n    error,\n    admin::{self, x},\n};", "`admin`"),
        ("src/http1.rs", "let x = crate::config::Config;", "layer 1 must not use `config`"),
        ("src/novel.rs", "", "has no layer"),
        ("src/limit.rs", "async fn f() { g().await }", "never waits"),
        ("src/health.rs", "let now = Instant::now();", "`now` is an argument"),
        ("src/health.rs", "use tokio::time;", "no sockets"),
        ("README.md", concat!("TO", "DO: write"), "finish it"),
        ("src/cli.rs", concat!("let back", "end = 1;"), "say node"),
        ("docs/x.md", concat!("The Back", "end, he said"), "say node"),
    ];
    for (file, text, expected) in cases {
        let found = judge(Path::new(file), text);
        assert!(found.iter().any(|line| line.contains(expected)), "{file}: {text}: {found:?}");
        assert!(found.iter().all(|line| line.starts_with(&format!("{file}:"))), "{found:?}");
    }
    let long = "\n".repeat(MAX_LINES + 1);
    assert!(judge(Path::new("src/cli.rs"), &long)[0].contains("lines"));
}

#[test]
fn what_is_allowed_is_not_found() {
    let cases = [
        ("src/exchange.rs", "use crate::balance::Pick;\nuse crate::exchange::tunnel;"),
        (
            "src/route.rs",
            "//! See `crate::listener`.\n/* crate::admin */ const A: &str = \"crate::admin\";",
        ),
        ("src/route.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    let now = Instant::now();\n}"),
        ("src/health/tests.rs", "let now = Instant::now();"),
        ("src/control.rs", "let now = Instant::now(); f().await;"),
        ("src/config/raw.rs", "let quote = '\"'; use crate::units; let other = '\"';"),
    ];
    for (file, text) in cases {
        assert_eq!(judge(Path::new(file), text), Vec::<String>::new(), "{file}: {text}");
    }
}

/// What is ours to keep tidy: code, configuration and prose, in the order of their names.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in ["src", "tests", "benches", "config", "docs"] {
        walk(root, Path::new(part), &mut found);
    }
    for part in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        found.push(PathBuf::from(part));
    }
    let known = ["rs", "toml", "md"];
    found.retain(|file| file.extension().is_some_and(|e| known.iter().any(|known| e == *known)));
    found.sort();
    found
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(root.join(directory)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = directory.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => walk(root, &path, found),
            false => found.push(path),
        }
    }
}

fn judge(file: &Path, text: &str) -> Vec<String> {
    let others = SPEAKS_OF_OTHERS.iter().any(|other| file == Path::new(other));
    let mut found = if others { Found::new() } else { words(text) };
    if file.extension().is_some_and(|extension| extension == "rs") {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push((MAX_LINES + 1, format!("{lines} lines; {MAX_LINES} are enough")));
        }
        if file.starts_with("src") {
            found.extend(layers(file, &code(text)));
        }
    }
    found.iter().map(|(line, what)| format!("{}:{line}: {what}", file.display())).collect()
}

type Found = Vec<(usize, String)>;

fn words(text: &str) -> Found {
    let mut found = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (word, remedy) in BANNED {
            let seen = match word.chars().any(char::is_lowercase) {
                true => has_word(&lower, word),
                false => has_word(line, word),
            };
            if seen {
                found.push((nth + 1, format!("the word `{word}`: {remedy}")));
            }
        }
    }
    found
}

/// Whether a word stands alone or as a part of a name, but not inside another word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

fn layers(file: &Path, code: &str) -> Found {
    let module = file.components().nth(1).map(|part| part.as_os_str().to_string_lossy());
    let module = module.unwrap_or_default().trim_end_matches(".rs").to_owned();
    let Some(own) = layer(&module) else {
        return vec![(1, format!("`{module}` has no layer in tests/tidy.rs"))];
    };
    let mut found = Vec::new();
    for (at, used) in used(code) {
        match layer(&used) {
            Some(other) if other <= own => {}
            Some(_) => found.push((line(code, at), format!("layer {own} must not use `{used}`"))),
            // A macro or an item of lib.rs itself.
            None => {}
        }
    }
    if !is_test(file) {
        found.extend(waits(own, without_tests(code)));
    }
    found
}

fn waits(own: usize, code: &str) -> Found {
    let mut found = Vec::new();
    let mut look = |what: &str, rule: &str| {
        for (at, _) in code.match_indices(what) {
            found.push((line(code, at), format!("`{what}`: layer {own} {rule}")));
        }
    };
    if NEVER_WAITS.contains(&own) {
        look(".await", "never waits");
    }
    if own == PURE {
        look("tokio::", "is pure: no runtime, no sockets");
        for what in ["Instant::now", "SystemTime::now", "now_ns()"] {
            look(what, "is pure: `now` is an argument");
        }
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The modules that code names after `crate::`, with their places; also those of a braced list.
fn used(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push((at, name(rest)));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (offset, char) in list.char_indices() {
            match char {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                char if begins && !char.is_whitespace() => {
                    found.push((at + prefix.len() + 1 + offset, name(&list[offset..])));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

fn line(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// Unit tests are last in a file.
fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

/// Rust without comments and without what is in quotes; lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| quoted(rest));
        match skipped {
            Some(length) => {
                out.extend(rest[..length].chars().filter(|char| *char == '\n'));
                rest = &rest[length..];
            }
            None => {
                out.push(char);
                rest = &rest[char.len_utf8()..];
            }
        }
    }
    out
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.strip_prefix("/*").map(|body| body.find("*/").map_or(rest.len(), |end| end + 4))
}

fn quoted(rest: &str) -> Option<usize> {
    if let Some(body) = rest.strip_prefix('"') {
        return Some(1 + closing(body, '"'));
    }
    // A char, not a lifetime: `'"'` would begin a string that never ends.
    for quote in ["'\"'", "'\\\"'", "'\\''"] {
        if rest.starts_with(quote) {
            return Some(quote.len());
        }
    }
    let hashes = rest.strip_prefix('r')?.chars().take_while(|char| *char == '#').count();
    if hashes > 0 && rest[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
    }
    None
}

/// Bytes up to and with the closing quote, escapes skipped.
fn closing(body: &str, quote: char) -> usize {
    let mut chars = body.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => {
                chars.next();
            }
            char if char == quote => return at + 1,
            _ => {}
        }
    }
    body.len()
}
