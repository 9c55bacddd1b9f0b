//! Nodes whose event loop is late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use cobalance::control::warnings::Kind;

use crate::support::actor::Whole;
use crate::support::origin::Origin;
use crate::support::said::{listen, said};
use crate::support::until;

/// How late a node is.
const LATE: Duration = Duration::from_millis(260);

/// A node in the hands of a test.
#[derive(Clone, Default)]
struct Busy {
    late: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Busy {
    /// Answers everything, but its probes only after a while. (A real one would answer all that late; but
    /// then its requests would tell as well.)
    fn start(&self) -> Origin {
        let node = self.clone();
        Origin::scripted(move |mut line| {
            while let Some(seen) = line.request() {
                if !seen.head.contains("__health_check") {
                    node.requests.fetch_add(1, SeqCst);
                } else if node.late.load(SeqCst) {
                    let begun = Instant::now();
                    while begun.elapsed() < LATE {
                        std::thread::park_timeout(LATE.saturating_sub(begun.elapsed()));
                    }
                }
                line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        })
    }

    /// How many of so many requests came here.
    fn share(&self, whole: &Whole, requests: usize) -> usize {
        let before = self.requests.load(SeqCst);
        (0..requests).for_each(|_| assert_eq!(whole.get().status, 200));
        self.requests.load(SeqCst) - before
    }
}

#[test]
fn a_late_node_is_told_of_and_avoided_and_stays_up() {
    listen();
    let (a, b) = (Busy::default(), Busy::default());
    let origins = [a.start(), b.start()];
    let entries = origins.each_ref().map(|origin| format!("\"{}\"", origin.address));
    let quick = "[upstream.{name}.health_check]\ninterval = \"100ms\"\ntimeout = \"20s\"\n";
    let whole = Whole::start("lag", &entries, quick).until_up();
    let lag = |index: usize| whole.node(index).event_loop_lag_ms;
    until("it is known", || lag(0).is_some() && lag(1).is_some());
    a.late.store(true, SeqCst);
    until("it is late", || lag(0).unwrap() > 200.0);
    let warned = || {
        let all = whole.status().warnings.into_iter();
        all.filter(|one| one.kind == Kind::EventLoopLag).map(|one| one.subject).collect::<Vec<_>>()
    };
    let name = whole.node(0).name;
    until("a warning", || warned().contains(&format!("lag {name}")));
    let metrics = whole.running.handle().metrics().clone();
    let gauge = |family: &prometheus::GaugeVec| family.with_label_values(&["lag", &name]).get();
    assert!(gauge(&metrics.lag) > 0.2);
    // Probes go on, and one is set after the other.
    until("the peak is no less", || {
        let last = gauge(&metrics.lag);
        gauge(&metrics.lag_max) >= last
    });
    // The other one may have been held up for as long, once or twice.
    assert!((0..3).any(|_| a.share(&whole, 40) <= 4), "it gets much");
    let checks = whole.checks(0, "good");
    until("more probes", || whole.checks(0, "good") >= checks + 3);
    let lines = said(&["the event loop of node", &format!("`{name}` of upstream `lag`")]);
    assert_eq!(lines.len(), 1, "once an hour: {lines:?}");
    let node = whole.node(0);
    assert_eq!((node.state.as_str(), node.health.as_str()), ("up", "up"));
    // When it is well again, it is asked again; the peak is remembered.
    a.late.store(false, SeqCst);
    until("it is well", || lag(0).unwrap() < 50.0);
    until("it is asked again", || a.share(&whole, 1) == 1);
    assert!(gauge(&metrics.lag_max) > 0.2);
}
