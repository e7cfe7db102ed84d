//! Where this process may keep cgroups of its own, and what can be done with one.
//!
//! Works with a v2 mount that has no controllers (as on hybrid machines): killing
//! and knowing members needs none.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Which kind of hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// cgroup v2, with `cgroup.kill`.
    Two,
    /// The v1 hierarchy of this controller.
    One(&'static str),
}

/// Where our own processes are put in a v2 group that is ours but may not hold any itself, since
/// it hands controllers down.
pub(crate) const OWN_PROCESSES: &str = "taskwright-own";

/// The directory of this process's own group in that hierarchy.
///
/// # Errors
/// What is missing, for people.
pub fn own_group(version: Version) -> Result<PathBuf, String> {
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let mut own = group_of(version, &groups)?;
    if own.file_name().is_some_and(|name| name == OWN_PROCESSES) {
        own.pop();
    }
    Ok(own)
}

/// The directory of the group that `groups`, a text as of `/proc/PID/cgroup`, names in that
/// hierarchy.
///
/// # Errors
/// What is missing, for people.
pub fn group_of(version: Version, groups: &str) -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    let what = match version {
        Version::Two => "cgroup v2 mount".to_owned(),
        Version::One(controller) => format!("cgroup v1 {controller} mount"),
    };
    let mount = mounts
        .lines()
        .find_map(|line| parse_mount(line, version))
        .ok_or_else(|| format!("there is no {what}"))?;
    let own = groups
        .lines()
        .find_map(|line| parse_group(line, version))
        .ok_or_else(|| format!("the process is in no group of the {what}"))?;
    let outside = |part: std::path::Component<'_>| part == std::path::Component::ParentDir;
    if own.components().any(outside) {
        return Err(format!(
            "its group is outside of the {what} that is seen here"
        ));
    }
    let below = own.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    Ok(mount.point.join(below))
}

/// Controllers of v1 that limit or account for what a process uses. The freezer is not among them:
/// by its groups trees are found and killed.
const LIMITING: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "blkio",
    "devices",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
];

/// The v1 groups of limiting controllers that `groups`, a text as of `/proc/PID/cgroup`, names,
/// each once, and without those that this process is in itself.
#[must_use]
pub fn limiting_groups(groups: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for controller in LIMITING {
        let version = Version::One(controller);
        let has_freezer = groups.lines().any(|line| {
            parse_group(line, version).is_some() && parse_group(line, FREEZER).is_some()
        });
        if let Ok(group) = group_of(version, groups)
            && !has_freezer
            && !found.contains(&group)
            && own_group(version).is_ok_and(|own| own != group)
        {
            found.push(group);
        }
    }
    found
}

const FREEZER: Version = Version::One("freezer");

/// Whether a v2 group has any controller.
#[must_use]
pub fn has_controllers(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.controllers")).is_ok_and(|text| !text.trim().is_empty())
}

/// Where the hierarchies are that this process sees, of both versions.
#[must_use]
pub fn mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(hierarchy).collect()
}

fn hierarchy(line: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    let kind = right.split(' ').next()?;
    let point = left.split(' ').nth(4)?;
    let is_one = kind == "cgroup" || kind == "cgroup2";
    is_one.then(|| PathBuf::from(point.replace("\\040", " ")))
}

struct Mount {
    root: PathBuf,
    point: PathBuf,
}

fn parse_mount(line: &str, version: Version) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    let fits = match version {
        Version::Two => kind == "cgroup2",
        Version::One(controller) => {
            kind == "cgroup" && options.split(',').any(|option| option == controller)
        }
    };
    let mut left = left.split(' ');
    let root = left.nth(3)?;
    let point = left.next()?;
    fits.then(|| Mount {
        root: PathBuf::from(root),
        point: PathBuf::from(point.replace("\\040", " ")),
    })
}

/// The path of a line of `/proc/PID/cgroup`, without a leading slash that would replace a base.
fn parse_group(line: &str, version: Version) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':');
    let (_number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = match version {
        Version::Two => controllers.is_empty(),
        Version::One(controller) => controllers.split(',').any(|one| one == controller),
    };
    fits.then(|| PathBuf::from(path))
}

/// The processes of a group and of the groups below it. A group that is gone has none.
///
/// # Errors
/// When one of them cannot be read: nobody knows then who is in it.
pub fn members(group: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    visit(group, DEPTH, &mut |group| {
        match fs::read_to_string(group.join("cgroup.procs")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(error) if is_gone(&error) => {}
            // A group of threads: their processes are in the list of a group above it.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a group could not be read because it was removed, before or after it was opened.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Removes a group and the groups below it.
///
/// # Errors
/// `EBUSY` while a process is in one of them.
pub fn remove(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Groups below it, made by the task.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            visit(group, DEPTH, &mut |inner| {
                let _reported_below = fs::remove_dir(inner);
                Ok(())
            })?;
            if group.exists() {
                return Err(error);
            }
            Ok(())
        }
        other => other,
    }
}

/// How deep a task's own groups are followed.
const DEPTH: usize = 8;

/// Calls `act` on the groups below `group`, deepest first, and then on itself.
fn visit(
    group: &Path,
    depth: usize,
    act: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if depth > 0 {
        match fs::read_dir(group) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        visit(&entry.path(), depth - 1, act)?;
                    }
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    act(group)
}

/// Puts the process that writes into a group: its open `cgroup.procs`, to write `0` to.
///
/// # Errors
/// When the group is gone or may not be changed.
pub fn open_to_join(group: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        group.join("cgroup.procs"),
        flags,
        Mode::empty(),
    )?)
}

/// The number behind `key` in a file of `key value` lines; `None` when no line has it.
///
/// # Errors
/// When the file cannot be read.
pub fn value_of(file: &Path, key: &str) -> io::Result<Option<u64>> {
    let text = fs::read_to_string(file)?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_has_both_kinds() {
        let two = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let one = "37 31 0:34 /a /sys/fs/cgroup/freezer rw shared:3 - cgroup cgroup rw,freezer";
        let point = |line, version| parse_mount(line, version).map(|mount| mount.point);
        assert_eq!(
            point(two, Version::Two),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(point(one, Version::Two), None);
        assert_eq!(
            point(one, Version::One("freezer")),
            Some(PathBuf::from("/sys/fs/cgroup/freezer"))
        );
        assert_eq!(point(two, Version::One("freezer")), None);
    }

    #[test]
    fn only_a_group_that_is_gone_is_empty_without_a_look() {
        let gone = members(Path::new("/no/such/group"));
        assert!(gone.is_ok_and(|members| members.is_empty()));
        // Not a directory: whatever it is, nobody knows who is in it.
        assert!(members(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn the_own_group_is_read_per_hierarchy() {
        let own = |line, version| parse_group(line, version);
        assert_eq!(own("0::/a/b", Version::Two), Some(PathBuf::from("/a/b")));
        assert_eq!(own("6:freezer:/c", Version::Two), None);
        assert_eq!(
            own("6:freezer:/c:d", Version::One("freezer")),
            Some(PathBuf::from("/c:d"))
        );
    }
}
