//! Where a listener or a node is, and who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the text of a Unix socket's address begins with.
pub const UNIX: &str = "unix:";

/// What a socket's name has more until it is in its place: a dot and the number of a process, which is 2^22 at
/// most (proc(5), `pid_max`).
pub(super) const INTERIM: usize = 8;
/// Bytes of the path of a Unix socket: the kernel's `sun_path` without the NUL at its end (unix(7)), 107, less
/// what its name has more at first.
pub const MAX_PATH: usize = 107 - INTERIM;

/// Where a listener or a node is. Its text is `127.0.0.1:80`, `[::1]:80`, or `unix:/run/x.sock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(Arc<str>),
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address with a port, and not `unix:` with an absolute path")]
pub struct NoAddress;

impl Address {
    /// The IP address and port, if it has any.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The path, if it is a Unix socket's.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Address::Tcp(_) => None,
            Address::Unix(path) => Some(Path::new(&**path)),
        }
    }

    /// Its port.
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|address| address.port())
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Whether it asks for any free port, so that two of the same text are two listeners.
    pub fn is_any_port(&self) -> bool {
        self.port() == Some(0)
    }

    /// What a request without any other name says in `Host`. A Unix socket has no name of its own there.
    pub fn host(&self) -> String {
        match self {
            // The zone of a link-local address means nothing to anybody else (RFC 6874, 1).
            Address::Tcp(SocketAddr::V6(v6)) => {
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).to_string()
            }
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Address, NoAddress> {
        match text.strip_prefix(UNIX) {
            Some(path) if is_socket_path(path) => Ok(Address::Unix(path.into())),
            Some(_) => Err(NoAddress),
            None => socket_address(text).map(Address::Tcp).ok_or(NoAddress),
        }
    }
}

/// Whether a Unix socket can have this path: absolute, of a file, and not too long for the kernel.
pub fn is_socket_path(path: &str) -> bool {
    path.starts_with('/') && !path.ends_with('/') && path.len() <= MAX_PATH && !path.contains('\0')
}

/// An IP address with a port. The zone of an IPv6 address may be the name of an interface of this machine,
/// which the standard library does not read: `[fe80::1%eth0]:80`.
pub fn socket_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (zone, bare) = zone(text)?;
    let SocketAddr::V6(mut address) = bare.parse().ok()? else { return None };
    address.set_scope_id(interface(zone)?);
    Some(SocketAddr::V6(address))
}

/// The zone of an IPv6 address in brackets, and the text without it.
pub fn zone(text: &str) -> Option<(&str, String)> {
    let (ip, rest) = text.strip_prefix('[')?.split_once(']')?;
    let (ip, zone) = ip.split_once('%')?;
    Some((zone, format!("[{ip}]{rest}")))
}

/// The host of an authority or a `Host` field, without its port; the brackets of an IPv6 address stay.
pub fn host_of(authority: &[u8]) -> &[u8] {
    let end = match authority {
        [b'[', ..] => authority.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => authority.iter().position(|byte| *byte == b':'),
    };
    &authority[..end.unwrap_or(authority.len())]
}

/// The same without brackets.
pub fn bare_host(authority: &[u8]) -> &[u8] {
    let host = host_of(authority);
    host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host)
}

/// The number of an interface of this machine.
fn interface(name: &str) -> Option<u32> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
    rustix::net::netdevice::name_to_index(socket.ok()?, name).ok()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl TryFrom<String> for Address {
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Address, NoAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// Who is at the other end of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody with an address: of the socket, or what a PROXY header says.
    Ip(IpAddr),
    /// A process of this machine, over a Unix socket.
    Unix,
}

impl Peer {
    /// What it counts as wherever an address is asked for: lists of networks, limits, what nodes are told.
    /// Whoever comes over a Unix socket is on this machine, and so counts as its loopback address.
    pub fn ip(self) -> IpAddr {
        match self {
            Peer::Ip(ip) => super::canonical(ip),
            Peer::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer::Ip(address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        for text in ["127.0.0.1:80", "[::1]:80", "[fe80::1%3]:80", "unix:/run/x.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH));
        for text in ["", "80", "x:80", "unix:", "unix:x", "unix:/x/", "unix:/a\0b", &long] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress), "{text}");
        }
        assert!(long[..long.len() - 1].parse::<Address>().is_ok());
    }

    #[test]
    fn local_is_what_only_this_machine_reaches() {
        for (text, local) in [
            ("127.0.0.1:9901", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/run/cobalance/admin.sock", true),
            ("0.0.0.0:9901", false),
            ("10.0.0.1:9901", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn the_zone_may_be_the_name_of_an_interface() {
        let by_name = socket_address("[fe80::1%lo]:80").unwrap();
        let SocketAddr::V6(v6) = by_name else { panic!("{by_name}") };
        assert_ne!(v6.scope_id(), 0);
        assert_eq!(Some(by_name), socket_address(&format!("[fe80::1%{}]:80", v6.scope_id())));
        assert_eq!(Address::Tcp(by_name).host(), "[fe80::1]:80");
        assert_eq!(socket_address("[fe80::1%nosuch0]:80"), None);
        assert_eq!(socket_address("[fe80::1%]:80"), None);
    }

    #[test]
    fn hosts_stand_before_their_ports() {
        let cases = [
            ("a.test:80", "a.test", "a.test"),
            ("a.test", "a.test", "a.test"),
            ("[::1]:80", "[::1]", "::1"),
            ("[::1]", "[::1]", "::1"),
            ("[::1", "[::1", "[::1"),
            (":80", "", ""),
            ("", "", ""),
        ];
        for (authority, host, bare) in cases {
            assert_eq!(host_of(authority.as_bytes()), host.as_bytes(), "{authority}");
            assert_eq!(bare_host(authority.as_bytes()), bare.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn a_unix_peer_is_on_this_machine() {
        assert!(Peer::Unix.ip().is_loopback());
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:5".parse().unwrap();
        assert_eq!(Peer::from(mapped).ip(), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
