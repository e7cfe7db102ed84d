//! The unsafe blocks behind this crate's safe functions, each with its argument.
//!
//! Nothing here decides anything: plain values in, plain values out. The rest
//! of the crate wraps these in types that cannot be misused.
//!
//! | file | about |
//! |---|---|
//! | `clone` | a new process on a stack of its own |
//! | `child` | what it does until it executes its program |
//! | `confine` | the part of that which gives rights away |
//! | `mount` | views of files that cannot be written through |

#![expect(
    unsafe_code,
    reason = "the place for calls that no safe crate offers: clone with a stack of its own, \
              waitid with every field, fork, mounts without a path, and the pidfd ioctl"
)]

mod child;
mod clone;
mod confine;
mod mount;

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

pub(crate) use child::{
    ChildPlan, EnterPlan, Failure, IsolationPlan, LimitPlan, STEP_CAPABILITIES, STEP_CLOSE,
    STEP_CREDENTIALS, STEP_DUMPABLE, STEP_ENTER, STEP_EXEC, STEP_GROUP, STEP_LIMIT,
    STEP_NO_NEW_PRIVILEGES, STEP_READ_ONLY, STEP_READY, STEP_ROOT, STEP_SESSION, STEP_WORKING_DIR,
};
pub(crate) use clone::{ChildStack, Memory, clone_child, clone3_child};
pub(crate) use confine::{CapabilityPlan, CredentialsPlan, IdsPlan};
pub(crate) use mount::read_only_view;

/// What `waitid` filled in: pid, `si_code`, `si_status`.
pub(crate) struct WaitInfo {
    pub(crate) pid: i32,
    pub(crate) code: c_int,
    pub(crate) status: c_int,
}

/// One `waitid`; `None` when it was asked not to hang and nothing has ended.
pub(crate) fn waitid(
    kind: libc::idtype_t,
    id: u32,
    options: c_int,
) -> io::Result<Option<WaitInfo>> {
    loop {
        // SAFETY: siginfo_t is plain data for which all zeros is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a siginfo_t of ours to write to.
        if unsafe { libc::waitid(kind, id, &raw mut info, options) } == 0 {
            // SAFETY: waitid fills the SIGCHLD fields, or leaves all zero when nothing ended.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            let code = info.si_code;
            return Ok((pid != 0).then_some(WaitInfo { pid, code, status }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The kernel's `struct pidfd_info`, first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `_IOWR(0xFF, 11, struct pidfd_info)`
const PIDFD_GET_INFO: c_long = 0xC040_FF0B;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// The wait status of a process that ended and was reaped, whoever's child it was.
/// `None` while it is not reaped; an error where the kernel cannot tell (before 6.15).
pub(crate) fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request's size is that of `info`, which is ours to write to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            pidfd.as_raw_fd(),
            PIDFD_GET_INFO,
            ptr::from_mut(&mut info),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Sends any signal, also a real-time one, to the process behind `pidfd`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: plain values, and a null pointer where the call takes no signal info.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `fork`, for a process that has checked that it has a single thread.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller has a single thread, so no lock is held by a thread that the child
    // does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}
