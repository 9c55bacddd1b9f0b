//! `X-Forwarded-*`, `X-Real-IP` and `Forwarded` (RFC 7239): rebuilt, because NocoBase believes the first
//! element of the first (packages/core/server/src/middlewares/extract-client-ip.ts) and picks cookies and
//! origins by the others.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::client_certificate::is_of_certificate;
use super::{write_field, write_ip};
use crate::http1::field::{Known, list};
use crate::http1::request::{RequestHead, is_host};
use crate::net::canonical;

/// Elements of a forwarded chain that are looked at; longer chains are somebody's game.
const MAX_CHAIN: usize = 16;

/// Who asks, and who says so.
pub struct Forwarding<'a> {
    /// The address at the other end of the socket.
    pub peer: IpAddr,
    /// Whether the peer's own words are believed.
    pub trusted: bool,
    /// Networks of trusted proxies.
    pub proxies: &'a [IpNet],
    /// The client: the peer, or the last address in a trusted chain that is no proxy of ours.
    pub client: IpAddr,
    /// The client's connection to us is TLS.
    pub secure: bool,
    /// Fields that tell of the certificate it has shown to us, each with its line end.
    pub certificate: &'a [u8],
}

/// Whether a field is one that is rebuilt here.
pub fn is_forwarding(known: Known) -> bool {
    matches!(
        known,
        Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedProto
            | Known::XRealIp
    )
}

impl<'a> Forwarding<'a> {
    /// Judges a peer and the chain that it hands on.
    pub fn new(peer: IpAddr, proxies: &'a [IpNet], head: &RequestHead) -> Forwarding<'a> {
        let peer = canonical(peer);
        let trusted = is_proxy(proxies, peer);
        let client = match trusted {
            true => chain(head).take(MAX_CHAIN).find_map(|hop| match hop {
                Some(address) if is_proxy(proxies, address) => None,
                other => Some(other),
            }),
            false => None,
        };
        // An element that is no address ends the walk: what stands before it cannot be trusted either.
        let client =
            client.flatten().or_else(|| oldest_proxy(trusted, proxies, head)).unwrap_or(peer);
        Forwarding { peer, trusted, proxies, client, secure: false, certificate: &[] }
    }

    /// Appends the rebuilt fields.
    pub(super) fn write(&self, out: &mut Vec<u8>, head: &RequestHead) {
        let proto = self.proto(head);
        let host = self.host(head);
        out.extend_from_slice(b"X-Forwarded-For: ");
        let at = out.len();
        write_ip(out, self.client);
        let client = at..out.len();
        if self.client != self.peer {
            out.extend_from_slice(b", ");
            write_ip(out, self.peer);
        }
        out.extend_from_slice(b"\r\nX-Real-IP: ");
        out.extend_from_within(client.clone());
        out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
        out.extend_from_slice(proto);
        out.extend_from_slice(b"\r\n");
        if !host.is_empty() {
            write_field(out, b"X-Forwarded-Host", host);
        }
        self.write_standard(out, client, proto, host);
        out.extend_from_slice(self.certificate);
    }

    /// Whether a field of the client is not passed on: who it is, by its certificate, only we say, or a
    /// trusted proxy where we know nothing.
    pub(super) fn hides(&self, name: &[u8]) -> bool {
        (!self.trusted || !self.certificate.is_empty()) && is_of_certificate(name)
    }

    /// `client` is where its address stands already.
    fn write_standard(&self, out: &mut Vec<u8>, client: Range<usize>, proto: &[u8], host: &[u8]) {
        out.extend_from_slice(b"Forwarded: for=");
        match self.client {
            IpAddr::V4(_) => out.extend_from_within(client),
            IpAddr::V6(_) => {
                out.extend_from_slice(b"\"[");
                out.extend_from_within(client);
                out.extend_from_slice(b"]\"");
            }
        }
        if !host.is_empty() {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host);
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(proto);
        out.extend_from_slice(b"\r\n");
    }

    fn proto(&self, head: &RequestHead) -> &'static [u8] {
        if self.is_https(head) { b"https" } else { b"http" }
    }

    /// Whether the client speaks TLS, to us or to a trusted proxy that says so.
    pub fn is_https(&self, head: &RequestHead) -> bool {
        let believed = self.believed(head, Known::XForwardedProto);
        believed.map_or(self.secure, |value| value.eq_ignore_ascii_case(b"https"))
    }

    /// A believed host that is one; else what the client itself named.
    fn host<'h>(&self, head: &'h RequestHead) -> &'h [u8] {
        let believed = self.believed(head, Known::XForwardedHost);
        believed.filter(|host| is_host(host)).unwrap_or(head.host())
    }

    /// The last element that a trusted peer sent: proxies that append leave what the client wrote before
    /// it.
    fn believed<'h>(&self, head: &'h RequestHead, known: Known) -> Option<&'h [u8]> {
        if !self.trusted {
            return None;
        }
        let last = head.fields.iter().rev().find(|field| field.known == known)?;
        list(last.value.get(&head.bytes)).last()
    }
}

fn is_proxy(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|net| net.contains(&address))
}

/// The chain from the nearest hop to the farthest; `None` for an element that is no address.
fn chain(head: &RequestHead) -> impl Iterator<Item = Option<IpAddr>> {
    let fields = head.fields.iter().rev().filter(|field| field.known == Known::XForwardedFor);
    fields.flat_map(|field| {
        let value = field.value.get(&head.bytes);
        value.rsplit(|byte| *byte == b',').map(|hop| address(hop.trim_ascii()))
    })
}

/// `1.2.3.4`, `1.2.3.4:567`, `::1`, `[::1]:567`
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().ok();
    parsed.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip())).map(canonical)
}

/// When all of a chain are proxies of ours, the farthest of them is who asked.
fn oldest_proxy(trusted: bool, proxies: &[IpNet], head: &RequestHead) -> Option<IpAddr> {
    if !trusted {
        return None;
    }
    let known = chain(head).take(MAX_CHAIN).map_while(|hop| hop.filter(|a| is_proxy(proxies, *a)));
    known.last()
}
