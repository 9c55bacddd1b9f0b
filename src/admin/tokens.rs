//! Who may do what: the tokens of `token_file`, which may do everything, and those of `read_token_file`, which
//! may only read.
//!
//! A file has one token a line, so that a new one can be given out before the old one goes. Only digests are
//! kept; they are of one length whatever the tokens are, and are compared to their ends.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest, Sha256};

use crate::config::Admin;

/// More administrators, scripts and scrapers than one balancer has.
const MOST: usize = 64;
/// As many of the longest tokens, with names and remarks.
const MOST_BYTES: usize = 64 * 1024;
/// Longer than any that people or programs make.
const LONGEST: usize = 512;
/// Sixteen characters of 64 kinds are 96 bits. Fewer may be found by trying, and are a warning.
const SHORT: usize = 16;
const LONGEST_NAME: usize = 32;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    Full,
    /// What changes nothing.
    Read,
}

/// All tokens of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    all: Vec<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// For causes and logs.
    name: String,
    /// SHA-256 of the token.
    digest: [u8; 32],
    access: Access,
}

/// What is known of a token that somebody has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) access: Access,
    pub(super) name: &'a str,
    /// It may be found by trying.
    pub(super) short: bool,
}

/// A token as written.
#[derive(Debug, PartialEq, Eq)]
struct Written<'a> {
    name: Option<&'a str>,
    token: &'a str,
    /// Counted from 1.
    line: usize,
}

impl Tokens {
    /// Reads the files of a configuration: none if it names none. Also what is wrong with them that does not
    /// keep them from being used. Blocks.
    ///
    /// # Errors
    /// A file cannot be used; nothing of it is in the message.
    pub(super) fn read(admin: &Admin) -> io::Result<(Option<Tokens>, Option<String>)> {
        let files = [
            // First, so that one that is in both files may only read.
            ("read_token_file", admin.read_token_file.as_deref(), Access::Read),
            ("token_file", admin.token_file.as_deref(), Access::Full),
        ];
        let (mut tokens, mut found) = (Tokens::default(), Vec::new());
        for (key, path, access) in files {
            let Some(path) = path else { continue };
            let text = text(path).and_then(|text| {
                tokens.add(&text, key, access, &mut found).map_err(io::Error::other)
            });
            text.map_err(|error| {
                io::Error::new(error.kind(), format!("`{key}` {}: {error}", path.display()))
            })?;
            found.extend(exposed(path).map(|how| format!("`{key}` {} {how}", path.display())));
        }
        let warning = (!found.is_empty()).then(|| found.join("; "));
        Ok(((!tokens.all.is_empty()).then_some(tokens), warning))
    }

    fn add(
        &mut self,
        text: &str,
        key: &str,
        access: Access,
        found: &mut Vec<String>,
    ) -> Result<(), String> {
        for Written { name, token, line } in parse(text)? {
            let digest = Sha256::digest(token.as_bytes()).into();
            let name = name.map_or_else(|| format!("{key}:{line}"), str::to_owned);
            if token.len() < SHORT {
                found.push(format!(
                    "the token `{name}` is shorter than {SHORT} characters: it may be found by trying"
                ));
            }
            if access == Access::Full && self.all.iter().any(|known| known.digest == digest) {
                found.push(format!(
                    "the token `{name}` is in `read_token_file` too: it may only read"
                ));
                continue;
            }
            self.all.push(Known { name, digest, access });
        }
        Ok(())
    }

    /// What is known of a token. All tokens are looked at, each to its end, so that the time it
    /// takes tells nothing.
    pub(super) fn find(&self, given: &[u8]) -> Option<Found<'_>> {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for known in &self.all {
            let same = verify_slices_are_equal(&known.digest, &digest).is_ok();
            if same && found.is_none() {
                let short = given.len() < SHORT;
                found = Some(Found { access: known.access, name: &known.name, short });
            }
        }
        found
    }
}

/// The first token of a file, for who shows one.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn first(path: &Path) -> io::Result<String> {
    let text = text(path)?;
    let written = parse(&text).map_err(io::Error::other)?;
    Ok(written[0].token.to_owned())
}

fn text(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(MOST_BYTES as u64 + 1);
    file.read_to_string(&mut text)?;
    match text.len() {
        ..=MOST_BYTES => Ok(text),
        _ => Err(io::Error::other("it is too large for a file of tokens")),
    }
}

