//! What operators have asked of nodes while the process runs, and its file.
//!
//! A drained node is kept by the name that was typed, not by its address: a container that comes back
//! elsewhere is still drained, until somebody says `ready`.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::maintenance::Maintained;
use super::pin::Pinned;
use crate::config::Config;
use crate::disk;
use crate::snapshot::Upstream;
use crate::upstream::Node;

/// The layout of the file. A newer one is not read: half of what it means could be wrong.
const VERSION: u32 = 1;
/// More nodes than anybody drains by hand; bounds memory and file.
const MOST: usize = 1024;
/// [`MOST`] drained nodes and as many upstreams under maintenance, each with the longest terms, are smaller.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// A node of a name's that is gone so long does not come back: an address is given to somebody else.
const FORGET_ABSENT: Duration = Duration::from_secs(3600);

/// All nodes that are drained or pinned, and the upstreams under maintenance.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Since when no node is called so, on the clock of control: of a name that stands for several, one
    /// address is gone.
    #[serde(skip)]
    absent: Option<Duration>,
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
        Some(configured == node.key.name && node.address()?.tcp()?.ip().to_string() == ip)
    };
    node.label == name || node.key.name == name || among_others() == Some(true)
}

/// What goes on to mean a node when it is elsewhere: its name as configured, if that stands for it alone. A label
/// lasts as long as the node, so it may have an address of a time when there was another.
pub(super) fn lasting_name<'a>(upstream: &Upstream, node: &'a Node) -> &'a str {
    let of_name = upstream.nodes.iter().filter(|other| other.node.key.name == node.key.name);
    if of_name.count() == 1 { &node.key.name } else { &node.label }
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
            absent: None,
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

    /// Takes out what means no node of `nodes`: what was typed with just this text, or nodes that this name
    /// stood for. Returns that.
    pub(super) fn remove_absent<'a>(
        &mut self,
        upstream: Option<&str>,
        text: &str,
        nodes: impl Iterator<Item = &'a Node> + Clone,
    ) -> Vec<Drained> {
        let named = |drained: &Drained| {
            let name = drained.node.rsplit_once('#').map(|(name, _)| name);
            drained.node == text || name == Some(text)
        };
        let asked = |drained: &Drained| {
            upstream.is_none_or(|upstream| drained.upstream == upstream) && named(drained)
        };
        self.take(|drained| asked(drained) && !nodes.clone().any(|node| drained.is(node)))
    }

    /// Notes which of them mean no node of `nodes`, and forgets those that have done so for long; returns
    /// these.
    pub(super) fn sweep<'a>(
        &mut self,
        nodes: impl Iterator<Item = &'a Node> + Clone,
        now: Duration,
    ) -> Vec<Drained> {
        // A name alone always means a node, if only one without an address.
        for drained in self.all.iter_mut().filter(|drained| drained.node.contains('#')) {
            drained.absent = match nodes.clone().any(|node| drained.is(node)) {
                true => None,
                false => Some(drained.absent.unwrap_or(now)),
            };
        }
        self.take(|drained| drained.absent.is_some_and(|since| now >= since + FORGET_ABSENT))
    }

    /// Those of an upstream that mean no node, as of the last [`Drains::sweep`].
    pub(super) fn absent(&self, upstream: &str) -> impl Iterator<Item = &Drained> {
        let absent = move |one: &&Drained| one.upstream == upstream && one.absent.is_some();
        self.all.iter().filter(absent)
    }

    fn take(&mut self, goes: impl Fn(&Drained) -> bool) -> Vec<Drained> {
        let (gone, kept) = self.all.drain(..).partition(goes);
        self.all = kept;
        gone
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
        self.take(|drained| !configured(drained))
    }

    /// What is in this one and not in another.
    pub(super) fn without(mut self, other: &Drains) -> Drains {
        self.all.retain(|one| !other.all.contains(one));
        self.maintained.retain(|one| !other.maintained.contains(one));
        self.pinned.retain(|one| !other.pinned.contains(one));
        self
    }

    /// Takes what was forgotten back in, but for what something else was said of since.
    pub(super) fn take_back(&mut self, forgotten: &Drains) {
        for one in &forgotten.all {
            let same = |it: &Drained| it.upstream == one.upstream && it.node == one.node;
            if self.has_room(1) && !self.all.iter().any(same) {
                self.all.push(one.clone());
            }
        }
        for one in &forgotten.maintained {
            if !self.maintained.iter().any(|it| it.upstream == one.upstream) {
                self.maintained.push(one.clone());
            }
        }
        for one in &forgotten.pinned {
            if !self.pinned.iter().any(|it| it.upstream == one.upstream) {
                self.pinned.push(one.clone());
            }
        }
    }

    /// Takes the pins of an upstream out, or of all; returns them.
    pub(super) fn unpin(&mut self, upstream: Option<&str>) -> Vec<Pinned> {
        let asked = |one: &mut Pinned| upstream.is_none_or(|name| one.upstream == name);
        self.pinned.extract_if(.., asked).collect()
    }

    /// Takes the maintenance of an upstream out, or of all; returns it.
    pub(super) fn end_maintenance(&mut self, upstream: Option<&str>) -> Vec<Maintained> {
        let asked = |one: &mut Maintained| upstream.is_none_or(|name| one.upstream == name);
        self.maintained.extract_if(.., asked).collect()
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
        let Some(bytes) = disk::read(path, MOST_BYTES as u64)? else {
            return Ok(Drains::default());
        };
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
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
/// It would be larger than what is read back, or what the system says; the old file stays.
pub(super) fn save(path: &Path, text: &str) -> io::Result<()> {
    if text.len() > MOST_BYTES {
        let most = MOST_BYTES / (1024 * 1024);
        return Err(io::Error::other(format!("it would be larger than {most} MiB")));
    }
    // The keys of cookies that let through maintenance are nobody else's.
    disk::replace(path, text.as_bytes())
}

#[cfg(test)]
mod tests;
