//! Standing warnings: configurations that work and yet are wrong. Each is logged at once, then once an
//! hour for as long as it lasts, and stands in `status` until it has not been seen for a day.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::telemetry::metrics::Metrics;

/// More would only hide the first ones.
const MOST: usize = 16;
/// Often enough to be found in a day's log, rare enough not to fill it.
const SAY_AGAIN: Duration = Duration::from_secs(3600);
/// A peer that has been quiet for so long has been repaired or is gone.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// What is wrong, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A private peer sends forwarding fields and is not trusted.
    UntrustedForwarding,
    /// The health path answers a page.
    HealthPathHtml,
    /// More nodes than NocoBase has worker numbers for.
    TooManyNodes,
    /// A key that a running process cannot change.
    NeedsRestart,
    /// Something that was asked for does not run.
    Degraded,
    /// A node's event loop is late.
    EventLoopLag,
    /// A reload made things worse.
    WorseReload,
    /// What runs is not what the file says.
    RolledBack,
    /// A certificate expires soon, or has.
    CertificateExpiry,
    /// A renewed certificate cannot be used.
    CertificateFile,
    /// A changed list of networks cannot be used.
    ListFile,
    /// A certificate cannot be obtained from its authority.
    CertificateOrder,
    /// Others can get at a secret, or guess it.
    Exposed,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::UntrustedForwarding,
        Kind::HealthPathHtml,
        Kind::TooManyNodes,
        Kind::NeedsRestart,
        Kind::Degraded,
        Kind::EventLoopLag,
        Kind::WorseReload,
        Kind::RolledBack,
        Kind::CertificateExpiry,
        Kind::CertificateFile,
        Kind::ListFile,
        Kind::CertificateOrder,
        Kind::Exposed,
    ];

    /// What traffic or probes show is forgotten when it has not been seen for so long; the rest is taken
    /// back when it is repaired. A late node is told of again an hour later at the earliest.
    fn forgotten_after(self) -> Option<Duration> {
        match self {
            Kind::UntrustedForwarding => Some(FORGET),
            Kind::EventLoopLag => Some(SAY_AGAIN),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Kind::UntrustedForwarding => "untrusted_forwarding",
            Kind::HealthPathHtml => "health_path_html",
            Kind::TooManyNodes => "too_many_nodes",
            Kind::NeedsRestart => "needs_restart",
            Kind::Degraded => "degraded",
            Kind::EventLoopLag => "event_loop_lag",
            Kind::WorseReload => "worse_reload",
            Kind::RolledBack => "rolled_back",
            Kind::CertificateExpiry => "certificate_expiry",
            Kind::CertificateFile => "certificate_file",
            Kind::ListFile => "list_file",
            Kind::CertificateOrder => "certificate_order",
            Kind::Exposed => "exposed",
        }
    }
}

/// One warning, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What is wrong.
    pub kind: Kind,
    /// Which listener, upstream or key.
    pub subject: String,
    /// What was seen, and what to type.
    pub message: String,
    /// Unix time in seconds.
    pub since: u64,
    /// Unix time in seconds.
    pub last_seen: u64,
}

/// All that stand.
#[derive(Debug, Default)]
pub struct Warnings {
    standing: BTreeMap<(Kind, String), (Warning, SystemTime)>,
}

impl Warnings {
    /// Notes a warning; true when it is to be logged now. Beyond 16 of its kind it is dropped.
    pub fn raise(&mut self, kind: Kind, subject: &str, message: String, now: SystemTime) -> bool {
        let key = (kind, subject.to_owned());
        if let Some((warning, said)) = self.standing.get_mut(&key) {
            warning.last_seen = seconds(now);
            warning.message = message;
            let due = now.duration_since(*said).is_ok_and(|age| age >= SAY_AGAIN);
            if due {
                *said = now;
            }
            return due;
        }
        // Of each kind, so that what strangers can cause never hides the rest.
        if self.standing.keys().filter(|(other, _)| *other == kind).count() >= MOST {
            return false;
        }
        let (since, last_seen) = (seconds(now), seconds(now));
        let warning = Warning { kind, subject: subject.into(), message, since, last_seen };
        self.standing.insert(key, (warning, now));
        true
    }

    /// Takes back what no longer holds.
    pub fn settle(&mut self, kind: Kind, subject: &str) {
        self.standing.remove(&(kind, subject.to_owned()));
    }

    /// Takes back those of a kind whose subject is not wanted any more.
    pub fn retain(&mut self, kind: Kind, wanted: impl Fn(&str) -> bool) {
        self.standing.retain(|(other, subject), _| *other != kind || wanted(subject));
    }

    /// Takes back all of a kind.
    pub fn settle_all(&mut self, kind: Kind) {
        self.standing.retain(|(other, _), _| *other != kind);
    }

