//! What a node learns of the certificate that a client has shown, and what a client may not say of it.

use std::fmt::Write;

use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::http1::field::same_but_for_underscores;
use crate::http1::websocket::base64;
use crate::tls::certificate::{fingerprint_of, hex};

/// Begins of names that speak of a client's certificate: ours, that of RFC 9440, and those of other proxies.
const OURS: [&[u8]; 6] = [
    b"client-cert",
    b"x-client-cert",
    b"x-ssl-client-",
    b"ssl-client-",
    b"x-forwarded-client-cert",
    b"x-forwarded-tls-client-cert",
];

/// Whether a field speaks of a client's certificate: only a proxy may say that.
pub(super) fn is_of_certificate(name: &[u8]) -> bool {
    // Nearly every name is ruled out by its first letter.
    matches!(name.first(), Some(b'c' | b'C' | b's' | b'S' | b'x' | b'X'))
        && OURS.iter().any(|begin| {
            name.get(..begin.len()).is_some_and(|head| same_but_for_underscores(head, begin))
        })
}

/// The fields for a certificate, each with its line end: `Client-Cert` as RFC 9440 has it, and what a person
/// would look for, in fields of their own. Empty for what is no certificate.
pub fn fields(der: &[u8]) -> Vec<u8> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(out, "Client-Cert: :{}:\r\n", base64(der));
    let _ = write!(out, "X-Client-Cert-Subject: {}\r\n", subject(certificate.subject()));
    let _ = write!(out, "X-Client-Cert-Serial: {}\r\n", hex(certificate.raw_serial()));
    let _ = write!(out, "X-Client-Cert-Fingerprint: {}\r\n", hex(&fingerprint_of(der)));
    out.into_bytes()
}

/// A name as RFC 4514 writes it: the last part first, and nothing in a value that could pass for a part of
/// the name, or for the end of the line.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name.iter_rdn().map(part).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn part(rdn: &x509_parser::x509::RelativeDistinguishedName<'_>) -> String {
    let pairs = rdn.iter().map(|pair| {
        let oid = pair.attr_type();
        let kind = x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry());
        let kind = kind.map_or_else(|_| oid.to_id_string(), str::to_owned);
        format!("{kind}={}", escaped(pair.attr_value().data))
    });
    pairs.collect::<Vec<_>>().join("+")
}

fn escaped(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for (nth, byte) in value.iter().enumerate() {
        let edge = nth == 0 || nth + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b'#' | b' ' if edge => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_certificates_are_known() {
        for name in [
            "Client-Cert",
            "client-cert-chain",
            "X-Client-Cert-Subject",
            "x-ssl-client-verify",
            "SSL-Client-Verify",
            "ssl-client-subject-dn",
            "X-Forwarded-Client-Cert",
            "X-Forwarded-Tls-Client-Cert-Info",
        ] {
            assert!(is_of_certificate(name.as_bytes()), "{name}");
        }
        for name in
            ["", "Cookie", "X-App", "x-client", "Content-Type", "X-Forwarded-For", "Sec-Fetch-Mode"]
        {
            assert!(!is_of_certificate(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_value_cannot_pass_for_more_than_one() {
        assert_eq!(escaped(b"a, O=admin"), "a\\, O\\=admin");
        assert_eq!(escaped(b" a\r\nX: 1 "), "\\ a\\0D\\0AX: 1\\ ");
        assert_eq!(escaped("ß#".as_bytes()), "\\C3\\9F\\#");
    }

    #[test]
    fn fields_of_a_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["c.test".to_owned()]).unwrap();
        params.serial_number = Some(vec![1, 0xab].into());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Org, Inc");
        params.distinguished_name.push(rcgen::DnType::CommonName, "me");
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let text = String::from_utf8(fields(made.der())).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].starts_with("Client-Cert: :MII") && lines[0].ends_with(':'), "{text}");
        assert_eq!(lines[1], "X-Client-Cert-Subject: CN=me,O=Org\\, Inc");
        assert_eq!(lines[2], "X-Client-Cert-Serial: 01ab");
        assert_eq!(lines[3].len(), "X-Client-Cert-Fingerprint: ".len() + 64);
        assert_eq!(fields(b"no certificate"), b"");
    }
}
