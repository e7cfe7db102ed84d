//! What the contract calls a task's state: one of `waiting`, `running`, `terminated`.
//!
//! Exit codes that are not the command's own: 137 for a time limit, 143 for a task
//! stopped before anything ran, 125 whenever the fault is ours and not the
//! task's (infrastructure, plugin, policy, lost), 128 for an element of `setTasks`
//! that is no task. The whole truth is in `outcome`, beside.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use taskwright_model::{
    Attempt, ExitStatus, Fault, Hold, Limit, Mode, Outcome, Part, PartState, Said, Task, TaskState,
    Timestamp, Verdict,
};

const TIMED_OUT: i32 = 137;
const STOPPED_BEFORE_START: i32 = 143;
const OUR_FAULT: i32 = 125;
const KILLED: i32 = 137;
const OUT_OF_MEMORY: &str = "the kernel ended it for want of memory";
const NOBODY_SAW: &str = "nobody who could know its end was alive";
/// The exit code shown for an element of `setTasks` that is no task.
pub(crate) const NO_TASK: i32 = 128;

/// A time as the contract writes it: RFC 3339, UTC, whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WholeSeconds(pub(crate) Timestamp);

impl Serialize for WholeSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_millis().div_euclid(1000);
        serializer.collect_str(&jiff::Timestamp::from_second(seconds).unwrap_or_default())
    }
}

/// A time as our own fields write it: RFC 3339, UTC, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) Timestamp);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
        serializer.collect_str(&format_args!("{time:.3}"))
    }
}

/// Exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State<'a> {
    /// Not running yet, or not running at the moment.
    Waiting(Waiting),
    /// Running, or being stopped.
    Running(Running),
    /// Over.
    Terminated(Terminated<'a>),
}

/// Not running yet, or not running at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Waiting {
    /// `Initialized`; for a container of a pod what it waits for, as `ContainerCreating`.
    reason: Cow<'static, str>,
    /// What it waits for.
    message: String,
}

/// Running, or being stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    started_at: WholeSeconds,
}

/// Over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terminated<'a> {
    /// The command's exit code, 128 + the signal that ended it, or one of ours (125, 128, 137, 143).
    exit_code: i32,
    /// The signal that ended it, if one did by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// One word.
    reason: &'static str,
    /// For people.
    message: Cow<'a, str>,
    /// When it began; null when it never did.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<WholeSeconds>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<WholeSeconds>,
}

impl<'a> State<'a> {
    /// The state of a task now.
    pub(crate) fn of(task: &'a Task) -> Self {
        match &task.state {
            TaskState::Pending { not_before } => Self::waiting(pending_message(task, *not_before)),
            TaskState::Starting { .. } => {
                let note = task
                    .attempt()
                    .and_then(|attempt| attempt.remarks.note.as_deref());
                Self::waiting(note.unwrap_or("it is being started").to_owned())
            }
            TaskState::Running { since } => Self::running(*since),
            TaskState::Stopping { since, .. } => {
                let begun = task.attempt().map(begin_of);
                Self::running(begun.unwrap_or(*since))
            }
            TaskState::Ended { at, outcome } => {
                let begun = task.attempt().map(begin_of);
                Self::Terminated(terminated(task, outcome, begun, Some(*at)))
            }
        }
    }

    /// The state of a part of a task, as one container of a pod.
    pub(crate) fn of_part(part: &'a Part) -> Self {
        match &part.state {
            PartState::Waiting(why) => Self::Waiting(Waiting {
                reason: why.clone().into(),
                message: String::new(),
            }),
            PartState::Running(since) => Self::running(*since),
            PartState::Ended {
                code,
                out_of_memory,
                started_at,
                ended_at,
            } => {
                let (reason, message) = match code {
                    _ if *out_of_memory => ("OOMKilled", OUT_OF_MEMORY.into()),
                    Some(0) => ("Succeeded", "Task completed successfully".into()),
                    Some(code) => (
                        "Failed",
                        format!("the container ended with exit code {code}").into(),
                    ),
                    None => ("Lost", NOBODY_SAW.into()),
                };
                Self::Terminated(Terminated {
                    exit_code: code.unwrap_or(OUR_FAULT),
                    signal: None,
                    reason,
                    message,
                    started_at: started_at.map(WholeSeconds),
                    finished_at: Some(WholeSeconds(*ended_at)),
                })
            }
        }
    }

