//! The chunked coding (RFC 9112, 7.1), read strictly and byte-incrementally, written in one normal form.

use super::Violation;
use super::field::{Known, same_but_for_underscores};

/// Digits of a chunk's size: 60 bits, more than any body.
const MAX_SIZE_DIGITS: u32 = 15;
/// Bytes of all chunk extensions of one chunk. Nobody sends them but to hide something.
const MAX_EXTENSION: u32 = 256;
/// Bytes of the trailer section.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// Where the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size { digits: u32 },
    Extension { bytes: u32 },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Reads a chunked body.
#[derive(Debug)]
pub struct Decoder {
    at: At,
    left: u64,
    trailers: Vec<u8>,
}

/// One step of a body: how many bytes of framing to pass over, and how many bytes of data follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Framing, consumed.
    pub skip: usize,
    /// Data after it; 0 means that more input is needed, or the end.
    pub data: usize,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { at: At::Size { digits: 0 }, left: 0, trailers: Vec::new() }
    }
}

impl Decoder {
    /// Whether the body and its trailers are over.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// The trailer section without its empty line: whole lines, each ending in CR LF. Complete when done.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Takes framing up to the next data.
    ///
    /// # Errors
    /// Framing that breaks the grammar or a bound.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let mut skip = 0;
        while skip < input.len() && self.at != At::Done {
            if self.at == At::Data {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - skip);
                self.left -= data as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                return Ok(Step { skip, data });
            }
            self.framing(input[skip])?;
            skip += 1;
        }
        Ok(Step { skip, data: 0 })
    }

    /// Takes framing alone, up to the next data or the end; returns how many bytes.
    ///
    /// # Errors
    /// As for [`Decoder::step`].
    pub fn skip(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let mut skipped = 0;
        while skipped < input.len() && !matches!(self.at, At::Data | At::Done) {
            self.framing(input[skipped])?;
            skipped += 1;
        }
        Ok(skipped)
    }

    fn framing(&mut self, byte: u8) -> Result<(), Violation> {
        self.at = match (self.at, byte) {
            (At::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(Violation::Malformed("a chunk size that is too long"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                At::Size { digits: digits + 1 }
            }
            (At::Size { digits: 1.. }, b'\r') => At::SizeLf,
            (At::Size { digits: 1.. }, b';') => At::Extension { bytes: 0 },
            (At::Extension { .. }, b'\r') => At::SizeLf,
            (At::Extension { bytes }, b'\t' | b' '..=b'~' | 0x80..) if bytes < MAX_EXTENSION => {
                At::Extension { bytes: bytes + 1 }
            }
            (At::SizeLf, b'\n') if self.left == 0 => At::Trailers,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { digits: 0 },
            (At::Trailers, _) => return self.trailer(byte),
            _ => return Err(Violation::Malformed("odd chunked framing")),
        };
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<(), Violation> {
        self.trailers.push(byte);
        if self.trailers.len() > MAX_TRAILERS {
            return Err(Violation::Malformed("trailers that are too large"));
        }
        if byte != b'\n' {
            return Ok(());
        }
        let line = self.trailers.iter().rev().skip(1).position(|b| *b == b'\n');
        let line = self.trailers.len() - line.map_or(self.trailers.len(), |n| n + 1);
        match &self.trailers[line..] {
            b"\r\n" => {
                self.trailers.truncate(line);
                self.at = At::Done;
                Ok(())
            }
            line if is_field_line(line) => Ok(()),
            _ => Err(Violation::Malformed("a trailer that is no field")),
        }
    }
}

/// `name: value CR LF` with a token for a name and no control byte in the value.
fn is_field_line(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\r\n") else { return false };
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let value_ok = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    super::field::is_token(&line[..colon]) && line[colon + 1..].iter().all(value_ok)
}

/// Names beside those that we know ourselves that a trailer must not have.
const NEVER_TRAILERS: [&[u8]; 13] = [
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"date",
    b"expires",
    b"location",
    b"max-forwards",
    b"range",
    b"set-cookie",
    b"strict-transport-security",
    b"vary",
    b"www-authenticate",
];
/// How names begin that only a proxy may say, of whom it forwards for and of a client's certificate.
const NEVER_BEGINS: [&[u8]; 5] =
    [b"client-cert", b"x-client-cert", b"x-forwarded-", b"x-ssl-client-", b"if-"];

/// Whether a trailer may be passed on: nothing that frames, routes, authorises or describes the body
/// (RFC 9110, 6.5.1).
pub fn trailer_allowed(name: &[u8]) -> bool {
    let begins = |begin: &&[u8]| {
        name.get(..begin.len()).is_some_and(|head| same_but_for_underscores(head, begin))
    };
    Known::of(name) == Known::Other
        && !NEVER_TRAILERS.iter().any(|other| same_but_for_underscores(name, other))
        && !NEVER_BEGINS.iter().any(begins)
}

/// Writes the head of a chunk: its size in hexadecimal and CR LF.
pub fn write_size(out: &mut Vec<u8>, size: usize) {
    use std::io::Write;
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// Writes the last chunk, the trailers that may be passed on, and the empty line.
pub fn write_end(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    for line in trailers.split_inclusive(|byte| *byte == b'\n') {
        let name = &line[..memchr::memchr(b':', line).unwrap_or(0)];
        if trailer_allowed(name) {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, and how much input was left.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, bool), Violation> {
        let mut decoder = Decoder::default();
        let mut data = Vec::new();
        for part in input.chunks(piece) {
            let mut rest = part;
            while !rest.is_empty() && !decoder.is_done() {
                let step = decoder.step(rest)?;
                data.extend_from_slice(&rest[step.skip..step.skip + step.data]);
                rest = &rest[step.skip + step.data..];
            }
        }
        Ok((data, decoder.trailers().to_vec(), decoder.is_done()))
    }

    #[test]
    fn reads_whole_and_byte_by_byte() {
        let input = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
        for piece in [1, 2, 3, input.len()] {
            let (data, trailers, done) = decode(input, piece).unwrap();
            assert_eq!((data.as_slice(), done), (&b"hello world"[..], true));
            assert_eq!(trailers, b"X-Sum: 1\r\n");
        }
    }

    #[test]
    fn refuses_odd_framing() {
        let bad: [&[u8]; 14] = [
            b"\r\n",
            b"g\r\n",
            b"5\nhello",
            b" 5\r\n",
            b"5 \r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"1111111111111111\r\n",
            b"5;a\nb",
            b"0\r\nbad trailer\r\n\r\n",
            b"0\r\n a: b\r\n\r\n",
            b"0\r\na: b\n\r\n",
        ];
        for input in bad {
            assert!(decode(input, input.len()).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
        let endless = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(MAX_TRAILERS)].concat();
        assert!(decode(&endless, endless.len()).is_err());
        assert!(decode(&[b"1;".to_vec(), vec![b'x'; 1000]].concat(), 100).is_err());
    }

    #[test]
    fn writes_only_harmless_trailers() {
        let mut out = Vec::new();
        write_end(&mut out, b"X-Sum: 1\r\nContent-Length: 5\r\nAuthorization: x\r\n");
        assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
    }
}
