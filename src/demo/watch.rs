//! Tells what the balancer thinks of its nodes, whenever that changes.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::tell::Teller;
use crate::control::Handle;

/// Often enough to tell events in their order.
const EVERY: Duration = Duration::from_millis(50);

/// Watches until the balancer ends.
pub(super) async fn watch(handle: &Handle, teller: &Teller) {
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(status) = handle.status().await else { return };
        for node in status.upstreams.into_iter().flat_map(|upstream| upstream.nodes) {
            let before = seen.insert(node.name.clone(), node.state.clone());
            if before.as_ref().is_some_and(|before| *before != node.state) {
                teller
                    .event(&format!("cobalance: {} is {} ({})", node.name, node.state, node.cause));
            }
        }
    }
}
