//! The thread that writes lines, and the bounded way to it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounter;

use super::{Format, Settings};
use crate::telemetry::metrics::Metrics;

/// Chunks that may wait: 2 MiB at 32 KiB each, about 4,000 lines, which outlasts the pause of a disk
/// that syncs without letting a log eat the memory of a small container.
const QUEUE: usize = 64;
/// Empty buffers kept for the data threads; as many as are under way in the steady state.
const KEEP_BUFFERS: usize = 8;
/// A buffer that grew beyond this, by one huge line, is given back to the allocator.
const KEEP_CAPACITY: usize = 128 * 1024;
/// A full disk is told once in this time, not once a chunk.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// How long the end waits for a writer that may hang on a pipe nobody reads.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long one wait for a non-blocking pipe lasts before the next look at what else is asked.
const PIPE_WAIT: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };

/// Where lines go. Clones share one writer thread, which ends with the last of them.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
}

struct Shared {
    settings: Settings,
    dropped: IntCounter,
    reopen: AtomicBool,
    buffers: Mutex<Vec<Vec<u8>>>,
}

enum Message {
    Lines(Vec<u8>, u64),
    /// Look at `Shared::reopen`.
    Wake,
    /// Everything before this has been written: say so.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens the file, or stdout, and starts the writer.
    ///
    /// # Errors
    /// If the file cannot be opened for appending (its directory is not made), or no thread started.
    pub fn open(settings: &Settings, metrics: &Arc<Metrics>) -> io::Result<AccessLog> {
        let file = open(&settings.path)?;
        AccessLog::start(settings, metrics, file)
    }

    fn start(settings: &Settings, metrics: &Arc<Metrics>, file: File) -> io::Result<AccessLog> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            dropped: metrics.access_log_dropped.clone(),
            reopen: AtomicBool::new(false),
            buffers: Mutex::default(),
        });
        let writer = Writer { shared: shared.clone(), file, cut: false, complained: None };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&messages))?;
        Ok(AccessLog { shared, queue })
    }

    /// What it was opened with: a reload that changes none of it keeps it.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// How lines look.
    pub fn format(&self) -> Format {
        self.shared.settings.format
    }

    /// Takes a chunk of that many whole lines, or drops and counts them when the queue is full; never
    /// waits. Gives back an empty buffer if one is at hand.
    pub fn submit(&self, chunk: Vec<u8>, lines: u64) -> Option<Vec<u8>> {
        match self.queue.try_send(Message::Lines(chunk, lines)) {
            Ok(()) => self.shared.buffers.try_lock()?.pop(),
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                self.shared.dropped.inc_by(lines);
                let Message::Lines(mut chunk, _) = message else { return None };
                chunk.clear();
                Some(chunk)
            }
        }
    }

    /// Opens the path anew, for a file that was renamed by log rotation. Soon, not now: the writer does it,
    /// and keeps the old file if it cannot.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // A full queue needs no waking: the writer looks at the flag before each chunk.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Waits, two seconds at most, until everything submitted so far is written; false if it is not. For
    /// the end of the process: it blocks.
    pub fn flush_and_close(&self) -> bool {
        let (told, done) = sync_channel(1);
        let deadline = Instant::now() + CLOSE_WITHIN;
        let mut message = Message::Flush(told);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

fn open(path: &str) -> io::Result<File> {
    if path == "-" {
        // The descriptor itself: std's handle would search every chunk for its last line end.
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    }
    // Lines tell who did what: not for everybody on the machine.
    OpenOptions::new().append(true).create(true).mode(0o640).open(Path::new(path))
}

struct Writer {
    shared: Arc<Shared>,
    file: File,
    /// The last write failed inside a line: the next one must begin on a new line.
    cut: bool,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            match message {
                Message::Lines(chunk, lines) => {
                    self.write(&chunk, lines);
                    self.recycle(chunk);
                }
                Message::Wake => {}
                Message::Flush(told) => {
                    let _ = told.send(());
                }
            }
        }
    }

    fn reopen(&mut self) {
        match open(&self.shared.settings.path) {
            Ok(file) => {
                self.file = file;
                self.cut = false;
            }
            Err(error) => self.complain("cannot be reopened; the old file is kept", &error),
        }
    }

    fn write(&mut self, chunk: &[u8], lines: u64) {
        if self.cut && self.write_all(b"\n").1.is_ok() {
            self.cut = false;
        }
        let (written, result) = self.write_all(chunk);
        if let Err(error) = result {
            let whole = memchr::memchr_iter(b'\n', &chunk[..written]).count() as u64;
            self.cut |= written > 0 && !chunk[..written].ends_with(b"\n");
            self.shared.dropped.inc_by(lines.saturating_sub(whole));
            self.complain("cannot be written; lines are dropped", &error);
        }
    }

    /// Writes all it can; tells how many bytes that were.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room(),
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Stdout may be a pipe that another process has made non-blocking.
    fn wait_for_room(&self) {
        let mut descriptors =
            [rustix::event::PollFd::new(&self.file, rustix::event::PollFlags::OUT)];
        let _ = rustix::event::poll(&mut descriptors, Some(&PIPE_WAIT));
    }

    fn recycle(&self, mut chunk: Vec<u8>) {
        chunk.clear();
        let mut buffers = self.shared.buffers.lock();
        if buffers.len() < KEEP_BUFFERS && chunk.capacity() <= KEEP_CAPACITY {
            buffers.push(chunk);
        }
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if self.complained.is_some_and(|at| at.elapsed() < COMPLAIN_EVERY) {
            return;
        }
        self.complained = Some(Instant::now());
        tracing::error!(path = self.shared.settings.path, %error, "the access log {what}");
    }
}

#[cfg(test)]
mod tests;
