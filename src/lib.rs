//! cobalance: the load balancer that understands NocoBase. ARCHITECTURE.md is the tour; this is the map.
//! A module uses only modules of its own or a lower layer (`tests/tidy.rs` holds them to it).

// layer 2: what the operator wrote, resolved
pub mod config;

// layer 3: pure decisions
pub mod balance;
pub mod limit;
pub mod route;
