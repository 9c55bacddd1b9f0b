//! Errors that tell of this machine or process, not of who is at the other end.

use std::io;

use rustix::io::Errno;

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

#[cfg(test)]
mod tests {
    use super::*;

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
