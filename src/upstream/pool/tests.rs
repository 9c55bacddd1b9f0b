use tokio::net::UnixStream;

use super::*;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{NodeKey, Registry};

const LIMITS: PoolLimits =
    PoolLimits { max_idle: 2, max_requests: 100, max_age: Duration::from_secs(600) };

fn local() -> Rc<LocalNode> {
    let mut registry = Registry::new(1, Metrics::new());
    let key = NodeKey { upstream: "u".into(), name: "n".into(), address: None };
    Rc::new(LocalNode::new(registry.node(key, "n".into()), 0))
}

/// A connection in use, and the node's end of it.
fn connection(local: &Rc<LocalNode>) -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line =
        Line { socket: Socket::Unix(ours), born_ns: clock::now_ns(), requests: 0, tls: None };
    (Connection::new(local.clone(), line, false), theirs)
}

fn counts(local: &LocalNode) -> (u32, u32) {
    local.node.connections()
}

#[tokio::test]
async fn the_youngest_is_taken_first_and_the_oldest_makes_room() {
    let local = local();
    let (a, _a) = connection(&local);
    let (b, _b) = connection(&local);
    let (c, _c) = connection(&local);
    assert_eq!(counts(&local), (0, 3));
    a.give_back(None, LIMITS, clock::now_ns());
    b.give_back(None, LIMITS, clock::now_ns());
    c.give_back(None, LIMITS, clock::now_ns());
    assert_eq!(counts(&local), (2, 0));
    let now = clock::now_ns();
    let taken = local.take(true, now).unwrap();
    assert!(taken.reused);
    assert_eq!(counts(&local), (1, 1));
}

#[tokio::test]
async fn closed_and_dirty_ones_are_found_before_use() {
    use tokio::io::AsyncWriteExt;
    let local = local();
    let (a, theirs) = connection(&local);
    let (b, mut dirty) = connection(&local);
    a.give_back(None, LIMITS, clock::now_ns());
    b.give_back(None, LIMITS, clock::now_ns());
    drop(theirs);
    dirty.write_all(b"HTTP/1.1 408 x\r\n\r\n").await.unwrap();
    assert!(local.take(true, clock::now_ns()).is_none());
    assert_eq!(counts(&local), (0, 0));
    assert_eq!(local.node.metrics.pool_events[PoolEvent::StaleDetected as usize].get(), 2);
}

#[tokio::test]
async fn the_hint_decides_how_long_one_is_kept() {
    let local = local();
    let second = 1_000_000_000;
    for (hint, kept_s) in [(None, 4), (Some(5), 4), (Some(65), 60), (Some(3), 2)] {
        let (a, _theirs) = connection(&local);
        let now = clock::now_ns();
        a.give_back(hint.map(Duration::from_secs), LIMITS, now);
        assert!(local.take(true, now + kept_s * second - second / 2).is_some(), "{hint:?}");
        let (a, _theirs) = connection(&local);
        let now = clock::now_ns();
        a.give_back(hint.map(Duration::from_secs), LIMITS, now);
        assert!(local.take(true, now + kept_s * second + second).is_none(), "{hint:?}");
    }
    let (a, _theirs) = connection(&local);
    a.give_back(Some(Duration::from_secs(1)), LIMITS, clock::now_ns());
    assert_eq!(counts(&local).0, 0, "a hint of 1 s leaves nothing after the margin");
}

#[tokio::test]
async fn what_is_unsafe_wants_a_fresh_one() {
    let local = local();
    let (a, _theirs) = connection(&local);
    let now = clock::now_ns();
    a.give_back(None, LIMITS, now);
    assert!(local.take(false, now + 1_500_000_000).is_none());
    assert!(local.take(true, now + 1_500_000_000).is_some());
    let (a, _theirs) = connection(&local);
    let now = clock::now_ns();
    a.give_back(None, LIMITS, now);
    local.node.distrust_reuse_until(now + 60_000_000_000);
    assert!(local.take(false, now).is_none());
    assert!(local.take(true, now).is_some());
}

#[tokio::test]
async fn purging_closes_what_expired() {
    let local = local();
    let (a, _theirs) = connection(&local);
    let now = clock::now_ns();
    a.give_back(None, LIMITS, now);
    local.purge(now);
    assert_eq!(counts(&local).0, 1);
    local.purge(now + 5_000_000_000);
    assert_eq!(counts(&local).0, 0);
}
