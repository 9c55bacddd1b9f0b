//! What one probe found.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{HealthCheck, Preset};
use crate::nocobase::{Refusal, parse_refusal};

/// What one probe of a node found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The status and body that were asked for.
    Good,
    /// No whole answer within the time-out, connecting included.
    Timeout,
    /// No connection: refused, reset, unreachable, or the name does not resolve.
    Refused {
        /// What the system said.
        detail: String,
    },
    /// Another status.
    Status(u16),
    /// The right status with another body.
    WrongBody {
        /// A page: very likely the health path misses `APP_PUBLIC_PATH`, and the node answered with
        /// its client.
        html: bool,
    },
    /// NocoBase says that it does not serve now.
    NotServing(Refusal),
    /// Not HTTP.
    Garbage {
        /// What was wrong with it.
        detail: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Timeout => f.write_str("timed out"),
            Self::Refused { detail } => write!(f, "no connection: {detail}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::WrongBody { html: true } => f.write_str("a page instead of the expected body"),
            Self::WrongBody { html: false } => f.write_str("another body than expected"),
            Self::NotServing(Refusal { code, message, .. }) if message.is_empty() => {
                f.write_str(code)
            }
            Self::NotServing(Refusal { code, message, .. }) => write!(f, "{code}: {message}"),
            Self::Garbage { detail } => write!(f, "not HTTP: {detail}"),
        }
    }
}

/// The verdict on a whole answer (facts of NocoBase: server/gateway/index.ts answers 200 with exactly
/// `ok`, or a refusal). The body is compared after trimming.
#[must_use]
pub fn classify(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    check: &HealthCheck,
    preset: Preset,
) -> Verdict {
    if status == check.expect_status {
        let expected = check.expect_body.as_deref().map(|expected| expected.trim().as_bytes());
        let good = expected.is_none_or(|expected| body.trim_ascii() == expected);
        let html = || is_page(content_type, body);
        return if good { Verdict::Good } else { Verdict::WrongBody { html: html() } };
    }
    let refusal = (preset == Preset::NocoBase).then(|| parse_refusal(status, content_type, body));
    refusal.flatten().map_or(Verdict::Status(status), Verdict::NotServing)
}

fn is_page(content_type: Option<&str>, body: &[u8]) -> bool {
    let typed =
        content_type.is_some_and(|t| t.trim().to_ascii_lowercase().starts_with("text/html"));
    typed || body.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nocobase::RefusalKind;

    fn check(expect_body: Option<&str>) -> HealthCheck {
        HealthCheck {
            path: "/api/__health_check".into(),
            host: None,
            expect_status: 200,
            expect_body: expect_body.map(str::to_owned),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            watch: true,
        }
    }

    #[test]
    fn answers_are_classified() {
        let html = Some("text/html; charset=utf-8");
        let page = b"<!doctype html>".as_slice();
        let cases: [(u16, Option<&str>, &[u8], Verdict); 9] = [
            (200, None, b"ok", Verdict::Good),
            (200, Some("text/plain"), b" ok\r\n", Verdict::Good),
            (200, None, b"OK", Verdict::WrongBody { html: false }),
            (200, None, b"", Verdict::WrongBody { html: false }),
            (200, html, b"hello", Verdict::WrongBody { html: true }),
            (200, None, page, Verdict::WrongBody { html: true }),
            (404, Some("text/plain"), b"Not Found", Verdict::Status(404)),
            (502, html, page, Verdict::Status(502)),
            (204, None, b"", Verdict::Status(204)),
        ];
        for (status, content_type, body, expected) in cases {
            let check = check(Some("ok"));
            let verdict = classify(status, content_type, body, &check, Preset::NocoBase);
            assert_eq!(verdict, expected, "{status} {content_type:?}");
        }
    }

    #[test]
    fn without_an_expected_body_any_is_good() {
        assert_eq!(classify(200, None, b"x", &check(None), Preset::None), Verdict::Good);
    }

    #[test]
    fn a_refusal_is_a_statement_only_with_the_preset() {
        let body = br#"{"error":{"maintaining":true,"code":"APP_STARTING","message":"soon"}}"#;
        let json = Some("application/json");
        let verdict = classify(503, json, body, &check(Some("ok")), Preset::NocoBase);
        assert_eq!(verdict.to_string(), "APP_STARTING: soon");
        let Verdict::NotServing(refusal) = verdict else { panic!("{verdict:?}") };
        assert_eq!(refusal.kind, RefusalKind::Starting);
        let verdict = classify(503, json, body, &check(Some("ok")), Preset::None);
        assert_eq!(verdict, Verdict::Status(503));
    }
}
