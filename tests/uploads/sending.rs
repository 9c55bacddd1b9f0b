//! Clients that send a head, and their bodies later than one who has them at hand.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use cobalance::telemetry::metrics::Metrics;

use super::support::{Proxy, until};
use super::{MOMENT, head};

/// Sends a head and, more than a moment after that was read, this part of a body.
pub(crate) fn begin(proxy: &Proxy, framing: &str, part: &[u8]) -> TcpStream {
    begin_beside(proxy, 0, framing, part)
}

/// The same while so many other requests are under way.
pub(crate) fn begin_beside(proxy: &Proxy, others: i64, framing: &str, part: &[u8]) -> TcpStream {
    let mut stream = proxy.connect();
    send(&proxy.metrics, others, &mut stream, &head(framing), part);
    stream
}

/// The same on a connection that is there.
pub(crate) fn send(
    metrics: &Metrics,
    others: i64,
    stream: &mut TcpStream,
    head: &[u8],
    part: &[u8],
) {
    // One that was answered is counted for a moment yet.
    until("the one before is over", || in_flight(metrics) == others);
    stream.write_all(head).unwrap();
    // Only now its time runs: head and body that are found together did not come slowly.
    until("its head was read", || in_flight(metrics) == others + 1 || is_answered(stream));
    send_slowly(stream, part);
}

/// This part of a body, after more than a moment.
pub(crate) fn send_slowly(stream: &mut TcpStream, part: &[u8]) {
    let begun = Instant::now();
    until("it is slow", || begun.elapsed() > 5 * MOMENT);
    // It may be refused before all was taken: what came back tells.
    let _ = stream.write_all(part);
}

/// Requests of clients that are under way.
fn in_flight(metrics: &Metrics) -> i64 {
    let all = metrics.registry.gather();
    let family = all.iter().find(|one| one.name() == "cobalance_requests_in_flight").unwrap();
    family.get_metric().iter().map(|one| one.get_gauge().get_value() as i64).sum()
}

/// Whether it was so late that something has come back already.
fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let answered = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).unwrap();
    answered
}
