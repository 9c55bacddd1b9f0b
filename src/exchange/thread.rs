//! What one data thread owns: its view of the snapshot, its buffers, deadlines, log lines and tunnels.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use super::maintenance::Keeper;
use super::tunnel::Tunnels;
use super::view::View;
use crate::clock;
use crate::http1::buffers::{Buffers, LARGE};
use crate::http1::deadline::Wheel;
use crate::nocobase;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::LineBuffer;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Dial, Node, Signal, Signals};

/// Untrusted peers that are remembered; an outer proxy is one or a few.
const MAX_WARNED: usize = 8;
/// A peer is told of again after so long.
const WARN_AGAIN_NS: u64 = 60_000_000_000;

/// Tokens whose sessions are remembered: more than hold the work of a thread together at a time.
const SESSIONS: usize = 1024;

/// The state of one data thread; never leaves it.
pub struct Thread {
    /// 0 for the first.
    pub index: usize,
    /// Free buffers.
    pub buffers: Buffers,
    /// All deadlines.
    pub wheel: Wheel,
    /// Lines on their way to the writer.
    pub log: RefCell<LineBuffer>,
    /// Chance.
    pub rng: RefCell<fastrand::Rng>,
    /// Set once: finish what runs, begin nothing on old connections.
    pub draining: Cell<bool>,
    /// Draining because another process has taken over: nothing hurries.
    pub handed_over: Cell<bool>,
    /// Open connections of clients, tunnels not counted.
    pub connections: Cell<usize>,
    /// Connections of HTTP/2 whose clients may send more at once than others.
    pub wide: Cell<usize>,
    /// Exchanges that are parked.
    pub parked: Cell<usize>,
    /// Open tunnels.
    pub tunnels: Tunnels,
    /// WebSockets that are held while an upstream is under maintenance.
    pub maintenance: Keeper,
    /// How connections to nodes are made.
    pub dial: Dial,
    /// Through which all tunnels of the thread read: an idle one has no buffer.
    pub scratch: RefCell<Box<[u8]>>,
    /// Hashes of tokens that came lately, and the sessions that they stand for.
    sessions: RefCell<Vec<(u64, Option<u64>)>>,
    /// Peers that control was told of, and when.
    warned_of: RefCell<Vec<(IpAddr, u64)>>,
    /// Bytes held for clients, as they were told last.
    held: Cell<usize>,
    now_ns: Cell<u64>,
    /// Milliseconds since 1970, and the clock, as of the last tick.
    epoch: Cell<(u64, u64)>,
    view: RefCell<Rc<View>>,
    signals: Signals,
    metrics: Arc<Metrics>,
}

impl Thread {
    /// A thread with its first snapshot.
    pub fn new(
        index: usize,
        snapshot: Arc<Snapshot>,
        signals: Signals,
        metrics: Arc<Metrics>,
        dial: Dial,
    ) -> Rc<Thread> {
        let log = LineBuffer::new(snapshot.access_log.clone());
        let wheel = Wheel::default();
        wheel.tick();
        let server = &snapshot.config.server;
        wheel.bound_held(server.max_buffered / server.threads.max(1));
        Rc::new(Thread {
            index,
            buffers: Buffers::default(),
            wheel,
            log: RefCell::new(log),
            rng: RefCell::new(fastrand::Rng::new()),
            draining: Cell::new(false),
            handed_over: Cell::new(false),
            connections: Cell::new(0),
            wide: Cell::new(0),
            parked: Cell::new(0),
            tunnels: Tunnels::default(),
            maintenance: Keeper::default(),
            dial,
            scratch: RefCell::new(vec![0; LARGE].into_boxed_slice()),
            sessions: RefCell::default(),
            warned_of: RefCell::default(),
            held: Cell::new(0),
            now_ns: Cell::new(clock::now_ns()),
            epoch: Cell::new((unix_ms(), clock::now_ns())),
            view: RefCell::new(Rc::new(View::new(index, snapshot, None))),
            signals,
            metrics,
        })
    }

