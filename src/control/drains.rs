//! What operators have asked of nodes while the process runs, and its file.
//!
//! A drained node is kept by the name that was typed, not by its address: a container that comes back
//! elsewhere is still drained, until somebody says `ready`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::maintenance::Maintained;
use super::pin::Pinned;
use crate::config::Config;
use crate::upstream::Node;

/// The layout of the file. A newer one is not read: half of what it means could be wrong.
const VERSION: u32 = 1;
/// More nodes than anybody drains by hand; bounds memory and file.
const MOST: usize = 1024;
/// A file of ours with [`MOST`] entries is smaller.
const MOST_BYTES: u64 = 1024 * 1024;

/// All nodes that are drained or pinned, and the upstreams under maintenance.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Drains {
    /// At most one for each upstream.
    pub maintained: Vec<Maintained>,
    /// At most one for each upstream.
    pub pinned: Vec<Pinned>,
    all: Vec<Drained>,
}

/// A node, or all nodes that one configured name stands for, taken out of work by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Drained {
    /// Its upstream.
    pub upstream: String,
    /// Its label, or its name as configured.
    pub node: String,
    /// Who asked.
    pub from: String,
}

impl Drained {
    /// Why the node is drained, for people.
    pub(super) fn cause(&self) -> String {
        format!("drained by the operator, from {}", self.from)
    }

    fn is(&self, node: &Node) -> bool {
        self.upstream == node.key.upstream && is_called(node, &self.node)
    }
}

/// Whether a node goes by this name: its label, its name as configured, or what its label would be if that
/// name stood for more or fewer nodes than it does now.
pub(super) fn is_called(node: &Node, name: &str) -> bool {
    let among_others = || {
        let (configured, ip) = name.rsplit_once('#')?;
        Some(configured == node.key.name && node.address()?.ip().to_string() == ip)
    };
    node.label == name || node.key.name == name || among_others() == Some(true)
}

impl Drains {
    /// Why a node is drained, if it is.
    pub(super) fn of(&self, node: &Node) -> Option<&Drained> {
        self.all.iter().find(|drained| drained.is(node))
    }

    /// Whether so many more may be drained.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.all.len() + more <= MOST
    }

    /// Adds a node, for which there must be room. One that is drained already stays as it is.
    pub(super) fn add(&mut self, node: &Node, name: &str, from: &str) {
        if self.of(node).is_some() {
            return;
        }
        // What was typed, so that it goes on to mean the same nodes when addresses change.
        let name = if name == node.key.name { name } else { &node.label };
        self.all.push(Drained {
            upstream: node.key.upstream.clone(),
            node: name.to_owned(),
            from: from.to_owned(),
        });
    }

    /// Takes a node out; the `others` that it was drained with stay drained.
    pub(super) fn remove<'a>(&mut self, node: &Node, others: impl Iterator<Item = &'a Node>) {
        let (gone, mut kept): (Vec<_>, Vec<_>) = self.all.drain(..).partition(|d| d.is(node));
        for other in others.filter(|other| !std::ptr::eq(*other, node)) {
            if let Some(drained) = gone.iter().find(|drained| drained.is(other)) {
                kept.push(Drained { node: other.label.clone(), ..drained.clone() });
            }
        }
        self.all = kept;
    }

    /// Forgets what is configured no more; returns that.
    pub(super) fn retain(&mut self, config: &Config) -> Vec<Drained> {
        let configured = |drained: &Drained| {
            let name = drained.node.rsplit_once('#').map_or(&*drained.node, |(name, _)| name);
            let upstream = config.upstreams.iter().find(|one| one.name == drained.upstream);
            upstream.is_some_and(|one| {
                one.nodes.iter().any(|node| node.name == drained.node || node.name == name)
            })
        };
        let (kept, gone) = self.all.drain(..).partition(configured);
        self.all = kept;
        gone
    }

    /// The file's text.
    pub(super) fn render(&self) -> String {
        let drained = &self.all;
        let value = serde_json::json!({
            "version": VERSION, "drained": drained, "maintenance": self.maintained,
            "pinned": self.pinned,
        });
        format!("{value:#}\n")
    }

    /// Reads a file. One that does not exist is that of a process that has never kept anything.
    ///
    /// # Errors
    /// It cannot be read, or is not one of ours.
    pub(super) fn load(path: &Path) -> io::Result<Drains> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Drains::default()),
            file => file?,
        };
        let mut text = String::new();
        file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(io::Error::other("it is larger than any that cobalance writes"));
        }
        Drains::parse(&text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// It is not one of ours.
    pub(super) fn parse(text: &str) -> io::Result<Drains> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        #[derive(Deserialize)]
        struct Whole {
            drained: Vec<Drained>,
            // Files from before there was maintenance, or a pin, have none.
            #[serde(default)]
            maintenance: Vec<Maintained>,
            #[serde(default)]
            pinned: Vec<Pinned>,
        }
        // First the version alone: another may have another shape.
        let version = serde_json::from_str::<Versioned>(text)?.version;
        if version != VERSION {
            let what = format!("it is of version {version}, and {VERSION} is known here");
            return Err(io::Error::other(what));
        }
        let Whole { drained: mut all, maintenance: mut maintained, mut pinned } =
            serde_json::from_str(text)?;
        all.truncate(MOST);
        maintained.truncate(MOST);
        pinned.truncate(MOST);
        Ok(Drains { maintained, pinned, all })
    }
}

