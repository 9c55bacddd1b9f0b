//! What a stranger's frames cost us, counted before the library works on them.
//!
//! The library bounds what frames make it hold, but not how many of them make it work for nothing: PING,
//! SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, RST_STREAM. Each takes a token of its connection's bucket.
//! Time gives tokens back, and so does what a client is here for: requests, bodies, answers. A client that
//! has used up its bucket is shown out with ENHANCE_YOUR_CALM (RFC 9113, 10.5).

use super::gate::Progress;

/// Control frames at once, beyond those that go with traffic. Browsers and gRPC clients send a few at the
/// start and then about one for each piece of an answer.
const CONTROL_BURST: u32 = 1_000;
/// And so many each second.
const CONTROL_PER_S: u32 = 50;
/// Control frames that a request, or a piece of an answer, makes seem honest: window updates of the stream
/// and of its connection, a priority, a PING that measures.
const CONTROL_PER_PIECE: u32 = 4;
/// Bytes of a body, in either direction, that do the same for one. Clients that count each read of theirs open
/// two windows for each 4 KiB that they take: Go's do.
const BYTES_PER_CONTROL: u64 = 1024;
/// What time gives back ends at the burst, what work has earned only here: windows of megabytes come with as
/// many updates at once when a client that let its answers wait reads them.
const CONTROL_EARNED: u32 = 64 * 1024;
/// Streams that a client resets at once: a browser that leaves a page with many pictures does.
const RESET_BURST: u32 = 200;
/// And so many each second, beside one for each answer that it took whole: a client that resets more than
/// it reads, and that without end, is no client (CVE-2023-44487).
const RESET_PER_S: u32 = 20;
/// A frame of DATA with less than so much costs more by itself than by its bytes.
const SMALL: u32 = 1024;
/// So many of these are put together with what came before, and before more is read.
const MAX_SMALL: u32 = 64;
/// CONTINUATION frames of one header block: a whole head of the usual bound takes one.
const MAX_CONTINUATION: u32 = 5;

/// Which frames were too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// CONTINUATION frames of one header block.
    Continuation,
    /// Frames of DATA without any.
    EmptyData,
    /// PING.
    Ping,
    /// PRIORITY.
    Priority,
    /// RST_STREAM: requests are begun and taken back.
    Reset,
    /// SETTINGS.
    Settings,
    /// Frames that mean nothing here.
    Unknown,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// What the library found too many: streams with errors, empty DATA frames, far too large heads.
    Other,
}

impl Flood {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Flood; 9] = [
        Flood::Continuation,
        Flood::EmptyData,
        Flood::Ping,
        Flood::Priority,
        Flood::Reset,
        Flood::Settings,
        Flood::Unknown,
        Flood::WindowUpdate,
        Flood::Other,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Flood::Continuation => "continuation",
            Flood::EmptyData => "empty_data",
            Flood::Ping => "ping",
            Flood::Priority => "priority",
            Flood::Reset => "reset",
            Flood::Settings => "settings",
            Flood::Unknown => "unknown",
            Flood::WindowUpdate => "window_update",
            Flood::Other => "other",
        }
    }
}

/// Follows the frames of one connection by their heads.
#[derive(Debug)]
pub struct Watch {
    at: At,
    /// A header block has begun and not ended.
    in_block: bool,
    continuations: u32,
    control: Bucket,
    resets: Bucket,
    /// Frames of DATA that are small, since they were put together.
    small: u32,
    /// Of bodies, that do not make a token yet.
    bytes: u64,
    /// Of a reset: so many of `CONTROL_PER_S` make one.
    reset_parts: u32,
    refilled_ns: u64,
    verdict: Option<Flood>,
    settings: bool,
    heard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Preface { left: usize },
    Head { bytes: [u8; 9], have: usize },
    Payload { left: usize, length: usize, data: bool },
}

const HEAD: At = At::Head { bytes: [0; 9], have: 0 };

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    burst: u32,
    most: u32,
}

