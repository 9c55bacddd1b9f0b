//! `cobalance pin` and `cobalance unpin`: one node serves alone for a while.

use serde_json::json;

use super::drain::{Asked, left_here};
use super::find::{self, Where};
use super::{Failure, good, print};
use crate::control::operator::OrderedNode;
use crate::control::pin::{Unpinned, UnpinnedUpstream};

/// Have one node serve alone, for work that NocoBase does at one node: plugins, restored backups
///
/// Everything goes there, and tunnels of the other nodes move there; what runs at the others is finished. They
/// stay out until `cobalance unpin`, over reloads; over a restart of cobalance if there is a `state_file`. If
/// the pinned node fails, nobody takes its place. Exit code 75: --wait ended by its --timeout, and the others
/// are not empty.
#[derive(Debug, clap::Args)]
pub(super) struct Pin {
    #[command(flatten)]
    asked: Asked,
    /// Also if the node is not up
    #[arg(long)]
    force: bool,
}

/// Let all nodes serve again, each as soon as its health check is good
#[derive(Debug, clap::Args)]
pub(super) struct Unpin {
    #[command(flatten)]
    at: Where,
    /// Only this upstream [default: all]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
}

/// Pins, and waits if that is asked for.
pub(super) fn pin(Pin { asked, force }: &Pin) -> Result<(), Failure> {
    asked.carry_out("pin", *force, |ordered| {
        if !ordered.survives_restart {
            eprintln!("note: it is in no `state_file`: a restart of cobalance ends it");
        }
        for OrderedNode { name, upstream, state, .. } in &ordered.nodes {
            let serves = match state.as_str() {
                "up" => "serves alone".to_owned(),
                state => format!("is the only one that may serve, and {state}"),
            };
            print(&format!("{name} is pinned: it {serves} in {upstream}"));
        }
        for one in &ordered.others {
            print(&format!("{} is set aside: {}", one.name, left_here(one, &ordered)));
        }
        ordered.others
    })
}

/// Unpins.
pub(super) fn unpin(asked: &Unpin) -> Result<(), Failure> {
    let body = json!({ "upstream": asked.upstream });
    let answer = good(find::admin(&asked.at)?.post("/api/v1/unpin", &body.to_string())?)?;
    let unpinned: Unpinned = serde_json::from_str(&answer.body)
        .map_err(|error| anyhow::anyhow!("the answer is of another version: {error}"))?;
    for UnpinnedUpstream { name, node, nodes } in &unpinned.upstreams {
        let Some(node) = node else {
            print(&format!("nothing was pinned in {name}"));
            continue;
        };
        let state = |one: &OrderedNode| format!("{} is {}", one.name, one.state);
        let states: Vec<String> = nodes.iter().map(state).collect();
        match states.as_slice() {
            [] => print(&format!("{node} is pinned in {name} no more; neither is configured now")),
            _ => print(&format!("{node} is pinned in {name} no more: {}", states.join(", "))),
        }
    }
    Ok(())
}
