//! Why an exchange did not go as asked: one closed enum, and what follows from each cause.
//!
//! Status, reason and side come from exhaustive matches, so that a new cause cannot be forgotten.

use std::borrow::Cow;
use std::fmt;

/// Whose fault a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client sent or did something wrong, or left.
    Client,
    /// A node did, or could not be reached.
    Node,
    /// We could not or would not.
    Proxy,
}

/// The cause of an answer of our own, or of a connection that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The request breaks RFC 9110 or 9112, or can be read in two ways; the text says where.
    BadRequest(&'static str),
    /// The client's body broke its framing.
    BadBody(&'static str),
    /// A declared or received body is over the limit.
    BodyTooLarge,
    /// The client's body made no progress.
    BodyTimeout,
    /// The client closed or reset its connection.
    ClientLeft,
    /// The client stopped reading.
    ClientStalled,
    /// An `Expect` other than `100-continue`.
    ExpectationUnknown,
    /// The head has too many bytes or fields.
    HeadTooLarge,
    /// The head was not complete in time.
    HeadTimeout,
    /// A method or transfer coding that a proxy of this kind does not carry.
    NotImplemented(&'static str),
    /// The request line alone is over the head's limit.
    UriTooLong,
    /// The client's address may not come here.
    ClientDenied,
    /// The client has done this too often.
    RateLimited(Box<Limited>),
    /// The client has as many tunnels as it may.
    TooManyTunnels,
    /// No route matches.
    NoRoute,
    /// A node could not be reached; the text is the system's.
    ConnectFailed(Cow<'static, str>),
    /// A node could be reached, and not over TLS: its certificate is not good, or it does not speak it.
    NodeTls(Cow<'static, str>),
    /// A node refused the connection.
    ConnectRefused,
    /// A node did not accept in time.
    ConnectTimeout,
    /// A node closed or reset before a head was complete.
    ConnectionTerminated,
    /// A node's answer breaks HTTP or can be read in two ways.
    BadResponse(&'static str),
    /// A node's head is too large, or its interim answers do not end.
    ResponseHeadTooLarge,
    /// A node sent no head in time.
    ResponseTimeout,
    /// A node's body ended early.
    ResponseIncomplete,
    /// A node's body made no progress.
    ResponseBodyTimeout,
    /// The deadline over all attempts is over.
    Deadline,
    /// No node may be picked.
    NoEligibleNode,
    /// No node may be picked, and as many exchanges are parked as may be.
    ParkFull,
    /// No node came up for as long as an exchange may be parked.
    ParkTimeout,
    /// The operator has switched maintenance on, and not for this client.
    Maintenance,
    /// A node is pinned and does not serve; no other takes its place.
    PinnedUnavailable,
    /// A change that one node would make alone, while others are up; the text names its action.
    Guarded(Box<str>),
    /// Every eligible node is at its limit and the queue is full.
    QueueFull,
    /// The wait in the queue was too long.
    QueueTimeout,
    /// As much is held for clients as may be.
    BuffersFull,
    /// A defect of ours.
    Internal(&'static str),
}

/// What a client that came too early is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The name of the limit.
    pub limit: Box<str>,
    /// Requests that it lets through at once.
    pub quota: u32,
    /// Seconds over which it gives so many again.
    pub window_s: u64,
    /// Seconds after which the next may come.
    pub after_s: u32,
}

impl Cause {
    /// The status that a client gets; 499 and 598 are never sent, only logged.
    pub fn status(&self) -> u16 {
        use Cause::*;
        match self {
            BadRequest(_) | BadBody(_) => 400,
            ClientDenied => 403,
            NoRoute => 404,
            BodyTimeout | HeadTimeout => 408,
            Guarded(_) => 409,
            BodyTooLarge => 413,
            UriTooLong => 414,
            ExpectationUnknown => 417,
            RateLimited(_) | TooManyTunnels => 429,
            HeadTooLarge => 431,
            ClientLeft => 499,
            Internal(_) => 500,
            NotImplemented(_) => 501,
            ConnectFailed(_) | NodeTls(_) | ConnectRefused | ConnectionTerminated
            | BadResponse(_) | ResponseHeadTooLarge | ResponseIncomplete => 502,
            NoEligibleNode | Maintenance | PinnedUnavailable | ParkFull | ParkTimeout
            | QueueFull | QueueTimeout | BuffersFull => 503,
            ConnectTimeout | ResponseTimeout | ResponseBodyTimeout | Deadline => 504,
            ClientStalled => 598,
        }
    }

    /// The machine-readable reason; RFC 9209 proxy error types where one fits.
    pub fn reason(&self) -> &'static str {
        use Cause::*;
        match self {
            BadRequest(_) | ExpectationUnknown => "http_request_error",
            BadBody(_) => "request_body_error",
            BodyTooLarge => "request_body_too_large",
            BodyTimeout => "request_body_timeout",
            ClientLeft => "client_left",
            ClientStalled => "client_stalled",
            HeadTooLarge => "request_head_too_large",
            HeadTimeout => "request_head_timeout",
            NotImplemented(_) => "not_implemented",
            UriTooLong => "uri_too_long",
            ClientDenied => "http_request_denied",
            RateLimited(_) => "rate_limited",
            TooManyTunnels => "too_many_tunnels",
            NoRoute => "destination_not_found",
            ConnectFailed(_) => "destination_ip_unroutable",
            NodeTls(_) => "tls_protocol_error",
            ConnectRefused => "connection_refused",
            ConnectTimeout => "connection_timeout",
            ConnectionTerminated => "connection_terminated",
            BadResponse(_) => "http_protocol_error",
            ResponseHeadTooLarge => "http_response_header_section_size",
            ResponseTimeout => "http_response_timeout",
            ResponseIncomplete => "http_response_incomplete",
            ResponseBodyTimeout => "connection_read_timeout",
            Deadline => "deadline_exceeded",
            NoEligibleNode => "destination_unavailable",
            ParkFull => "park_full",
            ParkTimeout => "parked_timeout",
            Maintenance => "maintenance",
            PinnedUnavailable => "pinned_unavailable",
            Guarded(_) => "guarded_change",
            QueueFull => "queue_full",
            QueueTimeout => "queue_timeout",
            BuffersFull => "buffers_full",
            Internal(_) => "proxy_internal_error",
        }
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        use Cause::*;
        match self {
            BadRequest(_) | BadBody(_) | BodyTooLarge | BodyTimeout | ClientLeft
            | ClientStalled | ExpectationUnknown | HeadTooLarge | HeadTimeout
            | NotImplemented(_) | UriTooLong | ClientDenied | RateLimited(_) | TooManyTunnels => {
                Side::Client
            }
            ConnectFailed(_) | NodeTls(_) | ConnectRefused | ConnectTimeout
            | ConnectionTerminated | BadResponse(_) | ResponseHeadTooLarge | ResponseTimeout
            | ResponseIncomplete | ResponseBodyTimeout => Side::Node,
            NoRoute | Deadline | NoEligibleNode | Maintenance | PinnedUnavailable | Guarded(_)
            | ParkFull | ParkTimeout | QueueFull | QueueTimeout | BuffersFull | Internal(_) => {
                Side::Proxy
            }
        }
    }

    /// Seconds after which a client may try again; none where trying again cannot help.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            // Nobody maintains anything within seconds.
            Cause::Maintenance => Some(30),
            Cause::RateLimited(limited) => Some(limited.after_s),
            // Pages that are closed give their tunnels back within seconds.
            Cause::TooManyTunnels => Some(10),
            // A node starts within 12 to 60 s, and its operator is at work on it.
            Cause::PinnedUnavailable => Some(10),
            // A node is back within a few probes; the wait in a queue is over even sooner.
            _ => (self.status() == 503).then_some(2),
        }
    }

    /// Every reason there is, for the label set of the metric.
    pub const REASONS: [&'static str; 35] = [
        "http_request_error",
        "request_body_error",
        "request_body_too_large",
        "request_body_timeout",
        "client_left",
        "client_stalled",
        "request_head_too_large",
        "request_head_timeout",
        "not_implemented",
        "uri_too_long",
        "http_request_denied",
        "rate_limited",
        "too_many_tunnels",
        "destination_not_found",
        "destination_ip_unroutable",
        "tls_protocol_error",
        "connection_refused",
        "connection_timeout",
        "connection_terminated",
        "http_protocol_error",
        "http_response_header_section_size",
        "http_response_timeout",
        "http_response_incomplete",
        "connection_read_timeout",
        "deadline_exceeded",
        "destination_unavailable",
        "park_full",
        "parked_timeout",
        "maintenance",
        "pinned_unavailable",
        "guarded_change",
        "queue_full",
        "queue_timeout",
        "buffers_full",
        "proxy_internal_error",
    ];
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Cause::*;
        match self {
            BadRequest(what) => write!(f, "The request is malformed: {what}."),
            BadBody(what) => write!(f, "The request's body is malformed: {what}."),
            BodyTooLarge => f.write_str("The request's body is larger than is allowed here."),
            BodyTimeout => f.write_str("The request's body did not arrive in time."),
            ClientLeft => f.write_str("The client left."),
            ClientStalled => f.write_str("The client stopped reading."),
            ExpectationUnknown => f.write_str("Only `Expect: 100-continue` can be met."),
            HeadTooLarge => f.write_str("The request's header fields are too large or too many."),
            HeadTimeout => f.write_str("The request's header did not arrive in time."),
            NotImplemented(what) => write!(f, "Not carried by this proxy: {what}."),
            UriTooLong => f.write_str("The request's address is too long."),
            ClientDenied => f.write_str("Requests from your address are not accepted here."),
            RateLimited(limited) => {
                write!(f, "Too many requests. Try again in {} s.", limited.after_s)
            }
            TooManyTunnels => f.write_str("Too many WebSockets are open from your address."),
            NoRoute => f.write_str("No route matches this address."),
            ConnectFailed(_) | NodeTls(_) | ConnectRefused => {
                f.write_str("A node could not be reached.")
            }
            ConnectTimeout => f.write_str("A node did not accept the connection in time."),
            ConnectionTerminated => f.write_str("A node closed the connection before it answered."),
            BadResponse(what) => write!(f, "A node's answer is malformed: {what}."),
            ResponseHeadTooLarge => f.write_str("A node's answer has too large a header."),
            ResponseTimeout => f.write_str("A node did not answer in time."),
            ResponseIncomplete => f.write_str("A node's answer ended early."),
            ResponseBodyTimeout => f.write_str("A node's answer made no progress."),
            Deadline => f.write_str("No node answered within the deadline."),
            NoEligibleNode | ParkFull | ParkTimeout => {
                f.write_str("No node can serve this request right now.")
            }
            Maintenance => f.write_str("The system is under maintenance."),
            PinnedUnavailable => f.write_str("The system is being changed."),
            Guarded(action) => write!(
                f,
                "`{action}` would change one node of several that are up, and the others would go on \
                 without it. The operator can have one node serve alone meanwhile: `cobalance pin \
                 NODE`, then this, then restart the other nodes, then `cobalance unpin`."
            ),
            QueueFull | QueueTimeout => f.write_str("All nodes are busy."),
            BuffersFull => f.write_str("The proxy is busy."),
            Internal(_) => f.write_str("The proxy failed."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed() {
        let causes = [
            Cause::BadRequest("x"),
            Cause::BadBody("x"),
            Cause::BodyTooLarge,
            Cause::BodyTimeout,
            Cause::ClientLeft,
            Cause::ClientStalled,
            Cause::HeadTooLarge,
            Cause::HeadTimeout,
            Cause::NotImplemented("x"),
            Cause::UriTooLong,
            Cause::ClientDenied,
            Cause::RateLimited(Box::new(Limited {
                limit: "x".into(),
                quota: 1,
                window_s: 1,
                after_s: 1,
            })),
            Cause::TooManyTunnels,
            Cause::NoRoute,
            Cause::ConnectFailed("x".into()),
            Cause::NodeTls("x".into()),
            Cause::ConnectRefused,
            Cause::ConnectTimeout,
            Cause::ConnectionTerminated,
            Cause::BadResponse("x"),
            Cause::ResponseHeadTooLarge,
            Cause::ResponseTimeout,
            Cause::ResponseIncomplete,
            Cause::ResponseBodyTimeout,
            Cause::Deadline,
            Cause::NoEligibleNode,
            Cause::ParkFull,
            Cause::ParkTimeout,
            Cause::Maintenance,
            Cause::PinnedUnavailable,
            Cause::Guarded("x".into()),
            Cause::QueueFull,
            Cause::QueueTimeout,
            Cause::BuffersFull,
            Cause::Internal("x"),
        ];
        let reasons: Vec<_> = causes.iter().map(Cause::reason).collect();
        assert_eq!(reasons, Cause::REASONS);
    }
}
