//! What a worker needs of this machine: tasks that run, their output, their end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use taskwright_control::Control;
use taskwright_control::port::{OutputChunk, OutputError, Stream};
use taskwright_control::request::{
    ControlError, LabelMatch, Selector, Submission, SubmitError, Submitted,
};
use taskwright_model::{Namespace, Task, TaskKey, TaskName, TaskSpec};
use taskwright_queue::WorkerId;

use crate::folder::{Folder, Inside};
use crate::template::{Place, WORKER_LABEL};

/// Reads a task as the native API takes it; tells every problem of one that cannot be read.
pub type ReadTask = dyn Fn(&Value) -> Result<(TaskName, TaskSpec), Vec<String>> + Send + Sync;

/// Where attempts find their folder in a container.
const MOUNTED_AT: &str = "/taskwright";
/// Runs of one worker that are looked at.
const MOST_RUNS: usize = 10_000;

/// Why an attempt could not be started here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// The template makes no task that this machine takes.
    #[error("{0}")]
    Refused(String),
    /// It may be possible later.
    #[error("{0}")]
    Later(String),
}

/// Tasks of this machine that workers run. Clones share everything.
#[derive(Clone)]
pub struct Runs {
    control: Control,
    read: Arc<ReadTask>,
    root: PathBuf,
    largest_result: u64,
}

impl Runs {
    /// Runs by `control`, with their folders below `root`.
    #[must_use]
    pub fn new(control: Control, read: Arc<ReadTask>, root: PathBuf, largest_result: u64) -> Self {
        Self {
            control,
            read,
            root,
            largest_result,
        }
    }

    fn key(name: TaskName) -> TaskKey {
        TaskKey {
            namespace: Namespace::queue(),
            name,
        }
    }

    /// The largest result that is taken, in bytes.
    #[must_use]
    pub fn largest_result(&self) -> u64 {
        self.largest_result
    }

    /// The key of a run.
    ///
    /// # Errors
    /// When its name is no name.
    pub fn named(name: &str) -> Result<TaskKey, StartError> {
        let name = TaskName::parse(name).map_err(|error| StartError::Refused(error.to_string()))?;
        Ok(Self::key(name))
    }

    /// The folder of a run whose files are at `place`.
    #[must_use]
    pub fn folder(&self, name: &str, place: Place<'_>) -> Folder {
        let root = match place {
            Place::Shared(shared) => &shared.outside,
            Place::Same | Place::Mounted | Place::None => &self.root,
        };
        Folder::at(root.join(name))
    }

    /// How a run sees its folder.
    #[must_use]
    pub fn inside(folder: &Folder, name: &str, place: Place<'_>) -> Option<Inside> {
        let outside = folder.path().to_owned();
        let (directory, mounted) = match place {
            Place::Same => (outside.display().to_string(), false),
            Place::Mounted => (MOUNTED_AT.to_owned(), true),
            Place::Shared(shared) => {
                let below = shared.inside.trim_end_matches('/');
                (format!("{below}/{name}"), false)
            }
            Place::None => return None,
        };
        Some(Inside {
            outside,
            directory,
            mounted,
        })
    }

    /// Reads a task, so that its folder can be made for whoever runs it.
    ///
    /// # Errors
    /// Every problem, as one text.
    pub fn read(&self, task: &Value) -> Result<TaskSpec, StartError> {
        let read = (self.read)(task);
        let (_, spec) = read.map_err(|problems| StartError::Refused(problems.join("; ")))?;
        Ok(spec)
    }

    /// A run that is on record.
    #[must_use]
    pub fn get(&self, key: &TaskKey) -> Option<Arc<Task>> {
        self.control.get(key)
    }

    /// Starts a run. One that was started already is answered as it is.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started then.
    pub async fn start(&self, key: &TaskKey, spec: TaskSpec) -> Result<(), StartError> {
        let submission = Submission {
            key: key.clone(),
            spec: Arc::new(spec),
            idempotency: None,
        };
        match self.control.submit(submission).await {
            Ok(Submitted { .. })
            | Err(SubmitError::Exists {
                deleting: false, ..
            }) => Ok(()),
            Err(SubmitError::Invalid(problems)) => {
                let told = problems
                    .iter()
                    .map(|problem| format!("{}: {}", problem.field, problem.message));
                Err(StartError::Refused(told.collect::<Vec<_>>().join("; ")))
            }
            Err(error @ SubmitError::Denied { .. }) => Err(StartError::Refused(error.to_string())),
            Err(error) => Err(StartError::Later(error.to_string())),
        }
    }

    /// The run once it has ended, or as it is after `at_most`; `None`: it is gone.
    ///
    /// # Errors
    /// When too many wait, or the daemon goes down.
    pub async fn wait(
        &self,
        key: &TaskKey,
        at_most: Duration,
    ) -> Result<Option<Arc<Task>>, ControlError> {
        self.control.wait(key, at_most).await
    }

    /// Up to `most` bytes of what it printed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn output(
        &self,
        key: &TaskKey,
        stream: Stream,
        offset: u64,
        most: usize,
    ) -> Result<OutputChunk, OutputError> {
        let outputs = self.control.outputs();
        outputs.read(key.clone(), stream, offset, most).await
    }

    /// Resolves when there may be more than `ends` of either stream, or after `at_most`.
    pub async fn grown(&self, key: &TaskKey, ends: [u64; 2], at_most: Duration) {
        let outputs = self.control.outputs();
        let [out, err] = ends;
        let grown = [
            outputs.grown(key.clone(), Stream::Stdout, out, at_most),
            outputs.grown(key.clone(), Stream::Stderr, err, at_most),
        ];
        futures::future::select_all(grown).await;
    }

    /// Asks for a run to be stopped.
    ///
    /// # Errors
    /// When the wish was not kept.
    pub async fn stop(&self, key: &TaskKey) -> Result<(), ControlError> {
        self.control.stop(key.clone(), None).await.map(|_| ())
    }

    /// Asks for a run to be stopped and removed.
    ///
    /// # Errors
    /// When the wish was not kept.
    pub async fn delete(&self, key: &TaskKey) -> Result<(), ControlError> {
        self.control.delete(key.clone()).await.map(|_| ())
    }

    /// The runs that a worker began, in order.
    #[must_use]
    pub fn of_worker(&self, worker: &WorkerId) -> Vec<Arc<Task>> {
        let selector = Selector {
            namespace: Some(Namespace::queue()),
            labels: vec![LabelMatch::Equals(
                WORKER_LABEL.to_owned(),
                worker.as_str().to_owned(),
            )],
            ..Selector::default()
        };
        self.control.list(&selector, None, MOST_RUNS).tasks
    }
}
