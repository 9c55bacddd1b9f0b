//! Where WebSocket frames begin and end (RFC 6455, 5.2): headers are read, payloads only counted.

use serde::{Deserialize, Serialize};

/// The endpoint goes away (RFC 6455, 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// A message is too long for who gets it.
pub const TOO_BIG: u16 = 1009;
/// The service restarts; clients may come back (IANA's registry of close codes).
pub const SERVICE_RESTART: u16 = 1012;

/// The first bit: the last frame of a message.
pub const FIN: u8 = 0x80;
/// Opcodes from here on are of control frames, which may stand between the frames of a message.
pub const CONTROL: u8 = 8;

/// Bytes of the longest header: two, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// Follows one direction of a tunnel.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FrameTracker {
    header: [u8; MAX_HEADER],
    have: u8,
    payload: u64,
    stream: Stream,
}

/// How long messages may be.
#[derive(Debug)]
pub struct Limit {
    most: u64,
    /// Of the message at hand, whose frames may each be short.
    message: u64,
    exceeded: bool,
}

impl Limit {
    /// Bytes of one message; 0 is no limit.
    pub fn new(most: u64) -> Option<Box<Limit>> {
        (most > 0).then(|| Box::new(Limit { most, message: 0, exceeded: false }))
    }

    /// Whether a message was longer.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Looks at the header of a frame.
    fn look(&mut self, first: u8, payload: u64) {
        let control = first & 0x0f >= CONTROL;
        if !control && first & 0x0f != 0 {
            self.message = 0;
        }
        let before = if control { 0 } else { self.message };
        let length = before.saturating_add(payload);
        self.exceeded |= length > self.most;
        if !control {
            self.message = length;
        }
    }
}

/// What passes, one byte of it in every tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Stream {
    /// Messages of one frame.
    #[default]
    Whole,
    /// A message in parts, of which the last has not come.
    InParts,
    /// No frames.
    Broken,
}

impl FrameTracker {
    /// Takes the bytes that pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.pass_frame(bytes)..];
        }
    }

    /// Takes the bytes that pass up to the end of the first frame that ends in them, or all. Returns how
    /// many that are.
    pub fn pass_frame(&mut self, bytes: &[u8]) -> usize {
        self.pass_part(bytes, None)
    }

    /// Takes the bytes that pass, up to the header of a frame that makes its message too long: neither that nor
    /// what follows it passes. Returns how many do. If a part of that header has passed before, this is no
    /// place for a frame any more.
    pub fn pass_within(&mut self, bytes: &[u8], limit: &mut Limit) -> usize {
        let mut at = 0;
        while at < bytes.len() && !limit.exceeded {
            at += self.pass_part(&bytes[at..], Some(&mut *limit));
        }
        at
    }

    fn pass_part(&mut self, bytes: &[u8], mut limit: Option<&mut Limit>) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if !self.is_websocket() {
                return bytes.len();
            }
            if self.payload > 0 {
                let left = bytes.len() - at;
                let part = usize::try_from(self.payload).unwrap_or(usize::MAX).min(left);
                self.payload -= part as u64;
                at += part;
            } else {
                self.header[usize::from(self.have)] = bytes[at];
                self.have += 1;
                at += 1;
                let Some(payload) = self.complete() else { continue };
                let header = usize::from(self.have);
                self.have = 0;
                if let Some(limit) = &mut limit {
                    limit.look(self.header[0], payload);
                    if limit.exceeded {
                        if header > at {
                            self.stream = Stream::Broken;
                        }
                        return at.saturating_sub(header);
                    }
                }
                self.payload = payload;
                self.note_fragment();
            }
            if self.at_boundary() {
                return at;
            }
        }
        at
    }

    /// Nothing of a frame has passed since the last one ended.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0 && self.is_websocket()
    }

    /// Nothing of a message either: here another one may begin, not only a control frame (RFC 6455, 5.4).
    pub fn between_messages(&self) -> bool {
        self.at_boundary() && self.stream == Stream::Whole
    }

    /// What passed so far can be frames.
    pub fn is_websocket(&self) -> bool {
        self.stream != Stream::Broken
    }

    fn note_fragment(&mut self) {
        let first = self.header[0];
        if first & 0x0f < CONTROL {
            self.stream = if first & FIN == 0 { Stream::InParts } else { Stream::Whole };
        }
    }

    /// The payload's length, once the header is complete.
    fn complete(&mut self) -> Option<u64> {
        let have = usize::from(self.have);
        if have < 2 {
            // Opcodes 3 to 7 and 11 to 15 are reserved: whatever this is, it is no WebSocket.
            if matches!(self.header[0] & 0x0f, 3..=7 | 11..=15) {
                self.stream = Stream::Broken;
            }
            return None;
        }
        payload_length(&self.header[..have])
    }
}

