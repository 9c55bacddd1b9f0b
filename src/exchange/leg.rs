//! What an attempt has while it runs: its node, and what is learnt there, whether its future ends or is dropped.

use std::cell::Cell;
use std::io;

use super::attempt::Waiting;
use super::pick::{InFlight, Pick};
use super::record::Attempt;
use super::thread::Thread;
use super::view::{LocalMember, LocalUpstream};
use crate::telemetry::metrics::AttemptResult;

/// One try at one node, while it runs.
pub(super) struct Leg<'a> {
    pub(super) pick: Pick,
    pub(super) member: &'a LocalMember,
    pub(super) in_flight: InFlight<'a>,
    pub(super) waiting: Waiting<'a>,
    pub(super) seen: Seen,
    pub(super) begun_ns: u64,
    /// Made beside another one that was late.
    pub(super) hedge: bool,
}

/// What is learnt while an attempt runs.
#[derive(Default)]
pub struct Seen {
    /// Bytes of the request that the kernel took.
    pub sent: Cell<u64>,
    /// A write found the connection reset. The kernel says so once: what is read then ends as if it were whole.
    pub reset: Cell<bool>,
    pub reused: Cell<bool>,
    /// When the attempt began to send.
    pub sent_ns: Cell<u64>,
    /// The head came and looked healthy.
    pub healthy: Cell<Option<bool>>,
    /// It was given up so that another node is asked.
    pub rescue: Cell<bool>,
}

impl Seen {
    /// Why a write came to nothing. After an end of the stream it would be another error: that is no reset.
    pub(super) fn note(&self, error: &io::Error) {
        self.reset.set(self.reset.get() || error.kind() == io::ErrorKind::ConnectionReset);
    }
}

impl<'a> Leg<'a> {
    /// At the node that was picked.
    pub(super) fn begin(
        mut pick: Pick,
        upstream: &'a LocalUpstream,
        thread: &'a Thread,
    ) -> Leg<'a> {
        let member = &upstream.nodes[pick.node];
        Leg {
            member,
            in_flight: InFlight::begin(member, &mut pick),
            waiting: Waiting::new(&member.local, thread),
            seen: Seen::default(),
            begun_ns: thread.now_ns(),
            hedge: false,
            pick,
        }
    }

    /// What is told of it, as of now.
    pub(super) fn told(&self, result: AttemptResult, now_ns: u64) -> Attempt {
        self.member.local.node.metrics.attempt(result);
        Attempt {
            node: self.member.local.clone(),
            result,
            sent: self.seen.sent.get(),
            reused: self.seen.reused.get(),
            hedge: self.hedge,
            ns: now_ns.saturating_sub(self.begun_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn fails(stream: &mut TcpStream) -> io::Error {
        std::iter::repeat_with(|| stream.write_all(b"x")).find_map(Result::err).unwrap()
    }

    #[test]
    fn a_reset_is_noted_as_it_is_told_once_and_one_after_an_end_is_none() {
        let (mut ours, theirs) = pair();
        socket2::SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(theirs);
        let seen = Seen::default();
        seen.note(&fails(&mut ours));
        assert!(seen.reset.get());
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0, "nobody is told of it again");

        let (mut ours, theirs) = pair();
        drop(theirs);
        let seen = Seen::default();
        seen.note(&fails(&mut ours));
        assert!(!seen.reset.get(), "what came before its end is whole");
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    }
}
