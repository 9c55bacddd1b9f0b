//! Networks that may come, and those that may not.

use std::io::{Read, Write};
use std::path::Path;

use cobalance::config::{self, Source};
use cobalance::control::warnings::Kind;

use crate::support::actor::{Actor, Whole, entry};
use crate::support::files::put;
use crate::support::origin::Origin;
use crate::support::{Proxy, config as config_of, parse, until};
use crate::{ask, behind_proxy, counter, errors};

const REJECTED: &str = "cobalance_connections_rejected_total";

/// All that is said of a file, as the operator sees it.
fn said(text: &str) -> String {
    let source = Source { name: "x.toml".into(), text: text.into() };
    let found = match config::load(&source, &|_| None) {
        Ok((_, found)) | Err(found) => found,
    };
    config::render(&found, &source, false)
}

fn is_refused(proxy: &Proxy) -> bool {
    let mut stream = proxy.connect();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    !matches!(stream.read(&mut [0; 1]), Ok(1))
}

#[test]
fn a_denied_client_is_reset_and_counted() {
    let origin = Origin::ok("hi");
    let start = |listener: &str| Proxy::start(config_of(&[origin.address], listener, ""));
    let denied = start("deny = [\"127.0.0.0/8\", \"192.0.2.0/24\"]");
    assert!(is_refused(&denied));
    assert_eq!(counter(&denied, REJECTED, "denied"), 1.0);
    let open = &denied.snapshot.listeners[0].open;
    until("its place is given back", || open.load(std::sync::atomic::Ordering::SeqCst) == 0);
    let elsewhere = start("deny = [\"192.0.2.0/24\"]");
    assert_eq!(elsewhere.get("/").text(), "hi");
    let allowed = start("allow = [\"127.0.0.1\"]");
    assert_eq!(allowed.get("/").text(), "hi");
    assert!(is_refused(&start("allow = [\"10.0.0.0/8\"]")));
    assert!(is_refused(&start("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1\"]")), "deny wins");
}

#[test]
fn behind_a_trusted_proxy_each_request_is_judged() {
    let origin = Origin::ok("hi");
    let proxy = behind_proxy(&origin, "deny = [\"192.0.2.0/24\", \"2001:db8::/32\"]", "");
    let mut stream = proxy.connect();
    for (client, status) in [
        ("192.0.2.7", 403),
        ("198.51.100.1", 200),
        ("2001:db8::1", 403),
        ("2001:db9::1", 200),
        ("::ffff:192.0.2.9", 403),
        // What stands before an address that the proxy has added is the client's own word.
        ("192.0.2.7, 198.51.100.1", 200),
        ("198.51.100.1, 192.0.2.7", 403),
    ] {
        assert_eq!(ask(&mut stream, client, "GET /", "").status, status, "{client}");
    }
    until("all are counted", || errors(&proxy, "http_request_denied") == 4);
    let proxy = behind_proxy(&origin, "allow = [\"198.51.100.0/24\"]", "");
    let mut stream = proxy.connect();
    assert_eq!(ask(&mut stream, "198.51.100.9", "GET /", "").status, 200);
    assert_eq!(ask(&mut stream, "127.0.0.1", "GET /", "").status, 403, "not for itself");
}

#[test]
fn a_route_has_lists_of_its_own() {
    let origin = Origin::ok("hi");
    let routes = "[[route]]\npath = \"/admin/*\"\nupstream = \"u\"\nallow = [\"10.0.0.0/8\"]\n\
        [[route]]\npath = \"/api/*\"\nupstream = \"u\"\ndeny = [\"192.0.2.0/24\"]\n\
        [[route]]\nupstream = \"u\"\n";
    let proxy = behind_proxy(&origin, "", routes);
    let mut stream = proxy.connect();
    for (client, path, status) in [
        ("10.1.1.1", "/admin/x", 200),
        ("192.0.2.7", "/admin/x", 403),
        ("192.0.2.7", "/", 200),
        ("192.0.2.7", "/api/users:list", 403),
        ("198.51.100.1", "/api/users:list", 200),
    ] {
        let answer = ask(&mut stream, client, &format!("GET {path}"), "");
        assert_eq!(answer.status, status, "{client} {path}");
        if path.starts_with("/api/") && status == 403 {
            let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(json["error"]["code"], "HTTP_REQUEST_DENIED");
            assert_eq!(json["error"]["maintaining"], false);
        }
    }
    assert_eq!(origin.seen().len(), 3, "nobody else came to a node");
}

