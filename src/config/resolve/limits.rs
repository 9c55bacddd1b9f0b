//! `allow` and `deny` of listeners and routes, and `[[rate_limit]]`

use super::process::path;
use super::upstream::Upstreams;
use super::{Placed, Twice, items, name, no_effect, parsed, route, tables, unique};
use crate::config::diagnostic::Diagnostic;
use crate::config::limits::read_list;
use crate::config::raw::{Table, Text, Value};
use crate::config::{
    Access, ActionPattern, ListFile, NetworkList, Preset, Rate, RateKey, RateLimit, Route, address,
    defaults, keys, suggest,
};

/// Who may come.
pub(super) fn access(table: &Table<'_>) -> Access {
    Access { allow: list(table, "allow", "allow_file"), deny: list(table, "deny", "deny_file") }
}

fn list(table: &Table<'_>, key: &'static str, file_key: &'static str) -> Option<NetworkList> {
    let written = table.get(key).is_some() || table.get(file_key).is_some();
    let networks = networks(table, key);
    let file = table.text(file_key).and_then(|text| file(&text));
    written.then_some(NetworkList { networks, file })
}

fn networks(table: &Table<'_>, key: &'static str) -> Vec<ipnet::IpNet> {
    let elements = table.elements(key, &format!("`{key} = [\"192.0.2.0/24\"]`"));
    let texts = elements.iter().filter_map(|element| element.text());
    texts.filter_map(|text| parsed(&text, address::network)).collect()
}

fn file(text: &Text<'_>) -> Option<ListFile> {
    let path = path(text, "write the path of a file with one network a line")?;
    let loaded = read_list(&path).map_err(|problem| {
        let message = format!("{} {} cannot be used", text.name, text.shown());
        let help = "write one address or network a line; `#` begins a comment";
        text.error("bad-list", message, &problem.to_string(), help);
    });
    Some(ListFile { path, loaded: loaded.ok()? })
}

pub(super) fn rates(root: &Table<'_>, upstreams: &Upstreams, routes: &[Route]) -> Vec<RateLimit> {
    let tables = tables(root, &keys::RATE_LIMIT, "rate_limit");
    let limits: Vec<_> = tables.iter().filter_map(|table| one(table, upstreams, routes)).collect();
    let twice = Twice { code: "duplicate-name", kind: "rate limits", message: "", help: "" };
    unique(root.cx, &limits, |limit| &limit.name, |_| None::<()>, &twice);
    items(limits)
}

fn one(table: &Table<'_>, upstreams: &Upstreams, routes: &[Route]) -> Option<Placed<RateLimit>> {
    if table.get("name").is_none() {
        table.missing("name", "write `name = \"sign-in\"`: metrics and answers name it");
    }
    let named = name(table);
    let by = table.text("by").map(|text| key(&text));
    let rate = table.text("rate").map(|text| read_rate(&text));
    let actions = table.get("actions").map(|value| actions(&value));
    if rate.is_none() && actions.is_none() && !table.misspelt("rate") && !table.misspelt("actions")
    {
        table.missing(
            "rate",
            "write `rate = \"100/s\"`, or `actions = { \"auth:signIn\" = \"10/min\" }`",
        );
    }
    let upstream = match table.get("upstream") {
        Some(_) => Some(route::upstream(table, upstreams)?),
        None => None,
    };
    let route = match table.text("route") {
        Some(text) => Some(find_route(table, &text, routes)?),
        None => None,
    };
    no_actions(table, upstream, upstreams);
    let clients = table.number("clients", defaults::RATE_LIMIT_CLIENTS, 64..=1 << 24);
    let (name, place) = named?;
    let item = RateLimit {
        name,
        by: by.map_or(Some(RateKey::ClientIp), |by| by)?,
        rate: rate.map_or(Some(None), |rate| rate.map(Some))?,
        actions: actions.unwrap_or_default(),
        route,
        upstream,
        clients,
    };
    Some(Placed { item, name: place.clone(), place })
}

/// Warns of actions where nothing is NocoBase.
fn no_actions(table: &Table<'_>, upstream: Option<usize>, upstreams: &Upstreams) {
    let name = upstream.map(|at| &upstreams.names[at].0);
    let mut meant =
        upstreams.built.iter().filter(|one| name.is_none_or(|name| one.item.name == *name));
    if meant.clone().next().is_some() && meant.all(|one| one.item.preset == Preset::None) {
        no_effect(table.get("actions"), "with `preset = \"none\"`", "write `rate` instead");
    }
}

fn key(text: &Text<'_>) -> Option<RateKey> {
    let is_token = |name: &str| {
        (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match text.value.split_once(':') {
        None if text.value == "ip" => return Some(RateKey::ClientIp),
        Some(("header", name)) if is_token(name) => {
            return Some(RateKey::Header(name.to_ascii_lowercase()));
        }
        _ => {}
    }
    let message = format!("`by` cannot be {}", text.shown());
    text.error(
        "unknown-value",
        message,
        "nothing that clients can be told apart by",
        "write \"ip\" or \"header:NAME\"",
    );
    None
}

fn read_rate(text: &Text<'_>) -> Option<Rate> {
    let rate = Rate::parse(&text.value);
    let bad = |label: &'static str| {
        let message = format!("{} is not a rate: {}", text.name, text.shown());
        let help = "write \"10/s\", \"10/min\", \"100/h\", or \"10/min burst 20\"";
        text.error("bad-rate", message, label, help);
    };
    rate.map_err(bad).ok()
}

fn actions(value: &Value<'_>) -> Vec<(ActionPattern, Rate)> {
    let help = "write `actions = { \"auth:signIn\" = \"10/min\" }`";
    let entries = value.entries("a table", help).unwrap_or_default();
    let one = |(written, rate): (&str, Value<'_>)| {
        let pattern = pattern(written);
        if pattern.is_none() {
            let message = format!("{} is not an action of NocoBase", rate.name);
            rate.cx.report(
                Diagnostic::error("bad-action", rate.key.clone(), message)
                    .label("not a resource, a colon and an action")
                    .help("write \"auth:signIn\", \"auth:*\" or \"*:export\""),
            );
        }
        let rate = read_rate(&rate.text_like("a rate", "write \"10/min\"")?)?;
        Some((pattern?, rate))
    };
    entries.into_iter().filter_map(one).collect()
}

fn pattern(text: &str) -> Option<ActionPattern> {
    let (resource, action) = text.split_once(':')?;
    let is_name = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        name == "*" || (1..=63).contains(&name.len()) && name.bytes().all(plain)
    };
    let known = is_name(resource) && is_name(action);
    known.then(|| ActionPattern { resource: resource.to_owned(), action: action.to_owned() })
}

fn find_route(table: &Table<'_>, text: &Text<'_>, routes: &[Route]) -> Option<usize> {
    let found = routes.iter().position(|route| route.name == text.value);
    if found.is_none() {
        let names = || routes.iter().map(|route| route.name.as_str());
        let near = suggest::nearest(&text.value, names()).filter(|_| !text.from_env);
        let help = match (near, routes.is_empty()) {
            (Some(name), _) => format!("did you mean \"{name}\"?"),
            (None, true) => "there is no `[[route]]`: leave it out".to_owned(),
            (None, false) => {
                let names: Vec<String> = names().map(|name| format!("\"{name}\"")).collect();
                format!("known are {}", names.join(", "))
            }
        };
        let message = format!("there is no route {}", text.shown());
        let diagnostic = Diagnostic::error("unknown-route", text.span.clone(), message);
        table.cx.report_absent(diagnostic.label("not the name of a route").help(help));
    }
    found
}
