//! The token that a request shows, in its `Authorization` field: as a bearer token (RFC 6750, 2.1), or as the
//! password of any user (RFC 7617), which is how a person gives it to a browser.
//!
//! No cookie: browsers send one to every port of a host, so it would reach the nodes behind our own listeners.
//! No query either: addresses end in logs and histories.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The token; none if there is none, more than one field, or another scheme.
pub(super) fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (field, None) = (all.next()?, all.next()) else { return None };
    let (scheme, rest) = field.to_str().ok()?.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().as_bytes().to_vec()),
        "basic" => {
            let both = base64(rest.trim().as_bytes())?;
            let colon = both.iter().position(|byte| *byte == b':')?;
            Some(both[colon + 1..].to_vec())
        }
        _ => None,
    }
}

/// Decodes (RFC 4648, 4); none for what is not of that form.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let bare = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) || bare.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(bare.len() * 3 / 4);
    for group in bare.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            bits = bits << 6 | u32::from(sextet(*byte)?);
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, field.parse().unwrap());
        }
        token(&headers).map(|token| String::from_utf8(token).unwrap())
    }

    #[test]
    fn both_schemes_carry_it() {
        for (field, expected) in [
            ("Bearer s3cret", Some("s3cret")),
            ("bearer  s3cret ", Some("s3cret")),
            // "admin:s3cret", ":s3:cret" and "s3cret"
            ("Basic YWRtaW46czNjcmV0", Some("s3cret")),
            ("basic OnMzOmNyZXQ=", Some("s3:cret")),
            ("Basic czNjcmV0", None),
            ("Basic ?", None),
            ("Digest s3cret", None),
            ("s3cret", None),
        ] {
            assert_eq!(of(&[field]).as_deref(), expected, "{field}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["Bearer a", "Bearer a"]), None, "which of them?");
    }

    #[test]
    fn base64_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text.as_bytes()).unwrap(), expected.as_bytes(), "{text}");
        }
        for text in ["Z", "Zg", "Zg=", "Zg===", "Z===", "Zm9v=", "Zm-v"] {
            assert_eq!(base64(text.as_bytes()), None, "{text}");
        }
    }
}
