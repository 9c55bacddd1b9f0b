//! Where slow uploads are kept until they are complete: in memory, then in a file.
//!
//! Files have no name, so that nothing of them is left when their body is gone or the process ends, however
//! it does. They are written and read on blocking threads. What all bodies hold together is bounded over
//! all data threads.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{Mode, OFlags};

use crate::clock;
use crate::config;
use crate::limit::clients::{Clients, Taken};
use crate::telemetry::metrics::{Counting, SpoolMetrics, SpoolRefusal};

/// A body's memory grows in steps of at least this, and that much it must have to be kept at all.
const STEP: usize = 64 * 1024;
/// What a body keeps in memory once it has a file: enough for writes that cost little, and so little that
/// hundreds of bodies do not hold much together.
const WRITE: usize = 128 * 1024;
/// What is read from a file at once.
pub const PIECE: usize = 256 * 1024;
/// The log tells of the same trouble this often.
const TELL_AGAIN_NS: u64 = 60_000_000_000;

/// Looks whether a file can be made there. Blocks.
///
/// # Errors
/// It cannot.
pub fn look(directory: &Path) -> io::Result<()> {
    unnamed(directory).map(drop)
}

/// What all bodies hold.
pub struct Spool {
    held: [AtomicU64; 2],
    /// What those of each client hold.
    clients: [Arc<Clients>; 2],
    /// When the log was told last, by [`SpoolRefusal`]; 0 is never.
    told_ns: [AtomicU64; 4],
    metrics: SpoolMetrics,
}

impl Spool {
    /// An empty one.
    pub fn new(metrics: SpoolMetrics) -> Arc<Spool> {
        Arc::new(Spool {
            held: Default::default(),
            clients: Default::default(),
            told_ns: Default::default(),
            metrics,
        })
    }

    /// Counts an upload that is too slow.
    pub fn count_slow(&self) {
        self.metrics.spooled.inc();
    }

    /// Counts a slow upload that goes to its node as it comes, because it cannot be kept; and tells of it.
    pub fn refused(&self, why: &Refused) {
        self.metrics.refused[why.kind as usize].inc();
        let (told, now) = (&self.told_ns[why.kind as usize], clock::now_ns().max(1));
        let last = told.load(Relaxed);
        let again = last == 0 || now.saturating_sub(last) >= TELL_AGAIN_NS;
        if again && told.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            tracing::warn!(target: "cobalance::spool",
                "an upload goes to its node as it comes, however slowly: {}", why.what);
        }
    }
}

/// Why a body is not kept, or no further.
#[derive(Debug)]
pub struct Refused {
    /// For the metric.
    pub kind: SpoolRefusal,
    /// For the log.
    pub what: String,
}

impl Refused {
    /// It is larger than one may be.
    pub fn too_large(settings: &config::Spool) -> Refused {
        let what = format!("it is larger than `max_body` of [spool], {} bytes", settings.max_body);
        Refused { kind: SpoolRefusal::TooLarge, what }
    }

    /// Memory is short.
    fn no_memory(settings: &config::Spool) -> Refused {
        let what = format!("the spool is full (`total_memory`, {} bytes)", settings.total_memory);
        Refused { kind: SpoolRefusal::Full, what }
    }

    fn no_files(settings: &config::Spool) -> Refused {
        let what = format!("the spool is full (`total_files`, {} bytes)", settings.total_files);
        Refused { kind: SpoolRefusal::Full, what }
    }

    /// Its client has its share.
    fn no_share() -> Refused {
        let what = "the bodies of its client hold as much as they may (`client_share`)".to_owned();
        Refused { kind: SpoolRefusal::ClientShare, what }
    }

    fn error(settings: &config::Spool, error: &io::Error) -> Refused {
        let what =
            format!("the spool in {} cannot be written: {error}", settings.directory.display());
        Refused { kind: SpoolRefusal::Error, what }
    }
}

/// A part of what all bodies may hold, in memory (0) or in files (1); given back when it is dropped.
struct Share {
    spool: Arc<Spool>,
    place: usize,
    bytes: u64,
    /// The same, among what its client holds.
    of_client: Option<Taken>,
    /// It was its client's bound that was met last.
    client_full: bool,
}

