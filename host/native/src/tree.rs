//! Whole process trees: told apart, signalled and killed at the best level the machine has.
//!
//! | level | tree is | killed by |
//! |---|---|---|
//! | cgroup2 | a v2 group | `cgroup.kill`, one write |
//! | cgroup1 | a v1 freezer group | freeze, KILL each, thaw |
//! | scan | session, parents, mark in the environment | KILL each, again until none is found |

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Mode, OFlags};

use crate::cgroup::{self, Version};
use crate::process;
use crate::scan::{self, Seed};

/// How trees are kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeLevel {
    /// A cgroup v2 group each.
    Cgroup2,
    /// A v1 freezer group each.
    Cgroup1,
    /// No groups: found by looking through `/proc`.
    Scan,
}

impl TreeLevel {
    /// Its name on the command line and in `doctor`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup1 => "cgroup1",
            Self::Scan => "scan",
        }
    }
}

impl fmt::Display for TreeLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TreeLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Cgroup2, Self::Cgroup1, Self::Scan]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no tree level: cgroup2, cgroup1 or scan"))
    }
}

/// A group of [`Trees`], by number. Numbers are used again once a group is empty.
pub type GroupNumber = u32;

/// Groups that wait empty for the next tree, so that most starts need no `mkdir`.
const MOST_POOLED: usize = 64;

/// The trees of one owner, below one directory of its own.
pub struct Trees {
    level: TreeLevel,
    why: String,
    base: PathBuf,
    /// Groups count what the memory controller sees, which the next user must not inherit.
    counts_memory: bool,
    pool: Vec<GroupNumber>,
    next: GroupNumber,
    /// Groups that are not used again, as those that were killed as a whole; see
    /// [`Trees::give_back`].
    killed: HashSet<GroupNumber>,
    /// The first group that was made here and not found.
    first: GroupNumber,
    /// Groups that are elsewhere, because of what limits them there.
    elsewhere: HashMap<GroupNumber, PathBuf>,
}

/// How a new process comes into its tree.
pub enum Entry {
    /// It is born into this directory of a v2 group.
    BornInto(OwnedFd),
    /// It joins, see [`Trees::join_entry`].
    Join,
}

impl Trees {
    /// The best level there is, or the one that is `wanted`. `name` is the owner's directory
    /// below this process's own group; `previous` is where its groups were before, if they
    /// are still there.
    #[must_use]
    pub fn open(
        wanted: Option<TreeLevel>,
        name: &str,
        previous: Option<(TreeLevel, &Path)>,
    ) -> Self {
        let mut refused = Vec::new();
        if let Some((level, base)) = previous
            && wanted.is_none_or(|wanted| wanted == level)
            && base.join("cgroup.procs").exists()
        {
            return Self::at(level, base.to_owned(), "as before".to_owned());
        }
        for (level, version) in [
            (TreeLevel::Cgroup2, Version::Two),
            (TreeLevel::Cgroup1, Version::One("freezer")),
        ] {
            if wanted.is_some_and(|wanted| wanted != level) {
                continue;
            }
            match usable(version, name) {
                Ok(base) => {
                    let why = if refused.is_empty() {
                        format!("{} can be written", base.display())
                    } else {
                        refused.join("; ")
                    };
                    return Self::at(level, base, why);
                }
                Err(why) => refused.push(format!("no {level}: {why}")),
            }
        }
        if refused.is_empty() {
            refused.push("asked for".to_owned());
        }
        Self::at(TreeLevel::Scan, PathBuf::new(), refused.join("; "))
    }

    fn at(level: TreeLevel, base: PathBuf, why: String) -> Self {
        let controllers = fs::read_to_string(base.join("cgroup.subtree_control"));
        let counts_memory =
            controllers.is_ok_and(|text| text.split(' ').any(|one| one.trim() == "memory"));
        let mut trees = Self {
            level,
            why,
            base,
            counts_memory,
            pool: Vec::new(),
            next: 1,
            killed: HashSet::new(),
            first: 1,
            elsewhere: HashMap::new(),
        };
        for number in trees.existing() {
            trees.next = trees.next.max(number + 1);
        }
        trees.first = trees.next;
        trees
    }

    /// The level in use.
    #[must_use]
    pub fn level(&self) -> TreeLevel {
        self.level
    }

