//! The same answers to a client of HTTP/2: an answer that breaks off is a stream that is reset, never one
//! that ends well, and the next exchange of the connection gets its own.

use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};

use super::support::h2::{Client, get, read_all, request};
use super::support::origin;
use super::support::{Proxy, config, until};
use super::table::{self, End, Row, Verdict};
use super::{BROKEN, Node};
use std::sync::atomic::Ordering;

/// An answer of either version in words that both have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plain {
    interim: Vec<(u16, Fields)>,
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
}

/// Names in lower case, in their order.
type Fields = Vec<(String, String)>;

/// What a client got before the end, or the break.
#[derive(Debug, Default)]
struct Got {
    plain: Plain,
    id: bool,
    broken: Option<Reason>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    refused: usize,
    cut: usize,
    passed: usize,
    kept: usize,
}

#[test]
fn each_answer_gets_its_verdict_over_http_2() {
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    for row in table::rows() {
        match row.verdict {
            Verdict::Refused => counts.refused += 1,
            Verdict::Cut => counts.cut += 1,
            Verdict::Passed(_) => counts.passed += 1,
            Verdict::Kept(_) => counts.kept += 1,
        }
        wrong.extend(judge(row).err());
    }
    println!("{counts:?}");
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
    let all = counts.refused + counts.cut + counts.passed + counts.kept;
    assert!(all >= 150 && counts.cut >= 10, "{counts:?}");
}

fn judge(row: Row) -> Result<(), String> {
    let Row { name, method, first, then, end, verdict } = row;
    let two_parts = !then.is_empty();
    let node = Node::start(first, then, end);
    let upstream = "preset = \"none\"\nretries = 0\nresponse_timeout = \"15s\"";
    let listener = "protocols = [\"h1\", \"h2\"]";
    let proxy = Proxy::start(config(&[node.origin.address], listener, upstream));
    let mut client = Client::plain(proxy.address);
    let got = ask(&mut client, method, || {
        if two_parts {
            node.open.send(()).unwrap();
        }
    });
    holds(&verdict, &got).map_err(|what| format!("{name}: {what}: {got:?}"))?;
    if !matches!(verdict, Verdict::Kept(_)) && end == End::Waits {
        until(&format!("{name}: the node's connection is closed"), || {
            node.closed.load(Ordering::SeqCst)
        });
    }
    for _ in 0..2 {
        let after = client.ask(get("/after")).map_err(|error| format!("{name}: next: {error}"))?;
        if (after.status, after.text()) != (200, "good") {
            return Err(format!("{name}: the next got {after:?}"));
        }
    }
    match (&verdict, node.origin.connections()) {
        (Verdict::Kept(_), 1) | (Verdict::Refused | Verdict::Cut | Verdict::Passed(_), 2) => Ok(()),
        (_, connections) => Err(format!("{name}: {connections} connections")),
    }
}

/// Asks, and calls back when the final head is there.
fn ask(client: &mut Client, method: &str, at_head: impl FnOnce()) -> Got {
    let (head, ends) = match method {
        "WS" => (websocket(), false),
        method => (request(method, "/broken"), true),
    };
    let (mut answer, _send) = client.begin(head, ends);
    client.run(async {
        let mut got = Got::default();
        while let Some(Ok(interim)) = std::future::poll_fn(|cx| answer.poll_informational(cx)).await
        {
            let fields = fields(interim.headers(), &mut got.id);
            got.plain.interim.push((interim.status().as_u16(), fields));
        }
        match answer.await {
            Ok(answer) => {
                at_head();
                got.read(answer).await;
            }
            Err(error) => got.broken = Some(error.reason().unwrap_or(Reason::NO_ERROR)),
        }
        got
    })
}

fn websocket() -> Request<()> {
    let head = Request::builder().method(Method::CONNECT).uri("http://a.test/ws");
    head.extension(Protocol::from_static("websocket")).body(()).unwrap()
}

impl Got {
    async fn read(&mut self, answer: Response<RecvStream>) {
        self.plain.status = answer.status().as_u16();
        self.plain.fields = fields(answer.headers(), &mut self.id);
        let mut stream = answer.into_body();
        let whole = async {
            let body = read_all(&mut stream).await?;
            Ok::<_, h2::Error>((body, stream.trailers().await?))
        };
        match whole.await {
            Ok((body, trailers)) => {
                self.plain.body = body;
                self.plain.trailers =
                    trailers.map(|lines| fields(&lines, &mut false)).unwrap_or_default();
            }
            // What a client sees of a connection that is gone, or of an end that is none, counts as none.
            Err(error) if error.is_reset() && error.is_remote() => self.broken = error.reason(),
            Err(error) => self.broken = Some(error.reason().unwrap_or(Reason::NO_ERROR)),
        }
    }
}

/// All but the ID, which is told apart.
fn fields(headers: &http::HeaderMap, id: &mut bool) -> Fields {
    *id |= headers.contains_key("x-request-id");
    let named = headers.iter().filter(|(name, _)| *name != "x-request-id");
    named
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

fn holds(verdict: &Verdict, got: &Got) -> Result<(), &'static str> {
    let text = String::from_utf8_lossy(&got.plain.body);
    match verdict {
        Verdict::Refused => {
            let html = ("content-type".to_owned(), "text/html; charset=utf-8".to_owned());
            let ours = got.plain.status == 502 && got.plain.fields.contains(&html) && got.id;
            match ours && got.broken.is_none() {
                true if text.contains(BROKEN) => Err("something of the answer got through"),
                true => Ok(()),
                false => Err("no 502 of ours"),
            }
        }
        Verdict::Cut => match (got.plain.status, got.broken) {
            (200, Some(Reason::INTERNAL_ERROR)) => Ok(()),
            (200, None) => Err("the client cannot see that it was cut"),
            _ => Err("cut in another way"),
        },
        Verdict::Passed(expected) | Verdict::Kept(expected) => {
            match got.broken.is_none() && got.id && got.plain == plain(expected) {
                true => Ok(()),
                false => Err("another form"),
            }
        }
    }
}

/// What is expected, as the table writes it for HTTP/1.1.
fn plain(mut text: &str) -> Plain {
    let mut all = Plain::default();
    loop {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines(head.split("\r\n").skip(1));
        if status < 200 {
            all.interim.push((status, fields));
            text = rest;
            continue;
        }
        let whole = format!("{head}\r\n\r\n");
        (all.status, all.fields) = (status, fields);
        if !rest.is_empty() {
            let (body, trailers) = origin::read_body(&mut rest.as_bytes(), &whole, true).unwrap();
            (all.body, all.trailers) = (body, lines(trailers.lines()));
        }
        return all;
    }
}

/// Without what belongs to a connection of HTTP/1.1, and without the ID.
fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> Fields {
    const NOT: [&str; 3] = ["connection", "transfer-encoding", "x-request-id"];
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .filter(|(name, _)| !NOT.contains(&name.as_str()))
        .collect()
}
