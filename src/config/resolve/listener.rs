//! `[[listener]]`

use ipnet::IpNet;

use super::certificate::{self, Certificates};
use super::{Placed, Twice, name, parsed, tables, unique};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{POSITIVE, Table};
use crate::config::{Listener, Protocols, address, keys};

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
        help: "write another port, or remove one of them",
    };
    // Port 0 is a different free port each time.
    let identity = |l: &Listener| (l.bind.port() != 0).then_some(l.bind);
    unique(root.cx, &listeners, |l| &l.name, identity, &twice);
    listeners
}

fn one(table: &Table<'_>, known: &Certificates) -> Option<Placed<Listener>> {
    let bind = table.bind();
    if table.get("bind").is_none() {
        table.missing("bind", "write `bind = \"0.0.0.0:80\"`");
    }
    let address = bind.as_ref().and_then(|text| parsed(text, address::bind));
    let place = bind.map_or_else(|| table.place.clone(), |text| text.span);
    // Read the rest even if this listener cannot be used: all errors are wanted.
    let stand_in = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let plain = Listener::at(address.unwrap_or(stand_in));
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
        trusted_proxies: trusted_proxies(table),
        certificates: certificate::of_listener(table, known),
        client_auth: certificate::client_auth(table, is_tls),
        protocols: protocols(table, is_tls),
        max_streams: table.number("max_streams", plain.max_streams, 1..=10_000),
        ..plain
    };
    address.map(|_| Placed { item, name: name_span, place })
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
    let elements = table.elements("trusted_proxies", "`trusted_proxies = [\"10.0.0.0/8\"]`");
    let texts = elements.iter().filter_map(|element| element.text());
    texts
        .filter_map(|text| {
            let network = parsed(&text, address::network)?;
            if network.prefix_len() == 0 {
                let message = "every client is trusted to name its own address".to_owned();
                table.cx.report(
                    Diagnostic::warning("trusts-everyone", text.span.clone(), message)
                        .label("the whole Internet")
                        .help("write the addresses of the proxies in front of this listener"),
                );
            }
            Some(network)
        })
        .collect()
}
