//! Stopping, killing, and taking away what is no longer needed.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use taskwright_capability::StopError;
use taskwright_capability::container::IsLive;
use taskwright_model::{AttemptNumber, TaskId, UnitKey};

use crate::confine::CGROUPS;
use crate::fault;
use crate::host::Inner;
use crate::marks::{AttemptKey, Texts};
use crate::messages as m;
use crate::rpc::RpcError;

/// How long a stop goes on being tried while the runtime cannot be reached.
const STOP_TRIES: u32 = 300;
const STOP_PAUSE: Duration = Duration::from_secs(2);
/// What a stop may take beyond its grace.
const BEYOND_GRACE: Duration = Duration::from_secs(60);
/// How long output that is left may take when an attempt is removed.
const LAST_OUTPUT_WITHIN: Duration = Duration::from_secs(2);
/// Looks at a cgroup until the kernel lets it go.
const GROUP_LOOKS: u32 = 20;
const GROUP_PAUSE: Duration = Duration::from_millis(25);
/// The longest grace that is passed on: a day.
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// The directory of an attempt, for its containers' logs and empty directories.
pub(crate) fn path_of_attempt(state_dir: &Path, (task, attempt): AttemptKey) -> PathBuf {
    state_dir.join(task.to_string()).join(attempt.to_string())
}

impl Inner {
    /// See `ContainerHost::stop`.
    pub(crate) async fn stop(
        self: Arc<Self>,
        key: UnitKey,
        grace: Duration,
    ) -> Result<(), StopError> {
        let found = self.containers(self.marks.unit(&key)).await;
        let found = found.map_err(|error| fault::order(&error))?;
        let runs = |container: &&m::Container| {
            container.state == m::ContainerState::Running as i32
                || container.state == m::ContainerState::Unknown as i32
        };
        let Some(container) = found.iter().find(runs) else {
            return Ok(());
        };
        let Ok(room) = self.stops.clone().try_acquire_owned() else {
            let detail = "too many containers are being stopped already".to_owned();
            return Err(StopError::Unavailable { detail });
        };
        let (inner, id) = (self.clone(), container.id.clone());
        self.spawn(async move {
            inner.stop_in_time(&id, grace.min(LONGEST_GRACE)).await;
            drop(room);
        });
        Ok(())
    }

    /// The protocol counts grace in seconds: what is finer is timed here.
    async fn stop_in_time(&self, container: &str, grace: Duration) {
        let seconds = grace.as_secs();
        if grace.subsec_nanos() == 0 {
            return self.stop_insistently(container, seconds).await;
        }
        let kill = async {
            tokio::time::sleep(grace).await;
            self.stop_insistently(container, 0).await;
        };
        // The first to end ends both: the container does not run any more.
        tokio::select! {
            () = self.stop_insistently(container, seconds + 1) => {}
            () = kill => {}
        }
    }

