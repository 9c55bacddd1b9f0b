//! Judges the parser of PROXY headers: what it takes must be what a second, plain reading finds, and no byte
//! more; and no verdict may depend on how the bytes were cut.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cobalance::net::Peer;
use cobalance::proxy_protocol::{Header, MAX_HEADER, parse};

/// What bytes may not say.
pub fn run(bytes: &[u8]) -> Result<(), String> {
    let verdict = parse(bytes);
    let first = (0..=bytes.len()).find(|n| parse(&bytes[..*n]) != Ok(None));
    match (verdict, first) {
        (Ok(None), None) if bytes.len() >= MAX_HEADER => Err("waits for more than it takes".into()),
        (Ok(None), None) => Ok(()),
        (Ok(None), Some(n)) => Err(format!("{n} bytes have a verdict, and all have none")),
        (_, None) => Err("a verdict of nothing".into()),
        (_, Some(n)) if parse(&bytes[..n]) != verdict => {
            Err(format!("it changes its mind after {n}"))
        }
        (Ok(Some(header)), Some(n)) if header.length != n => {
            Err(format!("it takes {} bytes and needs {n}", header.length))
        }
        (Ok(Some(header)), Some(_)) => compare(header, &bytes[..header.length]),
        (Err(_), Some(_)) => Ok(()),
    }
}

fn compare(header: Header, bytes: &[u8]) -> Result<(), String> {
    let meant = if bytes[0] == b'P' { line(bytes) } else { binary(bytes) };
    match meant {
        Some(client) if client == header.client => Ok(()),
        other => Err(format!("{:?} is taken for {other:?}", header.client)),
    }
}

/// None is no header; the inner none is one that names nobody.
fn line(bytes: &[u8]) -> Option<Option<Peer>> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let words: Vec<&str> = text.strip_suffix("\r\n")?.split(' ').collect();
    let (first, second): (IpAddr, IpAddr) = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Some(None),
        ["PROXY", "TCP4" | "TCP6", a, b, ..] => (a.parse().ok()?, b.parse().ok()?),
        _ => return None,
    };
    let v4 = words[1] == "TCP4";
    let [p, q] = [words.get(4)?, words.get(5)?].map(|word| word.parse::<u16>().ok());
    let again = format!("PROXY {} {} {} {} {}", words[1], words[2], words[3], p?, q?);
    let sound = first.is_ipv4() == v4 && second.is_ipv4() == v4 && again + "\r\n" == text;
    sound.then_some(Some(Peer::Ip(first)))
}

fn binary(bytes: &[u8]) -> Option<Option<Peer>> {
    let length = usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    if &bytes[..12] != b"\r\n\r\n\0\r\nQUIT\n" || length + 16 != bytes.len() {
        return None;
    }
    match (bytes[12], bytes[13]) {
        (0x20, _) => Some(None),
        (0x21, 0x00 | 0x10 | 0x20 | 0x30 | 0x01 | 0x02) => Some(None),
        (0x21, 0x11 | 0x12) => {
            let ip = Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(16..20)?).ok()?);
            Some(Some(Peer::Ip(ip.into())))
        }
        (0x21, 0x21 | 0x22) => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(16..32)?).ok()?);
            Some(Some(Peer::Ip(ip.into())))
        }
        (0x21, 0x31 | 0x32) => Some(Some(Peer::Unix)),
        _ => None,
    }
}
