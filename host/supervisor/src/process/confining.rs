//! From a confinement to what is set for one child: limits, groups, user, mounts.
//!
//! Groups are made here, before the process; all else is done by the child on its way to its
//! program. What cannot be done is an error, or left out of what is told as enforced.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use taskwright_capability::{SpawnError, SpawnRequest};
use taskwright_model::{Enforced, Mechanism, Restriction};
use taskwright_native::cgroup::{self, Version};
use taskwright_native::resource::{self, Amount, Place};
use taskwright_native::spawn::{self, Limit, Resource};
use taskwright_native::target::own_identity;
use taskwright_native::{Capabilities, Ids, TreeLevel};

use super::Supervisor;
use super::inside::{self, Target};
use crate::record::{Bounds, SharedMemory};

/// What is set for one child.
#[derive(Default)]
pub(super) struct Confined {
    pub(super) enforced: Enforced,
    pub(super) limits: Vec<Limit>,
    /// What each of `limits` restricts.
    limited: Vec<Restriction>,
    pub(super) no_new_privileges: bool,
    pub(super) read_only: Vec<CString>,
    pub(super) user: Option<Ids>,
    pub(super) capabilities: Option<Capabilities>,
    /// Groups that were made for it.
    groups: Vec<PathBuf>,
    /// Open groups that it joins, made for it or the target's.
    pub(super) joins: Vec<OwnedFd>,
    /// What each of `joins` restricts.
    joined: Vec<Vec<Restriction>>,
    /// In which directory its tree's group is made, if not among the others.
    pub(super) tree_parent: Option<PathBuf>,
    /// What limits its tree's group.
    pub(super) tree_amounts: Vec<(Restriction, Amount)>,
    /// The target's group whose memory it takes.
    shared_memory: Option<SharedMemory>,
}

/// By these a task could undo what it sees read-only: mount and unmount, look into processes that
/// see it otherwise, make devices, open files by handle, use memory and ports.
const CAN_UNDO_MOUNTS: u64 = 1 << CAP_DAC_READ_SEARCH
    | 1 << CAP_SYS_MODULE
    | 1 << CAP_SYS_RAWIO
    | 1 << CAP_SYS_PTRACE
    | 1 << CAP_SYS_ADMIN
    | 1 << CAP_MKNOD;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_RAWIO: u32 = 17;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_MKNOD: u32 = 27;

const EVERYTHING: Capabilities = Capabilities {
    bounding: u64::MAX,
    permitted: u64::MAX,
    effective: u64::MAX,
    inheritable: 0,
    ambient: 0,
};

impl Confined {
    /// Whether nothing but a plain child is needed.
    pub(super) fn needs_isolation(&self) -> bool {
        self.user.is_some() || self.capabilities.is_some() || !self.read_only.is_empty()
    }

    /// What a later supervisor must know of it; `tree` is where its tree's group is.
    pub(super) fn bounds(&self, tree: Option<PathBuf>) -> Option<Box<Bounds>> {
        let bounds = Bounds {
            groups: self.groups.clone(),
            tree,
            enforced: self.enforced.clone(),
            shared_memory: self.shared_memory.clone(),
        };
        (bounds != Bounds::default()).then(|| Box::new(bounds))
    }

    /// The groups that were made for it, to be removed.
    pub(super) fn take_groups(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.groups)
    }

    /// Which restriction could not be set, if that is why no child was started.
    pub(super) fn failed(&self, which: spawn::Restriction, index: usize) -> Option<Restriction> {
        match which {
            spawn::Restriction::Group => self.joined.get(index)?.first().copied(),
            spawn::Restriction::Limit => self.limited.get(index).copied(),
            spawn::Restriction::ReadOnlyPath => Some(Restriction::ReadOnlyPaths),
            spawn::Restriction::User => Some(Restriction::User),
            spawn::Restriction::Capabilities => Some(Restriction::ReadOnlyPaths),
            spawn::Restriction::NoNewPrivileges => Some(Restriction::NoNewPrivileges),
        }
        .filter(|restriction| self.enforced.get(*restriction).is_some())
    }

    fn limit(&mut self, restriction: Restriction, resource: Resource, most: u64) {
        self.limits.push(Limit { resource, most });
        self.limited.push(restriction);
        self.enforced.set(restriction, Mechanism::Rlimit);
    }
}

