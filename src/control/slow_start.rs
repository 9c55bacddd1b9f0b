//! Which nodes start slowly: those that come back, or are added, while cobalance runs.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::roster::Watched;
use crate::clock;
use crate::config::Role;
use crate::health::Shown;
use crate::snapshot::Upstream;
use crate::upstream::Shared;

/// What a watched node's slow start depends on.
pub(super) struct SlowStart {
    window: Duration,
    shared: Arc<Shared>,
    /// It was there when cobalance started and has not been up yet: that it is found up then says nothing
    /// of when it came up.
    of_the_start: bool,
}

impl SlowStart {
    pub(super) fn new(upstream: &Upstream, of_the_start: bool) -> SlowStart {
        let (window, shared) = (upstream.settings.slow_start, upstream.shared.clone());
        SlowStart { window, shared, of_the_start }
    }

    /// Takes a reloaded file's values.
    pub(super) fn follow(&mut self, upstream: &Upstream) {
        self.window = upstream.settings.slow_start;
        self.shared = upstream.shared.clone();
    }
}

impl Watched {
    /// It goes on with a slow start that began in another process.
    pub(super) fn resume_slow_start(&mut self, since_ns: Option<u64>) {
        if let Some(since_ns) = since_ns.filter(|_| self.node.shown().is_eligible()) {
            self.node.set_slow_since(since_ns);
            self.slow.shared.slow_starts.store(true, Relaxed);
        }
    }

    /// A state has changed: whoever becomes eligible starts slowly, whoever is no longer so does not.
    pub(super) fn follow_slow_start(&mut self, from: Shown, to: Shown) {
        if !to.is_eligible() {
            self.node.set_slow_since(0);
            // Also one that was drained before the start: when it is ready, it may just have been restarted.
            self.slow.of_the_start &= to == Shown::Unchecked;
            return;
        }
        let found_up = std::mem::take(&mut self.slow.of_the_start) && from == Shown::Unchecked;
        if !found_up && !self.slow.window.is_zero() && self.role == Role::Serve {
            self.node.set_slow_since(clock::now_ns());
            self.slow.shared.slow_starts.store(true, Relaxed);
        }
    }
}

/// Ends slow starts that are over, and tells the picks whether there are any.
pub(super) fn end_those_over(upstream: &Upstream, now_ns: u64) {
    let window = clock::nanos(upstream.settings.slow_start);
    let mut any = false;
    for member in &upstream.nodes {
        let since = member.node.slow_since_ns();
        if since != 0 && now_ns.saturating_sub(since) >= window {
            member.node.set_slow_since(0);
        }
        any |= member.node.slow_since_ns() != 0;
    }
    upstream.shared.slow_starts.store(any, Relaxed);
}
