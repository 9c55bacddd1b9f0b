//! The requests of the tables in words that every version of HTTP has: who is asked for what, fields, body.
//! What is about lines, framing or connections of HTTP/1.1 cannot be said so.
//!
//! A test of another version takes the rows whose bytes [`said`] can read, says them in its own form, and
//! expects the same: the node gets the row's normal form, or nothing at all.

/// A request without a form.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) method: String,
    pub(super) authority: Vec<u8>,
    /// Path and query, or `*`.
    pub(super) path: Vec<u8>,
    /// Names in lower case; a length is among them if the row has one, however odd.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// The body's end is told by the framing alone, not by a length.
    pub(super) streamed: bool,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
}

/// Fields that belong to a connection of HTTP/1.1 (RFC 9113, 8.2.2).
const OF_THE_CONNECTION: [&str; 8] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Reads a row's bytes. `None`: they have more to say than a request, or less.
pub(super) fn said(raw: &[u8]) -> Option<Said> {
    let end = find(raw, b"\r\n\r\n")?;
    let mut lines = split(&raw[..end]).into_iter();
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    let plain = words.next().is_none() && version == b"HTTP/1.1" && !path.is_empty();
    if !plain || !matches!(path, [b'/', ..] | b"*") || !is_token(method) {
        return None;
    }
    let mut said = Said { path: path.to_vec(), ..Said::default() };
    said.method = String::from_utf8(method.to_vec()).ok()?;
    let (mut hosts, mut codings) = (0, 0);
    for (name, value) in lines.map(field).collect::<Option<Vec<_>>>()? {
        match name.as_str() {
            "host" => {
                said.authority = value;
                hosts += 1;
            }
            "transfer-encoding" if value == b"chunked" => codings += 1,
            name if OF_THE_CONNECTION.contains(&name) => return None,
            _ => said.fields.push((name, value)),
        }
    }
    said.streamed = codings == 1;
    let rest = &raw[end + 4..];
    let has_length = said.fields.iter().any(|(name, _)| name == "content-length");
    match (hosts, codings, has_length) {
        (1, 0, false) if rest.is_empty() => Some(said),
        (1, 0, true) if find(rest, b"HTTP/1.1\r\nHost").is_none() => {
            said.body = rest.to_vec();
            Some(said)
        }
        (1, 1, false) => chunks(rest, said),
        _ => None,
    }
}

/// Takes chunks apart; `None` if there is anything odd about them.
fn chunks(mut rest: &[u8], mut said: Said) -> Option<Said> {
    loop {
        let end = find(rest, b"\r\n")?;
        let digits = &rest[..end];
        // A size in an odd form says something that only a chunk can.
        if !digits.iter().all(u8::is_ascii_hexdigit) || digits.len() > 8 {
            return None;
        }
        let size = usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        said.body.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    let lines = rest.strip_suffix(b"\r\n")?;
    let lines = lines.strip_suffix(b"\r\n").unwrap_or(lines);
    if !lines.is_empty() {
        said.trailers = split(lines).into_iter().map(field).collect::<Option<Vec<_>>>()?;
    }
    let connected = |name: &str| OF_THE_CONNECTION.contains(&name);
    (!said.trailers.iter().any(|(name, _)| connected(name))).then_some(said)
}

impl Said {
    /// The same in HTTP/1.1, in the plainest form.
    pub(super) fn in_http_1(&self) -> Vec<u8> {
        let mut out = [self.method.as_bytes(), b" ", &self.path, b" HTTP/1.1\r\n"].concat();
        let line = |name: &str, value: &[u8]| [name.as_bytes(), b": ", value, b"\r\n"].concat();
        out.extend(line("host", &self.authority));
        self.fields.iter().for_each(|(name, value)| out.extend(line(name, value)));
        if !self.streamed {
            return [&out[..], b"\r\n", &self.body].concat();
        }
        out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        if !self.body.is_empty() {
            out.extend(format!("{:x}\r\n", self.body.len()).into_bytes());
            out.extend([&self.body[..], b"\r\n"].concat());
        }
        out.extend_from_slice(b"0\r\n");
        self.trailers.iter().for_each(|(name, value)| out.extend(line(name, value)));
        [&out[..], b"\r\n"].concat()
    }
}

/// A line with a name that is one, and whatever value.
fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(line[..colon].to_ascii_lowercase()).ok()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let value = &line[colon + 1..];
    let begin = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(begin, |last| last + 1);
    is_token(name.as_bytes()).then(|| (name, value[begin..end].to_vec()))
}

fn is_token(name: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(token)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|at| at == what)
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        lines.push(&bytes[..end]);
        bytes = &bytes[end + 2..];
    }
    lines.push(bytes);
    lines
}
