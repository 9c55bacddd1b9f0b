//! Where it listens and whom it takes for its clients: PROXY headers, Unix sockets, both families of IP.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

#[path = "binding/families.rs"]
mod families;
#[path = "binding/proxy_header.rs"]
mod proxy_header;
#[path = "binding/unix.rs"]
mod unix;

use support::Proxy;
use support::origin::Origin;

/// The sum of all counters of a family that have these labels.
fn count(proxy: &Proxy, family: &str, labels: &[&str]) -> f64 {
    let families = proxy.metrics.registry.gather();
    let Some(family) = families.iter().find(|f| f.name() == format!("cobalance_{family}")) else {
        return 0.0;
    };
    let has = |metric: &&prometheus::proto::Metric| {
        labels.iter().all(|label| metric.get_label().iter().any(|l| l.value() == *label))
    };
    family.get_metric().iter().filter(has).map(|m| m.get_counter().get_value()).sum()
}

/// The value of a field in the head that an origin has seen last.
fn last_field(origin: &Origin, name: &str) -> String {
    let seen = origin.seen();
    let head = &seen.last().expect("a request").head;
    support::origin::field(head, name).unwrap_or_default().to_owned()
}
