//! A small load, as a few people at work would make: 20 requests a second on kept connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::node::Journal;
use super::tell::Teller;

/// Four of these make 20 requests a second.
const EVERY: Duration = Duration::from_millis(200);
/// A person would have pressed reload.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer of a stand-in is larger.
const MAX_BODY: usize = 64 * 1024;

/// Runs until it is dropped.
pub(super) async fn run(address: SocketAddr, journal: &Journal, teller: &Teller) {
    let worker = |number| work(number, address, journal, teller);
    tokio::join!(worker(0), worker(1), worker(2), worker(3));
}

async fn work(number: u32, address: SocketAddr, journal: &Journal, teller: &Teller) {
    let mut client = Client { address, sender: None };
    // Spread over the interval, so that requests come one by one.
    tokio::time::sleep(EVERY / 4 * number).await;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for nth in 0_u64.. {
        ticks.tick().await;
        let title = format!("post {nth} of {number}");
        let (method, path, body) = match nth % 4 {
            0 => (Method::GET, "/api/app:getInfo", String::new()),
            2 => (Method::GET, "/", String::new()),
            _ => {
                (Method::POST, "/api/posts:create", serde_json::json!({"title": title}).to_string())
            }
        };
        teller.count(|summary| summary.sent += 1);
        let answered = timeout(PATIENCE, client.send(&method, path, body)).await;
        match answered.unwrap_or_else(|_| Err(anyhow!("no answer in {} s", PATIENCE.as_secs()))) {
            Ok(node) => {
                teller.count(|summary| {
                    summary.answered += 1;
                    *summary.by_node.entry(node).or_default() += 1;
                });
                if method == Method::POST {
                    judge(&title, journal, teller);
                }
            }
            Err(error) => {
                client.sender = None;
                teller.failure(&method, path, &format!("{error:#}"));
            }
        }
    }
}

/// How often did the POST that was just answered run? What has been judged is forgotten: the demo may run
/// for days.
fn judge(title: &str, journal: &Journal, teller: &Teller) {
    let ran = journal.lock().remove(title).unwrap_or_default();
    teller.count(|summary| match ran {
        0 => summary.never_ran += 1,
        1 => summary.ran_once += 1,
        _ => summary.ran_twice += 1,
    });
}

struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Sends a request; gives the name of the node that answered well.
    async fn send(&mut self, method: &Method, path: &str, body: String) -> Result<String> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.address.to_string())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        let answer = self.connected().await?.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
        read(&Response::from_parts(head, body))
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>> {
        let kept = match self.sender.take() {
            // The balancer may have closed it, after a thousand requests for one.
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match kept {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.address).await.context("connecting")?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(self.sender.insert(sender))
    }
}

fn read(answer: &Response<Bytes>) -> Result<String> {
    if answer.status().as_u16() < 400 {
        let node = answer.headers().get("x-served-by").and_then(|node| node.to_str().ok());
        return Ok(node.unwrap_or("nobody").to_owned());
    }
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or("no reason");
    Err(anyhow!("{} {code}", answer.status().as_u16()))
}
