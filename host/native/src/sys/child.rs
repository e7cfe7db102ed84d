//! What a new process does until it executes its program: system calls on what was prepared.
//!
//! It runs in its parent's memory or in a copy of it, and both hold locks of threads that it does
//! not have: no allocation, no lock, no panic, no return.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

use super::confine::{CredentialsPlan, make_read_only, take_credentials};

/// Everything the child needs, prepared before it exists: it may not allocate.
///
/// A child that shares our memory runs while we are suspended, so it also answers here.
#[repr(C)]
pub(crate) struct ChildPlan {
    pub(crate) candidates: *const *const c_char,
    pub(crate) argv: *const *const c_char,
    /// `/bin/sh`, room for the script's path, then the arguments after the program.
    pub(crate) script_argv: *mut *const c_char,
    pub(crate) env: *const *const c_char,
    pub(crate) working_dir: *const c_char,
    pub(crate) stdio: [c_int; 3],
    pub(crate) joins: *const c_int,
    pub(crate) join_count: usize,
    pub(crate) open_files: Option<libc::rlimit>,
    pub(crate) limits: *const LimitPlan,
    pub(crate) limit_count: usize,
    pub(crate) no_new_privileges: bool,
    /// What to write to `oom_score_adj`, or null.
    pub(crate) oom_score: *const c_char,
    pub(crate) oom_score_length: usize,
    /// The signals to set back to their defaults, as bits from signal 1 on.
    pub(crate) signals: u64,
    /// Where a child with memory of its own writes a [`Failure`], or [`STEP_READY`] right before
    /// its program. Above 3, or -1.
    pub(crate) status: c_int,
    /// Null, or what only a child with memory of its own does.
    pub(crate) isolation: *const IsolationPlan,
    /// The child's answer, if it shares our memory.
    pub(crate) failure: Failure,
}

/// Which step failed (0: none), with which errno, at which of several things.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: u32,
    pub(crate) errno: c_int,
    pub(crate) index: u32,
}

/// A resource limit that the child must have.
#[repr(C)]
pub(crate) struct LimitPlan {
    pub(crate) resource: c_uint,
    pub(crate) limit: libc::rlimit,
}

/// What only a child with memory of its own does.
#[repr(C)]
pub(crate) struct IsolationPlan {
    pub(crate) enter: Option<EnterPlan>,
    /// Absolute paths, ended by null.
    pub(crate) read_only: *const *const c_char,
    pub(crate) credentials: *const CredentialsPlan,
}

/// Another process's namespaces and root directory.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EnterPlan {
    pub(crate) pidfd: c_int,
    /// `CLONE_NEW*`; 0 where all are our own already.
    pub(crate) namespaces: c_int,
    pub(crate) root: c_int,
}

pub(crate) const STEP_SESSION: u32 = 1;
pub(crate) const STEP_GROUP: u32 = 2;
pub(crate) const STEP_STDIO: u32 = 3;
pub(crate) const STEP_WORKING_DIR: u32 = 4;
pub(crate) const STEP_EXEC: u32 = 5;
pub(crate) const STEP_DUMPABLE: u32 = 6;
pub(crate) const STEP_ENTER: u32 = 7;
pub(crate) const STEP_ROOT: u32 = 8;
pub(crate) const STEP_CLOSE: u32 = 9;
pub(crate) const STEP_LIMIT: u32 = 10;
pub(crate) const STEP_READ_ONLY: u32 = 11;
pub(crate) const STEP_CREDENTIALS: u32 = 12;
pub(crate) const STEP_CAPABILITIES: u32 = 13;
pub(crate) const STEP_NO_NEW_PRIVILEGES: u32 = 14;
/// No failure: everything is done but the program.
pub(crate) const STEP_READY: u32 = 100;

/// Where the status socket is put, so that everything above it can be closed at once.
const STATUS: c_int = 3;

/// The child's whole life up to its program.
pub(super) extern "C" fn child_main(plan: *mut c_void) -> ! {
    let plan = plan.cast::<ChildPlan>();
    // SAFETY: the suspended parent keeps `plan` and all it points to alive and does not touch
    // it, or all of it is this process's copy; every array it points to ends with a null pointer.
    unsafe {
        let failure = prepare_and_execute(plan);
        (*plan).failure = failure;
        tell((*plan).status, failure);
        libc::syscall(libc::SYS_exit_group, 127);
    }
    loop {
        std::hint::spin_loop();
    }
}

fn failed(step: u32) -> Failure {
    failed_at(step, 0)
}

pub(super) fn failed_at(step: u32, index: u32) -> Failure {
    Failure {
        step,
        errno: last_errno(),
        index,
    }
}

