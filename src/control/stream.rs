//! Streams to nodes for probes and watches: plain, or over TLS as the exchanges speak it.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::Towards;

/// Either kind; a call through a pointer is no matter here.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Shakes hands, if that is wanted.
///
/// # Errors
/// The node is not who it should be, or does not speak TLS.
pub(super) async fn secured(
    stream: TcpStream,
    tls: Option<&Towards>,
) -> io::Result<Box<dyn Stream>> {
    let Some(towards) = tls else { return Ok(Box::new(stream)) };
    let connector = TlsConnector::from(towards.config.clone());
    let stream = connector.connect(towards.name.clone(), stream).await?;
    let wants = |protocol| towards.config.alpn_protocols.iter().any(|known| known == protocol);
    if wants(crate::tls::HTTP_2) && stream.get_ref().1.alpn_protocol() != Some(crate::tls::HTTP_2) {
        return Err(io::Error::other("it does not choose HTTP/2 (ALPN)"));
    }
    Ok(Box::new(stream))
}
