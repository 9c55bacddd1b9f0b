//! The conversation of the two processes: JSON messages, each behind its length, and descriptors.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;

/// Descriptors in one message. The kernel takes 253 (`SCM_MAX_FD`); few keep the buffers small.
const AT_ONCE: usize = 64;
/// Ten thousand nodes fit: no message of ours is larger.
const MOST_BYTES: u32 = 64 * 1024 * 1024;

/// One end of it.
pub(super) struct Channel {
    stream: UnixStream,
    deadline: Option<Instant>,
}

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Channel { stream: ours, deadline: None }, theirs.into()))
    }

    /// An end that was handed to this process.
    ///
    /// # Errors
    /// It is no socket.
    pub(super) fn of(descriptor: OwnedFd) -> io::Result<Channel> {
        rustix::net::sockopt::socket_type(&descriptor)?;
        Ok(Channel { stream: descriptor.into(), deadline: None })
    }

    /// From now on everything fails after so long.
    pub(super) fn within(&mut self, time: Duration) {
        self.deadline = Instant::now().checked_add(time);
    }

    /// From now on nothing fails for want of time.
    pub(super) fn for_ever(&mut self) {
        self.deadline = None;
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The other process has ended, or takes nothing for too long.
    pub(super) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len()).ok().filter(|length| *length <= MOST_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(&text).map_err(timed_out)
    }

    /// Waits for a message; its text.
    ///
    /// # Errors
    /// The other process has ended (`UnexpectedEof`), says nothing for too long (`TimedOut`), or
    /// nonsense.
    pub(super) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MOST_BYTES {
            return Err(io::Error::other("it speaks another language"));
        }
        let mut text = vec![0; length as usize];
        self.read(&mut text)?;
        Ok(text)
    }

    fn read(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            // Anew each time: a message that comes byte by byte has no more time than any other.
            self.stream.set_read_timeout(self.left()?)?;
            match self.stream.read(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => into = &mut into[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
        Ok(())
    }

    /// What is left until the deadline; none is for ever.
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }

    /// Sends descriptors, which this process keeps as well.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub(super) fn send_descriptors(&self, all: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.stream.set_write_timeout(self.left()?)?;
        for some in all.chunks(AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(io::Error::other("no room for descriptors"));
            }
            // Descriptors need a byte to travel with.
            retry(|| {
                sendmsg(&self.stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)
            })?;
        }
        Ok(())
    }

    /// Receives as many descriptors as were sent.
    ///
    /// # Errors
    /// As [`Channel::receive`], or fewer came: this process may have no more.
    pub(super) fn receive_descriptors(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        while all.len() < count {
            self.stream.set_read_timeout(self.left()?)?;
            all.extend(self.receive_some()?);
        }
        match all.len() == count {
            true => Ok(all),
            false => Err(io::Error::other("more descriptors came than were announced")),
        }
    }

    fn receive_some(&self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = retry(|| {
            let mut into = [IoSliceMut::new(&mut byte)];
            recvmsg(&self.stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        let mut found = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                found.extend(descriptors);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if found.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("descriptors were lost on the way: raise `ulimit -n`"));
        }
        Ok(found)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The system's word for a time-out of a socket is that it would block.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done.map_err(|errno| timed_out(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::of(other).unwrap())
    }

    #[test]
    fn messages_and_descriptors_arrive_in_their_order() {
        let (mut one, mut other) = pair();
        let sockets: Vec<TcpListener> =
            (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let sending = std::thread::spawn(move || {
            // Longer than any buffer of a socket.
            one.send(&"x".repeat(1_000_000)).unwrap();
            let all: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            one.send_descriptors(&all).unwrap();
            one.send(&"end").unwrap();
            one
        });
        assert_eq!(other.receive().unwrap().len(), 1_000_002);
        let received = other.receive_descriptors(150).unwrap();
        let received = received.into_iter().map(TcpListener::from);
        assert!(received.map(|s| s.local_addr().unwrap()).eq(addresses));
        assert_eq!(other.receive().unwrap(), b"\"end\"");
        drop(sending.join().unwrap());
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn silence_ends() {
        let (mut one, mut other) = pair();
        one.within(Duration::from_millis(20));
        assert_eq!(one.receive().unwrap_err().kind(), io::ErrorKind::TimedOut);
        // One who takes nothing.
        let error = one.send(&"x".repeat(10_000_000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        other.within(Duration::from_secs(20));
        (&one.stream).write_all(&[0xff; 4]).unwrap();
        assert!(other.receive().is_err(), "no message of ours is so long");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Channel::of(file.into()).is_err(), "no socket");
    }

    #[test]
    fn bytes_without_descriptors_are_an_error() {
        let (one, other) = pair();
        (&one.stream).write_all(&[0]).unwrap();
        assert!(other.receive_descriptors(1).unwrap_err().to_string().contains("lost"));
    }
}
