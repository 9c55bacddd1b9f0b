//! Tunnels of NocoBase's pages while a node ends: each is moved at a moment of its own, and what would put a
//! dialog over its page is withheld until then.
//!
//! Two things begin a move: the node's word to control, or a frame in the tunnel itself, which may be quicker.
//! A tunnel from which a frame was withheld gets nothing more from its node, and outlives it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Handle, frames};
use crate::clock;
use crate::exchange::slices::Slices;
use crate::exchange::thread::Thread;
use crate::exchange::view::View;
use crate::nocobase::{self, Dialog, Frame};
use crate::telemetry::metrics::DialogOutcome;
use crate::upstream::{Node, Quiet};

/// Over how long the tunnels of a node that ends are moved, if the pace of moves allows: NocoBase under pm2
/// is killed 1.6 s after it was told to stop. Who is not moved by then only misses notifications.
const WINDOW: Duration = Duration::from_secs(1);
/// A page that has been moved, and whose new tunnel is younger, gets what its node says, unless control
/// knows of it: the app may be one that no node serves.
const YOUNG_NS: u64 = 30_000_000_000;

/// What is known of the page at the end of a tunnel.
pub struct Page {
    /// Where it is remembered.
    pub quiet: Arc<Quiet>,
    /// What stands for its client.
    pub client: u64,
    /// It names an app other than the main one, of whose state on other nodes nothing is known.
    pub sub_app: bool,
    /// When its tunnel was opened.
    pub opened_ns: u64,
    /// The dialog that it was shown, if nothing since has closed it.
    pub under: Cell<Under>,
}

/// The dialog over a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Under {
    /// There is none.
    Nothing,
    /// The progress of what its own user has begun.
    OwnWork,
    /// What nobody could keep from it.
    Outage,
}

/// The tunnels of one data thread that leave nodes which end.
#[derive(Default)]
pub(super) struct Leaving {
    nodes: RefCell<Vec<Ending>>,
    /// These go whatever becomes of their nodes.
    sure: RefCell<Slices<Handle>>,
}

/// A node that ends.
struct Ending {
    node: Arc<Node>,
    due: Slices<Handle>,
    /// Its port was closed when this was made: nobody stays.
    closed: bool,
}

impl Leaving {
    /// Begins the moves that nodes ask for, and closes the tunnels whose moment has come.
    pub(super) fn tick(&self, thread: &Thread, view: &View, now_ns: u64) {
        self.nodes
            .borrow_mut()
            .retain(|one| one.node.is_not_serving() && one.closed == one.node.has_closed_port());
        for upstream in view.upstreams.iter().filter(|one| one.upstream.settings.quiet_restarts) {
            let nodes = upstream.nodes.iter().map(|member| &member.local.node);
            for node in nodes.filter(|node| node.is_not_serving() && node.tunnels() > 0) {
                if !self.has(node) && is_better_left(view, node) {
                    let all = thread.tunnels.live();
                    let leave = all.into_iter().filter(|one| Arc::ptr_eq(one.node(), node));
                    self.begin(thread, node, leave, now_ns);
                }
            }
        }
        let may = || view.snapshot.pace.take(now_ns);
        let sure = |handle: &Handle| {
            // What it withheld it has to make good for.
            handle.page.as_ref().inspect(|page| page.quiet.owe(page.client, true, now_ns));
            leave(handle, true, now_ns);
        };
        self.sure.borrow_mut().tick(now_ns, may, sure);
        for one in &mut *self.nodes.borrow_mut() {
            if !one.due.is_empty() && is_better_left(view, &one.node) {
                one.due.tick(now_ns, may, |handle| leave(handle, one.closed, now_ns));
            }
        }
    }

    fn has(&self, node: &Arc<Node>) -> bool {
        self.nodes.borrow().iter().any(|known| Arc::ptr_eq(&known.node, node))
    }

    fn begin(
        &self,
        thread: &Thread,
        node: &Arc<Node>,
        tunnels: impl Iterator<Item = Rc<Handle>>,
        now_ns: u64,
    ) {
        let mut due = Slices::default();
        let pages = tunnels.filter(|handle| handle.page.is_some());
        due.add(pages, (now_ns, clock::nanos(WINDOW)), &mut thread.rng.borrow_mut());
        let closed = node.has_closed_port();
        self.nodes.borrow_mut().push(Ending { node: node.clone(), due, closed });
    }

    /// A tunnel that was in its handshake when its node said that it ends goes with the others.
    pub(super) fn follow(&self, thread: &Thread, handle: &Rc<Handle>) {
        let mut nodes = self.nodes.borrow_mut();
        let known = nodes.iter_mut().find(|known| Arc::ptr_eq(&known.node, handle.node()));
        if let (Some(known), Some(_)) = (known, &handle.page) {
            let over = (clock::now_ns(), clock::nanos(WINDOW));
            known.due.add([handle.clone()], over, &mut thread.rng.borrow_mut());
        }
    }

    /// To go at a moment of its own, whatever becomes of its node.
    fn release(&self, thread: &Thread, handle: &Rc<Handle>) {
        let over = (clock::now_ns(), clock::nanos(WINDOW));
        let mut rng = thread.rng.borrow_mut();
        self.sure.borrow_mut().add([handle.clone()], over, &mut rng);
    }

