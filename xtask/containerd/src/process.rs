//! Processes by identity: a pid with the time of its start, or the very file that is executed.
//! Names mean nothing: others may run a containerd too.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const LOOK: Duration = Duration::from_millis(10);

/// A process, told apart from any other that ever has its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// When it was started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl Identity {
    /// The living process with this pid. A zombie is dead.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // PID (NAME) STATE ... and the name may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        // Field 22 of all is the 19th after the state.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start_ticks })
    }

    /// As [`Self::read`] understands it.
    #[must_use]
    pub fn written(self) -> String {
        format!("{} {}\n", self.pid, self.start_ticks)
    }

    /// What was written to a file, if it is there and whole.
    #[must_use]
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, start_ticks) = text.trim().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            start_ticks: start_ticks.parse().ok()?,
        })
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, unless it is dead.
    pub fn signal(self, signal: Signal) {
        // Held before the look: from then on the pid cannot come to mean another process.
        if let Some(held) = hold(self.pid)
            && self.is_alive()
        {
            let _may_be_dead = pidfd_send_signal(held, signal);
        }
    }

    /// Waits for its death and answers whether it came in time.
    #[must_use]
    pub fn is_dead_within(self, deadline: Duration) -> bool {
        let begun = Instant::now();
        while self.is_alive() {
            if begun.elapsed() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Every living process that executes a file below `directory`, even one that was removed.
#[must_use]
pub fn executing_below(directory: &Path) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| executable(*pid).is_some_and(|file| file.starts_with(directory)))
        .filter_map(Identity::of)
        .collect()
}

fn executable(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.is_alive());
        let another = Identity {
            start_ticks: identity.start_ticks + 1,
            ..identity
        };
        another.signal(Signal::KILL);
        assert!(identity.is_alive() && !another.is_alive());
        identity.signal(Signal::KILL);
        // Nobody has waited for it: it is a zombie, which is dead.
        assert!(identity.is_dead_within(Duration::from_secs(20)));
        child.wait().unwrap();
    }

    #[test]
    fn what_was_written_is_read() {
        let own = Identity::of(std::process::id()).unwrap();
        let file = std::env::temp_dir().join(format!("taskwright-identity-{}", own.pid));
        fs::write(&file, own.written()).unwrap();
        assert_eq!(Identity::read(&file), Some(own));
        fs::write(&file, "17").unwrap();
        assert_eq!(Identity::read(&file), None);
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn this_process_executes_its_own_file() {
        let own = std::env::current_exe().unwrap();
        let found = executing_below(own.parent().unwrap());
        assert!(found.iter().any(|one| one.pid == std::process::id()));
    }
}
