//! The entries of `nodes`

use toml::de::DeValue;

use super::{Placed, Twice, items, name, parsed, unique};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Span, Table, Text, Value};
use crate::config::{Node, Preset, Role, address, defaults, keys};

const EXAMPLE: &str = "`nodes = [\"172.31.0.1:13000\"]`";

/// `place` is the header of the upstream.
pub(super) fn all(table: &Table<'_>, preset: Preset) -> Vec<Node> {
    let Some(value) = table.get("nodes") else {
        if !table.misspelt("nodes") {
            without_nodes(table, table.place.clone());
        }
        return Vec::new();
    };
    let Some(elements) = value.elements(EXAMPLE) else { return Vec::new() };
    if elements.is_empty() {
        without_nodes(table, value.span);
        return Vec::new();
    }
    let max_requests = table.number("max_requests", 0, MAX_REQUESTS);
    let nodes: Vec<_> = elements.iter().filter_map(|e| one(e, preset, max_requests)).collect();
    let twice = Twice {
        code: "duplicate-node",
        kind: "nodes",
        message: "this node is listed twice",
        help: "remove one of them; for a larger share write `weight`",
    };
    unique(table.cx, &nodes, |node| &node.name, |node| Some(node.address.clone()), &twice);
    // What could not be read may be the node that serves.
    if nodes.len() == elements.len() {
        check_roles(table, &value, &nodes);
    }
    check_number(table, preset, &value.key, &nodes);
    items(nodes)
}

const MAX_REQUESTS: std::ops::RangeInclusive<u64> = 0..=1_000_000;

fn without_nodes(table: &Table<'_>, place: Span) {
    table.cx.report_absent(
        Diagnostic::error("no-nodes", place, "this upstream has no nodes".to_owned())
            .label("nobody to ask")
            .help(format!("write {EXAMPLE}")),
    );
}

fn one(element: &Value<'_>, preset: Preset, max_requests: u32) -> Option<Placed<Node>> {
    match element.de {
        DeValue::String(_) => {
            let text = element.text()?;
            let address = node_address(&text, preset)?;
            let item = Node { max_requests, ..Node::at(address) };
            Some(Placed { item, name: text.span.clone(), place: text.span })
        }
        DeValue::Table(_) => {
            let table = element.table(&keys::NODE, "an entry of `nodes`")?;
            from_table(&table, preset, max_requests)
        }
        _ => {
            let help =
                "write \"172.31.0.1:13000\", or { address = \"172.31.0.1:13000\", weight = 2 }";
            element.wrong_type("an address or a table", help);
            None
        }
    }
}

fn from_table(table: &Table<'_>, preset: Preset, max_requests: u32) -> Option<Placed<Node>> {
    if table.get("address").is_none() {
        table.missing("address", "write `address = \"172.31.0.1:13000\"`");
    }
    let text = table.text("address");
    let address = text.as_ref().and_then(|text| node_address(text, preset));
    let place = text.map_or_else(|| table.place.clone(), |text| text.span);
    let plain = Node::at(address.clone().unwrap_or_default());
    let (name, name_span) = name(table).unwrap_or_else(|| (plain.name.clone(), place.clone()));
    let roles = [("serve", Role::Serve), ("task", Role::Task)];
    let item = Node {
        name,
        weight: weight(table, plain.weight),
        backup: table.flag("backup", plain.backup),
        role: table.text("role").and_then(|text| text.choice(&roles)).unwrap_or(plain.role),
        disabled: table.flag("disabled", plain.disabled),
        max_requests: table.number("max_requests", max_requests, MAX_REQUESTS),
        ..plain
    };
    if item.role == Role::Task && item.backup {
        let help = "remove `backup`: a task node is never asked";
        super::no_effect(table.get("backup"), "on a task node", help);
    }
    address.map(|_| Placed { item, name: name_span, place })
}

fn node_address(text: &Text<'_>, preset: Preset) -> Option<String> {
    parsed(text, |value| address::node(value, preset))
}

fn weight(table: &Table<'_>, default: u32) -> u32 {
    let Some(value) = table.get("weight") else { return default };
    if value.de.as_integer().is_some_and(|n| n.as_str() == "0") {
        let help = "write `disabled = true` to take the node out".to_owned();
        let message = "`weight` must be between 1 and 1000".to_owned();
        value.error("out-of-range", message, "a share of nothing", help);
        return default;
    }
    table.number("weight", default, 1..=1000)
}

fn check_roles(table: &Table<'_>, nodes: &Value<'_>, placed: &[Placed<Node>]) {
    let serving = |node: &Node| node.role == Role::Serve;
    let ready = |node: &Node| serving(node) && !node.disabled;
    let any = |what: &dyn Fn(&Node) -> bool| placed.iter().any(|placed| what(&placed.item));
    let diagnostic = if !any(&serving) {
        let message = "no node of this upstream serves requests".to_owned();
        Diagnostic::error("no-serving-node", nodes.key.clone(), message)
            .label("all have `role = \"task\"`")
            .help("remove `role = \"task\"` from a node that serves")
    } else if !any(&ready) {
        let message = "every node of this upstream that serves is disabled".to_owned();
        Diagnostic::warning("all-disabled", nodes.key.clone(), message)
            .label("all requests will be refused")
            .help("remove `disabled = true` from a node")
    } else if !any(&|node: &Node| ready(node) && !node.backup) {
        let message = "every node of this upstream that serves is a backup".to_owned();
        Diagnostic::warning("all-backup", nodes.key.clone(), message)
            .label("no primary node")
            .help("remove `backup = true` from the nodes that serve first")
    } else {
        return;
    };
    table.cx.report(diagnostic);
}

/// Each NocoBase process takes a worker id, and there are 32 of them.
fn check_number(table: &Table<'_>, preset: Preset, key: &Span, placed: &[Placed<Node>]) {
    let number = placed.iter().filter(|placed| !placed.item.disabled).count();
    let limit = defaults::MAX_NOCOBASE_NODES;
    if preset == Preset::NocoBase && number > limit {
        let message = format!("{number} nodes, and NocoBase has worker ids for {limit}");
        table.cx.report(
            Diagnostic::warning("too-many-nodes", key.clone(), message)
                .label("two nodes will make equal record ids")
                .help(format!("run at most {limit} NocoBase processes, task nodes included")),
        );
    }
}
