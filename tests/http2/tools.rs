//! Tools that others have written: curl, nghttp and h2load (Debian's `curl` and `nghttp2-client`).

use std::process::{Command, Output};

use super::support::origin::Origin;
use super::support::until;
use super::{count, proxy, secure};

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} must be installed: {error}"))
}

#[test]
fn curl_speaks_it_with_prior_knowledge_and_over_tls() {
    let origin = Origin::ok("hello");
    let plain = proxy(&origin);
    let url = format!("http://{}/x", plain.address);
    let show = ["-sS", "-w", " %{http_version} %{http_code}"];
    let out = run("curl", &[&show[..], &["--http2-prior-knowledge", &url]].concat());
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hello 2 200");
    let (authority, proxy) = secure(&origin, "");
    let ca = authority.ca();
    let at = format!("a.test:{}:127.0.0.1", proxy.address.port());
    let url = format!("https://a.test:{}/x", proxy.address.port());
    let tls = ["--http2", "--cacert", ca.to_str().unwrap(), "--resolve", &at, &url];
    let out = run("curl", &[&show[..], &tls].concat());
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hello 2 200");
}

#[test]
fn nghttp_shows_an_answer() {
    let origin = Origin::ok("hello");
    let proxy = proxy(&origin);
    let out = run("nghttp", &["-v", &format!("http://{}/x", proxy.address)]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains(":status: 200") && text.contains("hello"), "{text}");
    assert!(text.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1"), "{text}");
}

#[test]
fn ten_thousand_requests_over_a_hundred_streams() {
    let origin = Origin::ok("hello");
    let proxy = proxy(&origin);
    let url = format!("http://{}/x", proxy.address);
    // Also over one connection: ten times what one of HTTP/1.1 carries.
    for (clients, streams) in [("4", "25"), ("1", "100")] {
        let out = run("h2load", &["-n", "10000", "-c", clients, "-m", streams, &url]);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("10000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    }
    until("all are counted", || count(&proxy, "requests_total", &["GET", "200"]) == 20_000.0);
}
