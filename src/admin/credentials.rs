//! The token that a request shows, in its `Authorization` field: as a bearer token (RFC 6750, 2.1), or as the
//! password of any user (RFC 7617), which is how a person gives it to a browser.
//!
//! No cookie: browsers send one to every port of a host, so it would reach the nodes behind our own listeners.
//! No query either: addresses end in logs and histories.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
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
            let both = BASE64_STANDARD.decode(rest.trim()).ok()?;
            let colon = both.iter().position(|byte| *byte == b':')?;
            Some(both[colon + 1..].to_vec())
        }
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
}
