//! What is counted of HTTP/2 towards clients.

use prometheus::{IntCounter, IntCounterVec};

use super::Metrics;
use super::families::Register;
use crate::http2::watch::Flood;

pub(super) struct Http2Families {
    floods: IntCounterVec,
}

impl Http2Families {
    pub(super) fn new(r: &Register<'_>) -> Http2Families {
        Http2Families {
            floods: r.counters(
                "http2_floods_total",
                "Connections that were ended because their client sent too much of something.",
                &["listener", "kind"],
            ),
        }
    }
}

/// Handles of a listener: connections that were ended, by [`Flood`].
pub(super) type Floods = [IntCounter; Flood::ALL.len()];

impl Metrics {
    pub(super) fn floods(&self, listener: &str) -> Floods {
        Flood::ALL.map(|kind| self.http2.floods.with_label_values(&[listener, kind.as_str()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_their_discriminants() {
        let metrics = Metrics::new();
        let listener = metrics.listener("public");
        Flood::ALL.iter().for_each(|kind| listener.http2_floods[*kind as usize].inc());
        for kind in Flood::ALL {
            assert_eq!(metrics.http2.floods.with_label_values(&["public", kind.as_str()]).get(), 1);
        }
    }
}
