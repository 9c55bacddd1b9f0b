//! Which requests pass: method × token × host × origin → verdict.

use super::*;

const FULL: &str = "Bearer full-0123456789abcdef";
const READ: &str = "Bearer read-0123456789abcdef";
/// The password of a browser, as its user gave it: `admin:read-0123456789abcdef`.
const TYPED: &str = "Basic YWRtaW46cmVhZC0wMTIzNDU2Nzg5YWJjZGVm";
const WRONG: &str = "Bearer full-0123456789abcdeg";

fn peer() -> Peer {
    Peer::Address([10, 0, 0, 7].into())
}

fn tokens() -> Option<Tokens> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let admin = crate::config::Admin {
        token_file: write("full", "ops full-0123456789abcdef"),
        read_token_file: write("read", "eyes read-0123456789abcdef"),
        ..Default::default()
    };
    Tokens::read(&admin).unwrap().0
}

fn rules(with_tokens: bool, hosts: &[&str]) -> Rules {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Rules::new(hosts, tokens().filter(|_| with_tokens))
}

fn head(method: &str, target: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// What becomes of a request: the name of its token, or a label.
fn verdict(rules: &Rules, head: &Parts) -> Result<Option<String>, &'static str> {
    rules.judge(head, peer(), Duration::from_secs(1)).map_err(|refusal| refusal.label())
}

/// All of one kind of listener, each row: method, token, host, origin, verdict. Changes are JSON.
fn table(with_tokens: bool, rows: &[(&str, &str, &str, &str, &str)]) {
    for (method, token, host, origin, expected) in rows {
        let mut fields = vec![("host", *host), ("authorization", *token), ("origin", *origin)];
        fields.retain(|(_, value)| !value.is_empty());
        if *method == "POST" {
            fields.push(("content-type", "application/json"));
        }
        let head = head(method, "/api/v1/reload", &fields);
        let found = match verdict(&rules(with_tokens, &[]), &head) {
            Ok(token) => token.unwrap_or_else(|| "passes".into()),
            Err(label) => label.into(),
        };
        assert_eq!(found, *expected, "{method} {token} {host} {origin}");
    }
}

const HERE: &str = "127.0.0.1:9901";
const NAME: &str = "lb.example:9901";

#[test]
fn without_tokens_whoever_reaches_it_by_its_address_may_do_all_and_no_page_may() {
    table(
        false,
        &[
            ("GET", "", HERE, "", "passes"),
            ("HEAD", "", "localhost", "", "passes"),
            ("POST", "", HERE, "", "passes"),
            ("POST", "", HERE, "http://127.0.0.1:9901", "passes"),
            ("POST", FULL, HERE, "", "passes"),
            ("GET", "", NAME, "", "host"),
            ("POST", "", NAME, "", "host"),
            ("POST", "", NAME, "http://lb.example:9901", "host"),
            ("GET", "", "", "", "host"),
            ("GET", "", HERE, "http://evil.example", "origin"),
            ("POST", "", HERE, "http://evil.example", "origin"),
            ("POST", "", HERE, "http://127.0.0.1:8080", "origin"),
            ("POST", "", HERE, "null", "origin"),
            ("POST", "", "localhost:9901", "http://127.0.0.1:9901", "origin"),
        ],
    );
}

#[test]
fn with_tokens_each_may_what_its_token_may_by_any_name_and_no_page_may() {
    table(
        true,
        &[
            ("GET", "", HERE, "", "no_token"),
            ("POST", "", HERE, "", "no_token"),
            ("GET", WRONG, HERE, "", "wrong_token"),
            ("POST", WRONG, HERE, "", "wrong_token"),
            ("GET", READ, HERE, "", "eyes"),
            ("HEAD", READ, NAME, "", "eyes"),
            ("GET", TYPED, HERE, "", "eyes"),
            ("POST", READ, HERE, "", "read_only"),
            ("POST", TYPED, HERE, "http://127.0.0.1:9901", "read_only"),
            ("PUT", READ, HERE, "", "read_only"),
            ("DELETE", READ, HERE, "", "read_only"),
            ("OPTIONS", READ, HERE, "", "read_only"),
            ("GET", FULL, HERE, "", "ops"),
            ("POST", FULL, HERE, "", "ops"),
            ("POST", FULL, NAME, "", "ops"),
            ("POST", FULL, NAME, "https://LB.example:9901", "ops"),
            ("GET", FULL, "", "", "host"),
            ("GET", FULL, HERE, "http://evil.example", "origin"),
            ("POST", FULL, HERE, "http://evil.example", "origin"),
            ("POST", FULL, NAME, "http://evil.example:9901", "origin"),
            ("POST", FULL, NAME, "null", "origin"),
            ("POST", FULL, NAME, "file://lb.example:9901", "origin"),
            ("POST", WRONG, HERE, "http://evil.example", "origin"),
        ],
    );
}

#[test]
fn names_that_can_be_rebound_are_refused() {
    let plain = rules(false, &[]);
    let named = rules(false, &["lb.example"]);
    let both = rules(true, &["lb.example"]);
    let cases = [
        ("localhost", true),
        ("LOCALHOST:9901", true),
        ("cobalance.localhost:1", true),
        ("127.0.0.1", true),
        ("10.1.2.3:9901", true),
        ("[::1]:9901", true),
        ("[::1]", true),
        ("localhost.evil.example", false),
        ("evil.example:9901", false),
        ("127.0.0.1.evil.example", false),
        ("evil.example:localhost", false),
    ];
    for (host, passes) in cases {
        let head = head("GET", "/", &[("host", host), ("authorization", READ)]);
        for rules in [&plain, &named, &both] {
            assert_eq!(verdict(rules, &head).is_ok(), passes, "{host}");
        }
    }
    let of = |host: &str| head("GET", "/", &[("host", host), ("authorization", READ)]);
    assert!(verdict(&named, &of("LB.example:1")).is_ok());
    assert!(verdict(&both, &of("lb.example")).is_ok());
    assert!(verdict(&plain, &of("lb.example")).is_err());
    // Two names, or another one in the target: which is meant?
    let twice = head("GET", "/", &[("host", HERE), ("host", HERE)]);
    assert_eq!(verdict(&plain, &twice), Err("host"));
    let absolute = head("GET", "http://evil.example/", &[("host", HERE)]);
    assert_eq!(verdict(&plain, &absolute), Err("host"));
    let same = head("GET", "http://127.0.0.1:9901/", &[("host", HERE)]);
    assert_eq!(verdict(&plain, &same), Ok(None));
}

