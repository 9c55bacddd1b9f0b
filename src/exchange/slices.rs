//! Things that are done to many connections, each at a moment of its own.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// Connections by their moments; one that ends before is only skipped.
pub(super) struct Slices<T> {
    due: VecDeque<(u64, Weak<T>)>,
}

impl<T> Default for Slices<T> {
    fn default() -> Self {
        Slices { due: VecDeque::new() }
    }
}

impl<T> Slices<T> {
    /// Spreads these over the window, evenly but for chance.
    pub(super) fn add(
        &mut self,
        all: impl IntoIterator<Item = Rc<T>>,
        (now_ns, window_ns): (u64, u64),
        rng: &mut fastrand::Rng,
    ) {
        let mut at = || now_ns + rng.u64(0..window_ns.max(1));
        let mut all = all.into_iter().map(|one| (at(), Rc::downgrade(&one)));
        let (first, second) = (all.next(), all.next());
        if let (Some(one), None) = (&first, &second) {
            // They may come one by one, thousands of them.
            let place = self.due.partition_point(|(at_ns, _)| *at_ns <= one.0);
            self.due.insert(place, one.clone());
            return;
        }
        self.due.retain(|(_, one)| one.strong_count() > 0);
        self.due.extend(first.into_iter().chain(second).chain(all));
        self.due.make_contiguous().sort_by_key(|(at_ns, _)| *at_ns);
    }

    /// Those whose moment has come, as many as `may` allows; the others wait for the next time.
    pub(super) fn tick(&mut self, now_ns: u64, may: impl Fn() -> bool, act: impl Fn(&T)) {
        while let Some((_, one)) = self.due.front().filter(|(at_ns, _)| *at_ns <= now_ns) {
            if let Some(one) = one.upgrade() {
                if !may() {
                    return;
                }
                act(&one);
            }
            self.due.pop_front();
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn who_comes_alone_is_put_in_its_place() {
        let (mut slices, mut rng) = (Slices::default(), fastrand::Rng::with_seed(5));
        let all: Vec<Rc<u32>> = (0..100).map(Rc::new).collect();
        all.iter().for_each(|one| slices.add([one.clone()], (1_000, 1_000), &mut rng));
        slices.add([], (1_000, 1_000), &mut rng);
        assert_eq!(slices.due.len(), 100);
        assert!(slices.due.iter().is_sorted_by_key(|(at_ns, _)| *at_ns));
        assert!(slices.due.iter().all(|(at_ns, _)| (1_000..2_000).contains(at_ns)));
    }

    #[test]
    fn each_has_its_moment_and_leave_is_asked_for() {
        let (mut slices, mut rng) = (Slices::default(), fastrand::Rng::with_seed(3));
        let mut all: Vec<Rc<u32>> = (0..100).map(Rc::new).collect();
        slices.add(all.iter().cloned(), (1_000, 1_000), &mut rng);
        let done = RefCell::new(Vec::new());
        let act = |one: &u32| done.borrow_mut().push(*one);
        slices.tick(999, || true, act);
        assert!(done.borrow().is_empty());
        slices.tick(1_500, || true, act);
        let half = done.borrow().len();
        assert!((30..70).contains(&half), "{half}");
        slices.tick(5_000, || false, act);
        assert_eq!(done.borrow().len(), half, "without leave they wait");
        all.truncate(50);
        slices.tick(5_000, || true, act);
        let mut done = done.borrow().clone();
        done.sort_unstable();
        assert!(done.len() < 100 && (0..50).all(|one| done.contains(&one)), "{done:?}");
        assert!(slices.is_empty());
    }
}
