//! What is counted of certificates that are ordered.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::families::Register;

/// Challenges by their names, in the order of [`AcmeMetrics::answered`].
const CHALLENGES: [&str; 2] = ["http-01", "tls-alpn-01"];

/// Its families. Certificates come from the configuration.
pub struct AcmeMetrics {
    /// `cobalance_acme_orders_total{certificate,result}`
    pub orders: IntCounterVec,
    /// `cobalance_acme_failures{certificate}`
    pub failures: IntGaugeVec,
    /// `cobalance_acme_challenges_answered_total{challenge}`: HTTP-01, then TLS-ALPN-01.
    pub answered: [IntCounter; 2],
}

impl AcmeMetrics {
    pub(super) fn new(r: &Register<'_>) -> AcmeMetrics {
        let answered = r.counters(
            "acme_challenges_answered_total",
            "Authorities that looked whether a name is ours, and were answered.",
            &["challenge"],
        );
        AcmeMetrics {
            orders: r.counters(
                "acme_orders_total",
                "Attempts of this process to obtain a certificate.",
                &["certificate", "result"],
            ),
            failures: r.int_gauges(
                "acme_failures",
                "Attempts in a row that failed, of all replicas.",
                &["certificate"],
            ),
            answered: CHALLENGES.map(|challenge| answered.with_label_values(&[challenge])),
        }
    }
}
