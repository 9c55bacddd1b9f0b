use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Option<Peer> {
    Some(Peer::Ip(text.parse().unwrap()))
}

fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [V2, &[command, kind], &length.to_be_bytes(), body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&[kind], &length.to_be_bytes()[..], value].concat()
}

/// 192.0.2.1:5000 to 192.0.2.2:80.
const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0, 80];

/// With a checksum in the middle of its parts.
fn with_checksum(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let body = [&INET[..], &tlv(1, b"h2"), &tlv(CRC32C, &[0; 4]), &tlv(4, &[0; 7])].concat();
    let mut header = v2(0x21, 0x11, &body);
    let sum = crc32c(header.iter().copied());
    let at = V2_FIXED + INET.len() + 5 + 3;
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    change(&mut header);
    header
}

fn whole() -> Vec<(Vec<u8>, Option<Peer>)> {
    let inet6 = ["2001:db8::1", "2001:db8::2"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets());
    let inet6 = [&inet6[0][..], &inet6[1], &[0x13, 0x88, 0, 80]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n".into(), ip("192.0.2.1")),
        (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".into(), ip("2001:db8::1")),
        (b"PROXY UNKNOWN\r\n".into(), None),
        (b"PROXY UNKNOWN ff:: what ever\x00\r\n".into(), None),
        (v2(0x20, 0, &[]), None),
        // Of its own connection a proxy may say anything.
        (v2(0x20, 0x11, &INET[..3]), None),
        (v2(0x21, 0, &[]), None),
        (v2(0x21, 0, &tlv(5, b"id")), None),
        (v2(0x21, 0x11, &INET), ip("192.0.2.1")),
        (v2(0x21, 0x12, &INET), ip("192.0.2.1")),
        (v2(0x21, 0x10, &INET), None),
        (v2(0x21, 0x21, &inet6), ip("2001:db8::1")),
        (v2(0x21, 0x31, &[b'x'; 216]), Some(Peer::Unix)),
        (v2(0x21, 0x11, &[&INET[..], &tlv(0x20, &[1; 4000])].concat()), ip("192.0.2.1")),
        (with_checksum(|_| {}), ip("192.0.2.1")),
    ]
}

#[test]
fn whole_headers_are_read_and_nothing_behind_them() {
    for (bytes, client) in whole() {
        let expected = Ok(Some(Header { length: bytes.len(), client }));
        assert_eq!(parse(&bytes), expected, "{bytes:?}");
        let followed = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&followed), expected, "{bytes:?}");
    }
}

#[test]
fn every_beginning_of_a_header_is_incomplete() {
    for (bytes, _) in whole() {
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Ok(None), "{:?}", &bytes[..length]);
        }
    }
}

#[test]
fn what_is_none_is_seen_at_its_first_odd_byte() {
    for bytes in [&b"G"[..], b"\x16\x03\x01", b"PROXYTCP4", b"proxy ", b"\r\n\r\n\0\r\nQUIT\r"] {
        assert_eq!(parse(bytes), Err(Fault::Missing), "{bytes:?}");
    }
}

#[test]
fn lines_that_break_the_rules_are_refused() {
    let lines = [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 5000 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5000 080\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +500 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5000 65536\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 5000 80\r\n",
        "PROXY TCP4 2001:db8::1 ::1 5000 80\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 5000 80\r\n",
        "PROXY TCP6 fe80::1%1 ::1 5000 80\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 5000 80\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\r\n",
    ];
    for line in lines {
        assert!(matches!(parse(line.as_bytes()), Err(Fault::Malformed(_))), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX));
    assert!(matches!(parse(long.as_bytes()), Err(Fault::Malformed(_))));
    assert_eq!(parse(&long.as_bytes()[..V1_MAX - 1]), Ok(None));
    let just = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16));
    assert!(matches!(parse(just.as_bytes()), Ok(Some(_))));
}

#[test]
fn binary_headers_that_break_the_rules_are_refused() {
    let cut = [&INET[..], &[4, 0, 9, 1]].concat();
    let odd_sum = [&INET[..], &tlv(CRC32C, &[0; 3])].concat();
    let cases = [
        v2(0x11, 0x11, &INET),
        v2(0x22, 0x11, &INET),
        v2(0x21, 0x41, &INET),
        v2(0x21, 0x13, &INET),
        v2(0x21, 0x11, &INET[..11]),
        v2(0x21, 0x21, &INET),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x11, &cut),
        v2(0x21, 0x11, &[&INET[..], &[4, 0]].concat()),
        v2(0x21, 0x11, &odd_sum),
    ];
    for bytes in cases {
        assert!(
            matches!(parse(&bytes), Err(Fault::Malformed(_))),
            "{bytes:?}: {:?}",
            parse(&bytes)
        );
    }
    // By its length alone: nobody waits for 64 KiB.
    assert_eq!(parse(&v2(0x21, 0, &[0; MAX_HEADER])[..V2_FIXED]), Err(Fault::TooLarge));
    assert_eq!(
        parse(&v2(0x20, 0, &vec![0; MAX_HEADER - V2_FIXED])).unwrap().unwrap().length,
        MAX_HEADER
    );
}

#[test]
fn a_header_that_was_changed_on_its_way_is_refused() {
    for at in [V2_FIXED, V2_FIXED + 11, V2_FIXED + INET.len() + 3] {
        let changed = with_checksum(|header| header[at] ^= 1);
        assert_eq!(parse(&changed), Err(Fault::Checksum), "{at}");
    }
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283, "the standard's check value");
}

proptest! {
    #[test]
    fn more_bytes_never_take_a_verdict_back(
        nth in 0..whole().len(),
        change in prop::option::of((0usize..64, any::<u8>())),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (mut bytes, _) = whole().swap_remove(nth);
        if let Some((at, byte)) = change {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.extend(tail);
        let last = parse(&bytes);
        let first = (0..=bytes.len()).find_map(|n| match parse(&bytes[..n]) {
            Ok(None) => None,
            verdict => Some((n, verdict)),
        });
        match first {
            None => prop_assert_eq!(last, Ok(None)),
            Some((n, verdict)) => {
                prop_assert_eq!(last, verdict);
                if let Ok(Some(header)) = verdict {
                    prop_assert_eq!(header.length, n);
                }
            }
        }
    }
}
