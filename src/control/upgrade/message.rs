//! What a process that is to take over is told, and what it answers.
//!
//! The shape is versioned by [`VERSION`]: a process that is offered another refuses, and the old one goes
//! on. Fields may be added with a default; whoever does not know one leaves it out.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::health::KeptHealth;
use crate::health::outlier::KeptOutlier;
use crate::net::Address;

/// Of the shape of all messages.
const VERSION: u32 = 1;

/// All that is handed over but the descriptors, which follow in the order of `sockets`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    version: u32,
    /// The program's version, for the log.
    pub(super) program: String,
    /// The old process.
    pub(super) pid: u32,
    /// As a state file has it.
    pub(super) state: String,
    /// What names stood for.
    pub(super) names: HashMap<String, Vec<SocketAddr>>,
    pub(super) nodes: Vec<KeptNode>,
    pub(super) sockets: Vec<KeptSocket>,
    /// Those that it has itself taken over from, and that still work.
    #[serde(default)]
    pub(super) predecessors: Vec<u32>,
    /// Upgrades before this one, by how they ended: well, and not.
    pub(super) upgrades: [u64; 2],
}

/// What is known of one node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptNode {
    pub(super) upstream: String,
    pub(super) name: String,
    pub(super) address: Option<Address>,
    /// None without a health check.
    pub(super) health: Option<KeptHealth>,
    pub(super) outlier: Option<KeptOutlier>,
    /// Since when, in Unix seconds, and why the state holds that is shown.
    pub(super) since: u64,
    pub(super) cause: String,
    /// Since when it starts slowly, if it does.
    pub(super) slow_for_ns: Option<u64>,
    /// 0 is unknown.
    pub(super) latency_ns: u64,
}

/// A listening socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptSocket {
    pub(super) of: Of,
    /// As configured; the port may be 0.
    pub(super) asked: Address,
    /// The file of a listener's Unix socket; an earlier version does not say.
    #[serde(default)]
    pub(super) file: Option<(u64, u64)>,
}

/// Whose socket it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    /// One of a listener's, by its name.
    Listener(String),
    /// Of the admin server, or of the public probes, by [`crate::admin`]'s word.
    Server(String),
}

/// What is said besides.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// The new process accepts.
    Ready,
    /// It cannot, and says why.
    Failed(String),
    /// The old process accepts no more: the new one is the service.
    Go,
}

impl Offer {
    /// An offer of nothing yet.
    pub(super) fn new(state: String) -> Offer {
        Offer {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            state,
            names: HashMap::new(),
            nodes: Vec::new(),
            sockets: Vec::new(),
            predecessors: Vec::new(),
            upgrades: [0, 0],
        }
    }

    /// Reads an offer.
    ///
    /// # Errors
    /// It is of another version, or no offer at all.
    pub(super) fn parse(text: &[u8]) -> io::Result<Offer> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
            program: String,
        }
        // First the version alone: another may have another shape.
        let Versioned { version, program } = serde_json::from_slice(text)?;
        if version != VERSION {
            return Err(io::Error::other(format!(
                "cobalance {program} hands over in version {version}, and cobalance {} takes over in \
                 version {VERSION}: stop the old process and start the new one",
                env!("CARGO_PKG_VERSION")
            )));
        }
        Ok(serde_json::from_slice(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_before_its_shape_is_looked_at() {
        let text = br#"{"version":2,"program":"9.9.9","nodes":7}"#;
        let error = Offer::parse(text).unwrap_err().to_string();
        assert!(error.contains("cobalance 9.9.9 hands over in version 2"), "{error}");
        for text in [&b""[..], b"1", br#"{"version":1,"program":"x"}"#] {
            assert!(Offer::parse(text).is_err());
        }
    }

    #[test]
    fn what_a_later_program_adds_is_left_out() {
        let mut value = serde_json::to_value(Offer::new("s".into())).unwrap();
        value["novel"] = serde_json::json!({ "x": 1 });
        let offer = Offer::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!((offer.state.as_str(), offer.pid), ("s", std::process::id()));
    }
}
