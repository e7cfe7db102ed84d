//! Form 1 of every record. Frozen: fields may be added with a default, nothing
//! may be renamed, removed or change its meaning.
//!
//! Times are milliseconds since the Unix epoch, durations are `[seconds,
//! nanoseconds]`. What a strategy wants kept is text where it is text and
//! hexadecimal where it is not.

mod confined;
mod outcome;
mod review;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use taskwright_control::port;
use taskwright_model as model;
use taskwright_model::Timestamp;

use self::confined::{Confinement, Part};
use self::outcome::{Limit, Outcome};
use self::review::Review;
use super::RecordError;

/// The version byte of this form.
pub(super) const VERSION: u8 = 1;

type Text<'a> = Cow<'a, str>;

#[derive(Serialize, Deserialize)]
pub(super) struct Task<'a> {
    namespace: Text<'a>,
    name: Text<'a>,
    runtime: Text<'a>,
    submitted_at: i64,
    state: State<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<Attempt<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleting_since: Option<i64>,
    spec: Spec<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    review: Option<Review<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State<'a> {
    Pending {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<i64>,
    },
    Starting {
        since: i64,
    },
    Running {
        since: i64,
    },
    Stopping {
        since: i64,
        reason: StopReason,
        grace: Span,
    },
    Ended {
        at: i64,
        outcome: Outcome<'a>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StopReason {
    Canceled,
    TimedOut(Limit),
}

#[derive(Serialize, Deserialize)]
struct Attempt<'a> {
    number: u32,
    launched_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strategy_state: Option<Kept<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part<'a>>,
    /// Restriction and mechanism.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    enforced: Vec<(Text<'a>, Text<'a>)>,
    /// Restriction and why it was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<(Text<'a>, Text<'a>)>,
}

#[derive(Serialize, Deserialize)]
struct Process {
    pid: u32,
    start_ticks: u64,
}

/// Bytes that a strategy wants kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kept<'a> {
    Text(Text<'a>),
    Hex(String),
}

#[derive(Serialize, Deserialize)]
struct Spec<'a> {
    work: Work<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runtime: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "none_in")]
    labels: Cow<'a, BTreeMap<String, String>>,
    #[serde(default)]
    priority: i32,
    limits: Limits,
    retry: Retry<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confinement: Option<Confinement<'a>>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    config: Text<'a>,
}

fn none_in(labels: &BTreeMap<String, String>) -> bool {
    labels.is_empty()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Work<'a> {
    Process {
        command: Cow<'a, [String]>,
        #[serde(default)]
        args: Cow<'a, [String]>,
        #[serde(default)]
        env: Vec<EnvVar<'a>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        working_dir: Option<Text<'a>>,
    },
    Document {
        kind: Text<'a>,
        json: Text<'a>,
    },
}

#[derive(Serialize, Deserialize)]
struct EnvVar<'a> {
    name: Text<'a>,
    value: Text<'a>,
}

#[derive(Serialize, Deserialize)]
struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Span>,
    grace: Span,
}

#[derive(Serialize, Deserialize)]
struct Retry<'a> {
    max_attempts: u32,
    backoff: Span,
    max_backoff: Span,
    on: Cow<'a, [String]>,
}

/// Seconds and nanoseconds.
#[derive(Serialize, Deserialize)]
struct Span(u64, u32);

