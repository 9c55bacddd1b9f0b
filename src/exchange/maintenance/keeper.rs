//! What a data thread does when maintenance begins and ends: tunnels are closed so that their pages come
//! back and are told, and the pages that wait are sent back to the nodes. The same for pages that wait for a
//! pinned node; its tunnels are left to it, which may tell of its own progress there.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::frames;
use super::held::Handle;
use crate::clock;
use crate::config::Preset;
use crate::exchange::slices::Slices;
use crate::exchange::thread::Thread;
use crate::exchange::tunnel;
use crate::exchange::view::{LocalUpstream, View};
use crate::nocobase;
use crate::upstream::{Maintenance, maintenance};

/// Over how long tunnels are closed when maintenance begins, and pages told when it ends, if the pace of
/// moves allows: every page that is told loads itself anew from the nodes.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// What one data thread has to do with maintenance.
#[derive(Default)]
pub struct Keeper {
    held: RefCell<Vec<Weak<Handle>>>,
    /// Each switch and its state when this thread last looked.
    seen: RefCell<Vec<(Arc<Maintenance>, u64)>>,
    tunnels: RefCell<Slices<tunnel::Handle>>,
    releases: RefCell<Slices<Handle>>,
}

impl Keeper {
    /// Adds a WebSocket of ours. What was decided during its handshake holds for it as well.
    pub(super) fn hold(&self, thread: &Thread, handle: &Rc<Handle>) {
        let mut held = self.held.borrow_mut();
        if held.len() == held.capacity() {
            // Room is needed anyway: forget those that ended first.
            held.retain(|weak| weak.strong_count() > 0);
        }
        held.push(Rc::downgrade(handle));
        if thread.draining.get() {
            let code =
                if thread.is_ending() { frames::GOING_AWAY } else { frames::SERVICE_RESTART };
            handle.say(frames::close(code).to_vec(), true, clock::now_ns());
        } else if !switches(&thread.view()).any(|one| Arc::ptr_eq(one, &handle.switch)) {
            self.let_go(thread, vec![handle.clone()]);
        } else if handle.switch.state() != handle.known.get() {
            self.tell(thread, vec![handle.clone()], &handle.switch);
        }
    }

    /// Closes a tunnel that has come about although its upstream is under maintenance, unless its client
    /// is let through.
    pub(in crate::exchange) fn joined(&self, thread: &Thread, tunnel: &Rc<tunnel::Handle>) {
        let view = thread.view();
        let same = |upstream: &&LocalUpstream| tunnel.is_of(&upstream.upstream.settings.name);
        let Some(upstream) = view.upstreams.iter().find(same) else { return };
        let state = upstream.upstream.shared.maintenance.state();
        if maintenance::is_on(state) && tunnel.let_through != state {
            self.close(thread, vec![tunnel.clone()]);
        }
    }

    /// Looks whether anything was switched, and does what is due.
    pub fn tick(&self, thread: &Thread, view: &View, now_ns: u64) {
        for upstream in &view.upstreams {
            let shared = &upstream.upstream.shared;
            if self.has_changed(&shared.maintenance) {
                self.follow(thread, upstream, &shared.maintenance);
                self.close_outside(thread, upstream);
            }
            if self.has_changed(&shared.outage) {
                self.follow(thread, upstream, &shared.outage);
            }
        }
        if self.seen.borrow().len() > switches(view).count() {
            self.forget(thread, view);
        }
        let may = || view.snapshot.pace.take(now_ns);
        if !self.tunnels.borrow().is_empty() {
            let close = |tunnel: &tunnel::Handle| close_tunnel(tunnel, view, now_ns);
            self.tunnels.borrow_mut().tick(now_ns, may, close);
        }
        if !self.releases.borrow().is_empty() {
            self.releases.borrow_mut().tick(now_ns, may, |handle| release(handle, now_ns));
        }
    }

    /// Closes all WebSockets of ours, each at a moment of its own within `window`: the process ends.
    pub fn end(&self, window: Duration, rng: &mut fastrand::Rng) {
        self.close_all(frames::GOING_AWAY, window, rng);
    }

    /// The same because another process has taken over, which holds them from then on.
    pub fn leave(&self, rng: &mut fastrand::Rng) {
        self.close_all(frames::SERVICE_RESTART, WINDOW, rng);
    }

    fn close_all(&self, code: u16, window: Duration, rng: &mut fastrand::Rng) {
        let window = clock::nanos(window).max(1);
        for handle in self.live() {
            let at_ns = clock::now_ns() + rng.u64(0..window);
            handle.say(frames::close(code).to_vec(), true, at_ns);
        }
    }

    /// WebSockets of ours that are open.
    pub fn count(&self) -> usize {
        self.live().len()
    }

