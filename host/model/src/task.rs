//! The one aggregate: a task with its state and its attempts.

use std::sync::Arc;

use crate::confinement::Enforced;
use crate::id::{AttemptNumber, RuntimeName, TaskId, TaskKey};
use crate::outcome::Outcome;
use crate::review::{Decision, Hold, Review, Round, pause_after};
use crate::spec::TaskSpec;
use crate::state::TaskState;
use crate::time::Timestamp;

/// A task. Cheap to clone as long as it has few attempts: the spec is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id, never used again.
    pub id: TaskId,
    /// Its name and where that is unique.
    pub key: TaskKey,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// The runtime that takes it, resolved at submission.
    pub runtime: RuntimeName,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Where it is in its life.
    pub state: TaskState,
    /// Every attempt made, first to last. At most `spec.retry.max_attempts`.
    pub attempts: Vec<Attempt>,
    /// Since when it is wished away. A wish, not a state: it ends first.
    pub deleting_since: Option<Timestamp>,
    /// What policies and people said; `None` as long as nobody was asked.
    pub review: Option<Arc<Review>>,
}

impl Task {
    /// A task as it is accepted: waiting, no attempt made.
    #[must_use]
    pub fn new(
        id: TaskId,
        key: TaskKey,
        spec: Arc<TaskSpec>,
        runtime: RuntimeName,
        submitted_at: Timestamp,
    ) -> Self {
        Self {
            id,
            key,
            spec,
            runtime,
            submitted_at,
            state: TaskState::Pending { not_before: None },
            attempts: Vec::new(),
            deleting_since: None,
            review: None,
        }
    }

    /// The task after a round of questions at its submission.
    #[must_use]
    pub fn reviewed(mut self, round: &Round) -> Self {
        let now = self.submitted_at;
        self.take_round(round, now);
        self
    }

    /// Takes over what a round of questions came to, but for a denial, which ends it.
    pub(crate) fn take_round(&mut self, round: &Round, now: Timestamp) {
        if round.verdicts.is_empty() && round.decision == Decision::Pass && self.review.is_none() {
            return;
        }
        let mut review = self.review.as_deref().cloned().unwrap_or_default();
        review.take(round, &self.spec, now);
        if let Some((spec, runtime)) = &round.changed {
            self.spec = spec.clone();
            self.runtime = runtime.clone();
        }
        let not_before = match &review.hold {
            Some(Hold::Broken { tries, .. }) => Some(now.plus(pause_after(*tries))),
            Some(Hold::Asked { .. }) | None => None,
        };
        self.state = TaskState::Pending { not_before };
        self.review = Some(review.into());
    }

    /// What holds it back.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.review.as_ref()?.hold.as_ref()
    }

    /// What was submitted, before policies changed it.
    #[must_use]
    pub fn submitted_spec(&self) -> &Arc<TaskSpec> {
        let submitted = self
            .review
            .as_ref()
            .and_then(|review| review.submitted.as_ref());
        submitted.unwrap_or(&self.spec)
    }

    /// The newest attempt.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            TaskState::Ended { outcome, .. } => Some(outcome),
            _ => None,
        }
    }
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which try, from 1.
    pub number: AttemptNumber,
    /// When the strategy was asked to start it.
    pub launched_at: Timestamp,
    /// When it was running.
    pub started_at: Option<Timestamp>,
    /// When it had ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The main process, where the strategy made one.
    pub process: Option<ProcessIdentity>,
    /// What the strategy asked us to keep for it. Opaque, at most 64 KiB.
    pub strategy_state: Arc<[u8]>,
    /// What people see of it beside its state.
    pub remarks: Remarks,
}

/// What people see of an attempt beside its state, as its strategy and the host tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What it is doing or waiting for, in a sentence.
    pub note: Option<Arc<str>>,
    /// Its parts, where it has several or where their names matter, as the containers of a pod.
    pub parts: Arc<[Part]>,
    /// What is enforced of its confinement, and what was left out.
    pub enforced: Enforced,
}

impl Remarks {
    /// Takes over what `news` says. What it does not speak of stays.
    pub fn take(&mut self, news: &Self) {
        if news.note.is_some() {
            self.note.clone_from(&news.note);
        }
        if !news.parts.is_empty() {
            self.parts.clone_from(&news.parts);
        }
        self.enforced.take(&news.enforced);
    }
}

/// A part of an attempt, as one container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, unique within the attempt.
    pub name: String,
    /// How it is.
    pub state: PartState,
}

/// How a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    /// It was not started yet; the word says why, as `ContainerCreating`.
    Waiting(String),
    /// It runs, since then.
    Running(Timestamp),
    /// It ended.
    Ended {
        /// Its exit code, 128 + n by signal n; `None` when nobody knows.
        code: Option<i32>,
        /// Whether the out-of-memory killer ended it.
        out_of_memory: bool,
        /// When it was started, where that is known.
        started_at: Option<Timestamp>,
        /// When it ended.
        ended_at: Timestamp,
    },
}

/// A process for ever: a pid alone is used again, with its start time it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// Process id in the host's PID namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)): clock ticks since boot.
    pub start_ticks: u64,
}
