//! Room for what is parked at one upstream, counted over all data threads.
//!
//! Clients are not spread evenly over the threads, so a bound divided among them would turn some away while
//! there is room. Only exchanges that are parked touch these counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many are parked, and what they hold.
#[derive(Debug, Default)]
pub struct Parking {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place for one; given back when it is dropped.
#[derive(Debug)]
pub struct Spot {
    parking: Arc<Parking>,
    bytes: usize,
}

impl Parking {
    /// A place for one exchange that holds so many bytes, unless there are `limit` of them already or all
    /// together would hold more than `max_bytes`. Two threads that ask at once for the last place may both
    /// be refused; there are never more than allowed.
    #[must_use]
    pub fn enter(self: &Arc<Self>, bytes: usize, limit: usize, max_bytes: usize) -> Option<Spot> {
        let others = self.count.fetch_add(1, Relaxed);
        let held = self.bytes.fetch_add(bytes, Relaxed);
        // From here on dropping it gives back what was taken.
        let spot = Spot { parking: self.clone(), bytes };
        (others < limit && held.saturating_add(bytes) <= max_bytes).then_some(spot)
    }

    /// How many are parked now.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.parking.count.fetch_sub(1, Relaxed);
        self.parking.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_what_leaves_makes_room() {
        let parking = Arc::<Parking>::default();
        let first = parking.enter(60, 2, 100).unwrap();
        assert!(parking.enter(41, 2, 100).is_none(), "too many bytes");
        let second = parking.enter(40, 2, 100).unwrap();
        assert!(parking.enter(0, 2, 100).is_none(), "too many");
        assert_eq!(parking.count(), 2);
        drop(first);
        assert!(parking.enter(60, 2, 100).is_some());
        drop(second);
        assert_eq!(parking.count(), 0);
        assert!(parking.enter(100, 2, 100).is_some(), "all bytes were given back");
    }
}
