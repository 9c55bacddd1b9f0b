//! The new process: takes what the old one offers, and says when it serves.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::VARIABLE;
use super::channel::Channel;
use super::message::{KeptNode, KeptSocket, Of, Offer, Word};
use super::tunnels::Line;
use crate::control::sockets::HandedOver;
use crate::net::ListenSocket;

/// The old process sends all at once; only one that has died says nothing for so long.
const OFFER_WITHIN: Duration = Duration::from_secs(30);

/// The end of the old process's line in the new one.
pub struct Heir {
    channel: Channel,
}

/// All that was handed over.
pub struct Estate {
    /// The old process.
    pub(in crate::control) pid: u32,
    /// Its version.
    pub(in crate::control) program: String,
    /// As a state file has it.
    pub(in crate::control) state: String,
    pub(in crate::control) names: Vec<(String, Vec<SocketAddr>)>,
    pub(super) nodes: Vec<KeptNode>,
    pub(super) predecessors: Vec<u32>,
    pub(in crate::control) upgrades: [u64; 2],
    pub(super) sockets: Vec<(KeptSocket, OwnedFd)>,
}

impl Heir {
    /// Whether this process was started to take over, by its environment. Its line is then what was its
    /// standard input.
    ///
    /// # Errors
    /// The environment says so, and standard input is no such line.
    pub fn of_environment() -> io::Result<Option<Heir>> {
        if std::env::var_os(VARIABLE).is_none_or(|value| value.is_empty()) {
            return Ok(None);
        }
        let line = std::io::stdin().as_fd().try_clone_to_owned()?;
        let unusable = |error: io::Error| {
            let what = "is set, and standard input is no line to a process that hands over";
            io::Error::other(format!("${VARIABLE} {what} ({error}): unset it"))
        };
        let mut channel = Channel::of(line).map_err(unusable)?;
        // Else whoever waits for the end of the line would wait for the end of this process.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        channel.within(OFFER_WITHIN);
        Ok(Some(Heir { channel }))
    }

    /// Takes the offer.
    ///
    /// # Errors
    /// It is of another version, or the old process has ended.
    pub fn receive(&mut self) -> io::Result<Estate> {
        let offer = Offer::parse(&self.channel.receive()?)?;
        let descriptors = self.channel.receive_descriptors(offer.sockets.len())?;
        Ok(Estate {
            pid: offer.pid,
            program: offer.program,
            state: offer.state,
            names: offer.names.into_iter().collect(),
            nodes: offer.nodes,
            predecessors: offer.predecessors,
            upgrades: offer.upgrades,
            sockets: offer.sockets.into_iter().zip(descriptors).collect(),
        })
    }

    /// Says why it cannot take over.
    pub fn fail(mut self, error: &str) {
        // The old process may have given up: it goes on either way.
        let _ = self.channel.send(&Word::Failed(error.to_owned()));
    }

    /// Says that it serves, and waits to be told that it is the one who does. None: the old process has
    /// ended without a word.
    pub fn take_over(mut self) -> Option<Line> {
        let mut go = || -> io::Result<Word> {
            self.channel.within(OFFER_WITHIN);
            self.channel.send(&Word::Ready)?;
            Ok(serde_json::from_slice(&self.channel.receive()?)?)
        };
        let word = go();
        matches!(word, Ok(Word::Go)).then(|| Line::new(self.channel))
    }
}

impl Estate {
    /// One of a process that knows nothing but what operators have said.
    #[cfg(test)]
    pub(in crate::control) fn with_state(state: &str) -> Estate {
        Estate {
            pid: 0,
            program: String::new(),
            state: state.into(),
            names: Vec::new(),
            nodes: Vec::new(),
            predecessors: Vec::new(),
            upgrades: [0, 0],
            sockets: Vec::new(),
        }
    }

    /// The sockets of the listeners.
    ///
    /// # Errors
    /// One is no socket that can be listened on.
    pub(in crate::control) fn take_listeners(&mut self) -> io::Result<Vec<HandedOver>> {
        let mut listeners = Vec::new();
        let mut others = Vec::new();
        for (kept, socket) in self.sockets.drain(..) {
            match kept.of {
                Of::Listener(name) => {
                    let KeptSocket { asked, file, .. } = kept;
                    let socket = ListenSocket::of(socket)?;
                    listeners.push(HandedOver { name, asked, file, socket });
                }
                Of::Server(_) => others.push((kept, socket)),
            }
        }
        self.sockets = others;
        Ok(listeners)
    }

    /// The sockets of the admin server and of the probes.
    pub(in crate::control) fn take_servers(&mut self) -> Vec<(String, SocketAddr, TcpListener)> {
        let server = |(kept, socket): (KeptSocket, OwnedFd)| match kept.of {
            Of::Server(name) => Some((name, kept.asked.tcp()?, socket.into())),
            Of::Listener(_) => None,
        };
        self.sockets.drain(..).filter_map(server).collect()
    }
}
