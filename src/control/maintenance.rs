//! Maintenance as operators switch it: which upstreams, for whom not, and what everybody else is told.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::core::Core;
use super::operator::{OrderError, asked_upstreams, unknown};
use super::saving::saved;
use super::status::{MaintenanceStatus, unix};
use super::who::Who;
use crate::config::{Config, Preset, Role};
use crate::snapshot::{Snapshot, Upstream};
use crate::upstream::maintenance::{Pass, Terms};

/// What people are told unless the operator says it in other words.
pub const MESSAGE: &str =
    "The system is being maintained and will be back soon. You need not do anything.";
/// Longer than any message that is read; it goes into every answer.
pub const MOST_MESSAGE: usize = 1_000;
/// More networks than the testers of one system have.
pub const MOST_ALLOWED: usize = 64;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The upstream; none is all of them.
    pub upstream: Option<String>,
    /// What is to hold from now on; none is off.
    pub on: Option<Wanted>,
    /// Who asks.
    pub from: Who,
}

/// How it is switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Clients that reach the upstream as usual: addresses and networks.
    pub allow: Vec<IpNet>,
    /// Whether browsers are let through as well that open a link.
    pub cookie: bool,
    /// The only node that these reach.
    pub node: Option<String>,
    /// In place of [`MESSAGE`].
    pub message: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The upstreams that it was about: as it is now, and as `status` shows it; none is off.
    pub upstreams: Vec<ChangedUpstream>,
    /// Whether a restart of cobalance keeps it: it is in the state file.
    pub survives_restart: bool,
}

/// An upstream after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedUpstream {
    /// Its name.
    pub name: String,
    /// Whether it was on before.
    pub was_on: bool,
    /// What holds now; none is off.
    pub maintenance: Option<MaintenanceStatus>,
    /// What a browser opens to be let through: path and query. None unless it was asked for.
    #[serde(default)]
    pub link: Option<String>,
}

/// Maintenance of one upstream, as the state file keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Maintained {
    /// Its upstream.
    pub upstream: String,
    /// Addresses and networks.
    pub allow: Vec<String>,
    /// The key of its links and cookies; none lets no browser through.
    #[serde(default)]
    pub pass: Option<String>,
    /// The only node that these reach.
    pub node: Option<String>,
    /// What everybody else is told.
    pub message: String,
    /// Who asked.
    pub from: String,
    /// In Unix seconds.
    pub since: u64,
}

impl Maintained {
    fn terms(&self) -> Terms {
        Terms {
            // One that cannot be read lets nobody through.
            allow: self.allow.iter().filter_map(|text| network(text)).collect(),
            pass: self.pass.as_deref().map(Pass::new),
            node: self.node.clone(),
            message: self.message.clone(),
            state: 0,
        }
    }

    pub(super) fn status(&self, upstream: &Upstream) -> MaintenanceStatus {
        MaintenanceStatus {
            since: self.since,
            from: self.from.clone(),
            allow: self.allow.clone(),
            cookie: self.pass.is_some(),
            node: self.node.clone(),
            message: self.message.clone(),
            websockets: u64::try_from(upstream.metrics.held()).unwrap_or_default(),
        }
    }

    /// What a browser opens now to be let through.
    fn link(&self, upstream: &Upstream) -> Option<String> {
        let query = Pass::new(self.pass.as_deref()?).link(unix(SystemTime::now()));
        let settings = &upstream.settings;
        let public = match settings.preset {
            Preset::NocoBase => settings.api_path.strip_suffix("api/").unwrap_or("/"),
            Preset::None => "/",
        };
        Some(format!("{public}?{query}"))
    }
}

/// An address or a network, as `--allow` takes it.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(|address| address.to_canonical().into());
    text.parse().ok().or_else(address)
}

