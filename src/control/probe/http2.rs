//! The question of a probe in HTTP/2, for nodes that are spoken to so.

use std::io;

use bytes::{Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{MAX_BODY, MAX_HEAD};
use crate::health::Verdict;

/// The status, the media type, the body up to the bound, and whether that was all of it.
pub(super) type Answer = (u16, Option<String>, BytesMut, bool);

/// Shakes hands over a new connection, which then runs by itself until the sender is dropped.
///
/// # Errors
/// The connection broke.
pub(super) async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<SendRequest<Bytes>> {
    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD as u32);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    // Its error is seen by whoever asks through it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Asks, on a stream of its own.
///
/// # Errors
/// What the error says of the node.
pub(super) async fn ask(
    sender: SendRequest<Bytes>,
    request: Request<()>,
) -> Result<Answer, Verdict> {
    let mut sender = sender.ready().await.map_err(|error| broken(&error))?;
    let (answer, _) = sender.send_request(request, true).map_err(|error| broken(&error))?;
    let (head, mut body) = answer.await.map_err(|error| broken(&error))?.into_parts();
    let kind = head.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let mut text = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| broken(&error))?;
        text.extend_from_slice(&data[..data.len().min(MAX_BODY - text.len())]);
        if text.len() == MAX_BODY {
            break;
        }
        // It fails only for more than has come.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let whole = text.len() < MAX_BODY;
    Ok((head.status.as_u16(), kind.map(ToOwned::to_owned), text, whole))
}

/// Whoever resets our stream is there; whoever speaks something else as well. Anything else is a lost
/// connection.
fn broken(error: &h2::Error) -> Verdict {
    let detail = error.to_string();
    match error.is_io() || error.is_remote() && error.is_go_away() {
        true => Verdict::Refused { detail },
        false => Verdict::Garbage { detail },
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::super::{Target, label, probe};
    use super::*;
    use crate::config::{HealthCheck, Preset};
    use crate::control::tests::support::{Behaviour, Origin};

    /// Answers every probe with this status; counts its connections.
    async fn node(status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let connections = count.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                connections.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        assert_eq!(request.uri().path(), "/health");
                        let head = http::Response::builder().status(status).body(()).unwrap();
                        let mut send = respond.send_response(head, false).unwrap();
                        send.send_data(Bytes::from_static(b"fine"), true).unwrap();
                    }
                });
            }
        });
        (address, count)
    }

    fn target(address: SocketAddr) -> Target {
        let mut check = HealthCheck::of(Preset::None, "/api/");
        check.path = "/health".to_owned();
        check.timeout = Duration::from_secs(20);
        Target {
            address: address.into(),
            check: Arc::new(check),
            preset: Preset::None,
            tls: None,
            http2: true,
        }
    }

    #[tokio::test]
    async fn nodes_of_http_2_are_asked_so_over_one_connection() {
        let (address, connections) = node(200).await;
        let first = probe(&target(address), None).await.unwrap();
        assert_eq!(label(&first.verdict), "good", "{:?}", first.verdict);
        let second = probe(&target(address), first.kept).await.unwrap();
        assert_eq!((label(&second.verdict), connections.load(SeqCst)), ("good", 1));
        let (address, _) = node(500).await;
        assert_eq!(label(&probe(&target(address), None).await.unwrap().verdict), "status");
    }

    #[tokio::test]
    async fn a_node_of_http_1_is_none_of_them() {
        let origin = Origin::start(Behaviour::Ok).await;
        let found = probe(&target(origin.address()), None).await.unwrap();
        assert_ne!(label(&found.verdict), "good");
        assert!(found.kept.is_none());
    }
}
