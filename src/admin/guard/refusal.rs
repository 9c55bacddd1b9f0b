//! Why a request does not pass, and what it is told.

use std::time::Duration;

use http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::admin::reply::{self, Reply};

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Refusal {
    /// A name that is not ours.
    Host,
    /// A page of another origin.
    Origin,
    /// Another site, as the browser says.
    Site,
    /// No token, where one is asked for.
    NoToken,
    /// A token that is none of ours. `last`: nothing more from there is looked at for a while.
    WrongToken {
        /// Whether the measure is full now.
        last: bool,
    },
    /// For so long nothing from there is looked at.
    TooManyFailures(Duration),
    /// A change, with the token of this name, which may only read.
    ReadOnly(Option<String>),
    /// A change that a form could have sent.
    NotJson,
}

impl Refusal {
    /// All labels.
    pub(in crate::admin) const LABELS: [&'static str; 8] = [
        "host",
        "origin",
        "site",
        "no_token",
        "wrong_token",
        "too_many_failures",
        "read_only",
        "not_json",
    ];

    /// For the metric.
    pub(in crate::admin) fn label(&self) -> &'static str {
        match self {
            Refusal::Host => Refusal::LABELS[0],
            Refusal::Origin => Refusal::LABELS[1],
            Refusal::Site => Refusal::LABELS[2],
            Refusal::NoToken => Refusal::LABELS[3],
            Refusal::WrongToken { .. } => Refusal::LABELS[4],
            Refusal::TooManyFailures(_) => Refusal::LABELS[5],
            Refusal::ReadOnly(_) => Refusal::LABELS[6],
            Refusal::NotJson => Refusal::LABELS[7],
        }
    }

    /// What is answered.
    pub(in crate::admin) fn status(&self) -> StatusCode {
        match self {
            Refusal::Host => StatusCode::MISDIRECTED_REQUEST,
            Refusal::Origin | Refusal::Site | Refusal::ReadOnly(_) => StatusCode::FORBIDDEN,
            Refusal::NoToken | Refusal::WrongToken { .. } => StatusCode::UNAUTHORIZED,
            Refusal::TooManyFailures(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    fn message(&self) -> &'static str {
        match self {
            Refusal::Host => {
                "this Host is not known here: use the address or `localhost`, or add the name to `hosts` in \
                 `[admin]`"
            }
            Refusal::Origin | Refusal::Site => "pages of other sites have nothing to ask here",
            Refusal::NoToken => {
                "a token is needed: as a bearer token, or in a browser as the password"
            }
            Refusal::WrongToken { .. } => "this token is not known here",
            Refusal::TooManyFailures(_) => "too many wrong tokens came from there; wait a little",
            Refusal::ReadOnly(_) => {
                "this token may only read: a change needs one of `token_file` in `[admin]`"
            }
            Refusal::NotJson => "changes need `Content-Type: application/json`",
        }
    }

    /// The answer.
    pub(in crate::admin) fn reply(&self) -> Reply {
        let mut reply = reply::error(self.status(), self.message());
        let headers = reply.headers_mut();
        // The few connections that there are go to others.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        match self {
            Refusal::NoToken | Refusal::WrongToken { .. } => {
                // A browser asks its user for the second.
                for scheme in ["Bearer realm=\"cobalance\"", "Basic realm=\"cobalance\""] {
                    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
                }
            }
            Refusal::TooManyFailures(wait) => {
                let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        reply
    }
}