#[test]
fn what_a_browser_says_of_a_request_counts() {
    let (plain, with_tokens) = (rules(false, &[]), rules(true, &[]));
    let cases = [
        ("GET", "same-origin", "no-cors", "empty", true),
        ("GET", "none", "navigate", "document", true),
        ("GET", "cross-site", "navigate", "document", true),
        ("GET", "cross-site", "navigate", "iframe", false),
        ("GET", "cross-site", "no-cors", "image", false),
        ("GET", "same-site", "cors", "empty", false),
        ("POST", "same-origin", "cors", "empty", true),
        ("POST", "cross-site", "navigate", "document", false),
        ("POST", "same-site", "cors", "empty", false),
        ("GET", "", "navigate", "iframe", false),
    ];
    for (method, site, mode, dest, passes) in cases {
        let head = head(
            method,
            "/",
            &[
                ("host", HERE),
                ("authorization", FULL),
                ("content-type", "application/json"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ],
        );
        for rules in [&plain, &with_tokens] {
            let expected = passes.then_some(()).ok_or("site");
            assert_eq!(verdict(rules, &head).map(drop), expected, "{method} {site} {dest}");
        }
    }
}

#[test]
fn a_change_needs_the_type_that_forms_cannot_send() {
    let rules = rules(false, &[]);
    let of = |method, kinds: &[&str]| {
        let mut fields = vec![("host", HERE)];
        fields.extend(kinds.iter().map(|kind| ("content-type", *kind)));
        verdict(&rules, &head(method, "/", &fields)).map(drop)
    };
    assert_eq!(of("POST", &["application/json"]), Ok(()));
    assert_eq!(of("POST", &["Application/JSON; charset=utf-8"]), Ok(()));
    assert_eq!(of("GET", &[]), Ok(()));
    for kinds in [
        &["text/plain"][..],
        &["application/x-www-form-urlencoded"],
        &["multipart/form-data; boundary=application/json"],
        &["text/plain", "application/json"],
        &[],
    ] {
        assert_eq!(of("POST", kinds), Err("not_json"), "{kinds:?}");
    }
}

#[test]
fn who_tries_many_tokens_is_not_looked_at_for_a_while() {
    const SHORT: &str = "Bearer short-012345678";
    let rules = rules(true, &[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    std::fs::write(&path, "short-012345678\nfull-0123456789abcdef").unwrap();
    let admin = crate::config::Admin { token_file: Some(path), ..Default::default() };
    rules.renew(Tokens::read(&admin).unwrap().0);
    let of = |token: &str| head("GET", "/", &[("host", HERE), ("authorization", token)]);
    let at = |head: &Parts, peer, second| rules.judge(head, peer, Duration::from_secs(second));
    for last in [false; 9].into_iter().chain([true]) {
        assert_eq!(at(&of(WRONG), peer(), 1), Err(Refusal::WrongToken { last }));
    }
    for guess in [WRONG, ""] {
        assert!(matches!(at(&of(guess), peer(), 1), Err(Refusal::TooManyFailures(_))), "{guess}");
    }
    assert!(at(&of(FULL), peer(), 1).is_ok(), "nobody has guessed that: it is the operator's");
    let refused = at(&of(SHORT), peer(), 1).unwrap_err();
    assert!(matches!(refused, Refusal::TooManyFailures(_)), "not even a right one: {refused:?}");
    let reply = refused.reply();
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["retry-after"]),
        (429, &"6".parse().unwrap())
    );
    let other = Peer::User { uid: 0, pid: None };
    assert!(at(&of(SHORT), other, 1).is_ok(), "others are");
    assert!(at(&of(SHORT), peer(), 10).is_ok());
}

#[test]
fn tokens_are_renewed_for_requests_that_come_then() {
    let rules = rules(true, &[]);
    let head = head("GET", "/", &[("host", HERE), ("authorization", FULL)]);
    assert!(verdict(&rules, &head).is_ok());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    std::fs::write(&path, "other-0123456789abcdef").unwrap();
    let admin = crate::config::Admin { token_file: Some(path), ..Default::default() };
    rules.renew(Tokens::read(&admin).unwrap().0);
    assert_eq!(verdict(&rules, &head), Err("wrong_token"));
}

#[test]
fn what_anybody_can_cause_is_told_of_once_a_second() {
    let rules = rules(true, &[]);
    let tells = |refusal: Refusal, ns| rules.tells(&refusal, ns);
    assert!(tells(Refusal::Host, 5) && !tells(Refusal::Origin, 6) && !tells(Refusal::Site, 7));
    assert!(tells(Refusal::Host, 5 + TELL_EVERY_NS));
    for _ in 0..3 {
        assert!(tells(Refusal::WrongToken { last: false }, 1));
        assert!(tells(Refusal::ReadOnly(None), 1));
        assert!(!tells(Refusal::NoToken, 1), "every browser begins like that");
    }
}
