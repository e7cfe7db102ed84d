//! What a confinement is to a container runtime.
//!
//! CRI limits processor time and memory and sets users. It has no word for the number of
//! processes (only, on cgroup v2, for the kernel's own file), and none for limits of single
//! processes. What it has no word for is refused, unless the task takes less.

use std::path::{Path, PathBuf};

use taskwright_capability::ContainerError;
use taskwright_capability::container::LEAST_MEMORY_BYTES;
use taskwright_model::{Confinement, Enforced, Mechanism, Restriction};

use crate::messages::LinuxContainerResources;

/// Where the kernel's cgroups are.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// The kernel's period of a processor quota, in microseconds, that runtimes use.
const CPU_PERIOD: i64 = 100_000;
/// The least quota that the kernel takes.
const LEAST_CPU_QUOTA: i64 = 1_000;
/// The least weight that the kernel takes.
const LEAST_CPU_SHARES: i64 = 2;
/// `/` holds mounts that a runtime makes itself: making the whole tree read-only is another wish.
const ROOT: &str = "/";
/// What a runtime mounts below a directory of its own.
const MOUNTS_OF_RUNTIMES: [&str; 4] = ["/dev/mqueue", "/dev/pts", "/dev/shm", "/sys/fs/cgroup"];

/// What this machine's cgroups can do for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// How the number of processes can be limited.
    pub(crate) pids: PidsLimit,
    /// Whether swap can be limited.
    pub(crate) swap: bool,
}

/// How the number of processes of a container can be limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PidsLimit {
    /// By the runtime, on cgroup v2.
    Unified,
    /// By a cgroup that we make before the runtime puts the container into it, below this
    /// directory of the controller's v1 hierarchy.
    OwnGroup(PathBuf),
    /// Not at all, because of this.
    Impossible(&'static str),
}

impl Machine {
    /// Looks at the cgroups mounted at `root`. `parent` is under what the runtime is told to put
    /// containers.
    pub(crate) fn look(root: &Path, parent: &str) -> Self {
        if root.join("cgroup.controllers").exists() {
            let swap = std::fs::read_dir(root).is_ok_and(|entries| {
                let mut groups = entries.filter_map(Result::ok);
                groups.any(|entry| entry.path().join("memory.swap.max").exists())
            });
            return Self {
                pids: PidsLimit::Unified,
                swap,
            };
        }
        let pids = root.join("pids");
        let pids = if !pids.is_dir() {
            PidsLimit::Impossible("this machine has no pids controller")
        } else if parent.is_empty() || parent.ends_with(".slice") {
            PidsLimit::Impossible(
                "CRI cannot limit processes on cgroup v1; it is done with a cgroup parent of \
                 this daemon's own, in the form of a path, which is not configured",
            )
        } else {
            PidsLimit::OwnGroup(pids.join(parent.trim_start_matches('/')))
        };
        let swap = root.join("memory/memory.memsw.limit_in_bytes").exists();
        Self { pids, swap }
    }
}

/// A confinement in the runtime's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Confined {
    pub(crate) resources: LinuxContainerResources,
    /// The cgroup to make below which directory, and its limit.
    pub(crate) own_group: Option<(PathBuf, u32)>,
    /// What the runtime, or we, enforce.
    pub(crate) enforced: Enforced,
}

/// Says a confinement in the runtime's words.
///
/// # Errors
/// [`ContainerError::Refused`] where it has none, and the task does not take less.
pub(crate) fn confine(wanted: &Confinement, machine: &Machine) -> Result<Confined, ContainerError> {
    let mut confined = Confined::default();
    for restriction in wanted.restrictions() {
        match impose(restriction, wanted, machine, &mut confined) {
            Ok(mechanism) => confined.enforced.set(restriction, mechanism),
            Err(why) if wanted.best_effort => confined.enforced.leave_out(restriction, why),
            Err(why) => {
                let word = restriction.as_str();
                let detail = format!("{word} cannot be enforced for a container: {why}");
                return Err(ContainerError::Refused { detail });
            }
        }
    }
    Ok(confined)
}

fn impose(
    restriction: Restriction,
    wanted: &Confinement,
    machine: &Machine,
    confined: &mut Confined,
) -> Result<Mechanism, &'static str> {
    let resources = &mut confined.resources;
    match restriction {
        Restriction::Cpu => {
            let millis = i64::from(wanted.cpu_millis.unwrap_or(0));
            resources.cpu_period = CPU_PERIOD;
            resources.cpu_quota = (millis * CPU_PERIOD / 1000).max(LEAST_CPU_QUOTA);
            resources.cpu_shares = (millis * 1024 / 1000).max(LEAST_CPU_SHARES);
        }
        Restriction::Memory => {
            let bytes = wanted.memory_bytes.unwrap_or(0);
            if bytes < LEAST_MEMORY_BYTES {
                // The runtime would try, and say something else each time.
                return Err("it is sure to start only from 6Mi on");
            }
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            resources.memory_limit_in_bytes = bytes;
            if machine.swap {
                // Memory and swap together: no swap.
                resources.memory_swap_limit_in_bytes = bytes;
            }
        }
        Restriction::Pids => {
            let most = wanted.pids.unwrap_or(0);
            match &machine.pids {
                PidsLimit::Unified => {
                    let unified = &mut resources.unified;
                    unified.insert("pids.max".to_owned(), most.to_string());
                }
                PidsLimit::OwnGroup(below) => {
                    confined.own_group = Some((below.clone(), most));
                    return Ok(Mechanism::Cgroup1);
                }
                PidsLimit::Impossible(why) => return Err(why),
            }
        }
        Restriction::OpenFiles | Restriction::FileSize => {
            return Err("CRI has no limits of single processes; a process task can have it");
        }
        Restriction::ReadOnlyPaths => {
            if wanted.read_only_paths.iter().any(|path| path == ROOT) {
                return Err("for the whole tree ask for a read-only root file system");
            }
        }
        // Said in the container's security context.
        Restriction::User | Restriction::NoNewPrivileges => {}
    }
    Ok(Mechanism::ContainerRuntime)
}

