//! Compares the nodes' shares of failures, once a second, and ejects who is unlike the others.

use std::time::Duration;

use super::roster::{Roster, Watched, now};
use crate::health::outlier::{FailureKind, ratio};
use crate::snapshot::{Snapshot, Upstream};
use crate::upstream::NodeKey;

/// Often enough beside a window of ten seconds.
const EVERY: Duration = Duration::from_secs(1);

/// A node with enough requests to tell.
struct Compared {
    key: NodeKey,
    counts: ratio::Counts,
    ratio: f64,
}

impl Roster {
    /// Looks at what requests have met since the last look, and acts on it.
    pub(super) fn compare(&mut self, snapshot: &Snapshot) {
        let now = now();
        if now < self.compared + EVERY {
            return;
        }
        self.compared = now;
        self.nodes.values_mut().for_each(|watched| watched.look_at_conduct(now));
        for upstream in &snapshot.upstreams {
            let settings = &upstream.settings.outlier_detection;
            if settings.enabled && settings.error_ratio > 0.0 {
                [false, true].into_iter().for_each(|backup| self.eject_unlike(upstream, backup));
            }
        }
    }

    fn eject_unlike(&mut self, upstream: &Upstream, backup: bool) {
        let limit = upstream.settings.outlier_detection.error_ratio;
        let compared = self.compared(upstream, backup);
        for (index, own) in compared.iter().enumerate().filter(|(_, own)| own.ratio >= limit) {
            let others = compared.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<f64> = others.map(|(_, other)| other.ratio).collect();
            let median = ratio::median(&others).unwrap_or_default() * 100.0;
            let what = format!(
                "{:.0} % of {} requests failed, of the others' in the median {median:.0} %",
                own.ratio * 100.0,
                own.counts.requests
            );
            match ratio::is_unlike(own.ratio, &others, limit) {
                true => self.eject_if_allowed(&own.key, FailureKind::ErrorRatio, &what),
                false => {
                    let (upstream, node) = (&own.key.upstream, &own.key.name);
                    tracing::debug!(target: "cobalance::health", upstream, node, what,
                        "a failing node is like the others");
                }
            }
        }
    }

    /// Whether the others of its tier fail as large a share of their requests. Where one of several apps is
    /// broken, by its process or its database, every node says so, now and then five times in a row.
    pub(super) fn is_like_the_others(&mut self, key: &NodeKey) -> bool {
        let now = now();
        let Some(backup) = self.nodes.get(key).map(|watched| watched.backup) else { return false };
        let of_tier = |other: &&mut Watched| other.is_of_tier(&key.upstream, backup);
        self.nodes.values_mut().filter(of_tier).for_each(|watched| watched.look_at_conduct(now));
        let share = |watched: &Watched| {
            let counts = watched.conduct.counts();
            (counts.requests > 0).then(|| f64::from(counts.failures) / f64::from(counts.requests))
        };
        let others = self.tier(&key.upstream, backup).filter(|other| other.node.key != *key);
        let others: Vec<f64> = others.filter_map(share).collect();
        self.nodes.get(key).and_then(share).is_some_and(|own| ratio::is_like(own, &others))
    }

    /// Who can be compared, the worst first: not everybody may be ejected.
    fn compared(&self, upstream: &Upstream, backup: bool) -> Vec<Compared> {
        let compared = |watched: &Watched| {
            let counts = watched.conduct.counts();
            let (key, ratio) = (watched.node.key.clone(), counts.ratio()?);
            Some(Compared { key, counts, ratio })
        };
        let mut all: Vec<_> =
            self.tier(&upstream.settings.name, backup).filter_map(compared).collect();
        all.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
        all
    }
}

impl Watched {
    /// Only what it does while it is in counts: what got it ejected must not do so again.
    pub(super) fn look_at_conduct(&mut self, now: Duration) {
        match self.shown.is_eligible() {
            true => self.conduct.look(self.node.conduct(), now),
            false => self.conduct.forget(),
        }
    }
}
