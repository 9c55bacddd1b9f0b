//! When a certificate is ordered: decisions about times, in Unix seconds, which are arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tls::Certificate;

/// The layout of a file of attempts. One of another version counts as none.
pub(super) const VERSION: u32 = 1;
/// Two looks of somebody who waits for another process to be done with its order.
pub(super) const ASK_AGAIN_S: i64 = 5;
/// The longest window of any rate limit of Let's Encrypt. Also a clock that was wrong when something was noted must
/// not hold an order up for ever.
pub(super) const LONGEST_S: i64 = 7 * 86_400;
/// Seconds until an order that a process has begun and not ended is begun anew, and at most: who is killed in each of
/// them, as for want of memory, must not have asked for many before anybody notices.
const BEGUN_S: (i64, i64) = (10, 3600);
/// Of so many in a row the last may be under way, and the others are no accident.
const BEGUN_TOLD: u32 = 3;
/// Of a text of an authority's: it goes to a log, and to a terminal.
const MAX_TEXT: usize = 400;

/// Why an attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Kind {
    /// The authority cannot be reached, or has troubles of its own.
    Unreachable,
    /// It does not give this certificate.
    Refused,
    /// It has not come to an end yet, and does not say no.
    NotIssued,
    /// It wants to be left alone for a while.
    RateLimited,
    /// Our own directory cannot be used.
    State,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] =
        [Kind::Unreachable, Kind::Refused, Kind::NotIssued, Kind::RateLimited, Kind::State];

    /// The label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Unreachable => "unreachable",
            Kind::Refused => "refused",
            Kind::NotIssued => "not_issued",
            Kind::RateLimited => "rate_limited",
            Kind::State => "state",
        }
    }

    /// Seconds until the second attempt, and at most between two. Let's Encrypt allows five failed validations
    /// of a name in an hour, and what it has refused for long is refused because nobody is at work on it. What is
    /// not issued yet is only asked for again.
    fn back_off(self) -> (i64, i64) {
        match self {
            Kind::Unreachable | Kind::State => (60, 3600),
            Kind::Refused => (300, 12 * 3600),
            Kind::NotIssued => (300, 3600),
            Kind::RateLimited => (3600, 24 * 3600),
        }
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// What happened, and what to do.
    pub(super) text: String,
    /// How long the authority wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(kind: Kind, text: impl AsRef<str>) -> Failure {
        let text = text.as_ref().chars().take(MAX_TEXT);
        let text = text.map(|char| if char.is_control() { ' ' } else { char }).collect();
        Failure { kind, text, retry_after: None }
    }
}

/// What became of attempts, of all replicas, since the last that went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Attempts {
    version: u32,
    /// In a row.
    pub(super) failures: u32,
    /// Orders that were begun since, and of which no end is known.
    #[serde(default)]
    begun: u32,
    /// When the last one ended, or began.
    pub(super) at: i64,
    /// Not sooner than then.
    pub(super) next_at: i64,
    pub(super) kind: Kind,
    /// Why it failed; empty if none has.
    pub(super) error: String,
}

impl Attempts {
    /// With one that begins: whoever finds this, and nobody at work, knows that a process was ended by something else.
    pub(super) fn begun(before: Option<&Attempts>, now: i64, random: f64) -> Self {
        let begun = before.map_or(0, |before| before.begun).saturating_add(1);
        Attempts {
            version: VERSION,
            failures: before.map_or(0, |before| before.failures),
            begun,
            at: now,
            next_at: now + wait(BEGUN_S, begun, random),
            kind: before.map_or(Kind::State, |before| before.kind),
            error: before.map_or_else(String::new, |before| before.error.clone()),
        }
    }

    /// Whether this process or another is likely at work.
    pub(super) fn is_begun(&self) -> bool {
        self.begun > 0
    }

