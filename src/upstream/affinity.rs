//! Which node took what has to be followed there: the flows of an upstream that live in one node's memory.
//!
//! A hash would name the same node until one leaves; this remembers. Requests of such flows, which are
//! rare, take the lock, and so do those of a session that is followed; everybody else reads one number, and
//! while any session is followed a word of a filter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

/// Flows that are remembered at once. Each was begun by a request that a node accepted, so strangers cannot
/// push others out; what was not used for longest goes first.
pub const MAX_FLOWS: usize = 1024;
/// A flow that nobody has asked for in so long is over. A page that shows a running backup asks every few
/// seconds.
const FLOW_NS: u64 = 3_600_000_000_000;
/// A session is kept at the node that it changed for so long: a plugin's installation takes minutes, and by
/// then the other nodes should have been restarted as well.
const SESSION_NS: u64 = 600_000_000_000;

/// The memory of one upstream, shared by all threads.
#[derive(Debug, Default)]
pub struct Affinity {
    flows: Mutex<HashMap<u64, Entry>>,
    /// Until when any session may be followed; 0 while none ever was.
    sessions_until_ns: AtomicU64,
    /// A bit for each session that is remembered, by its key: a Bloom filter (Bloom 1970) of one hash. Of
    /// everybody else's requests nearly all learn from it, without the lock, that they follow nothing.
    sessions: [AtomicU64; WORDS],
}

/// Words of the filter: of 1,024 bits a handful is set.
const WORDS: usize = 16;

/// The word and the bit of a key.
fn bit(key: u64) -> (usize, u64) {
    ((key >> 6) as usize % WORDS, 1 << (key & 63))
}

#[derive(Debug)]
struct Entry {
    /// The node's identity.
    node: u64,
    until_ns: u64,
    /// Using it keeps it.
    kept_by_use: bool,
}

impl Affinity {
    /// A node took something of a flow; `node` is its identity. All times are on one clock.
    pub fn remember(&self, flow: u64, node: u64, now_ns: u64) {
        let until_ns = now_ns.saturating_add(FLOW_NS);
        drop(self.insert(flow, Entry { node, until_ns, kept_by_use: true }, now_ns));
    }

    /// A session changed a node. Its other requests follow for some minutes, whether they come or not.
    pub fn remember_session(&self, session: u64, node: u64, now_ns: u64) {
        let until_ns = now_ns.saturating_add(SESSION_NS);
        let mut flows = self.insert(session, Entry { node, until_ns, kept_by_use: false }, now_ns);
        let mut words = [0; WORDS];
        flows.retain(|_, known| known.until_ns > now_ns);
        for key in flows.iter().filter(|(_, known)| !known.kept_by_use).map(|(key, _)| *key) {
            let (word, bit) = bit(key);
            words[word] |= bit;
        }
        // Whoever is remembered is in both the old ones and the new ones.
        self.sessions.iter().zip(words).for_each(|(word, bits)| word.store(bits, Relaxed));
        self.sessions_until_ns.fetch_max(until_ns, Relaxed);
    }

    fn insert(&self, key: u64, entry: Entry, now_ns: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        let mut flows = self.flows.lock();
        if flows.len() >= MAX_FLOWS && !flows.contains_key(&key) {
            flows.retain(|_, known| known.until_ns > now_ns);
        }
        if flows.len() >= MAX_FLOWS && !flows.contains_key(&key) {
            let first = flows.iter().min_by_key(|(_, known)| known.until_ns).map(|(key, _)| *key);
            first.map(|first| flows.remove(&first));
        }
        flows.insert(key, entry);
        flows
    }

    /// The identity of the node that a flow, or a session, is at.
    pub fn node_of(&self, key: u64, now_ns: u64) -> Option<u64> {
        let mut flows = self.flows.lock();
        let entry = flows.get_mut(&key).filter(|entry| entry.until_ns > now_ns)?;
        if entry.kept_by_use {
            entry.until_ns = now_ns.saturating_add(FLOW_NS);
        }
        Some(entry.node)
    }

    /// The same of a session that has nothing to do with a flow otherwise.
    pub fn node_of_session(&self, key: u64, now_ns: u64) -> Option<u64> {
        let (word, bit) = bit(key);
        let may = self.sessions[word].load(Relaxed) & bit != 0;
        may.then(|| self.node_of(key, now_ns)).flatten()
    }

    /// Whether any session may be followed.
    pub fn follows_sessions(&self, now_ns: u64) -> bool {
        self.sessions_until_ns.load(Relaxed) > now_ns
    }

    /// How many flows and sessions are remembered.
    pub fn count(&self) -> usize {
        self.flows.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    #[test]
    fn a_flow_is_kept_by_use_and_the_last_node_counts() {
        let affinity = Affinity::default();
        assert_eq!(affinity.node_of(1, NOW), None);
        affinity.remember(1, 7, NOW);
        affinity.remember(1, 8, NOW);
        assert_eq!(affinity.node_of(1, NOW + FLOW_NS - 1), Some(8));
        assert_eq!(affinity.node_of(1, NOW + FLOW_NS + 1), Some(8), "it was used since");
        assert_eq!(affinity.node_of(1, NOW + 3 * FLOW_NS), None);
        assert!(!affinity.follows_sessions(NOW), "a flow is no session");
    }

    #[test]
    fn a_session_ends_however_often_it_comes() {
        let affinity = Affinity::default();
        affinity.remember_session(1, 7, NOW);
        assert!(affinity.follows_sessions(NOW + SESSION_NS - 1));
        assert_eq!(affinity.node_of(1, NOW + SESSION_NS - 1), Some(7));
        assert_eq!(affinity.node_of(1, NOW + SESSION_NS), None);
        assert!(!affinity.follows_sessions(NOW + SESSION_NS));
    }

    #[test]
    fn the_filter_has_every_session_and_hardly_anybody_else() {
        let affinity = Affinity::default();
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 1..=50 {
            affinity.remember_session(key(n), n, NOW + n);
        }
        assert!((1..=50).all(|n| affinity.node_of_session(key(n), NOW + 50) == Some(n)));
        let bits = || affinity.sessions.iter().map(|word| word.load(Relaxed).count_ones()).sum();
        let set: u32 = bits();
        assert!((40..=50).contains(&set), "{set}");
        assert!((51..2_000).all(|n| affinity.node_of_session(key(n), NOW + 50).is_none()));
        // Those that are over leave it; a flow is not in it.
        affinity.remember(key(1), 7, NOW + 2 * SESSION_NS);
        affinity.remember_session(key(2), 8, NOW + 2 * SESSION_NS);
        assert_eq!(bits(), 1);
    }

    #[test]
    fn at_the_bound_what_was_not_used_for_longest_is_forgotten() {
        let affinity = Affinity::default();
        for key in 0..MAX_FLOWS as u64 {
            affinity.remember(key, key, NOW + key);
        }
        assert_eq!(affinity.node_of(0, NOW + 5_000), Some(0), "this keeps it");
        affinity.remember(u64::MAX, 1, NOW + 5_000);
        assert_eq!(affinity.count(), MAX_FLOWS);
        assert_eq!(affinity.node_of(1, NOW + 5_000), None);
        assert_eq!(affinity.node_of(0, NOW + 5_000), Some(0));
        // What is over makes room first.
        let late = NOW + 2 * FLOW_NS;
        affinity.remember(u64::MAX - 1, 1, late);
        assert_eq!(affinity.count(), 1);
    }
}
