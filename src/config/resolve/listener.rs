//! `[[listener]]`

use ipnet::IpNet;

use super::certificate::{self, Certificates};
use super::{Placed, Twice, limits, name, no_effect, parsed, tables, unique};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Cx, POSITIVE, Span, Table};
use crate::config::{Listener, Protocols, address, keys};
use crate::net::Address;

pub(super) fn all(root: &Table<'_>, known: &Certificates) -> Vec<Placed<Listener>> {
    let tables = tables(root, &keys::LISTENER, "listener");
    if tables.is_empty() && root.get("listener").is_none() && !root.misspelt("listener") {
        root.cx.report_absent(
            Diagnostic::error("no-listener", root.cx.end(), "there is no listener".to_owned())
                .label("nothing to accept connections on")
                .help("write `[[listener]]` and, below it, `bind = \"0.0.0.0:80\"`"),
        );
    }
    let listeners: Vec<_> = tables.iter().filter_map(|table| one(table, known)).collect();
    let twice = Twice {
        code: "duplicate-address",
        kind: "listeners",
        message: "two listeners have the same address",
        help: "write another port or path, or remove one of them",
    };
    // Port 0 is a different free port each time.
    let identity = |l: &Listener| (!l.bind.is_any_port()).then(|| l.bind.clone());
    unique(root.cx, &listeners, |l| &l.name, identity, &twice);
    listeners
}

fn one(table: &Table<'_>, known: &Certificates) -> Option<Placed<Listener>> {
    let bind = table.bind();
    if table.get("bind").is_none() {
        table.missing("bind", "write `bind = \"0.0.0.0:80\"`");
    }
    let address = bind.as_ref().and_then(|text| parsed(text, address::listener));
    let place = bind.map_or_else(|| table.place.clone(), |text| text.span);
    // Read the rest even if this listener cannot be used: all errors are wanted.
    let stand_in = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let plain = Listener::at(address.clone().unwrap_or(stand_in.into()));
    let (name, name_span) = name(table).unwrap_or_else(|| (plain.name.clone(), place.clone()));
    let is_tls = table.get("certificates").is_some();
    let max_requests = |usual| table.number("max_requests", usual, 1..=1_000_000_000);
    let item = Listener {
        name,
        max_connections: table.number("max_connections", plain.max_connections, 1..=10_000_000),
        max_head: table.size("max_head", plain.max_head, 1024..=1 << 20),
        max_fields: table.number("max_fields", plain.max_fields, 10..=256),
        max_body: table.size("max_body", plain.max_body, 0..=i64::MAX as u64),
        max_requests: max_requests(plain.max_requests),
        max_requests_h2: match table.get("max_requests") {
            Some(_) => max_requests(plain.max_requests_h2),
            None => plain.max_requests_h2,
        },
        request_head_timeout: table.duration(
            "request_head_timeout",
            plain.request_head_timeout,
            &POSITIVE,
        ),
        body_idle_timeout: table.duration("body_idle_timeout", plain.body_idle_timeout, &POSITIVE),
        keep_alive_timeout: table.duration(
            "keep_alive_timeout",
            plain.keep_alive_timeout,
            &POSITIVE,
        ),
        send_timeout: table.duration("send_timeout", plain.send_timeout, &POSITIVE),
        socket_mode: socket_mode(table, address.as_ref(), plain.socket_mode),
        proxy_protocol: proxy_protocol(table),
        trusted_proxies: trusted_proxies(table),
        certificates: certificate::of_listener(table, known),
        client_auth: certificate::client_auth(table, is_tls),
        protocols: protocols(table, is_tls),
        max_streams: table.number("max_streams", plain.max_streams, 1..=10_000),
        access: limits::access(table),
        max_connections_per_client: table.number(
            "max_connections_per_client",
            plain.max_connections_per_client,
            0..=10_000_000,
        ),
        max_tunnels_per_client: table.number(
            "max_tunnels_per_client",
            plain.max_tunnels_per_client,
            0..=10_000_000,
        ),
        min_body_rate: table.size("min_body_rate", plain.min_body_rate, 0..=1 << 30),
        ..plain
    };
    let address = address?;
    if is_tls && address.unix().is_some() {
        over_unix(table.cx, table.get("certificates").map(|value| value.key));
    }
    Some(Placed { item, name: name_span, place })
}

