//! Exchanges that wait in line, first come, first served, and the search among them for one that has a use
//! for a turn. What holds a line says who may reach it: one data thread, or all.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Places that are asked in vain between two calls of [`Line::give`]: a line may be thousands long, and
/// none of them may have a use for the turn. The next search goes on where this one ended.
pub const SEARCHED: usize = 32;

/// The search has come to the end of the line.
const END: u64 = u64::MAX;

/// The line.
#[derive(Debug, Default)]
pub struct Line {
    /// In the order of their numbers.
    waiting: VecDeque<Waiting>,
    /// How many have ever entered.
    entered: u64,
    /// How many more may be asked in this search.
    searches: usize,
    /// The search has come so far: to the place of this number.
    searched: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    safe_to_repeat: bool,
    woken: bool,
    waker: Option<Waker>,
}

impl Line {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A place at the end, for what is safe to repeat or not; returns its number.
    pub fn enter(&mut self, safe_to_repeat: bool) -> u64 {
        self.entered += 1;
        let number = self.entered;
        self.waiting.push_back(Waiting { number, safe_to_repeat, woken: false, waker: None });
        number
    }

    /// Gives a place up.
    pub fn leave(&mut self, number: u64) {
        if let Ok(own) = self.find(number) {
            self.waiting.remove(own);
        }
    }

    /// Lets the first so many look again, of those that are safe to repeat or of all. Hands over whom to wake.
    pub fn give(&mut self, many: usize, only_safe: bool, mut wake: impl FnMut(Waker)) {
        let mut last = 0;
        let takes = |waiting: &&mut Waiting| waiting.safe_to_repeat || !only_safe;
        for waiting in self.waiting.iter_mut().filter(takes).take(many) {
            waiting.wake().map(&mut wake);
            last = waiting.number;
        }
        self.searches = SEARCHED;
        let before = if self.searched == END { 0 } else { self.searched };
        self.searched = last.max(before);
    }

    /// Ready when it is this place's turn to look again.
    pub fn poll_turn(&mut self, number: u64, cx: &Context<'_>) -> Poll<()> {
        let Ok(own) = self.find(number) else { return Poll::Pending };
        let own = &mut self.waiting[own];
        if std::mem::take(&mut own.woken) {
            return Poll::Ready(());
        }
        own.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Lets somebody behind a place look who has not yet: what is none for this one may be one for others.
    /// Returns whom to wake.
    #[must_use]
    pub fn pass_on(&mut self, number: u64) -> Option<Waker> {
        self.searches = self.searches.checked_sub(1)?;
        let after = self.searched.max(number);
        let next = self.waiting.partition_point(|waiting| waiting.number <= after);
        let next = self.waiting.get_mut(next);
        self.searched = next.as_ref().map_or(END, |next| next.number);
        next?.wake()
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&number, |waiting| waiting.number)
    }
}

impl Waiting {
    fn wake(&mut self) -> Option<Waker> {
        self.woken = true;
        self.waker.take()
    }
}
