//! Quiet restarts: NocoBase's pages are moved away from a node that ends before they learn of it, and those
//! that have learnt of it are told when they come back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "modals/nodes.rs"]
mod nodes;
#[path = "modals/pages.rs"]
mod pages;
#[path = "modals/told.rs"]
mod told;
#[path = "modals/words.rs"]
mod words;
#[path = "modals/work.rs"]
mod work;

use cobalance::telemetry::metrics::DialogOutcome;
use support::{Proxy, config};

use pages::Speaker;

/// NocoBase's message when it has closed its database.
const STOPPED: &str = r#"{"type":"maintaining","payload":{"status":503,"message":"application main is stopped","code":"APP_STOPPED","maintaining":true}}"#;
/// What takes the dialog away.
const CLOSING: &str = r#"{"payload":{"code":"APP_RUNNING","message":""},"type":"maintaining"}"#;

fn proxy(speakers: &[&Speaker], upstream: &str) -> Proxy {
    let addresses: Vec<_> = speakers.iter().map(|speaker| speaker.origin.address).collect();
    Proxy::start(config(&addresses, "", upstream))
}

/// What became of frames that open the dialog at a node.
fn outcomes(proxy: &Proxy, node: usize) -> [u64; 5] {
    proxy.node(node).metrics.ws_dialogs.each_ref().map(|counter| counter.get())
}

/// So often this one, and nothing else.
fn only(outcome: DialogOutcome, times: u64) -> [u64; 5] {
    let mut counts = [0; 5];
    counts[outcome as usize] = times;
    counts
}
