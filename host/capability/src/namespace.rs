//! Another process's namespaces: finding the process, and what to take of it.

use futures::future::BoxFuture;
use taskwright_model::ProcessIdentity;

use crate::process::StopError;

/// Finds processes whose namespaces a unit may enter.
pub trait NamespaceHost: Send + Sync + 'static {
    /// The oldest process that `selector` describes and that is no unit of ours, nor came from
    /// one; `None` when there is none.
    fn find(&self, selector: TargetSelector) -> BoxFuture<'_, Result<Option<Target>, StopError>>;

    /// Whether exactly this process still lives; a zombie does not.
    fn is_alive(&self, process: ProcessIdentity) -> BoxFuture<'_, Result<bool, StopError>>;
}

/// How a target is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSelector {
    /// Its environment holds exactly `NAME=VALUE`, as `SANDBOX_MAIN_CONTAINER=main`.
    Variable {
        /// The variable's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Its process id, in the host's PID namespace.
    Pid(u32),
    /// A container's id, or at least its first 12 characters: a part of the path of its cgroup.
    ContainerId(String),
    /// The path of its cgroup as `/proc/PID/cgroup` tells it, in any hierarchy, or of one below.
    Cgroup(String),
}

/// A process that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which one, for ever.
    pub process: ProcessIdentity,
    /// How many processes fitted the description. The oldest was taken.
    pub candidates: u32,
    /// Whether it is the first process of a PID namespace: with it everything in there ends.
    pub is_init: bool,
}

/// What a unit takes of a target. It always enters mount, UTS, IPC, network and PID namespaces and
/// the target's root directory, and starts in `working_dir` there (`/` where nothing is said); the
/// target's initial environment is the base under its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The process whose namespaces are entered. It must still be this one.
    pub target: ProcessIdentity,
    /// Further namespaces.
    pub further: Namespaces,
    /// Whether it takes the target's user, groups and capabilities.
    pub identity: bool,
    /// Whether it is put into the target's cgroups, for what those limit. It stays in its own v2
    /// group where that is only for finding and killing the tree.
    pub cgroup: bool,
}

/// Namespaces beside those that are always entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// User namespace.
    pub user: bool,
    /// Cgroup namespace.
    pub cgroup: bool,
}
