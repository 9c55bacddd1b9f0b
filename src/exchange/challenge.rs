//! HTTP-01 (RFC 8555, 8.3): an authority looks whether a name is ours. Whatever else the listener does with requests,
//! this one is answered.

use super::answer::{Content, Shape, write_content};
use super::{Exchange, Next};
use crate::tls::challenges::Kind;

impl Exchange<'_> {
    /// `None`: this is an ordinary request, also if it only looks like the other kind.
    pub(super) async fn answer_challenge(&mut self) -> Option<Next> {
        let view = self.view.clone();
        let to_head = match self.head.method() {
            b"GET" => false,
            b"HEAD" => true,
            _ => return None,
        };
        let body = view.snapshot.challenges.http(self.head.path())?;
        view.snapshot.challenges.count(Kind::Http01);
        self.record.status = 200;
        let keep_alive = self.keeps_alive() && self.body_done;
        let mut out = self.client.thread.buffers.small();
        let content = Content {
            status: 200,
            retry_after: None,
            kind: b"application/octet-stream",
            body: &body,
            limited: None,
        };
        let shape = Shape {
            json: false,
            to_head,
            keep_alive,
            maintaining: false,
            request_id: self.record.id.as_str(),
        };
        write_content(&mut out, &content, &shape);
        Some(self.deliver(out, keep_alive).await)
    }
}
