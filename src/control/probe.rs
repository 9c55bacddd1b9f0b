//! One probe: ask a node for its health over a kept connection, or a new one.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::stream::{connected, secured};
use crate::config::HealthCheck;
use crate::config::Preset;
use crate::health::{Verdict, classify};
use crate::net::{Address, shortage};
use crate::nocobase;
use crate::tls::Towards;

mod http2;

/// One byte more than the longest refusal is enough to see that a body is none.
const MAX_BODY: usize = nocobase::MAX_REFUSAL + 1;
/// More header fields than that do not come from a health check.
const MAX_HEAD: usize = 16 * 1024;

const AGENT: &str = concat!("cobalance/", env!("CARGO_PKG_VERSION"), " health-check");

/// Whom to ask, and what.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The node.
    pub address: Address,
    /// The question.
    pub check: Arc<HealthCheck>,
    /// How to read the answer.
    pub preset: Preset,
    /// How it is spoken to over TLS, if it is.
    pub tls: Option<Towards>,
    /// It is spoken to in HTTP/2.
    pub http2: bool,
}

/// A kept connection is replaced after so long: how long connecting takes tells what the network takes,
/// and that may change.
const RENEW: Duration = Duration::from_secs(30);

/// A connection that answered well and was not closed.
#[derive(Debug)]
pub(super) struct Kept {
    sender: Sender,
    opened: Instant,
}

#[derive(Debug)]
enum Sender {
    Http1(SendRequest<Empty<Bytes>>),
    Http2(h2::client::SendRequest<Bytes>),
}

/// The parts of a probe's time, as far as it came.
#[derive(Debug, Default)]
pub(super) struct Trip {
    /// To open the connection, if it was a new one.
    pub connected: Option<Duration>,
    /// From the request to the whole answer; after a time-out, how long that was waited for.
    pub answered: Option<Duration>,
    asked: Option<Instant>,
}

/// What a probe found.
#[derive(Debug)]
pub(super) struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// From the begin of the probe to its verdict.
    pub took: Duration,
    /// What that time consists of.
    pub trip: Trip,
    /// For the next one. Only after a good answer: an old process that is ending still answers on
    /// connections it has, while its successor listens on the port.
    pub kept: Option<Kept>,
}

/// The node could not be asked, for want of something here: that says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unasked {
    /// What is lacking, for people.
    pub lack: &'static str,
}

/// Asks once; the time-out covers connecting and the whole answer.
///
/// # Errors
/// We lack what it takes to ask.
pub(super) async fn probe(target: &Target, kept: Option<Kept>) -> Result<Finding, Unasked> {
    let begun = Instant::now();
    let mut trip = Trip::default();
    let asked = tokio::time::timeout(target.check.timeout, ask(target, kept, &mut trip)).await;
    let (verdict, kept) = asked.unwrap_or(Ok((Verdict::Timeout, None)))?;
    if verdict == Verdict::Timeout {
        trip.answered = trip.asked.map(|asked| asked.elapsed());
    }
    let kept = kept.filter(|_| verdict == Verdict::Good);
    Ok(Finding { verdict, took: begun.elapsed(), trip, kept })
}

/// What an exchange with a node comes to.
type Asked = (Verdict, Option<Kept>);

/// A kept connection that turns out to be closed says nothing of the node: then a new one is asked.
async fn ask(target: &Target, kept: Option<Kept>, trip: &mut Trip) -> Result<Asked, Unasked> {
    let (young, old) = match kept {
        Some(kept) if kept.opened.elapsed() < RENEW => (Some(kept), None),
        old => (None, old),
    };
    if let Some(kept) = young
        && let Ok(found) = exchange(target, kept, trip).await
    {
        return Ok(found);
    }
    *trip = Trip::default();
    match connect(target, trip).await {
        Ok(fresh) => {
            Ok(exchange(target, fresh, trip).await.unwrap_or_else(|verdict| (verdict, None)))
        }
        Err(error) => match shortage(&error, &target.address) {
            Some(lack) => ask_over_old(target, old, trip).await.ok_or(Unasked { lack }),
            None => Ok((unreachable(&error), None)),
        },
    }
}

