//! What policies make of a task: asked in order, at submission and again before each launch.
//!
//! One walk serves `enforce` and `warn`; they differ only in whether a verdict counts. A policy
//! that gives no verdict, or a change that makes no task, is the policy's fault: the task waits
//! and it is asked again, unless the operator let it fail open.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use taskwright_model::review::DEFAULT_ASK;
use taskwright_model::{
    Answer, AttemptNumber, Decision, Hold, Mode, Round, RuntimeName, Said, Stage, Task, TaskSpec,
    Verdict,
};
use tokio::sync::watch;

use crate::port::{
    Clock, Documents, OnError, Policies, PolicyEntry, PolicyVerdict, ReviewRequest, Strategies,
    StrategyTask,
};

/// Asks policies about tasks.
pub struct Reviewer {
    policies: Arc<dyn Policies>,
    documents: Arc<dyn Documents>,
    strategies: Arc<dyn Strategies>,
    clock: Arc<dyn Clock>,
}

/// A task on its way through a round.
struct Walk {
    task: Arc<Task>,
    /// As it is after the changes so far.
    spec: Arc<TaskSpec>,
    runtime: RuntimeName,
    /// Its document, once somebody wants to see it.
    document: Option<Arc<str>>,
    verdicts: Vec<Verdict>,
    questions: Vec<Question>,
}

struct Question {
    policy: String,
    text: String,
    within: Duration,
    otherwise: Answer,
}

