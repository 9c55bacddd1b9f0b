//! A short conversation with the admin listener of a running process.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::admin::tokens;
use crate::net::{Address, UNIX};

/// Loopback answers in milliseconds; a reload may have to resolve names first.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Ten thousand nodes fit: no answer of ours is larger.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// The new process is told that it serves, and puts its socket in its place at once: a busy machine may need
/// some of this for it.
const CHANGES_HANDS: Duration = Duration::from_millis(500);
/// What to write instead of a path that no socket has.
const PATH: &str = "write the whole path, such as unix:/run/cobalance/admin.sock";

/// Where an admin listener is, and what it wants to see.
pub(super) struct Client {
    /// `host:port`, or `unix:` and a path.
    pub(super) address: String,
    token: Option<String>,
    /// Why it may be elsewhere, if it may.
    guessed: Option<String>,
}

/// An answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its body, which is text.
    pub(super) body: String,
}

impl Client {
    /// A client of `host:port` or `unix:PATH`.
    pub(super) fn new(address: impl Into<String>, token: Option<String>) -> Client {
        Client { address: address.into(), token, guessed: None }
    }

    /// The same where it is not certain that it is there, because of this.
    pub(super) fn guessed(self, why: Option<String>) -> Client {
        Client { guessed: why, ..self }
    }

    /// Asks for a resource.
    ///
    /// # Errors
    /// If nothing answers in time, or not in HTTP.
    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, "", TIMEOUT)
    }

    /// Asks for something to be done, with a body of JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn post(&self, path: &str, body: &str) -> Result<Answer> {
        self.send(Method::POST, path, body, TIMEOUT)
    }

    /// The same for what takes longer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn post_within(&self, path: &str, body: &str, time: Duration) -> Result<Answer> {
        self.send(Method::POST, path, body, time)
    }

    fn send(&self, method: Method, path: &str, body: &str, time: Duration) -> Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(time, self.exchange(method, path, body))
                .await
                .map_err(|_| anyhow!("no answer within {} s", time.as_secs()))?
        });
        answer.with_context(|| {
            let address = &self.address;
            match &self.guessed {
                None => format!("cobalance does not answer at {address}; is it running there?"),
                Some(why) => format!(
                    "cobalance does not answer at {address}, and may be elsewhere ({why}): name its address by \
                     --admin"
                ),
            }
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: &str) -> Result<Answer> {
        if !self.is_unix() {
            let stream = TcpStream::connect(resolve(&self.address)?.as_slice()).await?;
            return self.talk(stream, method, path, body).await;
        }
        let address: Address = self.address.parse().context(PATH)?;
        let stream = connected(address.unix().context(PATH)?).await;
        let stream = stream.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => anyhow!(
                "you may not connect to it: run this as its user or as root, or see `mode` in `[admin]`"
            ),
            _ => error.into(),
        })?;
        self.talk(stream, method, path, body).await
    }

    async fn talk<S>(&self, stream: S, method: Method, path: &str, body: &str) -> Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(self.request(method, path, body)?).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
        connection.abort();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn request(&self, method: Method, path: &str, body: &str) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.host())
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?)
    }
}

impl Client {
    /// A path is no name of a host.
    fn host(&self) -> &str {
        if self.is_unix() { "localhost" } else { &self.address }
    }

    fn is_unix(&self) -> bool {
        self.address.starts_with(UNIX)
    }
}

/// Connects. In an upgrade the path changes hands: for a moment nobody may be there.
async fn connected(path: &Path) -> std::io::Result<UnixStream> {
    let until = tokio::time::Instant::now() + CHANGES_HANDS;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if is_nobody(&error) && tokio::time::Instant::now() < until => {
                tokio::time::sleep(CHANGES_HANDS / 10).await;
            }
            other => return other,
        }
    }
}

fn is_nobody(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>> {
    let found: Vec<_> = address.to_socket_addrs().context("not an address (host:port)")?.collect();
    if found.is_empty() {
        bail!("the name has no address");
    }
    Ok(found)
}

/// The bearer token of a file: the first, if it holds several.
///
/// # Errors
/// If the file cannot be read, or holds none.
pub(super) fn token(file: &Path) -> Result<String> {
    tokens::first(file).with_context(|| format!("the token file {} cannot be used", file.display()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one connection with `answer`; gives back what was asked.
    fn serve(answer: &'static [u8]) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut part = [0; 1024];
                let n = stream.read(&mut part).unwrap();
                asked.extend_from_slice(&part[..n]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (address, thread)
    }

    #[test]
    fn asks_with_the_token_and_reads_the_answer() {
        let (address, server) = serve(b"HTTP/1.1 503 x\r\ncontent-length: 4\r\n\r\nbusy");
        let answer =
            Client::new(&address, Some("s3cret".into())).post("/api/v1/reload", "{}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "busy"));
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /api/v1/reload HTTP/1.1\r\n"), "{asked}");
        for field in ["authorization: Bearer s3cret", "content-type: application/json"] {
            assert!(asked.contains(field), "{asked}");
        }
        assert!(asked.contains(&format!("host: {address}")), "{asked}");
    }

    #[test]
    fn nobody_there_is_told_plainly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Client::new(&address, None).get("/livez").err().unwrap();
        assert!(error.to_string().contains(&address), "{error}");
        assert!(error.to_string().contains("is it running"), "{error}");
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let (address, server) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        assert!(Client::new(address, None).get("/api/v1/status").is_err());
        server.join().unwrap();
    }

    #[test]
    fn a_token_comes_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, " abc\n").unwrap();
        assert_eq!(token(&file).unwrap(), "abc");
        assert!(token(&directory.path().join("none")).is_err());
    }
}
