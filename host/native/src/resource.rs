//! Groups that limit what a whole tree uses: processor time, memory, processes.
//!
//! A machine has a controller in a v1 hierarchy of its own or in the one v2 hierarchy. In v1 a
//! unit gets a group for it beside the group that keeps its tree together, and joins it before
//! its program; in v2 both are the same group. Made for units that have such limits only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::{self, OWN_PROCESSES, Version};

/// What a controller limits, and to how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Thousandths of a core.
    CpuMillis(u32),
    /// Bytes, swap included.
    Memory(u64),
    /// Processes and threads at a time.
    Pids(u32),
}

impl Amount {
    fn controller(self) -> &'static str {
        match self {
            Self::CpuMillis(_) => "cpu",
            Self::Memory(_) => "memory",
            Self::Pids(_) => "pids",
        }
    }

    /// What to write to which files of a group, in order; and which of them may be missing.
    fn writes(self, version: Version) -> Vec<(&'static str, String, Missing)> {
        match (self, version) {
            (Self::CpuMillis(millis), version) => {
                let (quota, period) = quota(millis);
                match version {
                    Version::One(_) => vec![
                        ("cpu.cfs_period_us", period.to_string(), Missing::Bad),
                        ("cpu.cfs_quota_us", quota.to_string(), Missing::Bad),
                    ],
                    Version::Two => vec![("cpu.max", format!("{quota} {period}"), Missing::Bad)],
                }
            }
            (Self::Memory(bytes), Version::One(_)) => vec![
                ("memory.limit_in_bytes", bytes.to_string(), Missing::Bad),
                // Missing where swap is not accounted for: then none is used.
                (
                    "memory.memsw.limit_in_bytes",
                    bytes.to_string(),
                    Missing::Fine,
                ),
                ("memory.swappiness", "0".to_owned(), Missing::Fine),
            ],
            (Self::Memory(bytes), Version::Two) => vec![
                ("memory.max", bytes.to_string(), Missing::Bad),
                ("memory.swap.max", "0".to_owned(), Missing::Fine),
            ],
            (Self::Pids(most), _) => vec![("pids.max", most.to_string(), Missing::Bad)],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Bad,
    Fine,
}

/// Microseconds of quota and period; the kernel takes no quota below a millisecond, and no period
/// above a second.
fn quota(millis: u32) -> (u64, u64) {
    const PERIOD: u64 = 100_000;
    const LEAST_QUOTA: u64 = 1_000;
    let millis = u64::from(millis.max(1));
    let quota = millis * PERIOD / 1_000;
    if quota >= LEAST_QUOTA {
        (quota, PERIOD)
    } else {
        (LEAST_QUOTA, LEAST_QUOTA * 1_000 / millis)
    }
}

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a v1 hierarchy; the group below which ours go.
    One(PathBuf),
    /// In the v2 hierarchy; the group below which ours go, which hands it down.
    Two(PathBuf),
}

/// The groups with limits of one owner.
pub struct ResourceGroups {
    name: String,
    next: u32,
    /// Groups that could not be removed yet: something in them was not quite gone.
    lingering: Vec<PathBuf>,
}

