//! What befalls the nodes, in turn and for ever.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::node::{Pace, Phase, StandIn};
use super::tell::Teller;
use crate::control::Handle;

/// Between mishaps: long enough to read a line.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a node stays away before it starts again: time for everybody to notice.
const AWAY: Duration = Duration::from_secs(3);
/// How long all of them do: with a start and the probes after it less than the load has patience.
const AWAY_ALL: Duration = Duration::from_secs(2);
/// A start, about twenty times faster than NocoBase's.
const START: Pace =
    Pace { refusing: Duration::from_millis(800), commanding: Duration::from_millis(1_200) };
/// A command such as the installation of a plugin.
const COMMAND: Duration = Duration::from_secs(3);
/// How long the story waits for a node to be back: on a busy machine it goes on without.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn start_all(nodes: &[StandIn], teller: &Teller) {
    for node in nodes {
        node.start(START).await;
    }
    teller.event("the nodes start: refused at first, then APP_COMMANDING");
}

/// Waits until the load has somebody to go to.
pub(super) async fn wait_for_first(handle: &Handle) {
    wait(handle, |eligible| eligible > 0).await;
}

pub(super) async fn play(nodes: &[StandIn], handle: &Handle, teller: &Teller) {
    let all = nodes.len();
    for (nth, node) in nodes.iter().cycle().enumerate() {
        wait(handle, |eligible| eligible == all).await;
        sleep(PAUSE).await;
        teller.count(|summary| summary.mishaps += 1);
        match nth % 4 {
            0 => kill(node, teller).await,
            1 => stop(node, teller).await,
            2 => command(node, teller).await,
            _ => kill_all(nodes, handle, teller).await,
        }
    }
}

async fn kill(node: &StandIn, teller: &Teller) {
    teller.event(&format!("*** {} is killed (SIGKILL)", node.name()));
    node.kill().await;
    sleep(AWAY).await;
    start(node, teller).await;
}

async fn stop(node: &StandIn, teller: &Teller) {
    teller.event(&format!("*** {} is stopped (SIGTERM)", node.name()));
    node.terminate().await;
    node.wait_for(|phase| *phase == Phase::Off).await;
    teller.event(&format!("*** {} has ended", node.name()));
    sleep(AWAY).await;
    start(node, teller).await;
}

async fn command(node: &StandIn, teller: &Teller) {
    teller.event(&format!("*** {} runs pm.enable: APP_COMMANDING", node.name()));
    node.command("pm.enable", COMMAND).await;
    node.wait_for(|phase| *phase != Phase::Running).await;
    node.wait_for(|phase| *phase == Phase::Running).await;
    teller.event(&format!("*** {} has done it", node.name()));
}

/// Nobody is left: whoever comes waits for the first that is back.
async fn kill_all(nodes: &[StandIn], handle: &Handle, teller: &Teller) {
    teller.event("*** all nodes are killed at once");
    for node in nodes {
        node.kill().await;
    }
    sleep(AWAY_ALL).await;
    for node in nodes {
        node.start(START).await;
    }
    let upstreams = handle.status().await.map(|status| status.upstreams).unwrap_or_default();
    let parked: usize = upstreams.iter().map(|upstream| upstream.parked).sum();
    teller.event(&format!(
        "*** all nodes start again; cobalance holds {parked} requests and tunnels"
    ));
    for node in nodes {
        node.wait_for(|phase| *phase == Phase::Running).await;
    }
}

async fn start(node: &StandIn, teller: &Teller) {
    node.start(START).await;
    teller.event(&format!("*** {} starts again", node.name()));
    node.wait_for(|phase| *phase == Phase::Running).await;
}

/// Waits until that many nodes are eligible.
async fn wait(handle: &Handle, enough: impl Fn(usize) -> bool) {
    let looked = async {
        loop {
            let Some(status) = handle.status().await else { return };
            if status.upstreams.iter().all(|upstream| enough(upstream.eligible)) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    // Without it the story only goes on earlier.
    let _ = timeout(PATIENCE, looked).await;
}