    /// Why this level, for people.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Where the groups are; empty at the scan level.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of a group.
    #[must_use]
    pub fn path(&self, group: GroupNumber) -> PathBuf {
        match self.elsewhere.get(&group) {
            Some(path) => path.clone(),
            None => self.base.join(format!("u{group}")),
        }
    }

    /// A new group in the directory `parent` of the same hierarchy, instead of our own, so that
    /// what limits `parent` limits it, too. It is not used again, and is to be given back as any
    /// other.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn lease_in(&mut self, parent: &Path) -> io::Result<GroupNumber> {
        fs::create_dir_all(parent)?;
        loop {
            let group = self.next;
            self.next = self.next.wrapping_add(1);
            let path = parent.join(format!("u{group}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    self.elsewhere.insert(group, path);
                    return Ok(group);
                }
                // Somebody's who has not died yet.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An earlier owner made this group elsewhere.
    pub fn adopt(&mut self, group: GroupNumber, path: PathBuf) {
        self.next = self.next.max(group.wrapping_add(1));
        self.elsewhere.insert(group, path);
    }

    /// The groups that are there, whoever they were for.
    #[must_use]
    pub fn existing(&self) -> Vec<GroupNumber> {
        if self.level == TreeLevel::Scan {
            return Vec::new();
        }
        let Ok(entries) = fs::read_dir(&self.base) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix('u')?.parse().ok())
            .collect()
    }

    /// An empty group; `None` at the scan level.
    ///
    /// # Errors
    /// When the kernel has no room for another.
    pub fn lease(&mut self) -> io::Result<Option<GroupNumber>> {
        if self.level == TreeLevel::Scan {
            return Ok(None);
        }
        if let Some(group) = self.pool.pop() {
            return Ok(Some(group));
        }
        let group = self.next;
        self.next = self.next.wrapping_add(1);
        // Also makes the owner's directory again, should somebody have tidied it away.
        fs::create_dir_all(self.path(group))?;
        Ok(Some(group))
    }

    /// The way into a group.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn entry(&self, group: GroupNumber) -> io::Result<Entry> {
        match self.level {
            TreeLevel::Cgroup2 => {
                let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
                let path = self.path(group);
                let dir = match rustix::fs::open(&path, flags, Mode::empty()) {
                    // Somebody tidied up while it waited in the pool.
                    Err(rustix::io::Errno::NOENT) => {
                        fs::create_dir_all(&path)?;
                        rustix::fs::open(&path, flags, Mode::empty())?
                    }
                    other => other?,
                };
                Ok(Entry::BornInto(dir))
            }
            TreeLevel::Cgroup1 | TreeLevel::Scan => Ok(Entry::Join),
        }
    }

