//! The unsafe blocks behind this crate's safe functions, each with its argument.
//!
//! Nothing here decides anything: plain values in, plain values out. The rest
//! of the crate wraps these in types that cannot be misused.

#![expect(
    unsafe_code,
    reason = "the place for calls that no safe crate offers: clone with a stack of its own, \
              waitid with every field, fork, and the pidfd ioctl"
)]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Everything the child needs, prepared before it exists: it may not allocate.
///
/// The child runs in our memory while we are suspended, so it also answers here.
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
    /// What to write to `oom_score_adj`, or null.
    pub(crate) oom_score: *const c_char,
    pub(crate) oom_score_length: usize,
    /// The signals to set back to their defaults, as bits from signal 1 on.
    pub(crate) signals: u64,
    /// The child's answer: which step failed (0: none), with which errno.
    pub(crate) failed_step: u32,
    pub(crate) errno: c_int,
}

pub(crate) const STEP_SESSION: u32 = 1;
pub(crate) const STEP_GROUP: u32 = 2;
pub(crate) const STEP_STDIO: u32 = 3;
pub(crate) const STEP_WORKING_DIR: u32 = 4;
pub(crate) const STEP_EXEC: u32 = 5;

/// A stack for the child, with a page below it that faults instead of corrupting ours.
pub(crate) struct ChildStack {
    base: *mut c_void,
}

const STACK_BYTES: usize = 64 * 1024;
const GUARD_BYTES: usize = 64 * 1024;

impl ChildStack {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches
        // nothing that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES + GUARD_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the range is the lower part of the mapping made above, which nobody uses yet.
        if unsafe { libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; a child on it has executed or ended,
        // because CLONE_VFORK suspended us until then.
        unsafe { libc::munmap(self.base, STACK_BYTES + GUARD_BYTES) };
    }
}

