//! What is counted and logged.

pub mod access_log;
pub mod metrics;
pub mod notify;
pub mod process_log;
