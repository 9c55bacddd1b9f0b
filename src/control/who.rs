//! Who asks for a change, in the words of causes and logs.

use std::fmt;
use std::net::IpAddr;

/// Somebody who may change things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Where the connection comes from.
    pub peer: Peer,
    /// The name of the token that was shown; none where none is asked for.
    pub token: Option<String>,
}

/// The other end of a connection to the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An address, over TCP.
    Address(IpAddr),
    /// A process of this machine, over a Unix socket.
    User {
        /// The user that it ran as when it connected (`SO_PEERCRED`, unix(7)).
        uid: u32,
        /// Its number, where the system tells.
        pid: Option<i32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Address(address) => address.fmt(f),
            Peer::User { uid, .. } => write!(f, "uid {uid}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peer.fmt(f)?;
        match &self.token {
            Some(token) => write!(f, " (token {token})"),
            None => Ok(()),
        }
    }
}

impl<T: Into<IpAddr>> From<T> for Who {
    fn from(address: T) -> Who {
        Who { peer: Peer::Address(address.into().to_canonical()), token: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_in_a_few_words() {
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(Who::from(mapped).to_string(), "10.0.0.7");
        let peer = Peer::User { uid: 1000, pid: Some(7) };
        let who = Who { peer, token: Some("ops".into()) };
        assert_eq!(who.to_string(), "uid 1000 (token ops)");
    }
}
