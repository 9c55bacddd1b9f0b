//! `[[certificate]]` and `[tls]`: read with the files that they name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::acme::{self, Authorities};
use super::process::{path, single};
use super::{Placed, Twice, name, tables, unique};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Cx, Span, Table, Text, Value};
use crate::config::{
    Certificate, ClientAuth, Listener, TicketSecrets, Tls, Upstream, UpstreamTls, defaults, keys,
    suggest,
};
use crate::net::UNIX;
use crate::tls::clients::Clients;
use crate::tls::upstream::name_of;
use crate::tls::{self, Part, Problem, Roots, Secrets};

pub(super) const FILE: &str = "write the path of a PEM file";

/// What was built, and every name that was written.
pub(super) struct Certificates {
    pub(super) built: Vec<Placed<Certificate>>,
    names: Vec<(String, Span)>,
}

pub(super) fn all(root: &Table<'_>, authorities: &Authorities) -> Certificates {
    let mut all = Certificates { built: Vec::new(), names: Vec::new() };
    for table in tables(root, &keys::CERTIFICATE, "certificate") {
        one(&table, authorities, &mut all);
    }
    let twice = Twice { code: "duplicate-name", kind: "certificates", message: "", help: "" };
    unique(root.cx, &all.built, |one| &one.name, |_| None::<()>, &twice);
    all
}

fn one(table: &Table<'_>, authorities: &Authorities, all: &mut Certificates) {
    if table.get("name").is_none() {
        table.missing(
            "name",
            "write `name = \"example\"`, and the same in `certificates` of a listener",
        );
    }
    let named = name(table);
    all.names.extend(named.clone());
    if let Some(by) = table.get("acme") {
        let ordered = acme::ordered(table, &by, authorities);
        if let (Some(order), Some((name, place))) = (ordered, named) {
            let file = order.vault.certificate(&order.domains);
            // One that is none is ordered anew, which is told by whoever orders.
            let loaded = tls::Certificate::read(&file, &file).ok().map(Arc::new);
            let item =
                Certificate { name, chain: file.clone(), key: file, loaded, order: Some(order) };
            all.built.push(Placed { item, name: place.clone(), place });
        }
        return;
    }
    let files = ["chain", "key"].iter().any(|key| table.get(key).is_some());
    if table.get("domains").is_some() && !files {
        return table.missing("acme", "write `acme = \"NAME\"`, the name of an `[acme.NAME]`");
    }
    super::no_effect(
        table.get("domains"),
        "without `acme`",
        "write `acme = \"NAME\"`, or remove it",
    );
    let chain = file(table, "chain", "write `chain = \"tls/example.pem\"`");
    let key = file(table, "key", "write `key = \"tls/example.key\"`");
    let (Some((chain_text, chain)), Some((key_text, key))) = (chain, key) else { return };
    let shown = named.as_ref().map_or_else(|| chain_text.shown(), |(name, _)| format!("`{name}`"));
    let loaded = match tls::Certificate::read(&chain, &key) {
        Ok(loaded) => Arc::new(loaded),
        Err(problems) => {
            for problem in problems {
                let (text, part) = match problem.part {
                    Part::Chain => (&chain_text, "chain"),
                    Part::Key => (&key_text, "key"),
                };
                bad(text, &format!("the {part} of certificate {shown} cannot be used"), &problem);
            }
            return;
        }
    };
    warn(&chain_text, &shown, &loaded, now());
    if let Some((name, place)) = named {
        let item = Certificate { name, chain, key, loaded: Some(loaded), order: None };
        all.built.push(Placed { item, name: place.clone(), place });
    }
}

fn file<'a>(table: &Table<'a>, key: &'static str, help: &str) -> Option<(Text<'a>, PathBuf)> {
    if table.get(key).is_none() {
        table.missing(key, help);
    }
    let text = table.text(key)?;
    let path = path(&text, FILE)?;
    Some((text, path))
}

pub(super) fn bad(text: &Text<'_>, message: &str, problem: &Problem) {
    text.error("bad-certificate", message.to_owned(), &problem.what, &problem.help);
}

