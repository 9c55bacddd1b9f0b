//! A client whose handshake is done and who then sends a message of the handshake that does not end: written
//! with the keys of a real session, because no library sends such a thing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use crate::Rig;
use crate::support::origin::Origin;
use crate::support::tls::connect;
use crate::support::{Answer, PATIENCE};

/// The sending side of a TLS 1.3 session.
struct Sender {
    key: LessSafeKey,
    iv: Vec<u8>,
    sequence: u64,
    stream: TcpStream,
}

impl Sender {
    /// One record of the handshake (RFC 8446, 5.2 and 5.3).
    fn send(&mut self, content: &[u8]) -> std::io::Result<()> {
        let mut sealed = [content, &[22]].concat();
        let length = u16::try_from(sealed.len() + 16).unwrap().to_be_bytes();
        let head = [23, 3, 3, length[0], length[1]];
        let mut nonce: [u8; 12] = self.iv[..].try_into().unwrap();
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut sealed).unwrap();
        self.stream.write_all(&[&head[..], &sealed].concat())
    }
}

#[test]
fn a_message_without_end_is_not_held() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let rig = Rig::new(&origin);
    let mut config = rig.authority.client_with(&[&rustls::version::TLS13], None);
    config.enable_secret_extraction = true;
    let mut client = connect(rig.proxy.address, &Arc::new(config), "a.test").unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut client).unwrap().status, 200);
    let (session, mut stream) = client.into_parts();
    let (sequence, secrets) = session.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another suite") };
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    let iv = iv.as_ref().to_vec();
    let mut sender = Sender { key, iv, sequence, stream: stream.try_clone().unwrap() };
    // A key update of nearly 64 KiB, of which as much comes as is allowed, and then a little more.
    let mut begin = vec![24, 0, 0xff, 0xff];
    begin.resize(16 * 1024, 0);
    for part in [&begin[..], &[0; 16 * 1024], &[0; 16 * 1024]] {
        // It may be cut before all was sent.
        if sender.send(part).is_err() {
            break;
        }
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is still open"),
    }
}