    /// The time when an exchange last looked: exact enough wherever nothing was waited for since.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// Looks at the clock.
    pub fn look_at_clock(&self) -> u64 {
        let now = clock::now_ns();
        self.now_ns.set(now);
        self.wheel.set_now(now);
        now
    }

    /// Ends what a node has of this thread but for the exchanges that run: idle connections are closed at
    /// once, and its tunnels are moved to other nodes within `window`.
    pub fn drain_node(&self, node: &Arc<Node>, window: Duration) {
        let view = self.view();
        view.nodes().filter(|local| Arc::ptr_eq(&local.node, node)).for_each(|local| local.clear());
        self.tunnels.move_off(node, window, &mut self.rng.borrow_mut());
    }

    /// Milliseconds since 1970, from the monotonic clock and the last tick's look at the other.
    pub fn unix_ms(&self) -> u64 {
        let (unix_ms, at_ns) = self.epoch.get();
        unix_ms + self.now_ns().saturating_sub(at_ns) / 1_000_000
    }

    /// The newest view; an exchange takes it once and keeps it to its end.
    pub fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// Whether the process is about to end: waits are cut short, and nothing new is begun.
    pub fn is_ending(&self) -> bool {
        self.draining.get() && !self.handed_over.get()
    }

    /// The session that a token stands for ([`nocobase::session`]): a browser sends the same one with
    /// everything, so it is seldom decoded and parsed.
    pub fn session(&self, token: &[u8]) -> Option<u64> {
        let hash = xxh3_64(token);
        let mut known = self.sessions.borrow_mut();
        if known.is_empty() {
            known.resize(SESSIONS, (xxh3_64(b""), None));
        }
        let place = &mut known[hash as usize % SESSIONS];
        if place.0 != hash {
            *place = (hash, nocobase::session(token));
        }
        place.1
    }

    /// Whether a view is the newest.
    pub fn is_current(&self, view: &Rc<View>) -> bool {
        Rc::ptr_eq(&self.view.borrow(), view)
    }

    /// Uses another snapshot from now on.
    pub fn renew(&self, snapshot: Arc<Snapshot>) {
        self.log.borrow_mut().set_log(snapshot.access_log.clone());
        let old = self.view();
        let now = self.look_at_clock();
        old.upstreams.iter().for_each(|upstream| upstream.settle(now));
        let view = Rc::new(View::new(self.index, snapshot, Some(&old)));
        // Nobody purges the pool of a node that is gone.
        old.nodes().filter(|local| !view.has(local)).for_each(|local| local.clear());
        *self.view.borrow_mut() = view;
        // Among the nodes of their view, what is parked might wait for ever.
        let lots = old.upstreams.iter().flat_map(|upstream| upstream.lots.iter());
        lots.for_each(|lot| lot.line.wake(usize::MAX));
    }

    /// Whether control should be told of an untrusted peer: once a minute each, for a few of them.
    pub fn may_warn_of(&self, peer: IpAddr) -> bool {
        let now = self.now_ns();
        let mut warned = self.warned_of.borrow_mut();
        warned.retain(|(_, at)| now.saturating_sub(*at) < WARN_AGAIN_NS);
        let told = warned.iter().any(|(known, _)| *known == peer) || warned.len() == MAX_WARNED;
        if !told {
            warned.push((peer, now));
        }
        !told
    }

    /// Tells control, if it has room to listen.
    pub fn signal(&self, signal: Signal) {
        if self.signals.try_send(signal).is_err() {
            self.metrics.signals_dropped.inc();
        }
    }

    /// Counts a failed accept.
    pub fn count_accept_error(&self) {
        self.metrics.accept_errors.inc();
    }

    /// What is done every [`crate::http1::deadline::TICK`].
    pub fn tick(&self) {
        self.wheel.tick();
        self.log.borrow_mut().flush();
        let now = self.look_at_clock();
        self.epoch.set((unix_ms(), now));
        let view = self.view();
        self.tell_held(&view);
        self.tunnels.tick(self, &view, now);
        self.maintenance.tick(self, &view, now);
        for upstream in &view.upstreams {
            upstream.upstream.shared.queue.wake_first();
            upstream.release_parked(now);
            upstream.settle(now);
            upstream.nodes.iter().for_each(|member| member.local.purge(now));
        }
    }
}

