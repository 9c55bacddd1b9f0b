//! `cobalance drain` and `cobalance ready`: a node taken out of work, and put back.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::find::{self, Where};
use super::{Failure, good, print};
use crate::admin::segment;
use crate::control::operator::{Ordered, OrderedNode};
use crate::control::status::{NodeStatus, Status};
use crate::units;

/// The node is not empty in time (`EX_TEMPFAIL` of sysexits.h): trying again may help.
const EXIT_NOT_EMPTY: u8 = 75;
/// Often enough that a script loses no time, rare enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Who watches wants to see that it goes on.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Take a node out of work: nothing new goes there, what runs is finished, its tunnels move to other nodes
///
/// It stays out until `cobalance ready`, over reloads and restarts of the node; over a restart of cobalance
/// if there is a `state_file`. In a script: drain --wait, restart the node, ready. Exit code 75: --wait
/// ended by its --timeout, and the node is not empty.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    #[command(flatten)]
    asked: Asked,
    /// Also if no other node of the upstream serves
    #[arg(long)]
    force: bool,
}

/// Which node, and how those are emptied that lose their work.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// The node's name as `status` shows it, or its address
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    at: Where,
    /// Its upstream, if several have nodes of that name
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Return when nothing is left at what was taken out of work, and after an upgrade the old process has ended
    #[arg(long)]
    wait: bool,
    /// Wait no longer
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "wait",
        value_parser = units::parse_duration)]
    timeout: Duration,
    /// Move tunnels off it within this time [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    window: Option<Duration>,
}

/// Let a drained node serve again, as soon as its health check is good
#[derive(Debug, clap::Args)]
pub(super) struct Ready {
    /// The node's name as `status` shows it, or its address
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    at: Where,
    /// Its upstream, if several have nodes of that name
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
}

/// Drains, and waits if that is asked for.
pub(super) fn drain(Drain { asked, force }: &Drain) -> Result<(), Failure> {
    asked.carry_out("drain", *force, |ordered| {
        if !ordered.survives_restart {
            eprintln!(
                "note: it is in no `state_file`: a restart of cobalance makes the node ready"
            );
        }
        for one in &ordered.nodes {
            print(&format!("{} is {}: {}", one.name, one.state, left_here(one, &ordered)));
        }
        ordered.nodes
    })
}

impl Asked {
    /// Gives the order; `told` tells what came of it, and whose end is to be waited for.
    pub(super) fn carry_out(
        &self,
        verb: &str,
        force: bool,
        told: impl FnOnce(Ordered) -> Vec<OrderedNode>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let client = find::admin(&self.at)?;
        let mut body = json!({ "upstream": self.upstream, "force": force });
        if let Some(window) = self.window {
            body["window"] = format!("{}ms", window.as_millis()).into();
        }
        let nodes = told(order(&client, &self.node, verb, &body)?);
        if self.wait { wait(&client, &nodes, begun, self.timeout) } else { Ok(()) }
    }
}

/// Makes ready.
pub(super) fn ready(asked: &Ready) -> Result<(), Failure> {
    let client = find::admin(&asked.at)?;
    let body = json!({ "upstream": asked.upstream });
    let ordered = order(&client, &asked.node, "ready", &body)?;
    for node in &ordered.nodes {
        if node.state == "disabled" {
            let why = "stays disabled: remove `disabled = true` from the configuration";
            return Err(anyhow::anyhow!("{} {why}", node.name).into());
        }
        if node.operator == "aside" {
            let when = "serves after `cobalance unpin`: another node is pinned";
            print(&format!("{} is drained no more, and {when}", node.name));
            continue;
        }
        print(&format!("{} is ready, and {}", node.name, node.state));
    }
    for name in &ordered.forgotten {
        print(&format!("{name} is drained no more; no node is called so now"));
    }
    Ok(())
}

fn order(
    client: &Client,
    node: &str,
    verb: &str,
    body: &serde_json::Value,
) -> Result<Ordered, Failure> {
    let path = format!("/api/v1/nodes/{}/{verb}", segment::encode(node));
    let answer = good(client.post(&path, &body.to_string())?)?;
    serde_json::from_str(&answer.body)
        .map_err(|error| anyhow::anyhow!("the answer is of another version: {error}").into())
}

fn wait(
    client: &Client,
    nodes: &[OrderedNode],
    begun: Instant,
    timeout: Duration,
) -> Result<(), Failure> {
    let mut told = Instant::now();
    loop {
        let status = super::status::ask(client)?;
        let mut open = still_open(&status, nodes)?;
        open.extend(status.predecessors.iter().map(may_use));
        if open.is_empty() {
            print("nothing is left");
            return Ok(());
        }
        if begun.elapsed() >= timeout {
            let message = format!("not empty in time, and still drained: {}", open.join("; "));
            return Err(Failure { code: EXIT_NOT_EMPTY, message });
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            print(&open.join("; "));
        }
        std::thread::sleep(LOOK_EVERY.min(timeout.saturating_sub(begun.elapsed())));
    }
}

/// What is left at each node that is not empty.
///
/// # Errors
/// Somebody made one ready, or removed it: it would never be empty, or nobody could say.
fn still_open(status: &Status, nodes: &[OrderedNode]) -> Result<Vec<String>, Failure> {
    let mut open = Vec::new();
    for node in nodes {
        let known = find_node(status, node);
        let Some(known) = known else {
            return Err(anyhow::anyhow!("{} is not configured any more", node.name).into());
        };
        if known.operator == "ready" {
            return Err(anyhow::anyhow!("{} was made ready meanwhile", node.name).into());
        }
        if known.in_flight + known.tunnels > 0 {
            open.push(format!("{}: {}", node.name, left(known.in_flight, known.tunnels)));
        }
    }
    Ok(open)
}

fn find_node<'a>(status: &'a Status, node: &OrderedNode) -> Option<&'a NodeStatus> {
    let upstream = status.upstreams.iter().find(|upstream| upstream.name == node.upstream)?;
    upstream.nodes.iter().find(|known| known.name == node.name)
}

/// What a node that is out of work still has, as far as the process that was asked knows.
pub(super) fn left_here(node: &OrderedNode, ordered: &Ordered) -> String {
    let here = left(node.in_flight, node.tunnels);
    match ordered.predecessors.as_slice() {
        [] => here,
        old => {
            let old: Vec<String> = old.iter().map(may_use).collect();
            format!("{here} in this process; {}", old.join("; "))
        }
    }
}

/// What an old process has there is counted by itself alone, and nobody can tell it to leave a node.
fn may_use(pid: &u32) -> String {
    format!("process {pid}, which was upgraded, may still use it")
}

/// What a node that is out of work still has.
pub(super) fn left(in_flight: u32, tunnels: u32) -> String {
    let count = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match in_flight + tunnels {
        0 => "nothing left".into(),
        _ => {
            format!("{} in flight, {} left", count(in_flight, "request"), count(tunnels, "tunnel"))
        }
    }
}
