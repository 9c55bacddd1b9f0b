//! Which protocol a client speaks: what TLS has agreed on, or the first bytes of a plain connection.

use std::future::poll_fn;

use super::Connection;
use crate::exchange::client::Unread;
use crate::http1::io::poll_fill;
use crate::http2::PREFACE;

/// What is said to a client that speaks HTTP/1 where that is not spoken.
const NOT_HTTP1: &[u8] =
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nContent-Length: 31\r\n\
    Connection: close\r\n\r\nThis port speaks HTTP/2 alone.\n";

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Connection {
    /// Finds out what is spoken. What is read for it is put into `unread`. `None`: the connection is over.
    pub(super) async fn choose_protocol(
        &mut self,
        agreed: Option<Protocol>,
        unread: &mut Unread,
    ) -> Option<Protocol> {
        match self.known_protocol(agreed) {
            Some(known) => Some(known),
            // What is rare is boxed: every connection would have to hold room for it.
            None => Box::pin(self.look_for_protocol(agreed, unread)).await,
        }
    }

    /// What is spoken, if nothing needs to be read or said to know it.
    fn known_protocol(&self, agreed: Option<Protocol>) -> Option<Protocol> {
        let protocols = self.listener.settings.protocols;
        let plain = (!protocols.h2).then_some(Protocol::Http1);
        let spoken = agreed.or(plain)?;
        (spoken == Protocol::Http2 || protocols.h1).then_some(spoken)
    }

    async fn look_for_protocol(
        &mut self,
        agreed: Option<Protocol>,
        unread: &mut Unread,
    ) -> Option<Protocol> {
        let protocols = self.listener.settings.protocols;
        let spoken = match agreed {
            Some(agreed) => agreed,
            None => self.recognise(unread).await?,
        };
        if spoken == Protocol::Http1 && !protocols.h1 {
            self.say(NOT_HTTP1).await;
            return None;
        }
        Some(spoken)
    }

    /// Reads until the first bytes are HTTP/2's preface, or cannot become it.
    async fn recognise(&mut self, unread: &mut Unread) -> Option<Protocol> {
        let mut bytes = unread.take();
        self.await_first_bytes(&mut bytes).await?;
        let (down, buffers) = (&self.deadlines.down, &self.thread.buffers);
        down.set(self.listener.settings.request_head_timeout);
        while bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
            let more = poll_fn(|cx| poll_fill(&self.socket, cx, &mut bytes, buffers, false));
            match down.guard(more).await {
                Ok(Ok(1..)) => {}
                // As in the middle of any head: it has gone, or takes too long to say what it wants.
                _ => return None,
            }
        }
        down.clear();
        let spoken = if bytes.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
        *unread = Unread::new(bytes);
        Some(spoken)
    }

    /// Says something to whoever cannot be served, and waits until it may have arrived.
    async fn say(&self, words: &[u8]) {
        // It fits, or the client is not there to read it.
        let _ = self.socket.try_write(&[std::io::IoSlice::new(words)]);
        self.linger().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_answer_has_its_length() {
        let text = str::from_utf8(NOT_HTTP1).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