/// What does not keep a certificate from being used, today.
fn warn(text: &Text<'_>, shown: &str, loaded: &tls::Certificate, now: i64) {
    let say = |code, message: String, label: String, help: &str| {
        let diagnostic = Diagnostic::warning(code, text.span.clone(), message);
        text.cx().report(diagnostic.label(label).help(help));
    };
    let (from, until) = loaded.validity();
    let soon = i64::try_from(defaults::CERTIFICATE_WARNING.as_secs()).unwrap_or(i64::MAX);
    let renew = "renew it; a newer file is found within seconds, without a reload";
    if until <= now {
        let message = format!("certificate {shown} has expired");
        say("certificate-expired", message, format!("valid until {}", date(until)), renew);
    } else if until - now < soon {
        let days = (until - now) / 86_400;
        let message = format!("certificate {shown} expires in {days} days");
        say("certificate-expires", message, format!("valid until {}", date(until)), renew);
    }
    if from > now {
        let message = format!("certificate {shown} is not valid yet");
        let help = "look at the clocks of this machine and of whoever issued it";
        say("certificate-not-yet", message, format!("valid from {}", date(from)), help);
    }
    if let Some(nth) = loaded.out_of_order() {
        let message = format!("the chain of certificate {shown} is broken");
        let label = format!("certificate {} in it did not sign the one before it", nth + 1);
        let help = "put the server's own certificate first, then the one that signed it, and so on";
        say("certificate-chain", message, label, help);
    }
    if loaded.names().is_empty() {
        let message = format!("certificate {shown} names no host");
        let help = "browsers refuse it: ask for one with subjectAltName";
        say("certificate-without-names", message, "no subjectAltName".to_owned(), help);
    }
}

