//! TLS-ALPN-01 (RFC 8737): an authority looks whether a name is ours by a handshake that asks for nothing else.

use std::future::poll_fn;
use std::io;

use tokio::net::TcpStream;

use super::FIRST_WHILE_DRAINING;
use crate::http1::deadline::Deadline;
use crate::net::{Secure, Socket};
use crate::snapshot::Tls;
use crate::telemetry::metrics::HandshakeFailure;
use crate::tls::challenges::{Caller, Kind, caller};

/// An honest greeting has 2 KiB; what is larger is judged by who reads it next.
const MAX_GREETING: usize = 16 * 1024;

/// Reads until it is known who calls. An authority is served here; anybody else is returned, with what was read.
pub(super) async fn greet(
    stream: TcpStream,
    tls: &Tls,
    deadline: &Deadline,
    until_ns: u64,
) -> Option<(TcpStream, Vec<u8>)> {
    deadline.set_at(until_ns);
    deadline.set_grace(Some(FIRST_WHILE_DRAINING));
    let mut read = Vec::new();
    let found = deadline.guard(listen(&stream, &mut read)).await;
    deadline.set_grace(None);
    deadline.clear();
    let failure = match found {
        Ok(Ok(Caller::Authority)) => match tls.challenges.tls() {
            Some(config) => match Secure::accept(stream, config, read) {
                Ok(secure) => return answer(secure, tls, deadline, until_ns).await,
                Err(_) => HandshakeFailure::Protocol,
            },
            // There is nothing to show: who speaks nothing else gets the alert that says so.
            None => return Some((stream, read)),
        },
        Ok(Ok(_)) => return Some((stream, read)),
        Ok(Err(_)) => HandshakeFailure::Closed,
        Err(_) => HandshakeFailure::Timeout,
    };
    tls.metrics.failed(failure);
    None
}

async fn listen(stream: &TcpStream, read: &mut Vec<u8>) -> io::Result<Caller> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match caller(read) {
            Caller::Unknown if read.len() < MAX_GREETING => {}
            known => return Ok(known),
        }
    }
}

/// Shakes hands, and that is all: no byte of a request is read (RFC 8737, 3).
async fn answer<T>(secure: Secure, tls: &Tls, deadline: &Deadline, until_ns: u64) -> Option<T> {
    deadline.set_at(until_ns);
    match deadline.guard(poll_fn(|cx| secure.poll_handshake(cx))).await {
        Ok(Ok(())) => {
            tls.challenges.count(Kind::TlsAlpn01);
            let socket = Socket::Tls(Box::new(secure));
            // Whatever comes of saying so, the connection ends now.
            let _ = deadline.guard(poll_fn(|cx| socket.poll_shutdown(cx))).await;
        }
        Ok(Err(error)) => tls.metrics.failed(super::failure(&error)),
        Err(_) => tls.metrics.failed(HandshakeFailure::Timeout),
    }
    deadline.clear();
    None
}