impl Core {
    /// Does what is asked, or says why not.
    pub(super) fn maintain(
        &mut self,
        change: &Change,
        reply: oneshot::Sender<Result<Changed, OrderError>>,
    ) {
        let snapshot = self.inner.snapshot.load_full();
        let mut forgotten = Vec::new();
        if change.on.is_none() {
            // Nor is it to be on when a configuration comes back that has the upstream.
            forgotten = self.probation.forgotten.end_maintenance(change.upstream.as_deref());
            forgotten
                .retain(|one| !snapshot.upstreams.iter().any(|u| u.settings.name == one.upstream));
        }
        let asked = match self.asked(&snapshot, change) {
            Err(_) if !forgotten.is_empty() => Ok(Vec::new()),
            asked => asked,
        };
        let asked = asked.and_then(|named| {
            let key = self.pass_key(change, &named)?;
            Ok((named, key))
        });
        let (named, key) = match asked {
            Ok(asked) => asked,
            // Whoever asked may have left.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let all = &mut self.roster.drains.maintained;
        let mut before = Vec::new();
        for name in &named {
            before.push(all.iter().any(|one| one.upstream == *name));
            all.retain(|one| one.upstream != *name);
            if let Some(wanted) = &change.on {
                let pass = key.clone();
                all.push(Maintained { pass, ..maintained(name, wanted, &change.from) });
            }
        }
        for (name, was_on) in
            named.iter().zip(&before).filter(|(_, on)| **on || change.on.is_some())
        {
            tell(name, *was_on, change);
        }
        self.apply_maintenance(Some(&named));
        let upstream = |(name, was_on): (&String, bool)| {
            let upstream = snapshot.upstreams.iter().find(|one| one.settings.name == *name);
            let kept = upstream.and_then(|one| Some((one, self.maintained(one)?)));
            ChangedUpstream {
                name: name.clone(),
                was_on,
                maintenance: kept.map(|(upstream, kept)| kept.status(upstream)),
                link: kept.and_then(|(upstream, kept)| kept.link(upstream)),
            }
        };
        let gone = |one: Maintained| ChangedUpstream {
            name: one.upstream,
            was_on: true,
            maintenance: None,
            link: None,
        };
        let upstreams = named.iter().zip(before).map(upstream);
        let upstreams = upstreams.chain(forgotten.into_iter().map(gone)).collect();
        let saving = self.save();
        tokio::spawn(async move {
            let survives_restart = saved(saving).await;
            let _ = reply.send(Ok(Changed { upstreams, survives_restart }));
        });
    }

    /// What `status` shows of an upstream.
    pub(super) fn maintenance_of(&self, upstream: &Upstream) -> Option<MaintenanceStatus> {
        Some(self.maintained(upstream)?.status(upstream))
    }

    fn maintained(&self, upstream: &Upstream) -> Option<&Maintained> {
        let of = |one: &&Maintained| one.upstream == upstream.settings.name;
        self.roster.drains.maintained.iter().find(of)
    }

    /// The names of the upstreams that a change is about.
    fn asked(&self, snapshot: &Snapshot, change: &Change) -> Result<Vec<String>, OrderError> {
        let upstreams = asked_upstreams(snapshot, change.upstream.as_deref())?;
        let node = change.on.as_ref().and_then(|wanted| wanted.node.as_deref());
        for upstream in &upstreams {
            known(upstream, node)?;
            self.may_verify(upstream, node)?;
        }
        Ok(upstreams.iter().map(|upstream| upstream.settings.name.clone()).collect())
    }

    /// One key for all upstreams of a change, so that one link will do. Who has a cookie already keeps it, as
    /// long as cookies are asked for.
    fn pass_key(&self, change: &Change, named: &[String]) -> Result<Option<String>, OrderError> {
        if !change.on.as_ref().is_some_and(|wanted| wanted.cookie) {
            return Ok(None);
        }
        let before =
            self.roster.drains.maintained.iter().filter(|one| named.contains(&one.upstream));
        if let Some(key) = before.filter_map(|one| one.pass.clone()).next() {
            return Ok(Some(key));
        }
        let why =
            |error| OrderError::Refused(format!("the system gives no key for a cookie: {error}"));
        new_key().map(Some).map_err(why)
    }

    /// Forgets upstreams that are configured no more, and holds the others to what is kept. Whether any was
    /// forgotten.
    pub(super) fn keep_maintenance(&mut self, config: &Config) -> bool {
        let gone = retain(&mut self.roster.drains.maintained, config);
        for one in &gone {
            let upstream = &one.upstream;
            tracing::info!(target: "cobalance::maintenance", upstream,
                "configured no more, and under maintenance no more");
            self.inner.metrics.upstream(upstream).maintenance.set(0);
        }
        self.apply_maintenance(None);
        !gone.is_empty()
    }

    /// Brings the switches in line with what is kept. Those `changed` are switched anew even if they are
    /// on: their terms are others.
    fn apply_maintenance(&self, changed: Option<&[String]>) {
        for upstream in &self.inner.snapshot.load().upstreams {
            let (name, switch) = (&upstream.settings.name, &upstream.shared.maintenance);
            let kept = self.roster.drains.maintained.iter().find(|one| one.upstream == *name);
            match kept {
                None => switch.end(),
                Some(kept) if !switch.is_on() || changed.is_some_and(|all| all.contains(name)) => {
                    switch.begin(kept.terms());
                }
                Some(_) => {}
            }
            upstream.metrics.maintenance.set(i64::from(kept.is_some()));
        }
    }
}

/// Takes out upstreams that are configured no more; returns those.
fn retain(all: &mut Vec<Maintained>, config: &Config) -> Vec<Maintained> {
    let configured = |one: &Maintained| config.upstreams.iter().any(|u| u.name == one.upstream);
    let (kept, gone) = std::mem::take(all).into_iter().partition(configured);
    *all = kept;
    gone
}

/// Refuses a node that the upstream does not have, or that does not serve.
fn known(upstream: &Arc<Upstream>, node: Option<&str>) -> Result<(), OrderError> {
    let Some(node) = node else { return Ok(()) };
    let terms = Terms { node: Some(node.to_owned()), ..Terms::default() };
    let mut serving = upstream.nodes.iter().filter(|one| one.role == Role::Serve);
    match serving.any(|member| terms.is_open(&member.node)) {
        true => Ok(()),
        false => Err(OrderError::Unknown(unknown(node, &[upstream]))),
    }
}

/// 256 bits that nobody can guess, in hex.
fn new_key() -> io::Result<String> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn maintained(upstream: &str, wanted: &Wanted, from: &Who) -> Maintained {
    Maintained {
        upstream: upstream.to_owned(),
        allow: wanted.allow.iter().map(shown).collect(),
        pass: None,
        node: wanted.node.clone(),
        message: wanted.message.clone().unwrap_or_else(|| MESSAGE.to_owned()),
        from: from.to_string(),
        since: unix(SystemTime::now()),
    }
}

/// An address alone is shown as one.
fn shown(network: &IpNet) -> String {
    match network.prefix_len() == network.max_prefix_len() {
        true => network.addr().to_string(),
        false => network.to_string(),
    }
}

fn tell(upstream: &str, was_on: bool, change: &Change) {
    let from = &change.from;
    match &change.on {
        None => {
            tracing::info!(target: "cobalance::maintenance", upstream, %from, "maintenance is off");
        }
        Some(wanted) => {
            let allowed: Vec<String> = wanted.allow.iter().map(shown).collect();
            let (allow, node) = (allowed.join(", "), wanted.node.as_deref().unwrap_or("any"));
            let cookie = wanted.cookie;
            let what = if was_on { "maintenance has new terms" } else { "maintenance is on" };
            tracing::info!(target: "cobalance::maintenance", upstream, %from, allow, cookie, node, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_read_and_shown_alike() {
        for (text, expected) in [
            ("10.0.0.7", Some("10.0.0.7")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("::1", Some("::1")),
            ("::ffff:10.0.0.7", Some("10.0.0.7")),
            ("10.0.0.0/33", None),
            ("node1", None),
            ("", None),
        ] {
            assert_eq!(network(text).as_ref().map(shown).as_deref(), expected, "{text}");
        }
    }
}
