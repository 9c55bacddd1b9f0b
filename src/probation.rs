//! A configuration on probation: whether it does worse than those before it did.
//!
//! What counts are the exchanges that ended since the reload, and those of the five minutes before: which
//! share of them we had to answer ourselves for reasons that a configuration can be the cause of. The nodes
//! whose place in it the reload changed are watched as well. Times are those of one clock, whatever its
//! beginning.

use std::fmt;
use std::time::Duration;

mod odds;
mod past;

pub use odds::chance;
pub use past::Past;

/// Fewer failures are chance, or one user's mistake, however quiet the system.
const LEAST_FAILED: u64 = 5;
/// In so many looks failures must have been seen: a hiccup of the network is one burst.
const LEAST_LOOKS: u32 = 3;
/// A smaller rise is nothing that one would go back for,
const LEAST_RISE: f64 = 0.01;
/// nor is one that is less than double of what is usual.
const LEAST_FACTOR: f64 = 2.0;
/// One false alarm in a thousand reloads, for each group.
const MOST_CHANCE: f64 = 0.001;
/// A rise by half of all requests needs no statistics, and no more time.
const BLATANT: f64 = 0.5;
/// What is blatant counts after this part of the time.
const EARLY_PART: u32 = 6;
/// A node that is out may come up within so many times the time: it is often started after the reload.
const NODE_TIMES: u32 = 2;
/// It ends after so many times the time, however few requests came; so long a node may say that it starts.
const MOST_TIMES: u32 = 10;
/// Looks in the time.
const LOOKS: u32 = 30;

/// Why we answered ourselves, by what in a configuration can be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// No route matched.
    NoRoute,
    /// A node could not be reached, or not over TLS.
    Connect,
    /// No node was eligible.
    NoNode,
    /// What answered was not HTTP.
    Malformed,
    /// A time-out of ours was over.
    Late,
    /// The nodes' limits were reached.
    Full,
}

impl Group {
    /// All, in the order of [`Counts::failed`].
    pub const ALL: [Group; 6] =
        [Group::NoRoute, Group::Connect, Group::NoNode, Group::Malformed, Group::Late, Group::Full];

    fn as_str(self) -> &'static str {
        match self {
            Group::NoRoute => "no route",
            Group::Connect => "no connection to a node",
            Group::NoNode => "no eligible node",
            Group::Malformed => "malformed answers",
            Group::Late => "time-outs",
            Group::Full => "all nodes full",
        }
    }
}

/// What a reason says of a configuration.
enum Says {
    /// It may be the cause.
    Against(Group),
    /// The client was at fault, or nobody was to be served: neither good nor bad.
    Nothing,
}

/// By the names of `error::Cause::reason`. Those that are absent are a node's own end, or a defect of ours:
/// requests like any other.
fn says(reason: &str) -> Option<Says> {
    Some(match reason {
        "destination_not_found" => Says::Against(Group::NoRoute),
        "destination_ip_unroutable"
        | "connection_refused"
        | "connection_timeout"
        | "tls_protocol_error" => Says::Against(Group::Connect),
        "destination_unavailable" | "park_full" | "parked_timeout" => Says::Against(Group::NoNode),
        "http_protocol_error" | "http_response_header_section_size" => {
            Says::Against(Group::Malformed)
        }
        "http_response_timeout" | "connection_read_timeout" | "deadline_exceeded" => {
            Says::Against(Group::Late)
        }
        "queue_full" | "queue_timeout" => Says::Against(Group::Full),
        "http_request_error"
        | "request_body_error"
        | "request_body_too_large"
        | "request_body_timeout"
        | "request_head_too_large"
        | "request_head_timeout"
        | "uri_too_long"
        | "not_implemented"
        | "client_left"
        | "client_stalled"
        | "maintenance"
        | "pinned_unavailable"
        | "guarded_change"
        // An attack is no reason to go back to a file without the limits that were put up against it.
        | "http_request_denied"
        | "rate_limited"
        | "too_many_tunnels"
        | "buffers_full" => Says::Nothing,
        _ => return None,
    })
}

/// Exchanges that ended: since the start, or within a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that say something.
    pub requests: u64,
    /// Of these, those that speak against a configuration, in the order of [`Group::ALL`].
    pub failed: [u64; Group::ALL.len()],
}

impl Counts {
    /// From all exchanges that ended, and how many of them for which reason.
    pub fn of<'a>(all: u64, reasons: impl IntoIterator<Item = (&'a str, u64)>) -> Counts {
        let mut counts = Counts { requests: all, ..Counts::default() };
        for (reason, count) in reasons {
            match says(reason) {
                Some(Says::Against(group)) => counts.failed[group as usize] += count,
                Some(Says::Nothing) => counts.requests = counts.requests.saturating_sub(count),
                None => {}
            }
        }
        counts
    }

    /// What these have more than earlier ones.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        let group = |at: usize| self.failed[at].saturating_sub(earlier.failed[at]);
        Counts {
            requests: self.requests.saturating_sub(earlier.requests),
            failed: std::array::from_fn(group),
        }
    }

    fn share(&self, group: Group) -> Share {
        Share { failed: self.failed[group as usize], requests: self.requests }
    }
}

/// Failures among requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Failures.
    pub failed: u64,
    /// Requests; an exchange may end between two readings, so failures may be more.
    pub requests: u64,
}

impl Share {
    /// Between 0 and 1; 0 of no requests.
    pub fn ratio(self) -> f64 {
        if self.requests == 0 { 0.0 } else { (self.failed as f64 / self.requests as f64).min(1.0) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} requests ({:.1} %)", self.failed, self.requests, self.ratio() * 100.0)
    }
}

