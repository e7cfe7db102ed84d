//! What is asked of the loop, and what it answers. Dialects convert to and from these.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use taskwright_model::{Namespace, Task, TaskId, TaskKey, TaskName, TaskSpec};

use crate::port::SpecProblem;

/// A task to be accepted.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its name and where that is unique.
    pub key: TaskKey,
    /// What is wanted. Parsed and checked by the dialect; strategies check it again.
    pub spec: Arc<TaskSpec>,
    /// The client's word for this request, if it wants repeats to be noticed.
    pub idempotency: Option<IdempotencyKey>,
}

/// A client's word for a request: a repeat answers with the first result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's key, 1 to 255 bytes. Scoped to the namespace.
    pub key: String,
    /// A digest of the request's body, so that another request under the same key is refused.
    pub fingerprint: [u8; 32],
}

/// An accepted task.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The task, durable.
    pub task: Arc<Task>,
    /// Whether an earlier request with the same idempotency key made it.
    pub replayed: bool,
}

/// Why a task was not accepted. Nothing of it was stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The spec has problems, all of them listed.
    #[error("the task has {} problem(s)", .0.len())]
    Invalid(Vec<SpecProblem>),
    /// The name is in use.
    #[error("a task named {name} exists already")]
    Exists {
        /// The name.
        name: TaskName,
        /// Whether that task is being deleted, so that trying again soon will do.
        deleting: bool,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The idempotency key made a task that has been deleted since.
    #[error("the idempotency key made a task that has been deleted since")]
    KeySpent,
    /// As many tasks are on record as the daemon takes.
    #[error("{most} tasks are on record, which is the limit")]
    TooMany {
        /// The limit.
        most: usize,
    },
    /// A policy refuses it.
    #[error("policy {policy} refuses the task: {reason}")]
    Denied {
        /// The policy's name.
        policy: String,
        /// Why, for people.
        reason: String,
        /// The field, as a JSON pointer into the task's document; empty for all of it.
        field: String,
    },
    /// The loop could not do it.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Why the loop could not do what was asked, whatever it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ControlError {
    /// The store could not make it durable. Nothing was changed.
    #[error("the store could not keep it: {message}")]
    Store {
        /// What happened, for people.
        message: String,
        /// Whether the disk is full.
        disk_full: bool,
    },
    /// More requests wait than the daemon takes.
    #[error("too many requests wait for an answer")]
    Busy,
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    Closed,
    /// No policy asks anything about the task.
    #[error("no policy asks anything about this task")]
    NotAsked,
    /// Another task than the one that was meant has the name by now.
    #[error("the task of this name is another one, {id}: the one that was meant is gone")]
    OtherTask {
        /// The one that there is.
        id: TaskId,
    },
    /// The strategy that checks the task failed; not the task's fault.
    #[error("{message}")]
    Strategy {
        /// What happened, for people.
        message: String,
    },
}

/// One element of a wanted set.
#[derive(Clone, Debug)]
pub enum SetElement {
    /// A task that should be there.
    Wanted(Submission),
    /// A task that should be there and whose spec the dialect could not read: whatever
    /// runs under this name is kept.
    Keep(TaskName),
}

/// What a set request made of its namespace.
#[derive(Clone, Debug)]
pub struct SetAnswer {
    /// Every task of the namespace: live ones first, then ended ones, then those being
    /// deleted; in order of submission within each.
    pub tasks: Vec<Arc<Task>>,
    /// What could not be had, by name. The rest was done.
    pub problems: Vec<SetProblem>,
}

/// An element that could not be had.
#[derive(Clone, Debug)]
pub struct SetProblem {
    /// The element's name.
    pub name: TaskName,
    /// The problem, for people.
    pub message: String,
    /// Each field that is wrong with it, where it is that.
    pub details: Vec<SpecProblem>,
    /// Whether a task of that name is listed all the same: the present one, kept as it is.
    pub kept_present: bool,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// Only with all of these labels.
    pub labels: Vec<LabelMatch>,
    /// Only in one of these states (`TaskState::as_str`); empty means any.
    pub states: Vec<String>,
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelMatch {
    /// `key=value`
    Equals(String, String),
    /// `key!=value`
    Differs(String, String),
    /// `key`
    Exists(String),
    /// `!key`
    Missing(String),
}

impl LabelMatch {
    /// Whether it holds for these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Equals(key, value) => labels.get(key) == Some(value),
            Self::Differs(key, value) => labels.get(key) != Some(value),
            Self::Exists(key) => labels.contains_key(key),
            Self::Missing(key) => !labels.contains_key(key),
        }
    }
}

impl fmt::Display for LabelMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(key, value) => write!(f, "{key}={value}"),
            Self::Differs(key, value) => write!(f, "{key}!={value}"),
            Self::Exists(key) => f.write_str(key),
            Self::Missing(key) => write!(f, "!{key}"),
        }
    }
}

/// A page of tasks in order of submission.
#[derive(Clone, Debug)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Arc<Task>>,
    /// Where the next page begins, if there is one.
    pub next: Option<TaskId>,
}

/// How long a waiter may wait at most; longer wishes are cut to this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);
