//! Tunnels on the line between the two processes, after the word that the new one serves.

use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;

use super::channel::Channel;
use crate::listener::{About, Passed};

/// The line of two processes, of which one passes its tunnels to the other.
pub struct Line {
    channel: Channel,
}

impl Line {
    pub(super) fn new(mut channel: Channel) -> Line {
        channel.for_ever();
        Line { channel }
    }

    /// Passes tunnels on until there are no more. Those that the new process does not take are parted.
    pub(super) fn pass(mut self, tunnels: Receiver<Passed>) {
        for passed in tunnels {
            let sent = self.channel.send(&passed.about).and_then(|()| {
                self.channel.send_descriptors(&[passed.client.as_fd(), passed.node.as_fd()])
            });
            if let Err(error) = sent {
                tracing::warn!(%error, "a tunnel cannot be passed on");
                passed.part();
            }
        }
    }

    /// Receives tunnels until the old process has no more; `take` says whether to go on.
    pub(super) fn receive(mut self, take: impl Fn(Passed) -> bool) {
        while let Some(passed) = self.next() {
            if !take(passed) {
                return;
            }
        }
    }

    /// None at the end.
    fn next(&mut self) -> Option<Passed> {
        let about: About = serde_json::from_slice(&self.channel.receive().ok()?).ok()?;
        let mut sockets = self.channel.receive_descriptors(2).ok()?.into_iter();
        Some(Passed { about, client: sockets.next()?, node: sockets.next()? })
    }
}
