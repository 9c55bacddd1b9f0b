//! Room for what is parked at one upstream, counted over all data threads.
//!
//! Clients are not spread evenly over the threads, so a bound divided among them would turn some away while
//! there is room. Only exchanges that are parked touch these counters.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is parked. Each kind has a line, a number of places and a pace of its own: all pages come back at
/// once when a node is lost, and must not crowd requests out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// A WebSocket handshake.
    Upgrade,
}

/// All, in the order of their discriminants.
pub const KINDS: [Kind; 2] = [Kind::Request, Kind::Upgrade];

/// How many are parked, and what they hold.
#[derive(Debug, Default)]
pub struct Parking {
    counts: [AtomicUsize; 2],
    bytes: AtomicUsize,
}

/// The bounds of the room, as configured.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Exchanges of each kind.
    pub count: usize,
    /// Bytes that all together hold.
    pub bytes: usize,
}

/// A place for one; given back when it is dropped.
#[derive(Debug)]
pub struct Spot {
    parking: Arc<Parking>,
    kind: Kind,
    bytes: Cell<usize>,
    bounds: Bounds,
}

impl Parking {
    /// A place for one exchange that holds so many bytes, unless a bound would be exceeded. Two threads that
    /// ask at once for the last place may both be refused; there is never more than allowed.
    #[must_use]
    pub fn enter(self: &Arc<Self>, kind: Kind, bytes: usize, bounds: Bounds) -> Option<Spot> {
        let others = self.counts[kind as usize].fetch_add(1, Relaxed);
        // From here on dropping it gives back what was taken.
        let spot = Spot { parking: self.clone(), kind, bytes: Cell::new(0), bounds };
        (others < bounds.count && spot.grow(bytes)).then_some(spot)
    }

    /// How many of a kind are parked now.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize].load(Relaxed)
    }

    /// How many are parked now.
    pub fn total(&self) -> usize {
        KINDS.into_iter().map(|kind| self.count(kind)).sum()
    }

    /// What they hold now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Spot {
    /// The same place after a reload, for what the exchange holds now; none of another upstream or kind.
    /// Whoever is parked stays, also where the new bounds are less.
    #[must_use]
    pub fn stay(
        mut self,
        parking: &Arc<Parking>,
        kind: Kind,
        bytes: usize,
        bounds: Bounds,
    ) -> Option<Spot> {
        if !Arc::ptr_eq(&self.parking, parking) || self.kind != kind {
            return None;
        }
        self.bounds = bounds;
        parking.bytes.fetch_add(bytes, Relaxed);
        parking.bytes.fetch_sub(self.bytes.replace(bytes), Relaxed);
        Some(self)
    }

    /// Room for more bytes at the same place. False: there is none, and nothing was taken.
    #[must_use]
    pub fn grow(&self, bytes: usize) -> bool {
        let held = self.parking.bytes.fetch_add(bytes, Relaxed);
        let fits = held.saturating_add(bytes) <= self.bounds.bytes;
        match fits {
            true => self.bytes.set(self.bytes.get() + bytes),
            false => drop(self.parking.bytes.fetch_sub(bytes, Relaxed)),
        }
        fits
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.parking.counts[self.kind as usize].fetch_sub(1, Relaxed);
        self.parking.bytes.fetch_sub(self.bytes.get(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Kind::{Request, Upgrade};

    #[test]
    fn both_bounds_hold_and_what_leaves_makes_room() {
        let bounds = Bounds { count: 2, bytes: 100 };
        let parking = Arc::<Parking>::default();
        let first = parking.enter(Request, 60, bounds).unwrap();
        assert!(parking.enter(Request, 41, bounds).is_none(), "too many bytes");
        let second = parking.enter(Request, 40, bounds).unwrap();
        assert!(parking.enter(Request, 0, bounds).is_none(), "too many");
        assert_eq!((parking.count(Request), parking.bytes()), (2, 100));
        drop(first);
        assert!(parking.enter(Request, 60, bounds).is_some());
        drop(second);
        assert!(parking.enter(Request, 100, bounds).is_some(), "all bytes were given back");
        assert_eq!((parking.total(), parking.bytes()), (0, 0));
    }

    #[test]
    fn pages_take_no_place_of_a_request() {
        let bounds = Bounds { count: 1, bytes: 100 };
        let parking = Arc::<Parking>::default();
        let _page = parking.enter(Upgrade, 10, bounds).unwrap();
        assert!(parking.enter(Upgrade, 10, bounds).is_none());
        let _request = parking.enter(Request, 10, bounds).unwrap();
        assert_eq!((parking.count(Request), parking.count(Upgrade), parking.total()), (1, 1, 2));
    }

    #[test]
    fn what_grows_in_its_place_counts() {
        let bounds = Bounds { count: 9, bytes: 100 };
        let parking = Arc::<Parking>::default();
        let first = parking.enter(Request, 10, bounds).unwrap();
        assert!(first.grow(90) && !first.grow(1));
        assert_eq!(parking.bytes(), 100);
        assert!(parking.enter(Upgrade, 1, bounds).is_none());
        drop(first);
        assert_eq!(parking.bytes(), 0);
    }

    #[test]
    fn who_is_parked_stays_although_the_bounds_are_less() {
        let bounds = Bounds { count: 1, bytes: 100 };
        let less = Bounds { count: 0, bytes: 50 };
        let (parking, other) = (Arc::<Parking>::default(), Arc::<Parking>::default());
        let spot = parking.enter(Request, 100, bounds).unwrap();
        let spot = spot.stay(&parking, Request, 60, less).unwrap();
        assert_eq!((parking.total(), parking.bytes()), (1, 60));
        assert!(!spot.grow(1) && parking.enter(Request, 1, bounds).is_none());
        assert!(spot.stay(&other, Request, 60, bounds).is_none(), "it is of another upstream");
        assert_eq!((parking.total(), parking.bytes()), (0, 0));
    }

    proptest! {
        /// Whoever comes, grows and leaves in whatever order: no bound is ever exceeded, and in the end
        /// nothing is left over.
        #[test]
        fn the_books_balance(steps in prop::collection::vec((0..3u8, any::<bool>(), 0..50usize), 0..200)) {
            let bounds = Bounds { count: 7, bytes: 300 };
            let parking = Arc::<Parking>::default();
            let mut spots: Vec<Spot> = Vec::new();
            for (step, upgrade, number) in steps {
                let kind = if upgrade { Upgrade } else { Request };
                match step {
                    0 => spots.extend(parking.enter(kind, number, bounds)),
                    1 if !spots.is_empty() => drop(spots.remove(number % spots.len())),
                    2 if !spots.is_empty() => { let _ = spots[number % spots.len()].grow(number); }
                    _ => {}
                }
                prop_assert!(KINDS.into_iter().all(|kind| parking.count(kind) <= bounds.count));
                prop_assert!(parking.bytes() <= bounds.bytes);
                prop_assert_eq!(parking.total(), spots.len());
                prop_assert_eq!(parking.bytes(), spots.iter().map(|spot| spot.bytes.get()).sum::<usize>());
            }
            spots.clear();
            prop_assert_eq!((parking.total(), parking.bytes()), (0, 0));
        }
    }
}
