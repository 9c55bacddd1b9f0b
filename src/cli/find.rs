//! Where the configuration is, and where a running process listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::client::{self, Client};
use crate::config::{self, Admin, Probes, Source, Whereabouts, defaults};
use crate::net::Address;

/// Holds the bearer token, when it is not in a file.
const TOKEN_VARIABLE: &str = "COBALANCE_ADMIN_TOKEN";
/// Names the file that holds it.
const TOKEN_FILE_VARIABLE: &str = "COBALANCE_TOKEN_FILE";
/// The file when nobody names another.
const FILE: &str = "config/cobalance.toml";

// Where a running process is. No doc comment: it would be shown as what a command does.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Where {
    /// Its admin listener, as HOST:PORT or unix:PATH [default: $COBALANCE_ADMIN, then the configuration's, then 127.0.0.1:9901]
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Option<String>,
    /// Its configuration, which says so [default: $COBALANCE_CONFIG, then config/cobalance.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Holds its token [default: $COBALANCE_ADMIN_TOKEN, $COBALANCE_TOKEN_FILE, then the configuration's]
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// The configuration's file: as asked for, else by the environment, else the usual one.
pub(super) fn file(asked: Option<&Path>) -> PathBuf {
    let named = || std::env::var_os("COBALANCE_CONFIG").filter(|name| !name.is_empty());
    asked.map(Path::to_owned).or_else(|| named().map(PathBuf::from)).unwrap_or_else(|| FILE.into())
}

/// A client of the admin listener.
///
/// # Errors
/// If a token's file or the configuration that is asked for cannot be read, or that has no admin listener.
pub(super) fn admin(at: &Where) -> Result<Client> {
    let found = match told(at) {
        Ok(found) => found,
        // The process may run with another.
        Err(error) if at.config.is_none() => Told::unknown(&error),
        Err(error) => return Err(error.context("name its address by --admin, or another file")),
    };
    let token = token(at, &found.admin);
    if let Some(address) = named(at) {
        return Ok(Client::new(address, token?));
    }
    if !found.admin.enabled && found.doubt.is_none() {
        bail!("the configuration has `enabled = false` in `[admin]`");
    }
    Ok(Client::new(reachable(&found.admin.bind), token?).guessed(found.doubt))
}

/// Clients of listeners that know `/livez`, the likeliest first: the admin listener, then the probes'. What is wrong
/// with a file, that the process did not take over then, is no fault of the process: it is only looked for in more
/// places. Nor is a token that cannot be read: see [`lives`](super::lives).
///
/// # Errors
/// If the configuration has no such listener, or the file of a token that is named cannot be read.
pub(super) fn alive(at: &Where) -> Result<Vec<Client>> {
    let found = told(at).unwrap_or_else(|error| Told::unknown(&error));
    let token = match token(at, &found.admin) {
        Err(error) if at.token_file.is_some() => return Err(error),
        token => token.unwrap_or_default(),
    };
    if let Some(address) = named(at) {
        return Ok(vec![Client::new(address, token)]);
    }
    let admin = found.admin.enabled.then(|| (found.admin.bind.clone(), token));
    let probes = found.probes.map(|probes| (Address::Tcp(probes.bind), None));
    let usual = found.doubt.as_ref().map(|_| (Address::Tcp(defaults::ADMIN_BIND), None));
    let mut places: Vec<(Address, Option<String>)> = Vec::new();
    for place in admin.into_iter().chain(probes).chain(usual) {
        if places.iter().all(|(known, _)| *known != place.0) {
            places.push(place);
        }
    }
    if places.is_empty() {
        bail!("the configuration has `enabled = false` in `[admin]`, and no `[probes]`");
    }
    let client = |(bind, token): (Address, _)| {
        Client::new(reachable(&bind), token).guessed(found.doubt.clone())
    };
    Ok(places.into_iter().map(client).collect())
}

/// An address that somebody has named, whatever a configuration says.
fn named(at: &Where) -> Option<String> {
    let environment = || std::env::var("COBALANCE_ADMIN").ok().filter(|text| !text.is_empty());
    at.admin.clone().or_else(environment)
}

/// What the file tells of where the process is.
struct Told {
    admin: Admin,
    probes: Option<Probes>,
    /// Why it may be elsewhere, if it may.
    doubt: Option<String>,
}

impl Told {
    /// The default, because of this.
    fn unknown(error: &anyhow::Error) -> Told {
        Told { admin: Admin::default(), probes: None, doubt: Some(format!("{error:#}")) }
    }
}

/// What the configuration tells that the running process probably has. Errors in other tables say nothing of that:
/// a process goes on with what it has when its file is no longer good.
fn told(at: &Where) -> Result<Told> {
    let file = file(at.config.as_deref());
    let name = file.display().to_string();
    let text = std::fs::read_to_string(&file).with_context(|| name.clone())?;
    let source = Source { name, text };
    let found = config::whereabouts(&source, &|name| std::env::var(name).ok());
    let Whereabouts { admin, probes, certain } = found;
    let file = source.name;
    let doubt =
        (!certain).then(|| format!("{file} has errors: `cobalance check {file}` shows them"));
    Ok(Told { admin, probes, doubt })
}

