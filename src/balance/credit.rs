//! Smooth weighted round robin with a memory.
//!
//! Every node earns its weight at each pick, and the picked one pays for all. As long as every node may
//! be picked this is exact: in each cycle (the sum of the weights) a node is picked as often as its
//! weight says, evenly spread. When only some may be picked, the others keep what they earned, up to
//! a bound, and catch up later: that is how shares follow weights although load decides single picks.

/// A node saves at most so many cycles. What it missed while it was slow is lost on purpose: paid back
/// in full, it would flood a node that has just recovered.
const MOST_SAVED_CYCLES: i64 = 2;

/// One credit per node.
#[derive(Clone, Debug)]
pub(super) struct Credits {
    credit: Vec<i64>,
}

impl Credits {
    /// No credit for anybody.
    pub(super) fn new(nodes: usize) -> Self {
        Self { credit: vec![0; nodes] }
    }

    /// Picks the node with the most credit among those that `may` be picked; all `eligible` earn.
    pub(super) fn pick(
        &mut self,
        eligible: &[usize],
        weight: impl Fn(usize) -> u32,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let cycle: i64 = eligible.iter().map(|&i| i64::from(weight(i))).sum();
        let mut earned = 0;
        let mut best: Option<usize> = None;
        for &i in eligible {
            let room = (cycle * MOST_SAVED_CYCLES - self.credit[i]).max(0);
            let earns = i64::from(weight(i)).min(room);
            self.credit[i] += earns;
            earned += earns;
            if may(i) && best.is_none_or(|b| self.credit[i] > self.credit[b]) {
                best = Some(i);
            }
        }
        // Exactly what was earned is paid, so that the credits keep their sum and none drifts away.
        self.credit[best?] -= earned;
        best
    }
}
