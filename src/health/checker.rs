//! From the verdicts of one node's probes to its health.

use std::time::Duration;

use super::{HealthState, Verdict};
use crate::nocobase::{Refusal, RefusalKind};

mod kept;

pub use kept::KeptHealth;

/// Between probes while a state is about to change: three time-outs or refusals are soon seen.
const FAST: Duration = Duration::from_millis(500);
/// Between probes of a node that is out: it is wanted back, but it has other things to do.
const OUT: Duration = Duration::from_secs(1);
/// Probes are spread by this share in both directions, so that those of many balancers drift apart.
const JITTER: f64 = 0.1;
/// A node that said it was ending is believed for so long, whatever its probes say: NocoBase waits for its
/// running jobs without a bound, and one that failed to end must not be out for ever.
const ENDING_MOST: Duration = Duration::from_secs(600);
/// And for so long after it can say no more, because its connection was lost: that may be the end that it
/// spoke of, with its database closed and its port open, or a process that was started anew since.
const ENDING_UNHEARD: Duration = Duration::from_secs(12);
/// For so long an unchecked node never gets traffic, whatever the need.
const UNCHECKED_GRACE: Duration = Duration::from_secs(5);

/// What else is known when a verdict is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The node sent a head to real traffic within the last 2 s.
    pub answered_traffic_recently: bool,
    /// No other node of its tier is eligible.
    pub last_eligible: bool,
    /// One more node may be out without exceeding `max_ejected`.
    pub may_take_out: bool,
}

/// A node's health changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: HealthState,
    /// After.
    pub to: HealthState,
    /// Why, for the log line and `status`.
    pub cause: String,
}

/// The health of one node. Times are since any fixed moment.
///
/// A statement needs no vote, a silence does: `maintaining` takes a node out after one probe, anything
/// else that is bad after `fall` in a row. A time-out moreover takes out nobody who answers real traffic,
/// nor the last eligible node, nor more nodes than `max_ejected`: slow is not dead.
///
/// The first good probe admits a node of which nothing is known, so that a start is quick. After any bad
/// verdict it takes `rise` in a row, also after `starting` and `maintaining`: NocoBase restarts in place
/// at the end of its start command, and with PM2 each probe meets one of several workers, so a single
/// `ok` may come before, or beside, the next refusal. At the fast interval that costs half a second.
#[derive(Clone, Debug)]
pub struct Checker {
    rise: u32,
    fall: u32,
    interval: Duration,
    state: HealthState,
    since: Duration,
    good: u32,
    bad: u32,
    /// Bad ones in a row of which none was a time-out.
    hard: u32,
    last: Option<Verdict>,
    last_bad: Option<Verdict>,
    /// It is down by a row of bad verdicts that did not all say so for certain.
    softly: bool,
    /// Until when it is believed that the node is about to end, if it said so.
    ending: Option<Duration>,
    /// It said so, and neither took that back nor was up since.
    said_ending: bool,
}

