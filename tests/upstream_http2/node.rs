//! Nodes that speak HTTP/2, by the library, and do as a test says.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

use super::support::h2::{read_all, send_all};

/// A node on a port of its own.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    words: broadcast::Sender<Word>,
    script: Box<Script>,
    builder: server::Builder,
}

#[derive(Clone, Copy, PartialEq)]
enum Word {
    GoAway,
    Die,
}

/// A request whose head has come.
pub(crate) struct Seen {
    pub(crate) request: Request<()>,
}

/// One stream, in the hands of a test's script.
pub(crate) struct Asked {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// The number of the request at this node, from 0.
    pub(crate) nth: usize,
}

type Script = dyn Fn(Asked) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

impl Node {
    /// Runs a script on each stream.
    pub(crate) fn scripted<F>(script: impl Fn(Asked) -> F + Send + Sync + 'static) -> Node
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Node::with(|_| (), None, script)
    }

    /// The same with its own settings, and over TLS if there is a configuration for it.
    pub(crate) fn with<F>(
        settings: impl FnOnce(&mut server::Builder),
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Node
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = server::Builder::new();
        settings(&mut builder);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            words: broadcast::channel(8).0,
            script: Box::new(move |asked| Box::pin(script(asked))),
            builder,
        });
        let (node, words) = (shared.clone(), shared.words.subscribe());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(listen(node, socket, tls, words));
        });
        Node { address, shared }
    }

    /// 200 with a body.
    pub(crate) fn ok(body: &'static str) -> Node {
        Node::scripted(move |asked| asked.answer(body))
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> parking_lot::MutexGuard<'_, Vec<Seen>> {
        self.shared.seen.lock()
    }

    /// Connections accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Connections open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// Tells all clients that their connections will close.
    pub(crate) fn go_away(&self) {
        let _ = self.shared.words.send(Word::GoAway);
    }

    /// Is gone from one moment to the next.
    pub(crate) fn die(&self) {
        let _ = self.shared.words.send(Word::Die);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.die();
    }
}

async fn listen(
    shared: Arc<Shared>,
    socket: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    mut words: broadcast::Receiver<Word>,
) {
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            word = words.recv() => match word {
                Ok(Word::GoAway) => continue,
                _ => return,
            },
        };
        let Ok((stream, _)) = accepted else { return };
        stream.set_nodelay(true).unwrap();
        shared.connections.fetch_add(1, SeqCst);
        let (shared, tls) = (shared.clone(), tls.clone());
        tokio::spawn(async move {
            shared.open.fetch_add(1, SeqCst);
            match tls {
                None => serve(&shared, stream).await,
                Some(config) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(config);
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(&shared, stream).await;
                    }
                }
            }
            shared.open.fetch_sub(1, SeqCst);
        });
    }
}

async fn serve(shared: &Arc<Shared>, io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut words = shared.words.subscribe();
    let Ok(mut connection) = shared.builder.handshake::<_, Bytes>(io).await else { return };
    loop {
        let asked = tokio::select! {
            asked = connection.accept() => asked,
            word = words.recv() => match word {
                Ok(Word::GoAway) => {
                    connection.graceful_shutdown();
                    continue;
                }
                _ => return,
            },
        };
        let Some(Ok((request, respond))) = asked else { return };
        let mut seen = shared.seen.lock();
        let nth = seen.len();
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        if let Some(protocol) = request.extensions().get::<h2::ext::Protocol>() {
            copy.extensions_mut().insert(protocol.clone());
        }
        seen.push(Seen { request: copy });
        drop(seen);
        tokio::spawn((shared.script)(Asked { request, respond, nth }));
    }
}

impl Asked {
    pub(crate) fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Reads the body, answers 200 with another.
    pub(crate) async fn answer(mut self, body: impl Into<Bytes>) {
        let _ = read_all(self.request.body_mut()).await;
        let body = body.into();
        let head = Response::builder().header("content-length", body.len());
        let Some(mut send) = self.head(head, body.is_empty()) else { return };
        let _ = send_all(&mut send, &body, true).await;
    }

    /// Sends the head.
    pub(crate) fn head(
        &mut self,
        head: http::response::Builder,
        ends: bool,
    ) -> Option<SendStream<Bytes>> {
        self.respond.send_response(head.body(()).unwrap(), ends).ok()
    }

    /// Says what it hears, with its trailers.
    pub(crate) async fn echo(mut self) {
        let Some(mut send) = self.head(Response::builder(), false) else { return };
        let recv = self.request.body_mut();
        while let Some(Ok(data)) = recv.data().await {
            let _ = recv.flow_control().release_capacity(data.len());
            if send_all(&mut send, &data, false).await.is_err() {
                return;
            }
        }
        match recv.trailers().await {
            Ok(Some(trailers)) => drop(send.send_trailers(trailers)),
            _ => drop(send.send_data(Bytes::new(), true)),
        }
    }
}

/// One field.
pub(crate) fn fields(name: &'static str, value: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(name, value.parse().unwrap());
    fields
}
