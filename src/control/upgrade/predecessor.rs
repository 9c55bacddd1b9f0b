//! The process that was upgraded, for as long as it finishes its work: what it does at nodes is counted there.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// An old process, held so that its number is nobody else's.
pub(in crate::control) struct Predecessor {
    pid: u32,
    process: OwnedFd,
}

impl Predecessor {
    /// None if it has ended; or if the kernel is older than 5.3, which cannot tell.
    pub(super) fn of(pid: u32) -> Option<Predecessor> {
        let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
        Some(Predecessor { pid, process }).filter(Predecessor::works)
    }

    /// Whether it has not ended.
    pub(super) fn works(&self) -> bool {
        let mut end = [PollFd::new(&self.process, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // In doubt it does: whoever waits has a time-out.
        poll(&mut end, Some(&now)) != Ok(1)
    }

    /// Its number.
    pub(in crate::control) fn pid(&self) -> u32 {
        self.pid
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_works_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let old = Predecessor::of(child.id()).unwrap();
        assert!(old.works());
        drop(child.stdin.take());
        // Whether or not its parent has taken note.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while old.works() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!old.works());
        child.wait().unwrap();
        assert!(Predecessor::of(0).is_none());
    }
}
