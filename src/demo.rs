//! `cobalance demo`: see failover on any machine, with nothing else installed.
//!
//! Three stand-ins for NocoBase nodes are killed, stopped and put to work in turn, while a small load
//! runs through a real balancer in the same process. What happens is told as it happens.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::config::{self, Config, Source};
use crate::control::{ConfigSource, Handle};
use crate::server::{self, Running};

mod load;
pub mod node;
mod script;
mod tell;
mod tunnel;
mod watch;
mod ws;

pub use tell::Summary;

use self::node::{Journal, StandIn};
use self::tell::Teller;

/// Where the demo is, unless that is taken.
pub const LISTEN: SocketAddr = local(8080);
/// Where its admin listener is, unless that is taken.
pub const ADMIN: SocketAddr = local(9901);
/// Exchanges that are under way at the end get so long.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What the demo is asked for.
pub struct Options {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    /// Port 0: any free one.
    pub admin: SocketAddr,
    /// Ends by itself after so long; none: when interrupted.
    pub lasting: Option<Duration>,
}

/// Runs the demo, telling each line to `print`; ends after the time asked for, or when interrupted.
///
/// # Errors
/// If stand-ins or balancer do not start.
pub fn run(options: &Options, print: impl FnMut(&str) + 'static) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let teller = Teller::new(print);
    runtime.block_on(play(options, &teller))?;
    Ok(teller.summary())
}

async fn play(options: &Options, teller: &Teller) -> Result<()> {
    let journal = Journal::default();
    let nodes = ["node1", "node2", "node3"].map(|name| StandIn::new(name, &journal));
    let nodes: Vec<StandIn> = nodes.into_iter().collect::<Result<_, _>>()?;
    let listen = free(options.listen, teller);
    let admin = free(options.admin, teller);
    let balancer = server::start(configuration(listen, admin, &nodes)?, ConfigSource::Flags)
        .context("the balancer does not start")?;
    let address = introduce(&balancer, &nodes, teller)?;
    let handle = balancer.handle().clone();
    teller.count_retries_of(handle.metrics().clone());
    let ended = tokio::select! {
        ended = everything(&handle, address, &nodes, &journal, teller) => ended,
        () = end(options.lasting) => Ok(()),
    };
    // A second is enough for what is under way, and nobody waits longer for the end of a demo.
    let _ = tokio::time::timeout(STOP_WITHIN, handle.finish(Duration::ZERO)).await;
    balancer.shutdown();
    ended
}

/// All that goes on at once. Ends only with an error.
async fn everything(
    handle: &Handle,
    address: SocketAddr,
    nodes: &[StandIn],
    journal: &Journal,
    teller: &Teller,
) -> Result<()> {
    let played = async {
        script::start_all(nodes, teller).await;
        script::wait_for_first(handle).await;
        tokio::join!(
            load::run(address, journal, teller),
            tunnel::keep(1, address, teller),
            tunnel::keep(2, address, teller),
            script::play(nodes, handle, teller),
        );
    };
    tokio::select! {
        () = played => Err(anyhow!("the demo ended by itself")),
        () = watch::watch(handle, teller) => Err(anyhow!("the balancer ended by itself")),
    }
}

async fn end(lasting: Option<Duration>) {
    let lasting = async {
        match lasting {
            Some(lasting) => tokio::time::sleep(lasting).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = lasting => {}
        // Without a handler for it an interrupt ends the process: also an end.
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// The address, or any free port beside it if it is taken.
fn free(wanted: SocketAddr, teller: &Teller) -> SocketAddr {
    match TcpListener::bind(wanted) {
        Ok(_) => wanted,
        Err(error) => {
            teller.say(&format!("{wanted} cannot be used ({error}): taking any free port instead"));
            SocketAddr::new(wanted.ip(), 0)
        }
    }
}

/// What an operator would have written for these nodes, short of the log, which would hide the story.
fn configuration(listen: SocketAddr, admin: SocketAddr, nodes: &[StandIn]) -> Result<Config> {
    let mut text = format!(
        "[[listener]]\nname = \"demo\"\nbind = \"{listen}\"\n\n[upstream.nocobase]\nnodes = [\n"
    );
    for node in nodes {
        let (name, address) = (node.name(), node.address());
        writeln!(text, "  {{ name = \"{name}\", address = \"{address}\" }},")?;
    }
    write!(text, "]\n\n[admin]\nbind = \"{admin}\"\n\n[access_log]\nenabled = false\n")?;
    let source = Source { name: "the demo's configuration".into(), text };
    let loaded = config::load(&source, &|_| None);
    let (config, _) = loaded.map_err(|found| anyhow!(config::render(&found, &source, false)))?;
    Ok(config)
}

fn introduce(balancer: &Running, nodes: &[StandIn], teller: &Teller) -> Result<SocketAddr> {
    let addresses = balancer.addresses();
    let (_, address) = addresses.first().context("there is no listener")?;
    let nodes: Vec<String> =
        nodes.iter().map(|node| format!("{} {}", node.name(), node.address())).collect();
    teller.say("three stand-ins for NocoBase nodes, and cobalance in front of them");
    teller.say(&format!("  open       http://{address}/ (the page tells which node serves it)"));
    if let Some(admin) = balancer.admin_address() {
        teller.say(&format!("  or try     cobalance status --admin {admin}"));
    }
    teller.say(&format!("  nodes      {}", nodes.join(", ")));
    teller.say("  load       20 requests/s, half of them POST, and two WebSockets; Ctrl-C ends it");
    teller.say("");
    teller.header();
    address.tcp().context("it listens on no port")
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests;
