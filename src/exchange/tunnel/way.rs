//! One direction of a tunnel: what is read is written at once, or kept until the other side takes it.

use std::io::{self, IoSlice};
use std::mem;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use super::TURN;
use super::frames::{CONTROL, FrameTracker, Limit};
use super::sift::{self, Reading};
use crate::net::Socket;
use crate::nocobase::MAX_FRAME;

/// Whether the text of a message about NocoBase's dialog is withheld from the client.
pub(super) type Judge<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// One direction.
pub(super) struct Way {
    /// Read, and not taken by the other side yet; empty and without memory nearly always.
    rest: Vec<u8>,
    frames: FrameTracker,
    farewell: Farewell,
    /// The beginning of a message that may have to be withheld, and of which nothing has passed.
    #[allow(clippy::box_collection)] // a third of the memory in every tunnel, for what is rare
    held: Option<Box<Vec<u8>>>,
    /// What is read is dropped: a message was withheld, and nothing may follow but a Close frame.
    pub(super) muted: bool,
    /// How long messages may be, where that is bounded.
    limit: Option<Box<Limit>>,
    pub(super) bytes: u64,
    pub(super) ended: bool,
}

/// Where a direction is that another process goes on with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Point {
    /// Read, and not written.
    pub(super) rest: Vec<u8>,
    pub(super) frames: FrameTracker,
    /// Read, and not to be written yet.
    held: Vec<u8>,
}

/// The Close frame of ours that ends a direction.
enum Farewell {
    /// Nobody has asked for it.
    None,
    /// It goes where the frame at hand ends; with words before it, where the message does.
    Due(Box<[u8]>),
    /// Nothing follows it.
    Said,
}

impl Way {
    /// Begins with what was read early, of which nothing is withheld.
    pub(super) fn new(early: Vec<u8>) -> Way {
        let mut frames = FrameTracker::default();
        frames.pass(&early);
        Way {
            bytes: early.len() as u64,
            rest: early,
            frames,
            farewell: Farewell::None,
            held: None,
            limit: None,
            muted: false,
            ended: false,
        }
    }

    /// Goes on where another process has left it. What that has held back passes if nobody judges it here.
    pub(super) fn at(point: Point, judged: bool) -> Way {
        let Point { rest, frames, held } = point;
        let mut way = Way::new(Vec::new());
        (way.rest, way.frames) = (rest, frames);
        match judged && !held.is_empty() {
            true => way.held = Some(Box::new(held)),
            false => way.rest.extend(held),
        }
        way
    }

    /// With a bound on messages, for what is to come.
    pub(super) fn within(self, limit: Option<Box<Limit>>) -> Way {
        Way { limit, ..self }
    }

