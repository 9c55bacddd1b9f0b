//! Addresses of different tables against each other.

use std::collections::HashMap;

use super::Placed;
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Cx, Span};
use crate::config::{Admin, Listener, Probes, defaults};
use crate::net::Address;

/// Reports an address that the admin listener or the probes share with somebody else.
pub(super) fn check(
    cx: &Cx<'_>,
    listeners: &[Placed<Listener>],
    admin: &Placed<Admin>,
    probes: Option<&Placed<Probes>>,
) {
    let mut taken: HashMap<Address, &Span> =
        listeners.iter().map(|l| (l.item.bind.clone(), &l.place)).collect();
    let bind = &admin.item.bind;
    if admin.item.enabled && !bind.is_any_port() {
        match taken.get(bind) {
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
            Some(first) => twice(cx, "`[admin]`", bind, (&admin.place, first)),
            None => {
                taken.insert(bind.clone(), &admin.place);
            }
        }
    }
    let Some(probes) = probes else { return };
    let bind = Address::Tcp(probes.item.bind);
    if let Some(first) = taken.get(&bind).filter(|_| !bind.is_any_port()) {
        let first = if first.is_empty() { &probes.place } else { first };
        twice(cx, "`[probes]`", &bind, (&probes.place, first));
    }
}

fn twice(cx: &Cx<'_>, who: &str, bind: &Address, (place, first): (&Span, &Span)) {
    let message = format!("the address of {who} is taken");
    let mut diagnostic = Diagnostic::error("duplicate-address", place.clone(), message)
        .label("taken")
        .help(if bind.unix().is_some() { "write another path" } else { "write another port" });
    if first != place {
        diagnostic = diagnostic.related(first.clone(), "first here");
    }
    cx.report(diagnostic);
}
