//! Finding the process whose namespaces a unit enters: one look through `/proc`.
//!
//! What is no target: what ends or has ended, kernel threads, units of ours and all that came from
//! them (by the mark in their environment, or by their cgroup), this daemon and every supervisor
//! and guardian above or beside it. Of what is left the oldest is taken, so the answer is the same as
//! long as that one lives. All that fit are counted, children of the one that is taken, too: who
//! wants exactly one must see to it that the description fits one.
//!
//! Processes come and go during the look; one that vanishes is none.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use futures::future::BoxFuture;
use taskwright_capability::{NamespaceHost, StopError, Target, TargetSelector};
use taskwright_model::ProcessIdentity;
use taskwright_native::target::Facts;
use taskwright_native::{daemonize, process};

use crate::client::SupervisorClient;
use crate::unit::MARK;

/// No container's id is described by less of it.
const LEAST_ID: usize = 12;

impl NamespaceHost for SupervisorClient {
    fn find(&self, selector: TargetSelector) -> BoxFuture<'_, Result<Option<Target>, StopError>> {
        Box::pin(async move {
            let status = self.status().await?;
            let ours = [status.supervisor_pid, status.guardian_pid];
            let nickname = self.nickname();
            aside(move || find(&selector, &nickname, &ours)).await
        })
    }

    fn is_alive(&self, process: ProcessIdentity) -> BoxFuture<'_, Result<bool, StopError>> {
        Box::pin(aside(move || is_alive(process)))
    }
}

/// Does it on a thread that may wait.
async fn aside<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, StopError> {
    let unavailable = |detail| StopError::Unavailable { detail };
    tokio::task::spawn_blocking(look)
        .await
        .map_err(|panic| unavailable(panic.to_string()))?
        .map_err(unavailable)
}

fn is_alive(wanted: ProcessIdentity) -> Result<bool, String> {
    match process::stat(wanted.pid.cast_signed()) {
        Ok(stat) => Ok(stat.start_ticks == wanted.start_ticks && !stat.is_ending()),
        Err(error) if process::is_no_room(&error) => Err(no_room(&error)),
        Err(_) => Ok(false),
    }
}

fn no_room(error: &io::Error) -> String {
    format!("there is no room to look through /proc: {error}")
}

fn find(selector: &TargetSelector, nickname: &str, ours: &[u32]) -> Result<Option<Target>, String> {
    let wanted = Wanted::of(selector)?;
    let mut never: HashSet<i32> = ours.iter().map(|pid| pid.cast_signed()).collect();
    never.insert(daemonize::this_process());
    let all = match wanted {
        Wanted::Pid(pid) => vec![pid],
        _ => process::all().map_err(|error| no_room(&error))?,
    };
    let mut candidates = 0;
    let mut oldest: Option<(u64, i32)> = None;
    for pid in all.into_iter().filter(|pid| !never.contains(pid)) {
        match wanted.fits(pid, nickname) {
            Ok(Some(start_ticks)) => {
                candidates += 1;
                let this = (start_ticks, pid);
                oldest = Some(oldest.map_or(this, |oldest| oldest.min(this)));
            }
            Ok(None) => {}
            Err(error) if process::is_no_room(&error) => return Err(no_room(&error)),
            Err(_) => {}
        }
    }
    Ok(oldest.map(|(start_ticks, pid)| Target {
        process: ProcessIdentity {
            pid: pid.cast_unsigned(),
            start_ticks,
        },
        candidates,
        // If it vanished just now its user will be told so.
        is_init: Facts::of(pid).is_init(),
    }))
}

/// A description in the form in which it is compared.
enum Wanted {
    Variable(Vec<u8>),
    Pid(i32),
    ContainerId(String),
    Cgroup(PathBuf),
}

