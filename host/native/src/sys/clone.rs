//! clone3 and clone with a stack of the child's own.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::child::{ChildPlan, child_main};

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
        // because CLONE_VFORK suspended us until then, or it runs on a copy.
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

/// Whose memory the child runs in until it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Ours, while we are suspended.
    Shared,
    /// A copy. We go on at once, and nothing that it or its tracer does reaches us.
    Copied,
}

impl Memory {
    fn flags(self) -> c_int {
        match self {
            Self::Shared => libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD,
            Self::Copied => libc::CLONE_PIDFD,
        }
    }
}

/// Starts a child that runs [`child_main`] with `plan`; with shared memory it returns when the
/// child has executed or ended.
///
/// The caller has blocked all signals, so no handler of ours runs in the child.
pub(crate) fn clone3_child(
    plan: &mut ChildPlan,
    stack: &mut ChildStack,
    memory: Memory,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: c_int = -1;
    let mut flags = u64::from(memory.flags().cast_unsigned()) | CLONE_CLEAR_SIGHAND;
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
    // The stack is unused (we hold it mutably). With CLONE_VFORK we do not run again until the
    // child stopped using it, `plan` and our memory; without CLONE_VM the child has copies of all
    // three. It calls `child_main`, which never returns.
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
    memory: Memory,
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
    // SAFETY: as in `clone3_child`: own stack or a copy, an entry that never returns; the
    // fifth argument is where CLONE_PIDFD puts the descriptor.
    let result = unsafe {
        libc::clone(
            entry,
            top,
            memory.flags() | libc::SIGCHLD,
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
