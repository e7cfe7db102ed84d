//! What policies and people said about a task, and what holds it back.
//!
//! Policies are asked when a task is submitted and again before each launch. Their verdicts stay
//! on the task; a later round at the same stage takes the place of the one before, so there are at
//! most two for each policy.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Happening;
use crate::id::RuntimeName;
use crate::spec::TaskSpec;
use crate::time::Timestamp;

/// How long a question of a policy waits for an answer where nothing else is said.
pub const DEFAULT_ASK: Duration = Duration::from_secs(24 * 3600);
/// The longest that a question may wait.
pub const LONGEST_ASK: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a task waits for a policy that gives no verdict before it ends.
pub const LONGEST_BROKEN: Duration = Duration::from_secs(24 * 3600);
/// The first and the longest wait before a policy that gave no verdict is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Answers of people that stay on the task: the newest.
const MOST_ANSWERS: usize = 16;

/// What policies and people said about a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// What was submitted, where policies changed it.
    pub submitted: Option<Arc<TaskSpec>>,
    /// The newest verdict of each policy at each stage, in the order in which they were given.
    pub verdicts: Vec<Verdict>,
    /// The policies whose questions were answered with yes: they need not ask again.
    pub approved: Vec<String>,
    /// What people answered, oldest first.
    pub answers: Vec<Answered>,
    /// What holds it back.
    pub hold: Option<Hold>,
}

/// When policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before the task is accepted.
    Submit,
    /// Before an attempt is launched.
    Launch,
}

impl Stage {
    /// The word for it in JSON and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Launch => "launch",
        }
    }
}

/// What a policy's verdict is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is carried out.
    #[default]
    Enforce,
    /// It is only told.
    Warn,
}

impl Mode {
    /// The word for it in JSON, metrics and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
        }
    }
}

/// A policy's verdict on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The policy's name.
    pub policy: String,
    /// When it was asked.
    pub stage: Stage,
    /// What its word is worth.
    pub mode: Mode,
    /// When it was given.
    pub at: Timestamp,
    /// What it says.
    pub said: Said,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing stands against it.
    Allow,
    /// It may go on, changed.
    Change {
        /// JSON Merge Patch (RFC 7396) of the task's document.
        patch: String,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// It must not run.
    Deny {
        /// Why, for people.
        reason: String,
        /// The field, as a JSON pointer into the task's document; empty for all of it.
        field: String,
    },
    /// Somebody is to decide.
    Ask {
        /// What is to be decided, for people.
        question: String,
    },
    /// It gave no verdict. Never the task's fault.
    Fault {
        /// What happened, for people.
        message: String,
    },
}

impl Said {
    /// The word for it in JSON, metrics and prose.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Change { .. } => "change",
            Self::Deny { .. } => "deny",
            Self::Ask { .. } => "ask",
            Self::Fault { .. } => "policy-error",
        }
    }
}

/// What holds a task back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Policies ask, and somebody is to answer.
    Asked {
        /// The policies that ask.
        policies: Vec<String>,
        /// What they ask, for people.
        question: String,
        /// Since when.
        since: Timestamp,
        /// Until when; then `otherwise` is the answer.
        until: Timestamp,
        /// The answer when nobody gives one.
        otherwise: Answer,
    },
    /// A policy gives no verdict, and is asked again.
    Broken {
        /// The policy's name.
        policy: String,
        /// What happened, for people.
        message: String,
        /// Since when it gives none.
        since: Timestamp,
        /// How often it was asked.
        tries: u32,
        /// Which questions are open: those of this stage and of what comes after it.
        stage: Stage,
    },
}

impl Hold {
    /// What watchers are told of it.
    #[must_use]
    pub fn told(&self) -> Happening {
        let (policies, why) = match self {
            Self::Asked {
                policies, question, ..
            } => (policies.clone(), question.clone()),
            Self::Broken {
                policy, message, ..
            } => (vec![policy.clone()], message.clone()),
        };
        Happening::Held { policies, why }
    }
}

/// What somebody decides about a task that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may run.
    Approve,
    /// It must not.
    Deny,
}

impl Answer {
    /// The word for it in JSON and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }
}

/// What somebody decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The policies that asked.
    pub policies: Vec<String>,
    /// What was decided.
    pub answer: Answer,
    /// By whom.
    pub by: String,
    /// Why, for people; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What one round of questions came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The verdicts, in order.
    pub verdicts: Vec<Verdict>,
    /// What the task is now and the runtime that takes it, where a policy changed it.
    pub changed: Option<(Arc<TaskSpec>, RuntimeName)>,
    /// What becomes of the task.
    pub decision: Decision,
}

/// What becomes of a task after a round of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    Pass,
    /// It must not run.
    Deny {
        /// The policy's name.
        policy: String,
        /// Why, for people.
        reason: String,
        /// The field, as a JSON pointer; empty for all of it.
        field: String,
    },
    /// Somebody is to decide.
    Ask {
        /// The policies that ask.
        policies: Vec<String>,
        /// What they ask, for people.
        question: String,
        /// How long it waits for an answer.
        within: Duration,
        /// The answer when nobody gives one.
        otherwise: Answer,
    },
    /// A policy gave no verdict: it is asked again.
    Retry {
        /// The policy's name.
        policy: String,
        /// What happened, for people.
        message: String,
        /// The stage at which it happened.
        stage: Stage,
    },
}

impl Review {
    /// Takes over what a round came to. `spec` is the task's before it.
    pub(crate) fn take(&mut self, round: &Round, spec: &Arc<TaskSpec>, now: Timestamp) {
        let fresh = |old: &Verdict| {
            let same = |new: &Verdict| new.policy == old.policy && new.stage == old.stage;
            !round.verdicts.iter().any(same)
        };
        self.verdicts.retain(fresh);
        self.verdicts.extend(round.verdicts.iter().cloned());
        if let Some((changed, _)) = &round.changed
            && changed != spec
            && self.submitted.is_none()
        {
            self.submitted = Some(spec.clone());
        }
        self.hold = match &round.decision {
            Decision::Pass | Decision::Deny { .. } => None,
            Decision::Ask {
                policies,
                question,
                within,
                otherwise,
            } => Some(Hold::Asked {
                policies: policies.clone(),
                question: question.clone(),
                since: now,
                until: now.plus((*within).min(LONGEST_ASK)),
                otherwise: *otherwise,
            }),
            Decision::Retry {
                policy,
                message,
                stage,
            } => {
                let (since, tries) = match &self.hold {
                    Some(Hold::Broken { since, tries, .. }) => (*since, *tries),
                    _ => (now, 0),
                };
                Some(Hold::Broken {
                    policy: policy.clone(),
                    message: message.clone(),
                    since,
                    tries: tries.saturating_add(1),
                    stage: *stage,
                })
            }
        };
    }

    /// Takes over what somebody decided about what it is held for.
    pub(crate) fn answer(&mut self, answered: Answered) {
        self.hold = None;
        if answered.answer == Answer::Approve {
            for policy in &answered.policies {
                if !self.approved.contains(policy) {
                    self.approved.push(policy.clone());
                }
            }
        }
        self.answers.push(answered);
        let surplus = self.answers.len().saturating_sub(MOST_ANSWERS);
        self.answers.drain(..surplus);
    }
}

/// How long after its `tries`-th silence a policy is asked again.
#[must_use]
pub(crate) fn pause_after(tries: u32) -> Duration {
    let (first, longest) = PAUSES;
    let doublings = tries.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}
