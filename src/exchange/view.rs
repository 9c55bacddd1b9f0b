//! A snapshot as one data thread uses it: with its balancers, pools and queues.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::lot::{Lot, Takers};
use crate::balance::sticky::Signer;
use crate::balance::{Balancer, Load};
use crate::config::{self, Role};
use crate::snapshot::{Snapshot, Upstream};
use crate::upstream::LocalNode;
use crate::upstream::parking::{KINDS, Kind};

/// Refusals that are remembered for single apps; more apps at once than that are somebody's game.
const MAX_PASSED_OVER: usize = 64;

/// A snapshot and what belongs to it on this thread.
pub struct View {
    /// The immutable whole.
    pub snapshot: Arc<Snapshot>,
    /// In the order of the snapshot.
    pub upstreams: Vec<LocalUpstream>,
}

/// One upstream on this thread.
pub struct LocalUpstream {
    /// The immutable part.
    pub upstream: Arc<Upstream>,
    /// The nodes that may be picked (no task nodes).
    pub nodes: Vec<LocalMember>,
    /// Chooses among them.
    pub balancer: RefCell<Balancer>,
    /// Whether any node has a limit: otherwise nobody ever waits for one that is below it.
    limited: bool,
    /// Exchanges that are parked, by [`Kind`]: no node is eligible.
    pub lots: Rc<[Lot; 2]>,
    /// Signs sticky cookies.
    pub signer: Option<Signer>,
    /// Room for one pick's loads, by node.
    pub loads: RefCell<Vec<Load>>,
    /// Room for one pick's eligible nodes.
    pub eligible: RefCell<Vec<usize>>,
    /// Requests since the budget was last told of them.
    requests: Cell<u32>,
    passed_over: RefCell<VecDeque<PassedOver>>,
}

/// One node that may be picked.
pub struct LocalMember {
    /// Its pool and counters.
    pub local: Rc<LocalNode>,
    /// 1 to 1000.
    pub weight: u32,
    /// Picked only when no primary node is eligible.
    pub backup: bool,
    /// Requests in flight at most; 0 is no limit.
    pub max_requests: u32,
    /// What stands for it in a sticky cookie.
    pub sticky_key: u64,
    /// What stands for it in hashes: the same on every replica of the balancer.
    identity: u64,
}

/// A node that refused an app a moment ago.
struct PassedOver {
    node: usize,
    app: u64,
    at_ns: u64,
}

impl View {
    /// Compiles the thread's part. Pools of nodes that stay are taken over from the previous view.
    pub fn new(thread: usize, snapshot: Arc<Snapshot>, previous: Option<&View>) -> View {
        let upstreams = snapshot.upstreams.iter();
        let upstreams =
            upstreams.map(|u| LocalUpstream::new(thread, u.clone(), previous)).collect();
        View { snapshot, upstreams }
    }

    /// Every node that may be picked.
    pub fn nodes(&self) -> impl Iterator<Item = &Rc<LocalNode>> {
        self.upstreams.iter().flat_map(|upstream| &upstream.nodes).map(|member| &member.local)
    }

    /// Whether a node is among them.
    pub fn has(&self, local: &LocalNode) -> bool {
        self.nodes().any(|known| Arc::ptr_eq(&known.node, &local.node))
    }

    fn local(&self, node: &Arc<crate::upstream::Node>) -> Option<Rc<LocalNode>> {
        self.nodes().find(|local| Arc::ptr_eq(&local.node, node)).cloned()
    }
}

