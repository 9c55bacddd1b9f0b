//! The tables through HTTP/2: every row that can be said there, in two forms, and what only it can say.

use super::only_http2::{self, End};
use super::said::{Said, said};
use super::support::forge::{Forger, Heard, Part};
use super::support::h2::{DATA, END_HEADERS, END_STREAM, Got, HEADERS, Raw, block};
use super::support::{Proxy, config, until};
use super::{BOUNDS, Recording, counter, passed, refused, with_forwarding};

/// Which field names the host.
#[derive(Clone, Copy, Debug)]
enum Form {
    Authority,
    Host,
}

const FORMS: [Form; 2] = [Form::Authority, Form::Host];

/// Rows of what the library takes off before we see it: a fragment, and trailers beyond what it reads. What is
/// left of them is in the table of streams.
const TAKEN_OFF: [&str; 2] = ["a fragment", "trailers that are too large"];

fn start() -> (Recording, Proxy) {
    let recording = Recording::start();
    let listener = format!("{BOUNDS}\nprotocols = [\"h1\", \"h2\"]");
    let proxy = Proxy::start(config(&[recording.origin.address], &listener, "preset = \"none\""));
    (recording, proxy)
}

/// A request as frames of one stream.
fn frames(said: &Said, form: Form) -> Vec<Part> {
    let host = match form {
        Form::Authority => ":authority",
        Form::Host => "host",
    };
    let mut fields: Vec<(&str, &[u8])> =
        vec![(":method", said.method.as_bytes()), (":scheme", b"http"), (":path", &said.path)];
    fields.push((host, &said.authority));
    fields.extend(said.fields.iter().map(|(name, value)| (name.as_str(), &value[..])));
    let length = said.fields.iter().find(|(name, _)| name == "content-length");
    // A body that was announced and is not there yet: the stream stays open.
    let awaited = length.is_some_and(|(_, value)| value != b"0") && said.body.is_empty();
    let bodiless = said.body.is_empty() && !said.streamed;
    let flags = if bodiless && !awaited { END_STREAM } else { 0 };
    let mut parts = vec![(HEADERS, END_HEADERS | flags, block(&fields))];
    if !bodiless {
        let flags = if said.trailers.is_empty() { END_STREAM } else { 0 };
        parts.push((DATA, flags, said.body.clone()));
    }
    if !said.trailers.is_empty() {
        parts.push((HEADERS, END_HEADERS | END_STREAM, block(&said.trailers)));
    }
    parts
}

fn next() -> Vec<Part> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/next")];
    vec![(HEADERS, END_HEADERS | END_STREAM, block(&fields))]
}

/// The next exchange of the connection gets its own answer, and the node its own request.
fn goes_on(client: &mut Forger, recording: &Recording) -> Result<(), String> {
    match client.ask("GET", next()) {
        Heard::Answer(got) if (got.status, got.text()) == (200, "ok") => {}
        heard => return Err(format!("the next got {heard:?}")),
    }
    let seen = recording.take();
    match seen.starts_with("GET /next HTTP/1.1\r\n") && seen.matches("HTTP/1.1\r\n").count() == 1 {
        true => Ok(()),
        false => Err(format!("of the next the node heard {seen:?}")),
    }
}

/// Names have no case and fields of different names no order in HTTP/2.
fn normal(text: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut fields: Vec<(String, &str)> = lines
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_lowercase(), value))
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    let fields: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
    format!("{first}\r\n{}\r\n{}", fields.concat(), body.to_lowercase())
}

/// What came of a stream.
enum Met {
    /// By us, or by the node.
    Answered,
    /// By the library alone.
    Bare,
    Reset,
    /// With its connection.
    Gone,
}

/// Rows, and what came of them: of most rows in two forms.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    rows: usize,
    answered: usize,
    bare: usize,
    reset: usize,
    gone: usize,
}

impl Counts {
    fn add(&mut self, met: Met) {
        *match met {
            Met::Answered => &mut self.answered,
            Met::Bare => &mut self.bare,
            Met::Reset => &mut self.reset,
            Met::Gone => &mut self.gone,
        } += 1;
    }
}