    /// What is wrong, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        match self.begun {
            BEGUN_TOLD.. => Some(format!(
                "{} orders in a row were begun, and their processes ended meanwhile: their logs, or the system's, say \
                 why",
                self.begun - 1
            )),
            _ => Some(self.error.clone()).filter(|error| !error.is_empty()),
        }
    }

    /// With one more. `random` is from 0 to 1: replicas and certificates that failed together do not come back
    /// together.
    pub(super) fn after(
        before: Option<&Attempts>,
        failure: &Failure,
        now: i64,
        random: f64,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let wait = wait(failure.kind.back_off(), failures, random);
        let whole = |asked: Duration| asked.as_secs() + u64::from(asked.subsec_nanos() > 0);
        let asked = failure.retry_after.map_or(0, whole);
        let wait = wait.max(i64::try_from(asked).unwrap_or(LONGEST_S)).min(LONGEST_S);
        Attempts {
            version: VERSION,
            failures,
            begun: 0,
            at: now,
            next_at: now + wait,
            kind: failure.kind,
            error: failure.text.clone(),
        }
    }

    /// Reads a file. `None`: it is none of ours.
    pub(super) fn parse(bytes: &[u8]) -> Option<Attempts> {
        let found: Attempts = serde_json::from_slice(bytes).ok()?;
        (found.version == VERSION).then_some(found)
    }
}

/// Twice as long after each, and never the same for two.
fn wait((first, most): (i64, i64), times: u32, random: f64) -> i64 {
    let doubled = first.saturating_mul(1 << (times - 1).min(20)).min(most);
    (doubled as f64 * (0.8 + 0.4 * random)) as i64
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is good; this is when it is renewed.
    Valid(i64),
    /// It is ordered again at this time, because the last attempt failed.
    Failed(i64),
    /// It is ordered now.
    Due,
}

/// Decides. `stored` is what there is for exactly these domains.
pub(super) fn step(
    stored: Option<&Certificate>,
    attempts: Option<&Attempts>,
    domains: &[String],
    now: i64,
) -> Step {
    let good = stored.filter(|stored| stored.covers(domains));
    let renew_at = good.map(|good| renew_at(good.validity(), good.fingerprint()));
    if let Some(at) = renew_at.filter(|at| now < *at) {
        return Step::Valid(at);
    }
    let failed = attempts.map(|attempts| attempts.next_at.min(attempts.at + LONGEST_S));
    // What was noted in the future was noted by a clock that was wrong.
    let failed = failed.filter(|_| attempts.is_some_and(|attempts| attempts.at <= now));
    match failed {
        Some(at) if now < at => Step::Failed(at),
        _ => Step::Due,
    }
}

