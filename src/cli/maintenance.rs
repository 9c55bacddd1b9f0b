//! `cobalance maintenance on` and `off`.

use serde_json::json;

use super::find::{self, Where};
use super::{Failure, good, print};
use crate::control::maintenance::Changed;
use crate::control::status::MaintenanceStatus;
use crate::units;
use crate::upstream::maintenance::{COOKIE_LIFE, LINK_LIFE};

/// Tell users that the system is under maintenance, and keep them from the nodes
///
/// Browsers get a page, NocoBase's client its own overlay, which goes away by itself when maintenance is
/// over. It holds over reloads; over a restart of cobalance if there is a `state_file`.
#[derive(Debug, clap::Args)]
pub(super) struct Maintenance {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    On(On),
    Off(Off),
}

/// Begin, or change what holds
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("let_through").args(["allow", "cookie"]).multiple(true))]
struct On {
    #[command(flatten)]
    at: Where,
    /// Only this upstream [default: all]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Clients that reach the nodes all the same: an address or a network; may be repeated
    #[arg(long, value_name = "IP-OR-CIDR")]
    allow: Vec<String>,
    /// Print a link that lets through the browser that opens it, wherever it is
    #[arg(long)]
    cookie: bool,
    /// The only node that these reach, to see whether it works
    #[arg(long, value_name = "NODE", requires = "let_through")]
    node: Option<String>,
    /// What everybody else is told
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

/// Let everybody in again, a few at a time
#[derive(Debug, clap::Args)]
struct Off {
    #[command(flatten)]
    at: Where,
    /// Only this upstream [default: all]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
}

/// Switches it.
pub(super) fn maintenance(asked: &Maintenance) -> Result<(), Failure> {
    match &asked.verb {
        Verb::On(on) => {
            let body = json!({
                "on": true, "upstream": on.upstream, "allow": on.allow, "node": on.node,
                "message": on.message, "cookie": on.cookie,
            });
            let changed = change(&on.at, &body)?;
            if !changed.survives_restart {
                eprintln!("note: it is in no `state_file`: a restart of cobalance ends it");
            }
            for upstream in &changed.upstreams {
                let terms = upstream.maintenance.as_ref().map(terms).unwrap_or_default();
                print(&format!("{} is under maintenance; {terms}", upstream.name));
            }
            print_links(&changed);
        }
        Verb::Off(off) => {
            let body = json!({ "on": false, "upstream": off.upstream });
            for upstream in change(&off.at, &body)?.upstreams {
                print(&match upstream.was_on {
                    true => format!("maintenance of {} is over", upstream.name),
                    false => format!("{} was not under maintenance", upstream.name),
                });
            }
        }
    }
    Ok(())
}

/// Who is let through, and where to.
pub(super) fn terms(maintenance: &MaintenanceStatus) -> String {
    let mut who = maintenance.allow.clone();
    if maintenance.cookie {
        who.push("browsers with the cookie".into());
    }
    if who.is_empty() {
        return "nobody is let through".into();
    }
    let to = maintenance.node.as_ref().map_or_else(String::new, |node| format!(" to {node}"));
    format!("let through{to}: {}", who.join(", "))
}

/// One link for all upstreams that are at the same path: their cookie is the same.
fn print_links(changed: &Changed) {
    let mut links: Vec<&str> =
        changed.upstreams.iter().filter_map(|one| one.link.as_deref()).collect();
    links.sort_unstable();
    links.dedup();
    if links.is_empty() {
        return;
    }
    let (link, cookie) = (units::format_duration(LINK_LIFE), units::format_duration(COOKIE_LIFE));
    print(&format!(
        "to be let through, open your site with this behind its address, as https://crm.example.com/?…,\n\
         within {link}; that lets the browser through for {cookie}, or until maintenance is over:\n{}",
        links.join("\n")
    ));
}

fn change(at: &Where, body: &serde_json::Value) -> Result<Changed, Failure> {
    let answer = good(find::admin(at)?.post("/api/v1/maintenance", &body.to_string())?)?;
    serde_json::from_str(&answer.body)
        .map_err(|error| anyhow::anyhow!("the answer is of another version: {error}").into())
}
