//! Whether an upstream is closed, and for whom it is not: written by control, read by every exchange, and the
//! same over all snapshots.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;

use super::Node;

mod pass;

pub use pass::{COOKIE_LIFE, LINK_LIFE, Pass, QUERY_KEY};

/// The switch of one upstream.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Odd while it is on; another number after each change.
    state: AtomicU64,
    terms: ArcSwapOption<Terms>,
}

/// What holds while it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Clients, after trusted proxies, that reach the upstream as usual.
    pub allow: Vec<IpNet>,
    /// Lets browsers through that have its cookie; none lets none.
    pub pass: Option<Pass>,
    /// The only node that they reach, by its label or its name as configured; none is any.
    pub node: Option<String>,
    /// What everybody else is told.
    pub message: String,
    /// The state of the switch since these terms hold.
    pub state: u64,
}

impl Maintenance {
    /// Whether it is on. For the way of a request: one relaxed load.
    pub fn is_on(&self) -> bool {
        is_on(self.state.load(Ordering::Relaxed))
    }

    /// Another number after each change; odd while it is on.
    pub fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// What holds now; none while it is off.
    pub fn terms(&self) -> Option<Arc<Terms>> {
        if self.is_on() { self.terms.load_full() } else { None }
    }

    /// Switches it on, or changes its terms. Only control does.
    pub fn begin(&self, terms: Terms) {
        let before = self.state();
        let state = if is_on(before) { before + 2 } else { before + 1 };
        self.terms.store(Some(Arc::new(Terms { state, ..terms })));
        self.state.store(state, Ordering::Release);
    }

    /// Switches it off. Only control does.
    pub fn end(&self) {
        let before = self.state();
        if is_on(before) {
            self.state.store(before + 1, Ordering::Release);
            self.terms.store(None);
        }
    }
}

/// Whether a state of the switch is "on".
#[must_use]
pub fn is_on(state: u64) -> bool {
    state % 2 == 1
}

impl Terms {
    /// Whether a client reaches the upstream as usual.
    pub fn lets_through(&self, client: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&client))
    }

    /// Whether those who are let through may reach this node.
    pub fn is_open(&self, node: &Node) -> bool {
        let named = |name: &String| node.label == *name || node.key.name == *name;
        self.node.as_ref().is_none_or(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_a_state_of_its_own() {
        let switch = Maintenance::default();
        switch.end();
        assert_eq!((switch.state(), switch.terms()), (0, None));
        switch.begin(Terms::default());
        assert_eq!((switch.is_on(), switch.terms().unwrap().state), (true, 1));
        switch.begin(Terms { message: "later".into(), ..Terms::default() });
        let terms = switch.terms().unwrap();
        assert_eq!((terms.state, terms.message.as_str()), (3, "later"));
        switch.end();
        assert_eq!((switch.is_on(), switch.state(), switch.terms()), (false, 4, None));
    }

    #[test]
    fn networks_are_let_through() {
        let allow = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::1/128".parse().unwrap()];
        let terms = Terms { allow, ..Terms::default() };
        for (client, let_through) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("2001:db8::1", true), ("2001:db8::2", false)]
        {
            assert_eq!(terms.lets_through(client.parse().unwrap()), let_through, "{client}");
        }
        assert!(!Terms::default().lets_through([127, 0, 0, 1].into()), "nobody, unless named");
    }
}
