//! From the file as written to the configuration as meant.
//!
//! Always returns a whole `Config`: where something could not be read, the default stands in, and
//! the findings say that the result must not be used.

use std::collections::HashMap;
use std::hash::Hash;

use toml::de::{DeTable, DeValue};

use super::address::Fault;
use super::diagnostic::Diagnostic;
use super::raw::{Cx, Span, Table, Text, Value};
use super::{Config, Whereabouts, keys};

mod acme;
mod addresses;
mod admin;
mod certificate;
mod limits;
mod listener;
mod node;
mod process;
mod route;
mod upstream;

/// A thing with the places it may be blamed at.
struct Placed<T> {
    item: T,
    /// Its name, or what the name was taken from.
    name: Span,
    /// What makes it different from others: address or match.
    place: Span,
}

/// Reads the whole file.
pub(super) fn document<'a>(cx: &'a Cx<'a>, root: &'a DeTable<'a>) -> Config {
    let root = Table::open(cx, &keys::ROOT, "the file".to_owned(), cx.end(), root);
    let authorities = acme::all(&root);
    let certificates = certificate::all(&root, &authorities);
    let listeners = listener::all(&root, &certificates);
    let upstreams = upstream::all(&root, &certificates);
    certificate::unused(cx, &certificates, &listeners, &upstreams.built);
    acme::reachable(cx, &authorities, &certificates.built, &listeners);
    let routes = route::all(&root, &upstreams);
    let admin = admin::admin(&root);
    let probes = process::probes(&root);
    addresses::check(cx, &listeners, &admin, probes.as_ref());
    Config {
        server: process::server(&root),
        tls: certificate::tls(&root, &listeners),
        authorities: items(authorities.built),
        certificates: items(certificates.built),
        listeners: items(listeners),
        rate_limits: limits::rates(&root, &upstreams, &routes),
        routes,
        upstreams: items(upstreams.built),
        spool: process::spool(&root),
        admin: admin.item,
        probes: probes.map(|probes| probes.item),
        access_log: process::access_log(&root),
    }
}

/// Reads only what tells where a process is asked. Nothing that stands elsewhere in the file matters for it, and
/// no file is read that it names.
pub(super) fn whereabouts<'a>(cx: &'a Cx<'a>, root: &'a DeTable<'a>) -> Whereabouts {
    let is_toml = cx.errors() == 0;
    let root = Table::open(cx, &keys::ROOT, "the file".to_owned(), cx.end(), root);
    let before = cx.errors();
    let (admin, probes) = (admin::admin(&root), process::probes(&root));
    let misspelt = root.misspelt("admin") || root.misspelt("probes");
    Whereabouts {
        admin: admin.item,
        probes: probes.map(|probes| probes.item),
        certain: is_toml && !misspelt && cx.errors() == before,
    }
}

fn items<T>(placed: Vec<Placed<T>>) -> Vec<T> {
    placed.into_iter().map(|placed| placed.item).collect()
}

/// The tables of `[[key]]`. One table in single brackets is taken for what was meant, and reported.
fn tables<'a>(
    root: &Table<'a>,
    keys: &'static keys::TableKeys,
    key: &'static str,
) -> Vec<Table<'a>> {
    let Some(value) = root.get(key) else { return Vec::new() };
    let title = format!("`{}`", keys.title);
    match value.de {
        DeValue::Table(map) => {
            let message = format!("`[{key}]` must be in double brackets");
            let help = format!("write {title}: there may be several");
            value.error("wrong-type", message, "a single table", help);
            vec![Table::open(value.cx, keys, title, value.span, map)]
        }
        DeValue::Array(_) => {
            let elements = value.elements(&title).unwrap_or_default();
            elements.iter().filter_map(|element| element.table(keys, &title)).collect()
        }
        _ => {
            value.wrong_type("a table", &format!("write {title} on a line of its own"));
            Vec::new()
        }
    }
}

/// Reads a text with a function that says what is wrong with it.
fn parsed<T>(text: &Text<'_>, read: impl Fn(&str) -> Result<T, Fault>) -> Option<T> {
    let result = read(&text.value);
    result.map_err(|fault| bad_address(text, &fault)).ok()
}

fn bad_address(text: &Text<'_>, fault: &Fault) {
    let help = if text.from_env { fault.discreet } else { &fault.help };
    let message = match fault.code {
        "missing-port" => format!("{} {} has no port", text.name, text.shown()),
        "bad-network" => format!("{} {} is not a network", text.name, text.shown()),
        _ => format!("{} {} is not a usable address", text.name, text.shown()),
    };
    text.error(fault.code, message, fault.label, help);
}

/// A written name; `None` if none is written or it is bad, which was then reported.
fn name(table: &Table<'_>) -> Option<(String, Span)> {
    let text = table.text("name")?;
    let span = text.span.clone();
    good_name(table.cx, &text.value, &span, &text.shown()).then_some((text.value, span))
}

/// Names are values of metric labels and columns of `status`.
fn good_name(cx: &Cx<'_>, value: &str, span: &Span, shown: &str) -> bool {
    let label = match value.len() {
        0 => "empty",
        64.. => "longer than 63 characters",
        _ if !value.bytes().all(is_name_byte) => "has a character that names cannot have",
        _ => return true,
    };
    let diagnostic =
        Diagnostic::error("bad-name", span.clone(), format!("{shown} cannot be a name"));
    let help = "write 1 to 63 letters, digits and any of `-_.:/*[]@+`";
    cx.report(diagnostic.label(label).help(help));
    false
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:/*[]@+".contains(&byte)
}

/// Reports equal names, and equal identities (addresses, matches) under `twice`.
fn unique<T, K: Hash + Eq>(
    cx: &Cx<'_>,
    items: &[Placed<T>],
    name: impl Fn(&T) -> &str,
    identity: impl Fn(&T) -> Option<K>,
    twice: &Twice,
) {
    let mut names: HashMap<&str, &Span> = HashMap::new();
    let mut identities: HashMap<K, &Span> = HashMap::new();
    for placed in items {
        if let Some(identity) = identity(&placed.item) {
            if let Some(first) = identities.get(&identity) {
                cx.report(
                    Diagnostic::error(twice.code, placed.place.clone(), twice.message.to_owned())
                        .label("again")
                        .help(twice.help)
                        .related((*first).clone(), "first here"),
                );
                // Names are often taken from the identity: one complaint is enough.
                continue;
            }
            identities.insert(identity, &placed.place);
        }
        if let Some(first) = names.insert(name(&placed.item), &placed.name) {
            let message = format!("two {} have the same name", twice.kind);
            cx.report(
                Diagnostic::error("duplicate-name", placed.name.clone(), message)
                    .label("taken")
                    .help("write another `name`")
                    .related(first.clone(), "first here"),
            );
        }
    }
}

/// How to complain of two things that are one.
struct Twice {
    code: &'static str,
    /// In the plural.
    kind: &'static str,
    message: &'static str,
    help: &'static str,
}

/// Reports a key that is written and has no effect.
fn no_effect(value: Option<Value<'_>>, because: &str, help: &str) {
    if let Some(value) = value {
        let message = format!("{} has no effect {because}", value.name);
        let diagnostic = Diagnostic::warning("no-effect", value.key.clone(), message);
        value.cx.report(diagnostic.label("not used").help(help));
    }
}
