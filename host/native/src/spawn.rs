//! Starts a program in a session of its own, and in a cgroup where there is one.
//!
//! The child shares our memory until it executes (`CLONE_VM | CLONE_VFORK`), so
//! a large parent costs nothing and the child can say exactly which step failed.
//!
//! One that enters another process's namespaces or changes its user does not: whoever may trace
//! or stop it must reach nothing of ours. It has a copy, is not dumpable (so only who may trace
//! anything may look at it), says what failed through a socket, and has a bounded time for it;
//! see [`isolated`]. Who has other things to do [`begin`]s it and looks later.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::exit;
use crate::isolated::{self, Isolation, Prepared};
use crate::newborn::Newborn;
use crate::sys::{self, ChildPlan, ChildStack, Failure, LimitPlan, Memory};

/// Where a program without `/` is looked for when its environment has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to start. Everything else of the child is default: a session and process group of its
/// own, default signal dispositions, nothing blocked, no descriptor above 2.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// The program and its arguments. A program without `/` is looked up in `PATH` of `env`.
    pub argv: &'a [CString],
    /// `NAME=VALUE`, the whole environment.
    pub env: &'a [CString],
    /// Where it starts.
    pub working_dir: &'a CStr,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// A cgroup v2 directory that it starts in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Open `cgroup.procs` files that it writes itself into.
    pub join: &'a [OwnedFd],
    /// Its limit of open files, soft and hard, if not ours.
    pub open_files: Option<(u64, u64)>,
    /// What it writes to its `oom_score_adj`, if not ours.
    pub oom_score: Option<&'a CStr>,
    /// Further limits that it must have.
    pub limits: &'a [Limit],
    /// Whether nothing that it executes gains privileges.
    pub no_new_privileges: bool,
    /// What needs memory of its own.
    pub isolation: Option<&'a Isolation<'a>>,
}

/// A resource limit, soft and hard, setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// Soft and hard.
    pub most: u64,
}

/// What a [`Limit`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open files.
    OpenFiles,
    /// The size of a file.
    FileSize,
}

impl Limit {
    fn plan(self) -> LimitPlan {
        let resource = match self.resource {
            Resource::OpenFiles => libc::RLIMIT_NOFILE,
            Resource::FileSize => libc::RLIMIT_FSIZE,
        };
        let (rlim_cur, rlim_max) = (self.most, self.most);
        LimitPlan {
            resource,
            limit: libc::rlimit { rlim_cur, rlim_max },
        }
    }
}