impl ResourceGroups {
    /// The groups called `name`, as [`Trees`](crate::Trees) are.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut groups = Self {
            name: name.to_owned(),
            next: 1,
            lingering: Vec::new(),
        };
        let numbers = groups.existing();
        let numbers = numbers.iter().filter_map(|path| number(path));
        groups.next = numbers.max().map_or(1, |last| last.wrapping_add(1));
        groups
    }

    /// The name of the directories in which they are made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the controller for `amount` is: below our own group, or below the group that `inside`,
    /// a text as of `/proc/PID/cgroup`, names.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn place(&self, amount: Amount, inside: Option<&str>) -> Result<Place, String> {
        let controller = amount.controller();
        let find = |version| match inside {
            None => cgroup::own_group(version),
            Some(groups) => cgroup::group_of(version, groups),
        };
        let no_one = match find(Version::One(controller)) {
            Ok(group) => return Ok(Place::One(group.join(&self.name))),
            Err(why) => why,
        };
        let group = find(Version::Two).map_err(|no_two| format!("{no_one}; {no_two}"))?;
        if !lists(&group.join("cgroup.controllers"), controller) {
            return Err(format!(
                "{no_one}; {} has no controller {controller}",
                group.display()
            ));
        }
        hand_down(&group, controller, inside.is_none())?;
        let parent = group.join(limited(&self.name));
        make(&parent)?;
        hand_down(&parent, controller, false)?;
        Ok(Place::Two(parent))
    }

    /// A number for the groups of one unit.
    pub fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// Makes the v1 group with that number in `parent`, or finds it, and limits it.
    ///
    /// # Errors
    /// What the kernel refused, for people.
    pub fn limit_one(&self, parent: &Path, number: u32, amount: Amount) -> Result<PathBuf, String> {
        make(parent)?;
        let group = parent.join(format!("r{number}"));
        make(&group)?;
        let version = Version::One(amount.controller());
        limit(&group, amount, version).inspect_err(|_| {
            let _has_another_limit = fs::remove_dir(&group);
        })?;
        Ok(group)
    }

    /// Makes the v2 group with that number in `parent`, or finds it, and limits it: for a tree
    /// that has no v2 group of its own.
    ///
    /// # Errors
    /// What the kernel refused, for people.
    pub fn group_two(&self, parent: &Path, number: u32, amount: Amount) -> Result<PathBuf, String> {
        let group = parent.join(format!("r{number}"));
        make(&group)?;
        self.limit_two(&group, amount).inspect_err(|_| {
            let _has_another_limit = fs::remove_dir(&group);
        })?;
        Ok(group)
    }

    /// Limits a v2 group.
    ///
    /// # Errors
    /// What the kernel refused, for people.
    pub fn limit_two(&self, group: &Path, amount: Amount) -> Result<(), String> {
        limit(group, amount, Version::Two)
    }

    /// Removes a group whose processes are gone, and those that could not be removed before.
    pub fn remove(&mut self, groups: impl IntoIterator<Item = PathBuf>) {
        self.lingering.extend(groups);
        self.lingering.retain(|group| {
            let removed = cgroup::remove(group).is_ok();
            if removed {
                // It may be in somebody else's group, who wants to remove that some day.
                let _has_others = group.parent().map(fs::remove_dir);
            }
            !removed
        });
    }

    /// Whether [`Self::remove`] has something left to do.
    #[must_use]
    pub fn lingers(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// Removes every group that `keep` does not claim and that is empty.
    pub fn sweep(&mut self, keep: impl Fn(&Path) -> bool) {
        for group in self.existing() {
            if !keep(&group) {
                let _populated = cgroup::remove(&group);
            }
        }
    }

    /// Removes every group that is empty, and the directories for them if that was all.
    pub fn close(&mut self) {
        self.remove([]);
        self.sweep(|_| false);
        for base in self.bases() {
            let _populated_or_never_made = fs::remove_dir(base);
        }
    }

    fn bases(&self) -> Vec<PathBuf> {
        let mut bases = Vec::new();
        for controller in ["cpu", "memory", "pids"] {
            if let Ok(own) = cgroup::own_group(Version::One(controller)) {
                bases.push(own.join(&self.name));
            }
        }
        if let Ok(own) = cgroup::own_group(Version::Two) {
            bases.push(own.join(limited(&self.name)));
        }
        bases
    }

    fn existing(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for base in self.bases() {
            let entries = fs::read_dir(base).into_iter().flatten().flatten();
            found.extend(
                entries
                    .map(|entry| entry.path())
                    .filter(|path| number(path).is_some()),
            );
        }
        found
    }
}

/// Whether the out-of-memory killer took a process of one of these groups, by the count that is
/// kept for each of them.
#[must_use]
pub fn out_of_memory(groups: &[PathBuf]) -> bool {
    groups
        .iter()
        .any(|group| out_of_memory_kills(group) > Some(0))
}

/// How many processes of this group the out-of-memory killer took so far, where that is counted.
#[must_use]
pub fn out_of_memory_kills(group: &Path) -> Option<u64> {
    let mut files = ["memory.oom_control", "memory.events"].into_iter();
    files.find_map(|file| cgroup::value_of(&group.join(file), "oom_kill").ok()?)
}

fn limited(name: &str) -> String {
    format!("{name}-limited")
}

/// The number of a group of ours, or of a tree's that is limited itself: `r1`, `u1`.
fn number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(['r', 'u'])?.parse().ok()
}

fn make(group: &Path) -> Result<(), String> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("make {}: {error}", group.display()))
        }
        _ => Ok(()),
    }
}

