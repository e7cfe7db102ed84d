//! How a process ended: asked as often as one likes, taken away once.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::sys;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Reads a status as `waitpid(2)` and the kernel's records have it.
    #[must_use]
    pub fn from_wait_status(status: i32) -> Self {
        let signal = status & 0x7f;
        if signal == 0 {
            Self::Code(u8::try_from((status >> 8) & 0xff).unwrap_or(u8::MAX))
        } else {
            Self::Signal(signal)
        }
    }

    fn from_info(code: i32, status: i32) -> Self {
        if code == libc::CLD_EXITED {
            Self::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX))
        } else {
            Self::Signal(status)
        }
    }
}

/// A child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Its process id; it stays taken until the child is reaped.
    pub pid: i32,
    /// How it ended.
    pub exit: Exit,
}

fn wait(kind: libc::idtype_t, id: u32, options: i32) -> io::Result<Option<Waited>> {
    let info = sys::waitid(kind, id, options | libc::WEXITED | libc::WNOHANG)?;
    Ok(info.map(|info| Waited {
        pid: info.pid,
        exit: Exit::from_info(info.code, info.status),
    }))
}

fn fd_id(pidfd: &impl AsFd) -> u32 {
    pidfd.as_fd().as_raw_fd().cast_unsigned()
}

/// How our child behind `pidfd` ended, leaving it a zombie; `None` while it runs.
///
/// # Errors
/// `ECHILD` when it is not (or no longer) our child.
pub fn peek(pidfd: &impl AsFd) -> io::Result<Option<Waited>> {
    wait(libc::P_PIDFD, fd_id(pidfd), libc::WNOWAIT)
}

/// As [`peek`], and takes the zombie away.
///
/// # Errors
/// `ECHILD` when it is not (or no longer) our child.
pub fn reap(pidfd: &impl AsFd) -> io::Result<Option<Waited>> {
    wait(libc::P_PIDFD, fd_id(pidfd), 0)
}

/// As [`reap`], and waits for the end if need be; `None` when it still runs after `at_most`.
///
/// # Errors
/// `ECHILD` when it is not (or no longer) our child.
pub fn reap_within(pidfd: &impl AsFd, at_most: Duration) -> io::Result<Option<Waited>> {
    let timeout = Timespec::try_from(at_most).ok();
    let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
    match rustix::event::poll(&mut watched, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => reap(pidfd),
        Err(error) => Err(error.into()),
    }
}

/// Any child of ours that ended, left a zombie. The same one until it is reaped.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub fn peek_any() -> io::Result<Option<Waited>> {
    wait(libc::P_ALL, 0, libc::WNOWAIT)
}

/// How our child `pid` ended, leaving it a zombie; `None` while it runs.
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn peek_pid(pid: i32) -> io::Result<Option<Waited>> {
    wait(libc::P_PID, pid.cast_unsigned(), libc::WNOWAIT)
}

/// As [`peek_pid`], and takes the zombie away.
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn reap_pid(pid: i32) -> io::Result<Option<Waited>> {
    wait(libc::P_PID, pid.cast_unsigned(), 0)
}

/// What can be learned of a process that is not our child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It ended, so.
    Ended(Exit),
    /// It is not reaped yet; the kernel tells afterwards.
    NotYet,
    /// This kernel does not tell (before 6.15).
    Untold,
}

/// How the process behind `pidfd` ended, whoever's child it was.
#[must_use]
pub fn foreign(pidfd: &impl AsFd) -> Foreign {
    match sys::pidfd_exit_status(pidfd.as_fd()) {
        Ok(Some(status)) => Foreign::Ended(Exit::from_wait_status(status)),
        Ok(None) => Foreign::NotYet,
        Err(_) => Foreign::Untold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_read_as_the_kernel_writes_them() {
        assert_eq!(Exit::from_wait_status(0), Exit::Code(0));
        assert_eq!(Exit::from_wait_status(255 << 8), Exit::Code(255));
        assert_eq!(Exit::from_wait_status(9), Exit::Signal(9));
        assert_eq!(Exit::from_wait_status(11 | 0x80), Exit::Signal(11));
    }
}
