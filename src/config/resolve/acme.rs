//! `[acme.NAME]`, and `[[certificate]]` where it names one. Nothing here asks an authority.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::certificate::{FILE, bad, roots_of_system};
use super::process::path;
use super::{Placed, good_name};
use crate::config::diagnostic::Diagnostic;
use crate::config::raw::{Cx, Span, Table, Text, Value};
use crate::config::{
    Authority, Certificate, ExternalAccount, Listener, Order, address, defaults, implied, keys,
    suggest,
};
use crate::disk;
use crate::tls::challenges::Kind;
use crate::tls::{Roots, Vault};

/// Authorities with a name of their own, and what they are found at.
const KNOWN: [(&str, &str, &str); 2] = [
    (
        "letsencrypt",
        "https://acme-v02.api.letsencrypt.org/directory",
        "https://letsencrypt.org/repository/",
    ),
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        "https://letsencrypt.org/repository/",
    ),
];
const DIRECTORY_FORM: &str =
    "write \"letsencrypt\", \"letsencrypt-staging\", or the https URL of a directory";
/// Keys that authorities give have 32 to 64 bytes.
const MAX_KEY_FILE: u64 = 4096;
/// More would only be forgotten.
const MAX_CONTACTS: usize = 10;

/// What was built, and every name that was written.
pub(super) struct Authorities {
    pub(super) built: Vec<Placed<Authority>>,
    names: Vec<String>,
}

pub(super) fn all(root: &Table<'_>) -> Authorities {
    let mut all = Authorities { built: Vec::new(), names: Vec::new() };
    let Some(value) = root.get("acme") else { return all };
    let help = "write `[acme.letsencrypt]`, in single brackets";
    for (name, value) in value.entries("a table with a name", help).unwrap_or_default() {
        named(&Value { name: format!("`acme.{name}`"), ..value }, name, &mut all);
    }
    all
}

fn named(value: &Value<'_>, name: &str, all: &mut Authorities) {
    if !value.de.is_table() && keys::ACME.keys.contains(&name) {
        let message = format!("`{name}` stands in `[acme]`, which has no name");
        let diagnostic = Diagnostic::error("unnamed-authority", value.key.clone(), message);
        let help = format!("write `[acme.letsencrypt]` above `{name}`");
        return value.cx.report(diagnostic.label("of which authority?").help(help));
    }
    all.names.push(name.to_owned());
    good_name(value.cx, name, &value.key, &format!("`{name}`"));
    if let Some(table) = value.table(&keys::ACME, &format!("`[acme.{name}]`"))
        && let Some(item) = one(&table, name, &value.key)
    {
        all.built.push(Placed { item, name: value.key.clone(), place: value.key.clone() });
    }
}

/// All of it is read, whatever is wrong: all errors are wanted.
fn one(table: &Table<'_>, name: &str, place: &Span) -> Option<Authority> {
    let written = table.text("directory");
    let directory = match &written {
        Some(text) => directory(text),
        None => known(defaults::ACME_DIRECTORY),
    };
    let agreed = agreed(table, directory.as_deref());
    let challenges = [Kind::TlsAlpn01, Kind::Http01].map(|kind| (kind.as_str(), kind));
    let challenge = table.text("challenge").and_then(|text| text.choice(&challenges));
    let contact = contact(table);
    let state = state(table, directory.as_deref());
    let ca = table.text("ca").map(|text| (path(&text, FILE), text));
    let external_account = external_account(table);
    let (ca, roots) = match ca {
        Some((ca, text)) => {
            let roots = Roots::read(ca.as_ref()?);
            let roots = roots.map_err(|problem| bad(&text, "`ca` cannot be used", &problem));
            (ca, roots.ok()?)
        }
        None => (None, roots_of_system(table.cx, place, "no authority can be verified")?),
    };
    agreed.then_some(())?;
    Some(Authority {
        name: name.to_owned(),
        directory: directory?,
        contact,
        challenge: challenge.unwrap_or(defaults::ACME_CHALLENGE),
        state: state?,
        ca,
        roots,
        external_account,
    })
}

fn known(word: &str) -> Option<String> {
    KNOWN.iter().find(|(name, ..)| *name == word).map(|(_, url, _)| (*url).to_owned())
}

fn directory(text: &Text<'_>) -> Option<String> {
    if let Some(url) = known(&text.value) {
        return Some(url);
    }
    let uri: Option<http::Uri> = text.value.parse().ok();
    let host = |uri: &http::Uri| uri.host().is_some_and(|host| !host.is_empty());
    let fault = match &uri {
        Some(uri) if uri.scheme_str() == Some("https") && host(uri) => {
            return Some(text.value.clone());
        }
        Some(uri) if uri.scheme_str() == Some("http") => "accounts and keys need https",
        _ => "not a URL",
    };
    let names = KNOWN.iter().map(|(name, ..)| *name);
    let near = suggest::near(&text.value, names).filter(|_| !text.from_env);
    let help = near.map_or(DIRECTORY_FORM.to_owned(), |near| format!("did you mean \"{near}\"?"));
    let message = format!("`directory` cannot be {}", text.shown());
    text.error("bad-directory", message, fault, &help);
    None
}

