//! The connection itself: opened, listened to, and opened again.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use super::{Goal, Heard};
use crate::control::stream::{Stream, connected, secured};
use crate::nocobase::{self, Frame};

/// Connecting and the handshake together. The gateway answers a handshake in every state.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// NocoBase never sends a ping, and an Nginx in between gives up after 60 s without a byte.
const PACE: Pace = Pace { ping: Duration::from_secs(20), silence: Duration::from_secs(60) };
/// From a failure to the next attempt, and the longest such pause.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// A connection that stood for so long was no failure.
const STOOD: Duration = Duration::from_secs(10);
/// Frames are short and rare.
const BUFFER: usize = 4 * 1024;

const AGENT: &str = concat!("cobalance/", env!("CARGO_PKG_VERSION"), " watch");

/// How it is known that the other side is there.
#[derive(Clone, Copy)]
struct Pace {
    /// Between our pings.
    ping: Duration,
    /// After so much of it nobody is there.
    silence: Duration,
}

/// Keeps a connection to where the goal is, while there is one. What comes of it goes to `tell`, one thing
/// after the other: no more is read until control has taken it.
pub(super) async fn keep(
    mut goals: watch::Receiver<Option<Goal>>,
    tell: impl Fn(Heard) -> oneshot::Receiver<()>,
) {
    let mut failures = 0;
    loop {
        let Ok(goal) = goals.wait_for(Option::is_some).await.map(|goal| goal.clone()) else {
            return;
        };
        let Some(goal) = goal else { continue };
        let mut since = None;
        let moved = tokio::select! {
            error = listen(&goal, &tell, &mut since) => {
                let (address, error) = (&goal.address, error.to_string());
                tracing::debug!(target: "cobalance::health", %address, error, "watch: no connection");
                false
            }
            changed = goals.changed() => changed.is_ok(),
        };
        if since.is_some() {
            // An error says that it has been taken.
            let _ = tell(Heard::Lost).await;
        }
        let stood = since.is_some_and(|since: Instant| since.elapsed() >= STOOD);
        failures = if moved || stood { 0 } else { failures + 1 };
        if !moved {
            tokio::select! {
                () = sleep(pause(failures, fastrand::f64())) => {}
                // Wanted anew: a node that has come back is not waited for.
                _ = goals.changed() => failures = 0,
            }
        }
    }
}

/// Doubles with each failure, and is spread by half: many balancers watch the same nodes.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6));
    doubled.min(PAUSE_MOST).mul_f64(0.5 + jitter.clamp(0.0, 1.0))
}

/// Listens until that ends, which is always an error. `since` tells whether it stood.
async fn listen(
    goal: &Goal,
    tell: &impl Fn(Heard) -> oneshot::Receiver<()>,
    since: &mut Option<Instant>,
) -> Error {
    let socket = match timeout(OPEN_WITHIN, open(goal)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return error,
        Err(_) => return silent(),
    };
    *since = Some(Instant::now());
    // Whether control has taken it or has ended, here and below: this goes on.
    let _ = tell(Heard::Connected).await;
    converse(socket, PACE, tell).await
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    pace: Pace,
    tell: &impl Fn(Heard) -> oneshot::Receiver<()>,
) -> Error {
    let mut ping = interval(pace.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            message = socket.next() => {
                heard = Instant::now();
                match message.unwrap_or(Err(Error::ConnectionClosed)) {
                    Ok(message) => {
                        if let Some(frame) = read(&message) {
                            let _ = tell(Heard::Frame(frame)).await;
                        }
                    }
                    Err(error) => {
                        if matches!(error, Error::Capacity(_)) {
                            let _ = tell(Heard::TooLarge).await;
                        }
                        return error;
                    }
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() >= pace.silence {
                    return silent();
                }
                // A side that reads nothing for so long is not there either.
                match timeout(pace.silence, socket.send(Message::Ping(Bytes::new()))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error,
                    Err(_) => return silent(),
                }
            }
        }
    }
}

/// What a message says; none for those of the protocol, which answer themselves.
fn read(message: &Message) -> Option<Frame> {
    match message {
        Message::Text(text) => Some(nocobase::parse_frame(text)),
        Message::Binary(_) => Some(Frame::Garbage),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}

async fn open(goal: &Goal) -> Result<WebSocketStream<Box<dyn Stream>>, Error> {
    let uri: Uri = format!("ws://{}{}", goal.host, goal.path).parse()?;
    // The app is named, lest the node look for one by the host: no other app's frames are about the node.
    let request = ClientRequestBuilder::new(uri)
        .with_header("X-App", nocobase::MAIN)
        .with_header("User-Agent", AGENT);
    let stream = secured(connected(&goal.address).await?, goal.tls.as_ref()).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(BUFFER)
        .max_message_size(Some(nocobase::MAX_FRAME))
        .max_frame_size(Some(nocobase::MAX_FRAME));
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    opened.map(|(socket, _)| socket)
}

fn silent() -> Error {
    Error::Io(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A conversation, what is told of it, and its other side.
    async fn talk(
        pace: Pace,
    ) -> (
        tokio::task::JoinHandle<Error>,
        mpsc::UnboundedReceiver<Heard>,
        WebSocketStream<DuplexStream>,
    ) {
        let (here, there) = duplex(1024);
        let here = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
        let there = WebSocketStream::from_raw_socket(there, Role::Server, None).await;
        let (sender, heard) = mpsc::unbounded_channel();
        let tell = move |one| {
            sender.send(one).unwrap();
            oneshot::channel().1
        };
        (tokio::spawn(async move { converse(here, pace, &tell).await }), heard, there)
    }

    fn is_silent(error: &Error) -> bool {
        matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test]
    async fn a_side_that_says_nothing_is_not_there() {
        let pace = Pace { ping: SECOND / 100, silence: SECOND / 20 };
        let (talk, _heard, _there) = talk(pace).await;
        assert!(is_silent(&talk.await.unwrap()));
    }

    #[tokio::test]
    async fn a_side_that_answers_pings_is_there() {
        // Both sides are on this thread: a pause of the machine that is shorter than the silence ends nothing.
        let pace = Pace { ping: SECOND / 50, silence: SECOND * 4 };
        let (talk, mut heard, mut there) = talk(pace).await;
        // More time than that of the silence.
        for _ in 0..250 {
            let ping = there.next().await.unwrap().unwrap();
            assert!(ping.is_ping(), "{ping:?}");
        }
        drop(there);
        assert!(!is_silent(&talk.await.unwrap()));
        assert!(heard.recv().await.is_none(), "pongs say nothing");
    }

    #[tokio::test]
    async fn pings_are_answered_and_frames_are_told() {
        let (talk, mut heard, mut there) =
            talk(Pace { ping: SECOND * 600, silence: SECOND * 600 }).await;
        assert!(there.next().await.unwrap().unwrap().is_ping(), "one at once");
        there.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        let pong = there.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"?")));
        there.send(Message::text("x")).await.unwrap();
        assert!(matches!(heard.recv().await, Some(Heard::Frame(Frame::Garbage))));
        there.send(Message::Close(None)).await.unwrap();
        assert!(there.next().await.unwrap().unwrap().is_close());
        drop(there);
        talk.await.unwrap();
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_are_spread() {
        let seconds = [0, 1, 2, 3, 4, 5, 6, 7, 40].map(|n| pause(n, 0.5).as_secs_f64());
        assert_eq!(seconds, [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(pause(1, 0.0), PAUSE / 2);
        assert_eq!(pause(u32::MAX, 1.0), PAUSE_MOST * 3 / 2);
    }
}