/// Writes to the status socket, if there is one. Without a signal where nobody reads any more: a
/// child whose parent died goes on to its program as every other.
fn tell(status: c_int, failure: Failure) {
    if status < 0 {
        return;
    }
    // SAFETY: one system call that reads a plain value of ours.
    unsafe {
        libc::syscall(
            libc::SYS_sendto,
            status,
            ptr::from_ref(&failure),
            size_of::<Failure>(),
            libc::MSG_NOSIGNAL,
            ptr::null::<c_void>(),
            0_usize,
        );
    }
}

/// # Safety
/// Only for [`child_main`], with a plan that nobody else uses.
unsafe fn prepare_and_execute(plan: *mut ChildPlan) -> Failure {
    // SAFETY: all pointers are of the plan, which the caller vouches for; each call is one
    // system call that takes plain values or reads prepared memory.
    unsafe {
        let isolation = (*plan).isolation.as_ref();
        // The parent is not dumpable while it clones, so there was no moment before this one.
        if isolation.is_some() && libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0) < 0 {
            return failed(STEP_DUMPABLE);
        }
        if libc::syscall(libc::SYS_setsid) < 0 {
            return failed(STEP_SESSION);
        }
        let mut index = 0;
        while index < (*plan).join_count {
            let group = *(*plan).joins.add(index);
            if libc::syscall(libc::SYS_write, group, c"0".as_ptr(), 1_usize) != 1 {
                return failed_at(STEP_GROUP, index as u32);
            }
            index += 1;
        }
        if !(*plan).oom_score.is_null() {
            restore_oom_score((*plan).oom_score, (*plan).oom_score_length);
        }
        if let Some(isolation) = isolation
            && let Err(failure) = change_namespaces(isolation)
        {
            return failure;
        }
        let [stdin, stdout, stderr] = (*plan).stdio;
        if libc::syscall(libc::SYS_dup3, stdin, 0, 0) < 0
            || libc::syscall(libc::SYS_dup3, stdout, 1, 0) < 0
            || libc::syscall(libc::SYS_dup3, stderr, 2, 0) < 0
        {
            return failed(STEP_STDIO);
        }
        let mut first_closed = 3_u32;
        if isolation.is_some() {
            if libc::syscall(libc::SYS_dup3, (*plan).status, STATUS, libc::O_CLOEXEC) < 0 {
                return failed(STEP_STDIO);
            }
            (*plan).status = STATUS;
            first_closed = 4;
        }
        // Everything of ours is close-on-exec already; where the call is unknown that is enough
        // for a program, but not for one that could be looked into before.
        let closed = libc::syscall(libc::SYS_close_range, first_closed, u32::MAX, 0_u32);
        if closed < 0 && isolation.is_some() {
            return failed(STEP_CLOSE);
        }
        if let Some(limit) = &(*plan).open_files {
            set_limit(libc::RLIMIT_NOFILE, limit);
        }
        let mut index = 0;
        while index < (*plan).limit_count {
            let wanted = &*(*plan).limits.add(index);
            if set_limit(wanted.resource, &wanted.limit) < 0 {
                return failed_at(STEP_LIMIT, index as u32);
            }
            index += 1;
        }
        if let Some(isolation) = isolation {
            if let Err(failure) = make_read_only(isolation.read_only) {
                return failure;
            }
            if let Some(credentials) = isolation.credentials.as_ref()
                && let Err(failure) = take_credentials(credentials)
            {
                return failure;
            }
        }
        if (*plan).no_new_privileges
            && libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
        {
            return failed(STEP_NO_NEW_PRIVILEGES);
        }
        // After the credentials: where it may not go it does not start.
        if libc::syscall(libc::SYS_chdir, (*plan).working_dir) < 0 {
            return failed(STEP_WORKING_DIR);
        }
        default_signals((*plan).signals);
        if isolation.is_some() {
            let ready = Failure {
                step: STEP_READY,
                ..Failure::default()
            };
            tell((*plan).status, ready);
        }
        let errno = execute(plan);
        Failure {
            step: STEP_EXEC,
            errno,
            index: 0,
        }
    }
}

/// # Safety
/// Only in the child.
unsafe fn set_limit(resource: c_uint, limit: &libc::rlimit) -> libc::c_long {
    // SAFETY: reads one plain value, writes nothing.
    unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            ptr::from_ref(limit),
            ptr::null::<libc::rlimit>(),
        )
    }
}

