//! Where the things of a task are.

use std::path::{Path, PathBuf};

use taskwright_model::{Namespace, TaskId, TaskKey};

use super::data_dir::DataDir;

/// Where the things of a task are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    root: PathBuf,
    scratch: PathBuf,
}

impl Places {
    /// Places in a data directory.
    pub(crate) fn of(data_dir: &DataDir) -> Self {
        Self {
            root: data_dir.root().to_owned(),
            scratch: data_dir.own().join("scratch"),
        }
    }

    /// A task's directory, relative to the data directory. Where the reference executor has
    /// it; the tasks of other dialects stand apart, so that no name of theirs meets one of
    /// these.
    pub(crate) fn below_data_dir(&self, key: &TaskKey) -> PathBuf {
        if key.namespace == Namespace::native() {
            return PathBuf::from(key.name.as_str());
        }
        Path::new(".taskwright")
            .join("tasks")
            .join(key.namespace.as_str())
            .join(key.name.as_str())
    }

    /// A task's directory, absolute.
    pub(crate) fn task(&self, key: &TaskKey) -> PathBuf {
        self.root.join(self.below_data_dir(key))
    }

    /// What a plugin keeps for a task.
    pub(crate) fn scratch(&self, task: TaskId) -> PathBuf {
        self.scratch.join(task.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use taskwright_model::TaskName;

    use super::*;

    fn below(namespace: &str) -> PathBuf {
        let places = Places {
            root: "/data".into(),
            scratch: "/data/.taskwright/scratch".into(),
        };
        places.task(&TaskKey {
            namespace: Namespace::parse(namespace).unwrap(),
            name: TaskName::parse("a").unwrap(),
        })
    }

    #[test]
    fn tasks_of_the_contract_are_where_the_contract_says() {
        assert_eq!(below("default"), Path::new("/data/a"));
        assert_eq!(below("kube"), Path::new("/data/.taskwright/tasks/kube/a"));
    }
}