    /// What is told of an element of `setTasks` that is no task.
    pub(crate) fn no_task(message: &'a str) -> Self {
        Self::Terminated(Terminated {
            exit_code: NO_TASK,
            signal: None,
            reason: "InvalidTask",
            message: message.into(),
            started_at: None,
            finished_at: None,
        })
    }

    fn waiting(message: String) -> Self {
        Self::Waiting(Waiting {
            reason: "Initialized".into(),
            message,
        })
    }

    fn running(since: Timestamp) -> Self {
        Self::Running(Running {
            started_at: WholeSeconds(since),
        })
    }

    /// The contract's word for a pod in this state.
    pub(crate) fn pod_phase(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "Pending",
            Self::Running(_) => "Running",
            Self::Terminated(Terminated { exit_code: 0, .. }) => "Succeeded",
            Self::Terminated(_) => "Failed",
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// When this became so, as far as the state tells.
    pub(crate) fn changed_at(&self) -> Option<WholeSeconds> {
        match self {
            Self::Waiting(_) => None,
            Self::Running(running) => Some(running.started_at),
            Self::Terminated(terminated) => terminated.finished_at.or(terminated.started_at),
        }
    }
}

impl<'a> Terminated<'a> {
    /// How the attempt before the present one ended, if there was one.
    pub(crate) fn before(task: &'a Task) -> Option<Self> {
        let past = match &task.state {
            TaskState::Pending { .. } => task.attempts.last(),
            _ => task.attempts.iter().rev().nth(1),
        };
        let past = past?;
        let outcome = past.outcome.as_ref()?;
        let begun = Some(begin_of(past));
        Some(terminated(task, outcome, begun, past.ended_at))
    }
}

fn begin_of(attempt: &Attempt) -> Timestamp {
    attempt.started_at.unwrap_or(attempt.launched_at)
}

fn pending_message(task: &Task, not_before: Option<Timestamp>) -> String {
    match task.hold() {
        Some(Hold::Asked {
            policies, question, ..
        }) => {
            let policies = policies.join(", ");
            return format!(
                "policy {policies} asks, and somebody is to approve or deny it: {question}"
            );
        }
        Some(Hold::Broken {
            policy, message, ..
        }) => return format!("policy {policy} gives no verdict and is asked again: {message}"),
        None => {}
    }
    let next = task.attempts.len() + 1;
    match (task.attempts.is_empty(), not_before) {
        (true, _) => "it waits for its turn".to_owned(),
        (false, Some(at)) => {
            let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
            format!("attempt {next} is made at {at:.0}, after a pause")
        }
        (false, None) => format!("attempt {next} waits for its turn"),
    }
}

fn terminated<'a>(
    task: &Task,
    outcome: &'a Outcome,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
) -> Terminated<'a> {
    let (exit_code, signal, reason, message) = tell(task, outcome);
    Terminated {
        exit_code,
        signal,
        reason,
        message,
        started_at: started_at.map(WholeSeconds),
        finished_at: finished_at.map(WholeSeconds),
    }
}

type Told<'a> = (i32, Option<i32>, &'static str, Cow<'a, str>);

