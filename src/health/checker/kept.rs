//! What is known of a node's health, handed from one process to the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Checker;
use crate::health::{HealthState, Verdict};

/// The state of a [`Checker`] without its thresholds, which the configuration has. Times are ages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptHealth {
    /// The node's health.
    pub state: HealthState,
    since: Duration,
    good: u32,
    bad: u32,
    hard: u32,
    last: Option<Verdict>,
    last_bad: Option<Verdict>,
    /// An earlier version does not say.
    #[serde(default)]
    softly: bool,
    /// How much longer it is believed that the node is about to end.
    ending: Option<Duration>,
    said_ending: bool,
}

impl Checker {
    /// What another process needs to go on from here.
    #[must_use]
    pub fn keep(&self, now: Duration) -> KeptHealth {
        KeptHealth {
            state: self.state,
            since: now.saturating_sub(self.since),
            good: self.good,
            bad: self.bad,
            hard: self.hard,
            last: self.last.clone(),
            last_bad: self.last_bad.clone(),
            softly: self.softly,
            ending: self.ending.map(|until| until.saturating_sub(now)),
            said_ending: self.said_ending,
        }
    }

    /// Goes on from what another process knew.
    pub fn resume(&mut self, kept: KeptHealth, now: Duration) {
        let KeptHealth {
            state,
            since,
            good,
            bad,
            hard,
            last,
            last_bad,
            softly,
            ending,
            said_ending,
        } = kept;
        (self.state, self.since) = (state, now.saturating_sub(since));
        (self.good, self.bad, self.hard) = (good, bad, hard);
        (self.last, self.last_bad, self.softly) = (last, last_bad, softly);
        (self.ending, self.said_ending) = (ending.map(|left| now + left), said_ending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Circumstances;

    const CALM: Circumstances = Circumstances {
        answered_traffic_recently: false,
        last_eligible: false,
        may_take_out: true,
    };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn refused() -> Verdict {
        Verdict::Refused { detail: "connection refused".into() }
    }

    fn checker(now: Duration) -> Checker {
        Checker::new(2, 3, at(2), now)
    }

    #[test]
    fn the_next_verdict_finds_the_same_checker() {
        let stories: [&[Verdict]; 5] = [
            &[],
            &[Verdict::Good],
            &[Verdict::Good, refused(), refused()],
            &[refused(), refused(), refused(), Verdict::Good],
            &[Verdict::Timeout, refused(), Verdict::Timeout, Verdict::Good],
        ];
        for story in stories {
            let mut before = checker(at(100));
            for verdict in story {
                before.record(verdict.clone(), &CALM, at(110));
            }
            let text = serde_json::to_string(&before.keep(at(120))).unwrap();
            let mut after = checker(at(3_600));
            after.resume(serde_json::from_str(&text).unwrap(), at(3_600));
            assert_eq!(after.state(), before.state());
            assert_eq!(after.is_out_softly(), before.is_out_softly(), "{story:?}");
            assert_eq!(at(3_600) - after.since(), at(120) - before.since(), "{story:?}");
            assert_eq!(after.may_fail_open(at(3_600)), before.may_fail_open(at(120)), "{story:?}");
            for verdict in [refused(), Verdict::Good, Verdict::Good] {
                let changes = [(&mut before, at(121)), (&mut after, at(3_601))]
                    .map(|(checker, now)| checker.record(verdict.clone(), &CALM, now));
                assert_eq!(changes[0], changes[1], "{story:?}, then {verdict}");
            }
        }
    }

    #[test]
    fn a_node_that_said_it_ends_is_still_believed() {
        let mut before = checker(at(100));
        let refusal = crate::nocobase::Refusal {
            code: "APP_STOPPED".into(),
            message: String::new(),
            command: None,
            kind: crate::nocobase::RefusalKind::Maintaining,
        };
        before.told(refusal.clone(), true, at(100));
        let mut after = checker(at(3_600));
        after.resume(before.keep(at(400)), at(3_600));
        assert!(after.is_ending(at(3_600)) && !after.is_ending(at(3_900)), "10 minutes in all");
        assert!(after.has_said_ending());
        assert_eq!(after.refusal(), Some(&refusal));
    }
}