    async fn stop_insistently(&self, container: &str, seconds: u64) {
        for _ in 0..STOP_TRIES {
            match self.stop_once(container, seconds).await {
                Ok(()) => {
                    let _full = self.hints.try_send(container.to_owned());
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        container,
                        error = error.words(),
                        "a container could not be stopped; it is tried again"
                    );
                }
            }
            tokio::time::sleep(STOP_PAUSE).await;
        }
    }

    /// Stops a container; one that is gone is stopped.
    async fn stop_once(&self, container: &str, seconds: u64) -> Result<(), RpcError> {
        let request = m::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let within = Duration::from_secs(seconds).saturating_add(BEYOND_GRACE);
        gone_is_fine(self.runtime.call_within(request, within).await)
    }

    /// See `ContainerHost::terminate`.
    pub(crate) async fn terminate(&self, attempt: AttemptKey) -> Result<(), StopError> {
        let found = self.containers(self.marks.attempt(attempt)).await;
        let found = found.map_err(|error| fault::order(&error))?;
        let kills = found.iter().map(|container| async move {
            if container.state == m::ContainerState::Exited as i32 {
                return Ok(());
            }
            if container.state == m::ContainerState::Created as i32
                && self.remove_container(&container.id).await.is_ok()
            {
                return Ok(());
            }
            self.stop_once(&container.id, 0).await
        });
        for killed in join_all(kills).await {
            killed.map_err(|error| fault::order(&error))?;
        }
        for container in found {
            let _full = self.hints.try_send(container.id);
        }
        Ok(())
    }

    /// See `ContainerHost::release`.
    pub(crate) async fn release(&self, attempt: AttemptKey) -> Result<(), StopError> {
        let units = self.tracker.leave(attempt);
        if let Err(error) = self.remove_objects(attempt).await {
            self.tracker.stays(attempt);
            return Err(fault::order(&error));
        }
        let last = units
            .iter()
            .map(|unit| unit.pump.finish(LAST_OUTPUT_WITHIN));
        join_all(last).await;
        drop(units);
        self.tracker.close_book(attempt);
        let place = path_of_attempt(&self.config.state_dir, attempt);
        let removed = tokio::task::spawn_blocking(move || remove_place(&place)).await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, task = %attempt.0,
                "the directory of a removed container is not removed yet"),
            Err(error) => tracing::warn!(%error, "a directory could not be removed"),
        }
        self.remove_groups(attempt).await;
        self.tracker.left(attempt);
        Ok(())
    }

    async fn remove_objects(&self, attempt: AttemptKey) -> Result<(), RpcError> {
        let labels = self.marks.attempt(attempt);
        let containers = self.containers(labels.clone()).await?;
        let kills = containers.iter().map(|container| async move {
            if container.state == m::ContainerState::Running as i32 {
                self.stop_once(&container.id, 0).await?;
            }
            self.remove_container(&container.id).await
        });
        for removed in join_all(kills).await {
            removed?;
        }
        for sandbox in self.list_sandboxes(labels).await? {
            self.remove_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    async fn remove_container(&self, container: &str) -> Result<(), RpcError> {
        let request = m::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        gone_is_fine(self.runtime.call(request).await)
    }

    /// Stops and removes a sandbox and all in it; one that is gone is removed.
    pub(crate) async fn remove_sandbox(&self, sandbox: &str) -> Result<(), RpcError> {
        let stop = m::StopPodSandboxRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        gone_is_fine(self.runtime.call(stop).await)?;
        let remove = m::RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        gone_is_fine(self.runtime.call(remove).await)
    }

    /// See `ContainerHost::purge`.
    pub(crate) async fn purge(&self, task: TaskId) -> Result<(), StopError> {
        let mut attempts = self.attempts_with(self.marks.task(task)).await?;
        attempts.extend(self.tracker.attempts(task));
        let kept = attempts_on_disk(&self.config.state_dir);
        attempts.extend(kept.into_iter().filter(|(of, _)| *of == task));
        self.release_all(attempts).await
    }

    /// See `ContainerHost::sweep`.
    pub(crate) async fn sweep(&self, is_live: IsLive<'_>) -> Result<(), StopError> {
        let mut attempts = self.attempts_with(self.marks.all()).await?;
        attempts.extend(attempts_on_disk(&self.config.state_dir));
        attempts.extend(self.attempts_in_groups());
        attempts.retain(|(task, attempt)| !is_live(*task, *attempt));
        if !attempts.is_empty() {
            tracing::info!(
                attempts = attempts.len(),
                "removing what is left of attempts that nobody knows"
            );
        }
        self.release_all(attempts).await
    }

    /// All of them are tried, whatever becomes of one.
    async fn release_all(&self, attempts: HashSet<AttemptKey>) -> Result<(), StopError> {
        let mut outcome = Ok(());
        for attempt in attempts {
            let released = self.release(attempt).await;
            outcome = outcome.and(released);
        }
        outcome
    }

    async fn attempts_with(&self, labels: Texts) -> Result<HashSet<AttemptKey>, StopError> {
        let unreachable = |error: RpcError| fault::order(&error);
        let containers = self.containers(labels.clone()).await.map_err(unreachable)?;
        let sandboxes = self.list_sandboxes(labels).await.map_err(unreachable)?;
        let of_containers = containers.iter().map(|container| &container.labels);
        let of_sandboxes = sandboxes.iter().map(|sandbox| &sandbox.labels);
        Ok(of_containers
            .chain(of_sandboxes)
            .filter_map(|labels| self.marks.attempt_of(labels))
            .collect())
    }

    /// Every hierarchy's group of an attempt: the runtime removes the containers' own, not the
    /// one that it was told to put them under.
    async fn remove_groups(&self, attempt: AttemptKey) {
        let group = self.cgroup_of(attempt);
        if group.is_empty() || group.ends_with(".slice") {
            return;
        }
        for hierarchy in hierarchies() {
            let group = hierarchy.join(group.trim_start_matches('/'));
            for _ in 0..GROUP_LOOKS {
                if remove_empty_groups(&group).is_ok() {
                    break;
                }
                tokio::time::sleep(GROUP_PAUSE).await;
            }
        }
    }

    /// The attempts that have a group of their own.
    fn attempts_in_groups(&self) -> HashSet<AttemptKey> {
        let Some(parent) = &self.config.cgroup_parent else {
            return HashSet::new();
        };
        if parent.ends_with(".slice") {
            return HashSet::new();
        }
        let parents = hierarchies().into_iter();
        let parents = parents.map(|hierarchy| hierarchy.join(parent.trim_matches('/')));
        let names = parents.flat_map(|parent| names_in(&parent));
        names
            .filter_map(|name| self.marks.attempt_of_group(&name))
            .collect()
    }
}

fn gone_is_fine(answer: Result<m::Nothing, RpcError>) -> Result<(), RpcError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

fn attempt_from(task: &str, attempt: &str) -> Option<AttemptKey> {
    let attempt = AttemptNumber(attempt.parse().ok()?);
    Some((TaskId::parse(task).ok()?, attempt))
}

fn attempts_on_disk(state_dir: &Path) -> HashSet<AttemptKey> {
    let tasks = names_in(state_dir).into_iter();
    tasks
        .flat_map(|task| {
            let attempts = names_in(&state_dir.join(&task)).into_iter();
            let attempts = attempts.filter_map(move |attempt| attempt_from(&task, &attempt));
            attempts.collect::<Vec<_>>()
        })
        .collect()
}

/// The directories in a directory; none where it cannot be read.
fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let entries = entries.filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Where the kernel's cgroup hierarchies are mounted: one on v2, several on v1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let mut all = vec![root.to_owned()];
    if !root.join("cgroup.controllers").exists() {
        all = names_in(root)
            .into_iter()
            .map(|name| root.join(name))
            .collect();
    }
    all
}

