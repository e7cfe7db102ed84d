//! What policies and people said about a task: form 1, frozen as all of it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use taskwright_model as model;
use taskwright_model::Timestamp;

use super::confined::is_default;
use super::{Spec, Text};
use crate::record::RecordError;

#[derive(Serialize, Deserialize)]
pub(super) struct Review<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submitted: Option<Box<Spec<'a>>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    verdicts: Vec<Verdict<'a>>,
    #[serde(default, skip_serializing_if = "no_names")]
    approved: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    answers: Vec<Answered<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Hold<'a>>,
}

fn no_names(names: &[String]) -> bool {
    names.is_empty()
}

#[derive(Serialize, Deserialize)]
struct Verdict<'a> {
    policy: Text<'a>,
    stage: Stage,
    #[serde(default, skip_serializing_if = "is_default")]
    mode: Mode,
    at: i64,
    said: Said<'a>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    Submit,
    Launch,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Enforce,
    Warn,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said<'a> {
    Allow,
    Change { patch: Text<'a>, reason: Text<'a> },
    Deny { reason: Text<'a>, field: Text<'a> },
    Ask { question: Text<'a> },
    Fault { message: Text<'a> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Hold<'a> {
    Asked {
        policies: Cow<'a, [String]>,
        question: Text<'a>,
        since: i64,
        until: i64,
        otherwise: Answer,
    },
    Broken {
        policy: Text<'a>,
        message: Text<'a>,
        since: i64,
        tries: u32,
        stage: Stage,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Approve,
    Deny,
}

#[derive(Serialize, Deserialize)]
struct Answered<'a> {
    policies: Cow<'a, [String]>,
    answer: Answer,
    by: Text<'a>,
    reason: Text<'a>,
    at: i64,
}

impl<'a> Review<'a> {
    pub(super) fn from_model(review: &'a model::Review) -> Self {
        let submitted = review.submitted.as_ref();
        Self {
            submitted: submitted.map(|spec| Box::new(Spec::from_model(spec))),
            verdicts: review.verdicts.iter().map(Verdict::from_model).collect(),
            approved: Cow::Borrowed(&review.approved),
            answers: review.answers.iter().map(Answered::from_model).collect(),
            hold: review.hold.as_ref().map(Hold::from_model),
        }
    }

    pub(super) fn into_model(self) -> Result<model::Review, RecordError> {
        let submitted = self.submitted.map(|spec| spec.into_model()).transpose()?;
        Ok(model::Review {
            submitted: submitted.map(Arc::new),
            verdicts: self.verdicts.into_iter().map(Verdict::into_model).collect(),
            approved: self.approved.into_owned(),
            answers: self.answers.into_iter().map(Answered::into_model).collect(),
            hold: self.hold.map(Hold::into_model),
        })
    }
}

impl<'a> Verdict<'a> {
    fn from_model(verdict: &'a model::Verdict) -> Self {
        Self {
            policy: verdict.policy.as_str().into(),
            stage: Stage::from_model(verdict.stage),
            mode: match verdict.mode {
                model::Mode::Enforce => Mode::Enforce,
                model::Mode::Warn => Mode::Warn,
            },
            at: verdict.at.as_millis(),
            said: Said::from_model(&verdict.said),
        }
    }

    fn into_model(self) -> model::Verdict {
        model::Verdict {
            policy: self.policy.into_owned(),
            stage: self.stage.into_model(),
            mode: match self.mode {
                Mode::Enforce => model::Mode::Enforce,
                Mode::Warn => model::Mode::Warn,
            },
            at: Timestamp::from_millis(self.at),
            said: self.said.into_model(),
        }
    }
}

impl Stage {
    fn from_model(stage: model::Stage) -> Self {
        match stage {
            model::Stage::Submit => Self::Submit,
            model::Stage::Launch => Self::Launch,
        }
    }

    fn into_model(self) -> model::Stage {
        match self {
            Self::Submit => model::Stage::Submit,
            Self::Launch => model::Stage::Launch,
        }
    }
}

impl<'a> Said<'a> {
    fn from_model(said: &'a model::Said) -> Self {
        match said {
            model::Said::Allow => Self::Allow,
            model::Said::Change { patch, reason } => Self::Change {
                patch: patch.into(),
                reason: reason.into(),
            },
            model::Said::Deny { reason, field } => Self::Deny {
                reason: reason.into(),
                field: field.into(),
            },
            model::Said::Ask { question } => Self::Ask {
                question: question.into(),
            },
            model::Said::Fault { message } => Self::Fault {
                message: message.into(),
            },
        }
    }

    fn into_model(self) -> model::Said {
        match self {
            Self::Allow => model::Said::Allow,
            Self::Change { patch, reason } => model::Said::Change {
                patch: patch.into_owned(),
                reason: reason.into_owned(),
            },
            Self::Deny { reason, field } => model::Said::Deny {
                reason: reason.into_owned(),
                field: field.into_owned(),
            },
            Self::Ask { question } => model::Said::Ask {
                question: question.into_owned(),
            },
            Self::Fault { message } => model::Said::Fault {
                message: message.into_owned(),
            },
        }
    }
}

impl<'a> Hold<'a> {
    fn from_model(hold: &'a model::Hold) -> Self {
        match hold {
            model::Hold::Asked {
                policies,
                question,
                since,
                until,
                otherwise,
            } => Self::Asked {
                policies: Cow::Borrowed(policies),
                question: question.into(),
                since: since.as_millis(),
                until: until.as_millis(),
                otherwise: Answer::from_model(*otherwise),
            },
            model::Hold::Broken {
                policy,
                message,
                since,
                tries,
                stage,
            } => Self::Broken {
                policy: policy.into(),
                message: message.into(),
                since: since.as_millis(),
                tries: *tries,
                stage: Stage::from_model(*stage),
            },
        }
    }

    fn into_model(self) -> model::Hold {
        match self {
            Self::Asked {
                policies,
                question,
                since,
                until,
                otherwise,
            } => model::Hold::Asked {
                policies: policies.into_owned(),
                question: question.into_owned(),
                since: Timestamp::from_millis(since),
                until: Timestamp::from_millis(until),
                otherwise: otherwise.into_model(),
            },
            Self::Broken {
                policy,
                message,
                since,
                tries,
                stage,
            } => model::Hold::Broken {
                policy: policy.into_owned(),
                message: message.into_owned(),
                since: Timestamp::from_millis(since),
                tries,
                stage: stage.into_model(),
            },
        }
    }
}

impl Answer {
    fn from_model(answer: model::Answer) -> Self {
        match answer {
            model::Answer::Approve => Self::Approve,
            model::Answer::Deny => Self::Deny,
        }
    }

    fn into_model(self) -> model::Answer {
        match self {
            Self::Approve => model::Answer::Approve,
            Self::Deny => model::Answer::Deny,
        }
    }
}

impl<'a> Answered<'a> {
    fn from_model(answered: &'a model::Answered) -> Self {
        Self {
            policies: Cow::Borrowed(&answered.policies),
            answer: Answer::from_model(answered.answer),
            by: answered.by.as_str().into(),
            reason: answered.reason.as_str().into(),
            at: answered.at.as_millis(),
        }
    }

    fn into_model(self) -> model::Answered {
        model::Answered {
            policies: self.policies.into_owned(),
            answer: self.answer.into_model(),
            by: self.by.into_owned(),
            reason: self.reason.into_owned(),
            at: Timestamp::from_millis(self.at),
        }
    }
}
