use std::sync::Arc;

use super::*;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Registry;

const MS: u64 = 1_000_000;

fn node() -> Arc<Node> {
    let key = NodeKey { upstream: "u".into(), name: "n".into(), address: None };
    Registry::new(2, Metrics::new()).node(key, "n".into())
}

#[test]
fn a_node_that_probes_wait_for_in_vain_is_silent_when_all_requests_have_left_it() {
    let node = node();
    node.head_received(0, 1_000 * MS);
    node.sent(0, 1_100 * MS);
    let latency = |now_ms: u64| node.load(1, 1, now_ms * MS).latency_ns / MS;
    assert_eq!(latency(3_000), 1_900);
    // A probe began at 1,200 ms and gave up at 3,200 ms; then the request was moved.
    node.lost_probe(3_200 * MS, Some(1_200 * MS));
    node.answered(0, 3_200 * MS);
    assert_eq!(latency(3_200), 2_100, "nobody waits there any more, and it is as silent as before");
    node.lost_probe(7_200 * MS, Some(5_200 * MS));
    assert_eq!(latency(7_200), 2_100);
    // It answers something: it was slow.
    node.head_received(1, 7_300 * MS);
    assert_eq!(latency(7_400), 0);
    // Nor is a good probe forgotten for what was lost before.
    node.lost_probe(9_200 * MS, Some(7_500 * MS));
    node.good_probe(9_300 * MS);
    assert_eq!(latency(9_400), 0);
}
