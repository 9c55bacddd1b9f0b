//! HTTP/2 (RFC 9113) by the library `h2`, and its streams in the form of HTTP/1.1.
//!
//! The rest of this program speaks HTTP/1.1 to sockets. Here a stream becomes such a socket: what is read
//! from it is a body in HTTP/1.1's framing, and what is written to it is taken apart into HEADERS, DATA and
//! trailers. [`Inflow`](body::Inflow) and [`Outflow`](body::Outflow) are the two directions of a body and
//! know nothing of who is the client; [`head`] translates heads of clients' streams, [`node_head`] those of
//! nodes'; [`stream`] and [`node_stream`] put them together.
//! [`Source`](source::Source) keeps what has come, [`Gate`](gate::Gate) counts that and what is to go.
//! [`Wire`](wire::Wire) is the connection as the library sees it, [`Watch`](watch::Watch) what is counted of
//! a stranger's frames.

pub mod body;
pub mod gate;
pub mod head;
pub mod node_head;
pub mod node_stream;
pub mod source;
pub mod stream;
pub mod watch;
pub mod wire;

use std::io;

/// What every connection begins with (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The end of a stream that is not a clean one.
fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