/// Enters the other process's namespaces and root, and a mount namespace of its own if paths are
/// to be read-only.
///
/// # Safety
/// Only in the child, with descriptors and pointers that are valid there.
unsafe fn change_namespaces(isolation: &IsolationPlan) -> Result<(), Failure> {
    // SAFETY: system calls on plain values and constant texts.
    unsafe {
        let own_mounts = !(*isolation.read_only).is_null();
        if let Some(enter) = isolation.enter {
            if enter.namespaces & libc::CLONE_NEWUSER != 0
                // Our own groups mean something else in there, and may not be given up there.
                && libc::syscall(libc::SYS_setgroups, 0_usize, ptr::null::<u32>()) < 0
            {
                return Err(failed(STEP_CREDENTIALS));
            }
            if enter.namespaces != 0
                && libc::syscall(libc::SYS_setns, enter.pidfd, enter.namespaces) < 0
            {
                return Err(failed(STEP_ENTER));
            }
            if libc::syscall(libc::SYS_fchdir, enter.root) < 0 {
                return Err(failed(STEP_ROOT));
            }
        }
        if own_mounts {
            // Copies the mounts; root and working directory move to their copies. The root is
            // still that of the namespace here, which is a mount: only of those the propagation
            // can be changed. Nothing that is mounted here may appear there.
            let alone = libc::MS_REC | libc::MS_SLAVE;
            let none = ptr::null::<c_char>();
            if libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS) < 0
                || libc::syscall(libc::SYS_mount, none, c"/".as_ptr(), none, alone, none) < 0
            {
                return Err(failed_at(STEP_READ_ONLY, u32::MAX));
            }
        }
        if isolation.enter.is_some() && libc::syscall(libc::SYS_chroot, c".".as_ptr()) < 0 {
            return Err(failed(STEP_ROOT));
        }
    }
    Ok(())
}

/// A task must not inherit our protection from the out-of-memory killer. Best effort: raising
/// is always permitted.
///
/// # Safety
/// Only in the child, with `length` readable bytes at `text`.
unsafe fn restore_oom_score(text: *const c_char, length: usize) {
    // SAFETY: plain system calls on a constant path and the bytes the caller vouches for.
    unsafe {
        let file = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if file >= 0 {
            libc::syscall(libc::SYS_write, file, text, length);
            libc::syscall(libc::SYS_close, file);
        }
    }
}

/// The kernel's `struct sigaction`, all zero: the default action, no flags, empty mask.
#[repr(C)]
struct KernelSigaction {
    words: [u64; 4],
}

/// # Safety
/// Only in the child: handlers of the parent are a copy there.
unsafe fn default_signals(signals: u64) {
    const MASK_BYTES: usize = 8;
    let default = KernelSigaction { words: [0; 4] };
    let nothing_blocked: u64 = 0;
    // SAFETY: both calls read the values above and write nothing.
    unsafe {
        let mut left = signals;
        while left != 0 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                left.trailing_zeros() + 1,
                ptr::from_ref(&default),
                ptr::null::<KernelSigaction>(),
                MASK_BYTES,
            );
            left &= left - 1;
        }
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(&nothing_blocked),
            ptr::null::<u64>(),
            MASK_BYTES,
        );
    }
}

/// Tries each candidate as execvp does; returns the errno that tells most.
///
/// # Safety
/// Only for [`child_main`], with a plan that nobody else uses.
unsafe fn execute(plan: *mut ChildPlan) -> c_int {
    // SAFETY: `candidates` ends with null, `script_argv` has room at index 1, the rest is
    // read by execve alone.
    unsafe {
        let mut refused = 0;
        let mut errno = libc::ENOENT;
        let mut candidate = (*plan).candidates;
        while !(*candidate).is_null() {
            let path = *candidate;
            libc::syscall(libc::SYS_execve, path, (*plan).argv, (*plan).env);
            errno = last_errno();
            match errno {
                libc::ENOEXEC => {
                    *(*plan).script_argv.add(1) = path;
                    let shell = *(*plan).script_argv;
                    libc::syscall(libc::SYS_execve, shell, (*plan).script_argv, (*plan).env);
                    return libc::ENOEXEC;
                }
                libc::EACCES => refused = errno,
                libc::ENOENT
                | libc::ENOTDIR
                | libc::ESTALE
                | libc::ENODEV
                | libc::ETIMEDOUT
                | libc::ELOOP
                | libc::ENAMETOOLONG => {}
                _ => return errno,
            }
            candidate = candidate.add(1);
        }
        if refused == 0 { errno } else { refused }
    }
}

pub(super) fn last_errno() -> c_int {
    // SAFETY: the address of this thread's errno is valid for its whole life. In the child it is
    // the suspended parent's, which has no call in flight that reads it.
    unsafe { *libc::__errno_location() }
}
