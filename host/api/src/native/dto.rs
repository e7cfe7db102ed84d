//! A task as it is answered: the union of both forms of the contract, and our own
//! fields beside them. Written straight from the model, borrowing all it can.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use taskwright_model::{
    Attempt, ExitStatus, Limit, Outcome, Part, ProcessSpec, Task, TaskId, TaskState, Work,
};

use super::bounds::{LimitsView, ResourcesView, RetryView, UserView, is_false};
use super::parse::{CONTAINER, POD_TEMPLATE};
use super::review::ReviewView;
use super::status::{Millis, State, Terminated, WholeSeconds, held_last};
use crate::auth::{Caller, Scope};
use crate::problem::FieldProblem;

/// Whether the values of a task's environment are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvValues {
    /// As they are: the contract's clients need their spec back.
    Shown,
    /// As `***`: the caller may read tasks and not their secrets.
    Masked,
}

impl EnvValues {
    /// What this caller is told.
    pub(crate) fn for_caller(caller: &Caller) -> Self {
        if caller.scope >= Scope::Submit {
            Self::Shown
        } else {
            Self::Masked
        }
    }
}

const MASK: &str = "***";

/// A task. `spec` and `status` are its first form, `process` and `processStatus` its second.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Task)]
pub(crate) struct TaskView<'a> {
    /// Its name.
    name: &'a str,
    /// Since when it is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    deletion_timestamp: Option<WholeSeconds>,
    spec: SpecView<'a>,
    status: StatusView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessView<'a>>,
    /// A core/v1 `PodTemplateSpec`, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pod_template_spec: Option<Cow<'a, RawValue>>,
    process_status: &'a State<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_status: Option<PodStatus<'a>>,
    /// What identifies it for ever; names are used again.
    #[schema(value_type = String, format = "uuid")]
    id: Shown<TaskId>,
    /// Where its name is unique.
    namespace: &'a str,
    /// Words to find it by.
    labels: &'a BTreeMap<String, String>,
    /// The runtime that takes it.
    runtime: &'a str,
    /// Higher runs first.
    priority: i32,
    /// `pending`, `starting`, `running`, `stopping` or `ended`.
    state: &'static str,
    limits: LimitsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryView<'a>>,
    #[serde(skip_serializing_if = "ResourcesView::is_empty")]
    resources: ResourcesView,
    /// As whom it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserView<'a>>,
    /// Whether nothing it executes gains privileges.
    #[serde(skip_serializing_if = "is_false")]
    no_new_privileges: bool,
    /// Absolute paths that it sees read-only.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    read_only_paths: &'a [String],
    /// Whether what this machine cannot enforce is left out.
    #[serde(skip_serializing_if = "is_false")]
    best_effort: bool,
    /// What only its runtime understands; not told to a token of scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    config: Option<Cow<'a, RawValue>>,
    /// What policies and people said about it, where any was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<ReviewView<'a>>,
    /// How it ended, once it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView<'a>>,
    /// Every attempt made, first to last.
    attempts: Vec<AttemptView<'a>>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Millis,
    /// In the answer to `setTasks`: why this task is not as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ElementProblem<'a>>,
}

/// Why an element of `setTasks` is not had as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct ElementProblem<'a> {
    /// For people.
    pub(crate) message: Cow<'a, str>,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) details: &'a [FieldProblem],
}

/// What was asked for, in the first form.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Spec)]
struct SpecView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessView<'a>>,
    /// A container, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    container: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<OtherView<'a>>,
    /// The run limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
}

/// Work of a kind that only its runtime knows, as it was sent.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = OtherWork)]
struct OtherView<'a> {
    /// The kind, as a runtime describes it.
    kind: &'a str,
    /// Left out where the caller may not see what tasks are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    content: Option<&'a RawValue>,
}

impl<'a> OtherView<'a> {
    fn of(work: &'a Work, values: EnvValues) -> Option<Self> {
        let Work::Document { kind, json } = work else {
            return None;
        };
        if [CONTAINER, POD_TEMPLATE].contains(&kind.as_str()) {
            return None;
        }
        // Nobody but its runtime knows where secrets stand in it.
        let shown = values == EnvValues::Shown;
        let content = shown.then(|| serde_json::from_str(json).ok()).flatten();
        Some(Self { kind, content })
    }
}

/// The state, in the first form.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Status)]
struct StatusView<'a> {
    state: &'a State<'a>,
    last_state: LastState<'a>,
}

