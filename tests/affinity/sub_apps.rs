//! What a sub-app answers says nothing of the node.

use crate::support::actor::Whole;
use crate::support::origin::Origin;
use crate::support::said::{listen, said};
use crate::support::until;
use crate::{ask, proxy};

const UNAVAILABLE: &str = "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_gateway_error_for_a_named_sub_app_is_not_the_nodes() {
    let node = Origin::answering(UNAVAILABLE);
    let proxy = proxy(&[&node], "");
    let named = [
        ("/api/posts:list", "X-App: hr\r\n"),
        ("/api/posts:list?__appName=hr", ""),
        ("/api/__app/hr/posts:list", ""),
        ("/files/hr/main/attachments/1.png", ""),
    ];
    for (target, fields) in named {
        for _ in 0..10 {
            assert_eq!(ask(&proxy, "GET", target, fields).status, 503, "it is passed on");
        }
        assert_eq!(proxy.node(0).conduct().failures, 0, "{target} {fields}");
    }
    for (target, fields) in [("/api/posts:list", ""), ("/api/posts:list", "X-App: main\r\n")] {
        ask(&proxy, "GET", target, fields);
    }
    until("the main app's are", || proxy.node(0).conduct().failures == 2);
}

/// A node whose app at the host `hr.test` is broken.
fn with_a_broken_app() -> Origin {
    Origin::scripted(|mut line| {
        while let Some(seen) = line.request() {
            match seen.head.contains("Host: hr.test") {
                true => line.send(UNAVAILABLE.as_bytes()),
                false => line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            }
        }
    })
}

#[test]
fn an_app_that_fails_at_all_nodes_by_its_host_ejects_none() {
    listen();
    let nodes = [with_a_broken_app(), with_a_broken_app(), with_a_broken_app()];
    let entries = nodes.each_ref().map(|node| format!("\"{}\"", node.address));
    let quick = "balance = \"round_robin\"\n[upstream.{name}.health_check]\ninterval = \"100ms\"\n";
    let whole = Whole::start("hosts", &entries, quick).until_up();
    let kept = || said(&["a node with failures in a row is like the others", "upstream=\"hosts\""]);
    until("each of them has failed five times in a row", || {
        for _ in 0..18 {
            let mut stream = whole.connect();
            let head = b"GET /api/posts:list HTTP/1.1\r\nHost: hr.test\r\n\r\n";
            std::io::Write::write_all(&mut stream, head).unwrap();
            assert_eq!(crate::Answer::read(&mut stream).unwrap().status, 503);
        }
        assert_eq!(whole.get().text(), "ok");
        kept().len() >= 3
    });
    assert!((0..3).all(|index| whole.node(index).state == "up"));
    assert!((0..3).all(|index| whole.changes(index, "ejected", "ejection") == 0));
}