    /// Whether a message was longer than it may be. Nothing passes since.
    pub(super) fn is_too_long(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| limit.is_exceeded())
    }

    /// Bytes that the other side does not take.
    pub(super) fn held(&self) -> usize {
        self.rest.capacity()
    }

    /// Whether a Close frame still has a place in what passes, now or later.
    pub(super) fn is_websocket(&self) -> bool {
        self.frames.is_websocket()
    }

    /// For another process.
    pub(super) fn point(self) -> Point {
        Point { rest: self.rest, frames: self.frames, held: *self.held.unwrap_or_default() }
    }

    /// Nothing has ended or is to end: what is there is two sockets and a [`Point`].
    pub(super) fn is_open(&self) -> bool {
        !self.ended && !self.muted && matches!(self.farewell, Farewell::None)
    }

    /// Adds what was read early, as far as it may pass.
    pub(super) fn add_early(&mut self, early: &[u8], judge: Option<&Judge<'_>>) {
        let mut behind = Vec::new();
        let passes = self.admit(early, judge, &mut behind);
        self.rest.extend_from_slice(passes);
        self.rest.append(&mut behind);
    }

    /// To end with a Close frame, and words of ours before it if there are any.
    pub(super) fn say_farewell(&mut self, mut words: Vec<u8>, close: &[u8]) {
        words.extend_from_slice(close);
        self.farewell = Farewell::Due(words.into());
    }

    /// Nobody is there to be told anything.
    pub(super) fn say_nothing(&mut self) {
        self.rest = Vec::new();
        self.farewell = Farewell::Said;
    }

    /// Moves what can be moved, and says farewell when that is due. Ready when both the end was read and
    /// everything is written.
    pub(super) fn poll_move(
        &mut self,
        (from, to): (&Socket, &Socket),
        scratch: &mut [u8],
        judge: Option<&Judge<'_>>,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURN {
            if !self.poll_rest(to, cx)? {
                return Poll::Pending;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if self.is_farewell_next() {
                self.begin_farewell();
                continue;
            }
            if matches!(self.farewell, Farewell::Said) {
                return Poll::Pending;
            }
            let n = match from.poll_read_slice(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            };
            self.ended = n == 0;
            *moved |= n > 0;
            let mut behind = Vec::new();
            let data = self.admit(&scratch[..n], judge, &mut behind);
            let taken = match to.try_write(&[IoSlice::new(data)]) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if taken < data.len() {
                self.rest = data[taken..].to_vec();
            }
            self.rest.append(&mut behind);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was left over; true when nothing is.
    fn poll_rest(&mut self, to: &Socket, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.rest.is_empty() {
            match to.poll_write(cx, &[IoSlice::new(&self.rest)]) {
                Poll::Pending => return Ok(false),
                Poll::Ready(written) => drop(self.rest.drain(..written?)),
            }
        }
        self.rest = Vec::new();
        Ok(true)
    }

    /// Counts what was read, and says what of it passes. What comes out of hiding is put into `behind`,
    /// which follows it. Once a farewell is due, only what belongs to the frame or message at hand passes:
    /// what follows it would come after the Close frame.
    fn admit<'a>(
        &mut self,
        read: &'a [u8],
        judge: Option<&Judge<'_>>,
        behind: &mut Vec<u8>,
    ) -> &'a [u8] {
        let passes = match (&self.farewell, judge) {
            _ if self.muted => 0,
            (Farewell::None, None) => match &mut self.limit {
                None => {
                    self.frames.pass(read);
                    read.len()
                }
                Some(limit) => {
                    let passes = self.frames.pass_within(read, limit);
                    self.muted = limit.is_exceeded();
                    passes
                }
            },
            (Farewell::None, Some(judge)) => self.sift(read, judge, behind),
            (Farewell::Due(_) | Farewell::Said, _) => {
                let mut at = 0;
                while at < read.len() && !self.is_farewell_next() {
                    at += self.frames.pass_frame(&read[at..]);
                }
                at
            }
        };
        self.bytes += (passes + behind.len()) as u64;
        &read[..passes]
    }

    /// How much passes before a message that may have to be withheld; what is let go of it goes into
    /// `behind`, with everything after it.
    fn sift(&mut self, read: &[u8], judge: &Judge<'_>, behind: &mut Vec<u8>) -> usize {
        let mut passes = 0;
        while self.held.is_none() && passes < read.len() {
            if !self.begins_to_hold(&read[passes..]) {
                passes += self.frames.pass_frame(&read[passes..]);
            }
        }
        let mut left = &read[passes..];
        while !left.is_empty() && !self.muted {
            if self.held.is_none() && !self.begins_to_hold(left) {
                let n = self.frames.pass_frame(left);
                behind.extend_from_slice(&left[..n]);
                left = &left[n..];
                continue;
            }
            let n = self.frames.pass_frame(left);
            let mut held = self.held.take().unwrap_or_default();
            held.extend_from_slice(&left[..n]);
            left = &left[n..];
            match sift::read(&held) {
                Reading::Undecided if held.len() <= MAX_FRAME => self.held = Some(held),
                Reading::Whole(text) if judge(&text) => self.muted = true,
                _ => behind.append(&mut held),
            }
        }
        passes
    }

    fn begins_to_hold(&mut self, bytes: &[u8]) -> bool {
        let begins = self.frames.between_messages() && sift::read(bytes) != Reading::Other;
        if begins {
            self.held = Some(Box::default());
        }
        begins
    }

    /// Whether a Close frame may go now to whom this direction leads.
    pub(super) fn may_close(&self) -> bool {
        self.rest.is_empty() && self.is_between(false)
    }

    /// Between two frames, or between two messages: as who reads it sees it, of what is held nothing.
    fn is_between(&self, messages: bool) -> bool {
        self.muted
            || self.held.is_some()
            || match messages {
                true => self.frames.between_messages(),
                false => self.frames.at_boundary(),
            }
    }

    fn is_farewell_next(&self) -> bool {
        let Farewell::Due(frames) = &self.farewell else { return false };
        // What begins with a message of ours must not stand within one of theirs.
        self.is_between(frames.first().is_some_and(|first| first & 0x0f < CONTROL))
    }

    fn begin_farewell(&mut self) {
        if let Farewell::Due(frames) = mem::replace(&mut self.farewell, Farewell::Said) {
            self.rest = frames.into_vec();
            self.held = None;
        }
    }

    /// The Close frame is sent, or has no place.
    pub(super) fn is_parted(&self) -> bool {
        match self.farewell {
            Farewell::None => false,
            Farewell::Due(_) => !self.muted && !self.frames.is_websocket(),
            Farewell::Said => self.rest.is_empty(),
        }
    }
}
