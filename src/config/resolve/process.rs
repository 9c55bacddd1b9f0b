//! `[server]`, `[spool]`, `[probes]` and `[access_log]`

use std::path::PathBuf;

use super::{Placed, parsed};
use crate::config::keys::{self, TableKeys};
use crate::config::raw::{OR_ZERO, POSITIVE, Table, Text};
use crate::config::{AccessLog, LogFormat, Probes, Server, Spool, address};

pub(super) fn server(root: &Table<'_>) -> Server {
    let state_file = Server::implied_state_file(root.cx.env());
    let plain = Server { state_file, ..Server::default() };
    let Some(table) = single(root, &keys::SERVER, "server") else { return plain };
    let state_file = table.text("state_file").and_then(|text| {
        path(&text, "write the path of a file in a directory that exists, or leave it out")
    });
    let threads = table.number("threads", plain.threads, 1..=1024);
    Server {
        state_file: state_file.or(plain.state_file),
        threads,
        shutdown_delay: table.duration("shutdown_delay", plain.shutdown_delay, &OR_ZERO),
        shutdown_timeout: table.duration("shutdown_timeout", plain.shutdown_timeout, &OR_ZERO),
        upgrade_timeout: table.duration("upgrade_timeout", plain.upgrade_timeout, &POSITIVE),
        upgrade_drain_timeout: table.duration(
            "upgrade_drain_timeout",
            plain.upgrade_drain_timeout,
            &OR_ZERO,
        ),
        probation: table.duration("probation", plain.probation, &OR_ZERO),
        probation_requests: table.number(
            "probation_requests",
            plain.probation_requests,
            1..=1_000_000,
        ),
        auto_rollback: table.flag("auto_rollback", plain.auto_rollback),
        max_buffered: table.size(
            "max_buffered",
            Server::implied_max_buffered(threads),
            16 << 20..=1 << 40,
        ),
    }
}

pub(super) fn spool(root: &Table<'_>) -> Spool {
    let plain = Spool::implied(root.cx.env());
    let Some(table) = single(root, &keys::SPOOL, "spool") else { return plain };
    let directory = table.text("directory");
    let directory = directory.and_then(|text| path(&text, "write the path of a directory"));
    Spool {
        directory: directory.unwrap_or(plain.directory),
        memory: table.size("memory", plain.memory, 64 * 1024..=1 << 30),
        max_body: table.size("max_body", plain.max_body, 64 * 1024..=1 << 50),
        total_memory: table.size("total_memory", plain.total_memory, 64 * 1024..=1 << 40),
        total_files: table.size("total_files", plain.total_files, 0..=1 << 50),
        client_share: table.share("client_share", plain.client_share),
    }
}

pub(super) fn path(text: &Text<'_>, help: &str) -> Option<PathBuf> {
    if text.value.is_empty() {
        text.error("bad-path", format!("{} is empty", text.name), "no path", help);
        return None;
    }
    Some(PathBuf::from(&text.value))
}

pub(super) fn probes(root: &Table<'_>) -> Option<Placed<Probes>> {
    let table = single(root, &keys::PROBES, "probes")?;
    if table.get("bind").is_none() {
        table.missing("bind", "write `bind = \"0.0.0.0:9900\"`");
    }
    let text = table.bind()?;
    let bind = parsed(&text, address::bind)?;
    Some(Placed { item: Probes { bind }, name: text.span.clone(), place: text.span })
}

pub(super) fn access_log(root: &Table<'_>) -> AccessLog {
    let plain = AccessLog::default();
    let Some(table) = single(root, &keys::ACCESS_LOG, "access_log") else { return plain };
    let formats = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
    let path = table
        .text("path")
        .filter(|text| path(text, "write \"-\" for stdout, or the path of a file").is_some());
    AccessLog {
        enabled: table.flag("enabled", plain.enabled),
        path: path.map_or(plain.path, |text| text.value),
        format: table.text("format").and_then(|f| f.choice(&formats)).unwrap_or(plain.format),
    }
}

/// A table that exists once.
pub(super) fn single<'a>(
    root: &Table<'a>,
    keys: &'static TableKeys,
    key: &'static str,
) -> Option<Table<'a>> {
    root.get(key)?.table(keys, &format!("`{}`", keys.title))
}
