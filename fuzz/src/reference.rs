//! A second reading of HTTP/1.1, written for comparison: byte after byte over a whole slice, slow and plain.
//! It shares nothing with the library, so that a mistake must be made twice to be missed.

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes are needed.
    More,
    /// What is there has no meaning.
    Bad,
}

type Parsed<T> = Result<T, End>;
/// Names in lower case, and values.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request as it was meant.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: Vec<u8>,
    /// Path and query.
    pub target: Vec<u8>,
    pub body: Vec<u8>,
    /// The connection ends behind it.
    pub last: bool,
    pub fields: Fields,
}

/// An answer as it was meant.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub fields: Fields,
}

/// The bytes, and how many were read.
pub struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// Nothing follows the bytes.
    pub ended: bool,
}

struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], ended: bool) -> Cursor<'a> {
        Cursor { bytes, at: 0, ended }
    }

    fn next(&mut self) -> Parsed<u8> {
        let byte = *self.bytes.get(self.at).ok_or(End::More)?;
        self.at += 1;
        Ok(byte)
    }

    /// A line without its CR LF; neither byte stands anywhere else.
    fn line(&mut self) -> Parsed<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.next()? {
                b'\r' if self.next()? == b'\n' => return Ok(line),
                b'\r' | b'\n' => return Err(End::Bad),
                byte => line.push(byte),
            }
        }
    }

    /// One request; an empty line may stand before it.
    pub fn request(&mut self) -> Parsed<Request> {
        let mut first = self.line()?;
        if first.is_empty() {
            first = self.line()?;
        }
        let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
        let &[method, target, version] = &parts[..] else { return Err(End::Bad) };
        let minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            _ => return Err(End::Bad),
        };
        token(method)?;
        let fields = self.fields()?;
        let hosts: Vec<&[u8]> = values(&fields, "host").collect();
        if hosts.len() > 1 || (hosts.is_empty() && minor == 1) || hosts.iter().any(|h| h.is_empty())
        {
            return Err(End::Bad);
        }
        if values(&fields, "expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
            return Err(End::Bad);
        }
        let target = origin_form(method, target, hosts.first().copied())?;
        let framing = framing(&fields, minor)?;
        let body = match framing {
            Framing { chunked: true, .. } => self.chunked()?.0,
            Framing { length, .. } => self.counted(length.unwrap_or(0))?,
        };
        let last = !keeps(&fields, minor);
        Ok(Request { method: method.to_vec(), target, body, last, fields })
    }

    /// One final answer, behind any number of interim ones. The end of the bytes may end its body.
    pub fn answer(&mut self, to_head: bool) -> Parsed<Answer> {
        loop {
            let (status, minor, fields) = self.answer_head()?;
            let framing = framing(&fields, minor)?;
            if status < 200 && status != 101 {
                continue;
            }
            let empty = to_head || status == 101 || status == 204 || status == 304;
            let body = match framing {
                _ if empty => Vec::new(),
                Framing { chunked: true, .. } => self.chunked()?.0,
                Framing { length: Some(length), .. } => self.counted(length)?,
                Framing { .. } if self.ended => {
                    let rest = self.bytes[self.at..].to_vec();
                    self.at = self.bytes.len();
                    rest
                }
                Framing { .. } => return Err(End::More),
            };
            return Ok(Answer { status, body, fields });
        }
    }

    fn answer_head(&mut self) -> Parsed<(u16, u8, Fields)> {
        let line = self.line()?;
        let minor = match line.get(..8).ok_or(End::Bad)? {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            _ => return Err(End::Bad),
        };
        let code = line.get(9..12).ok_or(End::Bad)?;
        if line[8] != b' ' || !code.iter().all(u8::is_ascii_digit) {
            return Err(End::Bad);
        }
        if !matches!(line.get(12), None | Some(b' ')) || !line.iter().all(|byte| text(*byte)) {
            return Err(End::Bad);
        }
        let status = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        if !(100..600).contains(&status) {
            return Err(End::Bad);
        }
        Ok((status, minor, self.fields()?))
    }

    fn fields(&mut self) -> Parsed<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or(End::Bad)?;
            token(&line[..colon])?;
            let value = line[colon + 1..].trim_ascii();
            if !line[colon + 1..].iter().all(|byte| text(*byte)) {
                return Err(End::Bad);
            }
            fields.push((line[..colon].to_ascii_lowercase(), value.to_vec()));
        }
    }

    fn counted(&mut self, length: u64) -> Parsed<Vec<u8>> {
        let mut body = Vec::new();
        for _ in 0..length {
            body.push(self.next()?);
        }
        Ok(body)
    }

    /// The data and how many trailers there are.
    fn chunked(&mut self) -> Parsed<(Vec<u8>, usize)> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            if !(1..=15).contains(&digits) || !line.iter().all(|byte| text(*byte)) {
                return Err(End::Bad);
            }
            if !matches!(line.get(digits), None | Some(b';')) {
                return Err(End::Bad);
            }
            let size = std::str::from_utf8(&line[..digits]).map_err(|_| End::Bad)?;
            let size = u64::from_str_radix(size, 16).map_err(|_| End::Bad)?;
            if size == 0 {
                return Ok((body, self.fields()?.len()));
            }
            body.extend(self.counted(size)?);
            if self.next()? != b'\r' || self.next()? != b'\n' {
                return Err(End::Bad);
            }
        }
    }
}