/// Who comes over a Unix socket is on this machine, and whoever took the TLS off its clients is as well.
fn over_unix(cx: &Cx<'_>, place: Option<Span>) {
    let message = "a listener on a Unix socket speaks no TLS".to_owned();
    cx.report(
        Diagnostic::error("tls-over-unix", place.unwrap_or_default(), message)
            .label("not on a Unix socket")
            .help("remove `certificates`, or bind an IP address and a port"),
    );
}

fn proxy_protocol(table: &Table<'_>) -> Vec<IpNet> {
    let example = "`proxy_protocol = [\"10.0.0.0/8\"]`";
    let message = "whoever connects says by a PROXY header who the client is";
    networks(table, "proxy_protocol", example, message)
}

/// Both over TLS, where each client says which it wants. On a plain listener HTTP/2 is for those who have
/// been told to speak it, and so is only spoken where that is written.
fn protocols(table: &Table<'_>, is_tls: bool) -> Protocols {
    let usual = Protocols { h1: true, h2: is_tls };
    let Some(value) = table.get("protocols") else { return usual };
    let Some(elements) = value.elements("`protocols = [\"h1\", \"h2\"]`") else { return usual };
    if elements.is_empty() {
        value.error(
            "no-protocol",
            "`protocols` is empty".to_owned(),
            "nobody could be served",
            "write `protocols = [\"h1\", \"h2\"]`, or remove it".to_owned(),
        );
        return usual;
    }
    let texts: Vec<_> = elements.iter().filter_map(|element| element.text()).collect();
    let words = texts.iter().filter_map(|text| text.choice(&[("h1", 1), ("h2", 2)]));
    let words: Vec<i32> = words.collect();
    Protocols { h1: words.contains(&1), h2: words.contains(&2) }
}

fn trusted_proxies(table: &Table<'_>) -> Vec<IpNet> {
    let example = "`trusted_proxies = [\"10.0.0.0/8\"]`";
    let message = "every client is trusted to name its own address";
    networks(table, "trusted_proxies", example, message)
}

/// Networks whose word is believed; `message` says what it is to believe everybody.
fn networks(table: &Table<'_>, key: &'static str, example: &str, message: &str) -> Vec<IpNet> {
    let elements = table.elements(key, example);
    let texts = elements.iter().filter_map(|element| element.text());
    texts
        .filter_map(|text| {
            let network = parsed(&text, address::network)?;
            if network.prefix_len() == 0 {
                table.cx.report(
                    Diagnostic::warning("trusts-everyone", text.span.clone(), message.to_owned())
                        .label("the whole Internet")
                        .help("write the addresses of the proxies in front of this listener"),
                );
            }
            Some(network)
        })
        .collect()
}

/// Permissions as `chmod` writes them.
fn socket_mode(table: &Table<'_>, address: Option<&Address>, default: u32) -> u32 {
    let Some(value) = table.get("socket_mode") else { return default };
    if address.is_some_and(|address| address.unix().is_none()) {
        let help = "remove `socket_mode`, or write `bind = \"unix:/run/cobalance/http.sock\"`";
        no_effect(table.get("socket_mode"), "without a Unix socket", help);
    }
    let help = "write three octal digits as a string, such as \"0660\"";
    let Some(text) = value.text_like("permissions", help) else { return default };
    let digits = text.value.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(&text.value);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if digits.len() == 3 && !digits.starts_with('+') => mode,
        _ => {
            let message = format!("`socket_mode` cannot be {}", text.shown());
            text.error("bad-mode", message, "not the permissions of a file", help);
            default
        }
    }
}
