//! The PROXY header of a connection from a peer that must send one: before TLS, within the time of the first
//! head.

use std::future::poll_fn;
use std::io;

use super::FIRST_WHILE_DRAINING;
use crate::exchange::thread::Thread;
use crate::http1::deadline::Deadline;
use crate::net::{Peer, Socket};
use crate::proxy_protocol::{Fault, Header, MAX_HEADER, parse};
use crate::snapshot::Listener;
use crate::telemetry::metrics::{ProxyHeader, ProxyMetrics};

/// What is looked at in one go; most headers are shorter.
const LOOK: usize = 512;

/// Why a connection is closed.
enum Refusal {
    Closed,
    Fault(Fault),
}

/// The counters, if this peer must send a header.
pub(super) fn must(listener: &Listener, peer: Peer) -> Option<&ProxyMetrics> {
    let ip = peer.ip();
    let listed = || listener.settings.proxy_protocol.iter().any(|network| network.contains(&ip));
    listener.proxied.as_ref().filter(|_| listed())
}

/// Takes the header from the socket and nothing behind it. Returns who the client is; none: the connection
/// must be closed, which was counted.
pub(super) async fn client(
    socket: &Socket,
    peer: Peer,
    (thread, metrics): (&Thread, &ProxyMetrics),
    (deadline, until_ns): (&Deadline, u64),
) -> Option<Peer> {
    deadline.set_at(until_ns);
    // As for a handshake: somebody has just connected.
    deadline.set_grace(Some(FIRST_WHILE_DRAINING));
    let taken = deadline.guard(take(socket)).await;
    deadline.set_grace(None);
    deadline.clear();
    let (result, why) = match taken {
        Ok(Ok(Header { client: Some(client), .. })) => {
            metrics.count(ProxyHeader::Client);
            return Some(client);
        }
        Ok(Ok(_)) => {
            metrics.count(ProxyHeader::Local);
            return Some(peer);
        }
        // So it ends when an outer balancer looks whether the port is open.
        Ok(Err(Refusal::Closed)) => {
            metrics.count(ProxyHeader::Closed);
            return None;
        }
        Ok(Err(Refusal::Fault(fault))) => (result(fault), fault.to_string()),
        Err(_) => (ProxyHeader::Timeout, "no whole PROXY header in time".to_owned()),
    };
    metrics.count(result);
    if thread.may_warn_of(peer.ip()) {
        tracing::warn!(
            "a connection from {} was closed: {why}; `proxy_protocol` lists this peer as one that sends \
             PROXY headers",
            peer.ip()
        );
    }
    None
}

fn result(fault: Fault) -> ProxyHeader {
    match fault {
        Fault::Missing => ProxyHeader::Missing,
        Fault::Malformed(_) => ProxyHeader::Malformed,
        Fault::TooLarge => ProxyHeader::TooLarge,
        Fault::Checksum => ProxyHeader::Checksum,
    }
}

/// Looks first and takes then, so that nothing has to be put back: what makes no whole header yet belongs to
/// it, all of it.
async fn take(socket: &Socket) -> Result<Header, Refusal> {
    let mut header: Vec<u8> = Vec::new();
    let mut look = [0; LOOK];
    loop {
        let seen = poll_fn(|cx| socket.poll_peek(cx, &mut look)).await.map_err(closed)?;
        if seen == 0 {
            return Err(Refusal::Closed);
        }
        let before = header.len();
        header.extend_from_slice(&look[..seen]);
        debug_assert!(header.len() <= MAX_HEADER + LOOK, "the parser refuses what is longer");
        let parsed = parse(&header).map_err(Refusal::Fault)?;
        let end = parsed.map_or(header.len(), |header| header.length);
        let mut left = end - before;
        while left > 0 {
            let read = poll_fn(|cx| socket.poll_read_slice(cx, &mut look[..left])).await;
            match read.map_err(closed)? {
                0 => return Err(Refusal::Closed),
                taken => left -= taken,
            }
        }
        if let Some(parsed) = parsed {
            return Ok(parsed);
        }
    }
}

fn closed(_: io::Error) -> Refusal {
    Refusal::Closed
}
