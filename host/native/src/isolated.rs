//! Children with memory of their own: those that enter another process's namespaces, take on
//! another user or see paths read-only.
//!
//! A process in the namespaces that are entered may be hostile: root in there, able to stop the
//! child between any two of its steps. So nothing here waits for it: what is begun is a
//! [`Newborn`], which has a bounded time, and a child that was held is killed and told as an error.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sched::CloneFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::DumpableBehavior;

use crate::sys::{CapabilityPlan, ChildPlan, CredentialsPlan, EnterPlan, IdsPlan, IsolationPlan};
use crate::{Child, Newborn, spawn};

/// What a child with memory of its own does before its program.
#[derive(Clone, Copy)]
pub struct Isolation<'a> {
    /// Whose namespaces and root it enters.
    pub enter: Option<Enter<'a>>,
    /// Absolute paths, as it sees them, that it sees read-only with all that is mounted below.
    pub read_only: &'a [CString],
    /// Its user and groups, if not ours, in numbers of the user namespace that it runs in.
    pub user: Option<&'a Ids>,
    /// Its capabilities, if not those that follow from its user.
    pub capabilities: Option<Capabilities>,
    /// How long it may take to get to its program.
    pub patience: Duration,
}

/// Another process's namespaces and root.
#[derive(Clone, Copy)]
pub struct Enter<'a> {
    /// That process.
    pub pidfd: BorrowedFd<'a>,
    /// Which of its namespaces, but for that of process ids.
    pub namespaces: Namespaces,
    /// Whether it is born into that process's PID namespace.
    pub pid_namespace: bool,
    /// Its root directory.
    pub root: BorrowedFd<'a>,
}

/// Kinds of namespaces, but for that of process ids, which a process is born into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(i32);

impl Namespaces {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    /// Host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    /// System V IPC and message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    /// Network.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);
    /// Users.
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// Cgroups.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// User, group and further groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Real, effective and saved user.
    pub uid: u32,
    /// Real, effective and saved group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// The five sets of capabilities(7), as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What can be had at all.
    pub bounding: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What counts.
    pub effective: u64,
    /// What goes through an execution with the file's consent.
    pub inheritable: u64,
    /// What goes through an execution.
    pub ambient: u64,
}

impl Capabilities {
    /// As much of them as one with those of `owner` can give.
    #[must_use]
    pub fn within(self, owner: &Self) -> Self {
        let permitted = self.permitted & owner.permitted;
        let inheritable = self.inheritable & (owner.permitted | owner.inheritable);
        Self {
            bounding: self.bounding & owner.bounding,
            permitted,
            effective: self.effective & permitted,
            inheritable,
            ambient: self.ambient & permitted & inheritable,
        }
    }

    /// All but these.
    #[must_use]
    pub fn without(self, taken: u64) -> Self {
        Self {
            bounding: self.bounding & !taken,
            permitted: self.permitted & !taken,
            effective: self.effective & !taken,
            inheritable: self.inheritable & !taken,
            ambient: self.ambient & !taken,
        }
    }
}

/// The pieces that the plan points into.
pub(crate) struct Prepared {
    read_only: Vec<*const c_char>,
    credentials: Option<CredentialsPlan>,
}

impl Prepared {
    pub(crate) fn new(isolation: &Isolation<'_>) -> Self {
        let ids = isolation.user.map(|ids| IdsPlan {
            uid: ids.uid,
            gid: ids.gid,
            groups: ids.groups.as_ptr(),
            group_count: ids.groups.len(),
        });
        let capabilities = isolation.capabilities.map(|sets| CapabilityPlan {
            bounding: sets.bounding,
            permitted: sets.permitted,
            effective: sets.effective,
            inheritable: sets.inheritable,
            ambient: sets.ambient,
        });
        let credentials = (ids.is_some() || capabilities.is_some())
            .then_some(CredentialsPlan { ids, capabilities });
        Self {
            read_only: spawn::pointers(isolation.read_only),
            credentials,
        }
    }
}