    /// Forgets all of them: they are closed for another reason.
    pub(super) fn clear(&self) {
        self.nodes.borrow_mut().clear();
        *self.sure.borrow_mut() = Slices::default();
    }
}

/// Closes a tunnel so that its page comes back at another node, unless it is one of those that stay.
fn leave(handle: &Handle, sure: bool, now_ns: u64) {
    let Some(page) = &handle.page else { return };
    if !sure && page.stays(now_ns) {
        return;
    }
    // Its page may have met the dialog before, in an answer of the API.
    page.quiet.owe(page.client, false, now_ns);
    handle.close(frames::SERVICE_RESTART, now_ns);
}

impl Page {
    /// It is to see what becomes of its node: its user has asked for it, and the dialog with the progress
    /// of that stays where it is.
    fn stays(&self, now_ns: u64) -> bool {
        self.under.get() == Under::OwnWork || self.quiet.is_at_work(self.client, now_ns)
    }

    /// Its tunnel has ended, or soon will. `lost`: not by us, nor by itself, so that something may have been
    /// on its way.
    pub(super) fn parted(&self, lost: bool) {
        if lost || self.under.get() != Under::Nothing {
            self.quiet.owe(self.client, false, clock::now_ns());
        }
    }
}

impl Handle {
    /// Judges a message about the dialog. True: the client does not get it, nor anything after it.
    pub(super) fn withholds(self: &Rc<Self>, thread: &Thread, text: &[u8]) -> bool {
        let (Some(page), Ok(text)) = (&self.page, str::from_utf8(text)) else { return false };
        match nocobase::dialog(text) {
            Dialog::Opens => {}
            Dialog::Closes => {
                page.under.set(Under::Nothing);
                return self.heeds_end(thread, page, text);
            }
            Dialog::Untouched => return false,
        }
        let outcome = self.outcome(thread, page);
        self.node().metrics.ws_dialogs[outcome as usize].inc();
        let withheld = outcome == DialogOutcome::Withheld;
        match outcome {
            DialogOutcome::Withheld => thread.tunnels.leaving.release(thread, self),
            DialogOutcome::AtWork => page.under.set(Under::OwnWork),
            _ => page.under.set(Under::Outage),
        }
        withheld
    }

    fn outcome(&self, thread: &Thread, page: &Page) -> DialogOutcome {
        let (node, now_ns) = (self.node(), clock::now_ns());
        // Control may hear it a moment later, on a connection of its own.
        let known = node.is_not_serving();
        let young = now_ns.saturating_sub(page.opened_ns) < YOUNG_NS;
        if page.stays(now_ns) {
            DialogOutcome::AtWork
        } else if !another_serves(&thread.view(), node) {
            DialogOutcome::Alone
        } else if page.sub_app && !known {
            DialogOutcome::SubApp
        } else if young && !known && page.quiet.was_moved_lately(page.client, now_ns) {
            DialogOutcome::Again
        } else {
            DialogOutcome::Withheld
        }
    }

    /// Its node runs, and says that it will end: nothing is withheld, but it is time to go.
    fn heeds_end(self: &Rc<Self>, thread: &Thread, page: &Page, text: &str) -> bool {
        let ends = matches!(nocobase::parse_frame(text), Frame::Ending(_));
        if ends && !page.sub_app && !page.stays(clock::now_ns()) {
            let view = thread.view();
            if another_serves(&view, self.node()) {
                thread.tunnels.leaving.release(thread, self);
            }
        }
        false
    }

    /// Whether a tunnel whose node is gone is kept open until its turn comes: the pages of a node that
    /// ends would otherwise all come back within the same second.
    pub(super) fn outlives_node(self: &Rc<Self>, thread: &Thread, muted: bool) -> bool {
        let Some(page) = &self.page else { return false };
        if muted {
            return true;
        }
        let moves = self.node().is_not_serving()
            && !page.stays(clock::now_ns())
            && another_serves(&thread.view(), self.node());
        if moves {
            thread.tunnels.leaving.release(thread, self);
        }
        moves
    }
}

/// Where nobody else serves, what a node says is all that its pages get to know, until it has closed its port:
/// then it says nothing more, and without the end of its sockets its process has none.
fn is_better_left(view: &View, node: &Arc<Node>) -> bool {
    another_serves(view, node) || node.has_closed_port()
}

/// Whether another node of the same upstream may be picked, under maintenance by those who are let through.
fn another_serves(view: &View, node: &Arc<Node>) -> bool {
    let same = view.upstreams.iter().find(|one| one.upstream.settings.name == node.key.upstream);
    same.is_some_and(|upstream| {
        let terms = upstream.upstream.shared.maintenance.terms();
        let is_open = |node: &Node| terms.as_ref().is_none_or(|terms| terms.is_open(node));
        let nodes = upstream.nodes.iter().map(|member| &member.local.node);
        let mut others = nodes.filter(|other| !Arc::ptr_eq(other, node));
        others.any(|other| other.eligible(true) && is_open(other))
    })
}