/// No connection can be opened here: one that has grown old, and still works, is better than no answer.
async fn ask_over_old(target: &Target, old: Option<Kept>, trip: &mut Trip) -> Option<Asked> {
    exchange(target, old?, trip).await.ok()
}

async fn connect(target: &Target, trip: &mut Trip) -> io::Result<Kept> {
    let begun = Instant::now();
    let stream = connected(&target.address).await?;
    let opened = Instant::now();
    trip.connected = Some(opened - begun);
    let stream = secured(stream, target.tls.as_ref()).await?;
    if target.http2 {
        let sender = Sender::Http2(http2::shake_hands(stream).await?);
        return Ok(Kept { sender, opened });
    }
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends when the sender is dropped; its error is seen by whoever asks through it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(Kept { sender: Sender::Http1(sender), opened })
}

/// Asks over one connection.
async fn exchange(
    target: &Target,
    kept: Kept,
    trip: &mut Trip,
) -> Result<(Verdict, Option<Kept>), Verdict> {
    let Kept { mut sender, opened } = kept;
    let asked = Instant::now();
    trip.asked = Some(asked);
    let (status, kind, text, whole) = match &mut sender {
        Sender::Http1(sender) => ask_http1(sender, target).await?,
        Sender::Http2(sender) => http2::ask(sender.clone(), request(target, true, ())?).await?,
    };
    trip.answered = Some(asked.elapsed());
    let verdict = classify(status, kind.as_deref(), &text, &target.check, target.preset);
    Ok((verdict, whole.then_some(Kept { sender, opened })))
}

async fn ask_http1(
    sender: &mut SendRequest<Empty<Bytes>>,
    target: &Target,
) -> Result<http2::Answer, Verdict> {
    sender.ready().await.map_err(|error| broken(&error))?;
    let request = request(target, false, Empty::new())?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let (head, body) = answer.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let (text, whole) = read(body).await.map_err(|error| broken(&error))?;
    Ok((head.status.as_u16(), kind.map(ToOwned::to_owned), text, whole))
}

/// The question: with the node's whole address where that is said so.
fn request<B>(target: &Target, http2: bool, body: B) -> Result<http::Request<B>, Verdict> {
    let host = target.check.host.clone().unwrap_or_else(|| target.address.host());
    let request = match (http2, &target.tls) {
        (false, _) => http::Request::get(&target.check.path).header(HOST, host),
        (true, None) => http::Request::get(format!("http://{host}{}", target.check.path)),
        (true, Some(_)) => http::Request::get(format!("https://{host}{}", target.check.path)),
    };
    let request = request.header(USER_AGENT, AGENT).body(body);
    request.map_err(|error| Verdict::Garbage { detail: error.to_string() })
}

/// The body up to the bound, and whether that was all of it.
async fn read(mut body: hyper::body::Incoming) -> hyper::Result<(BytesMut, bool)> {
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = MAX_BODY - text.len();
            text.extend_from_slice(&data[..data.len().min(room)]);
        }
        if text.len() == MAX_BODY {
            return Ok((text, false));
        }
    }
    Ok((text, true))
}

/// What an error of a connection says of the node.
fn broken(error: &hyper::Error) -> Verdict {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let detail = cause.unwrap_or_else(|| error.to_string());
    match error.is_parse() || error.is_parse_too_large() {
        true => Verdict::Garbage { detail },
        false => Verdict::Refused { detail },
    }
}

fn unreachable(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::TimedOut => Verdict::Timeout,
        _ => Verdict::Refused { detail: error.to_string() },
    }
}

