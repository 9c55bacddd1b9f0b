//! Bodies: where each ends, and how much of a buffer is data.

use super::Violation;
use super::chunked::{Decoder, Step};

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// All until the connection closes; answers only.
    UntilClose,
}

/// Reads one body.
#[derive(Debug)]
pub enum Body {
    /// So many bytes are left.
    Counted(u64),
    /// In chunks.
    Chunked(Box<Decoder>),
    /// Until the end of the stream.
    UntilClose {
        /// The stream has ended.
        ended: bool,
    },
}

impl Body {
    /// A reader at the body's first byte.
    pub fn new(framing: Framing) -> Body {
        match framing {
            Framing::Empty => Body::Counted(0),
            Framing::Length(length) => Body::Counted(length),
            Framing::Chunked => Body::Chunked(Box::default()),
            Framing::UntilClose => Body::UntilClose { ended: false },
        }
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        match self {
            Body::Counted(left) => *left == 0,
            Body::Chunked(decoder) => decoder.is_done(),
            Body::UntilClose { ended } => *ended,
        }
    }

    /// Takes the next stretch of `input`. With no data and not done, more input is needed.
    ///
    /// # Errors
    /// Odd chunked framing.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        match self {
            Body::Counted(left) => {
                let data = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= data as u64;
                Ok(Step { skip: 0, data })
            }
            Body::Chunked(decoder) => decoder.step(input),
            Body::UntilClose { .. } => Ok(Step { skip: 0, data: input.len() }),
        }
    }

    /// The stream ended: true when that is how this body ends.
    pub fn end_of_stream(&mut self) -> bool {
        match self {
            Body::UntilClose { ended } => {
                *ended = true;
                true
            }
            _ => self.is_done(),
        }
    }

    /// The trailer section, once done.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Body::Chunked(decoder) => decoder.trailers(),
            _ => &[],
        }
    }

    /// How many bytes are sure to come, as a hint for the size of the next read.
    pub fn expects(&self) -> u64 {
        match self {
            Body::Counted(left) => *left,
            _ => u64::MAX,
        }
    }
}