/// At two thirds of the lifetime, and up to a thirtieth of it later: certificates of one day are not renewed on one
/// day. It follows from the certificate, so that replicas and later processes come to the same.
fn renew_at((from, until): (i64, i64), fingerprint: &[u8; 32]) -> i64 {
    let lifetime = (until - from).max(0);
    let chance = u16::from_be_bytes([fingerprint[0], fingerprint[1]]);
    from + lifetime * 2 / 3 + lifetime / 30 * i64::from(chance) / i64::from(u16::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn failed(failures: u32, at: i64, next_at: i64) -> Attempts {
        let (kind, error) = (Kind::Refused, String::new());
        Attempts { version: VERSION, failures, begun: 0, at, next_at, kind, error }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_a_little_later() {
        for (lifetime, chance, expected) in [
            (90 * DAY, 0, 60 * DAY),
            (90 * DAY, 255, 63 * DAY),
            (6 * DAY, 0, 4 * DAY),
            (30, 0, 20),
            (30, 255, 21),
            (-1, 255, 0),
        ] {
            assert_eq!(renew_at((1000, 1000 + lifetime), &[chance; 32]), 1000 + expected);
        }
        let between = renew_at((0, 90 * DAY), &[100; 32]);
        assert!(60 * DAY < between && between < 63 * DAY);
    }

    pub(in crate::control::acme) fn pem(names: &[&str], from: i64, until: i64) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let at = |unix| x509_parser::time::ASN1Time::from_timestamp(unix).unwrap().to_datetime();
        (params.not_before, params.not_after) = (at(from), at(until));
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap();
        format!("{}{}", key.serialize_pem(), chain.pem())
    }

    fn certificate(names: &[&str], from: i64, until: i64) -> Certificate {
        let pem = pem(names, from, until);
        Certificate::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_there_and_what_has_failed_say_what_is_to_be_done() {
        let domains = ["a.test".to_owned()];
        let now = 1_800_000_000;
        let good = certificate(&["a.test"], now - 10 * DAY, now + 80 * DAY);
        let old = certificate(&["a.test"], now - 80 * DAY, now + 10 * DAY);
        let other = certificate(&["b.test"], now - 10 * DAY, now + 80 * DAY);
        let step = |stored: Option<&Certificate>, attempts: Option<&Attempts>| {
            super::step(stored, attempts, &domains, now)
        };
        assert!(matches!(step(Some(&good), None), Step::Valid(at) if at >= now + 50 * DAY));
        let waits = failed(1, now - 60, now + 60);
        assert!(matches!(step(Some(&good), Some(&waits)), Step::Valid(_)));
        for stored in [None, Some(&old), Some(&other)] {
            assert_eq!(step(stored, None), Step::Due);
            assert_eq!(step(stored, Some(&waits)), Step::Failed(now + 60));
            assert_eq!(step(stored, Some(&failed(1, now - 60, now))), Step::Due);
            assert_eq!(step(stored, Some(&failed(1, now + 60, now + 90))), Step::Due);
            let for_ever = failed(1, now, i64::MAX);
            assert_eq!(step(stored, Some(&for_ever)), Step::Failed(now + LONGEST_S));
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_bound_and_is_never_the_same() {
        let failure = Failure::new(Kind::Refused, "no");
        let mut last = None;
        let mut waits = Vec::new();
        for _ in 0..40 {
            let next = Attempts::after(last.as_ref(), &failure, 0, 0.5);
            waits.push(next.next_at);
            last = Some(next);
        }
        assert_eq!(waits[..4], [300, 600, 1200, 2400]);
        assert_eq!(*waits.last().unwrap(), 12 * 3600);
        assert_eq!(last.unwrap().failures, 40);
        let first = |random| Attempts::after(None, &failure, 0, random).next_at;
        assert_eq!((first(0.0), first(1.0)), (240, 360));
    }

    #[test]
    fn an_authority_that_asks_for_time_gets_it_within_reason() {
        for (asked, expected) in [(10, 3600), (7200, 7200), (u64::MAX, LONGEST_S)] {
            let mut failure = Failure::new(Kind::RateLimited, "slow down");
            failure.retry_after = Some(Duration::from_secs(asked));
            assert_eq!(Attempts::after(None, &failure, 0, 0.5).next_at, expected);
        }
    }

    #[test]
    fn what_was_begun_and_not_ended_is_left_alone_longer_each_time() {
        let first = Attempts::begun(None, 100, 0.5);
        assert_eq!((first.failures, first.next_at, first.trouble()), (0, 110, None));
        let second = Attempts::begun(Some(&first), 110, 0.5);
        assert_eq!((second.next_at, second.trouble()), (130, None), "it may be under way");
        let third = Attempts::begun(Some(&second), 130, 0.5);
        assert!(third.trouble().unwrap().starts_with("2 orders in a row"));
        let mut last = third;
        for _ in 0..20 {
            last = Attempts::begun(Some(&last), 0, 0.5);
        }
        assert_eq!(last.next_at, 3600);
        // What is known to have failed goes on to be told, and an end is an end.
        let failed = Attempts::after(Some(&last), &Failure::new(Kind::Refused, "no"), 0, 0.5);
        assert_eq!((failed.failures, failed.is_begun()), (1, false));
        let again = Attempts::begun(Some(&failed), 300, 0.5);
        assert_eq!((again.failures, again.trouble().as_deref()), (1, Some("no")));
        let due = |at| step(None, Some(&again), &["a.test".to_owned()], at);
        assert_eq!((due(309), due(310)), (Step::Failed(310), Step::Due));
    }

    #[test]
    fn a_file_is_read_back_and_one_of_another_kind_counts_as_none() {
        let failure = Failure::new(Kind::Unreachable, format!("a\n{}", "b".repeat(1000)));
        assert_eq!(failure.text.len(), MAX_TEXT);
        let attempts = Attempts::after(None, &failure, 5, 0.5);
        let text = serde_json::to_string(&attempts).unwrap();
        assert_eq!(Attempts::parse(text.as_bytes()), Some(attempts));
        assert_eq!(
            Attempts::parse(text.replace("\"version\":1", "\"version\":2").as_bytes()),
            None
        );
        assert_eq!(Attempts::parse(b"{}"), None);
    }
}
