//! The request's body on its way to a node: read whole before a node is picked when it is small, and then
//! it can be sent again; streamed with back-pressure when it is not. What the shield keeps of a larger one
//! (`exchange::shield`) goes first, and can be sent again as long as nothing was streamed after it.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::client::{Client, Unread};
use super::respond::beside_of;
use super::towards::Towards;
use crate::clock;
use crate::error::Cause;
use crate::http1::Violation;
use crate::http1::body::{Body, Framing};
use crate::http1::buffers::{LARGE, SMALL};
use crate::http1::chunked;
use crate::http1::deadline::{Deadline, TICK};
use crate::limit::uploads::Floor;
use crate::spool::{PIECE, Store};

/// A body up to this size is read whole, and so can be replayed (as Linkerd and Pingora do).
pub const REPLAYABLE: usize = 64 * 1024;

/// What the shield kept of a body; emptied when no other node can be asked any more.
type Kept = Rc<RefCell<Option<Rc<Store>>>>;

/// What others may ask of a body while it is being streamed.
pub struct Flags {
    /// All of it was read and sent.
    pub done: Cell<bool>,
    /// Something went to the node that no other can be sent.
    streamed: Cell<bool>,
    /// The node has begun to answer: what comes now may be a conversation, which has its own pace.
    answered: Cell<bool>,
    /// The node took all that was sent so far.
    whole: bool,
    kept: Option<Kept>,
}

impl Flags {
    /// As a body stands before it is streamed. `whole`: what was sent before was taken whole.
    pub fn of(upload: &Upload, whole: bool) -> Flags {
        let done = Cell::new(whole && upload.is_done() && upload.kept.is_none());
        let kept = upload.kept.clone();
        let (streamed, answered) = (Cell::new(upload.streamed), Cell::new(false));
        Flags { done, streamed, answered, whole, kept }
    }

    /// Whether a further node can be sent the whole, as it stands now.
    pub fn is_replayable(&self) -> bool {
        !self.streamed.get() && self.kept.as_ref().is_none_or(|kept| kept.borrow().is_some())
    }

    /// The node's answer has begun.
    pub fn answer(&self) {
        self.answered.set(true);
        self.settle();
    }

    /// No other node will be asked: what was kept for it is given back.
    fn settle(&self) {
        if let Some(kept) = &self.kept {
            kept.take();
        }
    }

    /// There is more to send, and a node that takes it.
    pub fn streams(&self) -> bool {
        self.whole && !self.done.get()
    }
}

/// A request's body.
pub struct Upload {
    body: Body,
    framing: Framing,
    /// What was read so far, framed as a node gets it. Sent first, and again by a retry.
    wire: Vec<u8>,
    /// Bytes of data so far.
    received: u64,
    /// Bytes of data at most; 0 is no limit.
    limit: u64,
    /// Something beyond `wire` and `kept` went to a node: no other can be sent the whole any more.
    streamed: bool,
    /// It was looked whether the client is too slow, and `Expect` was answered.
    shielded: bool,
    /// What follows `wire`, in pieces of its own.
    kept: Option<Kept>,
}

