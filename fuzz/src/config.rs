//! A file as an operator might write it, or mangle it: reading it ends in a configuration or in
//! diagnostics that can be shown, and never in a panic.

use cobalance::config::{self, Severity, Source};

/// Longer files only cost time.
const MAX_TEXT: usize = 8 * 1024;

/// Reads a file. `Err`: what must not be.
pub fn run(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned();
    // Files of certificates are read: none that never end, and none that depend on the machine.
    if ["/dev", "/proc", "/sys"].iter().any(|place| text.contains(place)) {
        return Ok(());
    }
    let source = Source { name: "fuzz.toml".into(), text };
    let (found, config) = match config::load(&source, &environment) {
        Ok((config, warnings)) => (warnings, Some(config)),
        Err(found) => (found, None),
    };
    let errors = found.iter().filter(|one| one.severity == Severity::Error).count();
    if (errors == 0) != config.is_some() {
        return Err(format!("{errors} errors, and a configuration: {}", config.is_some()));
    }
    let places = |one: &config::Diagnostic| source.text.get(one.span.clone()).is_some();
    if !found.iter().all(places) {
        return Err("a place outside of the text, or within a character".into());
    }
    let shown = [false, true].map(|color| config::render(&found, &source, color));
    if found.iter().any(|one| !shown[0].contains(one.code)) {
        return Err(format!("a diagnostic is not shown in {:?}", shown[0]));
    }
    if config::to_json(&found, &source).is_empty() || config::summary(&found).is_empty() {
        return Err("nothing is shown".into());
    }
    match config {
        Some(config) => judge(&config),
        None => Ok(()),
    }
}

/// What code relies on, whatever the file says.
fn judge(config: &config::Config) -> Result<(), String> {
    let unique = |names: Vec<&str>| {
        let all = names.len();
        let set: std::collections::BTreeSet<&str> = names.into_iter().collect();
        set.len() == all
    };
    let listeners = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
    let upstreams = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let facts = [
        (!config.listeners.is_empty(), "no listener"),
        (!config.upstreams.is_empty(), "no upstream"),
        (config.server.threads >= 1, "no thread"),
        (unique(listeners), "a listener's name twice"),
        (unique(upstreams), "an upstream's name twice"),
        (config.listeners.iter().all(|l| l.max_head > 0 && l.max_fields > 0), "no room for a head"),
    ];
    match facts.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err((*what).to_owned()),
        None => Ok(()),
    }
}

/// A few variables, one of them with what a file would have to escape.
fn environment(name: &str) -> Option<String> {
    match name {
        "A" => Some("127.0.0.1:1".into()),
        "QUOTE" => Some("a\"b\\\n\u{e9}".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}
