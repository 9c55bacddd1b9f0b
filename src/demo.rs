//! `cobalance demo`: see failover on any machine, with nothing else installed.

pub mod node;
mod ws;
