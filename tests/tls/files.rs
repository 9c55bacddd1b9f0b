//! What is said of files of certificates that cannot be used, or not for long.

use std::path::Path;
use std::time::{Duration, SystemTime};

use cobalance::config::{self, Source};

use crate::support::tls::{Authority, Pair, table};

const REST: &str = "[[listener]]\nbind = \"0.0.0.0:443\"\ncertificates = [\"a\"]\n\
    [upstream.nocobase]\nnodes = [\"172.31.0.1:13000\"]\n";

/// All that is said, as the operator sees it.
fn said(text: &str) -> String {
    let source = Source { name: "x.toml".into(), text: text.into() };
    let found = match config::load(&source, &|_| None) {
        Ok((_, found)) => found,
        Err(found) => found,
    };
    config::render(&found, &source, false)
}

fn of_pair(pair: &Pair) -> String {
    said(&format!("{}{REST}", table("a", pair)))
}

fn write(dir: &Path, name: &str, parts: &[&Path]) -> std::path::PathBuf {
    let all: Vec<u8> = parts.iter().flat_map(|part| std::fs::read(part).unwrap()).collect();
    let path = dir.join(name);
    std::fs::write(&path, all).unwrap();
    path
}

#[test]
fn a_good_pair_is_not_spoken_of() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    assert_eq!(of_pair(&pair), "");
    let chain = write(authority.dir.path(), "whole.pem", &[&pair.chain, &authority.ca()]);
    assert_eq!(of_pair(&Pair { chain, ..pair }), "");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_its_remedy() {
    let authority = Authority::new();
    let dir = authority.dir.path();
    let pair = authority.issue("a", &["a.test"]);
    let other = authority.issue("b", &["b.test"]);
    let encrypted = dir.join("encrypted.key");
    std::fs::write(&encrypted, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n").unwrap();
    let broken = dir.join("broken.key");
    std::fs::write(&broken, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
        .unwrap();
    let twisted = write(dir, "twisted.pem", &[&authority.ca(), &pair.chain]);
    let with = |chain: &Path, key: &Path| Pair { chain: chain.into(), key: key.into() };
    let cases = [
        (with(&pair.chain, &other.key), "it does not belong to the first certificate"),
        (with(&dir.join("none"), &pair.key), "it cannot be read"),
        (with(&pair.key, &pair.key), "there is no certificate in it"),
        (with(&pair.chain, &pair.chain), "there is no private key in it"),
        (with(&pair.chain, &encrypted), "openssl pkey"),
        (with(&pair.chain, &broken), "no private key of a known kind"),
        (with(&twisted, &pair.key), "the key belongs to certificate 2"),
    ];
    for (pair, expected) in cases {
        let said = of_pair(&pair);
        assert!(said.starts_with("error[bad-certificate]: the "), "{said}");
        assert!(said.contains(expected) && said.contains("help: "), "{expected}: {said}");
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }
    let both = of_pair(&with(&dir.join("none"), &dir.join("neither")));
    assert_eq!(both.matches("error[bad-certificate]").count(), 2, "{both}");
}

#[test]
fn what_is_no_good_for_clients_is_warned_of_and_used() {
    let authority = Authority::new();
    let at = |days: i64| {
        let by = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    };
    let lives = |from: i64, until: i64| {
        authority.issue_with("a", &["a.test"], |params| {
            (params.not_before, params.not_after) = (at(from).into(), at(until).into());
        })
    };
    let cases = [
        ((-9, -1), "warning[certificate-expired]"),
        ((-9, 13), "warning[certificate-expires]: certificate `a` expires in 1"),
        ((2, 90), "warning[certificate-not-yet]"),
    ];
    for ((from, until), expected) in cases {
        let said = of_pair(&lives(from, until));
        assert!(said.starts_with(expected), "{expected}: {said}");
        assert_eq!(said.matches("warning[").count(), 1, "{said}");
    }
    assert_eq!(of_pair(&lives(-9, 15)), "");
    assert!(of_pair(&authority.issue("a", &[])).starts_with("warning[certificate-without-names]"));
    let pair = authority.issue("a", &["a.test"]);
    let stranger = Authority::new();
    let chain = write(
        authority.dir.path(),
        "odd.pem",
        &[&pair.chain, &stranger.issue("s", &["s.test"]).chain],
    );
    let said = of_pair(&Pair { chain, ..pair });
    assert!(said.contains("certificate 2 in it did not sign the one before it"), "{said}");
}

#[test]
fn names_and_files_beside_certificates_are_checked_too() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let unknown = format!("{}{}", table("example", &pair), REST.replace("\"a\"", "\"exmaple\""));
    let said_of = said(&unknown);
    assert!(said_of.contains("there is no certificate `exmaple`"), "{said_of}");
    assert!(said_of.contains("did you mean \"example\"?"), "{said_of}");
    assert!(said_of.contains("warning[unused-certificate]"), "{said_of}");
    let with = |listener: &str| {
        let rest = REST.replace("[\"a\"]\n", &format!("[\"a\"]\n{listener}\n"));
        said(&format!("{}{rest}", table("a", &pair)))
    };
    assert!(with("client_auth = \"required\"").contains("`client_ca` is missing"));
    let no_ca = format!("client_auth = \"optional\"\nclient_ca = \"{}\"", pair.key.display());
    assert!(with(&no_ca).contains("there is no certificate in it"), "{}", with(&no_ca));
    assert!(with("client_ca = \"x\"").contains("has no effect"));
    let secret = authority.dir.path().join("short");
    std::fs::write(&secret, "hunter2").unwrap();
    let tls = format!("[tls]\nticket_secret_file = \"{}\"\n", secret.display());
    let said_of = said(&format!("{tls}{}{REST}", table("a", &pair)));
    assert!(said_of.contains("fewer than 32") && !said_of.contains("hunter2"), "{said_of}");
    let nowhere = said(&format!(
        "[tls]\nhttps_only = true\n{}",
        REST.replace("certificates = [\"a\"]\n", "")
    ));
    assert!(nowhere.starts_with("warning[https-nowhere]"), "{nowhere}");
}

#[test]
fn no_tls_is_spoken_over_unix_sockets() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let on_socket = REST.replace("0.0.0.0:443", "unix:/run/cobalance.sock");
    let said_of = said(&format!("{}{on_socket}", table("a", &pair)));
    assert!(said_of.starts_with("error[tls-over-unix]: a listener"), "{said_of}");
    assert!(said_of.contains("help: remove `certificates`"), "{said_of}");
    let to_socket = REST.replace("172.31.0.1:13000", "unix:/run/app.sock");
    let upstream = format!("[upstream.nocobase.tls]\nca = \"{}\"\n", authority.ca().display());
    let said_of = said(&format!("{}{to_socket}{upstream}", table("a", &pair)));
    assert!(said_of.starts_with("error[tls-over-unix]: node `unix:/run/app.sock`"), "{said_of}");
    assert!(said_of.contains("help: remove `tls`"), "{said_of}");
}
