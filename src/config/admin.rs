//! `[admin]`, as meant.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::defaults;

/// `sun_path` of Linux has 108 bytes (unix(7)); some are left for the name that a socket has until it is in
/// its place.
const MAX_PATH: usize = 90;
/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Off takes `status` and the other verbs away.
    pub enabled: bool,
    /// Loopback or a Unix socket unless `token_file` is given.
    pub bind: AdminBind,
    /// Of a Unix socket: who of this machine may connect.
    pub mode: u32,
    /// Names that the listener is called by, besides addresses and `localhost`; in lower case.
    pub hosts: Vec<String>,
    /// Holds the tokens that may do everything.
    pub token_file: Option<PathBuf>,
    /// Holds the tokens that may only read.
    pub read_token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: AdminBind::Tcp(defaults::ADMIN_BIND),
            mode: defaults::ADMIN_SOCKET_MODE,
            hosts: Vec::new(),
            token_file: None,
            read_token_file: None,
        }
    }
}

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// An address; port 0 is any free one.
    Tcp(SocketAddr),
    /// A socket in the file system, by its whole path.
    Unix(PathBuf),
}

impl AdminBind {
    /// The address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            AdminBind::Tcp(address) => Some(*address),
            AdminBind::Unix(_) => None,
        }
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// The path of `unix:PATH`; none for another form.
    ///
    /// # Errors
    /// The path cannot be that of a socket: what is wrong, and what to write.
    pub fn unix(text: &str) -> Option<Result<PathBuf, (&'static str, &'static str)>> {
        let path = text.strip_prefix(UNIX)?;
        Some(if !path.starts_with('/') {
            let help = "write the whole path, such as \"unix:/run/cobalance/admin.sock\"";
            Err(("not a path that begins with `/`", help))
        } else if path.len() > MAX_PATH || path.contains('\0') || path.ends_with('/') {
            Err(("no path that a socket can have", "write a path of at most 90 bytes"))
        } else {
            Ok(Path::new(path).to_owned())
        })
    }
}

impl FromStr for AdminBind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match AdminBind::unix(text) {
            Some(Ok(path)) => Ok(AdminBind::Unix(path)),
            Some(Err((label, help))) => Err(format!("{label}; {help}")),
            None => text
                .parse()
                .map(AdminBind::Tcp)
                .map_err(|_| "write an IP address and a port, or \"unix:\" and a path".to_owned()),
        }
    }
}

impl fmt::Display for AdminBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminBind::Tcp(address) => address.fmt(f),
            AdminBind::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for AdminBind {
    fn from(address: SocketAddr) -> AdminBind {
        AdminBind::Tcp(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_shown_alike() {
        for (text, local) in [
            ("127.0.0.1:9901", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/run/cobalance/admin.sock", true),
            ("0.0.0.0:9901", false),
            ("10.0.0.1:9901", false),
        ] {
            let bind: AdminBind = text.parse().unwrap();
            assert_eq!((bind.to_string().as_str(), bind.is_local()), (text, local));
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH));
        for text in ["unix:", "unix:a.sock", "unix:/run/", "localhost:1", "/run/a.sock", &long] {
            assert!(text.parse::<AdminBind>().is_err(), "{text}");
        }
    }
}
