//! The old process's side: starts the new one, hands over, and waits until it serves.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::VARIABLE;
use super::channel::Channel;
use super::message::{Offer, Word};
use super::tunnels::Line;

/// Between the end of its line and the end of the process lie microseconds.
const END_WITHIN: Duration = Duration::from_secs(2);
/// While that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A new process that serves, and waits for the word that it is the one who does.
pub(super) struct Successor {
    child: Child,
    channel: Channel,
}

/// Starts `program` with this process's own arguments, offers it everything, and returns when it serves.
///
/// # Errors
/// Why it does not, in its own words where it has any. It has ended then.
pub(super) fn start(
    program: &Path,
    offer: &Offer,
    sockets: &[OwnedFd],
    within: Duration,
) -> Result<Successor, String> {
    let failed = |error: io::Error| format!("{} cannot be started: {error}", program.display());
    let (mut channel, theirs) = Channel::pair().map_err(failed)?;
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "stdin")
        .stdin(theirs)
        .spawn()
        .map_err(failed)?;
    channel.within(within);
    let mut successor = Successor { child, channel };
    match successor.converse(offer, sockets) {
        Ok(()) => Ok(successor),
        Err(error) => Err(successor.give_up(error, within)),
    }
}

/// Why a conversation ended too early.
enum Early {
    /// The new process said why.
    Told(String),
    /// The line broke, or it said nothing in time.
    Broken(io::Error),
}

impl Successor {
    fn converse(&mut self, offer: &Offer, sockets: &[OwnedFd]) -> Result<(), Early> {
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let sent = self.channel.send(offer).and_then(|()| self.channel.send_descriptors(&sockets));
        // One that has ended may have said why before.
        let word = match self.channel.receive() {
            Err(error) => return Err(Early::Broken(sent.err().unwrap_or(error))),
            Ok(text) => serde_json::from_slice(&text).map_err(|e| Early::Broken(e.into()))?,
        };
        match word {
            Word::Ready => Ok(()),
            Word::Failed(why) => Err(Early::Told(why)),
            Word::Go => Err(Early::Broken(io::Error::other("it speaks out of turn"))),
        }
    }

    /// Ends it, and says what went wrong.
    fn give_up(mut self, error: Early, within: Duration) -> String {
        let late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        match error {
            Early::Told(why) => {
                self.end();
                why
            }
            Early::Broken(error) if late(&error) => {
                self.dismiss();
                let seconds = within.as_secs_f64();
                format!("the new process was not ready within {seconds} s (`upgrade_timeout`)")
            }
            Early::Broken(error) => match self.end() {
                Some(status) => format!(
                    "the new process ended before it was ready ({status}); the log has what it said"
                ),
                None => format!("the new process cannot be understood: {error}"),
            },
        }
    }

    /// Waits a moment for its end, then ends it. How it ended, if by itself.
    fn end(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < END_WITHIN {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Err(_) => break,
            }
        }
        // One that has ended meanwhile cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }

    /// The new process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it that it is the one who serves.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn go(mut self) -> Result<Line, String> {
        match self.channel.send(&Word::Go) {
            Err(error) => Err(self.give_up(Early::Broken(error), Duration::ZERO)),
            Ok(()) => {
                watch(self.child);
                Ok(Line::new(self.channel))
            }
        }
    }

    /// Ends it at once.
    pub(super) fn dismiss(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It has this process as its parent, which must take note of its end.
fn watch(mut child: Child) {
    let wait = move || {
        if let Ok(status) = child.wait() {
            tracing::error!("the process that took over has ended ({status})");
        }
    };
    // Without a thread it is only not told.
    let _ = std::thread::Builder::new().name("successor".into()).spawn(wait);
}

/// The program as it is on disk now: under the name by which this process was started, which a package or a
/// symbolic link may have given to a newer one; else where this process's own file was.
///
/// # Errors
/// There is none any more.
pub(super) fn program() -> io::Result<PathBuf> {
    let called = std::env::args_os().next();
    find(called, std::fs::read_link("/proc/self/exe"), Path::is_file)
}

fn find(
    called: Option<OsString>,
    own: io::Result<PathBuf>,
    is_file: impl Fn(&Path) -> bool,
) -> io::Result<PathBuf> {
    // A name without a directory was found by a shell's path, which may be another now.
    let called = called.map(PathBuf::from).filter(|path| path.components().count() > 1);
    if let Some(called) = called.filter(|path| is_file(path)) {
        return Ok(called);
    }
    let own = own?;
    if is_file(&own) {
        return Ok(own);
    }
    // How the kernel names a file that was replaced.
    let text = own.to_string_lossy();
    let before = text.strip_suffix(" (deleted)").map(PathBuf::from);
    before.filter(|path| is_file(path)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no program at {text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(called: &str, own: &str, there: &[&str]) -> Option<String> {
        let is_file = |path: &Path| there.iter().any(|one| path == Path::new(one));
        let path = find(Some(called.into()), Ok(own.into()), is_file).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    #[test]
    fn the_newest_program_of_the_same_name_is_found() {
        let cases: [(&str, &str, &[&str], Option<&str>); 7] = [
            ("/bin/c", "/bin/c", &["/bin/c"], Some("/bin/c")),
            // A link to the newest version, and the version that runs.
            ("/opt/now/c", "/opt/1/c", &["/opt/now/c", "/opt/1/c"], Some("/opt/now/c")),
            ("./c", "/work/c", &["./c", "/work/c"], Some("./c")),
            // Found by a shell, and replaced since.
            ("c", "/bin/c (deleted)", &["c", "/bin/c"], Some("/bin/c")),
            ("/gone/c", "/bin/c", &["/bin/c"], Some("/bin/c")),
            ("c", "/odd (deleted)", &["/odd (deleted)", "/odd"], Some("/odd (deleted)")),
            ("c", "/bin/c (deleted)", &[], None),
        ];
        for (called, own, there, expected) in cases {
            assert_eq!(found(called, own, there).as_deref(), expected, "{called} {own}");
        }
    }
}
