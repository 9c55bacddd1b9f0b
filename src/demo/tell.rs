//! What is told: lines with the time, what happened, and how the load fares.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::Metrics;

/// Failures are told one by one, up to so many: then the story is clear.
const TELL_FAILURES: u64 = 20;

/// How the load fared.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// From the start of the demo.
    pub lasted: Duration,
    /// Requests.
    pub sent: u64,
    /// Those with an answer below 400.
    pub answered: u64,
    /// The others that read.
    pub failed_gets: u64,
    /// The others that write.
    pub failed_posts: u64,
    /// Attempts that cobalance repeated on another node.
    pub retried: u64,
    /// Answers by node.
    pub by_node: BTreeMap<String, u64>,
    /// POSTs that were answered and had run exactly once.
    pub ran_once: u64,
    /// POSTs that ran more than once. Anything but 0 is a defect.
    pub ran_twice: u64,
    /// POSTs that were answered 200 and never ran. Anything but 0 is a defect.
    pub never_ran: u64,
    /// WebSockets opened, first ones included.
    pub tunnels: u64,
    /// Nodes that were killed, stopped, or put to work.
    pub mishaps: u64,
}

impl Summary {
    /// Requests without a good answer.
    pub fn failed(&self) -> u64 {
        self.failed_gets + self.failed_posts
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> =
            self.by_node.iter().map(|(node, count)| format!("{node} {count}")).collect();
        writeln!(f, "summary of {:.0} s with {} mishaps", self.lasted.as_secs_f64(), self.mishaps)?;
        writeln!(
            f,
            "  requests   {} sent, {} answered, {} failed ({} GET, {} POST); {} attempts repeated",
            self.sent,
            self.answered,
            self.failed(),
            self.failed_gets,
            self.failed_posts,
            self.retried
        )?;
        writeln!(f, "  by node    {}", nodes.join(", "))?;
        writeln!(
            f,
            "  POSTs      {} ran once, {} ran twice, {} answered without having run",
            self.ran_once, self.ran_twice, self.never_ran
        )?;
        write!(f, "  tunnels    opened {} times for two WebSockets", self.tunnels)
    }
}

type Print = Box<dyn FnMut(&str)>;

/// Tells, and counts.
pub(super) struct Teller {
    started: Instant,
    summary: RefCell<Summary>,
    metrics: RefCell<Option<Arc<Metrics>>>,
    print: RefCell<Print>,
}

impl Teller {
    pub(super) fn new(print: impl FnMut(&str) + 'static) -> Teller {
        Teller {
            started: Instant::now(),
            summary: RefCell::default(),
            metrics: RefCell::default(),
            print: RefCell::new(Box::new(print)),
        }
    }

    /// Where the balancer counts what it repeats.
    pub(super) fn count_retries_of(&self, metrics: Arc<Metrics>) {
        *self.metrics.borrow_mut() = Some(metrics);
    }

    /// A bare line.
    pub(super) fn say(&self, line: &str) {
        (self.print.borrow_mut())(line);
    }

    pub(super) fn header(&self) {
        self.say("   time    sent answered failed repeated  event");
    }

    /// A line with the time, the counts so far, and the event.
    pub(super) fn event(&self, event: &str) {
        let summary = self.summary();
        self.say(&format!(
            "{:>5.1} s  {:>6} {:>8} {:>6} {:>8}  {event}",
            summary.lasted.as_secs_f64(),
            summary.sent,
            summary.answered,
            summary.failed(),
            summary.retried
        ));
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Summary)) {
        count(&mut self.summary.borrow_mut());
    }

    /// Counts and tells a request without a good answer.
    pub(super) fn failure(&self, method: &http::Method, path: &str, why: &str) {
        self.count(|summary| match *method == http::Method::GET {
            true => summary.failed_gets += 1,
            false => summary.failed_posts += 1,
        });
        if self.summary.borrow().failed() <= TELL_FAILURES {
            self.event(&format!("load: {method} {path} failed: {why}"));
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let mut summary = self.summary.borrow().clone();
        summary.lasted = self.started.elapsed();
        summary.retried = self.metrics.borrow().as_deref().map_or(0, retries);
        summary
    }
}

fn retries(metrics: &Metrics) -> u64 {
    let families = metrics.registry.gather();
    let family = families.iter().find(|f| f.name() == "cobalance_upstream_retries_total");
    let series = family.map_or(&[][..], |family| family.get_metric());
    series.iter().map(|series| series.get_counter().get_value() as u64).sum()
}