/// Nobody agrees to terms by leaving something out.
fn agreed(table: &Table<'_>, directory: Option<&str>) -> bool {
    let terms = KNOWN.iter().find(|(_, url, _)| Some(*url) == directory);
    let where_they_are = match terms {
        Some((.., terms)) => format!("read {terms}"),
        None => "read them: the authority's directory names them as `termsOfService`".to_owned(),
    };
    let help = format!("{where_they_are}, then write `agree_to_terms = true`");
    match table.get("agree_to_terms") {
        None => {
            table.missing("agree_to_terms", &help);
            false
        }
        Some(value) => match value.flag() {
            Some(false) => {
                let message = "the terms of the authority are not agreed to".to_owned();
                let diagnostic = Diagnostic::error("terms-not-agreed", value.span.clone(), message);
                table.cx.report(diagnostic.label("nothing is ordered without").help(help));
                false
            }
            flag => flag.is_some(),
        },
    }
}

fn contact(table: &Table<'_>) -> Vec<String> {
    let elements = table.elements("contact", "`contact = [\"ops@example.com\"]`");
    let texts = elements.iter().take(MAX_CONTACTS).filter_map(|element| element.text());
    texts
        .filter_map(|text| {
            let address = text.value.strip_prefix("mailto:").unwrap_or(&text.value);
            let good = address.split_once('@').is_some_and(|(user, host)| {
                let user_is_good = user.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
                !user.is_empty() && user_is_good && address::is_host_name(host)
            });
            if !good {
                let message = format!("`contact` cannot have {}", text.shown());
                let help = "write an address such as \"ops@example.com\"";
                text.error("bad-contact", message, "not an e-mail address", help);
            }
            good.then(|| format!("mailto:{address}"))
        })
        .collect()
}

/// Where a directory exists it must be safe; where it does not, whoever runs makes it.
fn state(table: &Table<'_>, directory: Option<&str>) -> Option<PathBuf> {
    const HELP: &str = "write `state = \"/var/lib/cobalance/acme\"`: replicas share it";
    let Some(text) = table.text("state") else {
        let implied = implied::state_directory(table.cx.env());
        if implied.is_none() && table.get("state").is_none() {
            table.missing("state", HELP);
        }
        return implied.map(|path| path.join(defaults::ACME_STATE));
    };
    let state = path(&text, HELP)?;
    let vault = Vault::new(&state, directory.unwrap_or_default());
    if let Err(error) = vault.check_for_another() {
        let help = "do as it says, or write another directory, which cobalance makes";
        text.error("bad-state", "`state` cannot be used".to_owned(), &error.to_string(), help);
        return None;
    }
    Some(state)
}

fn external_account(table: &Table<'_>) -> Option<ExternalAccount> {
    let title = "`external_account = { key_id = \"ID\", key_file = \"PATH\" }`";
    let table = table.get("external_account")?.table(&keys::EXTERNAL_ACCOUNT, title)?;
    for key in ["key_id", "key_file"] {
        if table.get(key).is_none() {
            table.missing(key, &format!("write {title}, as the authority gave them to you"));
        }
    }
    let (key_id, text) = (table.text("key_id"), table.text("key_file"));
    let text = text?;
    let key_file = path(&text, "write the path of a file that holds the key, in base64url")?;
    let key = key(&key_file).map_err(|what| {
        let help = "put the key into it that the authority gave you with the id, as it is";
        text.error("bad-secret", "`key_file` cannot be used".to_owned(), &what, help);
    });
    Some(ExternalAccount { key_id: key_id?.value, key: key.ok()?, key_file })
}

