//! The queue of connections that wait to be accepted, asked whether it is empty before a look costs much.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A listening socket's queue. The runtime tells once that it has become non-empty, and whoever empties it must
/// find that out: by an accept that fails, for which the kernel first makes a socket and a file and then throws
/// them away. A `poll` tells the same for a tenth.
pub struct AcceptQueue<L: AsRawFd>(AsyncFd<L>);

impl<L: AsRawFd + AsFd> AcceptQueue<L> {
    /// Of a socket that does not block.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    // Deprecated for types that change the descriptor they tell of, which no listener does.
    #[allow(deprecated)]
    pub fn new(listener: L) -> io::Result<AcceptQueue<L>> {
        Ok(AcceptQueue(AsyncFd::with_interest(listener, Interest::READABLE)?))
    }

    /// Ready with the next connection.
    ///
    /// # Errors
    /// Whatever `accept` says but that it would have to wait.
    pub fn poll_next<T>(
        &self,
        cx: &mut Context<'_>,
        accept: impl Fn(&L) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let accepted = accept(self.0.get_ref());
            let waits =
                matches!(&accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if waits || is_empty(self.0.get_ref()) {
                // What comes from now on the runtime will tell.
                ready.clear_ready();
            }
            if !waits {
                return Poll::Ready(accepted);
            }
        }
    }
}

fn is_empty(listener: &impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&now)) == Ok(0)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::net::{ListenSocket, Socket};

    #[test]
    fn what_comes_after_the_queue_was_found_empty_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let queue = AcceptQueue::new(ListenSocket::from(listener)).unwrap();
            for _ in 0..3 {
                let connect = |_| std::net::TcpStream::connect(address).unwrap();
                let clients: Vec<_> = (0..4).map(connect).collect();
                for client in &clients {
                    let next = poll_fn(|cx| queue.poll_next(cx, ListenSocket::accept)).await;
                    let (accepted, peer) = next.unwrap();
                    assert_eq!(peer, client.local_addr().unwrap().into());
                    let Socket::Tcp(accepted) = accepted else { panic!("{accepted:?}") };
                    assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
                }
                let more =
                    |cx: &mut Context<'_>| queue.poll_next(cx, ListenSocket::accept).is_ready();
                assert!(!poll_fn(|cx| Poll::Ready(more(cx))).await);
            }
        });
    }
}
