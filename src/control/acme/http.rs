//! How an authority is talked to: HTTP/1.1 over TLS, one connection, everything bounded.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::plan::LONGEST_S;
use crate::control::stream::secured;
use crate::tls::upstream::{client, name_of};
use crate::tls::{Roots, Towards};

/// Names, TCP and TLS: an authority on the other side of the world needs a second.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// From the request to the whole answer: authorities that sign something take a few seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A chain has 10 KiB, a directory 1.
const MAX_BODY: usize = 1024 * 1024;
/// More header fields than that do not come from an authority.
const MAX_HEAD: usize = 64 * 1024;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("cobalance/", env!("CARGO_PKG_VERSION"), " instant-acme"));

type Fault = Box<dyn Error + Send + Sync>;

/// One talk with one authority. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http(Arc<Shared>);

struct Shared {
    tls: Arc<ClientConfig>,
    /// A connection that may be used again.
    kept: Mutex<Option<Kept>>,
    /// How long the last answer that refused something asks to be left alone.
    retry_after: Mutex<Option<Duration>>,
}

struct Kept {
    /// Host and port.
    to: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Http {
    pub(super) fn new(roots: &Roots) -> Http {
        let tls = client(roots, None, false);
        Http(Arc::new(Shared { tls, kept: Mutex::default(), retry_after: Mutex::default() }))
    }

    /// What the authority asked for when it last refused something.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        *self.0.retry_after.lock()
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let shared = self.0.clone();
        Box::pin(async move { shared.ask(request).await.map_err(instant_acme::Error::Other) })
    }
}

impl Shared {
    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Fault> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let to = origin(&parts.uri)?;
        parts.headers.insert(USER_AGENT, AGENT);
        parts
            .headers
            .insert(HOST, HeaderValue::from_str(parts.uri.authority().map_or("", |a| a.as_str()))?);
        parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        let request = Request::from_parts(parts, Full::new(body));
        let slow =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("{to} did not answer in time"));
        timeout(CONNECT_WITHIN + ANSWER_WITHIN, self.send(&to, request)).await.map_err(slow)?
    }

    /// A kept connection that turns out to be closed says nothing: then a new one is asked.
    async fn send(&self, to: &str, request: Request<Full<Bytes>>) -> Result<BytesResponse, Fault> {
        let kept = self.kept.lock().take().filter(|kept| kept.to == to && kept.sender.is_ready());
        let request = match kept {
            None => request,
            Some(mut kept) => match kept.sender.try_send_request(request).await {
                Ok(answer) => return self.receive(answer, kept).await,
                Err(mut error) => match error.take_message() {
                    Some(request) => request,
                    None => return Err(error.into_error().into()),
                },
            },
        };
        let mut fresh = self.connect(to).await?;
        let answer = fresh.sender.send_request(request).await?;
        self.receive(answer, fresh).await
    }

    async fn connect(&self, to: &str) -> Result<Kept, Fault> {
        let unreachable = |error: io::Error| -> Fault { format!("{to}: {error}").into() };
        let name = name_of(to).ok_or("its host cannot be in a certificate")?;
        let connect = async {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            secured(Box::new(stream), Some(&Towards { config: self.tls.clone(), name })).await
        };
        let slow = |_| unreachable(io::ErrorKind::TimedOut.into());
        let stream = timeout(CONNECT_WITHIN, connect).await.map_err(slow)?.map_err(unreachable)?;
        let mut builder = http1::Builder::new();
        let (sender, connection) =
            builder.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped; its error is seen by whoever asks through it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Kept { to: to.to_owned(), sender })
    }

    async fn receive(
        &self,
        answer: hyper::Response<hyper::body::Incoming>,
        kept: Kept,
    ) -> Result<BytesResponse, Fault> {
        let (mut parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        let asked = retry_after(&parts.headers, SystemTime::now());
        bound_retry_after(&mut parts.headers, asked);
        if parts.status.as_u16() >= 400 {
            *self.retry_after.lock() = asked;
        }
        *self.kept.lock() = Some(kept);
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

/// Host and port of a URL. Also what an authority tells us to ask must be asked over TLS.
fn origin(uri: &Uri) -> Result<String, Fault> {
    if uri.scheme_str() != Some("https") {
        return Err(format!("{uri} is no https URL").into());
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("a URL without a host")?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(443)))
}

/// The library adds what it reads there to a time, and a time has an end.
fn bound_retry_after(headers: &mut HeaderMap, asked: Option<Duration>) {
    headers.remove(RETRY_AFTER);
    if let Some(asked) = asked {
        headers
            .insert(RETRY_AFTER, HeaderValue::from(asked.as_secs().min(LONGEST_S.unsigned_abs())));
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_asked() {
        let of = |text: &str| origin(&text.parse().unwrap()).ok();
        assert_eq!(of("https://ca.test/dir").as_deref(), Some("ca.test:443"));
        assert_eq!(of("https://[::1]:14000/dir").as_deref(), Some("[::1]:14000"));
        for bad in ["http://ca.test/dir", "/dir", "ftp://ca.test/"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_authority_says_in_two_ways_how_long_it_wants_to_be_left_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            let found = retry_after(&headers, now);
            assert_eq!(found.map(|found| found.as_secs()), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_library_reads_no_time_that_cannot_be_added_to_another() {
        let (most, none) = (LONGEST_S.to_string(), None);
        for (text, expected) in [
            ("7", Some("7")),
            ("18446744073709551615", Some(most.as_str())),
            ("9223372036854775807", Some(most.as_str())),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(most.as_str())),
            ("99999999999999999999", none),
            ("soon", none),
        ] {
            let field = [(RETRY_AFTER, HeaderValue::from_static(text))];
            let mut headers = HeaderMap::from_iter(field);
            let asked = retry_after(&headers, SystemTime::now());
            bound_retry_after(&mut headers, asked);
            assert_eq!(one(&headers), expected, "{text}");
        }
        fn one(headers: &HeaderMap) -> Option<&str> {
            headers.get(RETRY_AFTER)?.to_str().ok()
        }
    }
}
