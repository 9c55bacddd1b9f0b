//! The PROXY protocol: what a proxy in front of a listener says, before anything else, of who its client is.
//!
//! Version 1 is a line of text, version 2 is binary (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>,
//! sections 2.1 and 2.2). The parser is a function of the bytes so far: it trusts no length before the bytes
//! are there, and whatever it has called incomplete is, to the last byte, part of the header. So a caller may
//! take those bytes from the socket, and none that belong to what follows.
//!
//! It is our own because it is short: a library would bring names of its own for addresses, and its own
//! idea of what may be left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::Peer;

/// Bytes of a header, whatever its length says. The addresses take 232 at most; what proxies add of TLS
/// fits, a client's certificate included.
pub const MAX_HEADER: usize = 8 * 1024;

/// What version 1 begins with.
const V1: &[u8] = b"PROXY ";
/// Bytes of a line of version 1, its end included (section 2.1).
const V1_MAX: usize = 107;
/// What version 2 begins with; no text of any protocol does.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Behind it: version and command, family and transport, and a length of two bytes.
const V2_FIXED: usize = V2.len() + 4;

/// The kind of the TLV that holds a checksum (section 2.2.4).
const CRC32C: u8 = 0x03;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows belongs to the client.
    pub length: usize,
    /// Who the client is; none if the proxy speaks for itself, as in its health checks, or does not know.
    pub client: Option<Peer>,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What came is something else.
    #[error("no PROXY header")]
    Missing,
    /// It begins like one and breaks its rules.
    #[error("a PROXY header with {0}")]
    Malformed(&'static str),
    /// Longer than [`MAX_HEADER`].
    #[error("a PROXY header of more than 8 KiB")]
    TooLarge,
    /// It carries a checksum, and has been changed on its way.
    #[error("a PROXY header whose checksum is wrong")]
    Checksum,
}

/// Reads the header that `bytes` begin with. None: it is not whole yet, and all of `bytes` belong to it.
///
/// # Errors
/// There is none, or it cannot be believed: the connection must be closed.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    if begins(bytes, V2) {
        return if bytes.len() < V2_FIXED { Ok(None) } else { binary(bytes) };
    }
    if begins(bytes, V1) { text(bytes) } else { Err(Fault::Missing) }
}

/// Whether `bytes` begin with `word`, as far as they go.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    let length = bytes.len().min(word.len());
    bytes[..length] == word[..length]
}

fn text(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        let full = line.len() == V1_MAX;
        return if full {
            Err(Fault::Malformed("a line of more than 107 bytes"))
        } else {
            Ok(None)
        };
    };
    let odd = Fault::Malformed("a line that has no meaning");
    let line = bytes[..end].strip_suffix(b"\r").ok_or(odd)?;
    let line = line.strip_prefix(V1).ok_or(odd)?;
    let client = if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        None
    } else {
        Some(Peer::Ip(addresses(line).ok_or(odd)?))
    };
    Ok(Some(Header { length: end + 1, client }))
}

/// `TCP4 192.0.2.1 192.0.2.2 5000 80`: the first address.
fn addresses(line: &[u8]) -> Option<IpAddr> {
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let family = words.next()?;
    let address = |word: &str| match family {
        "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let client = address(words.next()?)?;
    address(words.next()?)?;
    port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then_some(client)
}

/// Digits without a zero or a sign before them (section 2.1).
fn port(word: &str) -> Option<u16> {
    let plain = word == "0" || word.starts_with(|c: char| matches!(c, '1'..='9'));
    word.parse().ok().filter(|_| plain)
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let [command, kind, high, low] = [0, 1, 2, 3].map(|at| bytes[V2.len() + at]);
    if command >> 4 != 2 {
        return Err(Fault::Malformed("a version that is not known"));
    }
    let (family, transport) = (kind >> 4, kind & 0x0f);
    if family > 3 || transport > 2 {
        return Err(Fault::Malformed("a family that is not known"));
    }
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER {
        return Err(Fault::TooLarge);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let client = match command & 0x0f {
        // The proxy's own connection: the rest has no meaning.
        0 => None,
        1 => proxied(header, family, transport)?,
        _ => return Err(Fault::Malformed("a command that is not known")),
    };
    Ok(Some(Header { length, client }))
}

/// Who the client is, and whether the rest is sound.
fn proxied(header: &[u8], family: u8, transport: u8) -> Result<Option<Peer>, Fault> {
    let body = &header[V2_FIXED..];
    // Two addresses and, where there are any, two ports.
    let size = [0, 12, 36, 216][usize::from(family)];
    let block = body.get(..size).ok_or(Fault::Malformed("a length that is too short"))?;
    check_rest(header, V2_FIXED + size)?;
    // Whatever carries the client's bytes to the proxy: a stream, or the datagrams of HTTP/3.
    Ok(match (family, block) {
        _ if transport == 0 => None,
        (1, [a, b, c, d, ..]) => Some(Peer::Ip(Ipv4Addr::new(*a, *b, *c, *d).into())),
        (2, block) => block.first_chunk::<16>().map(|ip| Peer::Ip(Ipv6Addr::from(*ip).into())),
        (3, _) => Some(Peer::Unix),
        _ => None,
    })
}

/// Looks through what follows the addresses: each a kind, a length of two bytes, and a value. Only the
/// checksum says something to us.
fn check_rest(header: &[u8], mut at: usize) -> Result<(), Fault> {
    while at < header.len() {
        let odd = Fault::Malformed("a part that is longer than the whole");
        let Some([kind, high, low]) = header.get(at..at + 3) else { return Err(odd) };
        let begin = at + 3;
        at = begin + usize::from(u16::from_be_bytes([*high, *low]));
        let value = header.get(begin..at).ok_or(odd)?;
        if *kind == CRC32C {
            let told = value.try_into().map(u32::from_be_bytes);
            let told = told.map_err(|_| Fault::Malformed("a checksum of an odd size"))?;
            let without = header[..begin].iter().chain(&[0; 4]).chain(&header[at..]);
            if crc32c(without.copied()) != told {
                return Err(Fault::Checksum);
            }
        }
    }
    Ok(())
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: it is asked for once a connection, for some hundred bytes.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)))
    })
}

#[cfg(test)]
mod tests;
