//! Errors that tell of this machine or process, not of who is at the other end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;

use super::Address;

/// What we ourselves lack, if that is why no connection could be opened: it says nothing of the node (socket(2),
/// connect(2)). None for every other error.
#[must_use]
pub fn shortage(error: &io::Error) -> Option<&'static str> {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return Some("no local port is left");
    }
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some("no file descriptor is left"),
        Errno::NOBUFS | Errno::NOMEM => Some("no memory is left for a socket"),
        _ => None,
    }
}

/// Whether [`shortage`]'s "no local port" means that there is no address of ours to come from, as towards IPv6
/// where that is off. Then UDP has none either, whose ports are others; nothing is sent.
#[must_use]
pub fn has_no_source(error: &io::Error, towards: &Address) -> bool {
    let Some(to) = towards.tcp().filter(|_| error.kind() == io::ErrorKind::AddrNotAvailable) else {
        return false;
    };
    let from: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((from, 0)).and_then(|socket| socket.connect(to)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_ports_is_told_from_a_node_that_cannot_be_reached() {
        let error = io::Error::from(Errno::ADDRNOTAVAIL);
        let reached: Address = SocketAddr::from(([127, 0, 0, 1], 9)).into();
        assert!(!has_no_source(&error, &reached), "so it is ports that are wanting");
        // Of the link, and of none in particular.
        let not: SocketAddr = "[fe80::1]:9".parse().unwrap();
        assert!(has_no_source(&error, &not.into()));
        assert!(!has_no_source(&Errno::MFILE.into(), &not.into()));
    }

    #[test]
    fn our_own_want_is_told_from_what_a_node_does() {
        let of = |errno: Errno| shortage(&errno.into());
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
