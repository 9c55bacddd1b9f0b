//! HTTP/1.1 on the wire (RFC 9112), the same strict reading for clients and nodes.
//!
//! A head stays in the buffer it was read into; a list of spans says where its fields are. What can be
//! read in two ways is refused, what is passed on is written anew in one normal form.

pub mod body;
pub mod buffers;
pub mod chunked;
pub mod deadline;
pub mod field;
pub mod io;
pub mod request;
pub mod response;
pub mod scan;
pub mod websocket;

/// How a message breaks the rules. Requests and answers map it to different causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Not HTTP/1.1, or open to two readings.
    Malformed(&'static str),
    /// The head is too large.
    HeadTooLarge,
    /// The first line alone is too large.
    LineTooLong,
    /// Too many fields.
    TooManyFields,
    /// Well formed, and not for us.
    NotImplemented(&'static str),
    /// An expectation nobody can meet.
    Expectation,
}

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes, first line and empty line included.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}