/// At least one.
fn parse(text: &str) -> Result<Vec<Written<'_>>, String> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), at + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, token) = match line.split_once(|c: char| c.is_ascii_whitespace()) {
            Some((name, token)) => (Some(name), token.trim_start()),
            None => (None, line),
        };
        if name.is_some_and(|name| !is_name(name)) {
            return Err(format!(
                "line {number}: a name has up to {LONGEST_NAME} letters, digits and any of `-_.@`"
            ));
        }
        if token.len() > LONGEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "line {number}: a token has up to {LONGEST} visible ASCII characters, and no space"
            ));
        }
        all.push(Written { name, token, line: number });
    }
    match all.len() {
        0 => Err("it holds no token".into()),
        1..=MOST => Ok(all),
        _ => Err(format!("it holds more than {MOST} tokens")),
    }
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    name.len() <= LONGEST_NAME && name.bytes().all(good)
}

/// Who else can get at a file, if anybody of this machine can.
fn exposed(path: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    match (mode & 0o022 != 0, mode & 0o004 != 0) {
        (true, _) => Some("can be written by others: `chmod 600` it"),
        (_, true) => Some("can be read by everybody here: `chmod 600` it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef";

    fn files(full: &str, read: &str) -> (Admin, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            Some(path)
        };
        let token_file = write("full", full);
        let read_token_file = write("read", read).filter(|_| !read.is_empty());
        (Admin { token_file, read_token_file, ..Admin::default() }, dir)
    }

    #[test]
    fn each_token_of_both_files_is_found_by_its_name_and_no_other_is() {
        let (admin, _dir) = files(
            &format!("# operators\nops {LONG}1\n\n  {LONG}2  \n"),
            &format!("prometheus\t{LONG}3\n{LONG}2"),
        );
        let (tokens, warning) = Tokens::read(&admin).unwrap();
        let tokens = tokens.unwrap();
        let find = |n: &str| {
            let found = tokens.find(format!("{LONG}{n}").as_bytes());
            found.map(|found| (found.access, found.name))
        };
        assert_eq!(find("1"), Some((Access::Full, "ops")));
        assert_eq!(find("3"), Some((Access::Read, "prometheus")));
        assert_eq!(find("2"), Some((Access::Read, "read_token_file:2")), "it is in both");
        let told = warning.unwrap();
        assert!(told.contains("`token_file:4` is in `read_token_file` too"), "{told}");
        for wrong in ["", "4", "11", " 1"] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
        assert_eq!(tokens.find(b""), None);
        assert!(!format!("{tokens:?}").contains(LONG));
        assert_eq!(first(admin.token_file.as_deref().unwrap()).unwrap(), format!("{LONG}1"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_by_its_line_and_nothing_of_it_is() {
        let many = format!("{LONG}\n").repeat(MOST + 1);
        let cases = [
            ("", "holds no token"),
            ("# only\n\n", "holds no token"),
            ("a b c", "line 1: a token has"),
            ("x y/z@ä", "line 1: a token has"),
            ("\nna/me s3cret", "line 2: a name has"),
            (many.as_str(), "more than 64"),
        ];
        for (text, expected) in cases {
            let (admin, _dir) = files(text, "");
            let error = Tokens::read(&admin).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("`token_file` /"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let (admin, _dir) = files(&"x".repeat(MOST_BYTES + 1), "");
        assert!(Tokens::read(&admin).unwrap_err().to_string().contains("too large"));
        let missing = Admin { token_file: Some("/nonexistent".into()), ..Admin::default() };
        assert_eq!(Tokens::read(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Tokens::read(&Admin::default()).unwrap(), (None, None));
    }

    #[test]
    fn what_others_can_read_or_guess_is_a_warning() {
        let (admin, _dir) = files(LONG, "");
        assert_eq!(Tokens::read(&admin).unwrap().1, None);
        let path = admin.token_file.clone().unwrap();
        for (mode, expected) in [(0o644, "read by everybody"), (0o620, "written by others")] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let warning = Tokens::read(&admin).unwrap().1.unwrap();
            assert!(warning.contains(expected), "{warning}");
        }
        let (admin, _dir) = files("short", "");
        let warning = Tokens::read(&admin).unwrap().1.unwrap();
        assert!(warning.contains("`token_file:1` is shorter than 16"), "{warning}");
        assert!(!warning.contains("short "), "{warning}");
    }
}
