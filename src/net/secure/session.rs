//! What a TLS session does with bytes, the same for both sides.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error};

use super::End;

/// Room that a record needs beside its plaintext: header, nonce, tag and type, and some to spare.
const OVERHEAD: usize = 64;

/// Either side. In a box each: they differ in size, and a connection is moved.
pub(super) enum Session {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What is wanted once the session can send.
#[derive(Clone, Copy)]
pub(super) enum Job<'a> {
    /// Nothing.
    None,
    /// To seal this as one record.
    Seal(&'a [u8]),
    /// To say that nothing follows.
    Goodbye,
}

/// The buffers that a session works on.
pub(super) struct Buffers<'a> {
    pub(super) incoming: &'a mut [u8],
    pub(super) used: &'a mut usize,
    pub(super) outgoing: &'a mut Vec<u8>,
}

impl Session {
    pub(super) fn server(session: UnbufferedServerConnection) -> Session {
        Session::Server(Box::new(session))
    }

    pub(super) fn client(session: UnbufferedClientConnection) -> Session {
        Session::Client(Box::new(session))
    }

    pub(super) fn common(&self) -> &CommonState {
        match self {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }

    /// Bytes of unfinished messages that are held once the handshake is done.
    pub(super) fn max_incoming(&self) -> usize {
        match self {
            Session::Server(_) => super::MAX_FROM_CLIENT,
            Session::Client(_) => super::MAX_FROM_NODE,
        }
    }

    /// What the end of the stream without a close_notify is. What a client sends has its length, so nothing
    /// can be cut off unseen, and browsers leave like that; the end of an answer may be its only length.
    pub(super) fn bare_end(&self) -> End {
        match self {
            Session::Server(_) => End::Clean,
            Session::Client(_) => End::Cut,
        }
    }

    /// Works until it waits for more bytes, or until the job is done. True when the peer has said that
    /// nothing follows. After an error it must not be asked to work again.
    pub(super) fn work(
        &mut self,
        buffers: Buffers<'_>,
        sink: &mut dyn FnMut(&[u8]),
        job: Job<'_>,
    ) -> Result<bool, Error> {
        let Buffers { incoming, used, outgoing } = buffers;
        let mut desk = Desk { outgoing, sink, job, peer_closed: false };
        loop {
            let step = self.step(&mut desk, &mut incoming[*used..]);
            *used += step.discard;
            match step.result {
                Ok(true) => return Ok(desk.peer_closed),
                Ok(false) => {}
                Err(error) => {
                    // The alert that goes with it is handed out without a look at what came.
                    while self.common().wants_write()
                        && self.step(&mut desk, &mut []).result.is_ok()
                    {}
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, desk: &mut Desk<'_>, rest: &mut [u8]) -> Step {
        match self {
            Session::Server(session) => desk.step(session.process_tls_records(rest)),
            Session::Client(session) => desk.step(session.process_tls_records(rest)),
        }
    }
}

struct Step {
    discard: usize,
    /// Whether there is nothing more to do.
    result: Result<bool, Error>,
}

struct Desk<'a> {
    outgoing: &'a mut Vec<u8>,
    sink: &'a mut dyn FnMut(&[u8]),
    job: Job<'a>,
    peer_closed: bool,
}

impl Desk<'_> {
    fn step<Data>(&mut self, status: UnbufferedStatus<'_, '_, Data>) -> Step {
        let UnbufferedStatus { discard, state } = status;
        let result = state.and_then(|state| self.attend(state));
        Step { discard, result }
    }

    fn attend<Data>(&mut self, state: ConnectionState<'_, '_, Data>) -> Result<bool, Error> {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    (self.sink)(record?.payload);
                }
                Ok(false)
            }
            ConnectionState::EncodeTlsData(mut data) => {
                append(self.outgoing, 0, |room| data.encode(room).map_err(encoding))?;
                Ok(false)
            }
            ConnectionState::TransmitTlsData(data) => {
                // It is in `outgoing`, before everything that comes later.
                data.done();
                Ok(false)
            }
            ConnectionState::WriteTraffic(mut traffic) => {
                match std::mem::replace(&mut self.job, Job::None) {
                    Job::None => {}
                    Job::Seal(plain) => append(self.outgoing, plain.len() + OVERHEAD, |room| {
                        traffic.encrypt(plain, room).map_err(encrypting)
                    })?,
                    Job::Goodbye => append(self.outgoing, OVERHEAD, |room| {
                        traffic.queue_close_notify(room).map_err(encrypting)
                    })?,
                }
                Ok(true)
            }
            ConnectionState::PeerClosed => {
                self.peer_closed = true;
                Ok(false)
            }
            ConnectionState::BlockedHandshake | ConnectionState::Closed => match self.job {
                Job::Seal(_) => Err(Error::HandshakeNotComplete),
                _ => Ok(true),
            },
            // Early data is not offered, and nothing else is known.
            _ => Err(Error::General("an unknown state of the session".into())),
        }
    }
}

/// Appends what `write` puts into the room that it is given; it says when it needs more.
fn append(
    outgoing: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Need>,
) -> Result<(), Error> {
    let begin = outgoing.len();
    loop {
        outgoing.resize(begin + room, 0);
        match write(&mut outgoing[begin..]) {
            Ok(written) => {
                outgoing.truncate(begin + written);
                return Ok(());
            }
            Err(Need::Room(needed)) if needed > room => room = needed,
            Err(Need::Room(_) | Need::Nothing) => {
                outgoing.truncate(begin);
                return Err(Error::EncryptError);
            }
        }
    }
}

enum Need {
    Room(usize),
    /// No room would help.
    Nothing,
}

fn encoding(error: EncodeError) -> Need {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size, .. }) => {
            Need::Room(required_size)
        }
        EncodeError::AlreadyEncoded => Need::Nothing,
    }
}

fn encrypting(error: EncryptError) -> Need {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size, .. }) => {
            Need::Room(required_size)
        }
        EncryptError::EncryptExhausted => Need::Nothing,
    }
}
