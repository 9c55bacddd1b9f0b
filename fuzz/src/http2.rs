//! Runs the bytes of a client of HTTP/2 through the real path of an exchange, and judges what came out.
//!
//! The first byte of a script says how the node answers, as for HTTP/1.1, and with bit 0 that the preface
//! and empty settings come before it; the second cuts it into pieces. What must hold: a node is sent nothing
//! but whole requests of HTTP/1.1, each with one framing and one ID; the client is sent whole frames, and
//! none on a stream that has ended; nothing waits for ever; and whoever comes next is served.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Node, Scene, Verdict, World, alone, send, settle, text, values};

/// Longer scripts are cut: what is bounded by size is met by the tables of the tests.
const MAX_SCRIPT: usize = 16 * 1024;
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `GET /after`, on stream 1, in the plainest coding.
const AFTER: &[u8] = b"\0\0\x18\x01\x05\0\0\0\x01\x82\x86\x00\x05:path\x06/after\x41\x06a.test";

thread_local! {
    static WORLD: World = World::new("protocols = [\"h1\", \"h2\"]");
}

/// What a script may not say.
pub fn run(script: &[u8]) -> Verdict {
    let [mode, cut, bytes @ ..] = script else { return Ok(()) };
    let bytes = &bytes[..bytes.len().min(MAX_SCRIPT)];
    let begun = mode & 1 != 0;
    let preface = [&cobalance::http2::PREFACE[..], &SETTINGS].concat();
    let bytes = [if begun { &preface[..] } else { &[] }, bytes].concat();
    // Anything else is HTTP/1.1, which has a target of its own.
    if !bytes.starts_with(cobalance::http2::PREFACE) {
        return Ok(());
    }
    alone(async {
        let scene = WORLD.with(|world| Scene::of(world, Node::good(*mode)));
        scene.frames(&bytes, *cut).await?;
        scene.next(&[&preface[..], AFTER].concat()).await
    })
}

impl Scene {
    async fn frames(&self, bytes: &[u8], cut: u8) -> Verdict {
        let (mut stream, served) = self.connect()?;
        send(&mut stream, bytes, cut).await;
        settle().await;
        // It leaves: whatever is open must end, with every frame of it.
        let _ = stream.shutdown().await;
        let mut got = Vec::new();
        while matches!(stream.read_buf(&mut got).await, Ok(1..)) {}
        drop(stream);
        served.await.map_err(|error| format!("the connection's task: {error}"))?;
        settle().await;
        if let Some(wrong) = self.node.wrong.borrow_mut().take() {
            return Err(wrong);
        }
        for seen in self.node.seen.borrow().iter() {
            if values(&seen.fields, "x-request-id").count() != 1 {
                return Err(format!("not one ID: {seen:?}"));
            }
        }
        judge(&got)
    }

    /// Another client, with a request that has an answer.
    async fn next(&self, bytes: &[u8]) -> Verdict {
        let (mut stream, served) = self.connect()?;
        send(&mut stream, bytes, 0).await;
        let mut got = Vec::new();
        // Which number it has depends on who was cancelled before the node read it.
        let said = b" 0 GET /after";
        while !got.windows(said.len()).any(|part| part == said) {
            if !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                return Err(format!("the next got {}", text(&got)));
            }
        }
        drop(stream);
        served.await.map_err(|error| format!("the connection's task: {error}"))
    }
}

/// Frames as RFC 9113 (5.1) lets a server send them.
fn judge(mut bytes: &[u8]) -> Verdict {
    // By stream: whether our direction has ended.
    let mut ended: HashMap<u32, bool> = HashMap::new();
    while !bytes.is_empty() {
        let Some((head, rest)) = bytes.split_first_chunk::<9>() else {
            return Err(format!("a part of a frame: {}", text(bytes)));
        };
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let (length, stream) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes(stream));
        let Some((_, rest)) = rest.split_at_checked(length as usize) else {
            return Err(format!("a frame without an end: {}", text(bytes)));
        };
        bytes = rest;
        let ends = match kind {
            0 | 1 => flags & 1 != 0,
            3 => true,
            _ => continue,
        };
        let known = ended.entry(stream).or_default();
        // A stream that has ended may still be reset: the client has not ended its own direction.
        if *known && kind != 3 {
            return Err(format!("a frame of kind {kind} on stream {stream}, which has ended"));
        }
        *known |= ends;
    }
    Ok(())
}