/// Removes a group and those in it. Groups that hold processes stay, and are an error.
fn remove_empty_groups(group: &Path) -> io::Result<()> {
    for inner in names_in(group) {
        remove_empty_groups(&group.join(inner))?;
    }
    match std::fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes an attempt's directory, and its task's if that was the last. Links are removed, not
/// followed: what containers wrote into empty directories is their choice.
fn remove_place(place: &Path) -> io::Result<()> {
    if place.is_dir() {
        remove_flat(&place.join("dirs"), &place.join("removing"))?;
        std::fs::remove_dir_all(place)?;
    }
    if let Some(task) = place.parent() {
        // Another attempt may be there.
        let _not_empty = std::fs::remove_dir(task);
    }
    Ok(())
}

/// Removes a tree of any depth without descending: its depth was a container's choice, and a stack
/// has an end. Directories in it are moved up into `heap`, one level at a time.
fn remove_flat(tree: &Path, heap: &Path) -> io::Result<()> {
    match std::fs::create_dir(heap) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut next = 0_u64;
    match move_up(tree, heap, &mut next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    while let Some(first) = std::fs::read_dir(heap)?.next() {
        let directory = first?.path();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                move_up(&entry.path(), heap, &mut next)?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        match std::fs::remove_dir(&directory) {
            // A list that changes while it is read may leave something out.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => other?,
        }
    }
    Ok(())
}

/// Moves a directory into `heap` under a name of its own.
fn move_up(directory: &Path, heap: &Path, next: &mut u64) -> io::Result<()> {
    loop {
        *next += 1;
        match std::fs::rename(directory, heap.join(next.to_string())) {
            // Of a removal that a crash cut short.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_directory_of_any_depth_goes_and_links_are_not_followed() {
        let state = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "").unwrap();
        let place = state.path().join("task/1");
        let dirs = place.join("dirs");
        std::fs::create_dir_all(dirs.join("work")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dirs.join("work/link")).unwrap();
        // Deeper than any path may be long: built from the inside out.
        let mut inner = state.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        for level in 0..5000 {
            let outer = state.path().join(format!("outer{level}"));
            std::fs::create_dir(&outer).unwrap();
            std::fs::rename(&inner, outer.join("d")).unwrap();
            inner = outer;
        }
        std::fs::rename(&inner, dirs.join("work/deep")).unwrap();
        // What a removal that was cut short left.
        std::fs::create_dir_all(place.join("removing/1/x")).unwrap();
        remove_place(&place).unwrap();
        remove_place(&place).unwrap();
        assert!(!place.exists() && !state.path().join("task").exists());
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn attempts_are_found_by_their_directories() {
        let state = tempfile::tempdir().unwrap();
        let task = TaskId::from_u128(5);
        let path = path_of_attempt(state.path(), (task, AttemptNumber(2)));
        std::fs::create_dir_all(path).unwrap();
        std::fs::create_dir_all(state.path().join("other/1")).unwrap();
        let found = attempts_on_disk(state.path());
        assert_eq!(found, HashSet::from([(task, AttemptNumber(2))]));
    }
}
