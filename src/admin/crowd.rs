//! How many connections one address may have: nobody of the network keeps an operator out by holding all there
//! are. This machine's own are not counted; whoever is here could do worse.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::control::who::Peer;

/// A browser has six, a scraper one.
pub(super) const MOST_OF_ONE: usize = 16;

/// Connections by address; at most as many addresses as there are connections.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    known: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Place {
    of: Option<(Arc<Crowd>, IpAddr)>,
}

impl Crowd {
    /// Counts a connection; none if there are too many from there.
    pub(super) fn enter(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let Peer::Address(address) = peer else { return Some(Place { of: None }) };
        if address.is_loopback() {
            return Some(Place { of: None });
        }
        let mut known = self.known.lock();
        let count = known.entry(address).or_default();
        if *count >= MOST_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Place { of: Some((self.clone(), address)) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, address)) = &self.of else { return };
        let mut known = crowd.known.lock();
        if let Some(count) = known.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                known.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_and_no_more() {
        let crowd = Arc::new(Crowd::default());
        let from = |last| Peer::Address([10, 0, 0, last].into());
        let mut held: Vec<Place> =
            (0..MOST_OF_ONE).map(|_| crowd.enter(from(1)).unwrap()).collect();
        assert!(crowd.enter(from(1)).is_none());
        let other = crowd.enter(from(2)).unwrap();
        held.pop();
        held.push(crowd.enter(from(1)).unwrap());
        assert!(crowd.enter(from(1)).is_none());
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