impl Bucket {
    /// A full one; time fills it up to `burst`, work to `most`.
    fn new(burst: u32, most: u32) -> Bucket {
        Bucket { tokens: burst, burst, most }
    }

    /// For time that has passed.
    fn add(&mut self, tokens: u32) {
        let filled = self.tokens.saturating_add(tokens).min(self.burst);
        self.tokens = self.tokens.max(filled);
    }

    /// For work.
    fn earn(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.most);
    }

    /// False: it is empty.
    fn take(&mut self) -> bool {
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or_default();
        left.is_some()
    }
}

impl Watch {
    /// At the first byte of a connection.
    pub fn new(now_ns: u64) -> Watch {
        Watch {
            at: At::Preface { left: super::PREFACE.len() },
            in_block: false,
            continuations: 0,
            control: Bucket::new(CONTROL_BURST, CONTROL_EARNED),
            resets: Bucket::new(RESET_BURST, RESET_BURST),
            small: 0,
            bytes: 0,
            reset_parts: 0,
            refilled_ns: now_ns,
            verdict: None,
            settings: false,
            heard: 0,
        }
    }

    /// Of what a node says: it begins with frames, and is bounded by what we ask of it.
    pub fn of_node(now_ns: u64) -> Watch {
        let endless = || Bucket::new(u32::MAX, u32::MAX);
        Watch { at: HEAD, control: endless(), resets: endless(), ..Watch::new(now_ns) }
    }

    /// Its settings have come.
    pub fn has_settings(&self) -> bool {
        self.settings && !self.is_unfinished()
    }

    /// Frames so far, without PING: an answer to one tells nothing new.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// So many small frames of DATA have come that they are to be put together before more is read.
    pub fn is_crowded(&self) -> bool {
        self.small >= MAX_SMALL
    }

    /// They were put together.
    pub fn gathered(&mut self) {
        self.small = 0;
    }

    /// What there was too much of; nothing that comes after it is looked at.
    pub fn verdict(&self) -> Option<Flood> {
        self.verdict
    }

    /// A frame that is none of a body, or a header block, has begun and not ended: its sender owes the rest.
    pub fn is_unfinished(&self) -> bool {
        self.in_block
            || match self.at {
                At::Preface { .. } => true,
                At::Head { have, .. } => have > 0,
                At::Payload { data, .. } => !data,
            }
    }

    /// Bytes that are kept of what has begun and not ended: room for a whole frame, and `block` for the header
    /// block that it goes on with.
    pub fn begun(&self, block: usize) -> usize {
        let frame = match self.at {
            At::Payload { length, .. } => length,
            At::Preface { .. } | At::Head { .. } => 0,
        };
        if self.in_block { block + frame } else { frame }
    }

    /// Gives back what time and work are worth.
    pub fn refill(&mut self, now_ns: u64, sent: Progress) {
        self.control.earn(sent.pieces.saturating_mul(CONTROL_PER_PIECE));
        self.paid(sent.bytes);
        self.resets.earn(sent.completed);
        let tick_ns = 1_000_000_000 / u64::from(CONTROL_PER_S);
        let ticks = now_ns.saturating_sub(self.refilled_ns) / tick_ns;
        if ticks > 0 {
            self.refilled_ns += ticks * tick_ns;
            let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
            self.control.add(ticks);
            // A fraction of the same ticks; what is left of it counts the next time.
            let parts = ticks.saturating_mul(RESET_PER_S).saturating_add(self.reset_parts);
            self.resets.add(parts / CONTROL_PER_S);
            self.reset_parts = parts % CONTROL_PER_S;
        }
    }