impl Upload {
    /// At the body's first byte.
    ///
    /// # Errors
    /// A declared length over the limit.
    pub fn new(framing: Framing, limit: u64) -> Result<Upload, Cause> {
        match framing {
            Framing::Length(length) if limit != 0 && length > limit => Err(Cause::BodyTooLarge),
            _ => {
                let (body, wire) = (Body::new(framing), Vec::new());
                let (streamed, shielded, kept) = (false, false, None);
                Ok(Upload { body, framing, wire, received: 0, limit, streamed, shielded, kept })
            }
        }
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Whether a further node can be sent the whole.
    pub fn is_replayable(&self) -> bool {
        !self.streamed && self.kept.as_ref().is_none_or(|kept| kept.borrow().is_some())
    }

    /// Whether it was looked if the client is too slow. Then it waits for no 100 any more.
    pub fn is_shielded(&self) -> bool {
        self.shielded
    }

    /// How it goes to a node: by its length, if that is known by now and no trailer would be lost.
    pub fn framing(&self) -> Framing {
        let whole = self.shielded && self.framing == Framing::Chunked && self.is_done();
        match whole && self.body.trailers().is_empty() && self.wire.is_empty() {
            true => Framing::Length(self.received),
            false => self.framing,
        }
    }

    /// How long it is, or may be: `most` if nothing bounds it.
    pub fn length(&self, most: u64) -> u64 {
        match (self.framing, self.limit) {
            (Framing::Length(length), _) => length,
            (_, 0) => most,
            (_, limit) => limit,
        }
    }

    /// Begins to keep it: moves what was read so far into a store. False: it has no room.
    pub(super) fn begin_to_keep(&mut self, store: &mut Store) -> bool {
        self.shielded = true;
        if !self.wire.is_empty() && !store.take_memory(self.wire.len()) {
            return false;
        }
        // It is framed as a node would get it; how that will be is open again.
        let (wire, mut body) = (std::mem::take(&mut self.wire), Body::new(self.framing));
        let mut at = 0;
        while at < wire.len()
            && let Ok(step) = body.step(&wire[at..])
        {
            store.push(&wire[at + step.skip..at + step.skip + step.data]);
            at += step.skip + step.data;
        }
        true
    }

    /// Moves as much as there is room for from `unread` into a store.
    ///
    /// # Errors
    /// Odd framing, or too large.
    pub(super) fn keep_more(
        &mut self,
        unread: &mut Unread,
        store: &mut Store,
    ) -> Result<(), Cause> {
        while !unread.get().is_empty() && !self.body.is_done() {
            let room = store.room();
            if room == 0 {
                break;
            }
            self.step(unread, room, |piece| match piece {
                Piece::Plain(data) | Piece::Chunk(data) => store.push(data),
                Piece::End(_) => {}
            })?;
        }
        Ok(())
    }

    /// Reads on.
    ///
    /// # Errors
    /// Too slow, or the client left.
    pub(super) async fn read_more(
        &self,
        client: &Client<'_>,
        unread: &mut Unread,
        deadline: &Deadline,
    ) -> Result<(), Cause> {
        let large = self.body.expects() > SMALL as u64;
        client.read_body(unread, large, deadline, client.listener.settings.body_idle_timeout).await
    }

    /// The store goes to the nodes before anything that is still to come.
    pub(super) fn keep(&mut self, store: Store) {
        self.kept = Some(Rc::new(RefCell::new(Some(Rc::new(store)))));
    }

    /// Bytes of data read.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of memory that it holds.
    pub fn held(&self) -> usize {
        self.wire.capacity()
    }

    /// What is sent along with the head.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Reads the body whole if it is small, else as much of it as a replay may hold. A body that is known
    /// to be large is left alone: that is for the shield. In a `dialog` nothing is waited for.
    ///
    /// # Errors
    /// Odd framing, too large, too slow, or the client left.
    pub async fn buffer(
        &mut self,
        client: &Client<'_>,
        unread: &mut Unread,
        deadline: &Deadline,
        dialog: bool,
    ) -> Result<(), Cause> {
        if matches!(self.framing, Framing::Length(length) if length > REPLAYABLE as u64) {
            return Ok(());
        }
        let mut floor = client.floor(0);
        while !self.body.is_done() && self.wire.len() < REPLAYABLE {
            if unread.get().is_empty() && dialog {
                if !client.read_ready(unread).await? {
                    break;
                }
            } else if unread.get().is_empty() {
                // What it may come to; the rest of a buffer is counted with the exchange.
                let most = self.length(u64::MAX).min(REPLAYABLE as u64) as usize;
                if !deadline.wait_holding(most + SMALL) {
                    return Err(Cause::BuffersFull);
                }
                let patience = client.listener.settings.body_idle_timeout;
                client.read_body(unread, false, deadline, patience).await?;
                if floor.is_below(self.received, client.thread.look_at_clock()) {
                    return Err(Cause::BodyTimeout);
                }
            }
            let mut wire = std::mem::take(&mut self.wire);
            let step = self.step(unread, usize::MAX, |piece| append(&mut wire, piece));
            self.wire = wire;
            step?;
        }
        deadline.end_wait();
        match deadline.hold(self.wire.capacity()) {
            true => Ok(()),
            false => Err(Cause::BuffersFull),
        }
    }

    /// Sends what was kept, and streams what is left. Comes back when all was sent, or the node stopped
    /// taking it: then its answer tells more than the failed write.
    ///
    /// # Errors
    /// Odd framing, too large, too slow, or the client left.
    pub async fn pump(
        &mut self,
        client: &Client<'_>,
        unread: &mut Unread,
        node: &Towards<'_>,
        flags: &Flags,
    ) -> Result<(), Cause> {
        let kept = self.kept.as_ref().and_then(|kept| kept.borrow().clone());
        if let Some(store) = kept {
            let sending = self.send_kept(client, &store, node);
            let taken = match self.body.is_done() {
                // Nothing else would notice that the client leaves.
                true => beside_of(pin!(client.watch(unread)), sending).await??,
                false => sending.await?,
            };
            if !taken {
                return Ok(());
            }
            if !self.body.is_done() {
                // Here, not when more of it comes: a refusal may come before that.
                self.set_streamed(flags);
                flags.settle();
            }
        }
        let mut out = Vec::new();
        let mut patience = node.first;
        let mut floor: Option<Floor> = None;
        while !self.body.is_done() {
            if unread.get().is_empty() {
                client.thread.buffers.give_back(std::mem::take(&mut out));
                self.read_with_room(client, unread, node, patience).await?;
                patience = client.listener.settings.body_idle_timeout;
                let floor = floor.get_or_insert_with(|| client.floor(self.received));
                let slow = floor.is_below(self.received, client.thread.look_at_clock());
                if slow && !flags.answered.get() {
                    return Err(Cause::BodyTimeout);
                }
            }
            if out.capacity() == 0 {
                self.find_room(client, node.deadline, 2 * LARGE).await?;
                out = client.thread.buffers.large();
            }
            self.set_streamed(flags);
            while !unread.get().is_empty() && !self.body.is_done() && out.len() < LARGE {
                self.step(unread, usize::MAX, |piece| append(&mut out, piece))?;
            }
            let begun = client.thread.now_ns();
            if !node.write([&out, &[], &[]]).await {
                return Ok(());
            }
            if let Some(floor) = &mut floor {
                floor.skip(client.thread.now_ns().saturating_sub(begun));
            }
            out.clear();
        }
        client.thread.buffers.give_back(out);
        flags.done.set(true);
        Ok(())
    }

    /// Waits for more, and then for room to hold it: until then it stays with the kernel. While nothing comes,
    /// nothing is held.
    async fn read_with_room(
        &self,
        client: &Client<'_>,
        unread: &mut Unread,
        node: &Towards<'_>,
        patience: Duration,
    ) -> Result<(), Cause> {
        let large = self.body.expects() > SMALL as u64;
        loop {
            self.hold_no_more(node.deadline);
            client.await_body(node.deadline, patience).await?;
            self.find_room(client, node.deadline, 2 * LARGE).await?;
            if client.try_read_body(unread, large).await? {
                return Ok(());
            }
        }
    }

    /// Holds so much beside what was kept. The node has begun with the request, so it is not cut when there is
    /// no room, but waits until there is.
    async fn find_room(
        &self,
        client: &Client<'_>,
        deadline: &Deadline,
        more: usize,
    ) -> Result<(), Cause> {
        let bytes = self.wire.capacity() + more;
        if deadline.hold(bytes) {
            return Ok(());
        }
        let patience = clock::nanos(client.listener.settings.body_idle_timeout);
        let until_ns = deadline.now_ns().saturating_add(patience);
        while !deadline.hold(bytes) {
            if deadline.now_ns() >= until_ns {
                return Err(Cause::BuffersFull);
            }
            deadline.set(TICK);
            // It is the deadline that ends it.
            let _ = deadline.guard(std::future::pending::<()>()).await;
            deadline.clear();
        }
        Ok(())
    }

    fn hold_no_more(&self, deadline: &Deadline) {
        deadline.hold_anyway(self.wire.capacity());
    }

    /// Something goes to the node that no other can be sent.
    fn set_streamed(&mut self, flags: &Flags) {
        self.streamed = true;
        flags.streamed.set(true);
    }

    /// Sends what was kept, framed as the head for the node says. False: the node stopped taking it.
    async fn send_kept(
        &self,
        client: &Client<'_>,
        store: &Store,
        node: &Towards<'_>,
    ) -> Result<bool, Cause> {
        let (mut at, mut piece) = (0, Vec::new());
        if store.in_file() > 0 {
            self.find_room(client, node.deadline, PIECE).await?;
        }
        while at < store.in_file() {
            piece = store.read(at, piece).await.map_err(|error| {
                tracing::error!(target: "cobalance::spool", %error, "a spooled body cannot be read");
                Cause::Internal("the spool cannot be read")
            })?;
            at += piece.len() as u64;
            if !self.send_piece(&piece, node).await {
                return Ok(false);
            }
        }
        drop(piece);
        self.hold_no_more(node.deadline);
        let mut taken = self.send_piece(store.in_memory(), node).await;
        if taken && self.body.is_done() && self.framing() == Framing::Chunked {
            let mut end = Vec::new();
            append(&mut end, Piece::End(self.body.trailers()));
            taken = node.write([&end, &[], &[]]).await;
        }
        Ok(taken)
    }

    async fn send_piece(&self, data: &[u8], node: &Towards<'_>) -> bool {
        if data.is_empty() {
            return true;
        }
        if self.framing() != Framing::Chunked {
            return node.write([data, &[], &[]]).await;
        }
        let mut size = Vec::with_capacity(16);
        chunked::write_size(&mut size, data.len());
        node.write([&size, data, b"\r\n"]).await
    }

    /// Takes one stretch out of `unread`, of `most` bytes at most.
    fn step(
        &mut self,
        unread: &mut Unread,
        most: usize,
        mut emit: impl FnMut(Piece<'_>),
    ) -> Result<(), Cause> {
        let chunked = self.framing == Framing::Chunked;
        let input = unread.get();
        let input = &input[..input.len().min(most)];
        let step = self.body.step(input).map_err(|violation| match violation {
            Violation::Malformed(what) => Cause::BadBody(what),
            _ => Cause::BadBody("odd framing"),
        })?;
        let data = &input[step.skip..step.skip + step.data];
        self.received += data.len() as u64;
        if self.limit != 0 && self.received > self.limit {
            return Err(Cause::BodyTooLarge);
        }
        if !data.is_empty() {
            emit(if chunked { Piece::Chunk(data) } else { Piece::Plain(data) });
        }
        if chunked && self.body.is_done() {
            emit(Piece::End(self.body.trailers()));
        }
        let used = step.skip + step.data;
        unread.consume(used);
        Ok(())
    }
}

/// A stretch of a body in the form a node gets it.
enum Piece<'a> {
    Plain(&'a [u8]),
    Chunk(&'a [u8]),
    End(&'a [u8]),
}

fn append(out: &mut Vec<u8>, piece: Piece<'_>) {
    match piece {
        Piece::Plain(data) => out.extend_from_slice(data),
        Piece::Chunk(data) => {
            chunked::write_size(out, data.len());
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
        Piece::End(trailers) => chunked::write_end(out, trailers),
    }
}
