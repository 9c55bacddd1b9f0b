//! The compiled, immutable whole that a request reads. Built by control, swapped at once, never changed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use crate::balance::slow_start;
use crate::clock;
use crate::config::{self, Config, Role};
use crate::limit::clients::Clients;
use crate::limit::gate::Gate;
use crate::limit::lists::{Access, Slot};
use crate::limit::pace::Pace;
use crate::net::Address;
use crate::route::Router;
use crate::spool::Spool;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{
    ListenerMetrics, Metrics, ProxyMetrics, RouteMetrics, TlsMetrics, UpstreamMetrics,
};
use crate::tls;
use crate::upstream::{Node, NodeKey, Registry, Shared};

/// Everything a data thread needs to know.
pub struct Snapshot {
    /// Counts the configurations put in use; the first is 1.
    pub generation: u64,
    /// When it was put in use.
    pub loaded_at: SystemTime,
    /// What it was compiled from.
    pub config: Arc<Config>,
    /// In the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// Finds a route; empty when everything goes to the only upstream.
    pub router: Router,
    /// In the order of the configuration.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Where lines go; none when it is off.
    pub access_log: Option<AccessLog>,
    /// How fast tunnels are moved; shared with earlier snapshots.
    pub pace: Arc<Pace>,
    /// Where slow uploads are kept; shared with earlier snapshots.
    pub spool: Arc<Spool>,
    /// Certificates in use; those of earlier snapshots go on in theirs.
    pub certificates: Vec<Arc<tls::Slot>>,
    /// What a request must pass before anything is done for it; none where nothing is configured.
    pub gate: Option<Gate>,
    /// Files of networks in use; those of earlier snapshots go on in theirs.
    pub lists: Vec<Arc<Slot>>,
    /// What is answered to ACME authorities; shared with earlier snapshots.
    pub challenges: Arc<tls::Challenges>,
    /// What keys of session tickets follow from, where the operator has named no secret.
    own_secret: Option<tls::Secrets>,
}

/// One listener as run.
pub struct Listener {
    /// What was configured.
    pub settings: config::Listener,
    /// Its handles.
    pub metrics: ListenerMetrics,
    /// Open connections; shared with earlier snapshots of the same listener.
    pub open: Arc<AtomicUsize>,
    /// Those of them that speak HTTP/2.
    pub open_h2: Arc<AtomicUsize>,
    /// Handles for each route, and at the end those of "no route".
    pub routes: Vec<RouteMetrics>,
    /// If it speaks TLS.
    pub tls: Option<Tls>,
    /// Who may come, if not everybody.
    pub access: Option<Access>,
    /// Connections of each client, where they are bounded; shared like `open`.
    pub clients: Arc<Clients>,
    /// Tunnels of each client, where they are bounded; shared like `open`.
    pub tunnels: Arc<Clients>,
    /// Handles for PROXY headers, if any peer must send one.
    pub proxied: Option<ProxyMetrics>,
}

/// What makes a listener one of TLS.
pub struct Tls {
    /// What it offers.
    pub server: tls::Server,
    /// Its handles.
    pub metrics: TlsMetrics,
    /// What is answered to ACME authorities; the same as in the snapshot.
    pub challenges: Arc<tls::Challenges>,
}

/// One upstream as run.
pub struct Upstream {
    /// What was configured.
    pub settings: config::Upstream,
    /// Its handles.
    pub metrics: UpstreamMetrics,
    /// What outlives this snapshot.
    pub shared: Arc<Shared>,
    /// Nodes, task nodes included.
    pub nodes: Vec<Member>,
    /// Nodes whose names do not resolve, and why.
    pub unresolved: Vec<(String, String)>,
    /// What is asked of nodes and shown to them over TLS, if they speak it.
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A node as this upstream uses it.
pub struct Member {
    /// The node.
    pub node: Arc<Node>,
    /// What it is called where replicas of the balancer must agree, in hashes and sticky cookies: by what its name
    /// stands for now. The label of the node lasts as long as it, and so tells of earlier times.
    pub agreed_name: String,
    /// 1 to 1000.
    pub weight: u32,
    /// Picked only when no primary node is eligible.
    pub backup: bool,
    /// What it is for.
    pub role: Role,
    /// Requests in flight at most; 0 is no limit.
    pub max_requests: u32,
    /// How it is spoken to over TLS, if it is.
    pub tls: Option<tls::Towards>,
}

/// What names in `nodes` stand for: the addresses, or why there are none. Keyed by the text of `address`.
pub type Resolved = HashMap<String, Result<Vec<SocketAddr>, String>>;

/// What [`compile`] needs beside the configuration.
pub struct Parts<'a> {
    /// Addresses of the nodes.
    pub resolved: &'a Resolved,
    /// Nodes that live.
    pub registry: &'a mut Registry,
    /// The snapshot in use, for what carries over.
    pub previous: Option<&'a Snapshot>,
    /// Where access log lines go.
    pub access_log: Option<AccessLog>,
}