impl Share {
    fn grow(&mut self, bytes: u64, limit: u64, of_client: u64) -> bool {
        let held = &self.spool.held[self.place];
        let fits = held.fetch_add(bytes, Relaxed).saturating_add(bytes) <= limit;
        // Where both are met it is the one of all that has to be raised.
        let of_client = |taken: &mut Taken| taken.grow(bytes, of_client);
        self.client_full = fits && !self.of_client.as_mut().is_none_or(of_client);
        if !fits || self.client_full {
            held.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        self.spool.metrics.bytes[self.place].add(bytes.cast_signed());
        true
    }

    fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes - bytes;
        self.spool.held[self.place].fetch_sub(less, Relaxed);
        self.spool.metrics.bytes[self.place].sub(less.cast_signed());
        self.bytes = bytes;
        if let Some(taken) = &mut self.of_client {
            taken.shrink_to(bytes);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// What is kept of one body: first what is in its file, then what is in memory.
pub struct Store {
    settings: config::Spool,
    file: Option<Arc<File>>,
    in_file: u64,
    memory: Vec<u8>,
    memory_share: Share,
    file_share: Share,
    _counted: Counting,
}

impl Store {
    /// An empty one of a client, which holds nothing yet.
    pub fn new(spool: &Arc<Spool>, settings: &config::Spool, client: IpAddr) -> Store {
        let share = |place: usize| Share {
            of_client: spool.clients[place].take(client, 0, u64::MAX),
            spool: spool.clone(),
            place,
            bytes: 0,
            client_full: false,
        };
        Store {
            settings: settings.clone(),
            file: None,
            in_file: 0,
            memory: Vec::new(),
            memory_share: share(0),
            file_share: share(1),
            _counted: spool.metrics.count(),
        }
    }

    /// Bytes kept.
    pub fn len(&self) -> u64 {
        self.in_file + self.memory.len() as u64
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of them in the file.
    pub fn in_file(&self) -> u64 {
        self.in_file
    }

    /// Those in memory, which come after those in the file.
    pub fn in_memory(&self) -> &[u8] {
        &self.memory
    }

    /// How many bytes may be pushed now. 0: nothing before what there is was saved.
    pub fn room(&mut self) -> usize {
        let has = self.memory_share.bytes as usize;
        if self.memory.len() == has {
            let most = if self.file.is_some() { WRITE } else { usize::MAX };
            let grown = (2 * has).max(STEP).min(most.min(self.settings.memory));
            if grown > has {
                self.take_memory(grown - has);
            }
        }
        self.memory_share.bytes as usize - self.memory.len()
    }

    /// Room for so many bytes more, if there is any.
    pub fn take_memory(&mut self, bytes: usize) -> bool {
        let all = self.settings.total_memory as u64;
        // One body has its memory: with less than that none would be kept.
        let most = part(all, &self.settings).max(self.settings.memory as u64);
        let taken = self.memory_share.grow(bytes as u64, all, most);
        if taken {
            self.memory.reserve_exact(self.memory_share.bytes as usize - self.memory.len());
        }
        taken
    }

    /// Why there is no more memory.
    pub fn no_memory(&self) -> Refused {
        match self.memory_share.client_full {
            true => Refused::no_share(),
            false => Refused::no_memory(&self.settings),
        }
    }

    /// Keeps these as well: no more than there is room for.
    pub fn push(&mut self, data: &[u8]) {
        debug_assert!(self.memory.len() + data.len() <= self.memory_share.bytes as usize);
        self.memory.extend_from_slice(data);
    }

    /// Moves what is in memory to the file, on a blocking thread.
    ///
    /// # Errors
    /// There is no room, or the file cannot be written. Nothing of what was kept is lost.
    pub async fn save(&mut self) -> Result<(), Refused> {
        let bytes = self.memory.len() as u64;
        if bytes == 0 {
            return Err(self.no_memory());
        }
        if self.in_file + bytes > self.settings.max_body {
            return Err(Refused::too_large(&self.settings));
        }
        let all = self.settings.total_files;
        if !self.file_share.grow(bytes, all, part(all, &self.settings)) {
            return Err(match self.file_share.client_full {
                true => Refused::no_share(),
                false => Refused::no_files(&self.settings),
            });
        }
        let memory = Arc::new(std::mem::take(&mut self.memory));
        let (file, at) = (self.file.clone(), self.in_file);
        let (directory, data) = (self.settings.directory.clone(), memory.clone());
        let written = tokio::task::spawn_blocking(move || write(file, &directory, &data, at));
        let written = written.await.map_err(io::Error::other).flatten();
        // Nobody else holds it any more, whatever became of the thread.
        self.memory = Arc::unwrap_or_clone(memory);
        match written {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                self.file_share.shrink_to(at);
                return Err(Refused::error(&self.settings, &error));
            }
        }
        self.in_file += bytes;
        self.memory.clear();
        if self.memory_share.bytes as usize > WRITE {
            self.memory = Vec::with_capacity(WRITE);
            self.memory_share.shrink_to(WRITE as u64);
        }
        Ok(())
    }

    /// The next bytes of the file from `at` on, in a buffer that was used before.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn read(&self, at: u64, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let Some(file) = self.file.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        let length = (self.in_file - at).min(PIECE as u64) as usize;
        let read = tokio::task::spawn_blocking(move || {
            buffer.resize(length, 0);
            file.read_exact_at(&mut buffer, at).map(|()| buffer)
        });
        read.await.map_err(io::Error::other)?
    }
}

/// What one client may hold of it.
fn part(all: u64, settings: &config::Spool) -> u64 {
    (all as f64 * settings.client_share) as u64
}

/// Writes at a place of the file, which is made if there is none.
fn write(file: Option<Arc<File>>, directory: &Path, data: &[u8], at: u64) -> io::Result<Arc<File>> {
    let file = match file {
        Some(file) => file,
        None => Arc::new(unnamed(directory)?),
    };
    file.write_all_at(data, at)?;
    Ok(file)
}

/// A file that nobody else can find or read: made without a name where the file system can do that.
fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).or_else(|_| tempfile::tempfile_in(directory))
}

#[cfg(test)]
mod tests;
