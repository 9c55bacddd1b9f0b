//! What is counted and logged.

pub mod access_log;
pub mod metrics;