fn told(test: &str, counts: &Counts, wrong: &[String]) {
    println!("{test}: {counts:?}");
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_refused_is_refused_over_http_2() {
    let (recording, proxy) = start();
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    for (name, raw, status, reason) in refused::table() {
        let Some(said) = said(&raw).filter(|_| !TAKEN_OFF.contains(&name)) else { continue };
        counts.rows += 1;
        for form in FORMS {
            match refuse(&recording, &proxy, (&said, form), (status, reason)) {
                Ok(met) => counts.add(met),
                Err(what) => wrong.push(format!("{name}, {form:?}: {what}")),
            }
        }
    }
    told("refused", &counts, &wrong);
    assert!(counts.rows >= 95, "{counts:?}");
}

/// Refused in our own shape; or malformed (RFC 9113, 8.1.1), which only what is 400 may be.
fn refuse(
    recording: &Recording,
    proxy: &Proxy,
    (said, form): (&Said, Form),
    (status, reason): (u16, &str),
) -> Result<Met, String> {
    let count = || counter(proxy, "cobalance_errors_total", ("reason", reason));
    let before = count();
    let mut client = Forger::connect(proxy.address);
    let heard = client.ask(&said.method, frames(said, form));
    let seen = recording.take();
    if !seen.is_empty() {
        return Err(format!("a node heard {seen:?}"));
    }
    let met = match heard {
        Heard::Answer(got) if got.status == status && !got.fields.is_empty() => {
            is_ours(&got, said.method == "HEAD")?;
            until(reason, || count() == before + 1);
            Met::Answered
        }
        // With a path, CONNECT is malformed.
        Heard::Reset(h2::Reason::PROTOCOL_ERROR) if status == 400 || said.method == "CONNECT" => {
            Met::Reset
        }
        Heard::Gone(Some(h2::Reason::PROTOCOL_ERROR)) if status == 400 => return Ok(Met::Gone),
        // Its head is more than the library reads.
        Heard::Answer(got) if got.status == status && got.fields.is_empty() => Met::Bare,
        heard => return Err(format!("not {status}: {heard:?}")),
    };
    goes_on(&mut client, recording).map(|()| met)
}

/// Our own answer, which names its request.
fn is_ours(got: &Got, to_head: bool) -> Result<(), String> {
    let id = got.field("x-request-id").unwrap_or("no ID at all");
    let html = got.field("content-type") == Some("text/html; charset=utf-8");
    let told = got.text().contains(id) != to_head;
    match html && told && got.field("connection").is_none() {
        true => Ok(()),
        false => Err(format!("another shape: {got:?}")),
    }
}

#[test]
fn what_passes_arrives_the_same_over_http_2() {
    let (recording, proxy) = start();
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    for (name, raw, expected, _) in passed::table() {
        let Some(said) = said(&raw) else { continue };
        counts.rows += 1;
        for form in FORMS {
            let mut client = Forger::connect(proxy.address);
            let heard = client.ask(&said.method, frames(&said, form));
            let (seen, wanted) = (normal(&recording.take()), normal(&with_forwarding(&expected)));
            let ok = matches!(&heard, Heard::Answer(got) if got.status == 200);
            if !ok || seen != wanted {
                wrong.push(format!(
                    "{name}, {form:?}:\n wanted {wanted:?}\n    got {seen:?}\n {heard:?}"
                ));
                continue;
            }
            counts.add(Met::Answered);
            wrong.extend(
                goes_on(&mut client, &recording).err().map(|what| format!("{name}: {what}")),
            );
        }
    }
    told("passed", &counts, &wrong);
    assert_eq!(counts.answered, FORMS.len() * counts.rows, "{counts:?}");
    assert!(counts.rows >= 45, "{counts:?}");
}

#[test]
fn what_only_http_2_can_say() {
    let (recording, proxy) = start();
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    for (name, parts, end) in only_http2::streams() {
        counts.rows += 1;
        match ends(&recording, &proxy, parts, &end) {
            Ok(met) => counts.add(met),
            Err(what) => wrong.push(format!("{name}: not {end:?}: {what}")),
        }
    }
    told("streams", &counts, &wrong);
    assert!(counts.rows >= 170, "{counts:?}");
}

fn ends(recording: &Recording, proxy: &Proxy, parts: Vec<Part>, end: &End) -> Result<Met, String> {
    let mut client = Forger::connect(proxy.address);
    let heard = client.ask("GET", parts);
    let seen = recording.take();
    let met = match (&heard, end) {
        (Heard::Answer(got), End::Passed(expected)) => {
            let same = normal(&seen) == normal(&with_forwarding(expected));
            (got.status == 200 && same).then_some(Met::Answered)
        }
        _ if !seen.is_empty() => None,
        (Heard::Answer(got), End::Answered(status)) if got.status == *status => {
            is_ours(got, false).ok().map(|()| Met::Answered)
        }
        (Heard::Answer(got), End::Bare(status)) if got.status == *status => Some(Met::Bare),
        (Heard::Reset(reason), End::Reset(code)) if reason == code => Some(Met::Reset),
        (Heard::Gone(Some(_)), End::Gone) => return Ok(Met::Gone),
        _ => None,
    };
    let met = met.ok_or(format!("{heard:?}, the node heard {seen:?}"))?;
    goes_on(&mut client, recording).map(|()| met)
}

#[test]
fn what_breaks_a_connection_of_http_2_ends_it() {
    let (recording, proxy) = start();
    let (mut rows, mut wrong) = (0, Vec::new());
    for (name, bytes, reason) in only_http2::connections() {
        rows += 1;
        let mut raw = Raw::connect(proxy.address);
        use std::io::Write as _;
        // It may have ended before all is said.
        let _ = raw.stream.write_all(&bytes);
        let end = raw.goaway();
        let seen = recording.take();
        // A general word for a special one is the library's choice.
        let general = Some(h2::Reason::PROTOCOL_ERROR.into());
        if (end != Some(reason.into()) && end != general) || !seen.is_empty() {
            wrong.push(format!("{name}: not {reason:?}: {end:?}, the node heard {seen:?}"));
        }
    }
    println!("connections: {rows} rows");
    assert!(rows >= 40, "{rows}");
    assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
    // And nobody else's.
    goes_on(&mut Forger::connect(proxy.address), &recording).unwrap();
}