/// A child that executes its program.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// The same process, without the danger of reuse.
    pub pidfd: OwnedFd,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnFault {
    /// No file of that name at any place looked at.
    #[error("no such program; looked at {looked_at}")]
    NotFound {
        /// The paths that were tried.
        looked_at: String,
    },
    /// The kernel refuses to execute it.
    #[error("the kernel refuses to execute it")]
    NotExecutable {
        /// What the kernel said.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory")]
    WorkingDirectory {
        /// What the kernel said.
        source: io::Error,
    },
    /// The command cannot be passed on.
    #[error("{detail}")]
    BadCommand {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// Processes, files or memory are used up.
    #[error("no room for another process")]
    NoRoom {
        /// What the kernel said.
        source: io::Error,
    },
    /// Something it must be restricted by could not be set.
    #[error("cannot {step}")]
    Restriction {
        /// Which.
        restriction: Restriction,
        /// What was being done.
        step: &'static str,
        /// Which of several.
        index: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The other process's namespaces or root cannot be entered.
    #[error("cannot {step}")]
    Enter {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It did not get to its program in time, or was killed on the way.
    #[error("{detail}")]
    Held {
        /// What was seen.
        detail: &'static str,
    },
    /// Something else that is not the command's fault.
    #[error("cannot {step}")]
    Other {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a [`SpawnFault::Restriction`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// One of [`Command::join`].
    Group,
    /// One of [`Command::limits`].
    Limit,
    /// One of the paths that are read-only, or, beyond the last, the mount namespace.
    ReadOnlyPath,
    /// User and groups.
    User,
    /// Capabilities.
    Capabilities,
    /// No new privileges.
    NoNewPrivileges,
}

thread_local! {
    /// Used again for every child of this thread: with CLONE_VFORK there is one at a time.
    static STACK: RefCell<Option<ChildStack>> = const { RefCell::new(None) };
}

/// What became of a command that was begun.
#[derive(Debug)]
pub enum Begun {
    /// Its program is being executed.
    Executing(Child),
    /// It has [`Command::isolation`], and tells later how far it gets.
    OnItsWay(Newborn),
}

/// Starts `command`; returns once its program is being executed.
///
/// # Errors
/// [`SpawnFault`]; then no process is left.
pub fn spawn(command: &Command<'_>) -> Result<Child, SpawnFault> {
    match begin(command)? {
        Begun::Executing(child) => Ok(child),
        Begun::OnItsWay(newborn) => newborn.wait(),
    }
}

/// Starts `command`, without waiting for anything that somebody else could delay.
///
/// # Errors
/// [`SpawnFault`]; then no process is left.
pub fn begin(command: &Command<'_>) -> Result<Begun, SpawnFault> {
    let Some(program) = command.argv.first().filter(|program| !program.is_empty()) else {
        let detail = "the command is empty";
        return Err(SpawnFault::BadCommand { detail });
    };
    let candidates = candidates(program, command.env);
    let candidate_pointers = pointers(&candidates);
    let argv = pointers(command.argv);
    let mut script_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
    script_argv.extend(argv.iter().skip(1));
    let env = pointers(command.env);
    let high = HighFds::of(&command.stdio).map_err(|source| no_room("duplicate a file", source))?;
    let joins: Vec<c_int> = command.join.iter().map(AsRawFd::as_raw_fd).collect();
    let limits: Vec<LimitPlan> = command.limits.iter().map(|limit| limit.plan()).collect();
    let mut plan = ChildPlan {
        candidates: candidate_pointers.as_ptr(),
        argv: argv.as_ptr(),
        script_argv: script_argv.as_mut_ptr(),
        env: env.as_ptr(),
        working_dir: command.working_dir.as_ptr(),
        stdio: high.numbers,
        joins: joins.as_ptr(),
        join_count: joins.len(),
        open_files: command
            .open_files
            .map(|(rlim_cur, rlim_max)| libc::rlimit { rlim_cur, rlim_max }),
        oom_score: command.oom_score.map_or(ptr::null(), CStr::as_ptr),
        oom_score_length: command.oom_score.map_or(0, |text| text.to_bytes().len()),
        limits: limits.as_ptr(),
        limit_count: limits.len(),
        no_new_privileges: command.no_new_privileges,
        signals: ignored_signals(),
        status: -1,
        isolation: ptr::null(),
        failure: Failure::default(),
    };
    let no_process = |source| no_room("make a process", source);
    if let Some(isolation) = command.isolation {
        let prepared = Prepared::new(isolation);
        let begun = isolated::begin(isolation, &prepared, &mut plan, candidates, |plan| {
            clone_with_signals_blocked(plan, Memory::Copied, command.cgroup)
        });
        return begun.map(Begun::OnItsWay).map_err(|stopped| match stopped {
            isolated::Stopped::NoProcess(source) => no_process(source),
            isolated::Stopped::Enter { step, source } => SpawnFault::Enter { step, source },
        });
    }
    let (pid, pidfd) = clone_with_signals_blocked(&mut plan, Memory::Shared, command.cgroup)
        .map_err(no_process)?;
    if plan.failure.step == 0 {
        return Ok(Begun::Executing(Child { pid, pidfd }));
    }
    // It has ended by itself; nobody else may see it as a child.
    while let Ok(None) = exit::reap(&pidfd) {
        std::thread::yield_now();
    }
    Err(fault(plan.failure, &candidates))
}

fn clone_with_signals_blocked(
    plan: &mut ChildPlan,
    memory: Memory,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(i32, OwnedFd)> {
    STACK.with_borrow_mut(|stack| {
        let stack = match stack {
            Some(stack) => stack,
            empty => empty.insert(ChildStack::new()?),
        };
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let child = match sys::clone3_child(plan, stack, memory, cgroup) {
            Err(error) if cgroup.is_none() && clone3_is_missing(&error) => {
                sys::clone_child(plan, stack, memory)
            }
            other => other,
        };
        before.thread_set_mask()?;
        child
    })
}

/// EINVAL is the answer of kernels that have clone3 and not all of its flags.
fn clone3_is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)
    )
}

/// The signals that this process ignores, which a child would go on ignoring. Looked at once:
/// whoever spawns has arranged its signals before. All of them where nobody can tell.
fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(u64::MAX)
    })
}

/// Whether a clone into a cgroup failed because of the cgroup, so that joining by a write is
/// worth a try.
#[must_use]
pub fn is_cgroup_fault(fault: &SpawnFault) -> bool {
    let SpawnFault::Other { source, .. } = fault else {
        return false;
    };
    matches!(
        source.raw_os_error(),
        Some(
            libc::ENOSYS
                | libc::EPERM
                | libc::EOPNOTSUPP
                | libc::EINVAL
                | libc::EBADF
                | libc::EACCES
                | libc::EBUSY
                | libc::ENODEV
        )
    )
}

fn no_room(step: &'static str, source: io::Error) -> SpawnFault {
    match source.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC) => {
            SpawnFault::NoRoom { source }
        }
        _ => SpawnFault::Other { step, source },
    }
}

