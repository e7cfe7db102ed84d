//! Becoming a small background process: session, subreaper, limits, and a fork that is safe
//! because there is only one thread.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit};

use crate::sys;

/// On which side of a fork one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, and its child's process id.
    Parent(i32),
}

/// Forks a process that has a single thread.
///
/// # Errors
/// When there is more than one thread, or no room for a process.
pub fn fork() -> io::Result<Fork> {
    if fs::read_dir("/proc/self/task")?.take(2).count() != 1 {
        return Err(io::Error::other(
            "a process with several threads cannot fork",
        ));
    }
    Ok(sys::fork()?.map_or(Fork::Child, Fork::Parent))
}

/// Leaves the terminal and process group it was started from. Leading a session already is fine.
pub fn own_session() {
    let _already_leader = rustix::process::setsid();
}

/// Orphans below this process become its children.
///
/// # Errors
/// Only on kernels before 3.4.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// The name that `ps` shows; the kernel keeps 15 bytes.
pub fn name_this_process(name: &CStr) {
    let _only_for_people = rustix::thread::set_name(name);
}

/// Raises the limit of open files as far as permitted; tells what it was, soft and hard.
#[must_use]
pub fn raise_open_files() -> (u64, u64) {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    let _stays_as_it_was = rustix::process::setrlimit(Resource::Nofile, raised);
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    (number(before.current), number(before.maximum))
}

/// Asks the out-of-memory killer to take others first; tells what to give back to tasks, if
/// it was permitted.
#[must_use]
pub fn avoid_oom_killer() -> Option<String> {
    const PATH: &str = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(PATH).ok()?;
    fs::write(PATH, "-900").ok()?;
    Some(before.trim().to_owned())
}

/// Has this session scheduled before others, where the kernel shares time by session
/// (autogroup, sched(7)): whoever owns all tasks must be heard when the tasks take all they can
/// get. A task begins a session of its own, so it does not inherit this. Best effort.
pub fn go_first() {
    let _not_permitted = fs::write("/proc/self/autogroup", "-10");
}

/// Puts `file` at a standard descriptor, 0 to 2.
///
/// # Errors
/// When the process has no descriptor left.
pub fn replace_standard(number: Standard, file: &impl AsFd) -> io::Result<()> {
    match number {
        Standard::Input => nix::unistd::dup2_stdin(file)?,
        Standard::Output => nix::unistd::dup2_stdout(file)?,
        Standard::Error => nix::unistd::dup2_stderr(file)?,
    }
    Ok(())
}

/// A standard descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// 0
    Input,
    /// 1
    Output,
    /// 2
    Error,
}

/// This process's parent.
#[must_use]
pub fn parent() -> i32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// This process.
#[must_use]
pub fn this_process() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// The user this process acts as.
#[must_use]
pub fn this_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user and process at the other end of a Unix socket, as the kernel knows them.
///
/// # Errors
/// When it is no connected Unix socket.
pub fn peer(socket: &impl AsFd) -> io::Result<(u32, i32)> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok((peer.uid.as_raw(), peer.pid.as_raw_nonzero().get()))
}
