//! How a browser is let through maintenance: the operator opens a link once, and gets a cookie.
//!
//! Both are signed as sticky cookies are, with a key that is made when maintenance is switched on with a
//! cookie, and forgotten when it is switched off: what was given out for one is worth nothing in the next.

use std::time::Duration;

use crate::balance::sticky::Signer;

/// A link may be opened for so long: it is typed or pasted at once, and stays in histories and logs.
pub const LINK_LIFE: Duration = Duration::from_secs(15 * 60);
/// A cookie is good for so long, or until maintenance is off: no upgrade is verified for longer.
pub const COOKIE_LIFE: Duration = Duration::from_secs(12 * 3600);
/// The key of the query that holds a link's token.
pub const QUERY_KEY: &str = "cobalance-pass";

/// Signs and verifies the links and cookies of one time of maintenance.
#[derive(Clone)]
pub struct Pass {
    secret: String,
    signer: Signer,
    /// What a signature stands for, so that the token of a link is no cookie.
    link: u64,
    cookie: u64,
    cookie_name: String,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass(hidden)")
    }
}

impl PartialEq for Pass {
    fn eq(&self, other: &Pass) -> bool {
        self.secret == other.secret
    }
}

impl Eq for Pass {}

impl Pass {
    /// A pass with this key.
    #[must_use]
    pub fn new(secret: &str) -> Pass {
        let signer = Signer::new(secret);
        // Upstreams of one host that are switched on one by one have cookies beside each other.
        let cookie_name = format!("cobalance_pass_{:08x}", signer.node_key("name") >> 32);
        Pass {
            link: signer.node_key("link"),
            cookie: signer.node_key("cookie"),
            secret: secret.to_owned(),
            signer,
            cookie_name,
        }
    }

    /// The query of a link; `now` is in Unix seconds.
    #[must_use]
    pub fn link(&self, now: u64) -> String {
        format!("{QUERY_KEY}={}", self.signer.sign(self.link, now))
    }

    /// Whether this is the token of a link that may still be opened.
    #[must_use]
    pub fn opens(&self, token: &[u8], now: u64) -> bool {
        self.signer.verify(token, now, LINK_LIFE) == Some(self.link)
    }

    /// The name of the cookie.
    #[must_use]
    pub fn cookie_name(&self) -> &str {
        &self.cookie_name
    }

    /// A value of the cookie.
    #[must_use]
    pub fn cookie(&self, now: u64) -> String {
        self.signer.sign(self.cookie, now)
    }

    /// Whether this is a value that lets its browser through.
    #[must_use]
    pub fn admits(&self, value: &[u8], now: u64) -> bool {
        self.signer.verify(value, now, COOKIE_LIFE) == Some(self.cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn token(pass: &Pass) -> String {
        let link = pass.link(NOW);
        link.strip_prefix("cobalance-pass=").unwrap().to_owned()
    }

    #[test]
    fn a_link_opens_for_a_while_and_a_cookie_admits_for_longer() {
        let pass = Pass::new("secret");
        let (token, cookie) = (token(&pass), pass.cookie(NOW));
        let (link_life, cookie_life) = (LINK_LIFE.as_secs(), COOKIE_LIFE.as_secs());
        for (after, opens, admits) in [
            (0, true, true),
            (link_life, true, true),
            (link_life + 1, false, true),
            (cookie_life, false, true),
            (cookie_life + 1, false, false),
        ] {
            assert_eq!(pass.opens(token.as_bytes(), NOW + after), opens, "{after}");
            assert_eq!(pass.admits(cookie.as_bytes(), NOW + after), admits, "{after}");
        }
    }

    #[test]
    fn one_is_not_the_other_and_another_key_knows_neither() {
        let (pass, other) = (Pass::new("secret"), Pass::new("another"));
        let (token, cookie) = (token(&pass), pass.cookie(NOW));
        assert!(!pass.admits(token.as_bytes(), NOW) && !pass.opens(cookie.as_bytes(), NOW));
        assert!(!other.admits(cookie.as_bytes(), NOW) && !other.opens(token.as_bytes(), NOW));
        assert_ne!(pass.cookie_name(), other.cookie_name());
        assert_eq!(pass, Pass::new("secret"));
        assert_ne!(pass, other);
        assert!(!format!("{pass:?}").contains("secret"));
    }
}
