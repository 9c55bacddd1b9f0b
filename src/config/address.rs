//! Addresses to bind, addresses of nodes, networks and paths: what they may look like.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::Preset;
use crate::net::{Address, MAX_PATH, UNIX, socket_address, zone};

/// What is wrong with an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    /// Seen at the text; repeats nothing of it.
    pub(super) label: &'static str,
    /// What to type; may repeat parts of the text.
    pub(super) help: String,
    /// The same without such parts.
    pub(super) discreet: &'static str,
}

impl Fault {
    fn new(code: &'static str, label: &'static str, help: String, discreet: &'static str) -> Self {
        Self { code, label, help, discreet }
    }
}

const BIND_FORM: &str = "write an IP address and a port, such as \"0.0.0.0:80\"";
const SOCKET_FORM: &str = "write an absolute path, such as \"unix:/run/cobalance/http.sock\"";
const ADMIN_SOCKET_FORM: &str =
    "write an absolute path, such as \"unix:/run/cobalance/admin.sock\"";
const NODE_SOCKET_FORM: &str = "write an absolute path, such as \"unix:/run/app.sock\"";
const NODE_FORM: &str = "write \"HOST:PORT\", such as \"172.31.0.1:13000\"";

/// Reads the address of a listener of clients: an IP address and a port, or a Unix socket.
pub(super) fn listener(text: &str) -> Result<Address, Fault> {
    either(text, SOCKET_FORM)
}

/// The same of the admin listener.
pub(super) fn admin(text: &str) -> Result<Address, Fault> {
    either(text, ADMIN_SOCKET_FORM)
}

fn either(text: &str, socket_form: &'static str) -> Result<Address, Fault> {
    match text.strip_prefix(UNIX) {
        Some(path) => socket(text, path, socket_form).map(|()| Address::Unix(path.into())),
        None if text.starts_with('/') => {
            let help = format!("write \"{UNIX}{text}\"");
            Err(Fault::new("bad-address", "a path, not an address", help, socket_form))
        }
        None => bind(text).map(Address::Tcp),
    }
}

/// Checks the address of a Unix socket, whose `path` is what follows the scheme.
fn socket(text: &str, path: &str, form: &'static str) -> Result<(), Fault> {
    let fault = |label| Err(Fault::new("bad-address", label, form.to_owned(), form));
    match path {
        _ if text.parse::<Address>().is_ok() => Ok(()),
        "" => fault("the path is missing"),
        _ if path.starts_with('@') => fault("an abstract socket, which anybody could take"),
        _ if !path.starts_with('/') => fault("not an absolute path"),
        _ if path.len() > MAX_PATH => {
            fault("longer than the 99 bytes that a socket's path may have")
        }
        _ => fault("not the path of a file"),
    }
}

/// Reads the address of a listener that has no Unix socket.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Fault> {
    if let Some(address) = socket_address(text) {
        return Ok(address);
    }
    let fault = |label, help: String| Fault::new("bad-address", label, help, BIND_FORM);
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let with_port = SocketAddr::new(ip, 80);
        return Err(fault("the port is missing", format!("write \"{with_port}\"")));
    }
    if is_port(text.strip_prefix(':').unwrap_or(text)) {
        let port = text.trim_start_matches(':');
        return Err(fault("the address is missing", format!("write \"0.0.0.0:{port}\"")));
    }
    match text.rsplit_once(':') {
        Some(("localhost", port)) if is_port(port) => {
            Err(fault("a host name, not an address", format!("write \"127.0.0.1:{port}\"")))
        }
        Some(_) if is_in_a_zone(text) => Err(no_such_zone(BIND_FORM)),
        Some((host, port)) if is_port(port) && is_interface(host) => Err(fault(
            "an interface, not an address",
            format!(
                "write the address it has (`ip -brief address show {host}` lists it), or \"0.0.0.0:{port}\" \
                 for all interfaces"
            ),
        )),
        Some((host, port)) if is_port(port) && is_host_name(host) => Err(fault(
            "a host name, not an address",
            format!(
                "write the address to bind, such as \"0.0.0.0:{port}\", and `host = \"{host}\"` in a \
                 `[[route]]` if only this name is to be served"
            ),
        )),
        _ => Err(fault("not an IP address and a port", BIND_FORM.to_owned())),
    }
}

