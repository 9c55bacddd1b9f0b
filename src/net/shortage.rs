//! Errors that tell of this machine or process, not of who is at the other end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;

use super::Address;

/// What we ourselves lack, if that is why no connection could be opened to `towards`: it says nothing of the node
/// (socket(2), connect(2)). None for every other error.
#[must_use]
pub fn shortage(error: &io::Error, towards: &Address) -> Option<&'static str> {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return has_source(towards).then_some("no local port is left");
    }
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some("no file descriptor is left"),
        Errno::NOBUFS | Errno::NOMEM => Some("no memory is left for a socket"),
        _ => None,
    }
}

/// Whether there is an address of ours to come from, which there is not towards IPv6 where that is off. Then UDP
/// has none either, whose ports are others; nothing is sent.
fn has_source(towards: &Address) -> bool {
    let Some(to) = towards.tcp() else { return true };
    let from: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((from, 0)).and_then(|socket| socket.connect(to)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached() -> Address {
        SocketAddr::from(([127, 0, 0, 1], 9)).into()
    }

    #[test]
    fn a_want_of_ports_is_told_from_a_node_that_cannot_be_reached() {
        let error = io::Error::from(Errno::ADDRNOTAVAIL);
        assert!(shortage(&error, &reached()).is_some(), "so it is ports that are wanting");
        // Of the link, and of none in particular.
        let not: Address = "[fe80::1]:9".parse::<SocketAddr>().unwrap().into();
        assert_eq!(shortage(&error, &not), None);
        assert!(shortage(&Errno::MFILE.into(), &not).is_some());
    }

    #[test]
    fn our_own_want_is_told_from_what_a_node_does() {
        let of = |errno: Errno| shortage(&errno.into(), &reached());
        for (errno, word) in [
            (Errno::MFILE, "descriptor"),
            (Errno::NFILE, "descriptor"),
            (Errno::ADDRNOTAVAIL, "port"),
            (Errno::NOBUFS, "memory"),
            (Errno::NOMEM, "memory"),
        ] {
            assert!(of(errno).is_some_and(|lack| lack.contains(word)), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::NOENT, Errno::HOSTUNREACH, Errno::AGAIN] {
            assert_eq!(of(errno), None, "{errno}");
        }
    }
}
