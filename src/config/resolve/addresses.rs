//! Addresses of different tables against each other.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Placed;
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Cx, Span};
use crate::config::{Admin, Listener, Probes, defaults};

/// Reports an address that the admin listener or the probes share with somebody else.
pub(super) fn check(
    cx: &Cx<'_>,
    listeners: &[Placed<Listener>],
    admin: &Placed<Admin>,
    probes: Option<&Placed<Probes>>,
) {
    let mut taken: HashMap<SocketAddr, &Span> =
        listeners.iter().filter_map(|l| Some((l.item.bind.tcp()?, &l.place))).collect();
    let admin_bind = admin.item.bind.tcp().filter(|_| admin.item.enabled);
    if let Some(bind) = admin_bind.filter(|bind| bind.port() != 0) {
        match taken.get(&bind) {
            // An empty place is an address that is not written.
            Some(first) if admin.place.is_empty() => {
                let message =
                    format!("{} is the default address of `[admin]`", defaults::ADMIN_BIND);
                cx.report(
                    Diagnostic::error("duplicate-address", (*first).clone(), message)
                        .label("taken by the admin listener")
                        .help("write another port, or another `bind` in `[admin]`"),
                );
            }
            Some(first) => twice(cx, "`[admin]`", &admin.place, first),
            None => {
                taken.insert(bind, &admin.place);
            }
        }
    }
    if let Some(probes) = probes.filter(|probes| probes.item.bind.port() != 0)
        && let Some(first) = taken.get(&probes.item.bind)
    {
        let first = if first.is_empty() { &probes.place } else { first };
        twice(cx, "`[probes]`", &probes.place, first);
    }
}

fn twice(cx: &Cx<'_>, who: &str, place: &Span, first: &Span) {
    let message = format!("the address of {who} is taken");
    let mut diagnostic = Diagnostic::error("duplicate-address", place.clone(), message)
        .label("taken")
        .help("write another port");
    if first != place {
        diagnostic = diagnostic.related(first.clone(), "first here");
    }
    cx.report(diagnostic);
}