/// An outcome in the contract's words.
fn tell<'a>(task: &Task, outcome: &'a Outcome) -> Told<'a> {
    match outcome {
        Outcome::Exited { code: 0, message } => {
            let message = message.as_deref().unwrap_or("Task completed successfully");
            (0, None, "Succeeded", message.into())
        }
        Outcome::Exited { code, message } => {
            let message = match message {
                Some(message) => Cow::Borrowed(message.as_str()),
                None => format!("the command ended with exit code {code}").into(),
            };
            (i32::from(*code), None, "Failed", message)
        }
        Outcome::Signaled { signal } => (
            128 + signal,
            Some(*signal),
            "Failed",
            format!("the command was ended by signal {signal}").into(),
        ),
        Outcome::OutOfMemory { exit } => (
            // What was starved need not be what ended: an end in success is none.
            exit.map(ExitStatus::shell_code)
                .filter(|code| *code != 0)
                .unwrap_or(KILLED),
            by_signal(*exit),
            "OOMKilled",
            OUT_OF_MEMORY.into(),
        ),
        Outcome::TimedOut { limit, exit } => (
            TIMED_OUT,
            None,
            "TaskTimeout",
            format!("{}{}", limit_message(task, *limit), real_end(*exit)).into(),
        ),
        Outcome::Canceled { exit } => (
            exit.map_or(STOPPED_BEFORE_START, ExitStatus::shell_code),
            by_signal(*exit),
            "Canceled",
            format!("it was stopped on request{}", real_end(*exit)).into(),
        ),
        Outcome::Denied { policy, reason } => (
            OUR_FAULT,
            None,
            "Denied",
            format!("policy {policy:?} refused it: {reason}").into(),
        ),
        Outcome::PluginFault { runtime, message } => (
            OUR_FAULT,
            None,
            "PluginFault",
            format!("runtime {runtime:?} failed: {message}").into(),
        ),
        Outcome::Infrastructure { fault, message } => (
            OUR_FAULT,
            None,
            fault_reason(*fault),
            message.as_str().into(),
        ),
        Outcome::Lost { message } => {
            let message = match message.as_str() {
                "" => NOBODY_SAW,
                told => told,
            };
            (OUR_FAULT, None, "Lost", message.into())
        }
    }
}

fn fault_reason(fault: Fault) -> &'static str {
    match fault {
        Fault::Machine => "Infrastructure",
        Fault::Image => "ImageUnavailable",
        Fault::ContainerRuntime => "RuntimeUnavailable",
        Fault::Sandbox => "SandboxLost",
        Fault::Target => "TargetLost",
        Fault::Policy => "PolicyError",
    }
}

fn by_signal(exit: Option<ExitStatus>) -> Option<i32> {
    match exit {
        Some(ExitStatus::Signal(signal)) => Some(signal),
        Some(ExitStatus::Code(_)) | None => None,
    }
}

fn limit_message(task: &Task, limit: Limit) -> String {
    let limits = &task.spec.limits;
    let (what, time) = match limit {
        Limit::Queue => ("waited longer than its queue limit", limits.queue),
        Limit::Start => ("took longer to start than its start limit", limits.start),
        Limit::Idle => (
            "printed nothing for longer than its idle limit",
            limits.idle,
        ),
        Limit::Run => ("ran longer than its run limit", limits.run),
    };
    let told = match time {
        Some(time) => format!("it {what} of {} seconds", time.as_secs_f64()),
        None => format!("it {what}"),
    };
    match held_last(task).filter(|_| limit == Limit::Queue) {
        Some(held) => format!("{told}: {held}"),
        None => told,
    }
}

/// Which policy held back a task that has ended without an attempt, and why.
pub(super) fn held_last(task: &Task) -> Option<String> {
    let review = task.review.as_deref()?;
    let held = |verdict: &&Verdict| {
        let is_answered = review.answers.iter().any(|answer| answer.at >= verdict.at);
        verdict.mode == Mode::Enforce && !is_answered
    };
    let mut newest = review.verdicts.iter().rev().filter(held);
    newest.find_map(|verdict| {
        let policy = &verdict.policy;
        match &verdict.said {
            Said::Ask { question } => Some(format!(
                "nobody answered what policy {policy} asked: {question}"
            )),
            Said::Fault { message } => Some(format!("policy {policy} gave no verdict: {message}")),
            Said::Allow | Said::Change { .. } | Said::Deny { .. } => None,
        }
    })
}

fn real_end(exit: Option<ExitStatus>) -> String {
    match exit {
        Some(ExitStatus::Code(code)) => format!(", and then ended with exit code {code}"),
        Some(ExitStatus::Signal(signal)) => format!(", and was ended by signal {signal}"),
        None => String::new(),
    }
}