/// How the attempt before the present one ended; empty when there was none.
#[derive(Serialize, utoipa::ToSchema)]
struct LastState<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    terminated: Option<Terminated<'a>>,
}

/// A command.
#[derive(Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Process)]
pub(super) struct ProcessView<'a> {
    /// The program and its first arguments.
    command: &'a [String],
    /// Further arguments.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    args: &'a [String],
    /// Variables; the values are `***` for a token of scope `read`.
    #[serde(skip_serializing_if = "EnvView::is_empty")]
    #[schema(value_type = Vec<EnvVarView<'static>>)]
    env: EnvView<'a>,
    /// Where it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    /// The run limit (second form only).
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
}

#[derive(Clone, Copy)]
struct EnvView<'a> {
    variables: &'a [taskwright_model::EnvVar],
    values: EnvValues,
}

impl EnvView<'_> {
    fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }
}

impl Serialize for EnvView<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.variables.iter().map(|one| EnvVarView {
            name: &one.name,
            value: match self.values {
                EnvValues::Shown => &one.value,
                EnvValues::Masked => MASK,
            },
        }))
    }
}

/// One variable.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = EnvVar)]
struct EnvVarView<'a> {
    name: &'a str,
    value: &'a str,
}

/// How a task or an attempt ended, and whose doing that was.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Outcome)]
pub(crate) struct OutcomeView<'a> {
    /// `exit`, `signal`, `out-of-memory`, `timeout`, `canceled`, `denied`, `plugin-fault`,
    /// `infrastructure`, `image-unavailable`, `runtime-unavailable`, `sandbox-lost`, `target-lost`,
    /// `policy-error` or `lost`.
    cause: &'static str,
    /// The exit code of the main process, where it is known and ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    /// The signal that ended the main process.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// The time limit that fired: `queue`, `start`, `idle` or `run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
}

impl<'a> OutcomeView<'a> {
    pub(crate) fn of(outcome: &'a Outcome) -> Self {
        let (exit_code, signal) = match outcome.exit() {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let limit = match outcome {
            Outcome::TimedOut { limit, .. } => Some(limit.as_str()),
            _ => None,
        };
        let message = match outcome {
            Outcome::Exited { message, .. } => message.as_deref().map(Cow::Borrowed),
            Outcome::Denied { policy, reason } => Some(format!("{policy}: {reason}").into()),
            Outcome::PluginFault { runtime, message } => {
                Some(format!("{runtime}: {message}").into())
            }
            Outcome::Infrastructure { message, .. } | Outcome::Lost { message } => {
                Some(message.as_str())
                    .filter(|text| !text.is_empty())
                    .map(Cow::Borrowed)
            }
            Outcome::Signaled { .. }
            | Outcome::OutOfMemory { .. }
            | Outcome::TimedOut { .. }
            | Outcome::Canceled { .. } => None,
        };
        Self {
            cause: outcome.cause(),
            exit_code,
            signal,
            limit,
            message,
        }
    }
}

impl OutcomeView<'_> {
    /// With what only the task knows: why it never had its turn.
    fn of_task(mut self, task: &Task) -> Self {
        if self.limit == Some(Limit::Queue.as_str()) {
            self.message = held_last(task).map(Cow::Owned);
        }
        self
    }
}

/// One try.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Attempt)]
struct AttemptView<'a> {
    /// Which try, from 1.
    number: u32,
    /// When its runtime was asked to start it.
    #[schema(value_type = String, format = DateTime)]
    launched_at: Millis,
    /// When it was running.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Millis>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView<'a>>,
    /// The main process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// What it is doing or waiting for, as its runtime tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    /// What is enforced of the task's restrictions, and by what: `cgroup1`, `cgroup2`, `rlimit`,
    /// `credentials`, `prctl`, `mount-namespace` or `container-runtime`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    enforced: BTreeMap<&'static str, &'static str>,
    /// What the task restricts and is not enforced, since it says `bestEffort`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_enforced: Vec<NotEnforced<'a>>,
}

/// A restriction that was left out.
#[derive(Serialize, utoipa::ToSchema)]
struct NotEnforced<'a> {
    /// Which one, as in `enforced`.
    restriction: &'static str,
    /// What this machine, or the container runtime, lacks.
    why: &'a str,
}