    fn live(&self) -> Vec<Rc<Handle>> {
        self.held.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    fn has_changed(&self, switch: &Arc<Maintenance>) -> bool {
        let (state, mut seen) = (switch.state(), self.seen.borrow_mut());
        match seen.iter_mut().find(|(known, _)| Arc::ptr_eq(known, switch)) {
            Some((_, known)) => std::mem::replace(known, state) != state,
            None => {
                seen.push((switch.clone(), state));
                state != 0
            }
        }
    }

    fn follow(&self, thread: &Thread, upstream: &LocalUpstream, switch: &Arc<Maintenance>) {
        let of = |handle: &Rc<Handle>| Arc::ptr_eq(&handle.switch, switch);
        let held = self.live().into_iter().filter(of).collect();
        self.tell(thread, held, switch);
        if switch.is_on() {
            // Nobody is parked any more: they are answered.
            upstream.lots.iter().for_each(|lot| lot.line.wake(usize::MAX));
        }
    }

    /// Closes the tunnels whose clients are not let through.
    fn close_outside(&self, thread: &Thread, upstream: &LocalUpstream) {
        let state = upstream.upstream.shared.maintenance.state();
        if maintenance::is_on(state) {
            let name = &upstream.upstream.settings.name;
            let outside = |t: &Rc<tunnel::Handle>| t.is_of(name) && t.let_through != state;
            self.close(thread, thread.tunnels.live().into_iter().filter(outside).collect());
        }
    }

    /// Tells new terms at once, and the end in slices.
    fn tell(&self, thread: &Thread, held: Vec<Rc<Handle>>, switch: &Maintenance) {
        match switch.terms() {
            Some(terms) => {
                let frame = frames::text(&nocobase::maintaining_frame(&terms.message));
                let new = |handle: &Rc<Handle>| handle.known.get() != terms.state;
                for handle in held.into_iter().filter(new) {
                    handle.known.set(terms.state);
                    handle.say(frame.clone(), false, clock::now_ns());
                }
            }
            None => {
                let over = (clock::now_ns(), clock::nanos(WINDOW));
                self.releases.borrow_mut().add(held, over, &mut thread.rng.borrow_mut());
            }
        }
    }

    fn close(&self, thread: &Thread, tunnels: Vec<Rc<tunnel::Handle>>) {
        let over = (clock::now_ns(), clock::nanos(WINDOW));
        self.tunnels.borrow_mut().add(tunnels, over, &mut thread.rng.borrow_mut());
    }

    /// An upstream that is configured no more is not under maintenance either.
    fn forget(&self, thread: &Thread, view: &View) {
        let known = |switch: &Arc<Maintenance>| switches(view).any(|one| Arc::ptr_eq(one, switch));
        self.seen.borrow_mut().retain(|(switch, _)| known(switch));
        let gone = self.live().into_iter().filter(|handle| !known(&handle.switch)).collect();
        self.let_go(thread, gone);
    }

    /// Nobody switches it off any more: what these clients know of is over all the same.
    fn let_go(&self, thread: &Thread, gone: Vec<Rc<Handle>>) {
        gone.iter().for_each(|handle| handle.known.set(0));
        self.tell(thread, gone, &Maintenance::default());
    }
}

/// All switches of a view.
fn switches(view: &View) -> impl Iterator<Item = &Arc<Maintenance>> {
    let shared = view.upstreams.iter().map(|one| &one.upstream.shared);
    shared.flat_map(|shared| [&shared.maintenance, &shared.outage])
}

/// Ends a tunnel. If maintenance is over before its turn, its page may have met it all the same, in an
/// answer of the API: what takes the overlay down is said first.
fn close_tunnel(tunnel: &tunnel::Handle, view: &View, now_ns: u64) {
    let upstream = view.upstreams.iter().find(|one| tunnel.is_of(&one.upstream.settings.name));
    let over = upstream.is_some_and(|one| {
        one.upstream.settings.preset == Preset::NocoBase && !one.upstream.shared.maintenance.is_on()
    });
    let first = if over { frames::text(&nocobase::running_frame()) } else { Vec::new() };
    tunnel.close_after(first, frames::SERVICE_RESTART, now_ns);
}

/// Has a page load itself anew, unless maintenance has begun again meanwhile.
fn release(handle: &Handle, now_ns: u64) {
    // Who was told of the new terms stays.
    if handle.switch.is_on() && handle.switch.state() == handle.known.get() {
        return;
    }
    let mut farewell = frames::text(&nocobase::running_frame());
    farewell.extend_from_slice(&frames::close(frames::SERVICE_RESTART));
    handle.say(farewell, true, now_ns);
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{self, Source};
    use crate::snapshot::{self, Parts};
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::maintenance::Terms;
    use crate::upstream::{Dial, Registry};

    fn thread() -> Rc<Thread> {
        let text =
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\nnodes = [\"127.0.0.1:9\"]\n";
        let source = Source { name: "test".into(), text: text.into() };
        let (config, _) = config::load(&source, &|_| None).unwrap();
        let metrics = Metrics::new();
        let mut registry = Registry::new(1, metrics.clone());
        let parts = Parts::bare(&mut registry);
        let snapshot = Arc::new(snapshot::compile(Arc::new(config), parts));
        Thread::new(0, snapshot, mpsc::channel(1).0, metrics, Dial::Address)
    }

    /// What is said to a client that comes into our hands now, told of a switch that is on.
    fn said(thread: &Thread, switch: &Arc<Maintenance>) -> Option<Vec<u8>> {
        let keeper = Keeper::default();
        let handle = Handle::new(switch.clone(), switch.state(), thread.wheel.deadline());
        keeper.hold(thread, &handle);
        let later = clock::now_ns() + clock::nanos(WINDOW);
        keeper.tick(thread, &thread.view(), later);
        handle.errand.take().map(|(frames, last)| {
            assert!(last, "nothing follows it");
            frames
        })
    }

    #[test]
    fn a_page_whose_upstream_went_during_its_handshake_is_sent_on() {
        let thread = thread();
        let known = thread.view().upstreams[0].upstream.shared.maintenance.clone();
        let gone = Arc::new(Maintenance::default());
        for switch in [&known, &gone] {
            switch.begin(Terms::default());
        }
        assert_eq!(said(&thread, &known), None, "it waits");
        let farewell = said(&thread, &gone).expect("nobody else will tell it");
        let text = String::from_utf8_lossy(&farewell).into_owned();
        assert!(text.contains("APP_RUNNING"), "{text}");
        assert!(farewell.ends_with(&frames::close(frames::SERVICE_RESTART)));
    }
}
