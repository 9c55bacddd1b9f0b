//! Buffers that a data thread lends out: while bytes move, and never to an idle connection.

use std::cell::RefCell;

use super::field::Field;

/// Room of a small buffer: a head of the usual bound and some body fit.
pub const SMALL: usize = 16 * 1024;
/// Room of a large buffer: what one read of a streaming body takes.
pub const LARGE: usize = 64 * 1024;
/// Room of a list of fields: a browser sends about twenty.
const FIELDS: usize = 32;
/// Small buffers kept for reuse: more than that are in use only in a storm, and the storm's memory is
/// to be given back.
const KEPT_SMALL: usize = 64;
/// Large ones kept.
const KEPT_LARGE: usize = 8;

/// The free buffers of one data thread.
#[derive(Default)]
pub struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    fields: RefCell<Vec<Vec<Field>>>,
}

impl Buffers {
    /// An empty buffer with room for [`SMALL`] bytes.
    pub fn small(&self) -> Vec<u8> {
        self.small.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(SMALL))
    }

    /// An empty buffer with room for [`LARGE`] bytes.
    pub fn large(&self) -> Vec<u8> {
        self.large.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LARGE))
    }

    /// Takes a buffer back. One that has grown beyond its class is freed.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        match buffer.capacity() {
            SMALL..LARGE => keep(&self.small, buffer, KEPT_SMALL),
            LARGE..=131_072 => keep(&self.large, buffer, KEPT_LARGE),
            _ => {}
        }
    }

    /// An empty list of fields.
    pub fn fields(&self) -> Vec<Field> {
        self.fields.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(FIELDS))
    }

    /// Takes a list back. One of less than the usual room is freed.
    pub fn give_back_fields(&self, mut fields: Vec<Field>) {
        fields.clear();
        if fields.capacity() >= FIELDS {
            keep(&self.fields, fields, KEPT_SMALL);
        }
    }
}

fn keep<T>(free: &RefCell<Vec<T>>, item: T, at_most: usize) {
    let mut free = free.borrow_mut();
    if free.len() < at_most {
        free.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_no_more_than_its_bound() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..KEPT_SMALL + 10).map(|_| buffers.small()).collect();
        taken.into_iter().for_each(|buffer| buffers.give_back(buffer));
        assert_eq!(buffers.small.borrow().len(), KEPT_SMALL);
        buffers.give_back(Vec::with_capacity(10 * LARGE));
        assert!(buffers.large.borrow().is_empty());
    }
}
