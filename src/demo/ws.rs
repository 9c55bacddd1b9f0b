//! As much of RFC 6455 as the stand-ins and their clients need: whole frames that are
//! neither fragmented nor compressed, as NocoBase's are.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A text frame.
pub(super) const TEXT: u8 = 1;
/// The end, from either side.
pub(super) const CLOSE: u8 = 8;
/// Whether the other side is there,
pub(super) const PING: u8 = 9;
/// and that it is.
pub(super) const PONG: u8 = 10;

/// Nobody here says more in one frame.
const MAX_PAYLOAD: usize = 64 * 1024;

/// Reads one frame: its opcode, and its payload unmasked.
///
/// # Errors
/// If the connection ends, or a frame is larger than 64 KiB.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large"));
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x0f, payload))
}

/// Writes one frame; a client's are masked (with zeros: the mask guards caches, not secrets).
///
/// # Errors
/// If the connection is gone.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    opcode: u8,
    payload: &[u8],
    client: bool,
) -> io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    let masked = if client { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => frame.push(masked | short as u8),
        long => {
            let length = u16::try_from(long).map_err(io::Error::other)?;
            frame.push(masked | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    if client {
        frame.extend_from_slice(&[0; 4]);
    }
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back() {
        let (mut here, mut there) = tokio::io::duplex(256 * 1024);
        for client in [false, true] {
            for length in [0, 1, 125, 126, 65_535] {
                let payload = vec![7; length];
                write(&mut here, TEXT, &payload, client).await.unwrap();
                assert_eq!(read(&mut there).await.unwrap(), (TEXT, payload));
            }
        }
        here.write_all(&[0x81, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3]).await.unwrap();
        assert_eq!(read(&mut there).await.unwrap(), (TEXT, b"abc".to_vec()));
        here.write_all(&[0x81, 127, 0, 0, 0, 0, 1, 0, 0, 0]).await.unwrap();
        assert!(read(&mut there).await.is_err());
        assert!(write(&mut here, TEXT, &[0; 65_536], false).await.is_err());
    }
}