#[test]
fn a_bad_file_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deny.txt");
    std::fs::write(&path, "# ours\n192.0.2.0/24\n300.1.1.1/8 # typo\n").unwrap();
    let text = |path: &Path| {
        format!(
            "[[listener]]\nbind = \"0.0.0.0:80\"\ndeny_file = \"{}\"\n\
             [upstream.nocobase]\nnodes = [\"172.31.0.1:13000\"]\n",
            path.display()
        )
    };
    let bad = said(&text(&path));
    assert!(bad.starts_with("error[bad-list]: `deny_file` "), "{bad}");
    assert!(bad.contains("line 3: `300.1.1.1/8` is not an address or a network"), "{bad}");
    assert!(bad.contains("x.toml:3:13") && bad.contains("help: "), "{bad}");
    let gone = said(&text(&dir.path().join("none")));
    assert!(gone.contains("it cannot be read: "), "{gone}");
    std::fs::write(&path, "192.0.2.0/24 ; SBL1\n").unwrap();
    assert_eq!(said(&text(&path)), "");
}

#[test]
fn a_file_that_changes_is_put_in_use_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deny.txt");
    std::fs::write(&path, "192.0.2.0/24\n").unwrap();
    let node = Actor::up("n");
    let more = format!(
        "[[route]]\nupstream = \"app\"\ndeny_file = \"{}\"\n\
         [[route]]\npath = \"/open\"\nupstream = \"app\"\n",
        path.display()
    );
    let whole = Whole::start("app", &[entry(&node, "")], &more).until_up();
    assert_eq!(whole.get().status, 200);
    // Of the list alone: a slow machine makes others.
    let warned = |what: &str| {
        let mut warnings = whole.status().warnings.into_iter();
        warnings.any(|w| w.kind == Kind::ListFile && w.message.contains(what))
    };
    put(&path, "127.0.0.0/8\n::1\n");
    until("the newer list is in use", || whole.get().status == 403);
    assert_eq!(whole.ask("GET", "/open").status, 200);
    put(&path, "10.0.0.0/8\nnonsense\n");
    until("the bad one is told", || warned("line 2: `nonsense`"));
    assert_eq!(whole.get().status, 403, "the last good one stays");
    std::fs::remove_file(&path).unwrap();
    until("its absence is told", || warned("cannot be read"));
    assert_eq!(whole.get().status, 403);
    put(&path, "10.0.0.0/8\n");
    until("it is good again", || whole.get().status == 200 && !warned(""));
}

#[test]
fn a_hundred_thousand_networks_are_read_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deny.txt");
    let line = |n: u32| format!("{}.{}.{}.0/25\n", 20 + n / 65_536, n / 256 % 256, n % 256);
    std::fs::write(&path, (0..100_000).map(line).collect::<String>()).unwrap();
    let origin = Origin::ok("hi");
    let config = parse(&format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
         deny_file = \"{}\"\n[access_log]\nenabled = false\n[server]\nthreads = 1\n\
         [upstream.u]\nnodes = [\"{}\"]\n",
        path.display(),
        origin.address
    ));
    let proxy = Proxy::start(config);
    let mut stream = proxy.connect();
    assert_eq!(ask(&mut stream, "21.1.2.127", "GET /", "").status, 403);
    assert_eq!(ask(&mut stream, "21.1.2.128", "GET /", "").status, 200);
    assert_eq!(proxy.snapshot.lists[0].get().ranges(), 100_000);
}