pub(crate) fn fault(failure: Failure, candidates: &[CString]) -> SpawnFault {
    let Failure { step, errno, index } = failure;
    let source = io::Error::from_raw_os_error(errno);
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let restriction = |restriction, step, source| SpawnFault::Restriction {
        restriction,
        step,
        index,
        source,
    };
    match step {
        sys::STEP_WORKING_DIR => SpawnFault::WorkingDirectory { source },
        sys::STEP_EXEC => match errno {
            libc::ENOENT | libc::ENOTDIR => SpawnFault::NotFound {
                looked_at: looked_at(candidates),
            },
            libc::E2BIG => SpawnFault::BadCommand {
                detail: "arguments and environment together are larger than the kernel takes",
            },
            libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE => {
                SpawnFault::NoRoom { source }
            }
            _ => SpawnFault::NotExecutable { source },
        },
        sys::STEP_SESSION => no_room("begin a session", source),
        sys::STEP_GROUP => match no_room("join its cgroup", source) {
            SpawnFault::Other { step, source } => restriction(Restriction::Group, step, source),
            full => full,
        },
        sys::STEP_LIMIT => restriction(Restriction::Limit, "set its limit", source),
        sys::STEP_READ_ONLY => {
            restriction(Restriction::ReadOnlyPath, "make a path read-only", source)
        }
        sys::STEP_CREDENTIALS => restriction(
            Restriction::User,
            match index {
                0 => "set its groups",
                1 => "set its group",
                _ => "set its user",
            },
            source,
        ),
        sys::STEP_CAPABILITIES => {
            restriction(Restriction::Capabilities, "reduce its capabilities", source)
        }
        sys::STEP_NO_NEW_PRIVILEGES => {
            restriction(Restriction::NoNewPrivileges, "set no_new_privs", source)
        }
        sys::STEP_ENTER => SpawnFault::Enter {
            step: "enter its namespaces",
            source,
        },
        sys::STEP_ROOT => SpawnFault::Enter {
            step: "enter its root directory",
            source,
        },
        sys::STEP_DUMPABLE => no_room("close its memory to others", source),
        sys::STEP_CLOSE => no_room("close our files (close_range)", source),
        _ => no_room("set up standard input and output", source),
    }
}

fn looked_at(candidates: &[CString]) -> String {
    const MOST_BYTES: usize = 1024;
    let mut text = String::new();
    for candidate in candidates {
        if text.len() > MOST_BYTES {
            text.push_str(", ...");
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&candidate.to_string_lossy());
    }
    text
}

/// The paths that execvp would try, in order.
fn candidates(program: &CStr, env: &[CString]) -> Vec<CString> {
    let bytes = program.to_bytes();
    if bytes.contains(&b'/') {
        return vec![program.to_owned()];
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH.as_bytes());
    path.split(|byte| *byte == b':')
        .filter_map(|place| {
            let mut full = place.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(bytes);
            CString::new(full).ok()
        })
        .collect()
}