/// The kernel's `struct clone_args`, second published size (with `cgroup`).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Handlers become defaults in the child; what is ignored stays ignored.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const BASE_FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// Starts a child that runs [`child_main`] with `plan`; returns when it has executed or ended.
///
/// The caller has blocked all signals, so no handler of ours runs in the child.
pub(crate) fn clone3_child(
    plan: &mut ChildPlan,
    stack: &mut ChildStack,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: c_int = -1;
    let mut flags = u64::from(BASE_FLAGS.cast_unsigned()) | CLONE_CLEAR_SIGHAND;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let mut args = CloneArgs {
        flags,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: (stack.base as u64) + GUARD_BYTES as u64,
        stack_size: STACK_BYTES as u64,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the given size whose pidfd and stack are ours.
    // The stack is unused (we hold it mutably), and with CLONE_VFORK we do not run again until
    // the child stopped using it, `plan` and our memory. The child calls `child_main`, which
    // never returns.
    let result = unsafe {
        raw_clone3(
            ptr::from_mut(&mut args),
            size_of::<CloneArgs>(),
            child_main,
            ptr::from_mut(plan).cast(),
        )
    };
    finish_clone(result, pidfd)
}

/// [`clone3_child`] for kernels without clone3 and sandboxes that refuse it.
pub(crate) fn clone_child(
    plan: &mut ChildPlan,
    stack: &mut ChildStack,
) -> io::Result<(i32, OwnedFd)> {
    extern "C" fn entry(plan: *mut c_void) -> c_int {
        child_main(plan)
    }
    // Without CLONE_CLEAR_SIGHAND the child sets every handler back itself.
    plan.signals = u64::MAX;
    let mut pidfd: c_int = -1;
    // SAFETY: one past the end of the mapping that `stack` owns: where a stack that grows down
    // begins.
    let top = unsafe { stack.base.byte_add(GUARD_BYTES + STACK_BYTES) };
    // SAFETY: as in `clone3_child`: own stack, CLONE_VFORK, an entry that never returns; the
    // fifth argument is where CLONE_PIDFD puts the descriptor.
    let result = unsafe {
        libc::clone(
            entry,
            top,
            BASE_FLAGS | libc::SIGCHLD,
            ptr::from_mut(plan).cast(),
            ptr::from_mut(&mut pidfd),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    finish_clone(i64::from(result), pidfd)
}

fn finish_clone(result: i64, pidfd: c_int) -> io::Result<(i32, OwnedFd)> {
    let result = i32::try_from(result).unwrap_or(-libc::EINVAL);
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel made this descriptor for this call and told nobody else.
    Ok((result, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// clone3 whose child begins on its own stack by calling `entry(argument)`.
///
/// # Safety
/// `args` and `size` describe a valid clone_args with an unused stack; `entry` never returns and
/// keeps to what a child that shares our memory may do.
#[cfg(target_arch = "x86_64")]
unsafe fn raw_clone3(
    args: *mut CloneArgs,
    size: usize,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> i64 {
    let result: i64;
    // SAFETY: the parent falls through with registers as the kernel leaves them (rcx and r11
    // are lost); the child has rax = 0 and an empty, 16-byte aligned stack, and leaves for
    // `entry` without touching ours.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size,
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone3 whose child begins on its own stack by calling `entry(argument)`.
///
/// # Safety
/// As on x86_64.
#[cfg(target_arch = "aarch64")]
unsafe fn raw_clone3(
    args: *mut CloneArgs,
    size: usize,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> i64 {
    let result: i64;
    // SAFETY: the parent falls through with only x0 changed; the child has x0 = 0 and an empty
    // stack, and leaves for `entry` without touching ours.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x20",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => result,
            in("x1") size,
            in("x20") entry,
            in("x21") argument,
        );
    }
    result
}

/// The child's whole life up to its program. Runs in the parent's memory, so: system calls on
/// what was prepared, no allocation, no lock, no panic, no return.
extern "C" fn child_main(plan: *mut c_void) -> ! {
    let plan = plan.cast::<ChildPlan>();
    // SAFETY: the suspended parent keeps `plan` and all it points to alive and does not touch
    // it; every array it points to ends with a null pointer.
    unsafe {
        let (step, errno) = prepare_and_execute(plan);
        (*plan).errno = errno;
        (*plan).failed_step = step;
        libc::syscall(libc::SYS_exit_group, 127);
    }
    loop {
        std::hint::spin_loop();
    }
}

/// # Safety
/// Only for [`child_main`], with a plan that nobody else uses.
unsafe fn prepare_and_execute(plan: *mut ChildPlan) -> (u32, c_int) {
    // SAFETY: all pointers are of the plan, which the caller vouches for; each call is one
    // system call that takes plain values or reads prepared memory.
    unsafe {
        if libc::syscall(libc::SYS_setsid) < 0 {
            return (STEP_SESSION, last_errno());
        }
        let mut index = 0;
        while index < (*plan).join_count {
            let group = *(*plan).joins.add(index);
            if libc::syscall(libc::SYS_write, group, c"0".as_ptr(), 1_usize) != 1 {
                return (STEP_GROUP, last_errno());
            }
            index += 1;
        }
        let [stdin, stdout, stderr] = (*plan).stdio;
        if libc::syscall(libc::SYS_dup3, stdin, 0, 0) < 0
            || libc::syscall(libc::SYS_dup3, stdout, 1, 0) < 0
            || libc::syscall(libc::SYS_dup3, stderr, 2, 0) < 0
        {
            return (STEP_STDIO, last_errno());
        }
        // Everything of ours is close-on-exec already; where the call is unknown that is enough.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
        if let Some(limit) = &(*plan).open_files {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                libc::RLIMIT_NOFILE,
                ptr::from_ref(limit),
                ptr::null::<libc::rlimit>(),
            );
        }
        if !(*plan).oom_score.is_null() {
            restore_oom_score((*plan).oom_score, (*plan).oom_score_length);
        }
        if libc::syscall(libc::SYS_chdir, (*plan).working_dir) < 0 {
            return (STEP_WORKING_DIR, last_errno());
        }
        default_signals((*plan).signals);
        (STEP_EXEC, execute(plan))
    }
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

fn last_errno() -> c_int {
    // SAFETY: the address of this thread's errno is valid for its whole life. In the child it is
    // the suspended parent's, which has no call in flight that reads it.
    unsafe { *libc::__errno_location() }
}

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