impl Supervisor {
    /// Everything that the request restricts, but for `without`, and the groups for it.
    pub(super) fn confine(
        &mut self,
        request: &SpawnRequest,
        target: Option<&Target>,
        without: &[(Restriction, String)],
    ) -> Result<Confined, SpawnError> {
        let mut confined = Confined::default();
        for (restriction, why) in without {
            confined.enforced.leave_out(*restriction, why.as_str());
        }
        let made = self.make_groups(request, target, without, &mut confined);
        let (level, name) = (self.trees.level(), self.resources.name());
        let made = made.and_then(|()| join_target(level, name, target, &mut confined));
        if let Err(error) = made {
            self.resources.remove(confined.groups);
            return Err(error);
        }
        let wanted = &request.confinement;
        let wants = |restriction| is_wanted(restriction, without);
        if let Some(most) = wanted.open_files.filter(|_| wants(Restriction::OpenFiles)) {
            confined.limit(Restriction::OpenFiles, Resource::OpenFiles, most);
        }
        if let Some(most) = wanted
            .file_size_bytes
            .filter(|_| wants(Restriction::FileSize))
        {
            confined.limit(Restriction::FileSize, Resource::FileSize, most);
        }
        if wanted.no_new_privileges && wants(Restriction::NoNewPrivileges) {
            confined.no_new_privileges = true;
            confined
                .enforced
                .set(Restriction::NoNewPrivileges, Mechanism::Prctl);
        }
        let user = wanted.user.as_ref().filter(|_| wants(Restriction::User));
        if user.is_some() {
            confined
                .enforced
                .set(Restriction::User, Mechanism::Credentials);
        }
        match target {
            Some(target) => {
                confined.user.clone_from(&target.ids);
                confined.capabilities = target.capabilities;
                confined.no_new_privileges |= target.no_new_privileges;
            }
            None => confined.user = user.map(inside::ids_of),
        }
        if !wanted.read_only_paths.is_empty() && wants(Restriction::ReadOnlyPaths) {
            confined.read_only = wanted
                .read_only_paths
                .iter()
                .filter_map(|path| CString::new(path.as_str()).ok())
                .collect();
            if target.is_none() {
                // Else root could write itself out of the groups that limit it.
                let mounts = cgroup::mounts().into_iter();
                let mounts = mounts.filter(|path| path.exists());
                let as_text = |path: PathBuf| CString::new(path.into_os_string().into_vec()).ok();
                confined.read_only.extend(mounts.filter_map(as_text));
            }
            confined
                .enforced
                .set(Restriction::ReadOnlyPaths, Mechanism::MountNamespace);
            confined.capabilities = Some(keep_mounts(&confined, target));
        }
        Ok(confined)
    }

    /// Makes the groups that limit the tree.
    fn make_groups(
        &mut self,
        request: &SpawnRequest,
        target: Option<&Target>,
        without: &[(Restriction, String)],
        confined: &mut Confined,
    ) -> Result<(), SpawnError> {
        let wanted = &request.confinement;
        let amounts = [
            (Restriction::Cpu, wanted.cpu_millis.map(Amount::CpuMillis)),
            (Restriction::Memory, wanted.memory_bytes.map(Amount::Memory)),
            (Restriction::Pids, wanted.pids.map(Amount::Pids)),
        ];
        let mut number = None;
        for (restriction, amount) in amounts {
            let Some(amount) = amount.filter(|_| is_wanted(restriction, without)) else {
                continue;
            };
            let number = *number.get_or_insert_with(|| self.resources.number());
            let inside = target.and_then(|target| target.cgroups.as_deref());
            match self.limit(number, amount, inside, confined) {
                Ok((mechanism, Some(group))) => {
                    confined.enforced.set(restriction, mechanism);
                    if let Err(error) = confined.join(group, restriction) {
                        return Err(not_enforceable(restriction, error.to_string()));
                    }
                }
                Ok((mechanism, None)) => {
                    confined.enforced.set(restriction, mechanism);
                    confined.tree_amounts.push((restriction, amount));
                }
                Err(detail) => return Err(not_enforceable(restriction, detail)),
            }
        }
        Ok(())
    }

    /// Limits a group with this number, made for it; no group where the tree's own will do.
    fn limit(
        &mut self,
        number: u32,
        amount: Amount,
        inside: Option<&str>,
        confined: &mut Confined,
    ) -> Result<(Mechanism, Option<PathBuf>), String> {
        match self.resources.place(amount, inside)? {
            Place::One(parent) => {
                let group = self.resources.limit_one(&parent, number, amount)?;
                Ok((Mechanism::Cgroup1, Some(group)))
            }
            Place::Two(parent) if self.trees.level() == TreeLevel::Cgroup2 => {
                confined.tree_parent = Some(parent);
                Ok((Mechanism::Cgroup2, None))
            }
            Place::Two(parent) => {
                let group = self.resources.group_two(&parent, number, amount)?;
                Ok((Mechanism::Cgroup2, Some(group)))
            }
        }
    }
}

