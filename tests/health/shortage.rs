//! Nodes while the process lacks what it takes to ask them.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::origin::Origin;
use crate::support::program::Program;
use crate::support::{Answer, PATIENCE, until};

/// The first probe that finds fault takes the node out, and each is frequent.
const STRICT: &str = "[upstream.app.health_check]\nwatch = false\ninterval = \"100ms\"\nfall = 1\n";

/// Probes with this result, over a connection that was there before.
fn checks(admin: &mut TcpStream, result: &str) -> u64 {
    admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let metrics = Answer::read(admin).expect("the metrics").text();
    let wanted = format!("result=\"{result}\"");
    let mut lines =
        metrics.lines().filter(|line| line.starts_with("cobalance_upstream_checks_total{"));
    let line = lines.find(|line| line.contains(&wanted));
    line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[test]
fn our_own_want_of_descriptors_takes_no_node_out() {
    // Each probe needs a connection of its own.
    let origin = Origin::answering_once(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    );
    let program = Program::with(origin.address, STRICT);
    let mut admin = TcpStream::connect(program.admin()).unwrap();
    admin.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(checks(&mut admin, "good") > 0);
    // What is open stays open; nothing more can be.
    let usual = getrlimit(Resource::Nofile);
    let limit = |current| {
        let limit = Rlimit { current, ..usual };
        prlimit(Some(program.pid()), Resource::Nofile, limit).unwrap()
    };
    limit(Some(3));
    until("many probes that could not be made", || checks(&mut admin, "unasked") >= 5);
    program.until_said("cannot be asked for their health: no file descriptor is left");
    assert_eq!(checks(&mut admin, "refused"), 0);
    assert!(!program.has_said("to=\"down\""));
    limit(usual.current);
    let good = checks(&mut admin, "good");
    until("probes again", || checks(&mut admin, "good") > good);
}