/// Checks the address of a node: `host:port`, where the host is a name, an IPv4 or a bracketed IPv6
/// address. The result is in lower case, so that equal addresses are equal texts.
pub(super) fn node(text: &str, preset: Preset) -> Result<String, Fault> {
    let fault = |label, help: String| Fault::new("bad-address", label, help, NODE_FORM);
    if let Some(path) = text.strip_prefix(UNIX) {
        return socket(text, path, NODE_SOCKET_FORM).map(|()| text.to_owned());
    }
    if text.starts_with('/') {
        let help = format!("write \"{UNIX}{text}\"");
        return Err(fault("a path, not an address", help));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let bare = rest.split('/').next().unwrap_or_default();
        return Err(fault("a URL, not an address", format!("write only \"{bare}\"")));
    }
    if let Some((bare, _)) = text.split_once('/') {
        return Err(fault("a path is not part of an address", format!("write only \"{bare}\"")));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        let help = format!("write \"[{ip}]:{}\"", usual_port(preset));
        return Err(fault("IPv6 needs brackets and a port", help));
    }
    if is_in_a_zone(text) {
        let known = socket_address(text).map(|_| text.to_owned());
        return known.ok_or_else(|| no_such_zone(NODE_FORM));
    }
    let Some((host, port)) = split_port(text) else {
        if is_host(text) {
            let help = format!("write \"{text}:{}\"", usual_port(preset));
            return Err(Fault::new("missing-port", "the port is missing", help, NODE_FORM));
        }
        return Err(fault("not a host and a port", NODE_FORM.to_owned()));
    };
    if !is_host(host) {
        return Err(fault("this host cannot exist", NODE_FORM.to_owned()));
    }
    match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(text.to_ascii_lowercase()),
        _ => Err(fault("this is not a port", "write a port between 1 and 65535".to_owned())),
    }
}

/// Reads a network such as `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(network.trunc());
    }
    text.parse::<IpAddr>().map(IpNet::from).map_err(|_| {
        let help = match text.starts_with("unix") {
            true => "write \"127.0.0.1\": who comes over a Unix socket counts as that",
            false => "write an address or a network, such as \"10.0.0.0/8\"",
        };
        Fault::new("bad-network", "not an address or a network", help.to_owned(), help)
    })
}

/// An IPv6 address with a zone and a port, whether this machine has that zone or not.
fn is_in_a_zone(text: &str) -> bool {
    zone(text).is_some_and(|(_, bare)| bare.parse::<SocketAddr>().is_ok())
}

fn no_such_zone(form: &'static str) -> Fault {
    let help =
        "write one of the interfaces of this machine behind `%`; `ip -brief link` lists them";
    Fault::new("bad-address", "there is no such interface", help.to_owned(), form)
}

/// Whether a name is one that Linux, or who makes interfaces on it, gives to interfaces; a host is hardly
/// ever called so.
fn is_interface(name: &str) -> bool {
    const KINDS: [&str; 17] = [
        "eth",
        "en",
        "wl",
        "ww",
        "ib",
        "br",
        "docker",
        "veth",
        "virbr",
        "bond",
        "team",
        "vlan",
        "tun",
        "tap",
        "wg",
        "tailscale",
        "dummy",
    ];
    let tail = |kind: &&str| name.strip_prefix(*kind).filter(|tail| !tail.contains('.'));
    let numbered = |tail: &str| tail.ends_with(|c: char| c.is_ascii_digit());
    // `br-1a2b3c4d5e6f` is Docker's; `enp3s0f1np1` the system's.
    let is_one =
        |kind: &&str| tail(kind).is_some_and(|tail| tail.starts_with('-') || numbered(tail));
    name == "lo" || name.len() <= 15 && KINDS.iter().any(is_one)
}

/// The port that is most likely meant.
fn usual_port(preset: Preset) -> u16 {
    match preset {
        Preset::NocoBase => 13_000,
        Preset::None => 8080,
    }
}

fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    // The last colon of `[::1]` belongs to the address.
    (!port.contains(']')).then_some((host, port))
}

/// A name, an IPv4 address or a bracketed IPv6 address.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(text),
    }
}

