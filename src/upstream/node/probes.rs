//! What probes tell of a node, as far as the data threads look at it.

use std::sync::atomic::Ordering::Relaxed;

use super::Node;
use crate::balance::silence;

impl Node {
    /// Control's: a good probe counts as an answer.
    pub fn good_probe(&self, now_ns: u64) {
        self.last_good_probe_ns.store(now_ns, Relaxed);
    }

    /// Control's: a probe found nobody there, or waited in vain since `silent_ns`.
    pub fn lost_probe(&self, now_ns: u64, silent_ns: Option<u64>) {
        self.last_lost_probe_ns.store(now_ns, Relaxed);
        if let Some(silent_ns) = silent_ns {
            self.silent_probe_ns.store(silent_ns, Relaxed);
        }
        if self.fell_ns() <= self.last_good_probe_ns() {
            self.fell_ns.store(now_ns, Relaxed);
        }
    }

    /// When it last began to be lost; 0 is never.
    pub fn fell_ns(&self) -> u64 {
        self.fell_ns.load(Relaxed)
    }

    /// Whether a probe has found it lost since then, and it has answered nothing: neither since then nor, if
    /// it answered others just before it fell silent, while a probe waited in vain.
    pub fn is_lost(&self, since_ns: u64) -> bool {
        let silent_ns = self.silent_probe_ns.load(Relaxed);
        self.last_lost_probe_ns.load(Relaxed) > since_ns
            && self.last_head_ns() < since_ns.max(silent_ns)
    }

    /// How long probes have waited in vain and nothing else was heard: with whoever waited here moved to
    /// another node, nobody is left whose wait would tell.
    pub(super) fn probe_silence_ns(&self, last_head_ns: u64, now_ns: u64) -> u64 {
        if self.last_lost_probe_ns.load(Relaxed) <= last_head_ns {
            return 0;
        }
        silence::silence(last_head_ns, self.silent_probe_ns.load(Relaxed), now_ns)
    }

    /// When control last had a good probe.
    pub fn last_good_probe_ns(&self) -> u64 {
        self.last_good_probe_ns.load(Relaxed)
    }
}