fn token(at: &Where, admin: &Admin) -> Result<Option<String>> {
    let named = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    if let Some(file) = &at.token_file {
        return client::token(file).map(Some);
    }
    if let Some(token) = named(TOKEN_VARIABLE) {
        return Ok(Some(token.trim().to_owned()));
    }
    if let Some(file) = named(TOKEN_FILE_VARIABLE) {
        return client::token(Path::new(&file)).map(Some);
    }
    let read = |file: &PathBuf| client::token(file).map(Some);
    match (admin.token_file.as_ref().map(read), &admin.read_token_file) {
        // Not everybody who may read may change.
        (Some(Err(error)), Some(file)) => read(file).or(Err(error)),
        (found, _) => found.unwrap_or(Ok(None)),
    }
}

/// An address to connect to, for one that was bound: any interface is also loopback.
fn reachable(bound: &Address) -> String {
    let Address::Tcp(bound) = bound else { return bound.to_string() };
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_to_any_is_reached_by_loopback() {
        let cases = [
            ("0.0.0.0:9901", "127.0.0.1:9901"),
            ("[::]:9901", "[::1]:9901"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ];
        for (bound, expected) in cases {
            assert_eq!(reachable(&bound.parse().unwrap()), expected);
        }
    }

    #[test]
    fn what_is_asked_for_comes_first() {
        let at = Where { admin: Some("example:1".into()), ..Where::default() };
        assert_eq!(admin(&at).unwrap().address, "example:1");
        assert_eq!(file(Some(Path::new("a.toml"))), Path::new("a.toml"));
        let missing = Where { token_file: Some("/nonexistent/token".into()), ..at };
        assert!(admin(&missing).is_err());
    }

    /// A file with this in its `[admin]`, and something of `more` below it.
    fn at(dir: &Path, admin: &str, more: &str) -> Where {
        let path = dir.join("a.toml");
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [\"127.0.0.1:9\"]\n\
             [probes]\nbind = \"0.0.0.0:88\"\n[admin]\n{admin}\n{more}\n"
        );
        std::fs::write(&path, text).unwrap();
        Where { config: Some(path), ..Where::default() }
    }

    fn addresses(at: &Where) -> Vec<String> {
        alive(at).unwrap().into_iter().map(|client| client.address).collect()
    }

    #[test]
    fn a_configuration_that_is_asked_for_is_the_one() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Where { config: Some(dir.path().join("none.toml")), ..Where::default() };
        let said = format!("{:#}", admin(&missing).err().unwrap());
        assert!(said.contains("none.toml") && said.contains("--admin"), "{said}");
        let good = at(dir.path(), "bind = \"127.0.0.1:77\"", "");
        assert_eq!(admin(&good).unwrap().address, "127.0.0.1:77");
        assert_eq!(addresses(&good), ["127.0.0.1:77", "127.0.0.1:88"]);
        let off = at(dir.path(), "enabled = false", "");
        assert!(admin(&off).is_err());
        assert_eq!(addresses(&off), ["127.0.0.1:88"]);
    }

    #[test]
    fn what_is_wrong_elsewhere_in_the_file_hides_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let bind = "bind = \"127.0.0.1:77\"";
        for more in [
            "[server]\nthreads = \"many\"",
            "[sever]",
            "[[certificate]]\nname = \"a\"\nchain = \"/nonexistent\"\nkey = \"/nonexistent\"",
        ] {
            let at = at(dir.path(), bind, more);
            assert_eq!(admin(&at).unwrap().address, "127.0.0.1:77", "{more}");
            assert_eq!(addresses(&at), ["127.0.0.1:77", "127.0.0.1:88"], "{more}");
        }
    }

    #[test]
    fn where_the_place_itself_is_in_doubt_the_usual_one_is_asked_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (own, usual) = ("127.0.0.1:77", defaults::ADMIN_BIND.to_string());
        let bind = "bind = \"127.0.0.1:77\"";
        for (admin, more, expected) in [
            (bind, "]] no TOML [[", vec![own, "127.0.0.1:88", &usual]),
            ("bind = 77", "", vec![usual.as_str(), "127.0.0.1:88"]),
            ("enabled = false\nbind = 77", "", vec!["127.0.0.1:88", &usual]),
        ] {
            assert_eq!(addresses(&at(dir.path(), admin, more)), expected, "{admin} {more}");
        }
        let missing = Where { config: Some(dir.path().join("none.toml")), ..Where::default() };
        assert_eq!(addresses(&missing), [usual]);
        // Its owner alone may read it: who asks without is refused by somebody, and that is answer enough.
        let unread = format!("{bind}\ntoken_file = \"/nonexistent/token\"");
        let unread = at(dir.path(), &unread, "");
        assert!(admin(&unread).is_err());
        assert_eq!(addresses(&unread)[0], own);
    }
}
