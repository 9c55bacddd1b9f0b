//! Limits and lists: who may come, how often, and with how much at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "limits/attack.rs"]
mod attack;
#[path = "limits/lists.rs"]
mod lists;
#[path = "limits/pace.rs"]
mod pace;
#[path = "limits/rates.rs"]
mod rates;
#[path = "limits/shares.rs"]
mod shares;
#[path = "limits/streams.rs"]
mod streams;

use std::io::Write;
use std::net::TcpStream;

use parking_lot::{Mutex, MutexGuard};
use support::origin::Origin;
use support::{Answer, Proxy, config};

/// Clients and proxies of crowds of connections are one process, whose descriptors are enough for one crowd at a
/// time, however many tests run at once.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// A proxy in front of a node that answers everything; the local address is a trusted proxy, so that each
/// request can say whose it is.
fn behind_proxy(origin: &Origin, listener: &str, more: &str) -> Proxy {
    let listener = format!("trusted_proxies = [\"127.0.0.1\"]\n{listener}");
    Proxy::start(config(&[origin.address], &listener, more))
}

/// Asks on a connection that stays open.
fn ask(stream: &mut TcpStream, client: &str, line: &str, fields: &str) -> Answer {
    let head = format!("{line} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {client}\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    Answer::read(stream).expect("an answer")
}

fn errors(proxy: &Proxy, reason: &str) -> u64 {
    let ended = proxy.metrics.ended();
    ended.reasons.iter().filter(|(known, _)| known == reason).map(|(_, count)| count).sum()
}

fn counter(proxy: &Proxy, name: &str, label: &str) -> f64 {
    let families = proxy.metrics.registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let series = family.map(|family| family.get_metric()).unwrap_or_default();
    let of_label = series.iter().filter(|one| one.get_label().iter().any(|l| l.value() == label));
    of_label.map(|one| one.get_counter().get_value()).sum()
}