/// A DNS name (RFC 1123, section 2.1), with `_` because container names have it. All digits and
/// dots must be an IPv4 address.
pub(super) fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return text.parse::<std::net::Ipv4Addr>().is_ok();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A path as it appears in a request line: printable ASCII that begins with a slash.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= 1024
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn binds() {
        assert_eq!(bind("0.0.0.0:80"), Ok("0.0.0.0:80".parse().unwrap()));
        assert_eq!(bind("[::]:443"), Ok("[::]:443".parse().unwrap()));
        let cases = [
            ("0.0.0.0", "the port is missing", "write \"0.0.0.0:80\""),
            ("::", "the port is missing", "write \"[::]:80\""),
            ("[::1]", "the port is missing", "write \"[::1]:80\""),
            (":8080", "the address is missing", "write \"0.0.0.0:8080\""),
            ("8080", "the address is missing", "write \"0.0.0.0:8080\""),
            ("localhost:80", "a host name, not an address", "write \"127.0.0.1:80\""),
            (
                "example.com:80",
                "a host name, not an address",
                "write the address to bind, such as \"0.0.0.0:80\", and `host = \"example.com\"` in a \
                 `[[route]]` if only this name is to be served",
            ),
            (
                "eth0:80",
                "an interface, not an address",
                "write the address it has (`ip -brief address show eth0` lists it), or \"0.0.0.0:80\" for \
                 all interfaces",
            ),
            ("[fe80::1%nosuch0]:80", "there is no such interface", NO_ZONE),
            ("0.0.0.0:99999", "not an IP address and a port", BIND_FORM),
            ("", "not an IP address and a port", BIND_FORM),
        ];
        for (text, label, help) in cases {
            let fault = bind(text).unwrap_err();
            assert_eq!((fault.label, fault.help.as_str()), (label, help), "{text}");
        }
    }

    const NO_ZONE: &str =
        "write one of the interfaces of this machine behind `%`; `ip -brief link` lists them";

    #[test]
    fn interfaces_are_told_from_hosts() {
        for name in
            ["lo", "eth0", "enp3s0f1np1", "wlan0", "br-1a2b3c4d5e6f", "docker0", "tailscale0"]
        {
            assert!(is_interface(name), "{name}");
        }
        for name in
            ["localhost", "example.com", "ethan", "node1", "en1.example.com", "internal", "lo1"]
        {
            assert!(!is_interface(name), "{name}");
        }
    }

    #[test]
    fn unix_sockets() {
        let read = listener("unix:/run/x.sock").unwrap();
        assert_eq!(read.to_string(), "unix:/run/x.sock");
        assert_eq!(listener("[::]:80").unwrap().to_string(), "[::]:80");
        assert_eq!(node("unix:/Run/X", Preset::None).as_deref(), Ok("unix:/Run/X"));
        let long = format!("unix:/{}", "x".repeat(99));
        let cases = [
            ("unix:", "the path is missing"),
            ("unix:run/x", "not an absolute path"),
            ("unix:@x", "an abstract socket, which anybody could take"),
            ("unix:/run/", "not the path of a file"),
            (&long, "longer than the 99 bytes that a socket's path may have"),
        ];
        for (text, label) in cases {
            assert_eq!(listener(text).unwrap_err().label, label, "{text}");
            assert_eq!(node(text, Preset::None).unwrap_err().label, label, "{text}");
        }
        assert_eq!(listener("/run/x").unwrap_err().help, "write \"unix:/run/x\"");
        assert_eq!(node("/run/x", Preset::None).unwrap_err().help, "write \"unix:/run/x\"");
        assert!(bind("unix:/run/x").is_err());
        assert!(network("unix:").unwrap_err().help.contains("127.0.0.1"));
    }

    #[test]
    fn nodes() {
        for good in ["172.31.0.1:13000", "node1:80", "a_b.c-d.example:1", "[::1]:13000", "x.:80"] {
            assert_eq!(node(good, Preset::NocoBase).as_deref(), Ok(good));
        }
        assert_eq!(node("Node1:80", Preset::NocoBase).as_deref(), Ok("node1:80"));
        let cases = [
            ("node1", "write \"node1:13000\""),
            ("[fe80::1%nosuch0]:80", NO_ZONE),
            ("[::1]", "write \"[::1]:13000\""),
            ("::1", "write \"[::1]:13000\""),
            ("http://node1:13000/", "write only \"node1:13000\""),
            ("node1:13000/", "write only \"node1:13000\""),
            ("node1:0", "write a port between 1 and 65535"),
            ("node1:+80", "write a port between 1 and 65535"),
            ("node1:", "write a port between 1 and 65535"),
            ("300.1.1.1:80", NODE_FORM),
            ("-a:80", NODE_FORM),
            ("a b:80", NODE_FORM),
            ("", NODE_FORM),
        ];
        for (text, help) in cases {
            assert_eq!(node(text, Preset::NocoBase).unwrap_err().help, help, "{text}");
        }
        assert_eq!(node("a", Preset::None).unwrap_err().help, "write \"a:8080\"");
    }

    #[test]
    fn networks() {
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(network("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert!(network("10.0.0.0/33").is_err());
        assert!(network("lan").is_err());
    }

    #[test]
    fn paths() {
        for (path, good) in [("/", true), ("/a/b%20?x=1", true), ("", false), ("a", false)] {
            assert_eq!(is_path(path), good, "{path}");
        }
        assert!(!is_path("/a b"));
        assert!(!is_path("/a\r\nHost: x"));
        assert!(!is_path("/a#b"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (bind(&text), listener(&text), node(&text, Preset::None), network(&text), is_path(&text));
        }
    }
}