/// Text of a value: no control byte but the tab.
fn text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn token(name: &[u8]) -> Parsed<()> {
    let good = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    if name.is_empty() || !name.iter().all(good) { Err(End::Bad) } else { Ok(()) }
}

/// All values of a name in lower case.
pub fn values<'f>(
    fields: &'f [(Vec<u8>, Vec<u8>)],
    name: &'f str,
) -> impl Iterator<Item = &'f [u8]> {
    fields.iter().filter(move |field| field.0 == name.as_bytes()).map(|field| &field.1[..])
}

fn origin_form(method: &[u8], target: &[u8], host: Option<&[u8]>) -> Parsed<Vec<u8>> {
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#')
        || method == b"CONNECT"
    {
        return Err(End::Bad);
    }
    if target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS") {
        return Ok(target.to_vec());
    }
    let lower = target.to_ascii_lowercase();
    let scheme = if lower.starts_with(b"http://") { 7 } else { 8 };
    if !lower.starts_with(b"http://") && !lower.starts_with(b"https://") {
        return Err(End::Bad);
    }
    let rest = &target[scheme..];
    let slash = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let agrees = host.is_none_or(|host| host.eq_ignore_ascii_case(authority));
    if authority.is_empty() || !agrees || authority.contains(&b'?') {
        return Err(End::Bad);
    }
    Ok(if path.is_empty() { b"/".to_vec() } else { path.to_vec() })
}

fn framing(fields: &[(Vec<u8>, Vec<u8>)], minor: u8) -> Parsed<Framing> {
    let lengths: Vec<&[u8]> = values(fields, "content-length").collect();
    let codings: Vec<&[u8]> = values(fields, "transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing { length: None, chunked: false }),
        ([length], []) => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(length).map_err(|_| End::Bad)?;
            match text.parse() {
                Ok(number) if digits => Ok(Framing { length: Some(number), chunked: false }),
                _ => Err(End::Bad),
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && minor == 1 => {
            Ok(Framing { length: None, chunked: true })
        }
        _ => Err(End::Bad),
    }
}

fn keeps(fields: &[(Vec<u8>, Vec<u8>)], minor: u8) -> bool {
    let mut options = values(fields, "connection").flat_map(|value| value.split(|b| *b == b','));
    let says = |name: &[u8], option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(name);
    let all: Vec<&[u8]> = options.by_ref().collect();
    let close = all.iter().any(|option| says(b"close", option));
    let keep = all.iter().any(|option| says(b"keep-alive", option));
    !close && (minor == 1 || keep)
}
