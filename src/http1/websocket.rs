//! The proof in a WebSocket handshake (RFC 6455, 1.3 and 4.2.2).

use sha1::{Digest, Sha1};

/// What a server appends to the key: proves that it has understood the handshake.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` of a `Sec-WebSocket-Key`.
pub fn accept(key: &[u8]) -> String {
    base64(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, nth| {
            bits << 8 | u32::from(three.get(nth).copied().unwrap_or_default())
        });
        for nth in 0..4 {
            let six = (bits >> (18 - 6 * nth) & 63) as usize;
            out.push(if nth <= three.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_the_rfc() {
        // RFC 6455, section 1.3
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_of_the_rfc() {
        // RFC 4648, section 10
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
