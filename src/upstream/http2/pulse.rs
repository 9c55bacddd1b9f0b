//! Whether a node that owes answers is still there: it is asked by PING when it has said nothing for long.

use std::time::Duration;

use crate::clock;

/// A node that owes answers and says nothing for so long is asked by PING whether it is there.
const SILENCE: Duration = Duration::from_secs(10);
/// And has so long to answer: one that is busy answers that before anything else.
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// Unless it has said something since, it is not asked again before: gRPC's servers by default take more
/// than two within five minutes for an attack, and close.
const PING_PAUSE: Duration = Duration::from_secs(310);

/// Whether the node is still there.
#[derive(Default)]
pub(super) struct Pulse {
    heard: u64,
    heard_ns: u64,
    /// What had been heard when a PING was last sent, and when that was.
    last: Option<(u64, u64)>,
    state: Asking,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Asking {
    #[default]
    Not,
    /// A PING is to be sent.
    Due,
    /// One was sent, and not answered.
    Sent,
    /// It was not answered in time.
    Lost,
}

impl Pulse {
    /// So many frames came so far.
    pub(super) fn beat(&mut self, heard: u64, now_ns: u64) {
        if self.heard != heard {
            (self.heard, self.heard_ns) = (heard, now_ns);
            if self.state == Asking::Sent {
                self.state = Asking::Not;
            }
        }
    }

    /// Whether there is something to be done.
    pub(super) fn look(&mut self, now_ns: u64) -> bool {
        let since = |at_ns: u64| now_ns.saturating_sub(at_ns);
        let next = match (self.state, self.last) {
            (Asking::Sent, Some((_, at_ns))) if since(at_ns) >= clock::nanos(PING_PATIENCE) => {
                Asking::Lost
            }
            (Asking::Not, last) if since(self.heard_ns) >= clock::nanos(SILENCE) => {
                let may = |(heard, at_ns)| {
                    heard != self.heard || since(at_ns) >= clock::nanos(PING_PAUSE)
                };
                if !last.is_none_or(may) {
                    return false;
                }
                Asking::Due
            }
            _ => return false,
        };
        self.state = next;
        true
    }

    /// From now on it owes an answer: the time before is no silence.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
    }

    /// A PING is to be sent.
    pub(super) fn is_due(&self) -> bool {
        self.state == Asking::Due
    }

    /// It was sent.
    pub(super) fn asked(&mut self, now_ns: u64) {
        (self.state, self.last) = (Asking::Sent, Some((self.heard, now_ns)));
    }

    /// It was sent, and nothing came since.
    pub(super) fn is_asking(&self) -> bool {
        self.state == Asking::Sent
    }

    /// It was answered.
    pub(super) fn answered(&mut self, now_ns: u64) {
        (self.state, self.heard_ns) = (Asking::Not, now_ns);
    }

    /// It was not answered in time.
    pub(super) fn is_lost(&self) -> bool {
        self.state == Asking::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Asks as soon as that is due; returns when that was, looking every second until `until`.
    fn asked(pulse: &mut Pulse, heard: u64, seconds: std::ops::Range<u64>) -> Option<u64> {
        seconds.into_iter().find(|second| {
            pulse.beat(heard, second * S);
            let due = pulse.look(second * S) && pulse.is_due();
            if due {
                pulse.asked(second * S);
            }
            due
        })
    }

    #[test]
    fn silence_is_asked_about_and_no_answer_is_a_loss() {
        let mut pulse = Pulse::default();
        pulse.begin(100 * S);
        assert_eq!(asked(&mut pulse, 0, 100..200), Some(110));
        assert!(!pulse.look(119 * S) && pulse.is_asking());
        assert!(pulse.look(120 * S) && pulse.is_lost());
    }

    #[test]
    fn whoever_answers_is_not_asked_again_for_long_unless_it_speaks() {
        let mut pulse = Pulse::default();
        pulse.begin(0);
        assert_eq!(asked(&mut pulse, 0, 0..100), Some(10));
        pulse.answered(11 * S);
        assert_eq!(asked(&mut pulse, 0, 12..1000), Some(320));
        pulse.answered(321 * S);
        assert_eq!(asked(&mut pulse, 1, 325..1000), Some(335));
    }

    #[test]
    fn anything_that_comes_is_an_answer() {
        let mut pulse = Pulse::default();
        pulse.begin(0);
        assert_eq!(asked(&mut pulse, 0, 0..100), Some(10));
        pulse.beat(1, 15 * S);
        assert!(!pulse.look(20 * S) && !pulse.is_asking());
        assert_eq!(asked(&mut pulse, 2, 20..100), Some(30));
    }
}
