//! TLS before HTTP: the handshake of a client, under the deadline of its first head.

use std::future::poll_fn;

use rustls::{Error, HandshakeKind, InvalidMessage};
use tokio::net::TcpStream;

use super::FIRST_WHILE_DRAINING;
use super::preface::Protocol;
use crate::headers::client_certificate::fields;
use crate::http1::deadline::Deadline;
use crate::net::{HandshakeError, Secure, Socket};
use crate::snapshot::Tls;
use crate::telemetry::metrics::HandshakeFailure;
use crate::tls::HTTP_2;

mod challenge;

/// What is said to a client that speaks HTTP without TLS, in HTTP without TLS.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 42\r\n\
    Connection: close\r\n\r\nThis port speaks HTTPS: begin with https:\n";

/// Makes a TLS connection of a plain one, or counts why not.
pub(super) async fn accept(
    stream: TcpStream,
    tls: &Tls,
    deadline: &Deadline,
    until_ns: u64,
) -> Option<Socket> {
    let (stream, read) = match tls.challenges.any() {
        // An authority may be among the callers.
        true => Box::pin(challenge::greet(stream, tls, deadline, until_ns)).await?,
        false => (stream, Vec::new()),
    };
    let secure = match Secure::accept(stream, tls.server.config.clone(), read) {
        Ok(secure) => secure,
        Err(error) => {
            tracing::error!(%error, "a TLS connection cannot be begun");
            return None;
        }
    };
    deadline.set_at(until_ns);
    // Somebody has just connected: a drain lets it come to its first request, if that does not take long.
    deadline.set_grace(Some(FIRST_WHILE_DRAINING));
    let shaken = deadline.guard(poll_fn(|cx| secure.poll_handshake(cx))).await;
    deadline.set_grace(None);
    deadline.clear();
    match shaken {
        Ok(Ok(())) => {
            let (tls_12, resumed) = secure.with_session(|session| {
                let tls_12 = session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
                (tls_12, session.handshake_kind() == Some(HandshakeKind::Resumed))
            });
            tls.metrics.done(tls_12, resumed);
            Some(Socket::Tls(Box::new(secure)))
        }
        Ok(Err(error)) => {
            let why = failure(&error);
            tls.metrics.failed(why);
            tracing::debug!(%error, "a handshake failed");
            if why == HandshakeFailure::NotTls {
                secure.say_plainly(NOT_TLS);
            }
            None
        }
        Err(_) => {
            tls.metrics.failed(HandshakeFailure::Timeout);
            None
        }
    }
}

/// What TLS has agreed to be spoken; `None` without TLS.
pub(super) fn protocol(socket: &Socket) -> Option<Protocol> {
    let agreed = |secure: &Secure| {
        secure.with_session(|session| match session.alpn_protocol() {
            Some(HTTP_2) => Protocol::Http2,
            _ => Protocol::Http1,
        })
    };
    socket.tls().map(agreed)
}

/// Fields that tell the nodes of the certificate that a client has shown; empty without one.
pub(super) fn certificate(socket: &Socket) -> Box<[u8]> {
    let shown = |secure: &Secure| {
        secure.with_session(|session| {
            session.peer_certificates().and_then(|chain| Some(fields(chain.first()?)))
        })
    };
    socket.tls().and_then(shown).unwrap_or_default().into_boxed_slice()
}

/// One of a few words for what happened.
fn failure(error: &HandshakeError) -> HandshakeFailure {
    let error = match error {
        HandshakeError::Closed(_) => return HandshakeFailure::Closed,
        HandshakeError::TooLarge => return HandshakeFailure::TooLarge,
        HandshakeError::Tls(error) => error,
    };
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => HandshakeFailure::NotTls,
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            HandshakeFailure::TooLarge
        }
        Error::PeerIncompatible(_) => HandshakeFailure::Incompatible,
        Error::NoApplicationProtocol => HandshakeFailure::Alpn,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
            HandshakeFailure::ClientCertificate
        }
        // The library says so, and of nothing else, when there is none to show.
        Error::General(_) => HandshakeFailure::NoCertificate,
        // It has our certificate and goes: nothing else is meant by a polite end here.
        Error::AlertReceived(_) => HandshakeFailure::Alert,
        _ => HandshakeFailure::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError};

    use super::*;

    #[test]
    fn errors_have_their_words() {
        let cases = [
            (Error::NoCertificatesPresented, HandshakeFailure::ClientCertificate),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                HandshakeFailure::ClientCertificate,
            ),
            (Error::AlertReceived(AlertDescription::UnknownCA), HandshakeFailure::Alert),
            (Error::NoApplicationProtocol, HandshakeFailure::Alpn),
            (Error::DecryptError, HandshakeFailure::Protocol),
            (Error::General("none".into()), HandshakeFailure::NoCertificate),
        ];
        for (error, word) in cases {
            assert_eq!(failure(&HandshakeError::Tls(error)), word);
        }
        assert_eq!(failure(&HandshakeError::TooLarge), HandshakeFailure::TooLarge);
    }

    #[test]
    fn the_plain_answer_has_its_length() {
        let text = str::from_utf8(NOT_TLS).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