/// Repeats nothing of what is in the file.
fn key(file: &Path) -> Result<Vec<u8>, String> {
    let text = match disk::read(file, MAX_KEY_FILE) {
        Ok(text) => text.ok_or("there is no such file")?,
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let text = text.trim_ascii();
    let bare = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    match BASE64_URL_SAFE_NO_PAD.decode(&text[..bare]) {
        Ok(key) if !key.is_empty() => Ok(key),
        _ => Err("it holds no key in base64url".to_owned()),
    }
}

/// What a `[[certificate]]` asks of its authority, which is named by `by`.
pub(super) fn ordered(
    table: &Table<'_>,
    by: &Value<'_>,
    authorities: &Authorities,
) -> Option<Order> {
    for key in ["chain", "key"] {
        if let Some(value) = table.get(key) {
            let message = format!("{} and `acme` are both written", value.name);
            let diagnostic = Diagnostic::error("files-and-acme", value.key.clone(), message);
            let help = "remove it: what is ordered is kept in `state` of the authority";
            table.cx.report(diagnostic.label("where does the certificate come from?").help(help));
        }
    }
    if table.get("domains").is_none() {
        table.missing("domains", "write `domains = [\"crm.example.com\"]`");
    }
    let domains = domains(table);
    let text = by.text()?;
    let authority = authorities.built.iter().find(|one| one.item.name == text.value);
    if !authorities.names.contains(&text.value) {
        unknown(&text, authorities);
    }
    let authority = &authority?.item;
    let vault = Vault::new(&authority.state, &authority.directory);
    let order = Order { authority: authority.name.clone(), domains, vault };
    (!order.domains.is_empty()).then_some(order)
}

fn unknown(text: &Text<'_>, authorities: &Authorities) {
    let names = authorities.names.iter().map(String::as_str);
    let near = suggest::nearest(&text.value, names).filter(|_| !text.from_env);
    let help = near.map_or_else(
        || "write `[acme.NAME]` with `agree_to_terms`, and its name here".to_owned(),
        |near| format!("did you mean \"{near}\"?"),
    );
    let message = format!("there is no authority {}", text.shown());
    let diagnostic = Diagnostic::error("unknown-authority", text.span.clone(), message);
    text.cx().report_absent(diagnostic.label("not the name of an `[acme.NAME]`").help(help));
}

fn domains(table: &Table<'_>) -> Vec<String> {
    let Some(value) = table.get("domains") else { return Vec::new() };
    let Some(elements) = value.elements("`domains = [\"crm.example.com\"]`") else {
        return Vec::new();
    };
    if elements.is_empty() || elements.len() > defaults::ACME_DOMAINS {
        let (most, found) = (defaults::ACME_DOMAINS, elements.len());
        let message = format!("`domains` must have 1 to {most} names");
        let help = "write the names that clients ask for; more than that are several certificates";
        value.error("bad-domain", message, &format!("there are {found}"), help.to_owned());
        return Vec::new();
    }
    let mut domains: Vec<String> = Vec::new();
    for text in elements.iter().filter_map(|element| element.text()) {
        let domain = text.value.to_ascii_lowercase();
        match fault(&domain) {
            Some((label, help)) => {
                let message = format!("no certificate can be ordered for {}", text.shown());
                text.error("bad-domain", message, label, help);
            }
            None if domains.contains(&domain) => {}
            None => domains.push(domain),
        }
    }
    domains
}

/// What keeps an authority from giving a certificate for this, by the challenges that there are.
fn fault(domain: &str) -> Option<(&'static str, &'static str)> {
    const NAME: &str = "write a name such as \"crm.example.com\", without scheme and port";
    if domain.starts_with("*.") {
        let help = "list the names themselves: only a DNS challenge proves a whole domain";
        return Some(("a star stands for names that cannot be looked at", help));
    }
    if !domain.is_ascii() {
        return Some(("not as it is in DNS", "write it in ASCII, as \"xn--…\""));
    }
    if domain.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return Some(("an address, not a name", "write the name that clients ask for"));
    }
    let good = address::is_host_name(domain) && !domain.ends_with('.') && !domain.contains('_');
    (!good).then_some(("not a name", NAME))
}

/// Warns of challenges that nobody could answer.
pub(super) fn reachable(
    cx: &Cx<'_>,
    authorities: &Authorities,
    certificates: &[Placed<Certificate>],
    listeners: &[Placed<Listener>],
) {
    let orders = || certificates.iter().filter_map(|one| one.item.order.as_ref());
    for Placed { item: authority, place, .. } in &authorities.built {
        let used = orders().any(|order| order.authority == authority.name);
        let plain = listeners.iter().any(|one| one.item.certificates.is_empty());
        let warn = |code, message: String, label: &str, help: &str| {
            let diagnostic = Diagnostic::warning(code, place.clone(), message);
            cx.report(diagnostic.label(label).help(help));
        };
        if !used {
            let message = format!("no certificate is ordered from `{}`", authority.name);
            let help = format!("write `acme = \"{}\"` in a `[[certificate]]`", authority.name);
            warn("unused-authority", message, "not used", &help);
        } else if authority.challenge == Kind::Http01 && !plain {
            let message = "`http-01` is looked at over plain HTTP, which no listener speaks";
            let help = "write a `[[listener]]` at port 80 without `certificates`, or \
                        `challenge = \"tls-alpn-01\"`";
            warn("challenge-nowhere", message.to_owned(), "nobody would answer", help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_proven_are_taken() {
        for good in ["crm.example.com", "localhost", "xn--mnchen-3ya.test", "1.a.test"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in [
            "*.a.test",
            "a.test.",
            "https://a.test",
            "a.test:443",
            "10.0.0.1",
            "[::1]",
            "münchen.test",
            "a_b.test",
            "",
            "-a.test",
        ] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_as_authorities_write_it_and_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        for (text, expected) in [
            ("AQID\n", Some(vec![1, 2, 3])),
            ("AQI=", Some(vec![1, 2])),
            ("-_-_", Some(vec![0xfb, 0xff, 0xbf])),
            ("hunter two", None),
            ("", None),
        ] {
            std::fs::write(&file, text).unwrap();
            let found = key(&file);
            assert_eq!(found.as_ref().ok(), expected.as_ref());
            assert!(found.err().is_none_or(|what| !what.contains("hunter")));
        }
        assert!(key(&dir.path().join("none")).unwrap_err().contains("no such file"));
    }
}