#[derive(Serialize, Deserialize)]
pub(super) struct Feed<'a> {
    at: i64,
    namespace: Text<'a>,
    name: Text<'a>,
    happening: Happening<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Happening<'a> {
    Submitted,
    Held {
        policies: Cow<'a, [String]>,
        why: Text<'a>,
    },
    Approved {
        by: Text<'a>,
    },
    Launched(u32),
    Running(u32),
    Stopping(u32),
    Retrying {
        attempt: u32,
        outcome: Outcome<'a>,
    },
    Ended(Outcome<'a>),
    Deleting,
    Removed,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Idempotency {
    fingerprint: String,
    task: String,
    at: i64,
}

// From here on: conversions, each pair side by side.

impl<'a> Task<'a> {
    pub(super) fn from_model(task: &'a model::Task) -> Self {
        Self {
            namespace: task.key.namespace.as_str().into(),
            name: task.key.name.as_str().into(),
            runtime: task.runtime.as_str().into(),
            submitted_at: task.submitted_at.as_millis(),
            state: State::from_model(&task.state),
            attempts: task.attempts.iter().map(Attempt::from_model).collect(),
            deleting_since: task.deleting_since.map(Timestamp::as_millis),
            spec: Spec::from_model(&task.spec),
            review: task.review.as_deref().map(Review::from_model),
        }
    }

    pub(super) fn into_model(self, id: model::TaskId) -> Result<model::Task, RecordError> {
        let review = self.review.map(Review::into_model).transpose()?;
        let mut attempts = Vec::with_capacity(self.attempts.len());
        for attempt in self.attempts {
            attempts.push(attempt.into_model()?);
        }
        Ok(model::Task {
            id,
            key: key(&self.namespace, &self.name)?,
            spec: Arc::new(self.spec.into_model()?),
            runtime: runtime(&self.runtime)?,
            submitted_at: Timestamp::from_millis(self.submitted_at),
            state: self.state.into_model(),
            attempts,
            deleting_since: self.deleting_since.map(Timestamp::from_millis),
            review: review.map(Arc::new),
        })
    }
}

impl<'a> State<'a> {
    fn from_model(state: &'a model::TaskState) -> Self {
        match state {
            model::TaskState::Pending { not_before } => Self::Pending {
                not_before: not_before.map(Timestamp::as_millis),
            },
            model::TaskState::Starting { since } => Self::Starting {
                since: since.as_millis(),
            },
            model::TaskState::Running { since } => Self::Running {
                since: since.as_millis(),
            },
            model::TaskState::Stopping {
                since,
                reason,
                grace,
            } => Self::Stopping {
                since: since.as_millis(),
                reason: match reason {
                    model::StopReason::Canceled => StopReason::Canceled,
                    model::StopReason::TimedOut(limit) => {
                        StopReason::TimedOut(Limit::from_model(*limit))
                    }
                },
                grace: Span::from_model(*grace),
            },
            model::TaskState::Ended { at, outcome } => Self::Ended {
                at: at.as_millis(),
                outcome: Outcome::from_model(outcome),
            },
        }
    }

    fn into_model(self) -> model::TaskState {
        match self {
            Self::Pending { not_before } => model::TaskState::Pending {
                not_before: not_before.map(Timestamp::from_millis),
            },
            Self::Starting { since } => model::TaskState::Starting {
                since: Timestamp::from_millis(since),
            },
            Self::Running { since } => model::TaskState::Running {
                since: Timestamp::from_millis(since),
            },
            Self::Stopping {
                since,
                reason,
                grace,
            } => model::TaskState::Stopping {
                since: Timestamp::from_millis(since),
                reason: match reason {
                    StopReason::Canceled => model::StopReason::Canceled,
                    StopReason::TimedOut(limit) => model::StopReason::TimedOut(limit.into_model()),
                },
                grace: grace.into_model(),
            },
            Self::Ended { at, outcome } => model::TaskState::Ended {
                at: Timestamp::from_millis(at),
                outcome: outcome.into_model(),
            },
        }
    }
}

impl<'a> Attempt<'a> {
    fn from_model(attempt: &'a model::Attempt) -> Self {
        Self {
            number: attempt.number.0,
            launched_at: attempt.launched_at.as_millis(),
            started_at: attempt.started_at.map(Timestamp::as_millis),
            ended_at: attempt.ended_at.map(Timestamp::as_millis),
            outcome: attempt.outcome.as_ref().map(Outcome::from_model),
            process: attempt.process.map(|process| Process {
                pid: process.pid,
                start_ticks: process.start_ticks,
            }),
            strategy_state: Kept::from_model(&attempt.strategy_state),
            note: attempt.remarks.note.as_deref().map(Cow::from),
            parts: attempt.remarks.parts.iter().map(Part::from_model).collect(),
            enforced: attempt
                .remarks
                .enforced
                .iter()
                .map(|(what, by)| (what.as_str().into(), by.as_str().into()))
                .collect(),
            left_out: attempt
                .remarks
                .enforced
                .left_out()
                .map(|(what, why)| (what.as_str().into(), why.into()))
                .collect(),
        }
    }

    fn into_model(self) -> Result<model::Attempt, RecordError> {
        let mut enforced = model::Enforced::default();
        for (what, by) in &self.enforced {
            let known = model::Restriction::parse(what).zip(model::Mechanism::parse(by));
            let (what, by) =
                known.ok_or_else(|| invalid("enforced", &format!("{what} by {by}")))?;
            enforced.set(what, by);
        }
        for (what, why) in self.left_out {
            let what =
                model::Restriction::parse(&what).ok_or_else(|| invalid("left out", &what))?;
            enforced.leave_out(what, why);
        }
        Ok(model::Attempt {
            remarks: model::Remarks {
                note: self.note.map(|note| note.as_ref().into()),
                parts: self.parts.into_iter().map(Part::into_model).collect(),
                enforced,
            },
            number: model::AttemptNumber(self.number),
            launched_at: Timestamp::from_millis(self.launched_at),
            started_at: self.started_at.map(Timestamp::from_millis),
            ended_at: self.ended_at.map(Timestamp::from_millis),
            outcome: self.outcome.map(Outcome::into_model),
            process: self.process.map(|process| model::ProcessIdentity {
                pid: process.pid,
                start_ticks: process.start_ticks,
            }),
            strategy_state: match self.strategy_state {
                Some(kept) => kept.into_model()?,
                None => Arc::from([]),
            },
        })
    }
}

impl<'a> Kept<'a> {
    fn from_model(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Hex(hex::encode(bytes)),
        })
    }

    fn into_model(self) -> Result<Arc<[u8]>, RecordError> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().into()),
            Self::Hex(digits) => {
                let bytes = hex::decode(digits).map_err(|why| invalid("strategy state", &why))?;
                Ok(bytes.into())
            }
        }
    }
}

