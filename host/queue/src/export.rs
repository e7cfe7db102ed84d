//! The record of what ended, in the order in which it did, for whoever makes data sets of it.
//!
//! Each task that ended has a number, without gaps and never changed. A reader that knows
//! the last number it has seen goes on behind it: what ends meanwhile, or was written down
//! late, has a larger one.

use taskwright_model::{TaskId, Timestamp};

use crate::conversation::{Conversation, Message};
use crate::log::LogEntry;
use crate::step::{Step, StepSum};
use crate::task::{Attempt, Cause, ProblemId, QueuedTask, TaskStatus};
use crate::validity::{Cut, Validity};
use crate::worker::{Problems, WorkerId};

/// Which problems are asked for: a glob over the whole id, or the id itself.
#[derive(Clone, Debug)]
pub struct ProblemPattern {
    exact: Option<ProblemId>,
    glob: Problems,
}

impl ProblemPattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['*', '?', '[']) {
            return Ok(Self {
                exact: None,
                glob: Problems::parse(&[text])?,
            });
        }
        Ok(Self {
            exact: Some(ProblemId::parse(text)?),
            glob: Problems::default(),
        })
    }

    /// The one problem, where it is no glob.
    #[must_use]
    pub fn exact(&self) -> Option<&ProblemId> {
        self.exact.as_ref()
    }

    /// Whether it is asked for.
    #[must_use]
    pub fn takes(&self, problem: &ProblemId) -> bool {
        match &self.exact {
            Some(exact) => exact == problem,
            None => self.glob.takes(problem.as_str()),
        }
    }
}

/// A reader's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportPlace {
    /// Behind the ended task with this number; 0 is before the first.
    Ended(u64),
    /// Behind this task of those that have not ended, which are in the order of their ids.
    Open(Option<TaskId>),
}

/// What is read with each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportParts {
    /// Its conversations and their messages.
    pub conversations: bool,
    /// Its steps.
    pub steps: bool,
    /// Its lines.
    pub logs: bool,
}

/// Which tasks are asked for.
#[derive(Clone, Debug)]
pub struct ExportQuery {
    /// From where on.
    pub place: ExportPlace,
    /// The last number that is looked at.
    pub through: u64,
    /// At most so many.
    pub most: u32,
    /// With this status.
    pub status: Option<TaskStatus>,
    /// Of these problems.
    pub problem: Option<ProblemPattern>,
    /// That this worker held last.
    pub worker: Option<WorkerId>,
    /// That ended then or later.
    pub since: Option<Timestamp>,
    /// That ended before.
    pub until: Option<Timestamp>,
    /// What is read with them.
    pub parts: ExportParts,
}

/// A part of what was asked for.
#[derive(Clone, Debug)]
pub struct ExportPage {
    /// The tasks, in order.
    pub tasks: Vec<ExportedTask>,
    /// Where to go on.
    pub next: ExportPlace,
    /// Whether there is nothing behind it.
    pub over: bool,
    /// How many tasks it was made of, those included that turned out not to be asked for.
    pub looked_at: u32,
    /// How much of a page's room the fullest kind of thing takes; above 1 where fewer tasks than
    /// asked for found room.
    pub fullness: f64,
}

/// A task with what belongs to it.
#[derive(Clone, Debug)]
pub struct ExportedTask {
    /// Its number, if it has ended.
    pub number: Option<u64>,
    /// The task.
    pub task: QueuedTask,
    /// The attempts at it that are over, in order.
    pub attempts: Vec<Attempt>,
    /// The steps of each attempt, summed up.
    pub sums: Vec<StepSum>,
    /// Whether everything that was asked for is here. Of a task that is too large for a page
    /// nothing is, and whoever reads goes through it piece by piece.
    pub whole: bool,
    /// Its conversations with their messages, in the order of their ids.
    pub conversations: Vec<(Conversation, Vec<Message>)>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// Its lines, in order.
    pub logs: Vec<LogEntry>,
}

impl ExportedTask {
    /// What the task may be taken for.
    #[must_use]
    pub fn validity(&self, cut: Option<Cut>) -> Validity {
        let cause = self.task.cause.filter(|_| self.task.status.is_ended());
        Validity::judge(cause, cut.or_else(|| self.cut(self.task.attempt)))
    }

    /// What an attempt at it may be taken for; that of the whole task where nobody knows which it
    /// was.
    #[must_use]
    pub fn validity_of(&self, attempt: Option<u32>, cut: Option<Cut>) -> Validity {
        let Some(number) = attempt else {
            return self.validity(cut);
        };
        Validity::judge(
            self.cause_of(Some(number)),
            cut.or_else(|| self.cut(number)),
        )
    }

    /// Whose doing the end of an attempt was.
    #[must_use]
    pub fn cause_of(&self, attempt: Option<u32>) -> Option<Cause> {
        match attempt {
            None => self.task.cause,
            Some(number) => self.over(number).map(|over| over.cause),
        }
    }

