//! How much of something each client has: connections, tunnels, bytes.
//!
//! Who holds nothing is not remembered, so a table is no larger than what is counted in it: one entry for
//! each open connection at most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::net::canonical;

/// What counts as one client: an IPv4 address, or a /64 of IPv6, which is the least that anybody is given (RFC 6177)
/// and all of whose addresses one machine can use.
#[must_use]
pub fn client_key(address: IpAddr) -> u128 {
    match canonical(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => {
            u128::from(v6)
                & u128::from(Ipv6Addr::from([0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0]))
        }
    }
}

/// Locks that data threads share: two of them rarely want the same.
const SHARDS: usize = 32;

/// What each client has.
#[derive(Debug, Default)]
pub struct Clients {
    shards: [Mutex<HashMap<u128, u64>>; SHARDS],
}

/// What one client has taken; given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    clients: Arc<Clients>,
    key: u128,
    amount: u64,
}

impl Clients {
    /// Takes an amount for a client, unless it would have more than `most`.
    #[must_use]
    pub fn take(self: &Arc<Self>, address: IpAddr, amount: u64, most: u64) -> Option<Taken> {
        let mut taken = Taken { clients: self.clone(), key: client_key(address), amount: 0 };
        taken.grow(amount, most).then_some(taken)
    }

    /// What a client has.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> u64 {
        let key = client_key(address);
        self.shard(key).lock().get(&key).copied().unwrap_or(0)
    }

    /// How many clients have something.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: u128) -> &Mutex<HashMap<u128, u64>> {
        // The maps' own hashes are random; here it matters only that neighbours are spread.
        let mixed = (key ^ (key >> 64)) as u64;
        &self.shards[(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as usize % SHARDS]
    }
}

impl Taken {
    /// Whose it is: the first address of the client.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        canonical(Ipv6Addr::from(self.key).into())
    }

    /// Takes more. False: the client would have more than `most`, and nothing was taken.
    #[must_use]
    pub fn grow(&mut self, amount: u64, most: u64) -> bool {
        let mut shard = self.clients.shard(self.key).lock();
        let has = shard.get(&self.key).copied().unwrap_or(0);
        let grown = has.saturating_add(amount);
        if grown > most {
            return false;
        }
        if grown > 0 {
            shard.insert(self.key, grown);
        }
        self.amount += amount;
        true
    }

    /// Gives back all but `amount`.
    pub fn shrink_to(&mut self, amount: u64) {
        let less = self.amount.saturating_sub(amount);
        let mut shard = self.clients.shard(self.key).lock();
        if let Some(has) = shard.get_mut(&self.key) {
            *has = has.saturating_sub(less);
            if *has == 0 {
                shard.remove(&self.key);
                // A flood that is over keeps no room.
                if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
                    shard.shrink_to_fit();
                }
            }
        }
        self.amount -= less;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_an_address_or_a_64_of_ipv6() {
        assert_eq!(client_key(ip("192.0.2.1")), client_key(ip("::ffff:192.0.2.1")));
        assert_ne!(client_key(ip("192.0.2.1")), client_key(ip("192.0.2.2")));
        assert_eq!(client_key(ip("2001:db8:0:1::1")), client_key(ip("2001:db8:0:1:ffff::2")));
        assert_ne!(client_key(ip("2001:db8:0:1::1")), client_key(ip("2001:db8:0:2::1")));
    }

    #[test]
    fn each_client_has_its_own_bound_and_gives_back() {
        let clients = Arc::<Clients>::default();
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let first = clients.take(a, 1, 2).unwrap();
        let second = clients.take(a, 1, 2).unwrap();
        assert!(clients.take(a, 1, 2).is_none());
        assert_eq!((clients.of(a), clients.of(b)), (2, 0));
        let other = clients.take(b, 1, 2).unwrap();
        assert_eq!(clients.count(), 2);
        drop(first);
        assert!(clients.take(a, 1, 2).is_some());
        drop((second, other));
        assert_eq!((clients.count(), clients.of(a)), (0, 0));
    }

    #[test]
    fn bytes_grow_and_shrink() {
        let clients = Arc::<Clients>::default();
        let a = ip("2001:db8::1");
        let mut taken = clients.take(a, 0, 100).unwrap();
        assert_eq!(clients.count(), 0, "nothing is nothing");
        assert!(taken.grow(60, 100) && !taken.grow(41, 100) && taken.grow(40, 100));
        taken.shrink_to(10);
        assert_eq!(clients.of(a), 10);
        assert!(clients.take(a, 91, 100).is_none());
        drop(taken);
        assert_eq!(clients.count(), 0);
    }

    #[test]
    fn threads_together_never_have_more() {
        let clients = Arc::<Clients>::default();
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                (0..1000).filter_map(|_| clients.take(ip("10.0.0.1"), 1, 700)).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            all.iter().map(Vec::len).sum()
        });
        assert_eq!((taken, clients.count()), (700, 0));
    }

    #[test]
    fn a_flood_of_clients_leaves_nothing() {
        let clients = Arc::<Clients>::default();
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let all: Vec<_> = (0..100_000).filter_map(|n| clients.take(address(n), 1, 1)).collect();
        assert_eq!((all.len(), clients.count()), (100_000, 100_000));
        drop(all);
        assert_eq!(clients.count(), 0);
        let room: usize = clients.shards.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(room <= SHARDS * 64, "{room}");
    }
}
