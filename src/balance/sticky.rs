//! The sticky cookie: which node a client was given, signed, and hidden from the application.
//!
//! Its value is `hex(issued ‖ node ‖ mac)`: 8 bytes of Unix seconds, 8 bytes that stand for the node,
//! 16 bytes of HMAC-SHA256 over both. The node's bytes are themselves an HMAC of its name, so that the
//! value names no node to those without the secret, while every replica with the secret reads it.

use std::borrow::Cow;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the signature: 128 bits cannot be guessed, and the cookie travels with every request.
const MAC_LEN: usize = 16;
/// Bytes of a value before they are written in hex.
const VALUE_LEN: usize = 8 + 8 + MAC_LEN;

/// A value from the future is accepted within this: replicas' clocks differ.
const CLOCK_SKEW_S: u64 = 300;

/// Signs and verifies the cookie's values of one upstream.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(hidden)")
    }
}

impl Signer {
    /// A signer with the secret that all replicas share.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        // HMAC takes keys of any length (RFC 2104, section 2); the error is there for other MACs.
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let keyed = Hmac::new_from_slice(secret.as_bytes()).expect("any length");
        Self { keyed }
    }

    /// What stands for the node in a value; to be computed once per node.
    #[must_use]
    pub fn node_key(&self, node_name: &str) -> u64 {
        let mac = self.mac(b"node", node_name.as_bytes());
        u64::from_be_bytes(first(&mac))
    }

    /// The cookie's value for a node, by its [`Signer::node_key`]; `issued` is in Unix seconds.
    #[must_use]
    pub fn sign(&self, node_key: u64, issued: u64) -> String {
        let mut value = [0; VALUE_LEN];
        value[..8].copy_from_slice(&issued.to_be_bytes());
        value[8..16].copy_from_slice(&node_key.to_be_bytes());
        let mac = self.mac(b"cookie", &value[..16]);
        value[16..].copy_from_slice(&mac[..MAC_LEN]);
        to_hex(&value)
    }

    /// The node's key in a value that this secret signed at most `max_life` before `now` (Unix
    /// seconds); `None` for anything else. The signature is compared in constant time.
    #[must_use]
    pub fn verify(&self, value: &[u8], now: u64, max_life: Duration) -> Option<u64> {
        let value = from_hex(value)?;
        let signed = self.keyed.clone().chain_update(b"cookie\0").chain_update(&value[..16]);
        signed.verify_truncated_left(&value[16..]).ok()?;
        let issued = u64::from_be_bytes(first(&value));
        let fresh = now <= issued.saturating_add(max_life.as_secs())
            && issued <= now.saturating_add(CLOCK_SKEW_S);
        fresh.then(|| u64::from_be_bytes(first(&value[8..])))
    }

    /// The label keeps a node's key and a cookie's signature apart.
    fn mac(&self, label: &[u8], message: &[u8]) -> [u8; 32] {
        let keyed = self.keyed.clone().chain_update(label).chain_update(b"\0");
        keyed.chain_update(message).finalize().into_bytes().into()
    }
}

/// The value of the first cookie called `name` in a `Cookie` field (RFC 6265, section 4.2).
#[must_use]
pub fn find_cookie<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    field.split(|&b| b == b';').find_map(|pair| value_of(pair, name))
}

/// The field without any cookie called `name`: borrowed when there was none, empty when nothing is
/// left (the field is then to be dropped). The other cookies keep their bytes.
#[must_use]
pub fn remove_cookie<'a>(field: &'a [u8], name: &str) -> Cow<'a, [u8]> {
    if find_cookie(field, name).is_none() {
        return Cow::Borrowed(field);
    }
    let mut kept = Vec::with_capacity(field.len());
    for pair in field.split(|&b| b == b';').filter(|pair| value_of(pair, name).is_none()) {
        if kept.is_empty() {
            kept.extend_from_slice(pair.trim_ascii_start());
        } else {
            kept.push(b';');
            kept.extend_from_slice(pair);
        }
    }
    Cow::Owned(kept)
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
    rest.strip_prefix(b"=")
}

