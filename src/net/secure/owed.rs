//! Plaintext that was sealed and whose writer has not been told so.

/// Records of one write at most.
pub(super) const MOST: usize = 4;

/// The records of one write, in their order.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Where each ends in what goes to the kernel, and how much plaintext it has.
    records: [(u32, u32); MOST],
    count: usize,
    /// What was promised: a writer that waits must offer the same again. Only looked at where assertions are.
    #[cfg(debug_assertions)]
    plain: std::collections::VecDeque<u8>,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes note of one more record.
    pub(super) fn push(&mut self, end: usize, plain: &[u8]) {
        // One write seals no more, and it begins only when nothing is owed.
        debug_assert!(self.count < MOST, "a write before the last one was acknowledged");
        let of = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(record) = self.records.get_mut(self.count) {
            *record = (of(end), of(plain.len()));
            self.count += 1;
        }
        #[cfg(debug_assertions)]
        self.plain.extend(plain);
    }

    /// Plaintext of the records that end at `sent` or before; they are owed no longer.
    pub(super) fn settle(&mut self, sent: usize) -> usize {
        let all = &self.records[..self.count];
        let gone = all.iter().take_while(|(end, _)| *end as usize <= sent).count();
        let done = all[..gone].iter().map(|(_, plain)| *plain as usize).sum();
        self.records.copy_within(gone..self.count, 0);
        self.count -= gone;
        #[cfg(debug_assertions)]
        self.plain.drain(..done);
        done
    }

    /// Ends the process of a test whose writer offers other bytes than those that are sealed already: what is
    /// acknowledged as sent would be something else than what was.
    #[cfg(debug_assertions)]
    pub(super) fn check(&self, slices: &[std::io::IoSlice<'_>]) {
        let offered = slices.iter().flat_map(|slice| slice.iter());
        let same = offered.zip(&self.plain).filter(|(offered, owed)| offered == owed).count();
        assert_eq!(same, self.plain.len(), "after `WouldBlock` other bytes were offered");
    }

    /// Costs nothing where there are no assertions.
    #[cfg(not(debug_assertions))]
    pub(super) fn check(&self, _: &[std::io::IoSlice<'_>]) {}
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    fn two() -> Owed {
        let mut owed = Owed::default();
        owed.push(30, b"one");
        owed.push(60, b"more");
        owed
    }

    #[test]
    fn records_are_settled_when_they_are_gone_whole() {
        let mut owed = two();
        assert_eq!([owed.settle(29), owed.settle(59), owed.settle(60)], [0, 3, 4]);
        assert!(owed.is_empty());
    }

    #[test]
    fn the_same_bytes_may_be_offered_in_other_pieces_and_with_more_behind() {
        two().check(&[IoSlice::new(b"onem"), IoSlice::new(b"ore"), IoSlice::new(b"!")]);
    }

    #[test]
    #[should_panic(expected = "other bytes were offered")]
    #[cfg(debug_assertions)]
    fn fewer_bytes_than_were_sealed_break_the_contract() {
        two().check(&[IoSlice::new(b"onemor")]);
    }

    #[test]
    #[should_panic(expected = "other bytes were offered")]
    #[cfg(debug_assertions)]
    fn other_bytes_break_the_contract() {
        two().check(&[IoSlice::new(b"oneMore")]);
    }
}
