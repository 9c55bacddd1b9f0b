//! Heads of requests that did not come as HTTP/1.1, put into its form: one that has passed here is what
//! the same request would have been, and has passed the same checks.

use super::{Draft, RequestHead, check_whole, read_field, read_target};
use crate::http1::field::{Claims, ConnectionOptions, Field, Known, Span};
use crate::http1::{HeadLimits, Violation};

/// A head in the making: the request line is there, and the fields that were added.
pub struct Assembly {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    draft: Draft,
    limits: HeadLimits,
}

impl Assembly {
    /// Begins with the request line. `bytes` and `fields` are empty, and lent for as long as the head lives.
    ///
    /// # Errors
    /// An odd method or target, or one that is too long. Memory that was lent is dropped then.
    pub fn new(
        mut bytes: Vec<u8>,
        fields: Vec<Field>,
        (method, target): (&[u8], &[u8]),
        limits: HeadLimits,
    ) -> Result<Assembly, Violation> {
        if target.len() + method.len() > limits.bytes {
            return Err(Violation::LineTooLong);
        }
        let (None, _) = read_target(method, target)? else {
            return Err(Violation::Malformed("an odd request target"));
        };
        let method = append(&mut bytes, method);
        bytes.push(b' ');
        let target = append(&mut bytes, target);
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        let draft = Draft {
            method,
            target,
            authority: None,
            version_11: true,
            host: None,
            claims: Claims::default(),
            connection: ConnectionOptions::default(),
            expect_continue: false,
            upgrade_websocket: false,
            te_trailers: false,
        };
        Ok(Assembly { bytes, fields, draft, limits })
    }

    /// Adds a field. Its name is a token and its value has no control bytes: whoever read them has seen to it.
    ///
    /// # Errors
    /// What [`RequestHead::parse`] would not let pass either.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        let name = append(&mut self.bytes, name);
        self.bytes.extend_from_slice(b": ");
        let value = append(&mut self.bytes, value.trim_ascii());
        self.add(name, value)
    }

    /// The same for a value that came in pieces, which are joined by `"; "`.
    ///
    /// # Errors
    /// As for [`Assembly::field`].
    pub fn joined<'a>(
        &mut self,
        name: &[u8],
        values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Violation> {
        let name = append(&mut self.bytes, name);
        self.bytes.extend_from_slice(b": ");
        let from = self.bytes.len();
        for value in values {
            if self.bytes.len() > from {
                self.bytes.extend_from_slice(b"; ");
            }
            self.bytes.extend_from_slice(value);
        }
        let value = Span { start: from as u32, end: self.bytes.len() as u32 };
        self.add(name, value)
    }

    fn add(&mut self, name: Span, value: Span) -> Result<(), Violation> {
        self.bytes.extend_from_slice(b"\r\n");
        if self.fields.len() == self.limits.fields {
            return Err(Violation::TooManyFields);
        }
        if self.bytes.len() > self.limits.bytes {
            return Err(Violation::HeadTooLarge);
        }
        let known = Known::of(name.get(&self.bytes));
        read_field(&mut self.draft, known, value.get(&self.bytes), &self.bytes)?;
        self.fields.push(Field { name, value, known });
        Ok(())
    }

    /// The whole head. It says that it came over HTTP/2.
    ///
    /// # Errors
    /// No host, or two ways to read its framing.
    pub fn finish(mut self) -> Result<RequestHead, Violation> {
        self.bytes.extend_from_slice(b"\r\n");
        check_whole(&self.draft, &self.bytes)?;
        let mut head = self.draft.finish(self.bytes, self.fields);
        head.http2 = true;
        Ok(head)
    }
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> Span {
    let start = bytes.len() as u32;
    bytes.extend_from_slice(part);
    Span { start, end: bytes.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::body::Framing;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 5 };

    fn begin(method: &str, target: &str) -> Result<Assembly, Violation> {
        let line = (method.as_bytes(), target.as_bytes());
        Assembly::new(Vec::new(), Vec::new(), line, LIMITS)
    }

    #[test]
    fn is_what_parsing_would_have_made_of_it() {
        let mut assembly = begin("POST", "/a?b").unwrap();
        assembly.field(b"host", b"x:1").unwrap();
        assembly.joined(b"cookie", [&b"a=1"[..], b"b=2"].into_iter()).unwrap();
        assembly.field(b"content-length", b"5").unwrap();
        assembly.field(b"te", b"trailers").unwrap();
        let head = assembly.finish().unwrap();
        let parsed = RequestHead::parse(head.bytes.clone(), Vec::new()).unwrap();
        assert_eq!(
            (head.method(), head.target(), head.host()),
            (&b"POST"[..], &b"/a?b"[..], &b"x:1"[..])
        );
        assert_eq!(head.value(Known::Cookie), Some(&b"a=1; b=2"[..]));
        assert_eq!((head.framing, head.te_trailers), (Framing::Length(5), true));
        assert_eq!(format!("{:?}", parsed.fields), format!("{:?}", head.fields));
        assert_eq!((parsed.host, parsed.framing), (head.host, head.framing));
        assert!(head.http2 && !parsed.http2 && head.keep_alive);
        assert_eq!((head.protocol(), parsed.protocol()), ("HTTP/2.0", "HTTP/1.1"));
    }

    #[test]
    fn what_is_odd_is_refused() {
        for (method, target) in
            [("CONNECT", "x:1"), ("GET", "http://a/"), ("GET", "*"), ("GET", ""), ("GET", "/a b")]
        {
            assert!(begin(method, target).is_err(), "{method} {target}");
        }
        let mut assembly = begin("GET", "/").unwrap();
        assembly.field(b"content-length", b"1").unwrap();
        assert!(assembly.field(b"content-length", b"1").is_err());
        assert!(begin("GET", "/").unwrap().finish().is_err(), "no host");
        let mut assembly = begin("GET", "/").unwrap();
        assert_eq!(assembly.field(b"x", &[b'a'; 1000]), Err(Violation::HeadTooLarge));
        let mut assembly = begin("GET", "/").unwrap();
        (0..5).for_each(|_| assembly.field(b"x", b"a").unwrap());
        assert_eq!(assembly.field(b"x", b"a"), Err(Violation::TooManyFields));
    }
}