impl<'a> Spec<'a> {
    fn from_model(spec: &'a model::TaskSpec) -> Self {
        Self {
            work: Work::from_model(&spec.work),
            runtime: spec.runtime.as_ref().map(|name| name.as_str().into()),
            labels: Cow::Borrowed(&spec.labels),
            priority: spec.priority,
            limits: Limits {
                queue: spec.limits.queue.map(Span::from_model),
                start: spec.limits.start.map(Span::from_model),
                idle: spec.limits.idle.map(Span::from_model),
                run: spec.limits.run.map(Span::from_model),
                grace: Span::from_model(spec.limits.grace),
            },
            retry: Retry {
                max_attempts: spec.retry.max_attempts,
                backoff: Span::from_model(spec.retry.backoff),
                max_backoff: Span::from_model(spec.retry.max_backoff),
                on: Cow::Borrowed(&spec.retry.on),
            },
            confinement: Confinement::from_model(&spec.confinement),
            config: spec.config.as_str().into(),
        }
    }

    fn into_model(self) -> Result<model::TaskSpec, RecordError> {
        Ok(model::TaskSpec {
            work: self.work.into_model(),
            runtime: self.runtime.map(|name| runtime(&name)).transpose()?,
            labels: self.labels.into_owned(),
            priority: self.priority,
            limits: model::TimeLimits {
                queue: self.limits.queue.map(Span::into_model),
                start: self.limits.start.map(Span::into_model),
                idle: self.limits.idle.map(Span::into_model),
                run: self.limits.run.map(Span::into_model),
                grace: self.limits.grace.into_model(),
            },
            retry: model::RetryPolicy {
                max_attempts: self.retry.max_attempts,
                backoff: self.retry.backoff.into_model(),
                max_backoff: self.retry.max_backoff.into_model(),
                on: self.retry.on.into_owned(),
            },
            confinement: self
                .confinement
                .map(Confinement::into_model)
                .unwrap_or_default(),
            config: self.config.into_owned(),
        })
    }
}

impl<'a> Work<'a> {
    fn from_model(work: &'a model::Work) -> Self {
        match work {
            model::Work::Process(process) => Self::Process {
                command: Cow::Borrowed(&process.command),
                args: Cow::Borrowed(&process.args),
                env: process
                    .env
                    .iter()
                    .map(|variable| EnvVar {
                        name: Cow::from(&variable.name),
                        value: Cow::from(&variable.value),
                    })
                    .collect(),
                working_dir: process.working_dir.as_deref().map(Cow::from),
            },
            model::Work::Document { kind, json } => Self::Document {
                kind: kind.into(),
                json: json.into(),
            },
        }
    }

    fn into_model(self) -> model::Work {
        match self {
            Self::Process {
                command,
                args,
                env,
                working_dir,
            } => model::Work::Process(model::ProcessSpec {
                command: command.into_owned(),
                args: args.into_owned(),
                env: env
                    .into_iter()
                    .map(|variable| model::EnvVar {
                        name: variable.name.into_owned(),
                        value: variable.value.into_owned(),
                    })
                    .collect(),
                working_dir: working_dir.map(Cow::into_owned),
            }),
            Self::Document { kind, json } => model::Work::Document {
                kind: kind.into_owned(),
                json: json.into_owned(),
            },
        }
    }
}

