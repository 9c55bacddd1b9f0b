//! Certificates from an ACME authority: pebble, the one that Let's Encrypt makes for tests, which really looks whether
//! names are ours.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

#[path = "acme/failures.rs"]
mod failures;
#[path = "acme/pebble.rs"]
mod pebble;
#[path = "acme/relay.rs"]
mod relay;
#[path = "acme/replicas.rs"]
mod replicas;
#[path = "acme/rig.rs"]
mod rig;
#[path = "acme/stand_in.rs"]
mod stand_in;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pebble::Settings;
use rig::{Balancer, Rig, patiently};
use support::Answer;

/// Bits of a file's mode.
fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn tls_alpn_gives_a_first_certificate_also_where_clients_need_one() {
    let rig = Rig::start(Settings::default());
    let clients = support::tls::Authority::new();
    let listener =
        format!("client_auth = \"required\"\nclient_ca = \"{}\"", clients.ca().display());
    let balancer = rig.balancer("tls-alpn-01", &["crm.test", "www.crm.test"], &listener);
    balancer.until_state("valid");
    let own = clients.issue("me", &["me.test"]);
    for name in ["crm.test", "www.crm.test"] {
        assert_eq!(balancer.ask(&rig.trusting(Some(&own)), name).unwrap().text(), "hello");
    }
    assert!(balancer.ask(&rig.trusting(None), "crm.test").is_err(), "no certificate, no entry");
    assert_eq!(balancer.count("acme_orders_total", &["ok"]), 1.0);
    // It looks more than once at each.
    patiently("its looks are counted", || {
        balancer.count("acme_challenges_answered_total", &["tls-alpn-01"]) >= 2.0
    });
    let status = balancer.certificate();
    assert_eq!(status.hosts, ["crm.test", "www.crm.test"]);
    assert!(status.not_after > status.not_before && status.not_before > 0);
    let acme = status.acme.unwrap();
    assert!(acme.next_at > status.not_before && acme.error.is_none(), "{acme:?}");
    // Only challenges that are under way are answered to whoever asks for one.
    let mut nosy = rig.trusting(None);
    nosy.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    assert!(balancer.connect(nosy, "crm.test").is_err());
    let state = rig.state();
    assert_eq!(mode(&state), 0o700);
    let files = rig.files();
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    let names: Vec<_> =
        files.iter().map(|f| f.extension().map_or("lock", |e| e.to_str().unwrap())).collect();
    assert_eq!(names, ["json", "pem", "lock"], "an account, a certificate: {files:?}");
}

#[test]
fn http_gives_one_before_redirects_and_only_known_tokens_are_answered() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let rig =
        Rig::start(Settings { external_account: Some(("kid-1", key)), ..Settings::default() });
    let file = rig.dir().join("hmac");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let more = format!(
        "external_account = {{ key_id = \"kid-1\", key_file = \"{}\" }}\n[tls]\nhttps_only = true",
        file.display()
    );
    let balancer = rig.balancer_with("http-01", &["crm.test"], "", &more);
    balancer.until_state("valid");
    assert_eq!(balancer.ask(&rig.trusting(None), "crm.test").unwrap().text(), "hello");
    patiently("its looks are counted", || {
        balancer.count("acme_challenges_answered_total", &["http-01"]) >= 1.0
    });
    let answer = balancer.plain("/.well-known/acme-challenge/unknown");
    assert_eq!(answer.status, 308, "an ordinary request");
    assert!(answer.field("location").unwrap().starts_with("https://crm.test"));
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_beside_what_runs() {
    let rig = Rig::start(Settings { lifetime_s: Some(24), ..Settings::default() });
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    balancer.until_state("valid");
    let account = std::fs::read(rig.account()).unwrap();
    let mut kept = balancer.connect(rig.trusting(None), "crm.test").unwrap();
    let first = kept.conn.peer_certificates().unwrap()[0].to_vec();
    let mut ask = || {
        kept.write_all(b"GET /x HTTP/1.1\r\nHost: crm.test\r\n\r\n").unwrap();
        Answer::read(&mut kept).unwrap().text()
    };
    assert_eq!(ask(), "hello");
    patiently("another certificate", || {
        let client = balancer.connect(rig.trusting(None), "crm.test");
        client.is_ok_and(|client| client.conn.peer_certificates().unwrap()[0].to_vec() != first)
    });
    // Who is there already does not notice.
    assert_eq!(ask(), "hello");
    // It is shown as soon as it is kept.
    patiently("its order is counted", || balancer.count("acme_orders_total", &["ok"]) >= 2.0);
    assert_eq!(std::fs::read(rig.account()).unwrap(), account, "the account is kept");
    assert!(balancer.count("certificate_expiry_seconds", &["public"]) > 0.0);
}

#[test]
fn a_restart_needs_no_order_and_no_authority() {
    let mut rig = Rig::start(Settings::default());
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    balancer.until_state("valid");
    let shown = |balancer: &Balancer, rig: &Rig| {
        let client = balancer.connect(rig.trusting(None), "crm.test").unwrap();
        client.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown(&balancer, &rig);
    balancer.stop();
    rig.stop_authority();
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    assert_eq!(shown(&balancer, &rig), first, "from the first connection on");
    balancer.until_state("valid");
    assert_eq!(balancer.count("acme_orders_total", &[]), 0.0);
    // An authority that has forgotten everybody gets to know us anew.
    balancer.stop();
    rig.start_authority();
    let (account, certificate) = (std::fs::read(rig.account()).unwrap(), rig.certificate());
    std::fs::remove_file(certificate).unwrap();
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    balancer.until_state("valid");
    assert_ne!(shown(&balancer, &rig), first);
    assert_ne!(std::fs::read(rig.account()).unwrap(), account);
}

#[test]
fn a_reload_takes_nothing_away_and_other_names_are_ordered() {
    let rig = Rig::start(Settings::default());
    let program = rig.program("tls-alpn-01", &["crm.test"]);
    let shown = |name: &str| program.shown(rig.trusting(None), name);
    patiently("the first certificate", || shown("crm.test").is_some());
    let first = shown("crm.test").unwrap();
    program.write(&["crm.test", "www.crm.test"]);
    patiently("the reload", || {
        assert!(shown("crm.test").is_some(), "there is always one");
        shown("www.crm.test").is_some()
    });
    assert_ne!(shown("crm.test").unwrap(), first);
    // What was obtained for the names before is still there.
    program.write(&["crm.test"]);
    patiently("the first again", || shown("crm.test").unwrap() == first);
    assert!(!program.said("cannot be ordered"));
}
