//! What goes wrong, and what is said of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use cobalance::config::{self, Source};
use cobalance::control::warnings::Kind;

use crate::pebble::Settings;
use crate::rig::{Balancer, Rig, patiently};
use crate::support::ports::Closed;

/// What `status` says is wrong with orders.
fn warning(balancer: &Balancer) -> Option<String> {
    let warnings = balancer.status().warnings;
    let found = warnings.into_iter().find(|one| one.kind == Kind::CertificateOrder);
    found.map(|found| found.message)
}

/// Lets the next attempt begin, as if its time had come; after how many seconds that would have been.
fn again(rig: &Rig) -> i64 {
    let mut noted: serde_json::Value =
        serde_json::from_slice(&fs::read(rig.attempts()).unwrap()).unwrap();
    let wait = noted["next_at"].as_i64().unwrap() - noted["at"].as_i64().unwrap();
    noted["next_at"] = 0.into();
    // Put in place at once: half of it would count as none.
    let (path, new) = (rig.attempts(), rig.dir().join("attempts.new"));
    fs::write(&new, noted.to_string()).unwrap();
    fs::set_permissions(&new, fs::metadata(&path).unwrap().permissions()).unwrap();
    fs::rename(new, path).unwrap();
    wait
}

fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

#[test]
fn an_authority_that_cannot_be_reached_is_left_alone_for_a_while() {
    let mut rig = Rig::start(Settings::default());
    rig.stop_authority();
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    // The warning is there before the attempt is told to have ended.
    balancer.until_state("failing");
    let said = warning(&balancer).unwrap();
    assert!(said.contains("`public` cannot be ordered: https://localhost:"), "{said}");
    assert!(said.contains("Connection refused") && said.contains("Next attempt in "), "{said}");
    let status = balancer.certificate();
    let acme = status.acme.unwrap();
    assert_eq!((acme.state.as_str(), acme.failures, status.not_after), ("failing", 1, 0));
    assert!(acme.next_at > now() + 20 && acme.next_at <= now() + 72, "{acme:?}");
    assert_eq!(balancer.count("acme_orders_total", &["unreachable"]), 1.0);
    assert_eq!(balancer.count("acme_failures", &["public"]), 1.0);
    // Until there is a certificate, nobody gets through a handshake, and it is counted why.
    let error = balancer.connect(rig.trusting(None), "crm.test").err().unwrap().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
    let refused = || balancer.count("tls_handshake_failures_total", &["no_certificate"]);
    patiently("it is counted, once it is told", || refused() == 1.0);
    // What was noted holds for the next process as well.
    balancer.stop();
    rig.start_authority();
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    balancer.until_state("failing");
    assert_eq!(balancer.count("acme_orders_total", &[]), 0.0);
    // The operator knows better.
    let said = warning(&balancer).unwrap();
    let attempts = rig.attempts();
    assert!(said.contains(attempts.to_str().unwrap()), "{said}");
    fs::remove_file(attempts).unwrap();
    balancer.until_state("valid");
    patiently("the warning goes", || warning(&balancer).is_none());
    assert_eq!(balancer.count("acme_failures", &["public"]), 0.0);
}

#[test]
fn an_authority_that_finds_nobody_says_so_and_the_wait_grows() {
    let rig = Rig::start(Settings::default());
    let nobody = Closed::new();
    rig.http.lead_to(nobody.address);
    let balancer = rig.hidden("http-01", &["crm.test", "www.crm.test"], "", "");
    let mut waits = Vec::new();
    for failures in 1..=2 {
        patiently("a failure", || {
            balancer.certificate().acme.is_some_and(|acme| acme.failures == failures)
        });
        let acme = balancer.certificate().acme.unwrap();
        let error = acme.error.unwrap();
        assert!(error.contains("crm.test: "), "{error}");
        assert!(error.contains("must lead to a listener of cobalance"), "{error}");
        waits.push(again(&rig));
    }
    assert!((240..=360).contains(&waits[0]) && (480..=720).contains(&waits[1]), "{waits:?}");
    let challenges =
        rig.files().into_iter().filter(|f| f.to_str().unwrap().contains("/challenges/"));
    assert!(challenges.count() <= 2, "at most those of an order that has begun since");
}

