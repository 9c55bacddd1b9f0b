//! `cobalance pin` and `unpin` as an operator types them, over a reload and a restart.

use std::fs;
use std::net::SocketAddr;

use crate::support::origin::{Origin, node};
use crate::support::program::{Program, get};
use crate::support::until;

fn text(nodes: &[(&str, SocketAddr, &str)]) -> String {
    let entry = |(name, address, more): &(&str, SocketAddr, &str)| {
        format!("{{ name = \"{name}\", address = \"{address}\"{more} }}")
    };
    let nodes: Vec<String> = nodes.iter().map(entry).collect();
    format!(
        "[server]\nthreads = 2\n[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[access_log]\nenabled = false\n[upstream.app]\n\
         nodes = [{}]\n[upstream.app.health_check]\ninterval = \"50ms\"\n",
        nodes.join(", ")
    )
}

struct Rig {
    program: Program,
    nodes: [Origin; 2],
}

impl Rig {
    fn start() -> Rig {
        let nodes = [node("a"), node("b")];
        let list = [("n0", nodes[0].address, ""), ("n1", nodes[1].address, "")];
        let program = Program::of(tempfile::tempdir().unwrap(), &text(&list));
        let rig = Rig { program, nodes };
        rig.until_up();
        rig
    }

    fn until_up(&self) {
        let up = |line: &&str| line.starts_with("app ") && line.contains(" up ");
        until("both are up", || self.table().lines().filter(up).count() == 2);
    }

    fn table(&self) -> String {
        self.run(&["status"]).1
    }

    /// Exit code, and what was printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.program.command(arguments).output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), told)
    }

    fn reload(&self, nodes: &[(&str, SocketAddr, &str)]) -> (i32, String) {
        fs::write(&self.program.file, text(nodes)).unwrap();
        self.run(&["reload"])
    }

    /// Whether only this one answers.
    fn serves_alone(&self, body: char) -> bool {
        (0..10).all(|_| get(self.program.address(), "/").unwrap().ends_with(body))
    }
}

#[test]
fn it_is_said_shown_and_taken_back() {
    let rig = Rig::start();
    let (code, told) = rig.run(&["pin", "n1", "--wait", "--window", "100ms"]);
    let expected =
        "n1 is pinned: it serves alone in app\nn0 is set aside: nothing left\nnothing is left\n";
    assert_eq!((code, told.as_str()), (0, expected));
    assert!(rig.serves_alone('b'));
    let line = rig.program.until_said(" pinned ");
    for part in ["upstream=\"app\"", "node=\"n1\"", "from=\"127.0.0.1\""] {
        assert!(line.contains(part), "{line}");
    }
    let table = rig.table();
    assert!(table.contains("\nn1 is pinned in app for "), "{table}");
    let row = table.lines().find(|line| line.contains("draining")).unwrap();
    assert!(row.ends_with("n1 is pinned, from 127.0.0.1; nothing left; its health: up"), "{row}");
    let (code, told) = rig.run(&["ready", "n0"]);
    assert!(code == 0 && told.contains("serves after `cobalance unpin`"), "{told}");
    let (code, told) = rig.run(&["drain", "n1"]);
    assert!(code == 1 && told.contains("`n1` is pinned") && told.contains("`cobalance unpin`"));
    let (code, told) = rig.run(&["maintenance", "on", "--cookie", "--node", "n0"]);
    assert!(code == 1 && told.contains("`cobalance pin n0` or `cobalance unpin`"), "{told}");
    let (code, told) = rig.run(&["unpin"]);
    let expected = "n1 is pinned in app no more: n0 is up, n1 is up\n";
    assert_eq!((code, told.as_str()), (0, expected));
    assert_eq!(rig.run(&["unpin", "--upstream", "app"]).1, "nothing was pinned in app\n");
    // It starts slowly.
    until("both serve", || !rig.serves_alone('b'));
}

#[test]
fn it_lasts_over_a_reload_and_a_restart() {
    let mut rig = Rig::start();
    let (a, b) = (rig.nodes[0].address, rig.nodes[1].address);
    assert_eq!(rig.run(&["pin", "n1"]).0, 0);
    assert_eq!(rig.reload(&[("n0", a, ", weight = 2"), ("n1", b, "")]).0, 0);
    assert!(rig.serves_alone('b'));
    let third = crate::support::origin::node("c");
    assert_eq!(rig.reload(&[("n0", a, ""), ("n1", b, ""), ("n2", third.address, "")]).0, 0);
    assert!(rig.serves_alone('b'), "one that is added is set aside as well");
    rig.program.restart();
    until("it serves", || get(rig.program.address(), "/").unwrap().ends_with('b'));
    assert!(rig.serves_alone('b'));
    assert_eq!(rig.run(&["unpin"]).0, 0);
    rig.program.restart();
    until("all serve again", || !rig.serves_alone('b'));
}

#[test]
fn a_configuration_that_takes_the_pinned_node_away_is_refused() {
    let mut rig = Rig::start();
    let (a, b) = (rig.nodes[0].address, rig.nodes[1].address);
    assert_eq!(rig.run(&["pin", "n1"]).0, 0);
    for (nodes, part) in [
        (&[("n0", a, "")][..], "this configuration removes it"),
        (&[("n0", a, ""), ("n1", b, ", disabled = true")], "this configuration disables it"),
        (&[("n0", a, ""), ("n1", b, ", role = \"task\"")], "makes it a task node"),
    ] {
        let (code, told) = rig.reload(nodes);
        assert!(code == 78 && told.contains(part) && told.contains("`cobalance unpin`"), "{told}");
        assert!(rig.serves_alone('b'));
    }
    assert!(rig.table().contains("invalid"), "status tells of it");
    // A start has no other configuration to stay with.
    fs::write(&rig.program.file, text(&[("n0", a, "")])).unwrap();
    rig.program.restart();
    until("the other serves", || get(rig.program.address(), "/").unwrap().ends_with('a'));
    let table = rig.table();
    assert!(table.contains("warnings:") && table.contains("`n1` of upstream `app` was pinned"));
    assert_eq!(rig.run(&["unpin"]).0, 0);
    assert!(!rig.table().contains("warnings:"));
}
