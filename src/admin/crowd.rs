//! How many connections one address, or one /64 of IPv6, may have: nobody of the network keeps an operator out by
//! holding all there are. This machine's own are not counted; whoever is here could do worse.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::control::who::Peer;
use crate::limit::clients::client_key;

/// A browser has six, a scraper one.
pub(super) const MOST_OF_ONE: usize = 16;

/// Connections by [`client_key`]; at most as many keys as there are connections.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    known: Mutex<HashMap<u128, usize>>,
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Place {
    of: Option<(Arc<Crowd>, u128)>,
}

impl Crowd {
    /// Counts a connection; none if there are too many from there.
    pub(super) fn enter(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let Peer::Address(address) = peer else { return Some(Place { of: None }) };
        if address.is_loopback() {
            return Some(Place { of: None });
        }
        let key = client_key(address);
        let mut known = self.known.lock();
        let count = known.entry(key).or_default();
        if *count >= MOST_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Place { of: Some((self.clone(), key)) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, key)) = &self.of else { return };
        let mut known = crowd.known.lock();
        if let Some(count) = known.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                known.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_and_no_more() {
        let v4 = |other, n| Peer::Address([10, 0, u8::from(other), n].into());
        let v6 = |other, n| Peer::Address([0x2001, 0xdb8, 0, u16::from(other), 0, 0, 0, n].into());
        // One machine has all addresses of its /64.
        crowded(|other, _| v4(other, 1));
        crowded(v6);
    }

    /// Tries the bound with the n-th address of one client, and of another.
    fn crowded(from: impl Fn(bool, u16) -> Peer) {
        let crowd = Arc::new(Crowd::default());
        let enter = |n: usize| crowd.enter(from(false, u16::try_from(n).unwrap()));
        let mut held: Vec<Place> = (0..MOST_OF_ONE).map(|n| enter(n).unwrap()).collect();
        assert!(enter(MOST_OF_ONE).is_none());
        let other = crowd.enter(from(true, 0)).unwrap();
        held.pop();
        held.push(enter(MOST_OF_ONE).unwrap());
        assert!(enter(0).is_none());
        drop((held, other));
        assert!(crowd.known.lock().is_empty(), "nothing is remembered of who has left");
    }

    #[test]
    fn this_machine_is_not_counted() {
        let crowd = Arc::new(Crowd::default());
        for peer in [Peer::Address([127, 0, 0, 1].into()), Peer::User { uid: 7, pid: None }] {
            let held: Vec<_> = (0..=MOST_OF_ONE).map(|_| crowd.enter(peer)).collect();
            assert!(held.iter().all(Option::is_some));
        }
    }
}
