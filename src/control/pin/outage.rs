//! A pinned node that does not serve: nobody takes its place, and clients are told to wait.

use std::collections::HashMap;
use std::time::Instant;

use super::address;
use crate::control::core::Core;
use crate::snapshot::{Snapshot, Upstream};
use crate::upstream::maintenance::Terms;

/// What people are told while the pinned node does not serve.
const OUTAGE: &str =
    "The system is being changed and will be back in a moment. You need not do anything.";

impl Core {
    /// Closes an upstream whose pinned node has not served for as long as exchanges are parked, and opens it
    /// when it serves again, or is pinned no more.
    pub(in crate::control) fn watch_pins(&mut self) {
        let snapshot = self.inner.snapshot.load_full();
        for upstream in &snapshot.upstreams {
            self.follow_address(upstream);
            let pinned = self.roster.pinned(&upstream.settings.name);
            upstream.metrics.pinned.set(i64::from(pinned.is_some()));
            match pinned.filter(|pinned| !pinned.serves(upstream)) {
                None => self.outages.end(upstream),
                Some(pinned) => self.outages.watch(upstream, &pinned.node),
            }
        }
        self.outages.retain(&snapshot);
    }

    /// A container that has come back elsewhere: if its name comes to stand for several, it is the one there.
    fn follow_address(&mut self, upstream: &Upstream) {
        let of = |one: &&mut super::Pinned| one.upstream == upstream.settings.name;
        let Some(pinned) = self.roster.drains.pinned.iter_mut().find(of) else { return };
        let now = pinned.the_one(upstream).and_then(|one| address(&one.node));
        if now.is_some() && now != pinned.address {
            pinned.address = now;
        }
    }
}

/// Upstreams whose pinned node does not serve, and since when.
#[derive(Default)]
pub(in crate::control) struct Outages(HashMap<String, Instant>);

impl Outages {
    fn watch(&mut self, upstream: &Upstream, node: &str) {
        let (name, switch) = (&upstream.settings.name, &upstream.shared.outage);
        let since = *self.0.entry(name.clone()).or_insert_with(Instant::now);
        if !switch.is_on() && since.elapsed() >= upstream.settings.park {
            tracing::warn!(target: "cobalance::pin", upstream = name, node,
                "the pinned node does not serve, and no other takes its place: clients are told to wait");
            switch.begin(Terms { message: OUTAGE.into(), ..Terms::default() });
        }
    }

    fn end(&mut self, upstream: &Upstream) {
        let name = &upstream.settings.name;
        if self.0.remove(name).is_some() && upstream.shared.outage.is_on() {
            tracing::info!(target: "cobalance::pin", upstream = name, "clients are served again");
        }
        upstream.shared.outage.end();
    }

    fn retain(&mut self, snapshot: &Snapshot) {
        self.0.retain(|name, _| snapshot.upstreams.iter().any(|one| one.settings.name == *name));
    }
}
