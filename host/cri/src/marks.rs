//! How our objects are told from everybody else's, and found again.
//!
//! Everything carries the instance id of the daemon that made it. What lacks it, or carries
//! another one, belongs to somebody else, whatever else it says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use taskwright_capability::container::Network;
use taskwright_model::{AttemptNumber, TaskId, UnitKey, UnitName};

use crate::messages::{PodSandboxMetadata, PodSandboxState};

const INSTANCE: &str = "taskwright.dev/instance";
const TASK: &str = "taskwright.dev/task";
const ATTEMPT: &str = "taskwright.dev/attempt";
const UNIT: &str = "taskwright.dev/unit";
const NAME: &str = "taskwright.dev/name";
const DIRECTORY: &str = "taskwright.dev/directory";
const NETWORK: &str = "taskwright.dev/network";
const SHARE_PIDS: &str = "taskwright.dev/share-pids";
const PRIVILEGED: &str = "taskwright.dev/privileged";

/// What objects carry: labels to be found by, annotations to be understood by.
pub(crate) type Texts = HashMap<String, String>;

/// An attempt of a task.
pub(crate) type AttemptKey = (TaskId, AttemptNumber);

/// What every object of one daemon has in common.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    instance: String,
}

impl Marks {
    pub(crate) fn new(instance: String) -> Self {
        Self { instance }
    }

    /// Of everything that is ours.
    pub(crate) fn all(&self) -> Texts {
        Texts::from([(INSTANCE.to_owned(), self.instance.clone())])
    }

    /// Of everything of a task.
    pub(crate) fn task(&self, task: TaskId) -> Texts {
        let mut labels = self.all();
        labels.insert(TASK.to_owned(), task.to_string());
        labels
    }

    /// Of everything of an attempt; a sandbox has exactly these.
    pub(crate) fn attempt(&self, (task, attempt): AttemptKey) -> Texts {
        let mut labels = self.task(task);
        labels.insert(ATTEMPT.to_owned(), attempt.to_string());
        labels
    }

    /// Of a container.
    pub(crate) fn unit(&self, unit: &UnitKey) -> Texts {
        let mut labels = self.attempt((unit.task, unit.attempt));
        labels.insert(UNIT.to_owned(), unit.unit.to_string());
        labels
    }

    /// The cgroup of an attempt, in a directory that daemons may share.
    pub(crate) fn group(&self, (task, attempt): AttemptKey) -> String {
        format!("{}{task}-{attempt}", self.group_prefix())
    }

    /// Whose cgroup this is; `None` when it is not ours.
    pub(crate) fn attempt_of_group(&self, name: &str) -> Option<AttemptKey> {
        let rest = name.strip_prefix(&self.group_prefix())?;
        let (task, attempt) = rest.rsplit_once('-')?;
        let attempt = AttemptNumber(attempt.parse().ok()?);
        Some((TaskId::parse(task).ok()?, attempt))
    }

    fn group_prefix(&self) -> String {
        format!("tw-{}-", self.instance)
    }

    /// Whose sandbox this is; `None` when it is not ours.
    pub(crate) fn attempt_of(&self, labels: &Texts) -> Option<AttemptKey> {
        if labels.get(INSTANCE) != Some(&self.instance) {
            return None;
        }
        let task = TaskId::parse(labels.get(TASK)?).ok()?;
        let attempt = labels.get(ATTEMPT)?.parse().ok()?;
        Some((task, AttemptNumber(attempt)))
    }

    /// Which unit this container is; `None` when it is not ours.
    pub(crate) fn unit_of(&self, labels: &Texts) -> Option<UnitKey> {
        let (task, attempt) = self.attempt_of(labels)?;
        let unit = UnitName::parse(labels.get(UNIT)?).ok()?;
        Some(UnitKey {
            task,
            attempt,
            unit,
        })
    }

    /// The runtime's name for a sandbox: the same for the same attempt, so that making it twice
    /// meets the first.
    pub(crate) fn sandbox_metadata(&self, (task, attempt): AttemptKey) -> PodSandboxMetadata {
        PodSandboxMetadata {
            name: format!("tw-{task}"),
            uid: format!("{}-{task}", self.instance),
            namespace: "taskwright".to_owned(),
            attempt: attempt.0,
        }
    }
}

/// Whether an object carries all of `wanted`. The runtime filters too; this does not rely on it.
pub(crate) fn carries(labels: &Texts, wanted: &Texts) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// What must be known of a sandbox when containers are created in it, possibly by a later life
/// of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxNotes {
    pub(crate) name: String,
    pub(crate) network: Network,
    pub(crate) share_pids: bool,
    pub(crate) privileged: bool,
}