impl Wanted {
    fn of(selector: &TargetSelector) -> Result<Self, String> {
        Ok(match selector {
            TargetSelector::Variable { name, value } => {
                if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                    return Err(format!("{name:?} is no name of an environment variable"));
                }
                Self::Variable(format!("{name}={value}").into_bytes())
            }
            TargetSelector::Pid(pid) => Self::Pid(pid.cast_signed()),
            TargetSelector::ContainerId(id) => {
                // As clients write it: with the runtime before it, `containerd://`.
                let id = id.rsplit('/').next().unwrap_or_default();
                if id.len() < LEAST_ID || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    return Err(format!(
                        "{id:?} is no container's id, or less than its first {LEAST_ID} characters"
                    ));
                }
                Self::ContainerId(id.to_owned())
            }
            TargetSelector::Cgroup(path) if path.starts_with('/') && path.len() > 1 => {
                Self::Cgroup(PathBuf::from(path))
            }
            TargetSelector::Cgroup(path) => {
                return Err(format!("{path:?} is no path of a cgroup below the root"));
            }
        })
    }

    /// When `pid` started, if it is one that is wanted. The cheapest looks come first.
    fn fits(&self, pid: i32, nickname: &str) -> io::Result<Option<u64>> {
        let stat = process::stat(pid)?;
        // Kernel threads are of process 2 and have no memory of their own.
        if stat.is_ending() || pid == 2 || stat.parent == 2 {
            return Ok(None);
        }
        let facts = Facts::of(pid);
        if !match self {
            Self::Variable(line) => facts.environment_has(|entry| entry == line)?,
            Self::Pid(_) => true,
            Self::ContainerId(id) => facts.cgroups()?.iter().any(|path| names(path, id)),
            Self::Cgroup(wanted) => {
                let below = |path: &String| PathBuf::from(path).starts_with(wanted);
                facts.cgroups()?.iter().any(below)
            }
        } {
            return Ok(None);
        }
        if is_ours(&facts, nickname)? {
            return Ok(None);
        }
        // All of this was of one process only if it is the same now.
        let again = process::stat(pid)?;
        Ok(
            (again.start_ticks == stat.start_ticks && !again.is_ending())
                .then_some(stat.start_ticks),
        )
    }
}

/// Whether it is a unit's, or came from one.
fn is_ours(facts: &Facts, nickname: &str) -> io::Result<bool> {
    let groups = facts.cgroups()?;
    let limited = format!("{nickname}-limited");
    let in_ours = |path: &String| {
        path.split('/')
            .any(|part| part == nickname || part == limited)
    };
    if groups.iter().any(in_ours) {
        return Ok(true);
    }
    match facts.environment_has(|entry| entry.starts_with(MARK.as_bytes())) {
        Ok(marked) => Ok(marked),
        Err(error) if process::is_no_room(&error) => Err(error),
        // Whose environment may not be read is no child of ours.
        Err(_) => Ok(false),
    }
}

/// Whether a part of the path is, or holds between other characters, this id: `cri-ID.scope`.
fn names(path: &str, id: &str) -> bool {
    path.split(|byte: char| !byte.is_ascii_alphanumeric())
        .any(|part| part.starts_with(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: TargetSelector, expected: Option<u32>) {
        let found = find(&selector, "taskwright-none", &[]);
        let pid = found.map(|found| found.map(|target| target.process.pid));
        assert_eq!(pid, Ok(expected), "{selector:?}");
    }

    #[test]
    fn this_process_is_never_a_target() {
        let own = std::process::id();
        check(TargetSelector::Pid(own), None);
        let parent = daemonize::parent().cast_unsigned();
        check(TargetSelector::Pid(parent), Some(parent));
        check(TargetSelector::Pid(0), None);
        check(TargetSelector::Pid(u32::MAX), None);
    }

    #[test]
    fn descriptions_that_fit_too_much_are_refused() {
        let refused = |selector| find(&selector, "taskwright-none", &[]).is_err();
        assert!(refused(TargetSelector::ContainerId("abc".to_owned())));
        assert!(refused(TargetSelector::ContainerId("..".repeat(9))));
        assert!(refused(TargetSelector::Cgroup("/".to_owned())));
        assert!(refused(TargetSelector::Cgroup("a/b".to_owned())));
        let (name, value) = ("A=B".to_owned(), String::new());
        assert!(refused(TargetSelector::Variable { name, value }));
    }

    #[test]
    fn an_id_is_found_in_the_paths_of_every_runtime() {
        let id = "e3b0c44298fc1c149afbf4c8996fb924";
        for path in [
            format!("/kubepods/burstable/pod1/{id}"),
            format!("/kubepods.slice/cri-containerd-{id}.scope"),
            format!("/system.slice/docker-{id}.scope/init"),
        ] {
            assert!(names(&path, id), "{path}");
            assert!(names(&path, "e3b0c44298fc"), "{path}");
            assert!(!names(&path, "c44298fc1c14"), "{path}");
        }
    }
}