impl LocalUpstream {
    fn new(thread: usize, upstream: Arc<Upstream>, previous: Option<&View>) -> LocalUpstream {
        let settings = &upstream.settings;
        let signer = settings.sticky.as_ref().map(|sticky| Signer::new(&sticky.secret));
        let local = |member: &crate::snapshot::Member| {
            let known = previous.and_then(|view| view.local(&member.node));
            let local =
                known.unwrap_or_else(|| Rc::new(LocalNode::new(member.node.clone(), thread)));
            local.speak(member.tls.clone(), settings.http2);
            local
        };
        let member = |member: &crate::snapshot::Member| LocalMember {
            local: local(member),
            weight: member.weight,
            backup: member.backup,
            max_requests: member.max_requests,
            sticky_key: signer.as_ref().map_or(0, |signer| signer.node_key(&member.agreed_name)),
            identity: xxh3_64(member.agreed_name.as_bytes()),
        };
        let serving = upstream.nodes.iter().filter(|member| member.role == Role::Serve);
        let nodes: Vec<LocalMember> = serving.map(member).collect();
        let same = |old: &&LocalUpstream| old.upstream.settings.name == settings.name;
        let old = previous.and_then(|view| view.upstreams.iter().find(same));
        let lots = old.map_or_else(|| Rc::new(KINDS.map(Lot::new)), |old| old.lots.clone());
        LocalUpstream {
            balancer: RefCell::new(balancer(settings, &nodes, old)),
            limited: nodes.iter().any(|member| member.max_requests != 0),
            lots,
            requests: Cell::new(0),
            signer,
            eligible: RefCell::default(),
            loads: RefCell::new(vec![Load::default(); nodes.len()]),
            passed_over: RefCell::default(),
            nodes,
            upstream,
        }
    }

    /// Counts a request for the retry budget, which all threads share: it is told by [`Self::settle`].
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Whether exchanges of any data thread wait for a node below its limit.
    pub fn is_waited_for(&self) -> bool {
        self.limited && !self.upstream.shared.queue.is_empty()
    }

    /// The line of what is parked of a kind.
    pub fn lot(&self, kind: Kind) -> &Lot {
        &self.lots[kind as usize]
    }

    /// Lets some of those look that are parked, as soon as there is a node to pick, at the pace of their kind.
    pub fn release_parked(&self, now_ns: u64) {
        if self.lots.iter().all(|lot| lot.line.is_empty()) {
            return;
        }
        let takers = self.takers();
        for kind in KINDS {
            let parked = self.upstream.shared.parking.count(kind);
            self.lot(kind).release(takers, parked, now_ns);
        }
    }

    fn takers(&self) -> Takers {
        let count = |may: &dyn Fn(&LocalNode) -> bool| {
            self.nodes.iter().filter(|member| may(&member.local)).count()
        };
        let eligible = count(&|local| local.node.eligible(false));
        let all = match eligible {
            0 => count(&|local| local.node.may_fail_open()),
            eligible => eligible,
        };
        Takers { all, trials: count(&|local| local.node.eligible(true)) - eligible }
    }

    /// Tells the budget what was counted.
    pub fn settle(&self, now_ns: u64) {
        let requests = self.requests.take();
        if requests > 0 {
            self.upstream.shared.budget.deposit(requests, now_ns / 1_000_000_000);
        }
    }

    /// Remembers that a node refused an app.
    pub fn pass_over(&self, node: usize, app: u64, now_ns: u64) {
        let mut list = self.passed_over.borrow_mut();
        if list.len() == MAX_PASSED_OVER {
            list.pop_front();
        }
        list.push_back(PassedOver { node, app, at_ns: now_ns });
    }

    /// Whether a node refused this app within the last second, and no good probe came since: a good probe
    /// says that only the app is missing there, and it may be back.
    pub fn is_passed_over(&self, node: usize, app: u64, now_ns: u64) -> bool {
        let list = self.passed_over.borrow();
        if list.is_empty() {
            return false;
        }
        list.iter().any(|entry| {
            entry.node == node
                && entry.app == app
                && now_ns.saturating_sub(entry.at_ns) < 1_000_000_000
                && self.nodes[node].local.node.last_good_probe_ns() < entry.at_ns
        })
    }
}

