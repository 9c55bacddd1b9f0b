//! Whose session a token is of, as far as one can tell without the key: to know the pages of one
//! administrator or one client again, never to let anybody in.

use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The cookie with the token of an app's session (utils/src/auth-cookie-name.ts).
#[must_use]
pub fn token_cookie(app: Option<&str>) -> String {
    format!("nb_auth_token_{}", app.unwrap_or(super::MAIN))
}

/// What stands for the session of a token: by its user and the time of the sign-in where they can be read,
/// because NocoBase renews tokens while a session lasts (auth/src/base/auth.ts). Nothing of it is verified.
/// `None` for what is empty. Never 0.
#[must_use]
pub fn session(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    let hash = claims(token).map_or_else(|| xxh3_64(token), |claims| claims.hash());
    Some(hash.max(1))
}

/// The token of an `Authorization` field.
#[must_use]
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The token in a query.
#[must_use]
pub fn query_token(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("token="))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    user_id: Value,
    sign_in_time: Value,
}

impl Claims {
    fn hash(&self) -> u64 {
        let user = xxh3_64(self.user_id.to_string().as_bytes());
        xxh3_64_with_seed(self.sign_in_time.to_string().as_bytes(), user)
    }
}

/// The middle part of a JSON Web Token (RFC 7519, 3).
fn claims(token: &[u8]) -> Option<Claims> {
    let mut parts = token.split(|byte| *byte == b'.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&base64url(payload)?).ok()
}

/// Without padding (RFC 7515, appendix C).
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for four in text.chunks(4) {
        let mut bits = 0u32;
        for byte in four {
            bits = bits << 6 | u32::from(value(*byte)?);
        }
        let bytes = (bits << (6 * (4 - four.len()))).to_be_bytes();
        out.extend_from_slice(&bytes[1..four.len()]);
    }
    Some(out)
}

fn value(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `{"userId":1,"temp":true,"iat":N,"signInTime":1700000000000}`, for two N.
    const TOKENS: [&[u8]; 2] = [
        b"eyJhbGciOiJIUzI1NiJ9.eyJ1c2VySWQiOjEsInRlbXAiOnRydWUsImlhdCI6MTcwMCwic2lnbkluVGltZSI6MTcwMDAwMDAwMDAwMH0.c2ln",
        b"eyJhbGciOiJIUzI1NiJ9.eyJ1c2VySWQiOjEsInRlbXAiOnRydWUsImlhdCI6MTgwMCwic2lnbkluVGltZSI6MTcwMDAwMDAwMDAwMH0.b3Ro",
    ];

    #[test]
    fn a_renewed_token_is_of_the_same_session() {
        let [before, after] = TOKENS.map(session);
        assert!(before.is_some() && before == after);
        let other = b"eyJhbGciOiJIUzI1NiJ9.eyJ1c2VySWQiOjIsInNpZ25JblRpbWUiOjE3MDAwMDAwMDAwMDB9.x";
        assert_ne!(session(other), before, "another user");
    }

    #[test]
    fn what_cannot_be_read_stands_for_itself() {
        assert_eq!(session(b""), None);
        for token in [&b"abc"[..], b"a.b.c", b"a.e30.c", b"..", b"a.%%%%.c"] {
            assert_eq!(session(token), Some(xxh3_64(token)));
        }
    }

    #[test]
    fn tokens_are_found() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!((bearer(b"Basic abc"), bearer(b"Bear")), (None, None));
        assert_eq!(query_token("a=1&token=x&b"), Some("x"));
        assert_eq!(query_token("atoken=x"), None);
        assert_eq!(token_cookie(None), "nb_auth_token_main");
        assert_eq!(token_cookie(Some("hr")), "nb_auth_token_hr");
    }

    #[test]
    fn base64url_of_the_rfcs() {
        // RFC 4648, section 10, and RFC 7515, appendix C.
        let cases: [(&str, &[u8]); 6] = [
            ("", b""),
            ("Zg", b"f"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("A-z_4ME", &[3, 236, 255, 224, 193]),
        ];
        for (text, expected) in cases {
            assert_eq!(base64url(text.as_bytes()).unwrap(), expected);
        }
        assert_eq!(base64url(b"Zg=="), None);
    }

    proptest! {
        #[test]
        fn any_token_is_survived(token in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert_eq!(session(&token).is_none(), token.is_empty());
            let _ = bearer(&token);
        }
    }
}
