//! cobalance: the load balancer that understands NocoBase. ARCHITECTURE.md is the tour; this is the map.
//! A module uses only modules of its own or a lower layer (`tests/tidy.rs` holds them to it).

// layer 0: words everybody uses
pub mod clock;
pub mod disk;
pub mod error;
pub mod net;
pub mod units;

// layer 1: what is counted and logged; the codecs of HTTP/1.1 and HTTP/2; certificates and crypto
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
pub mod telemetry;
pub mod tls;

// layer 2: what the operator wrote, resolved
pub mod config;

// layer 3: pure decisions
pub mod balance;
pub mod headers;
pub mod health;
pub mod limit;
pub mod nocobase;
pub mod probation;
pub mod route;

// layer 4: nodes, pools, connecting; slow uploads
pub mod spool;
pub mod upstream;

// layer 5: the compiled, immutable whole
pub mod snapshot;

// layer 6: one request and its response; tunnels
pub mod exchange;

// layer 7: sockets of clients
pub mod connection;
pub mod listener;

// layer 8: load, swap, probe, discover, drain, show
pub mod admin;
pub mod control;

// layer 9: assembly
pub mod cli;
pub mod demo;
pub mod server;