/// Why there is no child.
pub(crate) enum Stopped {
    NoProcess(io::Error),
    Enter {
        step: &'static str,
        source: io::Error,
    },
}

/// Clones with `clone`; the child is on its way to the first of `candidates` that is a program.
pub(crate) fn begin(
    isolation: &Isolation<'_>,
    prepared: &Prepared,
    plan: &mut ChildPlan,
    candidates: Vec<CString>,
    clone: impl FnOnce(&mut ChildPlan) -> io::Result<(i32, OwnedFd)>,
) -> Result<Newborn, Stopped> {
    let (status, theirs) = status_pair().map_err(Stopped::NoProcess)?;
    let isolation_plan = IsolationPlan {
        enter: isolation.enter.map(|enter| EnterPlan {
            pidfd: enter.pidfd.as_raw_fd(),
            namespaces: enter.namespaces.0,
            root: enter.root.as_raw_fd(),
        }),
        read_only: prepared.read_only.as_ptr(),
        credentials: prepared
            .credentials
            .as_ref()
            .map_or(ptr::null(), ptr::from_ref),
    };
    plan.status = theirs.as_raw_fd();
    plan.isolation = ptr::from_ref(&isolation_plan);
    let pid_namespace = isolation.enter.filter(|enter| enter.pid_namespace);
    let child = closed_to_others(|| match pid_namespace {
        Some(enter) => born_into(enter.pidfd, || clone(plan)),
        None => clone(plan).map_err(Stopped::NoProcess),
    });
    let (pid, pidfd) = child?;
    let child = Child { pid, pidfd };
    Ok(Newborn::new(child, status, isolation.patience, candidates))
}

/// Our end, and the child's under a number above 3, which is where the child puts it. Sockets, so
/// that a child whose parent died writes to nobody without a signal, and goes on. Reading and
/// writing never waits; the child writes two short messages at most, for which there is room.
fn status_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, 4)?;
    Ok((ours, theirs))
}

/// Does it while this process is not dumpable, so that its copy never was.
fn closed_to_others<T>(act: impl FnOnce() -> Result<T, Stopped>) -> Result<T, Stopped> {
    let failed = |error: rustix::io::Errno| Stopped::NoProcess(error.into());
    let before = rustix::process::dumpable_behavior().map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    let result = act();
    // It can also have been read as a state that cannot be set: not dumpable is as good.
    let _stays_closed = rustix::process::set_dumpable_behavior(before);
    result
}

/// Does it while children are born into the PID namespace of `target`.
///
/// Where the way back is barred this process must not go on: every later task would be born in
/// there. It aborts, and whoever guards it starts another.
fn born_into<T>(target: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<T>) -> Result<T, Stopped> {
    static OWN: OnceLock<Option<File>> = OnceLock::new();
    let own = OWN.get_or_init(|| File::open("/proc/self/ns/pid").ok());
    let entering = |source| Stopped::Enter {
        step: "enter its PID namespace",
        source,
    };
    let Some(own) = own else {
        return Err(entering(io::Error::other("our own cannot be held open")));
    };
    nix::sched::setns(target, CloneFlags::CLONE_NEWPID).map_err(|errno| entering(errno.into()))?;
    let result = act();
    if nix::sched::setns(own, CloneFlags::CLONE_NEWPID).is_err() {
        std::process::abort();
    }
    result.map_err(|source| match source.raw_os_error() {
        // What a namespace whose first process has ended says to a birth.
        Some(libc::ENOMEM) => entering(source),
        _ => Stopped::NoProcess(source),
    })
}

/// A file through a mount of its own that is read-only and lies nowhere: who opens it again by way
/// of a process that executes it cannot write.
///
/// # Errors
/// Without the right to mount, or before Linux 5.12.
pub fn read_only_view(path: &CStr) -> io::Result<OwnedFd> {
    crate::sys::read_only_view(path)
}

#[cfg(test)]
mod tests;
