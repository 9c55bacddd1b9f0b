//! How the shield keeps a body before a node is asked.

use std::cell::RefCell;
use std::rc::Rc;

use super::piece::Piece;
use super::{Client, Unread, Upload};
use crate::error::Cause;
use crate::http1::body::Body;
use crate::http1::buffers::SMALL;
use crate::http1::deadline::Deadline;
use crate::spool::Store;

impl Upload {
    /// Begins to keep it: moves what was read so far into a store. False: it has no room.
    pub(in crate::exchange) fn begin_to_keep(&mut self, store: &mut Store) -> bool {
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
    pub(in crate::exchange) fn keep_more(
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
    pub(in crate::exchange) async fn read_more(
        &self,
        client: &Client<'_>,
        unread: &mut Unread,
        deadline: &Deadline,
    ) -> Result<(), Cause> {
        let large = self.body.expects() > SMALL as u64;
        client.read_body(unread, large, deadline, client.listener.settings.body_idle_timeout).await
    }

    /// The store goes to the nodes before anything that is still to come.
    pub(in crate::exchange) fn keep(&mut self, store: Store) {
        self.kept = Some(Rc::new(RefCell::new(Some(Rc::new(store)))));
    }
}