impl<'a> AttemptView<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number.0,
            launched_at: Millis(attempt.launched_at),
            started_at: attempt.started_at.map(Millis),
            finished_at: attempt.ended_at.map(Millis),
            outcome: attempt.outcome.as_ref().map(OutcomeView::of),
            pid: attempt.process.map(|process| process.pid),
            note: attempt.remarks.note.as_deref(),
            enforced: attempt
                .remarks
                .enforced
                .iter()
                .map(|(what, by)| (what.as_str(), by.as_str()))
                .collect(),
            not_enforced: attempt
                .remarks
                .enforced
                .left_out()
                .map(|(what, why)| NotEnforced {
                    restriction: what.as_str(),
                    why,
                })
                .collect(),
        }
    }
}

/// The state as a core/v1 `PodStatus`, for tasks that are pods.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct PodStatus<'a> {
    phase: &'static str,
    conditions: [PodCondition; 2],
    container_statuses: Vec<ContainerStatus<'a>>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct PodCondition {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_transition_time: Option<WholeSeconds>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ContainerStatus<'a> {
    name: Cow<'a, str>,
    ready: bool,
    state: Cow<'a, State<'a>>,
}

impl<'a> PodStatus<'a> {
    fn of(task: &'a Task, state: &'a State<'a>) -> Self {
        let parts = task.attempt().map(|attempt| &*attempt.remarks.parts);
        // Whoever tells of parts does so at the end as well, if it lives to see it.
        let untold_end = match &task.state {
            TaskState::Ended { outcome, .. } => {
                matches!(outcome, Outcome::PluginFault { .. } | Outcome::Lost { .. })
            }
            _ => false,
        };
        let mut containers: Vec<ContainerStatus<'a>> = parts
            .unwrap_or_default()
            .iter()
            .map(|part| ContainerStatus::of(part, state, untold_end))
            .collect();
        if containers.is_empty() {
            // Nobody told of them yet: they are as the pod is.
            containers = names_of(task)
                .into_iter()
                .map(|name| ContainerStatus {
                    name: name.into(),
                    ready: state.is_running(),
                    state: Cow::Borrowed(state),
                })
                .collect();
        }
        let ready = state.is_running() && containers.iter().all(|container| container.ready);
        let condition = |kind| PodCondition {
            kind,
            status: if ready { "True" } else { "False" },
            last_transition_time: state.changed_at(),
        };
        Self {
            phase: state.pod_phase(),
            conditions: [condition("Ready"), condition("ContainersReady")],
            container_statuses: containers,
        }
    }
}

/// The names of a pod's containers, as it was submitted.
fn names_of(task: &Task) -> Vec<String> {
    let Work::Document { json, .. } = &task.spec.work else {
        return vec!["main".to_owned()];
    };
    let pod: Value = serde_json::from_str(json).unwrap_or_default();
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .map(|container| {
            let name = container.get("name").and_then(Value::as_str);
            name.unwrap_or("main").to_owned()
        })
        .collect()
}

impl<'a> ContainerStatus<'a> {
    /// A part as it is, unless the task has ended in a way that its parts were not told of. One
    /// that never had its turn waits for it still, as behind an init container that failed.
    fn of(part: &'a Part, task: &'a State<'a>, untold_end: bool) -> Self {
        let has_ended = matches!(task, State::Terminated(_));
        let state = match State::of_part(part) {
            State::Running(_) if has_ended => Cow::Borrowed(task),
            State::Waiting(_) if has_ended && untold_end => Cow::Borrowed(task),
            state => Cow::Owned(state),
        };
        Self {
            name: part.name.as_str().into(),
            ready: state.is_running(),
            state,
        }
    }
}

