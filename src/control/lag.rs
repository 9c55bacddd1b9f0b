//! What follows from the lag of a node's event loop.

use std::time::Duration;

use super::core::Core;
use super::probe::Finding;
use super::roster::{Roster, now};
use super::warnings::{self, Kind};
use crate::balance::ewma;
use crate::clock;
use crate::health::Verdict;
use crate::upstream::NodeKey;

impl Roster {
    /// Takes the lag that a probe shows: for the gauges, and as a floor of the node's latency.
    ///
    /// A probe that timed out shows how late the loop is at least. That is worth telling, but it is no
    /// floor: a node that answers real requests all the while would get none of them any more.
    pub(super) fn take_lag(&mut self, key: &NodeKey, finding: &Finding, median_ns: u64) {
        let Some(watched) = self.nodes.get_mut(key) else { return };
        let (connected, answered) = (finding.trip.connected, finding.trip.answered);
        let Some(lag) = watched.lag.measure(connected, answered, now()) else { return };
        let labels = [key.upstream.as_str(), &watched.node.label];
        // The peak first: no scrape is to see it below the last value.
        let peak = watched.lag.peak().unwrap_or(lag);
        self.metrics.lag_max.with_label_values(&labels).set(peak.as_secs_f64());
        self.metrics.lag.with_label_values(&labels).set(lag.as_secs_f64());
        if finding.verdict != Verdict::Timeout {
            let floor = ewma::clamp_sample(clock::nanos(lag), median_ns);
            watched.node.set_lag(floor, clock::now_ns());
        }
    }

    /// The name and the lag of a node that is up, and late.
    fn late(&self, key: &NodeKey) -> Option<(&str, Duration)> {
        let watched = self.nodes.get(key)?;
        let is_late = watched.shown.is_eligible() && watched.lag.is_late();
        is_late.then_some((watched.node.label.as_str(), watched.lag.last()?))
    }
}

impl Core {
    /// Warns of a node whose event loop is late.
    pub(super) fn warn_of_lag(&mut self, key: &NodeKey) {
        let Some((node, lag)) = self.roster.late(key) else { return };
        let subject = format!("{} {node}", key.upstream);
        let message = warnings::event_loop_lag(&key.upstream, node, lag);
        self.warn(Kind::EventLoopLag, &subject, message);
    }
}