    /// Looks at what comes next on the connection.
    pub fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.verdict.is_none() {
            let used = match &mut self.at {
                At::Preface { left } => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        self.at = HEAD;
                    }
                    used
                }
                At::Head { bytes: head, have } => {
                    let used = bytes.len().min(9 - *have);
                    head[*have..*have + used].copy_from_slice(&bytes[..used]);
                    *have += used;
                    if *have == 9 {
                        let head = *head;
                        self.frame(head);
                    }
                    used
                }
                At::Payload { left, .. } => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        self.at = HEAD;
                    }
                    used
                }
            };
            bytes = &bytes[used..];
        }
    }

    /// Judges a frame by its head (RFC 9113, 4.1).
    fn frame(&mut self, [a, b, c, kind, flags, ..]: [u8; 9]) {
        const END_HEADERS: u8 = 0x4;
        const END_STREAM: u8 = 0x1;
        let length = u32::from_be_bytes([0, a, b, c]);
        let data = kind == 0;
        self.at = match length {
            0 => HEAD,
            length => At::Payload { left: length as usize, length: length as usize, data },
        };
        self.heard += u64::from(kind != 6);
        self.settings |= kind == 4;
        match kind {
            0 if length > 0 => {
                self.small += u32::from(length < SMALL);
                self.paid(length.into());
            }
            0 if flags & END_STREAM != 0 => {}
            0 => self.control(Flood::EmptyData),
            1 => {
                self.in_block = flags & END_HEADERS == 0;
                self.continuations = 0;
                self.control.earn(CONTROL_PER_PIECE);
            }
            2 => self.control(Flood::Priority),
            3 if !self.resets.take() => self.verdict = Some(Flood::Reset),
            3 => {}
            4 => self.control(Flood::Settings),
            6 => self.control(Flood::Ping),
            8 => self.control(Flood::WindowUpdate),
            9 => {
                self.in_block &= flags & END_HEADERS == 0;
                self.continuations += 1;
                if self.continuations > MAX_CONTINUATION {
                    self.verdict = Some(Flood::Continuation);
                }
            }
            _ => self.control(Flood::Unknown),
        }
    }

    fn control(&mut self, kind: Flood) {
        if !self.control.take() {
            self.verdict = Some(kind);
        }
    }

    fn paid(&mut self, length: u64) {
        self.bytes = self.bytes.saturating_add(length);
        let earned = u32::try_from(self.bytes / BYTES_PER_CONTROL).unwrap_or(u32::MAX);
        self.control.earn(earned);
        self.bytes %= BYTES_PER_CONTROL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOTHING: Progress = Progress { pieces: 0, bytes: 0, completed: 0 };

    fn begun() -> Watch {
        let mut watch = Watch::new(0);
        watch.look(crate::http2::PREFACE);
        watch
    }

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = (payload as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.resize(9 + payload, 0);
        bytes
    }

    #[test]
    fn a_bucket_is_used_up_and_time_fills_it() {
        let mut watch = begun();
        let ping = frame(6, 0, 8);
        (0..CONTROL_BURST).for_each(|_| watch.look(&ping));
        assert_eq!(watch.verdict(), None);
        watch.refill(SECOND, NOTHING);
        (0..CONTROL_PER_S).for_each(|_| watch.look(&ping));
        assert_eq!(watch.verdict(), None);
        watch.look(&ping);
        assert_eq!(watch.verdict(), Some(Flood::Ping));
    }

    #[test]
    fn work_fills_it_too() {
        let mut watch = begun();
        (0..CONTROL_BURST).for_each(|_| watch.look(&frame(8, 0, 4)));
        watch.look(&frame(0, 0, 2 * BYTES_PER_CONTROL as usize));
        watch.refill(0, Progress { pieces: 1, bytes: 3 * BYTES_PER_CONTROL, ..NOTHING });
        (0..2 + CONTROL_PER_PIECE + 3).for_each(|_| watch.look(&frame(8, 0, 4)));
        assert_eq!(watch.verdict(), None);
        watch.look(&frame(8, 0, 4));
        assert_eq!(watch.verdict(), Some(Flood::WindowUpdate));
    }

    #[test]
    fn what_was_earned_stays_and_time_adds_nothing_to_it() {
        let mut watch = begun();
        watch.refill(0, Progress { bytes: 8 << 20, ..NOTHING });
        watch.refill(100 * SECOND, NOTHING);
        assert_eq!(watch.control.tokens, CONTROL_BURST + 8 * 1024);
        watch.refill(100 * SECOND, Progress { bytes: 1 << 40, ..NOTHING });
        assert_eq!(watch.control.tokens, CONTROL_EARNED);
    }

    #[test]
    fn resets_are_paid_for_with_answers() {
        let mut watch = begun();
        (0..RESET_BURST).for_each(|_| watch.look(&frame(3, 0, 4)));
        watch.refill(0, Progress { completed: 3, ..NOTHING });
        (0..3).for_each(|_| watch.look(&frame(3, 0, 4)));
        assert_eq!(watch.verdict(), None);
        watch.look(&frame(3, 0, 4));
        assert_eq!(watch.verdict(), Some(Flood::Reset));
        let mut patient = begun();
        for second in 0..100 {
            patient.refill(second * SECOND, NOTHING);
            (0..RESET_PER_S).for_each(|_| patient.look(&frame(3, 0, 4)));
        }
        assert_eq!(patient.verdict(), None);
        let mut busy = begun();
        (0..RESET_BURST).for_each(|_| busy.look(&frame(3, 0, 4)));
        (1..=100).for_each(|turn| busy.refill(turn * SECOND / 100, NOTHING));
        assert_eq!(busy.resets.tokens, RESET_PER_S, "however often it is looked");
    }

    #[test]
    fn it_follows_frames_however_they_are_cut() {
        let bytes = [
            &crate::http2::PREFACE[..],
            &frame(4, 0, 6),
            &frame(1, 0, 10),
            &frame(9, 0, 0),
            &frame(9, 4, 3),
            &frame(0, 1, 20),
            &frame(2, 0, 5),
        ]
        .concat();
        let mut whole = Watch::new(0);
        whole.look(&bytes);
        for piece in 1..bytes.len() {
            let mut cut = Watch::new(0);
            bytes.chunks(piece).for_each(|part| cut.look(part));
            assert_eq!(cut.control.tokens, whole.control.tokens, "{piece}");
            assert!(!cut.is_unfinished());
        }
        assert_eq!(whole.verdict(), None);
    }

    #[test]
    fn what_has_begun_is_owed() {
        let mut watch = Watch::new(0);
        assert!(watch.is_unfinished());
        watch.look(crate::http2::PREFACE);
        assert!(!watch.is_unfinished());
        assert_eq!(watch.begun(100), 0);
        watch.look(&frame(1, 0, 3));
        assert!(watch.is_unfinished(), "the block goes on");
        assert_eq!(watch.begun(100), 100);
        watch.look(&frame(9, 4, 3)[..10]);
        assert!(watch.is_unfinished(), "within a frame");
        assert_eq!(watch.begun(100), 3);
        watch.look(&[0, 0]);
        assert!(!watch.is_unfinished());
        watch.look(&frame(0, 0, 9)[..12]);
        assert!(!watch.is_unfinished(), "a body has a time of its own");
        assert_eq!(watch.begun(100), 9);
    }

    #[test]
    fn small_frames_are_counted_until_they_are_put_together() {
        let mut watch = begun();
        (0..MAX_SMALL).for_each(|_| watch.look(&frame(0, 0, SMALL as usize)));
        (1..MAX_SMALL).for_each(|_| watch.look(&frame(0, 0, 1)));
        assert!(!watch.is_crowded());
        watch.look(&frame(0, 1, 20));
        assert!(watch.is_crowded());
        watch.gathered();
        assert!(!watch.is_crowded());
    }

    #[test]
    fn a_block_in_too_many_pieces_ends_it() {
        let mut watch = begun();
        watch.look(&frame(1, 0, 3));
        (0..MAX_CONTINUATION).for_each(|_| watch.look(&frame(9, 0, 1)));
        assert_eq!(watch.verdict(), None);
        watch.look(&frame(9, 4, 1));
        assert_eq!(watch.verdict(), Some(Flood::Continuation));
    }
}
