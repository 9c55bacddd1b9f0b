//! Where the configuration is, and where a running process listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::client::{self, Client};
use crate::config::{Config, defaults};
use crate::control;
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
    let (config, unknown) = match config(at) {
        Ok(config) => (Some(config), None),
        // The process may run with another.
        Err(error) if at.config.is_none() => (None, Some(error)),
        Err(error) => return Err(error),
    };
    if let Some(client) = named(at, config.as_ref())? {
        return Ok(client);
    }
    if config.as_ref().is_some_and(|config| !config.admin.enabled) {
        bail!("the configuration has `enabled = false` in `[admin]`");
    }
    let bind = config
        .as_ref()
        .map_or(Address::Tcp(defaults::ADMIN_BIND), |config| config.admin.bind.clone());
    let address = match bind {
        Address::Tcp(bind) => reachable(bind).to_string(),
        unix => unix.to_string(),
    };
    let client = Client::new(address, token(at, config.as_ref())?);
    Ok(match unknown {
        Some(error) => client.guessed(format!("{error:#}")),
        None => client,
    })
}

/// A client of a listener that knows `/livez`: the admin listener, else the probes'.
///
/// # Errors
/// As [`admin`].
pub(super) fn alive(at: &Where) -> Result<Client> {
    let config = config(at).ok();
    let probes = config.as_ref().filter(|config| !config.admin.enabled);
    match probes.and_then(|config| config.probes.as_ref()) {
        Some(probes) if at.admin.is_none() => {
            Ok(Client::new(reachable(probes.bind).to_string(), None))
        }
        _ => admin(at),
    }
}

fn named(at: &Where, config: Option<&Config>) -> Result<Option<Client>> {
    let environment = || std::env::var("COBALANCE_ADMIN").ok().filter(|text| !text.is_empty());
    let Some(address) = at.admin.clone().or_else(environment) else { return Ok(None) };
    Ok(Some(Client::new(address, token(at, config)?)))
}

/// The configuration that the running process probably has.
fn config(at: &Where) -> Result<Config> {
    let file = file(at.config.as_deref());
    let read = control::read(&file).with_context(|| file.display().to_string())?;
    let (config, _) = read.found.map_err(|_| {
        let file = file.display();
        anyhow!("{file} cannot be used: `cobalance check {file}` says why")
    })?;
    Ok(config)
}

fn token(at: &Where, config: Option<&Config>) -> Result<Option<String>> {
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
    let Some(admin) = config.map(|config| &config.admin) else { return Ok(None) };
    let read = |file: &PathBuf| client::token(file).map(Some);
    match (admin.token_file.as_ref().map(read), &admin.read_token_file) {
        // Not everybody who may read may change.
        (Some(Err(error)), Some(file)) => read(file).or(Err(error)),
        (found, _) => found.unwrap_or(Ok(None)),
    }
}

/// An address to connect to, for one that was bound: any interface is also loopback.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
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
        ];
        for (bound, expected) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), expected);
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

    #[test]
    fn a_configuration_that_is_asked_for_is_the_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        let at = Where { config: Some(path.clone()), ..Where::default() };
        let said = || admin(&at).err().unwrap().to_string();
        assert_eq!(said(), path.display().to_string(), "and what the system says");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(said().contains(&format!("`cobalance check {}` says why", path.display())));
        let text = "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [\"127.0.0.1:9\"]\n\
                    [admin]\nbind = \"127.0.0.1:77\"\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(admin(&at).unwrap().address, "127.0.0.1:77");
    }
}