#[test]
fn an_order_that_takes_long_is_asked_for_again_and_not_made_anew() {
    let (rig, authority) = Rig::with_stand_in();
    let balancer = rig.hidden("http-01", &["crm.test"], "", "");
    let failed = |times| balancer.count("acme_orders_total", &["not_issued"]) == f64::from(times);
    patiently("a failure", || failed(1) && warning(&balancer).is_some());
    let said = warning(&balancer).unwrap();
    assert!(said.contains("has not issued the certificate yet"), "{said}");
    assert!(said.contains("Next attempt in 4 min ") || said.contains("in 5 min "), "{said}");
    let wait = again(&rig);
    assert!((300..=360).contains(&wait), "never sooner than it said: {wait}");
    patiently("another", || failed(2));
    assert_eq!((authority.asked("/order"), authority.asked("/finalize")), (1, 1));
    // Also a process that knows nothing else of it has use for what is issued meanwhile.
    balancer.stop();
    authority.issue(rig.sign_kept(&["crm.test"]));
    again(&rig);
    let balancer = rig.hidden("http-01", &["crm.test"], "", "");
    balancer.until_state("valid");
    assert_eq!((authority.asked("/order"), authority.asked("/chain")), (1, 1));
    assert_eq!(rig.order(), None, "its key is with the certificate");
}

#[test]
fn a_request_that_was_lost_is_sent_again_and_an_order_that_was_lost_is_made_anew() {
    let (rig, authority) = Rig::with_stand_in();
    let balancer = rig.hidden("http-01", &["crm.test"], "", "");
    let asked = || (authority.asked("/order"), authority.asked("/finalize"));
    for (times, expected) in [(1, (1, 1)), (2, (1, 2)), (3, (2, 3))] {
        patiently("a failure", || {
            balancer.count("acme_orders_total", &["not_issued"]) == f64::from(times)
        });
        assert_eq!(asked(), expected);
        match times {
            1 => authority.lose_request(),
            2 => authority.lose_order(),
            _ => authority.issue(rig.sign_kept(&["crm.test"])),
        }
        again(&rig);
    }
    balancer.until_state("valid");
    assert_eq!(asked(), (2, 3));
}

#[test]
fn a_directory_that_others_can_write_is_not_used() {
    let mut rig = Rig::start(Settings::default());
    let state = rig.state();
    fs::create_dir(&state).unwrap();
    let open = |bits| fs::set_permissions(&state, Permissions::from_mode(bits)).unwrap();
    let load = |rig: &Rig| {
        let text = rig.text("tls-alpn-01", &["crm.test"], "", "");
        let source = Source { name: "x.toml".into(), text };
        config::load(&source, &|_| None).map_err(|found| config::render(&found, &source, false))
    };
    open(0o770);
    let said = load(&rig).unwrap_err();
    assert!(said.starts_with("error[bad-state]: `state` cannot be used"), "{said}");
    let remedy = format!("others can write in {0}: `chmod 700 {0}`", state.display());
    assert!(said.contains(&remedy), "{said}");
    open(0o700);
    assert!(load(&rig).is_ok());
    rig.stop_authority();
    let balancer = rig.balancer("tls-alpn-01", &["crm.test"], "");
    balancer.until_state("failing");
    // Opened while it runs: nothing is read there, nothing is written.
    open(0o777);
    patiently("it is told", || warning(&balancer).is_some_and(|said| said.contains(&remedy)));
    open(0o700);
    patiently("it is used again", || {
        warning(&balancer).is_some_and(|said| said.contains("localhost"))
    });
}
