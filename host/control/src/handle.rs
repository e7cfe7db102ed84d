//! [`Control`]: what HTTP handlers and commands ask of the loop.
//!
//! Reads are answered from the published view and never wait for the loop.
//! Changes are sent to the dispatcher and answered once they are durable.

use std::sync::Arc;
use std::time::Duration;

use taskwright_model::{
    Answer, AttemptNumber, Decision, Namespace, Round, RuntimeName, Task, TaskId, TaskKey,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::attempts::Attempts;
use crate::feed::Feed;
use crate::message::{Message, TaskAnswer, Waiter};
use crate::port::{
    Clock, Execs, FeedEntry, Outputs, Plugins, SpecProblem, Strategies, StrategyTask, UnitReport,
};
use crate::request::{
    ControlError, LONGEST_WAIT, Page, Selector, SetAnswer, SetElement, SetProblem, Submission,
    SubmitError, Submitted,
};
use crate::review::Reviewer;
use crate::view::View;

/// A task that passed every check and may be stored.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What was submitted.
    pub submission: Submission,
    /// The runtime that takes it.
    pub runtime: RuntimeName,
    /// The id it will have.
    pub id: TaskId,
    /// What policies said, where any was asked.
    pub round: Option<Box<Round>>,
}

/// The loop's front. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) view: Arc<View>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) strategies: Arc<dyn Strategies>,
    pub(crate) reviewer: Arc<Reviewer>,
    pub(crate) plugins: Arc<dyn Plugins>,
    pub(crate) outputs: Arc<dyn Outputs>,
    pub(crate) execs: Arc<dyn Execs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: watch::Receiver<Health>,
}

/// Whether the loop can do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the store takes nothing at the moment, if so.
    pub store: Option<String>,
    /// Whether the daemon is going down.
    pub closing: bool,
}

/// The end of a task that was just submitted.
pub struct Ending(oneshot::Receiver<TaskAnswer>);

impl Ending {
    /// The ended task; `None` when it has not ended after `at_most` (cut to [`LONGEST_WAIT`]), or
    /// when too many wait already.
    pub async fn within(self, at_most: Duration) -> Option<Arc<Task>> {
        let answer = tokio::time::timeout(at_most.min(LONGEST_WAIT), self.0).await;
        answer.ok()?.ok()?.ok()?
    }
}