/// Something written as its text.
struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Hands the wire form of `task` to `take`: the form borrows from parts made here.
pub(crate) fn with_view<R>(
    task: &Task,
    values: EnvValues,
    problem: Option<ElementProblem<'_>>,
    take: impl FnOnce(&TaskView<'_>) -> R,
) -> R {
    let state = State::of(task);
    let spec = &*task.spec;
    // The contract has whole seconds: a fraction rounds up, so that no limit reads as none.
    let timeout = spec
        .limits
        .run
        .map(|run| run.as_millis().div_ceil(1000) as u64);
    let process = match &spec.work {
        Work::Process(process) => Some(ProcessView::of(process, values)),
        Work::Document { .. } => None,
    };
    let document = |wanted: &str| match &spec.work {
        Work::Document { kind, json } if kind == wanted => document(json, values),
        _ => None,
    };
    let pod_template_spec = document(POD_TEMPLATE);
    let view = TaskView {
        name: task.key.name.as_str(),
        deletion_timestamp: task.deleting_since.map(WholeSeconds),
        spec: SpecView {
            process,
            container: document(CONTAINER),
            document: OtherView::of(&spec.work, values),
            timeout_seconds: timeout,
        },
        status: StatusView {
            state: &state,
            last_state: LastState {
                terminated: Terminated::before(task),
            },
        },
        process: process.map(|process| ProcessView {
            timeout_seconds: timeout,
            ..process
        }),
        process_status: &state,
        pod_status: pod_template_spec
            .is_some()
            .then(|| PodStatus::of(task, &state)),
        pod_template_spec,
        id: Shown(task.id),
        namespace: task.key.namespace.as_str(),
        labels: &spec.labels,
        runtime: task.runtime.as_str(),
        priority: spec.priority,
        state: task.state.as_str(),
        limits: LimitsView::of(&spec.limits),
        retry: RetryView::of(&spec.retry),
        resources: ResourcesView::of(&spec.confinement),
        user: spec.confinement.user.as_ref().map(UserView::of),
        no_new_privileges: spec.confinement.no_new_privileges,
        read_only_paths: &spec.confinement.read_only_paths,
        best_effort: spec.confinement.best_effort,
        config: Some(spec.config.as_str())
            // It may hold secrets that nobody here can tell from the rest.
            .filter(|text| !text.is_empty() && values == EnvValues::Shown)
            .and_then(|text| serde_json::from_str(text).ok())
            .map(Cow::Borrowed),
        review: ReviewView::of(task, values),
        outcome: task
            .outcome()
            .map(|outcome| OutcomeView::of(outcome).of_task(task)),
        attempts: task.attempts.iter().map(AttemptView::of).collect(),
        created_at: Millis(task.submitted_at),
        problem,
    };
    take(&view)
}

impl<'a> ProcessView<'a> {
    pub(super) fn of(process: &'a ProcessSpec, values: EnvValues) -> Self {
        Self {
            command: &process.command,
            args: &process.args,
            env: EnvView {
                variables: &process.env,
                values,
            },
            working_dir: process.working_dir.as_deref(),
            timeout_seconds: None,
        }
    }
}

/// A stored document as it was sent, or with the values of its variables masked.
fn document(json: &str, values: EnvValues) -> Option<Cow<'_, RawValue>> {
    match values {
        EnvValues::Shown => serde_json::from_str(json).ok().map(Cow::Borrowed),
        EnvValues::Masked => {
            let mut value = serde_json::from_str(json).ok()?;
            mask(&mut value);
            serde_json::value::to_raw_value(&value).ok().map(Cow::Owned)
        }
    }
}

/// Masks `value` of every entry of every `env`, however deep.
fn mask(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::Object(map) => {
            for (key, inner) in map {
                if key == "env"
                    && let Value::Array(variables) = inner
                {
                    for variable in variables.iter_mut().filter_map(Value::as_object_mut) {
                        if let Some(secret) = variable.get_mut("value") {
                            *secret = Value::from(MASK);
                        }
                    }
                } else {
                    mask(inner);
                }
            }
        }
        _ => {}
    }
}

/// What is told of an element of `setTasks` that is no task: a failure of that name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoTaskView<'a> {
    name: &'a str,
    spec: Empty,
    status: StatusView<'a>,
    process_status: &'a State<'a>,
    problem: ElementProblem<'a>,
}

#[derive(Serialize)]
struct Empty {}

/// Appends one task to `out`, as JSON.
pub(crate) fn write_task(
    out: &mut Vec<u8>,
    task: &Task,
    values: EnvValues,
    problem: Option<ElementProblem<'_>>,
) {
    with_view(task, values, problem, |view| write(out, view));
}

/// Appends an element that is no task to `out`, as JSON.
pub(crate) fn write_no_task(out: &mut Vec<u8>, name: &str, problem: ElementProblem<'_>) {
    let message = problem.message.clone();
    let state = State::no_task(&message);
    write(
        out,
        &NoTaskView {
            name,
            spec: Empty {},
            status: StatusView {
                state: &state,
                last_state: LastState { terminated: None },
            },
            process_status: &state,
            problem,
        },
    );
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    // These are structs of texts and numbers: writing them to memory cannot fail.
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "a task could not be written as JSON");
    }
}