pub(crate) fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts
        .iter()
        .map(|text| text.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Standard descriptors as numbers above 2, so that putting one at its place overwrites no other.
struct HighFds {
    numbers: [c_int; 3],
    _copies: Vec<OwnedFd>,
}

impl HighFds {
    fn of(stdio: &[BorrowedFd<'_>; 3]) -> io::Result<Self> {
        let mut copies = Vec::new();
        let mut numbers = [0; 3];
        for (number, fd) in numbers.iter_mut().zip(stdio) {
            *number = fd.as_raw_fd();
            if *number < 3 {
                let copy = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3)?;
                *number = copy.as_raw_fd();
                copies.push(copy);
            }
        }
        Ok(Self {
            numbers,
            _copies: copies,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<CString> {
        list.iter()
            .filter_map(|text| CString::new(*text).ok())
            .collect()
    }

    fn run(argv: &[&str], env: &[&str], working_dir: &CStr) -> Result<exit::Exit, SpawnFault> {
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|source| no_room("open /dev/null", source))?;
        let child = spawn(&Command {
            argv: &texts(argv),
            env: &texts(env),
            working_dir,
            stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
            cgroup: None,
            join: &[],
            open_files: Some((256, 512)),
            oom_score: None,
            limits: &[],
            no_new_privileges: false,
            isolation: None,
        })?;
        loop {
            match exit::reap(&child.pidfd) {
                Ok(Some(waited)) => return Ok(waited.exit),
                Ok(None) => std::thread::yield_now(),
                Err(source) => return Err(no_room("wait", source)),
            }
        }
    }

    #[test]
    fn exit_codes_and_signals_are_told() {
        assert!(matches!(run(&["true"], &[], c"/"), Ok(exit::Exit::Code(0))));
        let seven = run(&["sh", "-c", "exit 7"], &[], c"/");
        assert!(matches!(seven, Ok(exit::Exit::Code(7))));
        let killed = run(&["sh", "-c", "kill -9 $$"], &[], c"/");
        assert!(matches!(killed, Ok(exit::Exit::Signal(9))));
    }

    #[test]
    fn the_limit_of_open_files_is_the_one_asked_for() {
        let argv = [
            "sh",
            "-c",
            "test $(ulimit -Sn) = 256 -a $(ulimit -Hn) = 512",
        ];
        assert!(matches!(run(&argv, &[], c"/"), Ok(exit::Exit::Code(0))));
    }

    #[test]
    fn the_child_leads_a_session_with_default_signals() {
        let argv = ["sh", "-c", "test $(cut -d' ' -f6 /proc/$$/stat) = $$"];
        assert!(matches!(run(&argv, &[], c"/"), Ok(exit::Exit::Code(0))));
        // Not asked of a shell: some block signals for a moment while they start a command.
        for line in ["SigIgn:.*0000000000000000", "SigBlk:.*0000000000000000"] {
            let argv = ["grep", "-q", line, "/proc/self/status"];
            assert!(matches!(run(&argv, &[], c"/"), Ok(exit::Exit::Code(0))));
        }
    }

    #[test]
    fn a_missing_program_names_the_places() {
        let fault = run(&["no-such-program"], &["PATH=/usr/bin:/bin"], c"/");
        let Err(SpawnFault::NotFound { looked_at }) = fault else {
            unreachable!("{fault:?}");
        };
        assert_eq!(looked_at, "/usr/bin/no-such-program, /bin/no-such-program");
    }

    #[test]
    fn a_directory_is_not_executable() {
        let fault = run(&["/usr"], &[], c"/");
        assert!(matches!(fault, Err(SpawnFault::NotExecutable { .. })));
    }

    #[test]
    fn a_missing_working_directory_is_named_as_such() {
        let fault = run(&["true"], &[], c"/no/such/place");
        assert!(matches!(fault, Err(SpawnFault::WorkingDirectory { .. })));
    }

    #[test]
    fn an_argument_list_beyond_the_kernel_is_a_bad_command() {
        let long = "x".repeat(4 * 1024 * 1024);
        let fault = run(&["true", &long], &[], c"/");
        assert!(matches!(fault, Err(SpawnFault::BadCommand { .. })));
    }
}