/// The paths to make read-only so that `wanted` are, with what a runtime mounts below them.
pub(crate) fn read_only_paths(wanted: &[String]) -> Vec<String> {
    let mut paths: Vec<String> = wanted
        .iter()
        .filter(|path| *path != ROOT)
        .cloned()
        .collect();
    for mount in MOUNTS_OF_RUNTIMES {
        if is_at_or_below(mount, wanted) && !paths.iter().any(|path| path == mount) {
            paths.push(mount.to_owned());
        }
    }
    paths
}

/// Whether `path` is one of `directories`, or below one.
pub(crate) fn is_at_or_below(path: &str, directories: &[String]) -> bool {
    let path = Path::new(path);
    directories
        .iter()
        .any(|directory| directory != ROOT && path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use taskwright_model::User;

    use super::*;

    fn v2() -> Machine {
        Machine {
            pids: PidsLimit::Unified,
            swap: true,
        }
    }

    #[test]
    fn limits_are_said_in_the_kernels_units() {
        let wanted = Confinement {
            cpu_millis: Some(1500),
            memory_bytes: Some(64 << 20),
            pids: Some(12),
            ..Confinement::default()
        };
        let confined = confine(&wanted, &v2()).unwrap();
        let said = &confined.resources;
        assert_eq!((said.cpu_period, said.cpu_quota), (100_000, 150_000));
        assert_eq!(said.cpu_shares, 1536);
        assert_eq!(said.memory_limit_in_bytes, 64 << 20);
        assert_eq!(said.memory_swap_limit_in_bytes, 64 << 20);
        assert_eq!(said.unified.get("pids.max").map(String::as_str), Some("12"));
        for restriction in wanted.restrictions() {
            assert_eq!(
                confined.enforced.get(restriction),
                Some(Mechanism::ContainerRuntime)
            );
        }
    }

    #[test]
    fn on_v1_processes_are_counted_by_a_group_of_ours() {
        let machine = Machine {
            pids: PidsLimit::OwnGroup("/pids/ours".into()),
            swap: false,
        };
        let wanted = Confinement {
            pids: Some(3),
            memory_bytes: Some(LEAST_MEMORY_BYTES),
            ..Confinement::default()
        };
        let confined = confine(&wanted, &machine).unwrap();
        assert_eq!(confined.own_group, Some(("/pids/ours".into(), 3)));
        assert_eq!(confined.resources.memory_swap_limit_in_bytes, 0);
        assert_eq!(
            confined.enforced.get(Restriction::Pids),
            Some(Mechanism::Cgroup1)
        );
    }

    #[test]
    fn what_has_no_word_is_refused_or_left_out() {
        let mut wanted = Confinement {
            open_files: Some(10),
            user: Some(User {
                uid: 1,
                gid: 1,
                groups: Vec::new(),
            }),
            ..Confinement::default()
        };
        let refused = confine(&wanted, &v2()).unwrap_err();
        assert!(refused.to_string().contains("openFiles"), "{refused}");
        wanted.best_effort = true;
        let confined = confine(&wanted, &v2()).unwrap();
        assert_eq!(confined.enforced.get(Restriction::OpenFiles), None);
        let left_out: Vec<_> = confined.enforced.left_out().map(|(it, _)| it).collect();
        assert_eq!(left_out, [Restriction::OpenFiles]);
        assert!(confined.enforced.get(Restriction::User).is_some());
    }

    #[test]
    fn memory_that_no_container_starts_with_is_no_limit() {
        let mut wanted = Confinement {
            memory_bytes: Some(LEAST_MEMORY_BYTES - 1),
            ..Confinement::default()
        };
        let refused = confine(&wanted, &v2()).unwrap_err().to_string();
        assert!(
            refused.contains("memory") && refused.contains("6Mi"),
            "{refused}"
        );
        wanted.best_effort = true;
        let confined = confine(&wanted, &v2()).unwrap();
        assert_eq!(confined.enforced.get(Restriction::Memory), None);
        assert_eq!(confined.resources, LinuxContainerResources::default());
    }

    #[test]
    fn a_read_only_directory_takes_along_what_is_mounted_below() {
        let paths = read_only_paths(&["/dev".to_owned(), "/srv".to_owned()]);
        assert_eq!(
            paths,
            ["/dev", "/srv", "/dev/mqueue", "/dev/pts", "/dev/shm"]
        );
        let below = ["/srv".to_owned()];
        assert!(is_at_or_below("/srv/a", &below));
        assert!(!is_at_or_below("/srv2", &below));
    }
}
