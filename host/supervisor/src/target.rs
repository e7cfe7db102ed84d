//! Finding the process whose namespaces a unit enters: one look through `/proc`.
//!
//! What is no target: what ends or has ended, kernel threads, units of ours and all that came from
//! them, this daemon and every supervisor and guardian above or beside it. What came from a unit is
//! known by the mark in its environment or by its cgroup; by an ancestor, or a leader of its
//! session or process group, of which that is true; and by the supervisor or guardian above it,
//! which adopt what daemonised. Of what is left the oldest is taken, so the answer is the same as
//! long as that one lives. All that fit are counted, children of the one that is taken, too: who
//! wants exactly one must see to it that the description fits one.
//!
//! Processes come and go during the look; one that vanishes is none.

use std::io;
use std::path::PathBuf;

use futures::future::BoxFuture;
use taskwright_capability::{NamespaceHost, StopError, Target, TargetSelector};
use taskwright_model::ProcessIdentity;
use taskwright_native::process::Stat;
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
            let ours = Ours::new(
                self.nickname(),
                [status.supervisor_pid, status.guardian_pid],
            );
            aside(move || find(&selector, &ours)).await
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

fn find(selector: &TargetSelector, ours: &Ours) -> Result<Option<Target>, String> {
    let wanted = Wanted::of(selector)?;
    let never = |pid: i32| pid == daemonize::this_process() || ours.keepers.contains(&pid);
    let all = match wanted {
        Wanted::Pid(pid) => vec![pid],
        _ => process::all().map_err(|error| no_room(&error))?,
    };
    let mut candidates = 0;
    let mut oldest: Option<(u64, i32)> = None;
    for pid in all.into_iter().filter(|pid| !never(*pid)) {
        match wanted.fits(pid, ours) {
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
    fn fits(&self, pid: i32, ours: &Ours) -> io::Result<Option<u64>> {
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
        if ours.came_from_them(pid, &stat)? {
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

/// By what our units, and all that came from them, are known.
struct Ours {
    /// The names of the directories with their groups.
    groups: [String; 2],
    /// The supervisor and its guardian, who adopt what daemonised.
    keepers: Vec<i32>,
}

/// So many ancestors are looked at. A process cannot make them more without leaving some alive.
const MOST_ANCESTORS: usize = 256;

impl Ours {
    fn new(nickname: String, keepers: [u32; 2]) -> Self {
        let keepers = keepers.map(u32::cast_signed).into_iter();
        Self {
            groups: [format!("{nickname}-limited"), nickname],
            // 0 is nobody, and everybody's ancestor.
            keepers: keepers.filter(|pid| *pid > 0).collect(),
        }
    }

    /// Whether a process is a unit's, or came from one.
    fn came_from_them(&self, pid: i32, stat: &Stat) -> io::Result<bool> {
        if self.shows(pid)? {
            return Ok(true);
        }
        // Their numbers are not used again as long as they have members.
        let leaders = [stat.session, stat.group].into_iter();
        for leader in leaders.filter(|leader| *leader > 1 && *leader != pid) {
            if absent_is_false(self.shows(leader))? {
                return Ok(true);
            }
        }
        let mut ancestor = stat.parent;
        for _ in 0..MOST_ANCESTORS {
            if ancestor <= 1 {
                return Ok(false);
            }
            if self.keepers.contains(&ancestor) || absent_is_false(self.shows(ancestor))? {
                return Ok(true);
            }
            ancestor = match process::stat(ancestor) {
                Ok(stat) => stat.parent,
                Err(error) if process::is_no_room(&error) => return Err(error),
                // It ended meanwhile: somebody adopted its children.
                Err(_) => process::stat(pid)?.parent,
            };
        }
        Ok(true)
    }

    /// Whether it shows itself that it is a unit's: by its cgroup, or the mark.
    fn shows(&self, pid: i32) -> io::Result<bool> {
        let facts = Facts::of(pid);
        let is_one = |part: &str| self.groups.iter().any(|group| group == part);
        if facts
            .cgroups()?
            .iter()
            .any(|path| path.split('/').any(is_one))
        {
            return Ok(true);
        }
        // Whose environment may not be read is no child of ours.
        absent_is_false(facts.environment_has(|entry| entry.starts_with(MARK.as_bytes())))
    }
}

/// What cannot be looked at is not so, unless there was no room for the look.
fn absent_is_false(look: io::Result<bool>) -> io::Result<bool> {
    match look {
        Err(error) if !process::is_no_room(&error) => Ok(false),
        look => look,
    }
}

/// Whether a part of the path is, or holds between other characters, this id: `cri-ID.scope`. The
/// group of the program that watches over the container has its id, too: `crio-conmon-ID.scope`.
fn names(path: &str, id: &str) -> bool {
    let mut groups = path.split('/');
    !path.contains("conmon-")
        && groups.any(|group| {
            group
                .split(|byte: char| !byte.is_ascii_alphanumeric())
                .any(|part| part.starts_with(id))
        })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn nobodys() -> Ours {
        Ours::new("taskwright-none".to_owned(), [0, 0])
    }

    #[test]
    fn what_the_supervisor_adopted_is_never_a_target() {
        use std::process::{Command, Stdio};
        // It shows nothing: neither a mark, nor a group of ours.
        let script = "env -i sleep 60 & wait";
        let mut child = Command::new("/bin/sh");
        let child = child.args(["-c", script]).stdin(Stdio::null());
        let mut child = child.spawn().unwrap();
        let parent = child.id();
        let begun = std::time::Instant::now();
        let sleep = loop {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10));
            let all = process::all().unwrap();
            let is_child = |pid: &i32| {
                process::stat(*pid).is_ok_and(|stat| stat.parent == parent.cast_signed())
            };
            if let Some(pid) = all.into_iter().find(is_child) {
                break pid.cast_unsigned();
            }
        };
        let found = |keeper| {
            let ours = Ours::new("taskwright-none".to_owned(), [keeper, 0]);
            let found = find(&TargetSelector::Pid(sleep), &ours).unwrap();
            found.map(|target| target.process.pid)
        };
        assert_eq!(found(0), Some(sleep));
        // Of anybody above it.
        assert_eq!(found(parent), None);
        assert_eq!(found(std::process::id()), None);
        let ticks = process::stat(sleep.cast_signed()).unwrap().start_ticks;
        let pidfd = process::open_if_same(sleep.cast_signed(), ticks).unwrap();
        process::signal(&pidfd, 9).unwrap();
        child.wait().unwrap();
    }

    fn check(selector: TargetSelector, expected: Option<u32>) {
        let found = find(&selector, &nobodys());
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
        let refused = |selector| find(&selector, &nobodys()).is_err();
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
        assert!(!names(&format!("/pod1/crio-conmon-{id}.scope"), id));
    }
}
