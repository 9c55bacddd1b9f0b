//! What the client of a WebSocket says that we hold ourselves (RFC 6455, 5): pings and the end are answered,
//! all else is passed over without being kept.

use super::frames::{self, MAX_HEADER, payload_length};

/// The peer broke the protocol (RFC 6455, 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
/// The longest payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL: u64 = 125;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Reads frames as they come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    header: [u8; MAX_HEADER],
    have: u8,
    /// Of the payload at hand.
    left: u64,
    /// The payload of a ping or an end, still masked; holds memory only while one is being read.
    control: Vec<u8>,
}

impl Reader {
    /// Takes bytes, and appends to `out` what is to be answered. False: nothing more may follow that.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        while !bytes.is_empty() {
            if self.left > 0 {
                let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                if self.opcode() >= CLOSE {
                    self.control.extend_from_slice(&bytes[..part]);
                }
                self.left -= part as u64;
                bytes = &bytes[part..];
            } else {
                self.header[usize::from(self.have)] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                match payload_length(&self.header[..usize::from(self.have)]) {
                    Some(length) if self.is_well_formed(length) => self.left = length,
                    Some(_) => {
                        out.extend_from_slice(&frames::close(PROTOCOL_ERROR));
                        return false;
                    }
                    None => continue,
                }
            }
            if self.left == 0 && !self.end_frame(out) {
                return false;
            }
        }
        true
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    /// A client's frames are masked; no extension was agreed on; control frames are whole and short.
    fn is_well_formed(&self, length: u64) -> bool {
        let [first, second, ..] = self.header;
        let control = self.opcode() >= CLOSE;
        second & 0x80 != 0
            && first & 0x70 == 0
            && matches!(self.opcode(), 0..=2 | CLOSE..=PONG)
            && (!control || first & 0x80 != 0 && length <= MAX_CONTROL)
    }

    /// Answers a frame that has ended, if it wants an answer.
    fn end_frame(&mut self, out: &mut Vec<u8>) -> bool {
        let have = usize::from(std::mem::take(&mut self.have));
        let mut payload = std::mem::take(&mut self.control);
        let mask = self.header[have - 4..have].iter().cycle();
        payload.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        match self.opcode() {
            PING => {
                out.extend_from_slice(&[0x80 | PONG, payload.len() as u8]);
                out.extend_from_slice(&payload);
            }
            CLOSE => {
                // Its code comes back, its words need not.
                payload.truncate(2);
                out.extend_from_slice(&[0x80 | CLOSE, payload.len() as u8]);
                out.extend_from_slice(&payload);
                return false;
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn pings_and_the_end_are_answered_however_they_arrive() {
        let said = [
            masked(0x81, b"ping"),
            masked(0x89, b"abc"),
            masked(0x01, &[7; 300]),
            masked(0x89, b""),
            masked(0x80, &[7; 200]),
            masked(0x8a, b"x"),
            masked(0x88, b"\x03\xe8bye"),
        ];
        let said = said.concat();
        for piece in [1, 2, 7, said.len()] {
            let (mut reader, mut out) = (Reader::default(), Vec::new());
            let mut pieces = said.chunks(piece).peekable();
            while let Some(part) = pieces.next() {
                assert_eq!(reader.take(part, &mut out), pieces.peek().is_some(), "{piece}");
            }
            assert_eq!(out, b"\x8a\x03abc\x8a\x00\x88\x02\x03\xe8", "{piece}");
            assert_eq!(reader.control.capacity(), 0, "nothing is kept");
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_ended() {
        let cases: [&[u8]; 6] = [
            b"\x81\x00",                 // not masked
            b"\xc1\x80\0\0\0\0",         // compressed
            b"\x83\x80\0\0\0\0",         // a reserved opcode
            b"\x09\x80\0\0\0\0",         // a ping in parts
            b"\x89\xfe\x00\x7e\0\0\0\0", // a long ping
            b"\x8b\x80\0\0\0\0",         // a reserved control frame
        ];
        for case in cases {
            let mut out = Vec::new();
            assert!(!Reader::default().take(case, &mut out), "{case:x?}");
            assert_eq!(out, [0x88, 2, 3, 0xea], "{case:x?}");
        }
    }
}