fn date(unix_s: i64) -> String {
    let seconds = u64::try_from(unix_s).unwrap_or(0);
    // Beyond the year 9999 there is no text for it.
    let seconds = seconds.min(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `certificates` of a listener: names of those above.
pub(super) fn of_listener(table: &Table<'_>, known: &Certificates) -> Vec<String> {
    let elements = table.elements("certificates", "`certificates = [\"example\"]`");
    if elements.is_empty()
        && let Some(value) = table.get("certificates").filter(|value| value.de.is_array())
    {
        let message = "`certificates` is empty".to_owned();
        let help = "name a `[[certificate]]`, or remove the key for a listener without TLS";
        value.error("no-certificates", message, "nothing to show to clients", help.to_owned());
    }
    let texts = elements.iter().filter_map(|element| element.text());
    texts.filter(|text| is_known(table.cx, text, known)).map(|text| text.value).collect()
}

fn is_known(cx: &Cx<'_>, text: &Text<'_>, known: &Certificates) -> bool {
    if known.names.iter().any(|(name, _)| *name == text.value) {
        return true;
    }
    let names: Vec<&str> = known.names.iter().map(|(name, _)| name.as_str()).collect();
    let near = suggest::nearest(&text.value, names.iter().copied()).filter(|_| !text.from_env);
    let help = match (near, names.is_empty()) {
        (Some(name), _) => format!("did you mean \"{name}\"?"),
        (None, true) => "write `[[certificate]]` with `name`, `chain` and `key`".to_owned(),
        (None, false) => {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            format!("known are {}", names.join(", "))
        }
    };
    let message = format!("there is no certificate {}", text.shown());
    let diagnostic = Diagnostic::error("unknown-certificate", text.span.clone(), message);
    cx.report_absent(diagnostic.label("not the name of a certificate").help(help));
    false
}

/// Warns of certificates that no listener shows.
pub(super) fn unused(
    cx: &Cx<'_>,
    known: &Certificates,
    listeners: &[Placed<Listener>],
    upstreams: &[Placed<Upstream>],
) {
    for (name, place) in &known.names {
        let shown = listeners.iter().any(|listener| listener.item.certificates.contains(name));
        let own = |upstream: &Placed<Upstream>| {
            upstream.item.tls.as_ref().is_some_and(|tls| tls.certificate.as_ref() == Some(name))
        };
        if !shown && !upstreams.iter().any(own) {
            let message = format!("no listener shows certificate `{name}`");
            let help =
                format!("write `certificates = [\"{name}\"]` in a `[[listener]]`, or remove it");
            let diagnostic = Diagnostic::warning("unused-certificate", place.clone(), message);
            cx.report(diagnostic.label("not used").help(help));
        }
    }
}

/// `client_auth` and `client_ca` of a listener.
pub(super) fn client_auth(table: &Table<'_>, is_tls: bool) -> Option<ClientAuth> {
    let modes = [("none", None), ("optional", Some(false)), ("required", Some(true))];
    let mode = table.text("client_auth").and_then(|text| text.choice(&modes)).flatten();
    if !is_tls {
        for key in ["client_auth", "client_ca"] {
            super::no_effect(table.get(key), "without `certificates`", "remove it");
        }
    }
    let Some(required) = mode else {
        if is_tls && table.get("client_auth").is_none_or(|value| value.de.as_str() == Some("none"))
        {
            let help = "write `client_auth = \"required\"`, or remove it";
            super::no_effect(table.get("client_ca"), "without `client_auth`", help);
        }
        return None;
    };
    if table.get("client_ca").is_none() {
        table.missing(
            "client_ca",
            "write `client_ca = \"tls/clients.pem\"`: who signs the certificates of clients",
        );
    }
    let text = table.text("client_ca")?;
    let ca = path(&text, FILE)?;
    let loaded = Clients::read(&ca, required);
    let loaded =
        loaded.map_err(|problem| bad(&text, "`client_ca` cannot be used", &problem)).ok()?;
    Some(ClientAuth { required, ca, loaded })
}

/// `tls` of an upstream: a flag, or a table.
pub(super) fn of_upstream(
    upstream: &Table<'_>,
    name: &str,
    known: &Certificates,
) -> Option<UpstreamTls> {
    let value = upstream.get("tls")?;
    if !value.de.is_table() {
        return value.flag()?.then(|| system_roots(&value)).flatten().map(|roots| UpstreamTls {
            ca: None,
            server_name: None,
            certificate: None,
            roots,
        });
    }
    let table = value.table(&keys::UPSTREAM_TLS, &format!("`[upstream.{name}.tls]`"))?;
    let enabled = table.flag("enabled", true);
    let server_name = table.text("server_name").and_then(|text| server_name(&text));
    let certificate = table.text("certificate").filter(|text| is_known(table.cx, text, known));
    let ca = table.text("ca").map(|text| (path(&text, FILE), text));
    let (ca, roots) = match ca {
        Some((ca, text)) => {
            let ca = ca?;
            let roots =
                Roots::read(&ca).map_err(|problem| bad(&text, "`ca` cannot be used", &problem));
            (Some(ca), roots.ok()?)
        }
        None => (None, system_roots(&value)?),
    };
    let certificate = certificate.map(|text| text.value);
    enabled.then_some(UpstreamTls { ca, server_name, certificate, roots })
}

fn system_roots(value: &Value<'_>) -> Option<Roots> {
    roots_of_system(value.cx, &value.span, "nodes cannot be verified")
}

/// Whom this system trusts.
pub(super) fn roots_of_system(cx: &Cx<'_>, place: &Span, label: &str) -> Option<Roots> {
    let roots = Roots::of_system();
    if roots.is_none() {
        let message = "this system trusts no certificate authority".to_owned();
        let help = "install the package `ca-certificates`, or write `ca` with your own";
        cx.report(Diagnostic::error("no-roots", place.clone(), message).label(label).help(help));
    }
    roots
}

fn server_name(text: &Text<'_>) -> Option<String> {
    if name_of(&format!("{}:0", text.value)).is_some() {
        return Some(text.value.clone());
    }
    let message = format!("`server_name` cannot be {}", text.shown());
    let help = "write a name or an address, as it is in the certificates of the nodes";
    text.error("bad-host", message, "not a name", help);
    None
}

/// Each node needs a name that can be in a certificate.
pub(super) fn check_names(table: &Table<'_>, upstream: &Upstream) {
    let Some(value) = table.get("tls").filter(|_| upstream.tls.is_some()) else { return };
    if let Some(node) = upstream.nodes.iter().find(|node| node.address.starts_with(UNIX)) {
        let message = format!("node `{}` is a Unix socket, over which no TLS is spoken", node.name);
        let help = "remove `tls`, or write the node's host and port".to_owned();
        return value.error("tls-over-unix", message, "not over a Unix socket", help);
    }
    let named = upstream.tls.as_ref().is_some_and(|tls| tls.server_name.is_some());
    let odd = upstream.nodes.iter().find(|node| name_of(&node.address).is_none());
    if let Some(node) = odd.filter(|_| !named) {
        let message = format!("the host of node `{}` cannot be in a certificate", node.name);
        let help = "write `server_name`".to_owned();
        value.error("bad-host", message, "nodes cannot be verified", help);
    }
}

pub(super) fn tls(root: &Table<'_>, listeners: &[Placed<Listener>]) -> Tls {
    let Some(table) = single(root, &keys::TLS, "tls") else { return Tls::default() };
    let https_only = table.flag("https_only", false);
    let leads = |one: &Placed<Listener>| {
        !one.item.certificates.is_empty() || !one.item.trusted_proxies.is_empty()
    };
    if https_only
        && !listeners.iter().any(leads)
        && let Some(value) = table.get("https_only")
    {
        let message = "clients are sent to HTTPS, and no listener speaks it".to_owned();
        let help = "write `certificates` in a `[[listener]]`, or `trusted_proxies` if a proxy in front does";
        let diagnostic = Diagnostic::warning("https-nowhere", value.span.clone(), message);
        table.cx.report(diagnostic.label("leads nowhere").help(help));
    }
    let tickets = table.text("ticket_secret_file").and_then(|text| ticket_secrets(&text));
    Tls { tickets, https_only }
}

fn ticket_secrets(text: &Text<'_>) -> Option<TicketSecrets> {
    let file = path(text, "write the path of a file that holds the secret")?;
    let loaded = Secrets::read(Path::new(&file)).map_err(|what| {
        let message = "`ticket_secret_file` cannot be used".to_owned();
        let help =
            "write one into it that `openssl rand -hex 32` prints: the same on every replica";
        text.error("bad-secret", message, &what, help);
    });
    Some(TicketSecrets { loaded: loaded.ok()?, file })
}
