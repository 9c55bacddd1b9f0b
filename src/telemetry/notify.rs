//! What the service manager is told: systemd's protocol, one datagram of lines `NAME=value`.
//!
//! Of our own, because the crate for it knows no abstract names, as service managers in containers use
//! them, and these few lines are all of it. Source: sd_notify(3), systemd.service(5) on `Type=notify-reload`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Names the service manager's socket: a path, or `@` and an abstract name.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// A service manager that reads nothing for so long must not hold us up.
const PATIENCE: Duration = Duration::from_secs(1);

/// It serves: after the start, a reload, or when it has taken over.
pub fn ready() {
    tell("READY=1\nSTATUS=serving\n");
}

/// A reload begins, and ends with [`ready`].
pub fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    let mut text = "RELOADING=1\n".to_owned();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "MONOTONIC_USEC={microseconds}");
    tell(&text);
}

/// It ends.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=finishing what was accepted\n");
}

/// Another process is the service from now on.
pub fn main_pid(pid: u32) {
    tell(&format!("MAINPID={pid}\n"));
}

/// Without a service manager nobody is told. One that cannot be reached is no reason not to serve.
fn tell(text: &str) {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name, text) {
        tracing::warn!(%error, "the service manager (${VARIABLE}) cannot be told {}", text.trim());
    }
}

fn send(name: &OsStr, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(text.as_bytes(), &address(name.as_bytes())?).map(drop)
}

fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(OsStr::from_bytes(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("cobalance-test-{}", std::process::id());
        let bound = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&bound).unwrap(), format!("@{abstract_name}").into()),
        ] {
            send(&name, "READY=1\n").unwrap();
            assert_eq!(received(&socket), "READY=1\n", "{name:?}");
        }
    }

    #[test]
    fn nobody_there_is_an_error_and_no_end() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1\n").is_err());
        assert!(send(OsStr::new("vsock:2:1234"), "READY=1\n").is_err());
    }
}
