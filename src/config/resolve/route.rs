//! `[[route]]`

use super::upstream::Upstreams;
use super::{Placed, Twice, items, limits, name, tables, unique};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Span, Table, Text};
use crate::config::{HostMatch, PathMatch, Route, address, keys, suggest};

pub(super) fn all(root: &Table<'_>, upstreams: &Upstreams) -> Vec<Route> {
    let tables = tables(root, &keys::ROUTE, "route");
    let routes: Vec<_> = tables.iter().filter_map(|table| one(table, upstreams)).collect();
    let twice = Twice {
        code: "duplicate-route",
        kind: "routes",
        message: "two routes have the same match",
        help: "write another `host` or `path`, or remove one of them",
    };
    let identity = |route: &Route| Some((route.host.clone(), route.path.clone()));
    unique(root.cx, &routes, |route| &route.name, identity, &twice);
    if root.get("route").is_none() {
        which_upstream(root, upstreams);
    } else if routes.len() == tables.len() {
        unused(root, upstreams, &routes);
    }
    items(routes)
}

fn one(table: &Table<'_>, upstreams: &Upstreams) -> Option<Placed<Route>> {
    let host = table.text("host");
    let path = table.text("path");
    let host_match = host.as_ref().map(read_host);
    let path_match = path.as_ref().map(read_path);
    let upstream = upstream(table, upstreams);
    let access = limits::access(table);
    let place = match (&path, &host) {
        (Some(text), _) | (None, Some(text)) => text.span.clone(),
        (None, None) => table.place.clone(),
    };
    let plain = plain_name(host.as_ref(), path.as_ref());
    let (name, name_span) = name(table).unwrap_or_else(|| (plain, place.clone()));
    // A match that could not be read is not "any".
    let host = host_match.map_or(Some(None), |read| read.map(Some))?;
    let path = path_match.map_or(Some(None), |read| read.map(Some))?;
    let item = Route { name, host, path, upstream: upstream?, access };
    Some(Placed { item, name: name_span, place })
}

/// The text of the match: `crm.example.com/api/*`; `*` is everything.
fn plain_name(host: Option<&Text<'_>>, path: Option<&Text<'_>>) -> String {
    let part = |text: Option<&Text<'_>>| text.map_or(String::new(), |text| text.value.clone());
    let name = part(host) + &part(path);
    if name.is_empty() { "*".to_owned() } else { name }
}

pub(super) fn upstream(table: &Table<'_>, upstreams: &Upstreams) -> Option<usize> {
    let Some(value) = table.get("upstream") else {
        let example = upstreams.names.first().map_or("NAME", |(name, _)| name);
        table.missing("upstream", &format!("write `upstream = \"{example}\"`"));
        return None;
    };
    let text = value.text()?;
    if let Some(at) = upstreams.names.iter().position(|(name, _)| *name == text.value) {
        return Some(at);
    }
    let names = upstreams.names.iter().map(|(name, _)| name.as_str());
    let near = suggest::nearest(&text.value, names.clone()).filter(|_| !text.from_env);
    let help = near.map_or_else(
        || {
            let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
            match names.is_empty() {
                true => "write `[upstream.NAME]` with its `nodes`".to_owned(),
                false => format!("known are {}", names.join(", ")),
            }
        },
        |name| format!("did you mean \"{name}\"?"),
    );
    let message = format!("there is no upstream {}", text.shown());
    table.cx.report_absent(
        Diagnostic::error("unknown-upstream", text.span.clone(), message)
            .label("not the name of an upstream")
            .help(help),
    );
    None
}

fn read_host(text: &Text<'_>) -> Option<HostMatch> {
    let host = text.value.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bracketed.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Some(HostMatch::Exact(host.to_owned()));
    }
    if let Some(suffix) = host.strip_prefix("*.").filter(|name| address::is_host_name(name)) {
        return Some(HostMatch::Suffix(format!(".{suffix}")));
    }
    if address::is_host_name(host) {
        return Some(HostMatch::Exact(host.to_owned()));
    }
    let (label, help) = if host == "*" {
        ("any host needs no match", "remove `host`")
    } else if host.contains("://") {
        ("a URL, not a host", "write only the host, such as \"crm.example.com\"")
    } else if host.contains(':') {
        ("a match has no port", "write only the host, such as \"crm.example.com\"")
    } else {
        ("not a host name", "write \"crm.example.com\", or \"*.example.com\" for all below it")
    };
    let message = format!("`host` cannot be {}", text.shown());
    text.error("bad-host", message, label, help);
    None
}

fn read_path(text: &Text<'_>) -> Option<PathMatch> {
    let path = text.value.as_str();
    let stem = path.strip_suffix("/*").map(|stem| format!("{stem}/"));
    let plain = stem.as_deref().unwrap_or(path);
    if address::is_path(plain) && !plain.contains(['*', '?']) {
        return Some(match stem {
            Some(prefix) => PathMatch::Prefix(prefix),
            None => PathMatch::Exact(path.to_owned()),
        });
    }
    let (label, help) = if !path.starts_with('/') {
        (
            "does not begin with a slash",
            "write \"/api/*\" for all below it, or \"/ws\" for one path",
        )
    } else if path.contains('?') {
        ("a match has no query", "write only the path")
    } else if plain.contains('*') {
        ("the star stands only at the end, after a slash", "write \"/api/*\" for all below it")
    } else {
        ("has a character that a path cannot have", "write it as in a URL, with %20 for a space")
    };
    let message = format!("`path` cannot be {}", text.shown());
    text.error("bad-path", message, label, help);
    None
}

/// Several upstreams and no route: nobody can say where a request goes.
fn which_upstream(root: &Table<'_>, upstreams: &Upstreams) {
    let [(first, _), (_, second), ..] = upstreams.names.as_slice() else { return };
    if root.misspelt("route") {
        return;
    }
    let message = "there are several upstreams and no route: which one is meant?".to_owned();
    root.cx.report_absent(
        Diagnostic::error("which-upstream", second.clone(), message)
            .label("nothing leads here")
            .help(format!(
                "write `[[route]]` with `upstream = \"{first}\"`, and one with `host` or `path` \
                 for each of the others"
            )),
    );
}

fn unused(root: &Table<'_>, upstreams: &Upstreams, routes: &[Placed<Route>]) {
    for (at, (name, span)) in upstreams.names.iter().enumerate() {
        if !routes.iter().any(|route| route.item.upstream == at) {
            root.cx.report(unused_one(name, span));
        }
    }
}

fn unused_one(name: &str, span: &Span) -> Diagnostic {
    let message = format!("no route leads to upstream `{name}`");
    Diagnostic::warning("unused-upstream", span.clone(), message)
        .label("never used")
        .help(format!("write a `[[route]]` with `upstream = \"{name}\"`, or remove it"))
}
