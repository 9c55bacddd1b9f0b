//! Who is ejected, handed from one process to the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ejector, FailureKind, Record};
use crate::health::OutlierState;

/// What an [`Ejector`] remembers of one node. Times are relative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOutlier {
    /// Whether it is out.
    pub state: OutlierState,
    /// Why it last was.
    pub kind: FailureKind,
    count: u32,
    /// Until the ejection ends; else since when the state holds.
    distance: Duration,
}

impl Ejector {
    /// What another process needs to know of a node; none if there is nothing.
    #[must_use]
    pub fn keep(&self, node: &str, now: Duration) -> Option<KeptOutlier> {
        let record = self.nodes.get(node)?;
        let distance = match record.state {
            OutlierState::Ejected => record.at.saturating_sub(now),
            OutlierState::Probation | OutlierState::In => now.saturating_sub(record.at),
        };
        Some(KeptOutlier { state: record.state, kind: record.kind, count: record.count, distance })
    }

    /// Goes on from what another process knew of a node.
    pub fn resume(&mut self, node: &str, kept: &KeptOutlier, now: Duration) {
        let at = match kept.state {
            OutlierState::Ejected => now + kept.distance,
            OutlierState::Probation | OutlierState::In => now.saturating_sub(kept.distance),
        };
        let record = Record { state: kept.state, kind: kept.kind, count: kept.count, at };
        self.nodes.insert(node.to_owned(), record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::outlier::{Decision, Tier};

    const TIER: Tier = Tier { eligible: 3, configured: 3, ejected: 0 };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ejector() -> Ejector {
        Ejector::new(true, at(10), 0.5)
    }

    #[test]
    fn an_ejection_ends_when_it_would_have_and_is_remembered() {
        let mut before = ejector();
        before.consider("a", FailureKind::Reset, &TIER, at(100), 0.0);
        let mut after = ejector();
        let text = serde_json::to_string(&before.keep("a", at(104)).unwrap()).unwrap();
        after.resume("a", &serde_json::from_str(&text).unwrap(), at(3_600));
        assert_eq!(after.state("a"), OutlierState::Ejected);
        assert_eq!(after.tick("a", at(3_605)), None);
        assert_eq!(after.tick("a", at(3_606)), Some(OutlierState::Probation));
        // On probation it is handed over once more, and fails: out for twice as long.
        let mut third = ejector();
        third.resume("a", &after.keep("a", at(3_607)).unwrap(), at(50));
        third.probation_result("a", Err(FailureKind::Reset), at(51), 0.0);
        assert_eq!(third.ejection("a"), Some((FailureKind::Reset, at(71))));
        assert_eq!(third.keep("b", at(51)), None);
    }

    #[test]
    fn what_is_forgiven_counts_on() {
        let mut before = ejector();
        before.consider("a", FailureKind::Connect, &TIER, at(100), 0.0);
        before.good_probe("a", at(101));
        let mut after = ejector();
        after.resume("a", &before.keep("a", at(111)).unwrap(), at(3_600));
        let again = after.consider("a", FailureKind::Connect, &TIER, at(3_610), 0.0);
        assert_eq!(again, Decision::Eject { until: at(3_630), count: 2 });
    }
}
