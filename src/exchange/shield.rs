//! The upload shield: a body that comes too slowly is read to its end before a node is asked.
//!
//! Node gives a whole request 300 s and answers 408 then, so a node must never wait for a slow client. How
//! fast one is shows in the first second, or the first megabyte. What was read by then is kept, and sent
//! first if the rest may follow as it comes; else all of it is kept ([`crate::spool`]), and sent at once.

use super::client::Unread;
use super::upload::{REPLAYABLE, Upload};
use super::view::LocalUpstream;
use super::{Exchange, Plan};
use crate::config::{self, Preset};
use crate::error::Cause;
use crate::http1::body::Framing;
use crate::http1::field::Known;
use crate::limit::uploads::{Gauge, Pace};
use crate::spool::{Refused, Spool, Store};

/// What a client waits for that asked whether to send its body (RFC 9110, 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Exchange<'_> {
    /// Whether it must still be looked if the client is too slow.
    pub(super) fn wants_shield(&self, plan: &Plan<'_>, upload: &Upload) -> bool {
        let settings = &plan.upstream.upstream.settings;
        let off = settings.stream_within.is_zero() || self.is_dialog(plan.upstream);
        if upload.is_done() || upload.is_shielded() || off {
            return false;
        }
        // NocoBase never refuses a body before it comes: Node tells every client to go on. Others may, so
        // they are asked first.
        let small =
            matches!(self.head.framing, Framing::Length(length) if length <= REPLAYABLE as u64);
        !self.head.expect_continue || settings.preset == Preset::NocoBase && !small
    }

    /// Whether client and node may speak in turns on one exchange (gRPC): then a node must hear at once what its
    /// client says, and nothing waits for the end of the request. No NocoBase does so, whatever a stranger says.
    pub(super) fn is_dialog(&self, upstream: &LocalUpstream) -> bool {
        let kind = self.head.value(Known::ContentType).unwrap_or_default();
        upstream.upstream.settings.preset == Preset::None
            && kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/grpc"))
    }

    /// Whether a node may be picked. While there is none, a large body stays with its client.
    pub(super) fn is_anybody(&self, plan: &Plan<'_>) -> bool {
        plan.upstream.nodes.iter().any(|member| {
            let node = &member.local.node;
            node.eligible(plan.wish.safe_to_repeat) || !member.backup && node.may_fail_open()
        })
    }

    /// Reads the body until it is known that the rest may follow as it comes, or to its end.
    ///
    /// # Errors
    /// Odd framing, too large, nothing for too long, or the client left. Nothing is kept then.
    pub(super) async fn shield(
        &mut self,
        upstream: &LocalUpstream,
        upload: &mut Upload,
        unread: &mut Unread,
    ) -> Result<(), Cause> {
        // It is not parked any more.
        self.spot = None;
        let (thread, snapshot) = (self.client.thread, &self.view.snapshot);
        let (spool, settings) = (snapshot.spool.clone(), snapshot.config.spool.clone());
        let mut store = Store::new(&spool, &settings, self.record.client);
        let begun = thread.look_at_clock();
        // What came while it was parked, or while others were served, did not come in no time.
        let mut since = self.record.begun_ns();
        if self.head.expect_continue {
            if unread.get().is_empty() {
                self.client.write([CONTINUE, &[], &[]], &self.deadlines.down).await?;
            }
            since = begun;
        }
        if !upload.begin_to_keep(&mut store) {
            spool.refused(&store.no_memory());
            return Ok(());
        }
        let length = upload.length(settings.max_body);
        let gauge = Gauge::new(length, upstream.upstream.settings.stream_within, since);
        let spooled = self.fill(&mut store, gauge, (upload, unread), (&spool, &settings)).await;
        // It may have to wait for a node.
        self.deadlines.up.end_wait();
        unread.free_if_empty(&thread.buffers);
        // The client's time is not the node's.
        let took = thread.look_at_clock() - begun;
        if spooled? {
            self.record.spooled = Some((store.len(), took));
        }
        upload.keep(store);
        Ok(())
    }

    /// Fills the store. Whether the client was found to be slow.
    async fn fill(
        &mut self,
        store: &mut Store,
        mut gauge: Gauge,
        (upload, unread): (&mut Upload, &mut Unread),
        (spool, settings): (&Spool, &config::Spool),
    ) -> Result<bool, Cause> {
        let mut slow = false;
        let mut floor = self.client.floor(0);
        loop {
            upload.keep_more(unread, store)?;
            let now = self.client.thread.look_at_clock();
            if upload.is_done() {
                return Ok(slow);
            }
            if floor.is_below(upload.received(), now) {
                return Err(Cause::BodyTimeout);
            }
            let full = store.room() == 0;
            match gauge.look(upload.received(), full, now) {
                Pace::Fast => return Ok(slow),
                Pace::Unknown => {}
                Pace::Slow => {
                    let refused = match (self.head.framing, full) {
                        (Framing::Length(length), _) if length > settings.max_body => {
                            Err(Refused::too_large(settings))
                        }
                        (_, true) => store.save().await,
                        (_, false) => Ok(()),
                    };
                    if let Err(refused) = refused {
                        spool.refused(&refused);
                        return Ok(slow);
                    }
                    if !std::mem::replace(&mut slow, true) {
                        spool.count_slow();
                    }
                }
            }
            if unread.get().is_empty() {
                upload.read_more(self.client, unread, &self.deadlines.up).await?;
            }
        }
    }
}
