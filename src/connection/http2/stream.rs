//! One stream: an exchange of its own.

use std::sync::Arc;

use super::shared::Place;
use crate::connection::refuse;
use crate::error::Cause;
use crate::exchange::client::{Client, Unread};
use crate::exchange::{Next, exchange, maintenance, tunnel};
use crate::http1::request::RequestHead;
use crate::net::Socket;
use crate::snapshot::Listener;

/// Serves one stream to its end, or into a tunnel.
pub(super) async fn serve(
    place: Place,
    listener: Arc<Listener>,
    socket: Socket,
    head: RequestHead,
    at_ns: u64,
) {
    let shared = place.0.clone();
    let deadlines = shared.deadlines();
    let mut unread = Unread::default();
    let client = Client {
        thread: &shared.thread,
        socket: &socket,
        listener,
        peer: shared.peer,
        certificate: &shared.certificate,
        last: false,
    };
    let next = exchange(&client, head, &mut unread, &deadlines, at_ns).await;
    drop(client);
    shared.keep(deadlines);
    match next {
        // What was not sent whole is reset when the stream is dropped.
        Next::KeepAlive | Next::Close | Next::Linger | Next::Cut => {
            shared.thread.buffers.give_back(unread.take());
        }
        Next::Tunnel(join) => {
            let early = unread.take();
            let exact = early.to_vec();
            shared.thread.buffers.give_back(early);
            tunnel::spawn(shared.thread.clone(), join(socket, Box::new(place), exact));
        }
        Next::Held(hold) => {
            let early = unread.take();
            let parts: (Socket, Box<dyn std::any::Any>) = (socket, Box::new(place));
            maintenance::spawn(shared.thread.clone(), *hold, parts, &early);
            shared.thread.buffers.give_back(early);
        }
    }
}

/// Answers a request that could not have been one.
pub(super) async fn refuse_request(
    place: Place,
    listener: Arc<Listener>,
    socket: Socket,
    (cause, to_head): (Cause, bool),
    at_ns: u64,
) {
    let shared = &place.0;
    let deadlines = shared.deadlines();
    let from = (&listener, shared.peer);
    // Whether it is told or not, the stream is over.
    let _ = refuse(&shared.thread, from, (&socket, &deadlines.down), (cause, to_head), at_ns).await;
    shared.keep(deadlines);
}
