//! The stream itself, between two ends that both write more than the kernel takes.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll};

use cobalance::net::{Idle, Secure, Socket};
use cobalance::tls::{Certificate, Server, Slot};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};

use crate::support::tls::Authority;

async fn shaken(secure: Secure) -> Socket {
    poll_fn(|cx| secure.poll_handshake(cx)).await.unwrap();
    Socket::Tls(Box::new(secure))
}

/// A client's end and a server's, whose kernel takes less than a write has.
async fn pair() -> (Socket, Socket) {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let certificate = Arc::new(Certificate::read(&files.chain, &files.key).unwrap());
    let server = Server::new(
        vec![Arc::new(Slot::new("a".into(), Some(certificate)))],
        None,
        None,
        (true, true),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (there, _) = listener.accept().await.unwrap();
    for stream in [&here, &there] {
        socket2::SockRef::from(stream).set_send_buffer_size(16 * 1024).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    let name = ServerName::try_from("a.test").unwrap();
    let client = Secure::connect(here, Arc::new(authority.client()), name).unwrap();
    let server = Secure::accept(there, server.config, Vec::new()).unwrap();
    tokio::join!(shaken(client), shaken(server))
}

/// Reads and writes at once, as a tunnel does; a read comes first, and sends what is left of a write.
fn poll_pump(
    socket: &Socket,
    data: &[u8],
    (sent, got): (&mut usize, &mut Vec<u8>),
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let mut moved = false;
        if got.len() < data.len()
            && let Poll::Ready(n) = socket.poll_read(cx, got, 5000)
        {
            assert_ne!(n.unwrap(), 0, "the end, after {} bytes", got.len());
            moved = true;
        }
        if *sent < data.len() {
            let piece = &data[*sent..data.len().min(*sent + 100_000)];
            if let Poll::Ready(n) = socket.poll_write(cx, &[IoSlice::new(piece)]) {
                *sent += n.unwrap();
                moved = true;
            }
        }
        if *sent == data.len() && got.len() == data.len() {
            return Poll::Ready(());
        }
        if !moved {
            return Poll::Pending;
        }
    }
}

#[tokio::test]
async fn both_directions_at_once_lose_nothing_and_repeat_nothing() {
    let (client, server) = pair().await;
    let data: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 65_521 % 251) as u8).collect();
    let bytes = &data;
    let ends = [&client, &server].map(|socket| async move {
        let (mut sent, mut got) = (0, Vec::new());
        poll_fn(|cx| poll_pump(socket, bytes, (&mut sent, &mut got), cx)).await;
        got
    });
    let [one, other] = ends;
    let (one, other) = tokio::join!(one, other);
    assert!(one == data && other == data);
    // Nothing is left between them, and the end of one direction is the end.
    assert_eq!(client.peek_idle(), Idle::Clean);
    poll_fn(|cx| server.poll_shutdown(cx)).await;
    let mut rest = Vec::new();
    assert_eq!(poll_fn(|cx| client.poll_read(cx, &mut rest, 100)).await.unwrap(), 0);
    assert_eq!(client.peek_idle(), Idle::Closed);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_no_end() {
    let (client, server) = pair().await;
    drop(server);
    let mut rest = Vec::new();
    let cut = poll_fn(|cx| client.poll_read(cx, &mut rest, 100)).await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
}