/// Goes on where the last one was when nothing changed that it knows of: reloads would otherwise favour the
/// first node.
fn balancer(
    settings: &config::Upstream,
    nodes: &[LocalMember],
    old: Option<&LocalUpstream>,
) -> Balancer {
    let known = |old: &&LocalUpstream| {
        let before = &old.upstream.settings;
        let (a, b) = (old.nodes.iter(), nodes.iter());
        before.balance == settings.balance
            && before.hash_balance_factor == settings.hash_balance_factor
            && a.map(|m| m.identity).eq(b.map(|m| m.identity))
    };
    if let Some(old) = old.filter(known) {
        return old.balancer.borrow().clone();
    }
    let identities = nodes.iter().map(|member| member.identity).collect();
    Balancer::new(settings.balance, settings.hash_balance_factor, identities)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::health::{HealthState, OutlierState};
    use crate::snapshot::{self, Parts};
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::Registry;
    use crate::upstream::claim::Probation;

    fn view(nodes: usize) -> View {
        let nodes: Vec<String> = (1..=nodes).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [{}]\n",
            nodes.join(", ")
        );
        let source = config::Source { name: "test".into(), text };
        let (config, _) = config::load(&source, &|_| None).unwrap();
        let mut registry = Registry::new(1, Metrics::new());
        View::new(
            0,
            Arc::new(snapshot::compile(Arc::new(config), Parts::bare(&mut registry))),
            None,
        )
    }

    #[test]
    fn replicas_agree_on_a_node_whatever_they_saw_of_its_moves() {
        let text = "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [\"app:1\"]\n\
                    [upstream.u.sticky]\nsecret = \"0123456789abcdef\"\n";
        let source = config::Source { name: "test".into(), text: text.into() };
        let config = Arc::new(config::load(&source, &|_| None).unwrap().0);
        let last = |moves: &[&[&str]]| {
            let mut registry = Registry::new(1, Metrics::new());
            let mut view = None;
            for addresses in moves {
                let found = addresses.iter().map(|address| address.parse().unwrap()).collect();
                let resolved = &[("app:1".to_owned(), Ok(found))].into();
                let parts = Parts { resolved, ..Parts::bare(&mut registry) };
                let snapshot = Arc::new(snapshot::compile(config.clone(), parts));
                view = Some(View::new(0, snapshot, view.as_ref()));
            }
            let nodes = &view.as_ref().unwrap().upstreams[0].nodes;
            nodes.iter().map(|one| (one.sticky_key, one.identity)).collect::<Vec<_>>()
        };
        let (one, two, both) =
            (&["10.0.0.1:1"][..], &["10.0.0.2:1"][..], &["10.0.0.1:1", "10.0.0.2:1"][..]);
        assert_eq!(last(&[one, both, two]), last(&[two]), "and it is who it was");
        assert_eq!(last(&[one, both, two]), last(&[one]));
        assert_eq!(last(&[one, both]), last(&[both]));
        assert_ne!(last(&[both])[0], last(&[both])[1]);
    }

    #[test]
    fn what_is_parked_is_let_go_to_whoever_may_be_picked() {
        let view = view(3);
        let upstream = &view.upstreams[0];
        let takers = |all, trials| Takers { all, trials };
        assert_eq!(upstream.takers(), takers(0, 0));
        let node = |index: usize| upstream.nodes[index].local.node.clone();
        (0..2).for_each(|index| node(index).set_health(HealthState::Up));
        assert_eq!(upstream.takers(), takers(2, 0));
        node(0).set_outlier(OutlierState::Probation);
        assert_eq!(upstream.takers(), takers(1, 1));
        node(1).set_outlier(OutlierState::Ejected);
        assert_eq!(upstream.takers(), takers(0, 1));
        // What may be tried for want of anything better.
        node(2).set_fail_open(true);
        assert_eq!(upstream.takers(), takers(1, 1));
        let _claimed = Probation::claim(&node(0)).unwrap();
        assert_eq!(upstream.takers(), takers(1, 0));
        let _request = upstream.lot(Kind::Request).line.enter(true);
        let page = upstream.lot(Kind::Upgrade).line.enter(true);
        upstream.release_parked(1_000_000_000);
        upstream.release_parked(1_050_000_000);
        let cx = Context::from_waker(Waker::noop());
        assert!(page.poll_turn(&cx).is_ready(), "each kind at its own pace");
    }
}