impl Thread {
    /// Bounds what is held for clients by the thread's part of the process's bound, and tells how much that is.
    fn tell_held(&self, view: &View) {
        let server = &view.snapshot.config.server;
        self.wheel.bound_held(server.max_buffered / server.threads.max(1));
        let held = self.wheel.held();
        self.metrics.buffered(held, self.held.replace(held));
        let cut = self.wheel.take_cut();
        if cut > 0 {
            self.metrics.count_cut(cut);
        }
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The ID of an exchange: a UUIDv7 (RFC 9562, 5.7), or the one that a trusted peer gave.
#[derive(Clone, Copy)]
pub struct RequestId {
    text: [u8; RequestId::MAX],
    len: u8,
}

impl RequestId {
    /// A trusted peer's ID may be as long as this.
    pub const MAX: usize = 64;

    /// A new one.
    pub fn new(unix_ms: u64, rng: &mut fastrand::Rng) -> RequestId {
        let random = rng.u128(..);
        let high = (unix_ms << 16) | 0x7000 | (random as u64 & 0x0fff);
        let low = ((random >> 64) as u64 & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        let mut id = RequestId { text: [0; RequestId::MAX], len: 36 };
        let [a, b] = hex(high);
        let [c, d] = hex(low);
        id.text[..8].copy_from_slice(&a);
        id.text[8..13].copy_from_slice(&[b'-', b[0], b[1], b[2], b[3]]);
        id.text[13..18].copy_from_slice(&[b'-', b[4], b[5], b[6], b[7]]);
        id.text[18..23].copy_from_slice(&[b'-', c[0], c[1], c[2], c[3]]);
        id.text[23..28].copy_from_slice(&[b'-', c[4], c[5], c[6], c[7]]);
        id.text[28..36].copy_from_slice(&d);
        id
    }

    /// A peer's, if it is short and plain.
    pub fn given(value: &[u8]) -> Option<RequestId> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
        if value.is_empty() || value.len() > RequestId::MAX || !value.iter().all(plain) {
            return None;
        }
        let mut id = RequestId { text: [0; RequestId::MAX], len: value.len() as u8 };
        id.text[..value.len()].copy_from_slice(value);
        Some(id)
    }

    /// As text; ASCII by construction.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The same, where nobody asks whether it is text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// The sixteen digits of a number, in lower case: eight at a time, a digit in each byte of a word.
fn hex(value: u64) -> [[u8; 8]; 2] {
    let digits = |half: u64| {
        let half = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let half = (half | half << 8) & 0x00ff_00ff_00ff_00ff;
        let nibbles = (half | half << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let above_nine = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        let letters = above_nine * u64::from(b'a' - b'0' - 10);
        (nibbles + 0x3030_3030_3030_3030 + letters).to_be_bytes()
    };
    [digits(value >> 32), digits(value & 0xffff_ffff)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_7() {
        let mut rng = fastrand::Rng::with_seed(1);
        let id = RequestId::new(0x0123_4567_89ab, &mut rng);
        let text = id.as_str();
        assert!(text.starts_with("01234567-89ab-7"), "{text}");
        assert_eq!(text.len(), 36);
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        assert_ne!(text, RequestId::new(0x0123_4567_89ab, &mut rng).as_str());
    }

    #[test]
    fn digits_are_those_of_fmt() {
        for value in [0, 9, 0xa, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            assert_eq!(hex(value).concat(), format!("{value:016x}").as_bytes());
        }
    }

    #[test]
    fn only_plain_ids_are_taken_over() {
        assert_eq!(RequestId::given(b"abc-1").unwrap().as_str(), "abc-1");
        for odd in [&b""[..], b"a b", b"a\"b", &[b'x'; 65]] {
            assert!(RequestId::given(odd).is_none());
        }
    }
}
