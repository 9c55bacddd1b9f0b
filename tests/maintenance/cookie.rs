//! `maintenance on --cookie`: a link that is opened once lets its browser through, until it is over.

use super::*;

/// What a browser opens, and the cookie that it then sends.
struct Browser {
    cookie: String,
}

impl Rig {
    fn on_with_cookie(&self, node: Option<&str>) -> String {
        let wanted = Wanted { cookie: true, node: node.map(str::to_owned), ..Wanted::default() };
        let changed = self.change(Some(wanted)).unwrap();
        assert!(changed.upstreams[0].maintenance.as_ref().unwrap().cookie);
        changed.upstreams[0].link.clone().expect("a link")
    }
}

impl Browser {
    fn open(rig: &Rig, link: &str, more: &str) -> Option<(Browser, Answer)> {
        let answer = ask(&mut connect(rig.address()), &format!("GET {link}"), more);
        let set = answer.field("set-cookie")?;
        let cookie = set.split(';').next().unwrap().to_owned();
        Some((Browser { cookie }, answer))
    }

    fn field(&self) -> String {
        format!("Cookie: a=b; {}; c=d\r\n", self.cookie)
    }

    fn get(&self, rig: &Rig, path: &str) -> Answer {
        ask(&mut connect(rig.address()), &format!("GET {path}"), &self.field())
    }
}

#[test]
fn who_opens_the_link_reaches_the_named_node_and_nobody_else_does() {
    let rig = Rig::start();
    let link = rig.on_with_cookie(Some("n1"));
    let (browser, answer) = Browser::open(&rig, &format!("/admin{}&x=1", &link[1..]), "").unwrap();
    assert_eq!((answer.status, answer.field("location")), (303, Some("/admin?x=1")));
    let set = answer.field("set-cookie").unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Lax") && !set.contains("Secure"), "{set}");
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    for path in ["/", "/api/x:list"] {
        let answer = browser.get(&rig, path);
        assert_eq!((answer.status, answer.text().as_str()), (200, "n1"));
        assert_eq!(get(rig.address(), path, OTHER).status, 503);
    }
    let head =
        rig.nodes[1].seen().iter().rfind(|seen| seen.head.contains("x:list")).unwrap().head.clone();
    assert!(head.contains("Cookie: a=b; c=d\r\n"), "it is hidden from the node: {head}");
    assert_eq!(rig.requests(0), 0);
    // Its WebSocket as well: browsers send cookies with the handshake.
    let mut stream = connect(rig.address());
    write!(
        stream,
        "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         {}Sec-WebSocket-Key: {KEY}\r\n\r\n",
        browser.field()
    )
    .unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
    until("it is a tunnel", || rig.node(1).tunnels() == 1);
    assert_eq!(rig.held(), 0);
}

#[test]
fn an_outer_proxy_s_https_makes_the_cookie_secure() {
    let rig = Rig::start();
    let link = rig.on_with_cookie(None);
    let (_, answer) = Browser::open(&rig, &link, "X-Forwarded-Proto: https\r\n").unwrap();
    assert!(answer.field("set-cookie").unwrap().ends_with("; Secure"));
    assert_eq!(answer.field("location"), Some("/"));
}

#[test]
fn what_is_forged_or_of_another_maintenance_lets_nobody_through() {
    let rig = Rig::start();
    let link = rig.on_with_cookie(None);
    let (browser, _) = Browser::open(&rig, &link, "").unwrap();
    let forged = |text: &str| {
        let last = if text.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &text[..text.len() - 1])
    };
    assert!(Browser::open(&rig, &forged(&link), "").is_none());
    let told = ask(
        &mut connect(rig.address()),
        &format!("GET {}", forged(&link)),
        "Accept: text/html\r\n",
    );
    assert!(told.status == 503 && told.text().contains("too old"), "{}", told.text());
    assert_eq!(Browser { cookie: forged(&browser.cookie) }.get(&rig, "/").status, 503);
    // The token of a link is no cookie.
    let name = browser.cookie.split('=').next().unwrap();
    let token = link.split('=').nth(1).unwrap();
    assert_eq!(Browser { cookie: format!("{name}={token}") }.get(&rig, "/").status, 503);
    assert_eq!(browser.get(&rig, "/").status, 200);
    rig.off();
    let answer = browser.get(&rig, "/");
    assert_eq!(answer.status, 200, "as everybody");
    rig.on("again");
    assert_eq!(browser.get(&rig, "/").status, 503, "nobody asked for a cookie");
    rig.off();
    let other = rig.on_with_cookie(None);
    assert_eq!(browser.get(&rig, "/").status, 503, "another key");
    assert!(Browser::open(&rig, &link, "").is_none());
    assert!(Browser::open(&rig, &other, "").is_some());
}

#[test]
fn new_terms_keep_the_cookie_as_long_as_it_is_asked_for() {
    let rig = Rig::start();
    let link = rig.on_with_cookie(None);
    let (browser, _) = Browser::open(&rig, &link, "").unwrap();
    rig.on_with_cookie(Some("n1"));
    for _ in 0..8 {
        assert_eq!(browser.get(&rig, "/").text(), "n1");
    }
    rig.on("without");
    assert_eq!(browser.get(&rig, "/").status, 503);
}