/// Replaces the file as a whole: a process that dies in the middle leaves the old one.
///
/// # Errors
/// What the system says; the old file stays.
pub(super) fn save(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = for_us_alone().open(&new)?;
    file.write_all(text.as_bytes())?;
    // Else a machine that loses power may keep the name and not the text.
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The keys of cookies that let through maintenance are nobody else's.
fn for_us_alone() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::tests::support;
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::{NodeKey, Registry};

    fn node(registry: &mut Registry, name: &str, label: &str, address: &str) -> Arc<Node> {
        let address = Some(address.parse().unwrap());
        let key = NodeKey { upstream: "app".into(), name: name.into(), address };
        registry.node(key, label.into())
    }

    fn registry() -> Registry {
        Registry::new(1, Metrics::new())
    }

    #[test]
    fn a_node_is_known_by_its_name_wherever_it_is() {
        let mut registry = registry();
        let here = node(&mut registry, "a:1", "a:1", "10.0.0.1:1");
        let there = node(&mut registry, "a:1", "a:1", "10.0.0.2:1");
        let one = node(&mut registry, "b:1", "b:1#10.0.0.3", "10.0.0.3:1");
        let two = node(&mut registry, "b:1", "b:1#10.0.0.4", "10.0.0.4:1");
        let mut drains = Drains::default();
        drains.add(&here, "a:1", "x");
        drains.add(&one, "b:1#10.0.0.3", "x");
        assert!(drains.of(&there).is_some(), "a container that comes back elsewhere");
        assert!(drains.of(&one).is_some() && drains.of(&two).is_none());
        // The other has left the name, which now stands for one node.
        let alone = node(&mut registry, "b:1", "b:1", "10.0.0.3:1");
        assert!(drains.of(&alone).is_some());
        drains.add(&two, "b:1", "x");
        assert!(drains.of(&two).is_some());
    }

    #[test]
    fn ready_takes_out_one_of_those_that_were_drained_together() {
        let mut registry = registry();
        let one = node(&mut registry, "b:1", "b:1#10.0.0.3", "10.0.0.3:1");
        let two = node(&mut registry, "b:1", "b:1#10.0.0.4", "10.0.0.4:1");
        let mut drains = Drains::default();
        drains.add(&one, "b:1", "x");
        drains.remove(&one, [&*one, &*two].into_iter());
        assert!(drains.of(&one).is_none() && drains.of(&two).is_some());
        drains.remove(&two, [&*one, &*two].into_iter());
        assert_eq!(drains, Drains::default());
    }

    #[test]
    fn what_is_configured_no_more_is_forgotten() {
        let mut registry = registry();
        let config = support::config(&["a:1", "b:1"]);
        let mut drains = Drains::default();
        for (name, label) in [("a:1", "a:1"), ("b:1", "b:1#10.0.0.3"), ("c:1", "c:1")] {
            drains.add(&node(&mut registry, name, label, "10.0.0.3:1"), label, "x");
        }
        let gone = drains.retain(&config);
        assert_eq!(gone.iter().map(|one| one.node.as_str()).collect::<Vec<_>>(), ["c:1"]);
        assert_eq!(drains.all.len(), 2);
    }

    #[test]
    fn there_is_a_bound() {
        let mut registry = registry();
        let mut drains = Drains::default();
        for n in 0..MOST {
            let name = format!("n{n}");
            assert!(drains.has_room(1));
            drains.add(&node(&mut registry, &name, &name, "10.0.0.3:1"), &name, "x");
        }
        assert!(!drains.has_room(1));
        assert!(drains.render().len() as u64 <= MOST_BYTES);
    }

    #[test]
    fn what_is_saved_is_loaded_and_a_second_time_replaces_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(Drains::load(&path).unwrap(), Drains::default());
        let mut registry = registry();
        let mut drains = Drains::default();
        for name in ["a:1", "b:1"] {
            drains.add(&node(&mut registry, name, name, "10.0.0.1:1"), name, "127.0.0.1");
            save(&path, &drains.render()).unwrap();
            assert_eq!(Drains::load(&path).unwrap(), drains);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        let before_maintenance = Drains::parse("{\"version\":1,\"drained\":[]}").unwrap();
        assert_eq!(before_maintenance, Drains::default());
        assert!(save(&dir.path().join("missing/state.json"), "").is_err());
    }

    #[test]
    fn what_is_not_ours_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let long = format!("{{\"version\":1,\"drained\":[],\"x\":\"{}\"}}", "x".repeat(2 << 20));
        let cases = [
            ("", "EOF"),
            ("{\"version\":1,\"drained\":[{\"upstr", "EOF"),
            ("1", "Versioned"),
            ("{\"version\":2,\"nodes\":{}}", "it is of version 2"),
            ("{\"version\":1,\"drained\":{}}", "sequence"),
            (&long, "larger"),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let error = Drains::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Drains::load(dir.path()).is_err(), "a directory");
    }
}
