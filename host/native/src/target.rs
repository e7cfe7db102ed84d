//! The process whose namespaces are entered, held on to while its facts are read.
//!
//! Its number can be used again, and it may be hostile: it can execute, change its user or end
//! between any two looks. Everything is read through one descriptor of its directory in `/proc`,
//! which is of this process for ever, and at the end it is asked whether it still lives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::isolated::{Capabilities, Ids, Namespaces};
use crate::process;

/// A process that is held on to.
pub struct Pinned {
    directory: OwnedFd,
    pidfd: OwnedFd,
    root: OwnedFd,
    start_ticks: u64,
}

/// Who a process is, in numbers of our own user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Effective user and group, and further groups.
    pub ids: Ids,
    /// Its capabilities, which count in its user namespace only.
    pub capabilities: Capabilities,
    /// Whether nothing that it executes gains privileges.
    pub no_new_privileges: bool,
}

/// No file of facts is read beyond this: more than the kernel takes as an environment.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

impl Pinned {
    /// Opens `pid` if it still is the process that started at `start_ticks` and lives.
    ///
    /// # Errors
    /// When it is another one, is gone, or may not be looked at.
    pub fn open(pid: i32, start_ticks: u64) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "no such process any more");
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())?;
        let pidfd = process::open_if_same(pid, start_ticks).ok_or_else(gone)?;
        let root = rustix::fs::openat(&directory, "root", flags, Mode::empty())?;
        let pinned = Self {
            directory,
            pidfd,
            root,
            start_ticks,
        };
        if !pinned.lives() {
            return Err(gone());
        }
        Ok(pinned)
    }

    /// Whether it still is what it was, and is not ending.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.read("stat")
            .ok()
            .and_then(|line| process::parse_stat(&line))
            .is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_ending())
    }

    /// The process.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A file of its directory in `/proc`; an error beyond a length that none of it should have.
    ///
    /// # Errors
    /// When it is gone or may not be looked at.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(
            &self.directory,
            name,
            flags,
            Mode::empty(),
        )?);
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!(
                "its {name} is longer than {MOST_BYTES} bytes"
            )));
        }
        Ok(bytes)
    }

    fn read_text(&self, name: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(name)?).into_owned())
    }

    /// The environment it was started with, entry by entry; what is no `NAME=VALUE` is left out.
    ///
    /// # Errors
    /// When it may not be looked at, or is too long.
    pub fn environment(&self) -> io::Result<Vec<Vec<u8>>> {
        let bytes = self.read("environ")?;
        let is_variable = |entry: &&[u8]| entry.iter().position(|byte| *byte == b'=') > Some(0);
        Ok(bytes
            .split(|byte| *byte == 0)
            .filter(is_variable)
            .map(<[u8]>::to_vec)
            .collect())
    }

    /// Its groups, hierarchy by hierarchy, as `/proc/PID/cgroup` has them.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cgroups(&self) -> io::Result<String> {
        self.read_text("cgroup")
    }

    /// Who it is.
    ///
    /// # Errors
    /// When it is gone.
    pub fn identity(&self) -> io::Result<Identity> {
        parse_identity(&self.read_text("status")?)
            .ok_or_else(|| io::Error::other("unreadable process status"))
    }

    /// `id` of our user namespace as its user namespace knows it.
    ///
    /// # Errors
    /// When its maps cannot be read.
    pub fn inside_its_user_namespace(&self, ids: &Ids) -> io::Result<Option<Ids>> {
        let (users, groups) = (self.read_text("uid_map")?, self.read_text("gid_map")?);
        let mapped = || {
            Some(Ids {
                uid: translate(&users, ids.uid)?,
                gid: translate(&groups, ids.gid)?,
                // Those that do not exist in there grant nothing in there.
                groups: ids
                    .groups
                    .iter()
                    .filter_map(|group| translate(&groups, *group))
                    .collect(),
            })
        };
        Ok(mapped())
    }

    /// Those of its namespaces, but that of process ids, that are not our own. The kernel refuses
    /// to enter one's own user namespace, and to enter a namespace of the host with the powers of
    /// a user namespace.
    ///
    /// # Errors
    /// When they may not be looked at.
    pub fn other_namespaces(&self) -> io::Result<Namespaces> {
        let mut found = Namespaces::NONE;
        for (name, kind) in [
            ("mnt", Namespaces::MOUNT),
            ("uts", Namespaces::UTS),
            ("ipc", Namespaces::IPC),
            ("net", Namespaces::NETWORK),
            ("user", Namespaces::USER),
            ("cgroup", Namespaces::CGROUP),
        ] {
            if self.has_other(name)? {
                found = found.and(kind);
            }
        }
        Ok(found)
    }

    /// Whether its PID namespace is not our own.
    ///
    /// # Errors
    /// When it may not be looked at.
    pub fn has_other_pid_namespace(&self) -> io::Result<bool> {
        self.has_other("pid")
    }

    fn has_other(&self, name: &str) -> io::Result<bool> {
        let theirs = rustix::fs::readlinkat(&self.directory, format!("ns/{name}"), Vec::new());
        let theirs = match theirs {
            // A kind that this kernel does not have is no other.
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            theirs => theirs?,
        };
        let ours = rustix::fs::readlink(format!("/proc/self/ns/{name}"), Vec::new())?;
        Ok(theirs != ours)
    }
}

