//! Buffers that the TLS streams of one thread lend each other: a stream that has nothing in one has none.

use std::cell::RefCell;

/// Kept for the next one. A stream has at most four in use at once, and streams take turns.
const KEPT: usize = 8;
/// Larger ones go back to the allocator: four records on their way out are the most that is usual.
const LARGEST: usize = 128 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for a record, so that none grows while it is used, whoever had it before.
pub(super) fn take() -> Vec<u8> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(super::RECORD_ON_WIRE))
}

/// Gives one back, whatever is in it.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT && (super::RECORD_ON_WIRE..=LARGEST).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::RECORD_ON_WIRE;
    use super::*;

    #[test]
    fn what_is_given_back_is_lent_again_up_to_a_bound() {
        let mut buffer = Vec::with_capacity(20_000);
        buffer.extend_from_slice(b"secret");
        give_back(buffer);
        let again = take();
        assert!(again.is_empty() && again.capacity() >= 20_000);
        give_back(Vec::with_capacity(LARGEST + 1));
        give_back(Vec::new());
        let none_is_left = || SPARE.with_borrow(Vec::is_empty);
        assert!(none_is_left(), "too large, and none at all");
        give_back(Vec::with_capacity(RECORD_ON_WIRE - 1));
        assert!(none_is_left(), "one that would have to grow");
        assert!(take().capacity() >= RECORD_ON_WIRE);
        (0..2 * KEPT).for_each(|_| give_back(Vec::with_capacity(RECORD_ON_WIRE)));
        SPARE.with_borrow(|spare| assert_eq!(spare.len(), KEPT));
    }
}
