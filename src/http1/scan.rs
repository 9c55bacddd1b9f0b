//! Finds the end of a head while it arrives, and refuses line ends that are not CR LF.

use memchr::memchr;

use super::{HeadLimits, Violation};

/// Where the search for the end of a head stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Bytes looked at.
    pos: usize,
    /// Where the line under way begins.
    line: usize,
    /// Lines that ended.
    lines: usize,
}

impl Scanner {
    /// Looks at what came since the last call. `Some(n)`: the head is the first `n` bytes.
    ///
    /// # Errors
    /// A line end that is not CR LF, a folded line, or a bound.
    pub fn scan(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, Violation> {
        while let Some(found) = memchr(b'\n', &bytes[self.pos..]) {
            let end = self.pos + found;
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(Violation::Malformed("a line does not end in CR LF"));
            }
            self.pos = end + 1;
            if self.pos > limits.bytes {
                return Err(self.too_large());
            }
            if end - 1 == self.line {
                return Ok(Some(self.pos));
            }
            self.end_line(bytes, limits)?;
        }
        self.pos = bytes.len();
        if self.pos >= limits.bytes { Err(self.too_large()) } else { Ok(None) }
    }

    fn end_line(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<(), Violation> {
        if matches!(bytes[self.line], b' ' | b'\t') {
            return Err(Violation::Malformed("a folded or indented line"));
        }
        self.line = self.pos;
        self.lines += 1;
        // The first line is no field.
        if self.lines > limits.fields + 1 { Err(Violation::TooManyFields) } else { Ok(()) }
    }

    fn too_large(&self) -> Violation {
        if self.lines == 0 { Violation::LineTooLong } else { Violation::HeadTooLarge }
    }

    /// Whether the first line has ended.
    pub fn past_first_line(&self) -> bool {
        self.lines > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 64, fields: 2 };

    fn whole(bytes: &[u8]) -> Result<Option<usize>, Violation> {
        Scanner::default().scan(bytes, LIMITS)
    }

    #[test]
    fn finds_the_end_in_one_piece_and_byte_by_byte() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        assert_eq!(whole(head), Ok(Some(head.len() - 4)));
        let mut scanner = Scanner::default();
        let found = (1..=head.len()).find_map(|n| scanner.scan(&head[..n], LIMITS).transpose());
        assert_eq!(found, Some(Ok(head.len() - 4)));
    }

    #[test]
    fn refuses_other_line_ends_and_bounds() {
        let bare = Err(Violation::Malformed("a line does not end in CR LF"));
        assert_eq!(whole(b"GET / HTTP/1.1\n"), bare);
        assert_eq!(whole(b"\n"), bare);
        assert_eq!(whole(b"GET / HTTP/1.1\r\nhost: a\n\r\n"), bare);
        assert!(whole(b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n").is_err());
        assert_eq!(whole(&[b'a'; 64]), Err(Violation::LineTooLong));
        assert_eq!(whole(b"a\r\nb:1\r\nc:2\r\nd:3\r\n"), Err(Violation::TooManyFields));
        let long = [b"GET / HTTP/1.1\r\na: ".to_vec(), vec![b'x'; 64]].concat();
        assert_eq!(whole(&long), Err(Violation::HeadTooLarge));
    }
}