fn limit(group: &Path, amount: Amount, version: Version) -> Result<(), String> {
    for (file, text, missing) in amount.writes(version) {
        let path = group.join(file);
        match fs::write(&path, &text) {
            Err(error)
                if missing == Missing::Fine && error.kind() != io::ErrorKind::InvalidInput =>
            {
                let _not_there = error;
            }
            Err(error) => return Err(format!("write {text} to {}: {error}", path.display())),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether a file of words, as `cgroup.controllers`, has this one.
fn lists(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|one| one == word))
}

/// Has a v2 group hand a controller down to the groups in it.
///
/// One that holds processes must not: some controllers are refused then, with the others it
/// becomes the root of threads, and no group in it can hold a process any more. Processes of our
/// own group are moved out of the way, into a group beside the others, but only if this part of
/// the hierarchy was given to us: systemd marks what it delegates (`Delegate=yes`), and the root
/// of a cgroup namespace is its owner's.
fn hand_down(group: &Path, controller: &str, ours: bool) -> Result<(), String> {
    let file = group.join("cgroup.subtree_control");
    if lists(&file, controller) {
        return Ok(());
    }
    let failed =
        |error: io::Error| format!("hand {controller} down from {}: {error}", group.display());
    if holds_processes(group).map_err(failed)? {
        let shown = group.display();
        if !ours {
            return Err(format!("{shown} holds processes, so it hands nothing down"));
        }
        if !is_delegated(group) {
            return Err(format!(
                "{shown} holds processes and is not delegated (systemd: Delegate=yes)"
            ));
        }
        move_processes(group).map_err(failed)?;
    }
    fs::write(&file, format!("+{controller}")).map_err(failed)
}

/// The real root, which has no type, may hold processes and hand down all the same.
fn holds_processes(group: &Path) -> io::Result<bool> {
    if !group.join("cgroup.type").exists() {
        return Ok(false);
    }
    Ok(!fs::read_to_string(group.join("cgroup.procs"))?.is_empty())
}

fn is_delegated(group: &Path) -> bool {
    let mut mark = [0; 8];
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        rustix::fs::getxattr(group, *name, &mut mark)
            .is_ok_and(|length| mark.get(..length) == Some(b"1"))
    });
    // The real root is not asked about, so a root is that of a namespace.
    marked || cgroup::group_of(Version::Two, "0::/").is_ok_and(|root| root == group)
}

fn move_processes(group: &Path) -> io::Result<()> {
    /// Whoever forks just then is met again.
    const MOST_ROUNDS: u32 = 10;
    let own = group.join(OWN_PROCESSES);
    if let Err(error) = fs::create_dir(&own)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    for _ in 0..MOST_ROUNDS {
        let members = fs::read_to_string(group.join("cgroup.procs"))?;
        if members.is_empty() {
            return Ok(());
        }
        for pid in members.lines() {
            let _has_ended = fs::write(own.join("cgroup.procs"), pid);
        }
    }
    Err(io::Error::other("its processes do not leave it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_stay_within_what_the_kernel_takes() {
        assert_eq!(quota(1500), (150_000, 100_000));
        assert_eq!(quota(200), (20_000, 100_000));
        assert_eq!(quota(10), (1_000, 100_000));
        assert_eq!(quota(5), (1_000, 200_000));
        assert_eq!(quota(1), (1_000, 1_000_000));
        assert_eq!(quota(0), (1_000, 1_000_000));
    }

    #[test]
    fn a_group_is_limited_and_goes() {
        let name = format!("resource-test-{}", std::process::id());
        let mut groups = ResourceGroups::new(&name);
        for amount in [
            Amount::CpuMillis(300),
            Amount::Memory(32 << 20),
            Amount::Pids(7),
        ] {
            // Where there is none of it, or no right to it, the reason is a sentence.
            match groups.place(amount, None) {
                Ok(Place::One(parent)) => {
                    let number = groups.number();
                    let made = groups.limit_one(&parent, number, amount);
                    let Ok(group) = made else {
                        assert!(made.is_err_and(|why| why.contains(&name)));
                        continue;
                    };
                    assert!(!out_of_memory(std::slice::from_ref(&group)));
                    groups.remove([group.clone()]);
                    assert!(!groups.lingers() && !group.exists());
                }
                Ok(Place::Two(parent)) => assert!(parent.exists()),
                Err(why) => assert!(!why.is_empty()),
            }
        }
        groups.close();
    }
}