impl Reviewer {
    /// Over these policies.
    #[must_use]
    pub fn new(
        policies: Arc<dyn Policies>,
        documents: Arc<dyn Documents>,
        strategies: Arc<dyn Strategies>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            policies,
            documents,
            strategies,
            clock,
        }
    }

    /// Whether anybody must be asked about this task. Cheap: asked for every launch.
    #[must_use]
    pub fn concerns(&self, task: &Task) -> bool {
        let entries = self.policies.in_order();
        let waits = matches!(task.hold(), Some(Hold::Broken { .. }));
        waits
            || entries.iter().any(|entry| {
                let scope = &entry.terms.scope;
                scope.covers(&task.key, &task.spec, &task.runtime)
            })
    }

    /// Told whenever what gave no verdict may give one now.
    pub(crate) fn renewals(&self) -> watch::Receiver<()> {
        self.policies.renewals()
    }

    /// Asks about a task that is not stored yet.
    pub async fn at_submission(&self, task: Arc<Task>) -> Round {
        self.review(&[Stage::Submit], task).await
    }

    /// Asks about a task that could be launched now.
    pub async fn before_launch(&self, task: Arc<Task>) -> Round {
        match task.hold() {
            Some(Hold::Broken {
                stage: Stage::Submit,
                ..
            }) => self.review(&[Stage::Submit, Stage::Launch], task).await,
            _ => self.review(&[Stage::Launch], task).await,
        }
    }

    async fn review(&self, stages: &[Stage], task: Arc<Task>) -> Round {
        let mut walk = Walk {
            spec: task.spec.clone(),
            runtime: task.runtime.clone(),
            document: None,
            verdicts: Vec::new(),
            questions: Vec::new(),
            task,
        };
        // A bug of ours must not leave the task aside for ever.
        let walked = AssertUnwindSafe(self.walk(stages, &mut walk)).catch_unwind();
        let decision = walked.await.unwrap_or_else(|_| Decision::Retry {
            policy: "(all)".to_owned(),
            message: "asking them failed by a bug; the daemon's log has it".to_owned(),
            stage: stages.first().copied().unwrap_or(Stage::Launch),
        });
        for verdict in &walk.verdicts {
            metrics::counter!(
                "taskwright_policy_decisions_total",
                "policy" => verdict.policy.clone(),
                "verdict" => verdict.said.as_str(),
                "mode" => verdict.mode.as_str()
            )
            .increment(1);
        }
        let is_changed = walk.spec != walk.task.spec;
        Round {
            changed: is_changed.then_some((walk.spec, walk.runtime)),
            verdicts: walk.verdicts,
            decision,
        }
    }

    async fn walk(&self, stages: &[Stage], walk: &mut Walk) -> Decision {
        for &stage in stages {
            for entry in self.policies.in_order().iter() {
                let scope = &entry.terms.scope;
                if !scope.covers(&walk.task.key, &walk.spec, &walk.runtime) {
                    continue;
                }
                if let Some(decision) = self.ask(stage, entry, walk).await {
                    return decision;
                }
            }
        }
        walk.decision()
    }

    /// Asks one policy. `Some` ends the walk.
    async fn ask(&self, stage: Stage, entry: &PolicyEntry, walk: &mut Walk) -> Option<Decision> {
        let document = match &walk.document {
            Some(document) => document.clone(),
            None => {
                let document = self.documents.write(&walk.task.key, &walk.spec);
                walk.document.insert(document.into()).clone()
            }
        };
        let approved = walk.is_approved(&entry.name);
        let attempt = walk.task.attempts.len() as u32 + 1;
        let asked = self.policies.review(
            &entry.name,
            ReviewRequest {
                stage,
                task: StrategyTask {
                    task: walk.task.clone(),
                    attempt: AttemptNumber(attempt),
                },
                runtime: walk.runtime.clone(),
                document: document.clone(),
                approved,
            },
        );
        let counts = entry.terms.mode == Mode::Enforce;
        let verdict = match asked.await {
            Ok(verdict) => verdict,
            Err(message) => return self.silent(stage, entry, walk, message),
        };
        let (said, decision) = match verdict {
            PolicyVerdict::Allow => (Said::Allow, None),
            PolicyVerdict::Change { patch, reason } => {
                let changed = self.documents.patch(&document, &patch);
                let said = match changed {
                    Err(why) => {
                        let message = format!("its change makes no task: {why}");
                        return self.silent(stage, entry, walk, message);
                    }
                    // It is as the policy wants it already, as at every stage after the first.
                    Ok((spec, _)) if spec == *walk.spec => Said::Allow,
                    Ok((spec, document)) if counts => {
                        // Checked before anybody else sees it: what others made is not undone for
                        // a change that cannot run.
                        match self.check(&walk.task, &spec).await {
                            Ok(runtime) => walk.runtime = runtime,
                            Err(why) => {
                                let message =
                                    format!("what it makes of the task cannot run: {why}");
                                return self.silent(stage, entry, walk, message);
                            }
                        }
                        walk.spec = spec.into();
                        walk.document = Some(document.into());
                        Said::Change { patch, reason }
                    }
                    Ok(_) => Said::Change { patch, reason },
                };
                (said, None)
            }
            PolicyVerdict::Deny { reason, field } => {
                let decision = Decision::Deny {
                    policy: entry.name.clone(),
                    reason: reason.clone(),
                    field: field.clone(),
                };
                (Said::Deny { reason, field }, Some(decision))
            }
            PolicyVerdict::Ask {
                question,
                within,
                otherwise,
            } => {
                if counts && !approved {
                    walk.questions.push(Question {
                        policy: entry.name.clone(),
                        text: question.clone(),
                        within: within.or(entry.terms.ask_within).unwrap_or(DEFAULT_ASK),
                        otherwise: otherwise
                            .or(entry.terms.ask_otherwise)
                            .unwrap_or(Answer::Deny),
                    });
                }
                (Said::Ask { question }, None)
            }
        };
        self.note(stage, entry, walk, said);
        decision.filter(|_| counts)
    }

    /// The runtime's own check of what a policy makes of a task; answers which runtime that is.
    async fn check(&self, task: &Task, spec: &TaskSpec) -> Result<RuntimeName, String> {
        let runtime = self
            .strategies
            .resolve(spec)
            .map_err(|problem| format!("{}: {}", problem.field, problem.message))?;
        let mut task = task.clone();
        task.spec = spec.clone().into();
        task.runtime = runtime.clone();
        let checked = self.strategies.validate(StrategyTask {
            task: task.into(),
            attempt: AttemptNumber(1),
        });
        match checked.await {
            Ok(problems) if problems.is_empty() => Ok(runtime),
            Ok(problems) => {
                let told = problems
                    .iter()
                    .map(|problem| format!("{}: {}", problem.field, problem.message));
                Err(told.collect::<Vec<_>>().join("; "))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// A policy gave no verdict, or none that means anything.
    fn silent(
        &self,
        stage: Stage,
        entry: &PolicyEntry,
        walk: &mut Walk,
        message: String,
    ) -> Option<Decision> {
        tracing::warn!(policy = entry.name, task = %walk.task.id, "a policy gave no verdict: {message}");
        let said = Said::Fault {
            message: message.clone(),
        };
        self.note(stage, entry, walk, said);
        let holds = entry.terms.mode == Mode::Enforce && entry.terms.on_error == OnError::Closed;
        holds.then(|| {
            // Half of the changes is no change: the next round begins anew.
            walk.forget_changes();
            Decision::Retry {
                policy: entry.name.clone(),
                message,
                stage,
            }
        })
    }

    fn note(&self, stage: Stage, entry: &PolicyEntry, walk: &mut Walk, said: Said) {
        walk.verdicts
            .retain(|old| old.policy != entry.name || old.stage != stage);
        walk.verdicts.push(Verdict {
            policy: entry.name.clone(),
            stage,
            mode: entry.terms.mode,
            at: self.clock.now(),
            said,
        });
    }
}

impl Walk {
    fn is_approved(&self, policy: &str) -> bool {
        let review = self.task.review.as_ref();
        review.is_some_and(|review| review.approved.iter().any(|name| name == policy))
    }

    fn forget_changes(&mut self) {
        self.spec = self.task.spec.clone();
        self.runtime = self.task.runtime.clone();
        self.document = None;
    }

    /// What becomes of a task that nobody is against: all questions are put at once, within the
    /// shortest time that any of them has.
    fn decision(&mut self) -> Decision {
        let Some(within) = self.questions.iter().map(|question| question.within).min() else {
            return Decision::Pass;
        };
        let mut asked = Vec::new();
        let mut otherwise = Answer::Approve;
        let mut texts = Vec::new();
        for question in self.questions.drain(..) {
            if question.otherwise == Answer::Deny {
                otherwise = Answer::Deny;
            }
            if !asked.contains(&question.policy) {
                asked.push(question.policy);
            }
            if !texts.contains(&question.text) {
                texts.push(question.text);
            }
        }
        Decision::Ask {
            policies: asked,
            question: texts.join("; "),
            within,
            otherwise,
        }
    }
}
