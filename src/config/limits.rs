//! Who may come, and how often: lists of networks with their files, and rates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::address;

/// Larger files are somebody's mistake: this is ten times what public lists of the whole Internet have.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Networks of one file.
const MAX_NETWORKS: usize = 1_000_000;
/// More of a line is not repeated.
const SHOWN: usize = 60;

/// Who may come to a listener or by a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Only these; `None` is everybody.
    pub allow: Option<NetworkList>,
    /// Never these, whatever is allowed.
    pub deny: Option<NetworkList>,
}

impl Access {
    /// The files of its lists.
    pub fn files(&self) -> impl Iterator<Item = &ListFile> {
        let lists = [&self.allow, &self.deny];
        lists.into_iter().flatten().filter_map(|list| list.file.as_ref())
    }
}

/// A list as written, and its file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkList {
    /// In the configuration itself.
    pub networks: Vec<IpNet>,
    /// Read with the configuration, and again when it changes.
    pub file: Option<ListFile>,
}

/// A file of networks.
#[derive(Clone, Debug, PartialEq)]
pub struct ListFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was in it.
    pub loaded: Arc<[IpNet]>,
}

/// What is wrong with a file of networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListProblem {
    /// Beginning with 1; none where it is about the whole file.
    pub line: Option<usize>,
    /// What.
    pub what: String,
}

impl std::fmt::Display for ListProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Reads a file of networks: one a line, what follows it and what follows `#` or `;` is a comment.
///
/// # Errors
/// It cannot be read, or a line is no network: the first such.
pub fn read_list(path: &Path) -> Result<Arc<[IpNet]>, ListProblem> {
    let whole = |what: String| ListProblem { line: None, what };
    let unreadable = |error: std::io::Error| whole(format!("it cannot be read: {error}"));
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE {
        return Err(whole(format!("it has {length} bytes, and at most {MAX_FILE} are read")));
    }
    parse_list(&std::fs::read_to_string(path).map_err(unreadable)?)
}

fn parse_list(text: &str) -> Result<Arc<[IpNet]>, ListProblem> {
    let mut networks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}');
        let written = line.split(['#', ';']).next().unwrap_or_default();
        let Some(word) = written.split_whitespace().next() else { continue };
        let problem = |what| ListProblem { line: Some(index + 1), what };
        let network = address::network(word).map_err(|_| {
            let shown: String = word.chars().take(SHOWN).collect();
            problem(format!("`{shown}` is not an address or a network"))
        })?;
        if networks.len() == MAX_NETWORKS {
            return Err(problem(format!("more than {MAX_NETWORKS} networks")));
        }
        networks.push(network);
    }
    Ok(networks.into())
}

/// How often: `"10/min"`, `"100/s burst 200"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many
    pub count: u32,
    /// in so long,
    pub per: Duration,
    /// and so many at once.
    pub burst: u32,
}

const UNITS: [(&str, u64); 8] = [
    ("s", 1),
    ("sec", 1),
    ("m", 60),
    ("min", 60),
    ("h", 3600),
    ("hour", 3600),
    ("d", 86_400),
    ("day", 86_400),
];

/// More is no limit.
const MOST: u32 = 1_000_000;

impl Rate {
    /// Reads one. Where no burst is written it is the count.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Rate, &'static str> {
        let mut words = text.split_whitespace();
        let (count, unit) = words
            .next()
            .and_then(|rate| rate.split_once('/'))
            .ok_or("not a number, a slash and a unit of time")?;
        let count = number(count)?;
        let unit = UNITS.iter().find(|(word, _)| *word == unit).ok_or("this unit is not known")?;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, ..) => count,
            (Some("burst"), Some(burst), None) => number(burst)?,
            _ => return Err("something else follows the rate"),
        };
        Ok(Rate { count, per: Duration::from_secs(unit.1), burst })
    }
}

fn number(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("this is not a whole number");
    }
    match text.parse() {
        Ok(0) => Err("zero would let nobody through"),
        Ok(number @ 1..=MOST) => Ok(number),
        _ => Err("more than a million is no limit"),
    }
}

/// What a rate is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// The client's address after trusted proxies; a /64 of IPv6 is one client.
    ClientIp,
    /// A request field, by lower-case name; who does not send it counts by address.
    Header(String),
}

/// Which actions of NocoBase a rate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionPattern {
    /// `auth`, or `*` for all.
    pub resource: String,
    /// `signIn`, or `*` for all.
    pub action: String,
}

/// `[[rate_limit]]`
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Unique.
    pub name: String,
    /// What is counted.
    pub by: RateKey,
    /// Of all requests that it is for.
    pub rate: Option<Rate>,
    /// Of requests that call an action.
    pub actions: Vec<(ActionPattern, Rate)>,
    /// Only by this route; an index into the configuration's.
    pub route: Option<usize>,
    /// Only to this upstream; an index into the configuration's.
    pub upstream: Option<usize>,
    /// Clients that are remembered, for each rate.
    pub clients: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_line_by_line() {
        let text =
            "\u{feff}# ours\n\n192.0.2.0/24 ; SBL1\r\n  10.1.2.3/8\t# truncated\n2001:db8::1\n";
        let shown: Vec<String> =
            parse_list(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::1/128"]);
        assert_eq!(parse_list("").unwrap().len(), 0);
        for (text, line) in [("x", 1), ("10.0.0.1\n\n300.1.1.1\n", 3), ("10.0.0.0/33", 1)] {
            let problem = parse_list(text).unwrap_err();
            assert_eq!(problem.line, Some(line), "{problem}");
        }
        let problem = parse_list(&"y".repeat(1000)).unwrap_err().to_string();
        assert!(problem.len() < 120 && problem.starts_with("line 1: `yyy"), "{problem}");
        let gone = read_list(Path::new("/proc/none")).unwrap_err().to_string();
        assert!(gone.starts_with("it cannot be read: "), "{gone}");
    }

    #[test]
    fn a_list_has_an_end() {
        let text = "10.0.0.1\n".repeat(MAX_NETWORKS + 1);
        assert_eq!(parse_list(&text).unwrap_err().line, Some(MAX_NETWORKS + 1));
    }

    #[test]
    fn rates_are_read() {
        let rate = |count, per, burst| Ok(Rate { count, per: Duration::from_secs(per), burst });
        for (text, expected) in [
            ("10/s", rate(10, 1, 10)),
            ("10/min", rate(10, 60, 10)),
            ("10/m burst 3", rate(10, 60, 3)),
            ("100/hour burst 1000", rate(100, 3600, 1000)),
            (" 1/d ", rate(1, 86_400, 1)),
        ] {
            assert_eq!(Rate::parse(text), expected, "{text}");
        }
        for text in [
            "",
            "10",
            "/s",
            "x/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "0/s",
            "10/",
            "10/fortnight",
            "10/S",
            "10/s burst",
            "10/s burst 0",
            "10/s burst 5 6",
            "10/s 5",
            "2000000/s",
            "99999999999/s",
        ] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