    /// Who made an attempt; of one that is not over, whoever has the task.
    #[must_use]
    pub fn worker_of(&self, attempt: Option<u32>) -> Option<&WorkerId> {
        match attempt.and_then(|number| self.over(number)) {
            Some(over) => Some(&over.worker),
            None => self.task.worker.as_ref(),
        }
    }

    fn over(&self, attempt: u32) -> Option<&Attempt> {
        self.attempts.iter().find(|over| over.number == attempt)
    }

    /// The steps of an attempt, summed up.
    #[must_use]
    pub fn sum_of(&self, attempt: u32) -> Option<&StepSum> {
        self.sums.iter().find(|sum| sum.attempt == attempt)
    }

    /// Where an attempt was cut off, as far as its steps tell.
    fn cut(&self, attempt: u32) -> Option<Cut> {
        let sum = self.sum_of(attempt)?;
        if sum.truncated {
            return Some(Cut::Told);
        }
        let most = max_steps(&self.task)?;
        (!sum.terminated && sum.steps >= most).then_some(Cut::StepLimit)
    }
}

/// How many steps the submitter allowed.
fn max_steps(task: &QueuedTask) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Parameters {
        max_steps: Option<u64>,
    }
    let read: Result<Parameters, _> = serde_json::from_str(task.parameters.as_str());
    read.ok()?.max_steps.filter(|most| *most > 0)
}

/// What the putting in order of ends brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndsOrdered {
    /// The largest number there is.
    pub last: u64,
    /// Whether more may be waiting for theirs.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    //! Which problems, and what attempts are taken for.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::json::Json;
    use crate::task::{AttemptEnd, Tries};

    #[test]
    fn problems_are_asked_for_by_glob_or_id() {
        let takes = |pattern: &str, id: &str| {
            let problem = ProblemId::parse(id).unwrap();
            ProblemPattern::parse(pattern).unwrap().takes(&problem)
        };
        assert!(takes("k8s-*", "k8s-1"));
        assert!(!takes("k8s-*", "a-k8s-1"));
        assert!(takes("k8s", "k8s"));
        assert!(!takes("k8s", "k8s-1"));
        assert!(ProblemPattern::parse("a[").is_err());
        assert!(ProblemPattern::parse("a b").is_err());
    }

    fn exported(cause: Cause, sums: Vec<StepSum>) -> ExportedTask {
        let now = Timestamp::from_millis(0);
        let worker = WorkerId::numbered(1);
        let over = |number, end, cause| Attempt {
            number,
            worker: worker.clone(),
            started_at: now,
            ended_at: now,
            end,
            cause,
            error: None,
        };
        ExportedTask {
            number: Some(1),
            attempts: vec![
                over(1, AttemptEnd::Lost, Cause::WorkerLost),
                over(2, AttemptEnd::Completed, cause),
            ],
            sums,
            whole: true,
            conversations: Vec::new(),
            steps: Vec::new(),
            logs: Vec::new(),
            task: QueuedTask {
                id: TaskId::from_u128(1),
                problem_id: ProblemId::parse("p").unwrap(),
                parameters: Json::parse(r#"{"max_steps": 3}"#).unwrap(),
                priority: 0.0,
                backend_type: None,
                time_limit: Duration::from_secs(1),
                tries: Tries {
                    failures: 1,
                    losses: 3,
                },
                callback_url: None,
                status: TaskStatus::Completed,
                worker: Some(worker),
                attempt: 2,
                losses: 1,
                result: None,
                error: None,
                error_document: None,
                cause: Some(cause),
                created_at: now,
                updated_at: now,
                started_at: Some(now),
                completed_at: Some(now),
                not_before: now,
                deadline: None,
                revision: 1,
            },
        }
    }

    fn sum(steps: u64, terminated: bool, truncated: bool) -> StepSum {
        StepSum {
            attempt: 2,
            steps,
            reward: None,
            terminated,
            truncated,
        }
    }

    #[test]
    fn an_attempt_is_judged_by_its_own_end() {
        let task = exported(Cause::Reported, Vec::new());
        let words = |validity: Validity| (validity.mark.word(), validity.reason);
        assert_eq!(words(task.validity(None)), ("valid", None));
        assert_eq!(words(task.validity_of(Some(2), None)), ("valid", None));
        let lost = ("invalid", Some("worker-lost"));
        assert_eq!(words(task.validity_of(Some(1), None)), lost);
        let open = ("truncated", Some("not-ended"));
        assert_eq!(words(task.validity_of(Some(3), None)), open);
        assert_eq!(words(task.validity_of(None, None)), ("valid", None));
    }

    #[test]
    fn steps_tell_where_an_attempt_was_cut_off() {
        let reason = |sum: StepSum| exported(Cause::Reported, vec![sum]).validity(None).reason;
        assert_eq!(reason(sum(2, false, false)), None);
        assert_eq!(reason(sum(2, false, true)), Some("cut-off"));
        assert_eq!(reason(sum(3, false, false)), Some("step-limit"));
        assert_eq!(reason(sum(3, true, false)), None);
    }
}
