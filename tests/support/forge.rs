//! A client of HTTP/2 that speaks by hand and hears by the library: what the library would refuse to send
//! goes out as it is written, and what comes back is judged as strictly as the library judges.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::Reason;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::h2::{Client, Got, HEADERS, frame, request, runtime, whole};

/// Kind, flags and payload of a frame of the stream that is being opened.
pub type Part = (u8, u8, Vec<u8>);

type Forged = Arc<Mutex<VecDeque<Vec<Part>>>>;

/// The client.
pub struct Forger {
    client: Client,
    forged: Forged,
}

/// What came of a stream.
#[derive(Debug)]
pub enum Heard {
    Answer(Got),
    /// The stream was reset.
    Reset(Reason),
    /// The connection was ended.
    Gone(Option<Reason>),
    /// The library does not take the answer for one.
    Odd(h2::Error),
}

impl Forger {
    pub fn connect(address: SocketAddr) -> Forger {
        let forged = Forged::default();
        let runtime = runtime();
        let io = runtime.block_on(TcpStream::connect(address)).unwrap();
        io.set_nodelay(true).unwrap();
        let wire =
            Wire { io, forged: forged.clone(), said: Vec::new(), out: Vec::new(), begun: false };
        Forger { client: Client::over(runtime, wire, |_| ()), forged }
    }

    /// Opens a stream with these frames and hears it to its end. They ask by `method`, which says whether an
    /// answer has a body.
    pub fn ask(&mut self, method: &str, parts: Vec<Part>) -> Heard {
        self.forged.lock().push_back(parts);
        let answer = self.client.begin(request(method, "/"), true).0;
        match self.client.run(whole(answer)) {
            Ok(got) => Heard::Answer(got),
            Err(error) if error.is_reset() && error.is_remote() => {
                Heard::Reset(error.reason().unwrap())
            }
            Err(error) if error.is_library() => Heard::Odd(error),
            Err(error) => Heard::Gone(error.reason().or_else(|| {
                // The stream ended with its connection, which knows more.
                self.client.ended().err().and_then(|error| error.reason())
            })),
        }
    }
}

/// Puts forged frames in the place of the library's heads. Neither adds to the table of the other's coding:
/// all heads of the connection are forged.
struct Wire {
    io: TcpStream,
    forged: Forged,
    /// What the library has said that is no whole frame yet.
    said: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
    /// The preface has passed.
    begun: bool,
}

impl Wire {
    fn forge(&mut self) {
        const PREFACE: usize = cobalance::http2::PREFACE.len();
        if !self.begun && self.said.len() >= PREFACE {
            self.out.extend(self.said.drain(..PREFACE));
            self.begun = true;
        }
        while self.begun
            && let Some(&[a, b, c, kind, _, s0, s1, s2, s3]) = self.said.first_chunk()
        {
            let whole = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.said.len() < whole {
                break;
            }
            let said: Vec<u8> = self.said.drain(..whole).collect();
            if kind != HEADERS {
                self.out.extend(said);
                continue;
            }
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            let parts = self.forged.lock().pop_front().expect("each stream is forged");
            for (kind, flags, payload) in parts {
                self.out.extend(frame(kind, flags, stream, &payload));
            }
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            self.out.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.said.extend_from_slice(bytes);
        wire.forge();
        match wire.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(wire.poll_out(cx))?;
        Pin::new(&mut wire.io).poll_shutdown(cx)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, into)
    }
}
