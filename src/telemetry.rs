//! What is counted and logged.

pub mod metrics;
