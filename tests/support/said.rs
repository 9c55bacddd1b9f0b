//! The process log of this test program, to be read by its tests.

use std::io::{self, Write};

use parking_lot::Mutex;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Keep;

impl Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on. Any test may call it; they share the log.
pub fn listen() {
    // Another test was first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter("cobalance=debug")
        .with_ansi(false)
        .with_writer(|| Keep)
        .try_init();
}

/// The lines that hold all of these.
pub fn said(parts: &[&str]) -> Vec<String> {
    let text = String::from_utf8_lossy(&LINES.lock()).into_owned();
    let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    lines.map(str::to_owned).collect()
}
