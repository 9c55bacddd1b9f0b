//! The data of a stream that has come, and that nobody has taken.
//!
//! The library keeps each frame for itself, with a place in its books and a hold on what was read together with
//! it: of a peer that sends a few bytes at a time, and of a stream that nobody takes from, that is a hundred times
//! what the windows admit. So where many small frames come, their bytes are put together: then what is kept is
//! what the windows say, however it came.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;

/// Bytes are put together into pieces of about so many: the last one of a stream may be half empty.
const PIECE: usize = 4 * 1024;

/// What comes in on a stream.
#[derive(Debug)]
pub struct Source {
    recv: RecvStream,
    /// What was put together, for whoever takes it.
    kept: VecDeque<Vec<u8>>,
    /// Bytes that the library has given, and that the peer may not send again yet.
    given: usize,
}

impl Source {
    /// Of a stream from which nothing was taken.
    pub fn new(recv: RecvStream) -> Source {
        Source { recv, kept: VecDeque::new(), given: 0 }
    }

    /// The next bytes, none after the last.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        match self.kept.pop_front() {
            Some(kept) => Poll::Ready(Some(Ok(kept.into()))),
            None => self.poll_frame(cx),
        }
    }

    /// What follows the last bytes.
    pub fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.recv.poll_trailers(cx)
    }

    /// So much was passed on: the peer may send as much again.
    pub fn release(&mut self, bytes: usize) {
        self.given = self.given.saturating_sub(bytes);
        // It fails only for more than has come.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }

    /// The end has come, and nothing is left before it.
    pub fn is_at_end(&self) -> bool {
        self.kept.is_empty() && self.recv.is_end_stream()
    }

    /// The peer has ended the stream. What was not taken is thrown away: for whoever wants no more.
    pub fn has_ended(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
    }

    /// Bytes that have come and were not passed on.
    pub fn untaken(&mut self) -> usize {
        self.recv.flow_control().used_capacity()
    }

    /// Puts together what has come. Whoever waits for data goes on waiting: where nothing is, nothing is asked for.
    pub fn gather(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.untaken() > self.given
            && let Poll::Ready(Some(Ok(data))) = self.poll_frame(&mut cx)
        {
            match self.kept.back_mut() {
                Some(last) if last.len() + data.len() <= PIECE => last.extend_from_slice(&data),
                _ => self.kept.push_back(data.to_vec()),
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let polled = self.recv.poll_data(cx);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            self.given += data.len();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// What a server finds of a stream once its client has done something with it, and what keeps both moving.
    async fn stream<F: Future>(
        client: impl FnOnce(h2::SendStream<Bytes>) -> F,
    ) -> (Source, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut server = h2::server::Builder::new();
        server.data_frame_budget(usize::MAX);
        let shaken = tokio::join!(h2::client::handshake(near), server.handshake::<_, Bytes>(far));
        let ((mut send, connection), mut server) = (shaken.0.unwrap(), shaken.1.unwrap());
        tokio::spawn(connection);
        let (_answer, body) = send.send_request(http::Request::new(()), false).unwrap();
        let (request, _respond) = server.accept().await.unwrap().unwrap();
        let moving = tokio::spawn(async move {
            let _kept = (_answer, _respond);
            while server.accept().await.is_some() {}
        });
        client(body).await;
        (Source::new(request.into_body()), moving)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    #[tokio::test]
    async fn small_frames_are_kept_as_their_bytes() {
        const LENGTH: usize = 60_000;
        let sent = pattern(LENGTH);
        let (mut source, _moving) = stream(|mut body| async move {
            body.reserve_capacity(LENGTH);
            while body.capacity() < LENGTH {
                poll_fn(|cx| body.poll_capacity(cx)).await;
            }
            for piece in sent.chunks(20) {
                body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
            }
            body.send_trailers(HeaderMap::new()).unwrap();
        })
        .await;
        while source.untaken() < LENGTH {
            tokio::task::yield_now().await;
            source.gather();
        }
        assert!(source.kept.len() <= LENGTH / (PIECE - 20) + 1, "{}", source.kept.len());
        assert_eq!(source.kept.iter().map(Vec::len).sum::<usize>(), LENGTH);
        let mut got = Vec::new();
        while let Some(data) = poll_fn(|cx| source.poll_data(cx)).await {
            let data = data.unwrap();
            source.release(data.len());
            got.extend(data);
        }
        assert!(got == pattern(LENGTH));
        assert_eq!((source.untaken(), source.given), (0, 0));
        assert!(!source.is_at_end(), "trailers follow");
        assert!(poll_fn(|cx| source.poll_trailers(cx)).await.unwrap().is_some());
        assert!(source.is_at_end());
    }

    #[tokio::test]
    async fn whoever_waits_is_still_told() {
        struct Wakes(AtomicUsize);
        impl std::task::Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let (give, take) = tokio::sync::oneshot::channel();
        let (mut source, _moving) = stream(|body| async move { give.send(body).unwrap() }).await;
        let mut body = take.await.unwrap();
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(wakes.clone());
        assert!(source.poll_data(&mut Context::from_waker(&waker)).is_pending());
        source.gather();
        body.send_data(Bytes::from_static(b"word"), true).unwrap();
        while wakes.0.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        source.gather();
        assert!(source.recv.is_end_stream() && !source.is_at_end());
        assert_eq!(poll_fn(|cx| source.poll_data(cx)).await.unwrap().unwrap(), "word");
        assert!(source.is_at_end());
    }
}