impl<'a> Parts<'a> {
    /// Of a process that begins, without resolved names and without an access log.
    pub fn bare(registry: &'a mut Registry) -> Parts<'a> {
        static NONE: LazyLock<Resolved> = LazyLock::new(Resolved::new);
        Parts { resolved: &NONE, registry, previous: None, access_log: None }
    }
}

/// Compiles a configuration. Nothing in it can fail: `Config` holds no bad value.
pub fn compile(config: Arc<Config>, parts: Parts<'_>) -> Snapshot {
    let Parts { resolved, registry, previous, access_log } = parts;
    let metrics = registry.metrics().clone();
    let certificates = slots(&config, previous);
    let lists = list_slots(&config, previous);
    let list = |path: &Path| lists.iter().find(|slot| slot.path == path).cloned();
    let own_secret = match previous {
        Some(previous) => previous.own_secret.clone(),
        None => tls::Secrets::random(),
    };
    let challenges = previous.map_or_else(
        || Arc::new(tls::Challenges::new(metrics.acme.answered.clone())),
        |snapshot| snapshot.challenges.clone(),
    );
    let listeners = config.listeners.iter().map(|settings| {
        let tls = listener_tls(settings, &config, &certificates, own_secret.as_ref());
        let tls = tls.map(|server| Tls {
            server,
            metrics: metrics.tls(&settings.name),
            challenges: challenges.clone(),
        });
        let access = Access::of(&settings.access, list);
        Arc::new(Listener { tls, access, ..listener(settings, &config, previous, &metrics) })
    });
    let listeners = listeners.collect();
    let upstreams = config
        .upstreams
        .iter()
        .map(|settings| {
            let tls = upstream_tls(settings, previous, &certificates);
            Arc::new(upstream(settings, resolved, registry, tls))
        })
        .collect();
    Snapshot {
        generation: previous.map_or(1, |snapshot| snapshot.generation + 1),
        loaded_at: SystemTime::now(),
        router: Router::new(&config.routes),
        gate: Gate::of(&config, list, previous.and_then(|old| old.gate.as_ref()), || {
            fastrand::u64(..)
        }),
        pace: previous.map_or_else(Arc::default, |snapshot| snapshot.pace.clone()),
        spool: previous
            .map_or_else(|| Spool::new(metrics.spool.clone()), |snapshot| snapshot.spool.clone()),
        listeners,
        upstreams,
        access_log,
        lists,
        challenges,
        certificates,
        own_secret,
        config,
    }
}

fn listener(
    settings: &config::Listener,
    config: &Config,
    previous: Option<&Snapshot>,
    metrics: &Arc<Metrics>,
) -> Listener {
    let old = previous.and_then(|old| old.listener(&settings.name));
    let only = ["all"];
    let named: Vec<&str> = match config.routes.is_empty() {
        true => only.to_vec(),
        false => config.routes.iter().map(|route| route.name.as_str()).collect(),
    };
    let names = named.into_iter().chain(["none"]);
    let proxied = !settings.proxy_protocol.is_empty();
    Listener {
        settings: settings.clone(),
        metrics: metrics.listener(&settings.name),
        open: old.map(|old| old.open.clone()).unwrap_or_default(),
        open_h2: old.map(|old| old.open_h2.clone()).unwrap_or_default(),
        clients: old.map(|old| old.clients.clone()).unwrap_or_default(),
        tunnels: old.map(|old| old.tunnels.clone()).unwrap_or_default(),
        access: None,
        routes: names.map(|route| metrics.route(&settings.name, route)).collect(),
        tls: None,
        proxied: proxied.then(|| metrics.proxy_headers(&settings.name)),
    }
}

/// The slots of the certificates. One that was there before goes on with what was read now, or, where nothing
/// was obtained yet for what is asked now, with what it has.
fn slots(config: &Config, previous: Option<&Snapshot>) -> Vec<Arc<tls::Slot>> {
    let known = previous.map(|previous| previous.certificates.as_slice()).unwrap_or_default();
    // A snapshot of the same configuration must not bring back what control has renewed since.
    let read_before = |one: &config::Certificate| {
        let before = previous.map(|previous| previous.config.certificates.as_slice());
        let same = |old: &config::Certificate| match (&old.loaded, &one.loaded) {
            (Some(old), Some(loaded)) => Arc::ptr_eq(old, loaded),
            _ => false,
        };
        before.unwrap_or_default().iter().any(same)
    };
    let slot = |one: &config::Certificate| match known.iter().find(|slot| slot.name == one.name) {
        Some(slot) => {
            let newer = |loaded: &&Arc<tls::Certificate>| {
                one.order.is_none() || slot.get().is_none_or(|current| !current.outlives(loaded))
            };
            if let Some(loaded) = one.loaded.as_ref().filter(newer).filter(|_| !read_before(one)) {
                slot.put(loaded.clone());
            }
            slot.clone()
        }
        None => Arc::new(tls::Slot::new(one.name.clone(), one.loaded.clone())),
    };
    config.certificates.iter().map(slot).collect()
}

/// The slots of the files of networks. One that was there before goes on with what was read now.
fn list_slots(config: &Config, previous: Option<&Snapshot>) -> Vec<Arc<Slot>> {
    let known = previous.map(|previous| previous.lists.as_slice()).unwrap_or_default();
    let before: Vec<&config::ListFile> =
        previous.map(|previous| previous.config.list_files().collect()).unwrap_or_default();
    let mut slots: Vec<Arc<Slot>> = Vec::new();
    for file in config.list_files() {
        if slots.iter().any(|slot| slot.path == file.path) {
            continue;
        }
        let Some(slot) = known.iter().find(|slot| slot.path == file.path) else {
            slots.push(Arc::new(Slot::new(&file.path, &file.loaded)));
            continue;
        };
        // A snapshot of the same configuration must not bring back what control has renewed since.
        if !before.iter().any(|old| Arc::ptr_eq(&old.loaded, &file.loaded)) {
            slot.put(&file.loaded);
        }
        slots.push(slot.clone());
    }
    slots
}

fn listener_tls(
    settings: &config::Listener,
    config: &Config,
    slots: &[Arc<tls::Slot>],
    own_secret: Option<&tls::Secrets>,
) -> Option<tls::Server> {
    let slot = |name: &String| slots.iter().find(|slot| slot.name == *name).cloned();
    let shown: Vec<_> = settings.certificates.iter().filter_map(slot).collect();
    let secrets = config.tls.tickets.as_ref().map(|tickets| &tickets.loaded).or(own_secret);
    let clients = settings.client_auth.as_ref().map(|auth| &auth.loaded);
    let spoken = (settings.protocols.h1, settings.protocols.h2);
    (!shown.is_empty()).then(|| tls::Server::new(shown, secrets.cloned(), clients, spoken))
}

fn upstream(
    settings: &config::Upstream,
    resolved: &Resolved,
    registry: &mut Registry,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Upstream {
    let mut members = Vec::new();
    let mut unresolved = Vec::new();
    for node in &settings.nodes {
        match addresses(&node.address, resolved) {
            Ok(addresses) => members.extend(expand(settings, node, &addresses, registry)),
            Err(error) => {
                unresolved.push((node.name.clone(), error));
                let key = key(settings, node, None);
                members.push(member(node, key, node.name.clone(), registry));
            }
        }
    }
    Upstream {
        settings: settings.clone(),
        metrics: registry.metrics().upstream(&settings.name),
        shared: registry.shared(&settings.name, settings.retry_budget),
        nodes: members,
        unresolved,
        tls: None,
    }
    .over(tls)
}

/// What was made before goes on where nothing has changed: connections that are kept belong to it, and so do
/// the tickets of nodes.
fn upstream_tls(
    settings: &config::Upstream,
    previous: Option<&Snapshot>,
    slots: &[Arc<tls::Slot>],
) -> Option<Arc<rustls::ClientConfig>> {
    let wanted = settings.tls.as_ref()?;
    let slot_of = |slots: &[Arc<tls::Slot>]| {
        slots.iter().find(|slot| Some(&slot.name) == wanted.certificate.as_ref()).cloned()
    };
    let slot = slot_of(slots);
    let known = previous.and_then(|previous| {
        let same = |old: &&Arc<Upstream>| {
            old.settings.name == settings.name
                && old.settings.tls.as_ref() == Some(wanted)
                && old.settings.http2 == settings.http2
        };
        let old = previous.upstreams.iter().find(same)?;
        let before = slot_of(&previous.certificates);
        let same_slot = match (&before, &slot) {
            (Some(before), Some(slot)) => Arc::ptr_eq(before, slot),
            (None, None) => true,
            _ => false,
        };
        old.tls.clone().filter(|_| same_slot)
    });
    Some(known.unwrap_or_else(|| tls::upstream::client(&wanted.roots, slot, settings.http2)))
}

fn addresses(address: &str, resolved: &Resolved) -> Result<Vec<Address>, String> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let known = resolved.get(address).cloned();
    let found = known.unwrap_or_else(|| Err("not resolved yet".into()))?;
    Ok(found.into_iter().map(Address::Tcp).collect())
}

/// A name with several addresses is as many nodes, each called by name and address; the usual name with
/// one address is called as it was written, so that a container that comes back elsewhere is still `app1`.
fn expand(
    settings: &config::Upstream,
    node: &config::Node,
    addresses: &[Address],
    registry: &mut Registry,
) -> Vec<Member> {
    let name = |address: &Address| match address {
        Address::Tcp(address) if addresses.len() > 1 => format!("{}#{}", node.name, address.ip()),
        _ => node.name.clone(),
    };
    addresses
        .iter()
        .map(|address| {
            let key = key(settings, node, Some(address.clone()));
            member(node, key, name(address), registry)
        })
        .collect()
}

fn key(settings: &config::Upstream, node: &config::Node, address: Option<Address>) -> NodeKey {
    NodeKey { upstream: settings.name.clone(), name: node.name.clone(), address }
}

/// `name` becomes the label of a node that is new.
fn member(settings: &config::Node, key: NodeKey, name: String, registry: &mut Registry) -> Member {
    Member {
        node: registry.node(key, name.clone()),
        agreed_name: name,
        weight: settings.weight,
        backup: settings.backup,
        role: settings.role,
        max_requests: settings.max_requests,
        tls: None,
    }
}

impl Upstream {
    /// How a node is spoken to over TLS, if it is.
    pub fn tls_of(&self, node: &Arc<Node>) -> Option<tls::Towards> {
        let member = self.nodes.iter().find(|member| Arc::ptr_eq(&member.node, node))?;
        member.tls.clone()
    }

