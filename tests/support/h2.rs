//! A client of HTTP/2: the library that browsers' like are tested with, and frames by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::PATIENCE;

/// A connection, and the runtime that moves it while something is waited for.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer that came whole.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    /// With prior knowledge.
    pub fn plain(address: SocketAddr) -> Client {
        Client::plain_with(address, |_| ())
    }

    /// The same with its own settings.
    pub fn plain_with(address: SocketAddr, with: impl FnOnce(&mut client::Builder)) -> Client {
        let runtime = runtime();
        let io = runtime.block_on(tokio::net::TcpStream::connect(address)).unwrap();
        Client::over(runtime, io, with)
    }

    /// Over TLS, where it must be what both agree on.
    pub fn tls(address: SocketAddr, mut config: rustls::ClientConfig, name: &str) -> Client {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let runtime = runtime();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let io = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            connector.connect(name, stream).await.unwrap()
        });
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Client::over(runtime, io, |_| ())
    }

    /// Over anything that is a stream of bytes.
    pub fn over(
        runtime: tokio::runtime::Runtime,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        with: impl FnOnce(&mut client::Builder),
    ) -> Client {
        let mut builder = client::Builder::new();
        with(&mut builder);
        let (send, connection) =
            runtime.block_on(within(builder.handshake::<_, Bytes>(io))).unwrap();
        let connection = runtime.spawn(connection);
        Client { runtime, send, connection }
    }

    /// Runs something while the connection moves.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(within(work))
    }

    /// Waits until a condition holds while the connection moves.
    pub fn until(&self, mut condition: impl FnMut() -> bool) {
        self.run(async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    /// Sends a head.
    pub fn begin(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let send = self.send.clone();
        let mut send = self.run(send.ready()).unwrap();
        send.send_request(request, ends).unwrap()
    }

    /// Sends a request without a body and reads the whole answer.
    pub fn ask(&mut self, request: Request<()>) -> Result<Got, h2::Error> {
        let (answer, _) = self.begin(request, true);
        self.run(whole(answer))
    }

    pub fn get(&mut self, path: &str) -> Got {
        self.ask(get(path)).unwrap()
    }

    /// Sends a request with a body, and what follows it.
    pub fn post(
        &mut self,
        path: &str,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<Got, h2::Error> {
        let (answer, mut send) = self.begin(request("POST", path), false);
        let ends = trailers.is_none();
        self.run(async {
            send_all(&mut send, body, ends).await?;
            if let Some(trailers) = trailers {
                send.send_trailers(trailers)?;
            }
            whole(answer).await
        })
    }

    /// How the connection ended, once it has.
    pub fn ended(&mut self) -> Result<(), h2::Error> {
        let Client { runtime, connection, .. } = self;
        runtime.block_on(within(connection)).unwrap()
    }
}

/// What moves a client.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Nothing takes longer but a defect.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it never came")
}

pub fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://a.test{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

pub fn get(path: &str) -> Request<()> {
    request("GET", path)
}

/// Reads an answer to its end.
pub async fn whole(answer: ResponseFuture) -> Result<Got, h2::Error> {
    let answer: Response<RecvStream> = answer.await?;
    let (head, mut stream) = answer.into_parts();
    let body = read_all(&mut stream).await?;
    let trailers = stream.trailers().await?;
    Ok(Got { status: head.status.as_u16(), fields: head.headers, body, trailers })
}

pub async fn read_all(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        stream.flow_control().release_capacity(data.len())?;
    }
    Ok(body)
}

/// Sends as the other side makes room.
pub async fn send_all(
    send: &mut SendStream<Bytes>,
    mut body: &[u8],
    ends: bool,
) -> Result<(), h2::Error> {
    if body.is_empty() && ends {
        return send.send_data(Bytes::new(), true);
    }
    while !body.is_empty() {
        send.reserve_capacity(body.len());
        let Some(room) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else {
            return Err(Reason::CANCEL.into());
        };
        let (now, later) = body.split_at(room?.min(body.len()));
        body = later;
        send.send_data(Bytes::copy_from_slice(now), ends && body.is_empty())?;
    }
    Ok(())
}

/// A connection of which each frame is written by hand.
pub struct Raw {
    pub stream: TcpStream,
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl Raw {
    /// Connects and says the preface and empty settings.
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw { stream };
        raw.stream.write_all(cobalance::http2::PREFACE).unwrap();
        raw.send(SETTINGS, 0, 0, &[]);
        raw
    }

    /// Writes a frame; the peer may be gone.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.stream.write_all(&frame(kind, flags, stream, payload)).is_ok()
    }

    /// Opens a stream with these fields, in the plainest coding.
    pub fn open(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> bool {
        self.send(HEADERS, flags, stream, &block(fields))
    }

    /// Opens a stream with a usual GET.
    pub fn get(&mut self, stream: u32, path: &str) -> bool {
        self.open(stream, END_HEADERS | END_STREAM, &usual("GET", path))
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of a kind, whatever comes before it.
    pub fn await_kind(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    /// The reason of the last GOAWAY before the connection ends.
    pub fn goaway(&mut self) -> Option<u32> {
        let frames = std::iter::from_fn(|| self.next()).filter(|frame| frame.kind == GOAWAY);
        frames.last().map(|frame| u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
    }

    pub fn patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }
}

pub fn usual<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)]
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as literals that are not remembered (RFC 7541, 6.2.2).
pub fn block(fields: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            length(&mut bytes, text.len());
            bytes.extend(text);
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}
