//! The end of what a peer says.

use std::io;

/// How the peer's direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a close_notify, or where the end cannot cut anything off.
    Clean,
    /// Without: whatever came may have been cut.
    Cut,
    /// TLS itself broke.
    Broken,
}

impl From<End> for io::Result<usize> {
    fn from(end: End) -> io::Result<usize> {
        match end {
            End::Clean => Ok(0),
            End::Cut => Err(io::ErrorKind::UnexpectedEof.into()),
            End::Broken => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