    /// The open `cgroup.procs` of a group, for a process that joins it by writing `0`.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn join_entry(&self, group: GroupNumber) -> io::Result<OwnedFd> {
        cgroup::open_to_join(&self.path(group))
    }

    /// Whether no process is left in a group. A group that is gone is empty, one that cannot be
    /// read is not known to be.
    #[must_use]
    pub fn is_empty(&self, group: GroupNumber) -> bool {
        let path = self.path(group);
        match self.level {
            TreeLevel::Cgroup2 => {
                match cgroup::value_of(&path.join("cgroup.events"), "populated") {
                    Ok(populated) => populated == Some(0),
                    Err(error) => cgroup::is_gone(&error),
                }
            }
            TreeLevel::Cgroup1 => cgroup::members(&path).is_ok_and(|members| members.is_empty()),
            TreeLevel::Scan => true,
        }
    }

    /// An empty group is not needed any more.
    ///
    /// One that was ever killed as a whole is not used again: kernels from 6.14 on (seen with
    /// 6.18) count those kills, compare the count of the group a process is born *into* with
    /// the one it is forked *from*, and kill the newborn when they differ. What an earlier
    /// supervisor did to a group is not known, so its groups are not used again either.
    pub fn give_back(&mut self, group: GroupNumber) {
        let clean = !self.killed.remove(&group) && group >= self.first;
        if let Some(path) = self.elsewhere.remove(&group) {
            let _found_again_at_the_next_start = cgroup::remove(&path);
            // The parent may be in somebody else's group, who wants to remove that some day.
            let _has_others = path.parent().map(fs::remove_dir);
            return;
        }
        if clean && self.pool.len() < MOST_POOLED && !self.counts_memory {
            self.pool.push(group);
        } else {
            let _found_again_at_the_next_start = cgroup::remove(&self.path(group));
        }
    }

    /// Something is wrong with a group: it is not used again once it is given back.
    pub fn distrust(&mut self, group: GroupNumber) {
        self.killed.insert(group);
    }

    /// Removes every group that `keep` does not claim and that is empty.
    pub fn sweep(&mut self, keep: impl Fn(GroupNumber) -> bool) {
        for group in self.existing() {
            if !keep(group) && !self.pool.contains(&group) {
                let _populated = cgroup::remove(&self.path(group));
            }
        }
    }

    /// Removes every group that is empty, and the owner's directory if that was all.
    pub fn close(&mut self) {
        self.pool.clear();
        self.sweep(|_| false);
        if self.level != TreeLevel::Scan {
            let _populated = fs::remove_dir(&self.base);
        }
    }

    /// The living members of a tree, with their start times.
    ///
    /// # Errors
    /// When it cannot be looked at as a whole: that is no proof that nobody lives.
    pub fn members(
        &self,
        group: Option<GroupNumber>,
        seed: &Seed<'_>,
    ) -> io::Result<Vec<(i32, u64)>> {
        let Some(group) = group else {
            return scan::members(seed);
        };
        let mut living = Vec::new();
        for pid in cgroup::members(&self.path(group))? {
            match process::stat(pid) {
                Ok(stat) if !stat.is_zombie() => living.push((pid, stat.start_ticks)),
                Err(error) if process::is_no_room(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(living)
    }

    /// Sends `signal` to every member of a tree; the members it was sent to.
    ///
    /// # Errors
    /// When it cannot be looked at as a whole; nobody was sent anything then.
    pub fn signal(
        &self,
        group: Option<GroupNumber>,
        seed: &Seed<'_>,
        signal: i32,
    ) -> io::Result<Vec<(i32, u64)>> {
        let members = self.members(group, seed)?;
        scan::signal_all(&members, signal);
        Ok(members)
    }

    /// One round of killing a tree; true when nothing of it lives. Ask again until it is so:
    /// dying takes a moment, and without groups a tree can outrun one round.
    pub fn kill(&mut self, group: Option<GroupNumber>, seed: &Seed<'_>) -> bool {
        let Some(group) = group else {
            let killed = self.signal(None, seed, libc::SIGKILL);
            return killed.is_ok_and(|killed| killed.is_empty());
        };
        if self.is_empty(group) {
            return true;
        }
        let path = self.path(group);
        if self.level == TreeLevel::Cgroup2 && fs::write(path.join("cgroup.kill"), "1").is_ok() {
            self.killed.insert(group);
            return self.is_empty(group);
        }
        let state = path.join("freezer.state");
        let _not_a_freezer = fs::write(&state, "FROZEN");
        let _asked_again = self.signal(Some(group), seed, libc::SIGKILL);
        let _not_a_freezer = fs::write(&state, "THAWED");
        self.is_empty(group)
    }

    /// Whether the out-of-memory killer took a member; false where that cannot be known.
    #[must_use]
    pub fn out_of_memory(&self, group: GroupNumber) -> bool {
        if !self.counts_memory && !self.elsewhere.contains_key(&group) {
            return false;
        }
        let events = self.path(group).join("memory.events");
        cgroup::value_of(&events, "oom_kill").is_ok_and(|kills| kills > Some(0))
    }
}

/// The owner's directory, made and proven to take groups.
fn usable(version: Version, name: &str) -> Result<PathBuf, String> {
    let own = cgroup::own_group(version)?;
    let base = own.join(name);
    let probe = base.join("probe");
    let tried = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("make {path}: {error}")
    };
    for path in [&base, &probe] {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(tried(path)(error));
            }
            _ => {}
        }
    }
    let needed = match version {
        Version::Two => "cgroup.kill",
        Version::One(_) => "freezer.state",
    };
    let there = probe.join(needed).exists();
    let _left_empty = fs::remove_dir(&probe);
    if !there {
        return Err(format!("its groups have no {needed}"));
    }
    Ok(base)
}
