//! The one clock of the data path: nanoseconds since the process began.
//!
//! A `u64` fits an atomic, which an `Instant` does not. Zero is never returned, so it can mean "never".

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// The time of the first call: an hour, so that what began before the process did (in the one whose place
/// it took) has a time as well, and subtractions stay positive.
const FIRST_NS: u64 = 3_600_000_000_000;

/// Nanoseconds since the first call, plus an hour.
pub fn now_ns() -> u64 {
    let start = START.get_or_init(Instant::now);
    nanos(start.elapsed()) + FIRST_NS
}

/// A duration in nanoseconds; 584 years at most.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
