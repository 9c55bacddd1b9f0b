//! Probes that could not be made for want of something here: no verdict on any node, and a warning.

use std::time::Duration;

use super::core::Core;
use super::probe::Unasked;
use super::roster::now;
use super::warnings::Kind;
use crate::upstream::NodeKey;

/// The word for it beside those of verdicts.
pub(super) const LABEL: &str = "unasked";
/// Under which the warning stands.
const SUBJECT: &str = "health checks";
/// Without one more of them the warning is taken back: a want that comes and goes is told of once.
const OVER_AFTER: Duration = Duration::from_secs(60);

/// When the last one was.
#[derive(Debug, Default)]
pub(super) struct Want {
    last: Option<Duration>,
}

impl Want {
    /// True once, when it is over.
    fn ends(&mut self, now: Duration) -> bool {
        self.last.take_if(|last| now.saturating_sub(*last) >= OVER_AFTER).is_some()
    }
}

impl Core {
    /// A probe was not made: the node is what it was found to be last, and is asked again in its turn.
    pub(super) fn unasked(&mut self, key: &NodeKey, unasked: Unasked) {
        let Some(watched) = self.roster.nodes.get_mut(key) else { return };
        watched.plan();
        let labels = [key.upstream.as_str(), &watched.node.label, LABEL];
        self.inner.metrics.checks.with_label_values(&labels).inc();
        self.want.last = Some(now());
        let message = format!(
            "nodes cannot be asked for their health: {}. What was found last holds meanwhile. Raise the limit of open \
             files (`LimitNOFILE` in systemd's unit, `ulimit -n`) or widen `net.ipv4.ip_local_port_range`, whichever \
             it is, or lower `max_connections` of the listeners",
            unasked.lack
        );
        self.warn(Kind::Degraded, SUBJECT, message);
    }

    /// Takes the warning back some time after the last of them.
    pub(super) fn look_at_want(&mut self) {
        if self.want.ends(now()) {
            self.warnings.settle(Kind::Degraded, SUBJECT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_is_over_a_minute_after_its_last_sign() {
        let mut want = Want::default();
        assert!(!want.ends(OVER_AFTER * 2), "there was none");
        want.last = Some(OVER_AFTER);
        assert!(!want.ends(OVER_AFTER * 2 - Duration::from_millis(1)));
        assert!(want.ends(OVER_AFTER * 2));
        assert!(!want.ends(OVER_AFTER * 3), "once");
    }
}
