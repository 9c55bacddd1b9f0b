//! What is counted of TLS.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounter, IntCounterVec};

use super::Metrics;
use super::families::Register;

/// Labels of versions, in the order of [`TlsMetrics::done`].
const VERSIONS: [&str; 2] = ["1.3", "1.2"];
/// Labels of handshakes that went well: with a certificate, and with a ticket.
const KINDS: [&str; 2] = ["full", "resumed"];

/// Why there was no TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// Not done by the deadline of the first head.
    Timeout,
    /// The peer left in the middle.
    Closed,
    /// What came is no TLS; often plain HTTP.
    NotTls,
    /// No version, suite or group in common.
    Incompatible,
    /// No protocol above TLS in common.
    Alpn,
    /// A client's certificate is missing or not good.
    ClientCertificate,
    /// The client did not like our certificate, or something else that it told.
    Alert,
    /// More than any honest handshake has.
    TooLarge,
    /// It breaks the rules of TLS.
    Protocol,
    /// There is no certificate to show yet.
    NoCertificate,
}

/// Labels of [`HandshakeFailure`], in the order of its discriminants.
const FAILURES: [&str; 10] = [
    "timeout",
    "closed",
    "not_tls",
    "incompatible",
    "alpn",
    "client_certificate",
    "alert",
    "too_large",
    "protocol",
    "no_certificate",
];

pub(super) struct TlsFamilies {
    handshakes: IntCounterVec,
    failures: IntCounterVec,
    expiry: GaugeVec,
    /// The certificates that `expiry` has.
    expiry_told: Mutex<BTreeSet<String>>,
}

impl TlsFamilies {
    pub(super) fn new(r: &Register<'_>) -> TlsFamilies {
        TlsFamilies {
            handshakes: r.counters(
                "tls_handshakes_total",
                "Handshakes of clients.",
                &["listener", "result", "version"],
            ),
            failures: r.counters(
                "tls_handshake_failures_total",
                "Handshakes that came to nothing.",
                &["listener", "reason"],
            ),
            expiry: r.gauges(
                "certificate_expiry_seconds",
                "Time until a certificate, or one of its chain, expires.",
                &["certificate"],
            ),
            expiry_told: Mutex::default(),
        }
    }
}

/// Handles of a TLS listener.
pub struct TlsMetrics {
    done: [[IntCounter; KINDS.len()]; VERSIONS.len()],
    failed: IntCounter,
    failures: [IntCounter; FAILURES.len()],
}

impl TlsMetrics {
    /// Counts a handshake that went well.
    pub fn done(&self, tls_12: bool, resumed: bool) {
        self.done[usize::from(tls_12)][usize::from(resumed)].inc();
    }

    /// Counts one that did not.
    pub fn failed(&self, why: HandshakeFailure) {
        self.failed.inc();
        self.failures[why as usize].inc();
    }
}

impl Metrics {
    /// Handles of a TLS listener.
    pub fn tls(&self, listener: &str) -> TlsMetrics {
        let f = &self.tls;
        TlsMetrics {
            done: VERSIONS.map(|version| {
                KINDS.map(|kind| f.handshakes.with_label_values(&[listener, kind, version]))
            }),
            failed: f.handshakes.with_label_values(&[listener, "failed", "none"]),
            failures: FAILURES.map(|reason| f.failures.with_label_values(&[listener, reason])),
        }
    }

    /// How long certificates are still valid, in seconds; whatever is not named is forgotten.
    pub fn certificates<'a>(&self, all: impl Iterator<Item = (&'a str, f64)>) {
        let expiry = &self.tls.expiry;
        let mut now = BTreeSet::new();
        for (name, seconds) in all {
            expiry.with_label_values(&[name]).set(seconds);
            now.insert(name.to_owned());
        }
        // Not all at once: a scrape in between would take a certificate that stays for one that is gone.
        let mut told = self.tls.expiry_told.lock();
        for gone in told.difference(&now) {
            // An error says that it is gone already.
            let _ = expiry.remove_label_values(&[gone]);
        }
        *told = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_their_discriminants() {
        let metrics = Metrics::new();
        let tls = metrics.tls("public");
        tls.done(true, true);
        tls.failed(HandshakeFailure::Protocol);
        let count = |labels: &[&str]| metrics.tls.handshakes.with_label_values(labels).get();
        assert_eq!(count(&["public", "resumed", "1.2"]), 1);
        assert_eq!(count(&["public", "failed", "none"]), 1);
        assert_eq!(metrics.tls.failures.with_label_values(&["public", "protocol"]).get(), 1);
    }

    #[test]
    fn a_certificate_that_is_gone_is_forgotten() {
        let metrics = Metrics::new();
        metrics.certificates([("a", 1.0), ("b", -2.0)].into_iter());
        metrics.certificates([("b", -3.0)].into_iter());
        let families = metrics.registry.gather();
        let family = families.iter().find(|f| f.name() == "cobalance_certificate_expiry_seconds");
        let series = family.unwrap().get_metric();
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].get_gauge().get_value(), -3.0);
    }
}