    /// With its nodes over TLS.
    fn over(mut self, config: Option<Arc<rustls::ClientConfig>>) -> Upstream {
        if let (Some(config), Some(settings)) = (&config, &self.settings.tls) {
            for member in &mut self.nodes {
                let written = self.settings.nodes.iter().find(|n| n.name == member.node.key.name);
                let address = written.map_or("", |node| node.address.as_str());
                let name = settings.server_name.as_ref().map(|name| format!("{name}:0"));
                let name = tls::upstream::name_of(name.as_deref().unwrap_or(address));
                member.tls = name.map(|name| tls::Towards { config: config.clone(), name });
            }
        }
        self.tls = config;
        self
    }

    /// The weights in force at `now_ns`, in the order of the nodes: less than configured while a node
    /// starts slowly beside others.
    pub fn weights(&self, now_ns: u64) -> Vec<f64> {
        let window = clock::nanos(self.settings.slow_start);
        let share = |member: &Member| match member.node.shown().is_eligible() {
            true => slow_start::share(member.node.slow_since_ns(), now_ns, window),
            false => 0,
        };
        let serves = |other: &&Member| other.role == Role::Serve;
        let in_force = |member: &Member| {
            let tier = self.nodes.iter().filter(serves).filter(|o| o.backup == member.backup);
            let held_back = match share(member) {
                0 => 0,
                own => slow_start::held_back(own, tier.map(share).max().unwrap_or(own)),
            };
            f64::from(member.weight) * f64::from(slow_start::WHOLE - held_back)
                / f64::from(slow_start::WHOLE)
        };
        self.nodes.iter().map(in_force).collect()
    }
}

impl Snapshot {
    /// The listener of this name, if the configuration has it.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.settings.name == name)
    }

    /// The keys of all nodes in use.
    pub fn keys(&self) -> impl Iterator<Item = &NodeKey> {
        self.upstreams.iter().flat_map(|upstream| upstream.nodes.iter().map(|m| &m.node.key))
    }

    /// Requests and tunnels at all nodes.
    pub fn open_work(&self) -> (u32, u32) {
        let nodes = || self.upstreams.iter().flat_map(|upstream| &upstream.nodes);
        let requests = nodes().map(|member| member.node.in_flight()).sum();
        (requests, nodes().map(|member| member.node.tunnels()).sum())
    }

    /// The port that clients find HTTPS at, unless it is the usual one.
    pub fn https_port(&self) -> Option<u16> {
        let mut listeners = self.config.listeners.iter();
        let tls = listeners.find(|listener| !listener.certificates.is_empty())?;
        tls.bind.port().filter(|port| !matches!(port, 0 | 443))
    }

    /// The upstream of a route; without routes, the only one.
    pub fn upstream_of(&self, route: usize) -> usize {
        self.config.routes.get(route).map_or(0, |route| route.upstream)
    }
}