impl Confined {
    /// Has the child join a group that was made for it.
    fn join(&mut self, group: PathBuf, restriction: Restriction) -> std::io::Result<()> {
        let place = self.groups.iter().position(|made| *made == group);
        if let Some(restrictions) = place.and_then(|place| self.joined.get_mut(place)) {
            // Another controller of the same hierarchy.
            restrictions.push(restriction);
            return Ok(());
        }
        let open = cgroup::open_to_join(&group);
        self.groups.push(group);
        self.joins.push(open?);
        self.joined.push(vec![restriction]);
        Ok(())
    }
}

impl Confined {
    /// Has the child join a group of its target, unless it has one of its own below it.
    fn join_theirs(&mut self, theirs: &Path) -> Result<(), SpawnError> {
        if self.groups.iter().any(|made| made.starts_with(theirs)) {
            return Ok(());
        }
        let open = cgroup::open_to_join(theirs).map_err(|error| SpawnError::Unavailable {
            detail: format!(
                "the target's cgroup {} cannot be joined: {error}",
                theirs.display()
            ),
        })?;
        self.joins.push(open);
        self.joined.push(Vec::new());
        Ok(())
    }
}

/// Has the child join the groups of its target, where it has none of its own below them.
///
/// In v2 a process is in one group only, and ours is how the tree is found and killed: it is made
/// below the target's, where the target's limits reach it.
fn join_target(
    level: TreeLevel,
    name: &str,
    target: Option<&Target>,
    confined: &mut Confined,
) -> Result<(), SpawnError> {
    let Some((target, groups)) = target.and_then(|it| Some((it, it.cgroups.as_deref()?))) else {
        return Ok(());
    };
    for theirs in cgroup::limiting_groups(groups) {
        confined.join_theirs(&theirs)?;
    }
    if let Ok(theirs) = cgroup::group_of(Version::Two, groups)
        && cgroup::has_controllers(&theirs)
        && confined.tree_parent.is_none()
        && cgroup::own_group(Version::Two).is_ok_and(|own| own != theirs)
    {
        if level == TreeLevel::Cgroup2 {
            confined.tree_parent = Some(theirs.join(name));
        } else {
            confined.join_theirs(&theirs)?;
        }
    }
    confined.shared_memory = confined.shares_memory(groups).and_then(|group| {
        Some(SharedMemory {
            kills: resource::out_of_memory_kills(&group)?,
            group,
            target: target.process,
        })
    });
    Ok(())
}

impl Confined {
    /// The target's group by whose limit of memory it may be killed, unless a group of its own
    /// counts that.
    fn shares_memory(&self, groups: &str) -> Option<PathBuf> {
        let shared = |version| {
            let theirs = cgroup::group_of(version, groups).ok()?;
            let counted = self.groups.iter().any(|made| made.starts_with(&theirs));
            let ours = cgroup::own_group(version).is_ok_and(|own| own == theirs);
            (!counted && !ours).then_some(theirs)
        };
        let one = Version::One("memory");
        if cgroup::group_of(one, groups).is_ok() {
            return shared(one);
        }
        self.tree_parent.is_none().then(|| shared(Version::Two))?
    }
}

/// What is left of its capabilities where it sees paths read-only.
fn keep_mounts(confined: &Confined, target: Option<&Target>) -> Capabilities {
    let all = match confined.capabilities {
        Some(capabilities) => capabilities,
        None if target.is_some_and(Target::enters_user_namespace) => EVERYTHING,
        None => own_identity()
            .map(|own| own.capabilities)
            .unwrap_or_default(),
    };
    let left = all.without(CAN_UNDO_MOUNTS);
    match &confined.user {
        // Another user would keep what it is given here.
        Some(ids) if ids.uid != 0 && confined.capabilities.is_none() => Capabilities {
            bounding: left.bounding,
            ..Capabilities::default()
        },
        _ => left,
    }
}

/// Whether it is not among what is left out.
pub(super) fn is_wanted(restriction: Restriction, without: &[(Restriction, String)]) -> bool {
    without.iter().all(|(it, _)| *it != restriction)
}

pub(super) fn not_enforceable(restriction: Restriction, detail: String) -> SpawnError {
    SpawnError::NotEnforceable {
        restriction,
        detail,
    }
}
