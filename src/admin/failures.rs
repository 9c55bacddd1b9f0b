//! Who has shown wrong tokens: after some of them no more from there count for a while.
//!
//! Not even a right one that is short: otherwise the answer would still tell which of many guesses was right. One that
//! nobody finds by trying passes all the same: an operator shares an address with others (a bridge of containers, a
//! NAT, this machine), and a script with last month's token must not keep out who has to drain a node.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::control::who::Peer;

/// Somebody who mistypes, or a script with last month's token, for a while.
const MOST: f64 = 10.0;
/// Then one more each so often: guessing 96 bits, or even a word, is hopeless at that pace.
const FORGIVEN_EACH: Duration = Duration::from_secs(6);
/// Peers that are told apart; all others are one.
const MOST_PEERS: usize = 1024;

/// Failures by peer.
#[derive(Debug, Default)]
pub(super) struct Failures {
    known: HashMap<Key, Count>,
    others: Count,
}

/// Where guesses come from. Whoever has an IPv6 address has 2^64 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    User(u32),
}

/// Failures that count, and when they were counted.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: f64,
    at: Duration,
}

impl Count {
    fn at(self, now: Duration) -> f64 {
        let forgiven = now.saturating_sub(self.at).as_secs_f64() / FORGIVEN_EACH.as_secs_f64();
        (self.failures - forgiven).max(0.0)
    }
}

impl Failures {
    /// How long nothing from there is looked at; none if it is.
    pub(super) fn refused_for(&self, peer: Peer, now: Duration) -> Option<Duration> {
        let count = self.known.get(&key(peer)).or_else(|| {
            // Whoever is not told apart is one of the others while there is no room.
            (self.known.len() >= MOST_PEERS).then_some(&self.others)
        })?;
        let over = count.at(now) - (MOST - 1.0);
        (over > 0.0).then(|| FORGIVEN_EACH.mul_f64(over))
    }

    /// Counts a wrong token. Whether that was the one that fills the measure.
    pub(super) fn count(&mut self, peer: Peer, now: Duration) -> bool {
        let key = key(peer);
        if self.known.len() >= MOST_PEERS && !self.known.contains_key(&key) {
            self.known.retain(|_, count| count.at(now) > 0.0);
        }
        let full = self.known.len() >= MOST_PEERS && !self.known.contains_key(&key);
        let count = if full { &mut self.others } else { self.known.entry(key).or_default() };
        *count = Count { failures: count.at(now) + 1.0, at: now };
        self.refused_for(peer, now).is_some()
    }
}

fn key(peer: Peer) -> Key {
    match peer {
        Peer::User { uid, .. } => Key::User(uid),
        Peer::Address(IpAddr::V6(address)) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Key::Address(Ipv6Addr::from(network).into())
        }
        Peer::Address(address) => Key::Address(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn peer(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    #[test]
    fn ten_in_a_row_are_enough_and_time_forgives() {
        let (mut failures, one) = (Failures::default(), peer("10.0.0.7"));
        let filled: Vec<bool> = (0..10).map(|_| failures.count(one, seconds(1))).collect();
        assert_eq!(filled, [vec![false; 9], vec![true]].concat());
        assert_eq!(failures.refused_for(one, seconds(1)), Some(seconds(6)));
        assert_eq!(failures.refused_for(peer("10.0.0.8"), seconds(1)), None);
        assert_eq!(failures.refused_for(one, seconds(8)), None);
        assert!(failures.count(one, seconds(8)), "it has one try each six seconds");
        assert_eq!(failures.refused_for(one, seconds(100)), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_so_is_a_user() {
        let mut failures = Failures::default();
        for n in 0..10 {
            failures.count(peer(&format!("2001:db8::{n}")), seconds(1));
            failures.count(Peer::User { uid: 7, pid: Some(n) }, seconds(1));
        }
        assert!(failures.refused_for(peer("2001:db8::ffff:1"), seconds(1)).is_some());
        assert!(failures.refused_for(peer("2001:db8:0:1::1"), seconds(1)).is_none());
        assert!(failures.refused_for(Peer::User { uid: 7, pid: None }, seconds(1)).is_some());
        assert!(failures.refused_for(Peer::User { uid: 8, pid: None }, seconds(1)).is_none());
    }

    #[test]
    fn at_the_bound_those_beyond_it_are_one() {
        let mut failures = Failures::default();
        let at = |n: usize| peer(&format!("10.1.{}.{}", n / 256, n % 256));
        for n in 0..MOST_PEERS + 10 {
            failures.count(at(n), seconds(1));
        }
        assert_eq!(failures.known.len(), MOST_PEERS);
        assert!(failures.refused_for(at(MOST_PEERS + 99), seconds(1)).is_some());
        assert!(failures.refused_for(at(1), seconds(1)).is_none(), "who was known before is not");
        failures.count(at(MOST_PEERS + 99), seconds(60));
        assert_eq!(failures.known.len(), 1, "time makes room");
    }
}
