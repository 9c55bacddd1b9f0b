use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::super::affinity::Follow;
use super::super::view::View;
use super::*;
use crate::config;
use crate::health::{HealthState, OperatorState};
use crate::nocobase::Flow;
use crate::snapshot::{self, Parts};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Dial, Registry};

/// Two data threads, which do only what a test has them do: nobody ticks.
struct Rig {
    threads: [Rc<Thread>; 2],
    views: [Rc<View>; 2],
}

impl Rig {
    /// So many nodes, all of them up.
    fn new(nodes: usize, upstream: &str) -> Rig {
        let nodes: Vec<String> = (1..=nodes).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [{}]\n{upstream}\n",
            nodes.join(", ")
        );
        let (config, _) =
            config::load(&config::Source { name: "test".into(), text }, &|_| None).unwrap();
        let metrics = Metrics::new();
        let mut registry = Registry::new(2, metrics.clone());
        let snapshot = Arc::new(snapshot::compile(Arc::new(config), Parts::bare(&mut registry)));
        for member in &snapshot.upstreams[0].nodes {
            member.node.set_health(HealthState::Up);
        }
        let threads = [0, 1].map(|index| {
            let signals = tokio::sync::mpsc::channel(1).0;
            Thread::new(index, snapshot.clone(), signals, metrics.clone(), Dial::Address)
        });
        let views = [threads[0].view(), threads[1].view()];
        Rig { threads, views }
    }

    fn upstream(&self, thread: usize) -> &LocalUpstream {
        &self.views[thread].upstreams[0]
    }

    fn now(&self, thread: usize, wish: &Wish) -> Result<Pick, Nothing> {
        pick_now(&self.threads[thread], self.upstream(thread), wish)
    }

    /// A pick that may wait, on one of the threads.
    async fn wait(&self, thread: usize, wish: &Wish) -> Result<Pick, Unpicked> {
        let deadline = self.threads[thread].wheel.deadline();
        pick(&self.threads[thread], self.upstream(thread), wish, &deadline, u64::MAX).await
    }
}

fn wish(tried: &[usize]) -> Wish {
    Wish {
        safe_to_repeat: true,
        tunnel: false,
        app: 0,
        names_sub_app: false,
        is_bulk: false,
        follow: None,
        hash: None,
        sticky: None,
        tried: tried.to_vec(),
    }
}

type Picked = Result<Pick, Unpicked>;

/// The node that a wait came to, if it is over.
fn poll(future: Pin<&mut impl Future<Output = Picked>>) -> Option<Pick> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(picked) => Some(picked.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn a_limit_holds_from_the_pick_on() {
    let rig = Rig::new(2, "max_requests = 1");
    let any = wish(&[]);
    let picks = [rig.now(0, &any).unwrap(), rig.now(1, &any).unwrap()];
    assert_ne!(picks[0].node, picks[1].node);
    for thread in [0, 1] {
        assert_eq!(rig.now(thread, &any).err(), Some(Nothing::AllFull));
    }
    drop(picks);
    let mut pick = rig.now(1, &any).unwrap();
    let member = &rig.upstream(1).nodes[pick.node];
    let in_flight = InFlight::begin(member, &mut pick);
    drop(pick);
    assert!(is_full(member), "it is the exchange's now");
    drop(in_flight);
    assert!(!is_full(member));
}

#[test]
fn who_came_first_is_first_whatever_thread_it_is_on() {
    let rig = Rig::new(1, "max_requests = 1");
    let any = wish(&[]);
    let held = rig.now(0, &any).unwrap();
    let (mut first, mut second) = (pin!(rig.wait(1, &any)), pin!(rig.wait(0, &any)));
    assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
    drop(held);
    assert!(poll(second.as_mut()).is_none(), "it is the other one's turn");
    assert!(!rig.upstream(0).nodes.iter().any(is_full));
    let mut newest = pin!(rig.wait(0, &any));
    assert!(poll(newest.as_mut()).is_none(), "nor does anybody who comes now go before it");
    let held = poll(first).expect("the first has it");
    assert!(poll(second.as_mut()).is_none());
    drop(held);
    let held = poll(second).expect("then the second");
    assert!(poll(newest.as_mut()).is_none());
    drop(held);
    assert!(poll(newest).is_some());
}

#[test]
fn what_is_free_at_once_is_taken_at_once() {
    let rig = Rig::new(1, "max_requests = 2");
    let any = wish(&[]);
    let held = [rig.now(0, &any).unwrap(), rig.now(1, &any).unwrap()];
    let (mut first, mut second) = (pin!(rig.wait(1, &any)), pin!(rig.wait(0, &any)));
    assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
    drop(held);
    let _first = poll(first).unwrap();
    assert!(poll(second).is_some(), "both were free");
}

#[test]
fn a_turn_goes_on_where_the_first_gives_up() {
    let rig = Rig::new(1, "max_requests = 1");
    let any = wish(&[]);
    let held = rig.now(0, &any).unwrap();
    let mut second = pin!(rig.wait(0, &any));
    {
        let mut first = pin!(rig.wait(1, &any));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        drop(held);
    }
    assert!(poll(second).is_some());
}

#[test]
fn nobody_waits_behind_one_that_waits_for_another_node() {
    let rig = Rig::new(2, "max_requests = 1");
    let (not_first, not_second, any) = (wish(&[0]), wish(&[1]), wish(&[]));
    let _held = rig.now(0, &not_second).unwrap();
    let mut picky = pin!(rig.wait(0, &not_second));
    assert!(poll(picky.as_mut()).is_none());
    let mut other = pin!(rig.wait(1, &any));
    assert!(poll(other.as_mut()).is_none(), "the one before it is asked first");
    assert!(poll(picky.as_mut()).is_none());
    let held = poll(other).expect("it has no use for that node");
    assert_eq!(held.node, 1);
    let mut last = pin!(rig.wait(0, &not_first));
    assert!(poll(last.as_mut()).is_none());
    drop(held);
    assert!(poll(picky.as_mut()).is_none());
    assert_eq!(poll(last).unwrap().node, 1);
}

#[test]
fn who_follows_a_node_that_has_no_turn_for_it_does_not_look_for_ever() {
    let rig = Rig::new(2, "max_requests = 1");
    let _held = rig.now(0, &wish(&[1])).unwrap();
    let node = &rig.upstream(0).nodes[1].local.node;
    node.set_outlier(OutlierState::Probation);
    node.set_operator(OperatorState::Draining);
    let _turn = Probation::claim(node).unwrap();
    let follow = Some(Box::new(Follow::on(Flow::Conversation, node)));
    let follows = Wish { follow, ..wish(&[]) };
    let mut waiting = pin!(rig.wait(0, &follows));
    assert!(poll(waiting.as_mut()).is_none());
    rig.upstream(0).upstream.shared.queue.wake_first();
    assert!(poll(waiting.as_mut()).is_none(), "once for each time that it is woken");
}

#[test]
fn without_a_limit_nobody_waits() {
    let rig = Rig::new(1, "");
    let any = wish(&[]);
    // What waits is of a configuration that had one.
    let queue = &rig.upstream(0).upstream.shared.queue;
    let _place = queue.enter(true, 1).unwrap();
    assert!(!rig.upstream(0).is_waited_for());
    let picks: Vec<Pick> = (0..9).map(|n| rig.now(n % 2, &any).unwrap()).collect();
    assert!(picks.iter().all(|pick| pick.slot.is_none()));
}
