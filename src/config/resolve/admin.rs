//! `[admin]`

use super::process::{path, single};
use super::{Placed, parsed};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Span, Table, Text};
use crate::config::{Admin, address, keys};
use crate::net::UNIX;

/// Only the user of the process, or its group as well. Whoever may connect may do everything.
const MODES: [(&str, u32); 2] = [("0600", 0o600), ("0660", 0o660)];
const HOSTS_EXAMPLE: &str = "`hosts = [\"lb.example.com\"]`";

/// The place is empty where no address is written.
pub(super) fn admin(root: &Table<'_>) -> Placed<Admin> {
    let plain = Admin::default();
    let Some(table) = single(root, &keys::ADMIN, "admin") else {
        return Placed { item: plain, name: 0..0, place: 0..0 };
    };
    let text = table.bind();
    let token = |key, what| table.text(key).and_then(|text| path(&text, what));
    let mode = table.text("mode").and_then(|text| text.choice(&MODES));
    let item = Admin {
        enabled: table.flag("enabled", plain.enabled),
        bind: text.as_ref().and_then(|text| parsed(text, address::admin)).unwrap_or(plain.bind),
        mode: mode.unwrap_or(plain.mode),
        hosts: hosts(&table),
        token_file: token("token_file", "write the path of a file that holds the token"),
        read_token_file: token("read_token_file", "write the path of a file that holds tokens"),
    };
    // Also one whose path cannot be used.
    let unix = text.as_ref().is_some_and(|text| text.value.starts_with(UNIX));
    if !unix {
        super::no_effect(table.get("mode"), "for an address", "remove it, or bind \"unix:PATH\"");
    }
    let place = text.map_or(0..0, |text| text.span);
    if item.enabled {
        check(&table, &item, &place);
    }
    Placed { item, name: place.clone(), place }
}

fn hosts(table: &Table<'_>) -> Vec<String> {
    let name = |text: Text<'_>| {
        let good = address::is_host_name(&text.value);
        if !good {
            let message = format!("{} cannot be the name of a host", text.shown());
            let help = "write the name alone, such as \"lb.example.com\"";
            text.error("bad-host", message, "no name, or more than that", help);
        }
        good.then(|| text.value.to_ascii_lowercase())
    };
    let elements = table.elements("hosts", HOSTS_EXAMPLE);
    elements.iter().filter_map(|element| element.text().and_then(name)).collect()
}

/// What does not go together.
fn check(table: &Table<'_>, admin: &Admin, place: &Span) {
    let without = table.get("token_file").is_none() && !table.misspelt("token_file");
    if without && !admin.bind.is_local() {
        let message = "the admin listener is open to others without a token".to_owned();
        table.cx.report(
            Diagnostic::error("admin-without-token", place.clone(), message)
                .label("not a loopback address")
                .help("write `token_file = \"PATH\"` in `[admin]`, or bind \"127.0.0.1:9901\""),
        );
    } else if let Some(value) = table.get("read_token_file").filter(|_| without) {
        let message = "nobody could change anything: there are only tokens that read".to_owned();
        let help = "write `token_file = \"PATH\"` beside it";
        value.error("admin-without-token", message, "only these", help.to_owned());
    }
}
