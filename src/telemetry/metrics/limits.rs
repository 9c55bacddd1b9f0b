//! What is counted of limits.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::families::Register;

pub(super) struct LimitFamilies {
    pub(super) limited: IntCounterVec,
    clients: IntGaugeVec,
    evicted: IntCounterVec,
    buffered: IntGauge,
    cut: IntCounterVec,
    list: IntGaugeVec,
}

impl LimitFamilies {
    pub(super) fn new(r: &Register<'_>) -> LimitFamilies {
        let buffered =
            r.int_gauges("buffered_bytes", "Bytes that are held for clients while they wait.", &[]);
        LimitFamilies {
            limited: r.counters(
                "rate_limited_total",
                "Requests that came too early for a rate limit.",
                &["limit"],
            ),
            clients: r.int_gauges(
                "rate_limit_clients",
                "Clients that a rate limit remembers now.",
                &["limit"],
            ),
            evicted: r.counters(
                "rate_limit_evicted_total",
                "Clients that a rate limit had to forget too early.",
                &["limit"],
            ),
            buffered: buffered.with_label_values::<&str>(&[]),
            cut: r.counters(
                "buffered_cut_total",
                "Waits that were cut short because `max_buffered` was reached.",
                &[],
            ),
            list: r.int_gauges("list_networks", "Ranges of addresses in a list's file.", &["file"]),
        }
    }
}

impl Metrics {
    /// What each limit remembers, and has had to forget; whatever is not named is forgotten.
    pub fn rate_limits<'a>(&self, all: impl Iterator<Item = (&'a str, usize, u64)>) {
        let f = &self.limits;
        f.clients.reset();
        f.evicted.reset();
        for (limit, clients, evicted) in all {
            f.clients.with_label_values(&[limit]).add(i64::try_from(clients).unwrap_or(i64::MAX));
            f.evicted.with_label_values(&[limit]).inc_by(evicted);
        }
    }

    /// How large the files of lists are; whatever is not named is forgotten.
    pub fn lists<'a>(&self, all: impl Iterator<Item = (&'a str, usize)>) {
        self.limits.list.reset();
        for (file, ranges) in all {
            let gauge = self.limits.list.with_label_values(&[file]);
            gauge.set(i64::try_from(ranges).unwrap_or(i64::MAX));
        }
    }

    /// What one thread holds for clients now, and held when it told of it last.
    pub fn buffered(&self, bytes: usize, before: usize) {
        if bytes != before {
            self.limits.buffered.add(bytes.cast_signed() as i64 - before.cast_signed() as i64);
        }
    }

    /// What all threads hold, as of their last ticks.
    pub fn buffered_now(&self) -> i64 {
        self.limits.buffered.get()
    }

    /// Counts waits that were cut short.
    pub fn count_cut(&self, waits: usize) {
        self.limits.cut.with_label_values::<&str>(&[]).inc_by(waits as u64);
    }

    /// Waits that were cut short so far.
    pub fn cut(&self) -> u64 {
        self.limits.cut.with_label_values::<&str>(&[]).get()
    }
}