/// A group that rose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rise {
    /// Which.
    pub group: Group,
    /// In the time before the reload.
    pub before: Share,
    /// Since.
    pub after: Share,
}

impl fmt::Display for Rise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, before {}", self.group.as_str(), self.after, self.before)
    }
}

/// What has become of a node that the reload concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may be picked.
    Up,
    /// It says that it is starting, or that a command runs.
    Starting,
    /// It is down, ejected, or was not asked yet.
    Out,
    /// The operator has taken it out, or it is gone.
    Excused,
}

/// What is asked of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long it is watched; longer while there is too little to tell.
    pub time: Duration,
    /// Requests that tell enough.
    pub requests: u64,
    /// Whether its routes are others. With the same ones it cannot be the cause of requests without a route,
    /// which anybody can send.
    pub routes_changed: bool,
}

impl Rules {
    /// How often [`Trial::look`] wants to be called.
    pub fn pause(&self) -> Duration {
        (self.time / LOOKS).min(Past::SLICE)
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Passed,
    /// Nothing does, but too few requests came to be sure.
    TooLittleTraffic,
    /// This does.
    Worse {
        /// Groups that rose.
        rises: Vec<Rise>,
        /// The places of nodes that are not up, among those that were looked at.
        nodes: Vec<usize>,
    },
}

/// One configuration under watch.
#[derive(Clone, Debug)]
pub struct Trial {
    rules: Rules,
    begun: Duration,
    before: Counts,
    start: Counts,
    last: Counts,
    /// Looks that found failures, in the order of [`Group::ALL`].
    seen: [u32; Group::ALL.len()],
    /// Enough requests came, and none spoke against it: only nodes are waited for.
    answers_are_good: bool,
}

impl Trial {
    /// Begins now. `before` is what was usual, `totals` are all counts so far.
    pub fn new(rules: Rules, before: Counts, totals: Counts, now: Duration) -> Trial {
        Trial {
            rules,
            begun: now,
            before,
            start: totals,
            last: totals,
            seen: [0; Group::ALL.len()],
            answers_are_good: false,
        }
    }

    /// What was usual before it.
    pub fn before(&self) -> Counts {
        self.before
    }

    /// What came since it began, as of the last look.
    pub fn after(&self) -> Counts {
        self.last.since(&self.start)
    }

    /// When it began.
    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// What is left of the time, zero while it only goes on because there is too little to tell.
    pub fn left(&self, now: Duration) -> Duration {
        (self.begun + self.rules.time).saturating_sub(now)
    }

    /// Looks once: `totals` are all counts so far, `nodes` those that the reload concerns, always in the
    /// same order. Gives the verdict when there is one; it must not be asked again then.
    pub fn look(&mut self, totals: &Counts, nodes: &[Fate], now: Duration) -> Option<Verdict> {
        let new = totals.since(&self.last);
        for (seen, failed) in self.seen.iter_mut().zip(new.failed) {
            *seen += u32::from(failed > 0);
        }
        self.last = *totals;
        let (elapsed, time) = (now.saturating_sub(self.begun), self.rules.time);
        let over = elapsed >= time * MOST_TIMES;
        let enough = self.after().requests >= self.rules.requests;
        let bad = |fate: &Fate| match fate {
            Fate::Up | Fate::Excused => false,
            Fate::Out => elapsed >= time * NODE_TIMES,
            Fate::Starting => over,
        };
        let lost: Vec<usize> = (0..nodes.len()).filter(|at| bad(&nodes[*at])).collect();
        let settled = (enough && elapsed >= time) || over;
        let rises = match (settled && !self.answers_are_good, enough) {
            (true, _) => self.rises(|rise| self.is_worse(rise)),
            (false, true) if elapsed >= time / EARLY_PART => self.rises(is_blatant),
            _ => Vec::new(),
        };
        if !rises.is_empty() || !lost.is_empty() {
            return Some(Verdict::Worse { rises, nodes: lost });
        }
        self.answers_are_good |= settled;
        let waits = nodes.iter().any(|fate| matches!(fate, Fate::Out | Fate::Starting));
        match (self.answers_are_good && !waits, enough) {
            (false, _) => None,
            (true, true) => Some(Verdict::Passed),
            (true, false) => Some(Verdict::TooLittleTraffic),
        }
    }

    fn rises(&self, counts: impl Fn(&Rise) -> bool) -> Vec<Rise> {
        let after = self.after();
        let may = |group: &Group| *group != Group::NoRoute || self.rules.routes_changed;
        let rise =
            |group| Rise { group, before: self.before.share(group), after: after.share(group) };
        let often = |rise: &Rise| {
            rise.after.failed >= LEAST_FAILED && self.seen[rise.group as usize] >= LEAST_LOOKS
        };
        let all = Group::ALL.into_iter().filter(may).map(rise);
        all.filter(|rise| often(rise) && counts(rise)).collect()
    }

    /// With too few requests before there is nothing to compare with: then only what is blatant counts.
    fn is_worse(&self, rise: &Rise) -> bool {
        let (before, after) = (rise.before.ratio(), rise.after.ratio());
        let unlike = after - before >= LEAST_RISE && after >= LEAST_FACTOR * before;
        let known = self.before.requests >= self.rules.requests;
        is_blatant(rise) || (known && unlike && chance(rise.before, rise.after) <= MOST_CHANCE)
    }
}

fn is_blatant(rise: &Rise) -> bool {
    rise.after.ratio() - rise.before.ratio() >= BLATANT
}

#[cfg(test)]
mod tests;
