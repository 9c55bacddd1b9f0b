//! The one clock of the data path: nanoseconds since the process began.
//!
//! A `u64` fits an atomic, which an `Instant` does not. Zero is never returned, so it can mean "never".

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the first call, plus one second, so that small subtractions stay positive.
pub fn now_ns() -> u64 {
    let start = START.get_or_init(Instant::now);
    nanos(start.elapsed()) + 1_000_000_000
}

/// A duration in nanoseconds; 584 years at most.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
