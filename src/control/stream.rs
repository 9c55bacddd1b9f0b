//! Streams to nodes for probes and watches: plain, or over TLS as the exchanges speak it.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::net::Address;
use crate::tls::Towards;
use crate::upstream::pool::connected_unix;

/// Either kind; a call through a pointer is no matter here.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to where a node is. A Unix socket whose queue is full is asked again until whoever waits gives up.
///
/// # Errors
/// Nobody listens there, or whatever the system says.
pub(super) async fn connected(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Address::Unix(path) => Ok(Box::new(connected_unix(path).await?)),
    }
}

/// Shakes hands, if that is wanted.
///
/// # Errors
/// The node is not who it should be, or does not speak TLS.
pub(super) async fn secured(
    stream: Box<dyn Stream>,
    tls: Option<&Towards>,
) -> io::Result<Box<dyn Stream>> {
    let Some(towards) = tls else { return Ok(stream) };
    let connector = TlsConnector::from(towards.config.clone());
    let stream = connector.connect(towards.name.clone(), stream).await?;
    let wants = |protocol| towards.config.alpn_protocols.iter().any(|known| known == protocol);
    if wants(crate::tls::HTTP_2) && stream.get_ref().1.alpn_protocol() != Some(crate::tls::HTTP_2) {
        return Err(io::Error::other("it does not choose HTTP/2 (ALPN)"));
    }
    Ok(Box::new(stream))
}
