use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::*;
use crate::control::tests::support::listener;

const ANY: &str = "127.0.0.1:0";

fn port(bound: &Bound) -> u16 {
    bound.address.port().unwrap()
}

/// What has come to these sockets, by the address it came from.
fn accepted(bound: &Bound) -> Vec<SocketAddr> {
    let tcp = bound.sockets.iter().filter_map(|socket| match socket {
        ListenSocket::Tcp(socket) => Some(socket),
        ListenSocket::Unix(_) => None,
    });
    tcp.filter_map(|socket| Some(socket.accept().ok()?.1)).collect()
}

#[test]
fn all_threads_listen_on_one_port() {
    let bound = bind_all(&[listener("a", ANY)], &[], 3).unwrap();
    let ports = bound[0].sockets.iter().map(|socket| match socket {
        ListenSocket::Tcp(socket) => socket.local_addr().unwrap().port(),
        ListenSocket::Unix(_) => 0,
    });
    assert_eq!(ports.collect::<Vec<_>>(), vec![port(&bound[0]); 3]);
    assert_ne!(port(&bound[0]), 0);
}

#[test]
fn a_port_that_another_socket_shares_is_refused() {
    // As another cobalance of the same user would hold it.
    let other = socket(ANY.parse().unwrap(), true).unwrap();
    let address = other.local_addr().unwrap().to_string();
    let error = bind_all(&[listener("a", &address)], &[], 2).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("listener `a` cannot bind 127.0.0.1:"), "{error}");
    assert!(error.to_string().contains(". Another process listens there; `ss"), "{error}");
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let error = bind_all(&[listener("a", "192.0.2.1:8080")], &[], 1).unwrap_err();
    assert!(error.to_string().contains(". No interface of this machine"), "{error}");
}

#[test]
fn a_renamed_listener_keeps_its_sockets() {
    let free = bind_all(&[listener("probe", ANY)], &[], 1).unwrap()[0].address.to_string();
    let held = bind_all(&[listener("old", &free)], &[], 2).unwrap();
    let client = TcpStream::connect(held[0].address.tcp().unwrap()).unwrap();
    let new = bind_all(&[listener("new", &free)], &held, 2).unwrap();
    drop(held);
    assert_eq!(new[0].name, "new");
    // What was in the queue before is still there for whoever holds the copy.
    assert_eq!(accepted(&new[0]), [client.local_addr().unwrap()]);
}

#[test]
fn a_wider_address_on_our_own_port_is_no_conflict() {
    let held = bind_all(&[listener("a", ANY)], &[], 1).unwrap();
    let wide = format!("0.0.0.0:{}", port(&held[0]));
    assert!(bind_all(&[listener("b", &wide)], &held, 1).is_ok());
}

#[test]
fn both_families_at_one_port_get_their_own_in_either_order() {
    for order in [["[::]", "0.0.0.0"], ["0.0.0.0", "[::]"]] {
        let first = bind_all(&[listener("a", &format!("{}:0", order[0]))], &[], 2).unwrap();
        let port = port(&first[0]);
        let names = ["a", "b"];
        let both: Vec<_> =
            (0..2).map(|nth| listener(names[nth], &format!("{}:{port}", order[nth]))).collect();
        // As a reload adds the other one.
        let held = vec![first.into_iter().next().unwrap()];
        let mut asked = bind_all(&both[1..], &held, 2).unwrap();
        asked.push(held.into_iter().next().unwrap());
        let v4 = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let v6 = TcpStream::connect(("::1", port)).unwrap();
        for bound in &asked {
            let is_v6 = bound.asked.to_string().starts_with('[');
            let expected = if is_v6 { &v6 } else { &v4 };
            assert_eq!(accepted(bound), [expected.local_addr().unwrap()], "{order:?}");
        }
    }
}

#[test]
fn the_unspecified_address_of_ipv6_is_both_families_and_that_of_ipv4_is_one() {
    let both = bind_all(&[listener("a", "[::]:0")], &[], 1).unwrap();
    drop(TcpStream::connect(("127.0.0.1", port(&both[0]))).unwrap());
    drop(TcpStream::connect(("::1", port(&both[0]))).unwrap());
    let one = bind_all(&[listener("a", "0.0.0.0:0")], &[], 1).unwrap();
    drop(TcpStream::connect(("127.0.0.1", port(&one[0]))).unwrap());
    assert!(TcpStream::connect(("::1", port(&one[0]))).is_err());
}

#[test]
fn a_unix_socket_is_one_for_all_threads_and_survives_what_a_reload_renames() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let text = format!("unix:{}", path.display());
    let held = bind_all(&[listener("old", &text)], &[], 2).unwrap();
    let threads = (0..2).map(|thread| of_thread(&held, thread, 2).unwrap().len());
    assert_eq!(threads.collect::<Vec<_>>(), [1, 1]);
    let _early = UnixStream::connect(&path).unwrap();
    let new = bind_all(&[listener("new", &text)], &held, 2).unwrap();
    drop(held);
    let ListenSocket::Unix(socket) = &new[0].sockets[0] else { panic!("of another family") };
    assert!(socket.accept().is_ok());
    let again = bind_all(&[listener("other", &text)], &[], 1).unwrap_err();
    assert!(again.to_string().contains("`ss -lxp`"), "{again}");
    drop(new);
    assert!(!path.exists());
}

#[test]
fn what_another_process_hands_over_is_not_removed_before_it_is_ours() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let text = format!("unix:{}", path.display());
    let old = bind_all(&[listener("a", &text)], &[], 2).unwrap();
    let hand_over = || {
        let copy = old[0].sockets[0].try_clone().unwrap();
        let (name, asked) = ("a".into(), old[0].asked.clone());
        inherited(vec![HandedOver { name, asked, file: None, socket: copy }]).unwrap()
    };
    // A new process that comes to nothing.
    drop(bind_all(&[listener("a", &text)], &hand_over(), 4).unwrap());
    assert!(path.exists());
    let new = bind_all(&[listener("a", &text)], &hand_over(), 4).unwrap();
    old.iter().for_each(|bound| bound.own_file(false));
    new.iter().for_each(|bound| bound.own_file(true));
    drop(old);
    let mut client = UnixStream::connect(&path).unwrap();
    assert_eq!(new[0].sockets.len(), 1);
    drop(new);
    assert!(!path.exists());
    // Nobody has accepted it, and nobody will.
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}
