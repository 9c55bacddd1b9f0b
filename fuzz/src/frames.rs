//! Bytes of a tunnel: where frames of a WebSocket end is found however the bytes are cut, and as a plain
//! reading of the whole finds it.

use cobalance::exchange::tunnel::frames::{FrameTracker, MAX_HEADER, payload_length};

/// The first byte says in which pieces the rest comes (0: whole). `Err`: what must not be.
pub fn run(bytes: &[u8]) -> Result<(), String> {
    let [cut, bytes @ ..] = bytes else { return Ok(()) };
    let meant = Meant::read(bytes);
    let piece = if *cut == 0 { bytes.len().max(1) } else { usize::from(*cut) };
    let mut tracker = FrameTracker::default();
    let mut at = 0;
    for part in bytes.chunks(piece) {
        tracker.pass(part);
        at += part.len();
        same(&tracker, &meant, at)?;
    }
    by_frames(bytes, &meant)?;
    let header = &bytes[..bytes.len().min(MAX_HEADER)];
    let ends = meant.first_header.is_some_and(|end| end <= header.len());
    // What is no frame has a length all the same, by its second byte.
    match payload_length(header).is_some() == ends || meant.broken == Some(0) {
        true => Ok(()),
        false => Err(format!("another length of a header: {header:x?}")),
    }
}

/// Frame after frame: never beyond the end of one, and always forward.
fn by_frames(bytes: &[u8], meant: &Meant) -> Result<(), String> {
    let mut tracker = FrameTracker::default();
    let mut at = 0;
    while at < bytes.len() {
        let step = tracker.pass_frame(&bytes[at..]);
        let end = meant.ends.iter().map(|(end, _)| *end).find(|end| *end > at);
        let expected = end.unwrap_or(bytes.len());
        if step == 0 || at + step != expected {
            return Err(format!("at {at}: {step} bytes, and not up to {expected}"));
        }
        at += step;
        same(&tracker, meant, at)?;
    }
    Ok(())
}

fn same(tracker: &FrameTracker, meant: &Meant, at: usize) -> Result<(), String> {
    let broken = meant.broken.is_some_and(|broken| broken < at);
    let end = meant.ends.iter().find(|(end, _)| *end == at);
    let boundary = !broken && (at == 0 || end.is_some());
    let between = !broken && (at == 0 || end.is_some_and(|(_, whole)| *whole));
    let got = (tracker.is_websocket(), tracker.at_boundary(), tracker.between_messages());
    match got == (!broken, boundary, between) {
        true => Ok(()),
        false => Err(format!("after {at}: {got:?}, not {:?}", (!broken, boundary, between))),
    }
}

/// A reading of all the bytes at once (RFC 6455, 5.2).
struct Meant {
    /// Where each frame ends, and whether no message is in parts there.
    ends: Vec<(usize, bool)>,
    /// The place of the first byte that cannot be of a frame.
    broken: Option<usize>,
    first_header: Option<usize>,
}

impl Meant {
    fn read(bytes: &[u8]) -> Meant {
        let mut meant = Meant { ends: Vec::new(), broken: None, first_header: None };
        let (mut at, mut whole) = (0u64, true);
        while let Some(first) = byte(bytes, at) {
            let opcode = first & 15;
            if (3..8).contains(&opcode) || opcode > 10 {
                meant.broken = Some(at as usize);
                break;
            }
            let Some(second) = byte(bytes, at + 1) else { break };
            let (more, short) = match second & 127 {
                126 => (2, None),
                127 => (8, None),
                short => (0, Some(u64::from(short))),
            };
            let masks = if second > 127 { 4 } else { 0 };
            let end_of_header = at + 2 + more + masks;
            if end_of_header > bytes.len() as u64 {
                break;
            }
            meant.first_header.get_or_insert(end_of_header as usize);
            let long = (0..more).fold(0u64, |sum, nth| {
                sum.wrapping_mul(256) + u64::from(byte(bytes, at + 2 + nth).unwrap_or_default())
            });
            if opcode < 8 {
                whole = first > 127;
            }
            let Some(end) = end_of_header.checked_add(short.unwrap_or(long)) else { break };
            if end > bytes.len() as u64 {
                break;
            }
            meant.ends.push((end as usize, whole));
            at = end;
        }
        meant
    }
}

fn byte(bytes: &[u8], at: u64) -> Option<u8> {
    bytes.get(usize::try_from(at).ok()?).copied()
}
