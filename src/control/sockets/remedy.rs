//! What to do about a listener that cannot be bound.

use std::io;

use crate::net::Address;

/// Ports below are the system's own (`net.ipv4.ip_unprivileged_port_start`, ip_sysctl(7)).
const PRIVILEGED: u16 = 1024;

/// A sentence to go behind the system's own words; empty where there is nothing to add.
pub(super) fn of(address: &Address, error: &io::Error) -> String {
    let advice = match (address, error.kind()) {
        (Address::Tcp(at), io::ErrorKind::AddrInUse) => format!(
            "another process listens there; `ss -ltnp 'sport = :{}'` says which: stop it, or write another \
             port in `bind`",
            at.port()
        ),
        (Address::Tcp(at), io::ErrorKind::PermissionDenied) if at.port() < PRIVILEGED => format!(
            "ports below {PRIVILEGED} need a privilege: give the process CAP_NET_BIND_SERVICE (systemd: \
             `AmbientCapabilities=CAP_NET_BIND_SERVICE`), or lower `net.ipv4.ip_unprivileged_port_start`, \
             or write a port from {PRIVILEGED} on"
        ),
        (Address::Tcp(at), io::ErrorKind::AddrNotAvailable) => format!(
            "no interface of this machine has this address; `ip -brief address` lists those it has: write \
             one of them, or \"{}:{}\" for all",
            if at.is_ipv4() { "0.0.0.0" } else { "[::]" },
            at.port()
        ),
        (Address::Tcp(at), io::ErrorKind::Unsupported) if at.is_ipv6() => {
            format!("IPv6 is off on this machine: write \"0.0.0.0:{}\"", at.port())
        }
        (Address::Tcp(at), io::ErrorKind::InvalidInput) if at.is_ipv6() => {
            "a link-local address needs the interface it belongs to: \"[fe80::1%eth0]:80\"".to_owned()
        }
        (Address::Unix(_), io::ErrorKind::AddrInUse) => {
            "another process listens there; `ss -lxp` says which: stop it, or write another path in `bind`"
                .to_owned()
        }
        (Address::Unix(_), io::ErrorKind::AlreadyExists) => {
            "move that file away, or write another path in `bind`".to_owned()
        }
        (Address::Unix(_), io::ErrorKind::NotFound) => {
            "make the directory first (systemd: `RuntimeDirectory=cobalance`)".to_owned()
        }
        (Address::Unix(_), io::ErrorKind::PermissionDenied) => {
            "the process must be allowed to write to the directory".to_owned()
        }
        _ => return String::new(),
    };
    format!(". {}{}", advice[..1].to_uppercase(), &advice[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_to_do() {
        let cases = [
            ("0.0.0.0:80", io::ErrorKind::AddrInUse, "`ss -ltnp 'sport = :80'`"),
            ("0.0.0.0:80", io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            ("192.0.2.1:80", io::ErrorKind::AddrNotAvailable, "or \"0.0.0.0:80\" for all"),
            ("[2001:db8::1]:80", io::ErrorKind::AddrNotAvailable, "or \"[::]:80\" for all"),
            ("[::]:80", io::ErrorKind::Unsupported, "write \"0.0.0.0:80\""),
            ("[fe80::1]:80", io::ErrorKind::InvalidInput, "[fe80::1%eth0]:80"),
            ("unix:/run/x.sock", io::ErrorKind::AddrInUse, "`ss -lxp`"),
            ("unix:/run/x.sock", io::ErrorKind::NotFound, "RuntimeDirectory"),
            ("unix:/run/x.sock", io::ErrorKind::AlreadyExists, "Move that file away"),
            ("unix:/run/x.sock", io::ErrorKind::PermissionDenied, "write to the directory"),
        ];
        for (address, kind, expected) in cases {
            let text = of(&address.parse().unwrap(), &kind.into());
            assert!(text.starts_with(". ") && text.contains(expected), "{address}: {text}");
        }
        let others =
            [("0.0.0.0:8080", io::ErrorKind::PermissionDenied), ("[::]:80", io::ErrorKind::Other)];
        for (address, kind) in others {
            assert_eq!(of(&address.parse().unwrap(), &kind.into()), "", "{address}");
        }
    }
}
