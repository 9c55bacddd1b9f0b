//! Names as one segment of a path: they may hold slashes, brackets and hash signs (RFC 3986, 2.1).

use std::fmt::Write as _;

/// A name as it is written in a path.
pub(crate) fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The name that a segment stands for; none if it stands for no text.
pub(super) fn decode(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut parts = segment.split('%');
    out.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for name in ["node1", "[::1]:13000", "app:1#10.0.0.1", "a/b*c+d@e", "é%", ""] {
            let segment = encode(name);
            assert!(!segment.contains(['/', '#', '?', ' ', '[']), "{segment}");
            assert_eq!(decode(&segment).as_deref(), Some(name), "{segment}");
        }
    }

    #[test]
    fn what_stands_for_no_text_is_none() {
        for segment in ["%", "%4", "%+1", "%zz", "%ff", "a%é"] {
            assert_eq!(decode(segment), None, "{segment}");
        }
    }
}