impl SandboxNotes {
    pub(crate) fn annotations(&self) -> Texts {
        let network = match self.network {
            Network::Host => "host",
            Network::None => "none",
            Network::Pod => "pod",
        };
        let texts = [
            (NAME, self.name.as_str()),
            (NETWORK, network),
            (SHARE_PIDS, yes_or_no(self.share_pids)),
            (PRIVILEGED, yes_or_no(self.privileged)),
        ];
        texts
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// `None` when somebody else's hand was at it.
    pub(crate) fn read(annotations: &Texts) -> Option<Self> {
        let network = match annotations.get(NETWORK)?.as_str() {
            "host" => Network::Host,
            "none" => Network::None,
            "pod" => Network::Pod,
            _ => return None,
        };
        Some(Self {
            name: annotations.get(NAME)?.clone(),
            network,
            share_pids: annotations.get(SHARE_PIDS)? == "yes",
            privileged: annotations.get(PRIVILEGED)? == "yes",
        })
    }
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// A container's annotations: where its output goes.
pub(crate) fn container_annotations(directory: &Path) -> Texts {
    let directory = directory.to_string_lossy().into_owned();
    Texts::from([(DIRECTORY.to_owned(), directory)])
}

/// Where a container's output goes.
pub(crate) fn directory_of(annotations: &Texts) -> Option<PathBuf> {
    let directory = PathBuf::from(annotations.get(DIRECTORY)?);
    directory.is_absolute().then_some(directory)
}

/// Whether a sandbox's state is the one in which containers can be started.
pub(crate) fn is_ready(state: i32) -> bool {
    state == PodSandboxState::Ready as i32
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn unit() -> UnitKey {
        UnitKey {
            task: TaskId::from_u128(7),
            attempt: AttemptNumber(2),
            unit: UnitName::parse("main").unwrap(),
        }
    }

    #[test]
    fn a_unit_is_read_back_from_its_labels() {
        let marks = Marks::new("one".to_owned());
        assert_eq!(marks.unit_of(&marks.unit(&unit())), Some(unit()));
        assert!(carries(&marks.unit(&unit()), &marks.task(unit().task)));
    }

    #[test]
    fn what_another_instance_made_is_not_ours() {
        let ours = Marks::new("one".to_owned());
        let theirs = Marks::new("two".to_owned());
        assert_eq!(ours.unit_of(&theirs.unit(&unit())), None);
        assert_eq!(ours.attempt_of(&theirs.unit(&unit())), None);
        assert!(!carries(&theirs.unit(&unit()), &ours.all()));
        assert_eq!(ours.attempt_of(&Texts::new()), None);
    }

    #[test]
    fn a_group_is_read_back_from_its_name_by_its_own_daemon_only() {
        let ours = Marks::new("one".to_owned());
        let attempt = (unit().task, unit().attempt);
        let name = ours.group(attempt);
        assert_eq!(ours.attempt_of_group(&name), Some(attempt));
        for other in ["two", "on", "one-"] {
            let theirs = Marks::new(other.to_owned());
            assert_eq!(theirs.attempt_of_group(&name), None, "{other}");
        }
        for name in ["tw-one-", "tw-one-x-1", "system.slice"] {
            assert_eq!(ours.attempt_of_group(name), None, "{name}");
        }
    }

    #[test]
    fn labels_that_mean_nothing_name_nobody() {
        let marks = Marks::new("one".to_owned());
        for (key, value) in [(TASK, "x"), (ATTEMPT, "-1"), (UNIT, "../main"), (UNIT, "")] {
            let mut labels = marks.unit(&unit());
            labels.insert(key.to_owned(), value.to_owned());
            assert_eq!(marks.unit_of(&labels), None, "{key}={value}");
        }
    }

    #[test]
    fn notes_of_a_sandbox_are_read_back() {
        for network in [Network::Host, Network::None, Network::Pod] {
            let notes = SandboxNotes {
                name: "build".to_owned(),
                network,
                share_pids: true,
                privileged: false,
            };
            assert_eq!(SandboxNotes::read(&notes.annotations()), Some(notes));
        }
        assert_eq!(SandboxNotes::read(&Texts::new()), None);
    }

    #[test]
    fn a_directory_is_absolute() {
        let annotations = container_annotations(Path::new("/data/a"));
        assert_eq!(directory_of(&annotations), Some("/data/a".into()));
        let relative = container_annotations(Path::new("a"));
        assert_eq!(directory_of(&relative), None);
    }
}
