//! A stretch of a body in the form a node gets it.

use crate::http1::chunked;

/// What one look at a body found.
pub(super) enum Piece<'a> {
    /// As it is.
    Plain(&'a [u8]),
    /// To be framed as a chunk.
    Chunk(&'a [u8]),
    /// The end of a chunked body, with its trailers.
    End(&'a [u8]),
}

/// Writes it behind what is there.
pub(super) fn append(out: &mut Vec<u8>, piece: Piece<'_>) {
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
