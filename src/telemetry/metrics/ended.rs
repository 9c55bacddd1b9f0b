//! Reads back what was counted of exchanges, for who judges a configuration by it.

use prometheus::core::Collector;
use prometheus::proto::Metric;

use super::Metrics;

/// Exchanges that ended since the start, over all listeners and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// All.
    pub all: u64,
    /// Those that ended by a cause of ours, by its reason; one reason may come several times.
    pub reasons: Vec<(String, u64)>,
}

impl Metrics {
    /// Sums over all series, which takes microseconds for each hundred: not for the way of a request.
    pub fn ended(&self) -> Ended {
        let clients = &self.clients;
        let count = |metric: &Metric| metric.get_counter().get_value() as u64;
        let reason = |metric: &Metric| {
            let label = metric.get_label().iter().find(|label| label.name() == "reason")?;
            Some((label.value().to_owned(), count(metric)))
        };
        let all = clients.requests.collect();
        let errors = clients.errors.collect();
        Ended {
            all: all.iter().flat_map(|family| family.get_metric()).map(count).sum(),
            reasons: errors.iter().flat_map(|f| f.get_metric()).filter_map(reason).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;
    use crate::telemetry::metrics::{Source, method_index};

    #[test]
    fn what_was_counted_is_read_back() {
        let metrics = Metrics::new();
        assert_eq!(metrics.ended(), Ended::default());
        for (listener, route) in [("a", "all"), ("b", "none")] {
            let handles = metrics.route(listener, route);
            handles.count(method_index(b"GET"), 200, Source::Upstream);
            handles.count(method_index(b"POST"), 404, Source::Proxy);
            handles.error(&Cause::NoRoute);
        }
        let ended = metrics.ended();
        assert_eq!((ended.all, ended.reasons.len()), (4, 2));
        assert!(ended.reasons.iter().all(|one| *one == ("destination_not_found".into(), 1)));
    }
}