    /// Forgets what has not been seen for long, and renews the gauge.
    pub fn sweep(&mut self, now: SystemTime, metrics: &Metrics) {
        self.standing.retain(|(kind, _), (warning, _)| {
            let age = seconds(now).saturating_sub(warning.last_seen);
            kind.forgotten_after().is_none_or(|limit| age <= limit.as_secs())
        });
        for kind in Kind::ALL {
            let count = self.standing.keys().filter(|(other, _)| *other == kind).count();
            let gauge = metrics.misconfigurations.with_label_values(&[kind.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// All that stand, by kind and subject.
    pub fn list(&self) -> Vec<Warning> {
        self.standing.values().map(|(warning, _)| warning.clone()).collect()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Says what to do about a peer that is probably an outer proxy; none for public peers, which may send
/// what they like.
pub fn untrusted_forwarding(listener: &str, peer: IpAddr, field: &str) -> Option<String> {
    let peer = peer.to_canonical();
    private(peer).then(|| {
        let bits = if peer.is_ipv4() { 32 } else { 128 };
        format!(
            "{peer} sent `{field}` to listener `{listener}` and is not trusted, so the field was \
             replaced. If {peer} is your outer proxy, NocoBase's sign-in and links need it: add \
             `trusted_proxies = [\"{peer}/{bits}\"]` to this listener"
        )
    })
}

/// Says that a node's event loop is late, and what helps.
pub fn event_loop_lag(upstream: &str, node: &str, lag: Duration) -> String {
    format!(
        "the event loop of node `{node}` of upstream `{upstream}` is {} ms late, as in the probes before: \
         so long each request waits before the node looks at it. Look for imports, exports and workflows \
         that run there, move background work to a task node, or add nodes",
        lag.as_millis()
    )
}

fn private(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(peer) => peer.is_private() || peer.is_loopback() || peer.is_link_local(),
        IpAddr::V6(peer) => {
            peer.is_loopback() || peer.is_unique_local() || peer.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_warning_is_said_once_an_hour() {
        let mut warnings = Warnings::default();
        let mut raise =
            |t| warnings.raise(Kind::UntrustedForwarding, "public 10.0.0.1", "x".into(), at(t));
        assert_eq!([0, 1, 3599, 3600, 3601].map(&mut raise), [true, false, false, true, false]);
        assert_eq!(warnings.list()[0].since, 0);
        assert_eq!(warnings.list()[0].last_seen, 3601);
    }

    #[test]
    fn no_more_than_sixteen_stand() {
        let mut warnings = Warnings::default();
        let raised = (0..40)
            .filter(|n| warnings.raise(Kind::Degraded, &n.to_string(), String::new(), at(0)))
            .count();
        assert_eq!((raised, warnings.list().len()), (MOST, MOST));
    }

    #[test]
    fn a_quiet_peer_is_forgotten_after_a_day_and_the_gauge_follows() {
        let metrics = Metrics::new();
        let gauge = |kind: &str| metrics.misconfigurations.with_label_values(&[kind]).get();
        let mut warnings = Warnings::default();
        warnings.raise(Kind::UntrustedForwarding, "a", String::new(), at(0));
        warnings.raise(Kind::TooManyNodes, "b", String::new(), at(0));
        warnings.sweep(at(10), &metrics);
        assert_eq!((gauge("untrusted_forwarding"), gauge("too_many_nodes")), (1, 1));
        warnings.sweep(at(24 * 3600 + 1), &metrics);
        assert_eq!((gauge("untrusted_forwarding"), gauge("too_many_nodes")), (0, 1));
    }

    #[test]
    fn a_node_that_is_not_late_any_more_is_forgotten_after_an_hour() {
        let metrics = Metrics::new();
        let mut warnings = Warnings::default();
        let message = event_loop_lag("app", "n1", Duration::from_millis(312));
        assert!(message.contains("node `n1` of upstream `app` is 312 ms late"), "{message}");
        let raise = |warnings: &mut Warnings, t| {
            warnings.raise(Kind::EventLoopLag, "app n1", message.clone(), at(t))
        };
        assert!(raise(&mut warnings, 0));
        warnings.sweep(at(3600), &metrics);
        assert_eq!(warnings.list().len(), 1);
        warnings.sweep(at(3601), &metrics);
        assert_eq!(warnings.list().len(), 0);
        assert!(raise(&mut warnings, 3602), "said again, more than an hour later");
    }

    #[test]
    fn only_private_peers_are_taken_for_proxies_and_get_the_exact_line() {
        let said =
            |peer: &str| untrusted_forwarding("public", peer.parse().unwrap(), "x-forwarded-proto");
        assert!(said("172.17.0.1").unwrap().contains("trusted_proxies = [\"172.17.0.1/32\"]"));
        assert!(said("fd00::1").unwrap().contains("trusted_proxies = [\"fd00::1/128\"]"));
        assert!(said("::ffff:10.1.1.1").unwrap().contains("[\"10.1.1.1/32\"]"));
        assert_eq!(said("203.0.113.7"), None);
        assert_eq!(said("2001:db8::1"), None);
    }
}