impl Span {
    fn from_model(span: Duration) -> Self {
        Self(span.as_secs(), span.subsec_nanos())
    }

    /// Saturating where `Duration::new` would panic: nanoseconds never carry past the last second.
    fn into_model(self) -> Duration {
        Duration::from_secs(self.0).saturating_add(Duration::from_nanos(u64::from(self.1)))
    }
}

impl<'a> Feed<'a> {
    pub(super) fn from_model(entry: &'a port::FeedEntry) -> Self {
        Self {
            at: entry.at.as_millis(),
            namespace: entry.key.namespace.as_str().into(),
            name: entry.key.name.as_str().into(),
            happening: Happening::from_model(&entry.happening),
        }
    }

    pub(super) fn into_model(
        self,
        sequence: u64,
        task: model::TaskId,
    ) -> Result<port::FeedEntry, RecordError> {
        Ok(port::FeedEntry {
            sequence,
            at: Timestamp::from_millis(self.at),
            task,
            key: key(&self.namespace, &self.name)?,
            happening: self.happening.into_model(),
        })
    }
}

impl<'a> Happening<'a> {
    fn from_model(happening: &'a model::Happening) -> Self {
        match happening {
            model::Happening::Submitted => Self::Submitted,
            model::Happening::Held { policies, why } => Self::Held {
                policies: Cow::Borrowed(policies),
                why: why.into(),
            },
            model::Happening::Approved { by } => Self::Approved { by: by.into() },
            model::Happening::Launched(attempt) => Self::Launched(attempt.0),
            model::Happening::Running(attempt) => Self::Running(attempt.0),
            model::Happening::Stopping(attempt) => Self::Stopping(attempt.0),
            model::Happening::Retrying { attempt, outcome } => Self::Retrying {
                attempt: attempt.0,
                outcome: Outcome::from_model(outcome),
            },
            model::Happening::Ended(outcome) => Self::Ended(Outcome::from_model(outcome)),
            model::Happening::Deleting => Self::Deleting,
            model::Happening::Removed => Self::Removed,
        }
    }

    fn into_model(self) -> model::Happening {
        use model::AttemptNumber;
        match self {
            Self::Submitted => model::Happening::Submitted,
            Self::Held { policies, why } => model::Happening::Held {
                policies: policies.into_owned(),
                why: why.into_owned(),
            },
            Self::Approved { by } => model::Happening::Approved {
                by: by.into_owned(),
            },
            Self::Launched(attempt) => model::Happening::Launched(AttemptNumber(attempt)),
            Self::Running(attempt) => model::Happening::Running(AttemptNumber(attempt)),
            Self::Stopping(attempt) => model::Happening::Stopping(AttemptNumber(attempt)),
            Self::Retrying { attempt, outcome } => model::Happening::Retrying {
                attempt: AttemptNumber(attempt),
                outcome: outcome.into_model(),
            },
            Self::Ended(outcome) => model::Happening::Ended(outcome.into_model()),
            Self::Deleting => model::Happening::Deleting,
            Self::Removed => model::Happening::Removed,
        }
    }
}

impl Idempotency {
    pub(super) fn from_model(record: &port::IdempotencyRecord) -> Self {
        Self {
            fingerprint: hex::encode(record.fingerprint),
            task: record.task.to_string(),
            at: record.at.as_millis(),
        }
    }

    pub(super) fn into_model(self, key: &str) -> Result<port::IdempotencyRecord, RecordError> {
        let mut fingerprint = [0; 32];
        hex::decode_to_slice(self.fingerprint, &mut fingerprint)
            .map_err(|why| invalid("fingerprint", &why))?;
        Ok(port::IdempotencyRecord {
            key: key.to_owned(),
            fingerprint,
            task: model::TaskId::parse(&self.task).map_err(|why| invalid("task", &why))?,
            at: Timestamp::from_millis(self.at),
        })
    }
}

fn key(namespace: &str, name: &str) -> Result<model::TaskKey, RecordError> {
    Ok(model::TaskKey {
        namespace: model::Namespace::parse(namespace).map_err(|why| invalid("namespace", &why))?,
        name: model::TaskName::parse(name).map_err(|why| invalid("name", &why))?,
    })
}

fn runtime(name: &str) -> Result<model::RuntimeName, RecordError> {
    model::RuntimeName::parse(name).map_err(|why| invalid("runtime", &why))
}

fn invalid(field: &'static str, why: &dyn std::fmt::Display) -> RecordError {
    RecordError::Value {
        field,
        message: why.to_string(),
    }
}
