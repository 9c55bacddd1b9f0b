//! Where it listens and whom it takes for its clients: PROXY headers, Unix sockets, both families of IP.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

mod support;

#[path = "binding/families.rs"]
mod families;
#[path = "binding/proxy_header.rs"]
mod proxy_header;
#[path = "binding/unix.rs"]
mod unix;

use support::origin::Origin;

/// The value of a field in the head that an origin has seen last.
fn last_field(origin: &Origin, name: &str) -> String {
    let seen = origin.seen();
    let head = &seen.last().expect("a request").head;
    support::origin::field(head, name).unwrap_or_default().to_owned()
}
