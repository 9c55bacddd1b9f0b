//! Which nodes get traffic: what probes say, what real requests meet, and what nobody may change.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "health/ejection.rs"]
mod ejection;
#[path = "health/lag.rs"]
mod lag;
#[path = "health/log.rs"]
mod log;
#[path = "health/probes.rs"]
mod probes;
#[path = "health/rescue.rs"]
mod rescue;
#[path = "health/shortage.rs"]
mod shortage;
#[path = "health/silence.rs"]
mod silence;
#[path = "health/slow_start.rs"]
mod slow_start;
#[path = "health/strangers.rs"]
mod strangers;
#[path = "health/watch.rs"]
mod watch;

/// Probes that soon tell, and no ejections beside them. `{name}` is the upstream's.
const QUICK: &str = "balance = \"round_robin\"\n\
    [upstream.{name}.health_check]\ninterval = \"100ms\"\ntimeout = \"20s\"\n\
    [upstream.{name}.outlier_detection]\nenabled = false\n";
/// Nobody is parked: what cannot be served is told so at once.
const AT_ONCE: &str = "park = \"0s\"\n";
