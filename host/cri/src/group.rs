//! On cgroup v1: the group that counts a container's processes, made before the runtime puts the
//! container into it, since CRI has no word for the limit.
//!
//! What is claimed to be enforced is looked at once the container runs. This fits containerd with
//! its own cgroup driver; a runtime that puts containers elsewhere is found out, and the container
//! is refused.

use std::io;
use std::path::Path;
use std::time::Duration;

use taskwright_capability::ContainerError;
use taskwright_model::{Confinement, Enforced, Restriction, UnitKey};

use crate::confine::{self, CGROUPS, Confined, Machine, PidsLimit};
use crate::fault;
use crate::host::Inner;
use crate::messages as m;
use crate::sandbox::pid_of;
use crate::track::attempt_of;

/// Looks at the group of a process that was just started.
const GROUP_LOOKS: u32 = 20;
const GROUP_PAUSE: Duration = Duration::from_millis(10);

impl Inner {
    /// The limit that was set in the group of ours a container is to be in, and that group.
    pub(crate) fn own_limit(&self, key: &UnitKey, container: &str) -> Option<(String, String)> {
        let parent = self.cgroup_of(attempt_of(key));
        let machine = Machine::look(Path::new(CGROUPS), &parent);
        let PidsLimit::OwnGroup(below) = machine.pids else {
            return None;
        };
        let limit = std::fs::read_to_string(below.join(container).join("pids.max")).ok()?;
        let limit = limit.trim().to_owned();
        let group = format!("{}/{container}", parent.trim_end_matches('/'));
        (limit != "max").then_some((group, limit))
    }

    /// On cgroup v1, whether a container that was to be in a group of ours is in it. What is
    /// claimed to be enforced is enforced.
    pub(crate) async fn check_own_group(
        &self,
        key: &UnitKey,
        container: &str,
    ) -> Result<(), ContainerError> {
        let Some((wanted, limit)) = self.own_limit(key, container) else {
            return Ok(());
        };
        let answer = self.status_at_length(container).await;
        let answer = answer.map_err(fault::general)?;
        let status = answer.status.unwrap_or_default();
        let Some(pid) = pid_of(&answer.info) else {
            if status.state == m::ContainerState::Exited as i32 {
                return Ok(());
            }
            return Err(fault::refused(
                "the runtime does not tell its process, so its limit cannot be checked",
            ));
        };
        for _ in 0..GROUP_LOOKS {
            // One that is about to end shows no group, or another one.
            if is_dead(pid) {
                return Ok(());
            }
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
            if groups.is_ok_and(|groups| pids_group(&groups) == Some(wanted.as_str())) {
                return Ok(());
            }
            tokio::time::sleep(GROUP_PAUSE).await;
        }
        let word = Restriction::Pids.as_str();
        Err(fault::refused(&format!(
            "{word} ({}) cannot be enforced for a container: the runtime did not put it into \
             cgroup {wanted}",
            limit
        )))
    }
}

/// What is enforced of a container's confinement, now that it is created.
pub(crate) fn enforce(
    wanted: &Confinement,
    machine: &Machine,
    confined: &Confined,
    container: &str,
) -> Result<Enforced, ContainerError> {
    match make_own_group(confined, container) {
        Ok(()) => Ok(confined.enforced.clone()),
        Err(why) if wanted.best_effort => {
            let less = Confinement {
                pids: None,
                ..wanted.clone()
            };
            let mut enforced = confine::confine(&less, machine)?.enforced;
            enforced.leave_out(Restriction::Pids, why);
            Ok(enforced)
        }
        Err(why) => Err(fault::refused(&format!(
            "{} cannot be enforced for a container: {why}",
            Restriction::Pids.as_str()
        ))),
    }
}

/// Makes the group that counts a container's processes, before the runtime puts it there.
fn make_own_group(confined: &Confined, container: &str) -> Result<(), String> {
    let Some((below, most)) = &confined.own_group else {
        return Ok(());
    };
    let group = below.join(container);
    let make = || -> io::Result<()> {
        std::fs::create_dir_all(&group)?;
        std::fs::write(group.join("pids.max"), most.to_string())
    };
    make().map_err(|error| format!("{}: {error}", group.display()))
}

/// The runtime itself is counted while it starts a container, and says nothing of it when that is
/// too much.
pub(crate) fn with_pids_hint(detail: String, limit: Option<String>) -> String {
    match limit {
        None => detail,
        Some(limit) => format!(
            "{detail} (it may have {limit} processes, and a runtime needs some itself to start \
             it: ask for more)"
        ),
    }
}

/// Whether a process is gone or a zombie.
fn is_dead(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    after_name.is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// The group of the pids controller in `/proc/PID/cgroup`.
fn pids_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let of_pids = controllers.split(',').any(|one| one == "pids");
        of_pids.then_some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_pids_controller_is_found() {
        let groups = "9:name=systemd:/\n8:memory,pids:/a/b\n0::/\n";
        assert_eq!(pids_group(groups), Some("/a/b"));
        assert_eq!(pids_group("0::/x\n"), None);
    }
}