/// Facts of a process that is only looked at: whoever uses them asks again whether it still is the
/// same.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pid: i32,
}

impl Facts {
    /// Those of `pid`.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        Self { pid }
    }

    fn read(self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(format!("/proc/{}/{name}", self.pid))?
            .take(MOST_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether an entry of the environment it was started with is as asked for.
    ///
    /// # Errors
    /// When it is gone or may not be looked at.
    pub fn environment_has(self, fits: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
        let bytes = self.read("environ")?;
        Ok(bytes.split(|byte| *byte == 0).any(fits))
    }

    /// The paths of its groups, hierarchy by hierarchy.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cgroups(self) -> io::Result<Vec<String>> {
        let text = String::from_utf8_lossy(&self.read("cgroup")?).into_owned();
        let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
        Ok(text.lines().filter_map(path).collect())
    }

    /// Whether it is the first process of a PID namespace; false when it is gone.
    #[must_use]
    pub fn is_init(self) -> bool {
        let status = self.read("status").unwrap_or_default();
        String::from_utf8_lossy(&status)
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .and_then(|pids| pids.split_ascii_whitespace().last())
            == Some("1")
    }
}

/// Our own identity.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn own_identity() -> io::Result<Identity> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    parse_identity(&status).ok_or_else(|| io::Error::other("unreadable process status"))
}

/// `host`, a number of ours, in lines of `inside ours count`.
fn translate(map: &str, host: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let mut next = || fields.next()?.parse::<u32>().ok();
        let (inside, ours, count) = (next()?, next()?, next()?);
        let offset = host.checked_sub(ours).filter(|offset| *offset < count)?;
        inside.checked_add(offset)
    })
}

fn parse_identity(status: &str) -> Option<Identity> {
    let lines: BTreeMap<&str, &str> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    let numbers = |name| {
        let words = lines.get(name)?.split_ascii_whitespace();
        words
            .map(|word| word.parse().ok())
            .collect::<Option<Vec<u32>>>()
    };
    let set = |name| u64::from_str_radix(lines.get(name)?.trim(), 16).ok();
    let effective = |name| numbers(name)?.get(1).copied();
    Some(Identity {
        ids: Ids {
            uid: effective("Uid")?,
            gid: effective("Gid")?,
            groups: numbers("Groups")?,
        },
        capabilities: Capabilities {
            bounding: set("CapBnd")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            inheritable: set("CapInh")?,
            ambient: set("CapAmb").unwrap_or(0),
        },
        // Not told before Linux 4.10.
        no_new_privileges: numbers("NoNewPrivs").is_some_and(|set| set == [1]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_through_the_map() {
        let map = "         0     100000      65536\n     70000       1000          1\n";
        assert_eq!(translate(map, 100_000), Some(0));
        assert_eq!(translate(map, 101_000), Some(1000));
        assert_eq!(translate(map, 165_536), None);
        assert_eq!(translate(map, 1000), Some(70_000));
        assert_eq!(translate(map, 0), None);
    }

    #[test]
    fn an_identity_is_read_from_the_status() {
        let status = "Name:\tx: y\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\n\
                      Groups:\t10 20 \nCapInh:\t0\nCapPrm:\t00000000a80425fb\n\
                      CapEff:\t1\nCapBnd:\t3\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1\n";
        let identity = parse_identity(status);
        let expected = Identity {
            ids: Ids {
                uid: 1001,
                gid: 6,
                groups: vec![10, 20],
            },
            capabilities: Capabilities {
                bounding: 3,
                permitted: 0xa804_25fb,
                effective: 1,
                inheritable: 0,
                ambient: 0x400,
            },
            no_new_privileges: true,
        };
        assert_eq!(identity, Some(expected));
    }

    #[test]
    fn only_the_same_process_is_held_on_to() {
        let pid = std::process::id().cast_signed();
        let ticks = process::stat(pid).map_or(0, |stat| stat.start_ticks);
        assert!(Pinned::open(pid, ticks).is_ok_and(|pinned| pinned.lives()));
        assert!(Pinned::open(pid, ticks + 1).is_err());
    }
}
