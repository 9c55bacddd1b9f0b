use std::io::Read;
use std::path::PathBuf;

use super::*;
use crate::telemetry::access_log::{Line, LineBuffer};

fn settings(path: &Path) -> Settings {
    Settings { enabled: true, path: path.to_str().unwrap().into(), format: Format::Json }
}

fn in_directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    (directory, path)
}

#[test]
fn lines_reach_the_file_and_a_second_run_appends() {
    let (_directory, path) = in_directory();
    let metrics = Metrics::new();
    for run in 1..=2 {
        let log = AccessLog::open(&settings(&path), &metrics).unwrap();
        let mut buffer = LineBuffer::new(Some(log.clone()));
        for _ in 0..1_000 {
            buffer.push(&Line { path: b"/x", ..Line::default() });
        }
        buffer.flush();
        assert!(log.flush_and_close());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), run * 1_000);
    }
    assert_eq!(metrics.access_log_dropped.get(), 0);
}

#[test]
fn a_missing_directory_is_an_error() {
    let (directory, _) = in_directory();
    let path = directory.path().join("none").join("access.log");
    assert!(AccessLog::open(&settings(&path), &Metrics::new()).is_err());
}

#[test]
fn rotation_loses_nothing() {
    let (_directory, path) = in_directory();
    let log = AccessLog::open(&settings(&path), &Metrics::new()).unwrap();
    let mut expected = String::new();
    let mut rotated = Vec::new();
    for round in 0..5 {
        for line in 0..10 {
            let text = format!("{round} {line}\n");
            log.submit(text.clone().into_bytes(), 1);
            expected.push_str(&text);
        }
        let old = path.with_extension(round.to_string());
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        // The new file is there once everything before was dealt with, even though no line came since.
        assert!(log.flush_and_close());
        assert!(path.exists());
        rotated.push(old);
    }
    rotated.push(path);
    let all: String = rotated.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    assert_eq!(all, expected);
}

#[test]
fn a_reopen_that_fails_keeps_the_old_file() {
    let (directory, _) = in_directory();
    let inner = directory.path().join("logs");
    let moved = directory.path().join("moved");
    std::fs::create_dir(&inner).unwrap();
    let log = AccessLog::open(&settings(&inner.join("access.log")), &Metrics::new()).unwrap();
    std::fs::rename(&inner, &moved).unwrap();
    log.reopen();
    log.submit(b"still\n".to_vec(), 1);
    assert!(log.flush_and_close());
    assert_eq!(std::fs::read_to_string(moved.join("access.log")).unwrap(), "still\n");
}

#[test]
fn a_stalled_pipe_drops_and_counts() {
    let (mut reader, writer) = io::pipe().unwrap();
    let metrics = Metrics::new();
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let log = AccessLog::start(&settings(Path::new("pipe")), &metrics, file).unwrap();
    let chunk = b"0123456789abcde\n".repeat(2048);
    let mut submitted = 0;
    while metrics.access_log_dropped.get() == 0 {
        let back = log.submit(chunk.clone(), 2048);
        assert!(back.is_none_or(|buffer| buffer.is_empty()));
        submitted += 2048;
        assert!(submitted < 2048 * 1_000, "a stalled writer must drop");
    }
    let dropped = metrics.access_log_dropped.get();
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count() as u64 + dropped, submitted);
    assert!(text.lines().all(|line| line == "0123456789abcde"));
}

#[test]
fn a_full_disk_counts_lines() {
    let metrics = Metrics::new();
    let log = AccessLog::open(&settings(Path::new("/dev/full")), &metrics).unwrap();
    log.submit(b"a\nb\n".to_vec(), 2);
    assert!(log.flush_and_close());
    assert_eq!(metrics.access_log_dropped.get(), 2);
}

#[test]
fn after_a_cut_line_the_next_begins_on_its_own() {
    let (_directory, path) = in_directory();
    let file = open(path.to_str().unwrap()).unwrap();
    let shared = Arc::new(Shared {
        settings: settings(&path),
        dropped: Metrics::new().access_log_dropped.clone(),
        reopen: AtomicBool::new(false),
        buffers: Mutex::default(),
    });
    let mut writer = Writer { shared, file, cut: true, complained: None };
    writer.write(b"whole\n", 1);
    writer.write(b"next\n", 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "\nwhole\nnext\n");
}

#[test]
fn buffers_come_back() {
    let (_directory, path) = in_directory();
    let log = AccessLog::open(&settings(&path), &Metrics::new()).unwrap();
    log.submit(b"a\n".to_vec(), 1);
    assert!(log.flush_and_close());
    assert_eq!(log.submit(b"b\n".to_vec(), 1), Some(Vec::new()));
}
