//! An order whose request the authority has, as it is kept until its certificate is here. What is issued counts
//! against the limits of the authority, whether anybody fetches it or not; and without its key nobody can use it.

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::plan::LONGEST_S;

/// The layout of the file. One of another version counts as none.
const VERSION: u32 = 1;

/// A kept order.
#[derive(Serialize, Deserialize)]
pub(super) struct Sent {
    version: u32,
    /// Where the authority tells how it goes.
    pub(super) url: String,
    /// What the request is for, as PEM.
    key: String,
    /// When it was sent, in Unix seconds.
    at: i64,
}

impl Sent {
    pub(super) fn new(url: &str, key: &KeyPair, now: i64) -> Sent {
        Sent { version: VERSION, url: url.to_owned(), key: key.serialize_pem(), at: now }
    }

    /// Reads a file. `None`: it is none of ours, or one that nobody need ask for any more. Authorities forget orders
    /// after so long, and one that never comes to an end must not be the last.
    pub(super) fn parse(bytes: &[u8], now: i64) -> Option<(Sent, KeyPair)> {
        let sent: Sent = serde_json::from_slice(bytes).ok()?;
        let is_of_now = now.abs_diff(sent.at) < LONGEST_S.unsigned_abs();
        let key = KeyPair::from_pem(&sent.key).ok()?;
        (sent.version == VERSION && is_of_now).then_some((sent, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_for_as_long_as_an_order_lives() {
        let key = KeyPair::generate().unwrap();
        let sent = Sent::new("https://ca.test/order/1", &key, 1000);
        let text = serde_json::to_string(&sent).unwrap();
        let read = |text: &str, now| Sent::parse(text.as_bytes(), now);
        for (now, is_there) in [
            (1000, true),
            (1000 + LONGEST_S - 1, true),
            (1000 + LONGEST_S, false),
            // By a clock that was wrong.
            (1000 - LONGEST_S, false),
        ] {
            assert_eq!(read(&text, now).is_some(), is_there, "{now}");
        }
        let (again, same) = read(&text, 1000).unwrap();
        assert_eq!((again.url, same.serialize_pem()), (sent.url, key.serialize_pem()));
        for bad in [
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("BEGIN", "BEGUN"),
            "{}".to_owned(),
        ] {
            assert!(read(&bad, 1000).is_none(), "{bad}");
        }
    }
}