/// The first eight bytes; the callers hold more.
fn first(bytes: &[u8]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    eight
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|&b| [digit(b >> 4), digit(b)]).collect()
}

/// Exactly one value in lower-case hex.
fn from_hex(text: &[u8]) -> Option<[u8; VALUE_LEN]> {
    if text.len() != 2 * VALUE_LEN {
        return None;
    }
    let mut bytes = [0; VALUE_LEN];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_value_is_read_by_every_replica_with_the_secret_and_by_no_other() {
        let (one, two) = (Signer::new("secret"), Signer::new("secret"));
        let key = one.node_key("node1");
        assert_ne!(key, one.node_key("node2"));
        let value = one.sign(key, 1_000);
        assert_eq!(two.verify(value.as_bytes(), 1_000, DAY), Some(two.node_key("node1")));
        assert_eq!(Signer::new("other").verify(value.as_bytes(), 1_000, DAY), None);
        assert_ne!(Signer::new("other").node_key("node1"), key);
    }

    #[test]
    fn a_value_ends() {
        let signer = Signer::new("secret");
        let value = signer.sign(7, 1_000_000);
        let cases = [
            // (now, life, valid)
            (1_000_000, 10, true),
            (1_000_010, 10, true),
            (1_000_011, 10, false),
            (1_000_000 - CLOCK_SKEW_S, 10, true),
            (1_000_000 - CLOCK_SKEW_S - 1, 10, false),
        ];
        for (now, life, valid) in cases {
            let found = signer.verify(value.as_bytes(), now, Duration::from_secs(life));
            assert_eq!(found.is_some(), valid, "{now} {life}");
        }
    }

    #[test]
    fn a_value_that_was_touched_is_refused() {
        let signer = Signer::new("secret");
        let value = signer.sign(signer.node_key("node1"), 1_000).into_bytes();
        for at in 0..value.len() {
            let mut touched = value.clone();
            touched[at] = if touched[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(signer.verify(&touched, 1_000, DAY), None, "byte {at}");
        }
        assert_eq!(signer.verify(&value[2..], 1_000, DAY), None);
        assert_eq!(signer.verify(&value.to_ascii_uppercase(), 1_000, DAY), None);
    }

    #[test]
    fn cookies_are_found() {
        let cases: [(&str, Option<&str>); 8] = [
            ("node=1", Some("1")),
            ("a=b; node=1", Some("1")),
            ("a=b;node=1;c=d", Some("1")),
            ("node=1; node=2", Some("1")),
            ("node=", Some("")),
            ("xnode=1; nodex=2; node", None),
            ("NODE=1", None),
            ("", None),
        ];
        for (field, expected) in cases {
            let found = find_cookie(field.as_bytes(), "node");
            assert_eq!(found, expected.map(str::as_bytes), "{field}");
        }
    }

    #[test]
    fn cookies_are_removed_and_the_others_keep_their_bytes() {
        let cases = [
            ("node=1", ""),
            ("node=1; a=b", "a=b"),
            ("a=b; node=1", "a=b"),
            ("a=b; node=1; c=\"d e\"", "a=b; c=\"d e\""),
            ("a=b;node=1;c=d", "a=b;c=d"),
            ("node=1; a=1; node=2;  b=2", "a=1;  b=2"),
            ("a=b; xnode=1", "a=b; xnode=1"),
            ("a=\u{e9}; node=1", "a=\u{e9}"),
        ];
        for (field, expected) in cases {
            let left = remove_cookie(field.as_bytes(), "node");
            assert_eq!(left, expected.as_bytes(), "{field}");
        }
        assert!(matches!(remove_cookie(b"a=b", "node"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn what_was_removed_is_gone_and_nothing_else(field in "[an =;xode0-9]{0,40}") {
            let left = remove_cookie(field.as_bytes(), "node");
            prop_assert_eq!(find_cookie(&left, "node"), None);
            let other = find_cookie(field.as_bytes(), "a");
            prop_assert_eq!(find_cookie(&left, "a"), other);
        }

        #[test]
        fn any_bytes_are_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Signer::new("secret").verify(&value, 0, DAY), None);
        }
    }
}