impl Checker {
    /// A node of which nothing is known, at `now`. `interval` is that of a node that is up.
    #[must_use]
    pub fn new(rise: u32, fall: u32, interval: Duration, now: Duration) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            interval,
            state: HealthState::Unchecked,
            since: now,
            good: 0,
            bad: 0,
            hard: 0,
            last: None,
            last_bad: None,
            softly: false,
            ending: None,
            said_ending: false,
        }
    }

    /// Takes a reloaded file's thresholds; the state and the rows stay.
    pub fn reconfigure(&mut self, rise: u32, fall: u32, interval: Duration) {
        (self.rise, self.fall, self.interval) = (rise.max(1), fall.max(1), interval);
    }

    /// Counts a verdict, and tells if it changed the node's health.
    pub fn record(
        &mut self,
        verdict: Verdict,
        circumstances: &Circumstances,
        now: Duration,
    ) -> Option<Change> {
        if matches!(verdict, Verdict::NotServing(_) | Verdict::Refused { .. }) {
            // It has come to its end: what answers well after this is another run of it.
            self.ending = None;
        }
        // A NocoBase that is about to close its database answers `ok` until it has.
        let disbelieved = verdict == Verdict::Good && self.is_ending(now);
        self.count(&verdict, disbelieved);
        let to = if disbelieved { self.state } else { self.judge(&verdict, circumstances) };
        self.softly = to == HealthState::Down && self.is_soft(&verdict);
        let cause = self.cause(&verdict);
        if verdict != Verdict::Good {
            self.last_bad = Some(verdict.clone());
        }
        self.last = Some(verdict);
        if to == self.state {
            return None;
        }
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        self.said_ending &= to != HealthState::Up;
        Some(Change { from, to, cause })
    }

    /// Takes what the node says of itself without being asked: a statement, as in a probe's answer. From
    /// one that it is `ending` on, good probes are not believed, for 10 minutes at most.
    pub fn told(&mut self, refusal: Refusal, ending: bool, now: Duration) -> Option<Change> {
        // A statement is judged by nothing but itself.
        let circumstances = Circumstances {
            answered_traffic_recently: false,
            last_eligible: false,
            may_take_out: true,
        };
        let before = self.ending;
        let change = self.record(Verdict::NotServing(refusal), &circumstances, now);
        // What it says on its way to the end is not yet the end: its port may be open.
        self.ending = if ending { Some(now + ENDING_MOST) } else { before };
        self.said_ending |= ending;
        change
    }

    /// Whether it said that it was ending, and good probes do not count because of that.
    #[must_use]
    pub fn is_ending(&self, now: Duration) -> bool {
        self.ending.is_some_and(|until| now < until)
    }

    /// Whether it said that it was ending, and was not up since, whatever probes have found.
    #[must_use]
    pub fn has_said_ending(&self) -> bool {
        self.said_ending
    }

    /// Probes are believed again: the node says that it runs, or nobody listens to it any more.
    pub fn believe_probes(&mut self) {
        (self.ending, self.said_ending) = (None, false);
    }

    /// It can say no more: what it said of its end is believed for a few seconds.
    pub fn unheard(&mut self, now: Duration) {
        self.ending = self.ending.map(|until| until.min(now + ENDING_UNHEARD));
    }

    /// Until the next probe should begin; `jitter` is 0 to 1 at random.
    #[must_use]
    pub fn next_in(&self, jitter: f64) -> Duration {
        let up = self.state == HealthState::Up;
        let open_row = if up { self.bad > 0 } else { self.good > 0 };
        let interval = match self.state {
            HealthState::Unchecked => FAST,
            _ if open_row => FAST,
            HealthState::Up => self.interval,
            HealthState::Starting | HealthState::Maintaining | HealthState::Down => OUT,
        };
        // An operator who asks for more frequent probes gets them in every state.
        interval.min(self.interval).mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0))
    }

    /// The node's health.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Since when it has been so.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// What the last probe found, or what the node has said since.
    #[must_use]
    pub fn last_verdict(&self) -> Option<&Verdict> {
        self.last.as_ref()
    }

    /// What NocoBase said of itself, while that is the last that was held against it.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.last_bad {
            Some(Verdict::NotServing(refusal)) if self.state != HealthState::Up => Some(refusal),
            _ => None,
        }
    }

    /// Whether it is out by silence, or a row with a time-out in it, whatever single probes have found since:
    /// such nodes count towards `max_ejected`, so the caller adds them to the ejected ones when it fills in
    /// [`Circumstances::may_take_out`].
    #[must_use]
    pub fn is_out_softly(&self) -> bool {
        self.softly
    }

    /// Whether, as far as probes know, a request may go to this node when none is eligible: one that
    /// is merely slow, or whose health path is wrong, may work; one that refuses or says that it does
    /// not serve cannot. A node that is up can still be ejected, and may then be asked.
    #[must_use]
    pub fn may_fail_open(&self, now: Duration) -> bool {
        let soft =
            matches!(self.last_bad, None | Some(Verdict::Timeout | Verdict::WrongBody { .. }));
        match self.state {
            HealthState::Up => self.bad == 0 || soft,
            HealthState::Down => soft,
            HealthState::Unchecked => soft && now.saturating_sub(self.since) >= UNCHECKED_GRACE,
            HealthState::Starting | HealthState::Maintaining => false,
        }
    }

    fn count(&mut self, verdict: &Verdict, disbelieved: bool) {
        if disbelieved {
            return;
        }
        let good = *verdict == Verdict::Good;
        // A statement takes effect by itself; a row begins after it.
        let bad = !good && !matches!(verdict, Verdict::NotServing(_));
        let hard = bad && *verdict != Verdict::Timeout;
        self.good = if good { self.good.saturating_add(1) } else { 0 };
        self.bad = if bad { self.bad.saturating_add(1) } else { 0 };
        self.hard = if hard { self.hard.saturating_add(1) } else { 0 };
    }

    /// For a node that is down: what the last whole row was, if this verdict ends one.
    fn is_soft(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::NotServing(_) => false,
            _ if self.hard >= self.fall => false,
            _ => self.softly || self.bad >= self.fall,
        }
    }

    fn judge(&self, verdict: &Verdict, circumstances: &Circumstances) -> HealthState {
        match verdict {
            Verdict::Good => self.after_good(),
            Verdict::NotServing(refusal) => match refusal.kind {
                RefusalKind::Starting => HealthState::Starting,
                RefusalKind::Maintaining => HealthState::Maintaining,
                RefusalKind::Down => HealthState::Down,
            },
            Verdict::Timeout => self.after_timeout(circumstances),
            _ if self.hard >= self.fall => HealthState::Down,
            // Time-outs among them: the row counts, but as softly as its softest part.
            _ => self.after_timeout(circumstances),
        }
    }

    fn after_good(&self) -> HealthState {
        let first = self.state == HealthState::Unchecked && self.last.is_none();
        if first || self.good >= self.rise { HealthState::Up } else { self.state }
    }

    fn after_timeout(&self, circumstances: &Circumstances) -> HealthState {
        let spared = circumstances.answered_traffic_recently
            || circumstances.last_eligible
            || !circumstances.may_take_out;
        match self.state {
            HealthState::Up if self.bad >= self.fall && !spared => HealthState::Down,
            HealthState::Unchecked if self.bad >= self.fall => HealthState::Down,
            // A node that said it was busy and now says nothing is believed: it stays what it said,
            // which also keeps fail open away from it.
            state => state,
        }
    }

    fn cause(&self, verdict: &Verdict) -> String {
        let row = if *verdict == Verdict::Good { self.good } else { self.bad };
        match verdict {
            Verdict::Good => format!("good probes in a row: {row}"),
            Verdict::NotServing(_) => verdict.to_string(),
            _ => format!("bad probes in a row: {row}; the last: {verdict}"),
        }
    }
}

#[cfg(test)]
mod tests;