/// The label of a verdict, from a closed list.
pub(super) fn label(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Timeout => "timeout",
        Verdict::Refused { .. } => "refused",
        Verdict::Status(_) => "status",
        Verdict::WrongBody { .. } => "body",
        Verdict::NotServing(_) => "not_serving",
        Verdict::Garbage { .. } => "garbage",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::support::{Behaviour, Origin};

    fn target(origin: &Origin) -> Target {
        let mut check = HealthCheck::of(Preset::NocoBase, "/api/");
        // Longer than any test machine's pause; the one test of a time-out shortens it.
        check.timeout = Duration::from_secs(20);
        Target {
            address: origin.address().into(),
            check: Arc::new(check),
            preset: Preset::NocoBase,
            tls: None,
            http2: false,
        }
    }

    #[tokio::test]
    async fn each_answer_has_its_verdict() {
        let origin = Origin::start(Behaviour::Ok).await;
        let target = target(&origin);
        let html = Behaviour::Answer(200, "text/html", "<!doctype html>");
        let cases = [
            (Behaviour::Ok, "good"),
            (Behaviour::commanding(), "not_serving"),
            (Behaviour::Answer(200, "text/plain", "no"), "body"),
            (html, "body"),
            (Behaviour::Answer(500, "text/plain", "x"), "status"),
            (Behaviour::Raw("SSH-2.0-x\r\n\r\n"), "garbage"),
            (Behaviour::Raw(""), "refused"),
        ];
        for (behaviour, expected) in cases {
            origin.behave(behaviour.clone());
            let found = probe(&target, None).await.unwrap();
            assert_eq!(label(&found.verdict), expected, "{behaviour:?}: {:?}", found.verdict);
            assert_eq!(found.kept.is_some(), expected == "good", "{behaviour:?}");
        }
        let head = origin.last_head();
        assert!(head.starts_with("GET /api/__health_check HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {}\r\n", target.address)), "{head}");
        assert!(head.contains("user-agent: cobalance/"), "{head}");
    }

    #[tokio::test]
    async fn a_good_connection_is_kept_and_a_closed_one_replaced() {
        let origin = Origin::start(Behaviour::Ok).await;
        let target = target(&origin);
        let first = probe(&target, None).await.unwrap();
        let second = probe(&target, first.kept).await.unwrap();
        assert_eq!((&second.verdict, origin.connections()), (&Verdict::Good, 1));
        origin.close_all().await;
        let third = probe(&target, second.kept).await.unwrap();
        assert_eq!((&third.verdict, origin.connections()), (&Verdict::Good, 2));
        let connected = [&first.trip, &second.trip, &third.trip].map(|t| t.connected.is_some());
        assert_eq!(connected, [true, false, true]);
        // What the network takes is measured anew when that was long ago.
        let aged = |kept: Kept| Kept { opened: kept.opened - RENEW, ..kept };
        let fourth = probe(&target, third.kept.map(aged)).await.unwrap();
        assert_eq!((&fourth.verdict, origin.connections()), (&Verdict::Good, 3));
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_silence_a_timeout() {
        let origin = Origin::start(Behaviour::Silent).await;
        let mut target = target(&origin);
        target.check =
            Arc::new(HealthCheck { timeout: Duration::from_millis(50), ..(*target.check).clone() });
        let silent = probe(&target, None).await.unwrap();
        assert_eq!(silent.verdict, Verdict::Timeout);
        let waited = silent.trip.answered.unwrap();
        assert!(silent.trip.connected.is_some() && waited <= silent.took, "{:?}", silent.trip);
        target.check =
            Arc::new(HealthCheck { timeout: Duration::from_secs(20), ..(*target.check).clone() });
        origin.stop().await;
        let refused = probe(&target, None).await.unwrap();
        assert!(matches!(refused.verdict, Verdict::Refused { .. }));
        assert!(refused.trip.answered.is_none() && refused.trip.connected.is_none());
    }

    #[tokio::test]
    async fn a_unix_socket_whose_queue_is_full_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let listener = listener.unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(1).unwrap();
        let client = || tokio::net::UnixStream::connect(&path);
        let mut waiting = Vec::new();
        while let Ok(client) = client().await {
            waiting.push(client);
        }
        let origin = Origin::start(Behaviour::Ok).await;
        let mut target = target(&origin);
        target.address = format!("unix:{}", path.display()).parse().unwrap();
        target.check =
            Arc::new(HealthCheck { timeout: Duration::from_millis(50), ..(*target.check).clone() });
        assert_eq!(probe(&target, None).await.unwrap().verdict, Verdict::Timeout);
    }

    #[tokio::test]
    async fn a_body_without_end_is_read_to_the_bound() {
        let origin = Origin::start(Behaviour::Endless).await;
        let found = probe(&target(&origin), None).await.unwrap();
        assert_eq!(found.verdict, Verdict::WrongBody { html: false });
        assert!(found.kept.is_none());
    }
}
