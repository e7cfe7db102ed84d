//! Facts of `/proc`. A process is its pid *and* its start time, never a pid alone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags};

use crate::sys;

/// What `/proc/PID/stat` says, as far as anybody here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z` and so on.
    pub state: u8,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Whether the kernel is ending it, or has.
    pub is_exiting: bool,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its wait status once it is a zombie; 0 for readers that may not know.
    pub wait_status: i32,
}

impl Stat {
    /// Whether it has ended and only waits to be reaped.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Whether it will never run a program's instruction again. The first process of a PID
    /// namespace is that long before it is a zombie: it ends all others in there first, and waits
    /// until each of them was reaped.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_exiting || self.is_zombie()
    }
}

/// `PF_EXITING` of the kernel's `include/linux/sched.h`, in the flags of proc_pid_stat(5).
const EXITING: u64 = 0x4;

/// Reads the facts of `pid`.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn stat(pid: i32) -> io::Result<Stat> {
    // One read into a buffer that is always large enough: a name has at most 64 bytes, and each
    // of the 51 other fields at most 20 digits.
    let mut line = [0; 2048];
    let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut line)?;
    parse_stat(line.get(..length).unwrap_or_default())
        .ok_or_else(|| io::Error::other("unreadable process status"))
}

/// The name in parentheses may hold anything, so fields are counted after the last `)`.
pub(crate) fn parse_stat(line: &[u8]) -> Option<Stat> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    // Fields 9 and 22 of the line; `state` was field 3.
    let flags: u64 = fields.nth(2)?.parse().ok()?;
    let start_ticks = fields.nth(12)?.parse().ok()?;
    // Field 52, the last one.
    let wait_status = fields
        .nth(29)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Some(Stat {
        state,
        parent,
        group,
        session,
        is_exiting: flags & EXITING != 0,
        start_ticks,
        wait_status,
    })
}

/// Opens `pid` if it still is the process that started at `start_ticks`; a zombie counts.
#[must_use]
pub fn open_if_same(pid: i32, start_ticks: u64) -> Option<OwnedFd> {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Checked after the opening: from here on the descriptor cannot change its mind.
    (stat(pid).ok()?.start_ticks == start_ticks).then_some(pidfd)
}

/// Sends a signal to exactly the process behind `pidfd`.
///
/// # Errors
/// `ESRCH` when it has ended; `EINVAL` for a number that is no signal.
pub fn signal(pidfd: &impl AsFd, number: i32) -> io::Result<()> {
    if !(1..=64).contains(&number) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    sys::pidfd_send_signal(pidfd.as_fd(), number)
}

/// Whether a look failed because there is no descriptor or memory for it. It says nothing of the
/// process that was looked at; every other failure says that it is gone or another user's.
#[must_use]
pub fn is_no_room(error: &io::Error) -> bool {
    let no_room = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|errno| no_room.contains(&errno))
}

/// Every process id there is now.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

/// Whether the environment `pid` was started with has the line `NAME=VALUE`. That of a process
/// that is gone or another user's has not.
///
/// # Errors
/// When there is no room for the look, see [`is_no_room`].
pub fn has_environment(pid: i32, line: &str) -> io::Result<bool> {
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(env) => Ok(env
            .split(|byte| *byte == 0)
            .any(|one| one == line.as_bytes())),
        Err(error) if is_no_room(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

/// The arguments `pid` was started with, each ended by NUL; empty for a zombie. Between fork and
/// exec a child has those of its parent.
///
/// # Errors
/// When there is no such process.
pub fn command_line(pid: i32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline"))
}

/// This boot of the machine: process ids and start times mean nothing in another.
#[must_use]
pub fn boot_id() -> u128 {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_fields() {
        let mut line = b"42 (a ) b) Z 7 8 9 0 -1 4194308 2 3 4 5 6 7 8 9 10 11 12 13 4711".to_vec();
        for field in 23..52 {
            line.extend_from_slice(format!(" {field}").as_bytes());
        }
        line.extend_from_slice(b" 1792\n");
        let expected = Stat {
            state: b'Z',
            parent: 7,
            group: 8,
            session: 9,
            is_exiting: true,
            start_ticks: 4711,
            wait_status: 1792,
        };
        assert_eq!(parse_stat(&line), Some(expected));
    }

    #[test]
    fn this_process_is_found_by_pid_and_start_time_only() {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let ticks = stat(pid).map(|stat| stat.start_ticks).unwrap_or(0);
        assert!(open_if_same(pid, ticks).is_some());
        assert!(open_if_same(pid, ticks + 1).is_none());
    }
}
