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
    /// It was not answered: there is no other before that.
    owed: bool,
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
                if self.owed {
                    // What came had crossed it. It is asked already, and has as long from now on.
                    self.asked(now_ns);
                    return false;
                }
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
        self.owed = true;
    }

    /// It was answered.
    pub(super) fn answered(&mut self, now_ns: u64) {
        (self.state, self.heard_ns, self.owed) = (Asking::Not, now_ns, false);
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
        assert!(!pulse.look(119 * S) && pulse.state == Asking::Sent);
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
    fn what_crossed_a_ping_does_not_answer_it_for_ever() {
        let mut pulse = Pulse::default();
        pulse.begin(0);
        assert_eq!(asked(&mut pulse, 0, 0..100), Some(10));
        pulse.beat(1, 10 * S + S / 2);
        // No other can be sent: nobody is asked to, and yet it is known in the end.
        let lost = (11..100).find(|second| {
            pulse.look(second * S);
            assert!(!pulse.is_due(), "at {second} s");
            pulse.is_lost()
        });
        assert_eq!(lost, Some(31));
        // One that answers late is there.
        let mut late = Pulse::default();
        late.begin(0);
        assert_eq!(asked(&mut late, 0, 0..100), Some(10));
        late.beat(1, 11 * S);
        late.look(21 * S);
        late.answered(25 * S);
        late.look(34 * S);
        assert!(!late.is_lost() && !late.is_due());
    }

    #[test]
    fn anything_that_comes_is_an_answer() {
        let mut pulse = Pulse::default();
        pulse.begin(0);
        assert_eq!(asked(&mut pulse, 0, 0..100), Some(10));
        pulse.beat(1, 15 * S);
        assert!(!pulse.look(20 * S) && pulse.state == Asking::Not);
        pulse.answered(15 * S);
        assert_eq!(asked(&mut pulse, 2, 20..100), Some(30));
    }
}