impl Control {
    /// Accepts a task: resolved, checked by its strategy, durable when this returns.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored then.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        self.hand_over(submission, None).await
    }

    /// As [`Control::submit`], and waits for the end from the same turn on: one visit to the loop
    /// instead of two.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored then.
    pub async fn submit_and_follow(
        &self,
        submission: Submission,
    ) -> Result<(Submitted, Ending), SubmitError> {
        let (waiter, ending) = oneshot::channel();
        let submitted = self.hand_over(submission, Some(waiter)).await?;
        Ok((submitted, Ending(ending)))
    }

    async fn hand_over(
        &self,
        submission: Submission,
        waiter: Option<Waiter>,
    ) -> Result<Submitted, SubmitError> {
        let prepared = self.prepare(submission).await?;
        let (reply, answer) = oneshot::channel();
        self.send(Message::Submit {
            prepared,
            reply,
            waiter,
        })?;
        answer.await.map_err(|_| ControlError::Closed)?
    }

    /// Makes the tasks of `namespace` be those of `wanted`: creates what is missing, asks for
    /// the deletion of what is not wanted, leaves the rest alone.
    ///
    /// An element that cannot be had is told in the answer and spoils no other.
    ///
    /// # Errors
    /// [`ControlError`] when nothing was done at all.
    pub async fn set(
        &self,
        namespace: Namespace,
        wanted: Vec<SetElement>,
    ) -> Result<SetAnswer, ControlError> {
        let mut prepared = Vec::with_capacity(wanted.len());
        let mut present = Vec::new();
        let mut keep = Vec::new();
        let mut problems = Vec::new();
        for element in wanted {
            let submission = match element {
                SetElement::Keep(name) => {
                    keep.push(name);
                    continue;
                }
                SetElement::Wanted(submission) => submission,
            };
            // A repeat of what is there needs no second check: controllers repeat every second.
            if self.view.get(&submission.key).is_some() {
                present.push(submission);
                continue;
            }
            let name = submission.key.name.clone();
            match self.prepare(submission).await {
                Ok(one) => prepared.push(one),
                Err(error) => {
                    problems.push(SetProblem {
                        name: name.clone(),
                        message: explain(&error),
                        details: match error {
                            SubmitError::Invalid(problems) => problems,
                            SubmitError::Denied { ref field, .. } if !field.is_empty() => {
                                let (field, message) = (field.clone(), error.to_string());
                                vec![SpecProblem { field, message }]
                            }
                            _ => Vec::new(),
                        },
                        kept_present: false,
                    });
                    keep.push(name);
                }
            }
        }
        let (reply, answer) = oneshot::channel();
        self.send(Message::Set {
            namespace,
            prepared,
            present,
            keep,
            reply,
        })?;
        let mut answer = answer.await.map_err(|_| ControlError::Closed)??;
        answer.problems.extend(problems);
        Ok(answer)
    }

    /// Asks for a task to be stopped; answers with the task once the wish is durable. A task
    /// that has ended is answered as it is. `None`: no such task.
    ///
    /// # Errors
    /// [`ControlError`] when the wish was not kept.
    pub async fn stop(
        &self,
        key: TaskKey,
        grace: Option<Duration>,
    ) -> Result<Option<Arc<Task>>, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Stop { key, grace, reply })?;
        answer.await.map_err(|_| ControlError::Closed)?
    }

    /// Asks for a task to be stopped and removed; answers once the wish is durable. `None`: no
    /// such task.
    ///
    /// # Errors
    /// [`ControlError`] when the wish was not kept.
    pub async fn delete(&self, key: TaskKey) -> Result<Option<Arc<Task>>, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Delete { key, reply })?;
        answer.await.map_err(|_| ControlError::Closed)?
    }

    /// Decides about what a policy asks of a task; answers with the task once that is durable.
    /// `None`: no such task.
    ///
    /// # Errors
    /// [`ControlError::NotAsked`] when there is nothing to decide, others when it was not kept.
    pub async fn answer(
        &self,
        key: TaskKey,
        id: Option<TaskId>,
        answer: Answer,
        by: String,
        reason: String,
    ) -> Result<Option<Arc<Task>>, ControlError> {
        let (reply, answered) = oneshot::channel();
        self.send(Message::Answer {
            key,
            id,
            answer,
            by,
            reason,
            reply,
        })?;
        answered.await.map_err(|_| ControlError::Closed)?
    }

    /// The task once it has ended, or as it is after `at_most` (cut to [`LONGEST_WAIT`]).
    /// `None`: no such task.
    ///
    /// # Errors
    /// [`ControlError::Busy`] when too many wait already.
    pub async fn wait(
        &self,
        key: &TaskKey,
        at_most: Duration,
    ) -> Result<Option<Arc<Task>>, ControlError> {
        let Some(present) = self.view.get(key) else {
            return Ok(None);
        };
        if present.state.is_ended() {
            return Ok(Some(present));
        }
        let id = present.id;
        let (reply, answer) = oneshot::channel();
        self.send(Message::Wait { id, reply })?;
        match tokio::time::timeout(at_most.min(LONGEST_WAIT), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ControlError::Closed),
            Err(_) => Ok(Some(self.view.by_id(id).unwrap_or(present))),
        }
    }

    /// A task by name.
    #[must_use]
    pub fn get(&self, key: &TaskKey) -> Option<Arc<Task>> {
        self.view.get(key)
    }

    /// Every task of a namespace: live ones first, then ended ones, then those being deleted.
    #[must_use]
    pub fn all(&self, namespace: &Namespace) -> Vec<Arc<Task>> {
        self.view.all(namespace)
    }

    /// A page of tasks in order of submission, after the task with id `after`.
    #[must_use]
    pub fn list(&self, selector: &Selector, after: Option<TaskId>, most: usize) -> Page {
        self.view.page(selector, after, most)
    }

    /// How many tasks are in each state (`TaskState::as_str`).
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        self.view.counts()
    }

    /// Up to `most` feed lines numbered above `after`, of one task if given.
    ///
    /// # Errors
    /// A sentence, when older lines could not be read from the store.
    pub async fn feed(
        &self,
        after: u64,
        task: Option<TaskId>,
        most: usize,
    ) -> Result<Vec<FeedEntry>, String> {
        self.feed.read(after, task, most).await
    }

    /// The number of the newest feed line; changes whenever there is a new one.
    #[must_use]
    pub fn feed_position(&self) -> watch::Receiver<u64> {
        self.feed.position()
    }

    /// What tasks print.
    #[must_use]
    pub fn outputs(&self) -> &Arc<dyn Outputs> {
        &self.outputs
    }

    /// Commands inside tasks.
    #[must_use]
    pub fn execs(&self) -> &Arc<dyn Execs> {
        &self.execs
    }

    /// The plugins that are loaded.
    #[must_use]
    pub fn plugins(&self) -> &Arc<dyn Plugins> {
        &self.plugins
    }

    /// Whether the loop can do its work.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut health = self.health.borrow().clone();
        health.closing |= self.inbox.is_closed();
        health
    }

    /// Resolves when the loop has ended, in order or not: then nothing is taken any more.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    /// Hands over the end of a unit, as the supervisor reports it. Never refused: what nobody
    /// waits for is released by the loop.
    pub fn report(&self, report: UnitReport) {
        self.attempts.report(report);
    }

    fn send(&self, message: Message) -> Result<(), ControlError> {
        self.inbox.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlError::Busy,
            mpsc::error::TrySendError::Closed(_) => ControlError::Closed,
        })
    }

    /// Resolves the runtime and lets it check the task.
    async fn prepare(&self, submission: Submission) -> Result<Prepared, SubmitError> {
        let runtime = self
            .strategies
            .resolve(&submission.spec)
            .map_err(|problem| SubmitError::Invalid(vec![problem]))?;
        let id = self.clock.new_id();
        let candidate = Arc::new(Task::new(
            id,
            submission.key.clone(),
            submission.spec.clone(),
            runtime.clone(),
            self.clock.now(),
        ));
        let checked = self.strategies.validate(StrategyTask {
            task: candidate.clone(),
            attempt: AttemptNumber(1),
        });
        match checked.await {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => return Err(SubmitError::Invalid(problems)),
            Err(error) => {
                let message = error.to_string();
                return Err(ControlError::Strategy { message }.into());
            }
        }
        let round = match self.reviewer.concerns(&candidate) {
            true => Some(Box::new(self.reviewer.at_submission(candidate).await)),
            false => None,
        };
        match round.as_ref().map(|round| &round.decision) {
            Some(Decision::Deny {
                policy,
                reason,
                field,
            }) => Err(SubmitError::Denied {
                policy: policy.clone(),
                reason: reason.clone(),
                field: field.clone(),
            }),
            _ => Ok(Prepared {
                submission,
                runtime,
                id,
                round,
            }),
        }
    }
}

/// A submission's failure in one sentence.
fn explain(error: &SubmitError) -> String {
    match error {
        SubmitError::Invalid(problems) => {
            let told: Vec<String> = problems
                .iter()
                .map(|SpecProblem { field, message }| format!("{field}: {message}"))
                .collect();
            told.join("; ")
        }
        other => other.to_string(),
    }
}