/// The payload's length, once all bytes of a header are there; `None` before.
pub fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if header.len() < 2 + extended + mask {
        return None;
    }
    let length = &header[2..2 + extended];
    Some(match extended {
        0 => u64::from(second & 0x7f),
        _ => length.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    })
}

/// A text frame as a server sends it.
pub fn text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        short @ ..126 => frame.push(short as u8),
        medium @ ..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A Close frame as a server sends it.
pub fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

/// A Close frame as a client must send it: masked.
pub fn masked_close(code: u16, mask: u32) -> [u8; 8] {
    let ([high, low], [a, b, c, d]) = (code.to_be_bytes(), mask.to_be_bytes());
    [0x88, 0x82, a, b, c, d, high ^ a, low ^ b]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x81];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn finds_boundaries_however_the_bytes_arrive() {
        for length in [0, 1, 125, 126, 65535, 65536, 70000] {
            for masked in [false, true] {
                let bytes = frame(length, masked);
                for piece in [1, 7, bytes.len()] {
                    let mut tracker = FrameTracker::default();
                    for part in bytes.chunks(piece) {
                        tracker.pass(part);
                    }
                    assert!(tracker.at_boundary(), "{length} {masked} {piece}");
                    tracker.pass(&bytes[..1]);
                    assert!(!tracker.at_boundary());
                }
            }
        }
    }

    #[test]
    fn stops_behind_the_first_frame_that_ends() {
        let frames = [frame(300, true), frame(0, false), frame(5, false)].concat();
        for begun in [0, 1, 3, 100, 307] {
            let mut tracker = FrameTracker::default();
            tracker.pass(&frames[..begun]);
            assert_eq!(tracker.pass_frame(&frames[begun..]), 308 - begun, "{begun}");
            assert!(tracker.at_boundary());
            assert_eq!(tracker.pass_frame(&frames[308..]), 2, "an empty frame is one as well");
            assert_eq!(tracker.pass_frame(&frames[310..316]), 6, "no end in what is there");
            assert!(!tracker.at_boundary());
        }
    }

    #[test]
    fn a_message_that_is_too_long_stops_before_its_header() {
        let good = [frame(300, true), frame(100, true)].concat();
        let fragments = b"\x01\x02ab\x89\x02??\x00\x02cd\x80\x01e".to_vec();
        for (most, bytes, passes) in [
            (300, [&good[..], &frame(301, true)].concat(), Some(good.len())),
            (300, [&good[..], &frame(70_000, true), &good].concat(), Some(good.len())),
            (5, fragments.clone(), None),
            (4, fragments.clone(), Some(12)),
            (3, fragments.clone(), Some(8)),
            (1, b"\x81\x01a\x89\x02??".to_vec(), Some(3)),
        ] {
            let (mut tracker, mut limit) = (FrameTracker::default(), Limit::new(most).unwrap());
            assert_eq!(tracker.pass_within(&bytes, &mut limit), passes.unwrap_or(bytes.len()));
            assert_eq!((limit.is_exceeded(), tracker.at_boundary()), (passes.is_some(), true));
            // Byte by byte the header has passed before it was known.
            let (mut tracker, mut limit) = (FrameTracker::default(), Limit::new(most).unwrap());
            let passed: usize =
                bytes.iter().map(|byte| tracker.pass_within(&[*byte], &mut limit)).sum();
            assert_eq!(
                (limit.is_exceeded(), tracker.at_boundary()),
                (passes.is_some(), passes.is_none())
            );
            assert!(passes.is_none_or(|passes| (passes..passes + MAX_HEADER).contains(&passed)));
        }
        assert!(Limit::new(0).is_none());
    }

    #[test]
    fn a_message_in_parts_ends_with_its_last_frame() {
        let mut tracker = FrameTracker::default();
        for (frame, between) in [
            (&b"\x81\x01a"[..], true),
            (b"\x01\x01a", false),
            (b"\x89\x00", false),
            (b"\x00\x00", false),
            (b"\x88\x00", false),
            (b"\x80\x01a", true),
            (b"\x89\x00", true),
        ] {
            tracker.pass(frame);
            assert_eq!((tracker.at_boundary(), tracker.between_messages()), (true, between));
        }
    }

    #[test]
    fn what_is_no_websocket_has_no_boundary() {
        let mut tracker = FrameTracker::default();
        tracker.pass(b"GET / HTTP/1.1\r\n");
        assert!(!tracker.is_websocket() && !tracker.at_boundary());
    }

    #[test]
    fn close_frames() {
        let mut tracker = FrameTracker::default();
        tracker.pass(&close(GOING_AWAY));
        tracker.pass(&masked_close(SERVICE_RESTART, 0xdead_beef));
        assert!(tracker.at_boundary());
        let masked = masked_close(1001, 0x0102_0304);
        assert_eq!([masked[6] ^ 1, masked[7] ^ 2], 1001u16.to_be_bytes());
    }
}
