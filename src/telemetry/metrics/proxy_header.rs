//! What is counted of PROXY headers.

use prometheus::{IntCounter, IntCounterVec};

use super::Metrics;
use super::families::Register;

/// What came of the PROXY header of a connection that must have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// It says who the client is.
    Client,
    /// The proxy speaks for itself, or does not know.
    Local,
    /// The proxy has left before it was whole, as a check of a port does.
    Closed,
    /// Not whole by the deadline of the first head.
    Timeout,
    /// Something else came.
    Missing,
    /// It breaks its rules.
    Malformed,
    /// Its checksum is wrong.
    Checksum,
    /// It is longer than any honest one.
    TooLarge,
}

/// Labels of [`ProxyHeader`], in the order of its discriminants.
const RESULTS: [&str; 8] =
    ["client", "local", "closed", "timeout", "missing", "malformed", "checksum", "too_large"];

pub(super) struct ProxyFamilies {
    headers: IntCounterVec,
}

impl ProxyFamilies {
    pub(super) fn new(r: &Register<'_>) -> ProxyFamilies {
        ProxyFamilies {
            headers: r.counters(
                "proxy_headers_total",
                "Connections that must begin with a PROXY header, by what came of it.",
                &["listener", "result"],
            ),
        }
    }
}

/// Handles of a listener some of whose peers must send a PROXY header.
pub struct ProxyMetrics([IntCounter; RESULTS.len()]);

impl ProxyMetrics {
    /// Counts one connection.
    pub fn count(&self, result: ProxyHeader) {
        self.0[result as usize].inc();
    }
}

impl Metrics {
    /// Handles of a listener some of whose peers must send a PROXY header.
    pub fn proxy_headers(&self, listener: &str) -> ProxyMetrics {
        let headers = &self.proxy.headers;
        ProxyMetrics(RESULTS.map(|result| headers.with_label_values(&[listener, result])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_their_discriminants() {
        let metrics = Metrics::new();
        metrics.proxy_headers("public").count(ProxyHeader::TooLarge);
        let count = |result| metrics.proxy.headers.with_label_values(&["public", result]).get();
        assert_eq!((count("too_large"), count("client")), (1, 0));
    }
}
