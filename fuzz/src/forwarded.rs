//! What a peer says of whom it forwards for: however it is written, the node gets one plain word for each
//! question, and from a stranger only what the socket tells.

use std::net::IpAddr;

use cobalance::headers::forwarded::Forwarding;
use cobalance::headers::{ForNode, write_request};
use cobalance::http1::body::Framing;
use cobalance::http1::request::{RequestHead, is_host};

#[path = "reference.rs"]
#[allow(dead_code)] // answers are read by another target
mod reference;

use reference::{Cursor, Fields, values};

const MAX_FIELDS_TEXT: usize = 4 * 1024;
const ID: &str = "0123456789abcdef";

/// The first byte chooses the peer (bit 0: a trusted proxy; bit 1: IPv6), and whether the connection is
/// TLS (bit 2); the rest is lines of fields. `Err`: what must not be.
pub fn run(bytes: &[u8]) -> Result<(), String> {
    let [mode, lines @ ..] = bytes else { return Ok(()) };
    let lines = &lines[..lines.len().min(MAX_FIELDS_TEXT)];
    let head = [b"GET /a HTTP/1.1\r\nHost: t\r\n", lines, b"\r\n\r\n"].concat();
    let Ok(head) = RequestHead::parse(head, Vec::new()) else { return Ok(()) };
    let proxies = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
    let peer = match mode & 3 {
        0 => "192.0.2.1",
        1 => "10.0.0.1",
        2 => "2001:db8::1",
        _ => "::ffff:10.0.0.2",
    };
    let peer: IpAddr = peer.parse().map_err(|_| "no address")?;
    let mut forwarding = Forwarding::new(peer, &proxies, &head);
    forwarding.secure = mode & 4 != 0;
    let mut out = Vec::new();
    write_request(&mut out, &head, &for_node(&forwarding));
    let mut cursor = Cursor::new(&out, true);
    let sent = cursor.request().map_err(|end| format!("{end:?}: {}", text(&out)))?;
    if cursor.at != out.len() && head.framing == Framing::Empty {
        return Err(format!("something behind the head: {}", text(&out)));
    }
    judge(&forwarding, &sent.fields).map_err(|what| format!("{what}: {}", text(&out)))
}

fn for_node<'a>(forwarding: &'a Forwarding<'a>) -> ForNode<'a> {
    ForNode {
        forwarding,
        request_id: ID,
        default_host: "u",
        hidden_cookies: [None, None],
        framing: Framing::Empty,
        expect_continue: false,
    }
}

fn judge(forwarding: &Forwarding<'_>, sent: &Fields) -> Result<(), String> {
    let one = |name: &str| -> Result<String, String> {
        let mut all = values(sent, name);
        match (all.next(), all.next()) {
            (Some(value), None) => Ok(String::from_utf8_lossy(value).into_owned()),
            _ => Err(format!("not one {name}")),
        }
    };
    let (client, peer) = (forwarding.client.to_string(), forwarding.peer.to_string());
    let stranger = !forwarding.trusted;
    let proto = one("x-forwarded-proto")?;
    let host = one("x-forwarded-host")?;
    let chain = one("x-forwarded-for")?;
    let expected = if client == peer { peer } else { format!("{client}, {peer}") };
    let standard = one("forwarded")?;
    let secure = if forwarding.secure { "https" } else { "http" };
    let facts = [
        (one("x-real-ip")? == client, "another X-Real-IP"),
        (chain == expected, "another chain"),
        (one("x-request-id")? == ID, "another ID"),
        (proto == "http" || proto == "https", "an odd scheme"),
        (is_host(host.as_bytes()), "an odd host"),
        (standard.ends_with(&format!(";host=\"{host}\";proto={proto}")), "an odd Forwarded"),
        (!standard.contains(','), "more than one element"),
        (values(sent, "x-forwarded-port").count() == 0, "a port that somebody claims"),
        (!stranger || client == forwarding.peer.to_string(), "a stranger is believed: address"),
        (!stranger || proto == secure, "a stranger is believed: scheme"),
        (!stranger || host == "t", "a stranger is believed: host"),
        (!stranger || !speaks_of_certificates(sent), "a stranger is believed: certificate"),
    ];
    match facts.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err((*what).to_owned()),
        None => Ok(()),
    }
}

fn speaks_of_certificates(sent: &Fields) -> bool {
    let begins = [
        "client-cert",
        "x-client-cert",
        "x-ssl-client-",
        "x-forwarded-client-cert",
        "x-forwarded-tls-client-cert",
    ];
    sent.iter().any(|(name, _)| begins.iter().any(|begin| name.starts_with(begin.as_bytes())))
}

fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}
