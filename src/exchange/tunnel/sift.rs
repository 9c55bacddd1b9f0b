//! Which messages of a node are looked at: texts that begin like those about NocoBase's dialog. Of all others
//! no more than that beginning is compared, in the scratch buffer, and nothing is kept.

use super::frames::{CONTROL, FIN, payload_length};
use crate::nocobase::{MAX_FRAME, OPENING};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
/// Extensions have changed the payload: with permessage-deflate the first bit says so, message by message
/// (RFC 7692, 6).
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What the frames at hand are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Another message, or one that cannot be read.
    Other,
    /// What there is could be the beginning of one about the dialog.
    Undecided,
    /// One of those, whole.
    Whole(Vec<u8>),
}

/// Reads from where a message may begin. Its frames may be cut anywhere; control frames may stand between
/// them.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let (mut at, mut compared) = (0, 0);
    let mut expected = TEXT;
    while let Some(&first) = bytes.get(at) {
        let control = first & 0x0f >= CONTROL;
        // A control frame before the message is none of its own.
        if first & RESERVED != 0 || !control && first & 0x0f != expected || control && at == 0 {
            return Reading::Other;
        }
        let Some(frame) = Frame::at(&bytes[at..]) else { return Reading::Undecided };
        if frame.masked || frame.length > MAX_FRAME as u64 {
            return Reading::Other;
        }
        if !control {
            expected = CONTINUATION;
            let rest = &OPENING[compared..];
            let part = rest.len().min(frame.payload.len());
            if frame.payload[..part] != rest[..part] {
                return Reading::Other;
            }
            compared += part;
        }
        if (frame.payload.len() as u64) < frame.length {
            let too_short = first & FIN != 0 && !control && is_too_short(compared, &frame);
            return if too_short { Reading::Other } else { Reading::Undecided };
        }
        at += frame.size;
        if !control && first & FIN != 0 {
            return if compared == OPENING.len() { whole(bytes) } else { Reading::Other };
        }
    }
    Reading::Undecided
}

/// The message ends with this frame, before it could have begun as expected.
fn is_too_short(compared: usize, frame: &Frame<'_>) -> bool {
    let to_come = frame.length - frame.payload.len() as u64;
    (compared as u64) + to_come < OPENING.len() as u64
}

/// The payloads of a message that is all there.
fn whole(bytes: &[u8]) -> Reading {
    let (mut text, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(frame) = Frame::at(rest) {
        let (this, next) = rest.split_at(frame.size);
        if this[0] & 0x0f < CONTROL {
            text.extend_from_slice(frame.payload);
            if this[0] & FIN != 0 {
                break;
            }
        }
        rest = next;
    }
    Reading::Whole(text)
}

/// A frame whose header is complete.
struct Frame<'a> {
    masked: bool,
    length: u64,
    /// As much as there is.
    payload: &'a [u8],
    /// With its header, as far as it is there.
    size: usize,
}

impl<'a> Frame<'a> {
    fn at(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let masked = bytes.get(1)? & MASKED != 0;
        let length = payload_length(bytes)?;
        let extended: usize = match bytes[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let header = 2 + extended + if masked { 4 } else { 0 };
        let end = usize::try_from(length).ok().and_then(|length| header.checked_add(length));
        let size = end.map_or(bytes.len(), |end| end.min(bytes.len()));
        Some(Frame { masked, length, payload: &bytes[header..size], size })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::tunnel::frames;

    const STOPPED: &str = r#"{"type":"maintaining","payload":{"code":"APP_STOPPED"}}"#;

    fn part(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = frames::text(str::from_utf8(payload).unwrap());
        frame[0] = first;
        frame
    }

    #[test]
    fn a_message_is_recognised_however_much_of_it_is_there() {
        let long = format!("{}{}", &STOPPED[..STOPPED.len() - 1], " ".repeat(300)) + "}";
        for text in [STOPPED, &long] {
            let frame = frames::text(text);
            for cut in 1..frame.len() {
                assert_eq!(read(&frame[..cut]), Reading::Undecided, "{cut}");
            }
            let behind = [frame.as_slice(), b"\x81\x01x"].concat();
            assert_eq!(read(&behind), Reading::Whole(text.into()));
        }
    }

    #[test]
    fn in_parts_with_a_ping_between_them_too() {
        for cut in [0, 1, 20, 21, 30, STOPPED.len()] {
            let (head, tail) = STOPPED.as_bytes().split_at(cut);
            let parts = [part(0x01, head), part(0x89, b"?"), part(0x00, b""), part(0x80, tail)];
            let bytes = parts.concat();
            for end in 1..bytes.len() {
                assert_eq!(read(&bytes[..end]), Reading::Undecided, "{cut} {end}");
            }
            assert_eq!(read(&bytes), Reading::Whole(STOPPED.into()), "{cut}");
        }
    }

    #[test]
    fn others_are_told_by_as_little_as_there_is() {
        let cases: [&[u8]; 14] = [
            b"\x82",                                     // binary
            b"\x80",                                     // the end of something else
            b"\xc1",                                     // compressed
            b"\x88",                                     // Close
            b"\x89",                                     // Ping
            b"\x81\x80",                                 // masked, and its mask is to come
            b"\x81\x02h",                                // ends too early
            b"\x81\x15{\"type\":\"m",                    // 21 bytes, which are all of the beginning
            b"\x81\x7e\x00\x80x",                        // begins otherwise
            b"\x81\x30{\"type\":\"no",                   // a notification
            b"\x81\x30{\"type\":\"mai?",                 // nearly
            b"\x81\x7f\x00\x00\x00\x00\x00\x02\x00\x00", // too long
            b"\x01\x01{\x81",                            // a text within a text
            b"\x01\x01{\x80\x02\"x",                     // ends too early, in parts
        ];
        for case in cases {
            // A mask is known once the header is complete.
            let decided = !case.ends_with(b"\x81\x80") && !case.starts_with(b"\x81\x15");
            let expected = if decided { Reading::Other } else { Reading::Undecided };
            assert_eq!(read(case), expected, "{case:x?}");
        }
        assert_eq!(read(b"\x81\x80\x01\x02\x03\x04"), Reading::Other, "masked");
        let bare = part(0x81, &OPENING[..20]);
        assert_eq!(read(&bare), Reading::Other, "one byte too short");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Reading::Whole(text) = read(&bytes) {
                prop_assert!(text.starts_with(OPENING));
            }
        }

        /// What was told to be another message once is not one of ours with more of it.
        #[test]
        fn more_bytes_change_no_verdict(
            first in proptest::sample::select(vec![0x01u8, 0x81, 0x82, 0x89]),
            cut in 0usize..80, text in "\\{\"type\":\"(maintaining|authorized)\".{0,20}",
        ) {
            let bytes = part(first, text.as_bytes());
            let (some, all) = (read(&bytes[..cut.min(bytes.len())]), read(&bytes));
            if some == Reading::Other {
                prop_assert_eq!(all, Reading::Other);
            }
        }
    }
}
