//! What is answered: the fields of both documents together, and ours beside them.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use taskwright_model::Timestamp;
use taskwright_queue::{Attempt, Conversation, Json, LogEntry, Message, QueuedTask, Worker};

use crate::native::status::Millis;
use crate::problem::FieldProblem;

/// An error: the same three words everywhere.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueError)]
pub(crate) struct ErrorView<'a> {
    /// What happened, for people.
    pub(crate) detail: &'a str,
    /// What kind of error it is, for programs.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The request's `X-Request-ID`, by which the log knows it.
    pub(crate) request_id: &'a str,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<ErrorField<'a>>,
}

/// A field that is wrong.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueErrorField)]
pub(crate) struct ErrorField<'a> {
    /// Where: `body`, `query` or `path`, and the names from there on.
    loc: Vec<&'a str>,
    /// What is wrong.
    msg: &'a str,
    /// `value_error`.
    #[serde(rename = "type")]
    kind: &'static str,
}

impl<'a> ErrorView<'a> {
    pub(crate) fn of(
        status: StatusCode,
        detail: &'a str,
        request_id: &'a str,
        fields: &'a [FieldProblem],
    ) -> Self {
        Self {
            detail,
            kind: kind(status),
            request_id,
            errors: fields.iter().map(ErrorField::of).collect(),
        }
    }
}

impl<'a> ErrorField<'a> {
    fn of(problem: &'a FieldProblem) -> Self {
        let place = problem.field.as_str();
        let loc = if let Some(word) = place.strip_prefix('?') {
            vec!["query", word]
        } else if let Some(part) = place.strip_prefix('{') {
            vec!["path", part.trim_end_matches('}')]
        } else {
            let inner = place.split('/').filter(|name| !name.is_empty());
            std::iter::once("body").chain(inner).collect()
        };
        Self {
            loc,
            msg: &problem.message,
            kind: "value_error",
        }
    }
}

fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "bad_request",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "payload_too_large",
        StatusCode::UNPROCESSABLE_ENTITY => "validation_error",
        StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
        StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
        StatusCode::INSUFFICIENT_STORAGE => "insufficient_storage",
        status if status.is_client_error() => "client_error",
        _ => "server_error",
    }
}

/// A queued task.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueuedTask)]
pub(super) struct TaskView<'a> {
    #[schema(format = "uuid")]
    id: String,
    problem_id: &'a str,
    /// `pending`, `running`, `completed`, `failed`, `timeout` or `cancelled`.
    status: &'static str,
    /// Everything the submitter said, defaults filled in.
    #[schema(value_type = Object)]
    parameters: Raw<'a>,
    /// Who holds it, or held it last.
    worker_id: Option<&'a str>,
    /// What its worker brought, verbatim.
    #[schema(value_type = Option<Object>)]
    result: Option<Raw<'a>>,
    /// What went wrong, for people.
    error_details: Option<&'a str>,
    #[schema(value_type = String, format = "date-time")]
    created_at: Millis,
    #[schema(value_type = String, format = "date-time")]
    updated_at: Millis,
    /// When its present attempt, or its last, was claimed.
    #[schema(value_type = Option<String>, format = "date-time")]
    started_at: Option<Millis>,
    #[schema(value_type = Option<String>, format = "date-time")]
    completed_at: Option<Millis>,
    /// How often it was claimed: the number of the present attempt, and its fencing number.
    attempt: u32,
    /// Whose doing its end was: `reported`, `time-limit`, `worker-lost`, `worker-restarted`,
    /// `cancelled` or `infrastructure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// What else its worker told of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    error_data: Option<Raw<'a>>,
    /// Where its end is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
    /// Of a claimed task: how long it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseView>,
    /// The attempts that are over, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView<'a>>>,
    /// Its newest lines, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<Vec<LogView<'a>>>,
    /// Of a cancelled task: that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// The id once more, where the older document has it under this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

/// How long a claimed task is held.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueLease)]
struct LeaseView {
    /// The fencing number: reports under it are taken as long as nobody else has the task.
    number: u32,
    /// Seconds that its worker may be silent.
    seconds: f64,
    /// When it runs out of time whatever the worker does.
    #[schema(value_type = Option<String>, format = "date-time")]
    deadline: Option<Millis>,
}

/// An attempt that is over.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueAttempt)]
pub(super) struct AttemptView<'a> {
    number: u32,
    worker_id: &'a str,
    #[schema(value_type = String, format = "date-time")]
    started_at: Millis,
    #[schema(value_type = String, format = "date-time")]
    ended_at: Millis,
    /// `completed`, `failed`, `timeout`, `cancelled` or `lost`.
    outcome: &'static str,
    /// Whose doing that was.
    cause: &'static str,
    error: Option<&'a str>,
}

/// What is told of a task beside what it is.
#[derive(Default)]
pub(super) struct Beside<'a> {
    /// Its attempts.
    pub(super) attempts: Option<&'a [Attempt]>,
    /// Its lines.
    pub(super) logs: Option<&'a [LogEntry]>,
    /// Seconds of the lease that a claim gave.
    pub(super) lease: Option<f64>,
    /// Whether it was just cancelled.
    pub(super) cancelled: bool,
}

impl<'a> TaskView<'a> {
    pub(super) fn of(task: &'a QueuedTask) -> Self {
        Self::with(task, &Beside::default())
    }

    pub(super) fn with(task: &'a QueuedTask, beside: &Beside<'a>) -> Self {
        Self {
            id: task.id.to_string(),
            problem_id: task.problem_id.as_str(),
            status: task.status.word(),
            parameters: Raw(&task.parameters),
            worker_id: task.worker.as_ref().map(|worker| worker.as_str()),
            result: task.result.as_ref().map(Raw),
            error_details: task.error.as_deref(),
            created_at: Millis(task.created_at),
            updated_at: Millis(task.updated_at),
            started_at: task.started_at.map(Millis),
            completed_at: task.completed_at.map(Millis),
            attempt: task.attempt,
            cause: task.cause.map(taskwright_queue::Cause::word),
            error_data: task.error_document.as_ref().map(Raw),
            callback_url: task.callback_url.as_deref(),
            lease: beside.lease.map(|seconds| LeaseView {
                number: task.attempt,
                seconds,
                deadline: task.deadline.map(Millis),
            }),
            attempts: beside
                .attempts
                .map(|all| all.iter().map(AttemptView::of).collect()),
            logs: beside.logs.map(|all| all.iter().map(LogView::of).collect()),
            message: beside.cancelled.then_some("Task cancelled successfully"),
            task_id: beside.cancelled.then(|| task.id.to_string()),
        }
    }
}

impl<'a> AttemptView<'a> {
    pub(super) fn of(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            worker_id: attempt.worker.as_str(),
            started_at: Millis(attempt.started_at),
            ended_at: Millis(attempt.ended_at),
            outcome: attempt.end.word(),
            cause: attempt.cause.word(),
            error: attempt.error.as_deref(),
        }
    }
}

/// A worker.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueWorker)]
pub(super) struct WorkerView<'a> {
    id: &'a str,
    backend_type: &'a str,
    /// `idle`, `busy` or `offline`.
    status: &'static str,
    #[schema(value_type = String, format = "date-time")]
    last_heartbeat: Millis,
    #[schema(value_type = String, format = "date-time")]
    registered_at: Millis,
    /// The newest task it holds.
    current_task_id: Option<String>,
    /// Every task it holds, the newest last.
    current_task_ids: Vec<String>,
    #[schema(value_type = Object)]
    capabilities: Raw<'a>,
    #[schema(value_type = Object)]
    metadata: Raw<'a>,
    tasks_completed: u64,
    tasks_failed: u64,
    /// How often it registered. Another number than the one it was answered tells a worker that
    /// somebody else goes by its id.
    registrations: u64,
    /// Of a heartbeat: that it was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// Of a heartbeat: when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    timestamp: Option<Millis>,
    /// Of a heartbeat: whether the task that the worker said it works on is not its any more, so
    /// that it may give it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<bool>,
}

impl<'a> WorkerView<'a> {
    pub(super) fn of(worker: &'a Worker, now: Timestamp) -> Self {
        Self {
            id: worker.id.as_str(),
            backend_type: &worker.backend_type,
            status: worker.status(now).word(),
            last_heartbeat: Millis(worker.last_heartbeat),
            registered_at: Millis(worker.registered_at),
            current_task_id: worker.running.last().map(ToString::to_string),
            current_task_ids: worker.running.iter().map(ToString::to_string).collect(),
            capabilities: Raw(&worker.capabilities.document),
            metadata: Raw(&worker.metadata),
            tasks_completed: worker.completed,
            tasks_failed: worker.failed,
            registrations: worker.revision,
            message: None,
            timestamp: None,
            cancelled: None,
        }
    }

    pub(super) fn heard(worker: &'a Worker, now: Timestamp, gone: Option<bool>) -> Self {
        Self {
            message: Some("Heartbeat received"),
            timestamp: Some(Millis(now)),
            cancelled: gone,
            ..Self::of(worker, now)
        }
    }
}

/// A line of a task.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueLogEntry)]
pub(super) struct LogView<'a> {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = "uuid")]
    task_id: String,
    /// Its number among the task's lines: read on with `after`.
    sequence: u64,
    #[schema(value_type = String, format = "date-time")]
    timestamp: Millis,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    level: &'static str,
    message: &'a str,
    #[schema(value_type = Object)]
    context: Raw<'a>,
    /// Of which attempt at the task, where its writer told.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

impl<'a> LogView<'a> {
    pub(super) fn of(entry: &'a LogEntry) -> Self {
        Self {
            id: entry.id().to_string(),
            task_id: entry.task.to_string(),
            sequence: entry.sequence,
            timestamp: Millis(entry.at),
            level: entry.level.word(),
            message: &entry.message,
            context: Raw(&entry.context),
            attempt: entry.attempt,
        }
    }
}

/// A conversation without its messages.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConversationSummary)]
pub(super) struct SummaryView<'a> {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = "uuid")]
    task_id: String,
    #[schema(format = "uuid")]
    session_id: String,
    #[schema(value_type = String, format = "date-time")]
    started_at: Millis,
    #[schema(value_type = Option<String>, format = "date-time")]
    ended_at: Option<Millis>,
    model_name: Option<&'a str>,
    total_messages: u64,
    /// Reported, or else estimated.
    total_tokens: u64,
    /// Whether the tokens are an estimate: a quarter of the characters.
    tokens_estimated: bool,
    /// Whether it reached its end; null until somebody tells.
    success: Option<bool>,
    /// Of which attempt at the task, where its writer told.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

/// A conversation.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Conversation)]
pub(super) struct ConversationView<'a> {
    #[serde(flatten)]
    summary: SummaryView<'a>,
    #[schema(value_type = Object)]
    llm_config: Raw<'a>,
    #[schema(value_type = Object)]
    metadata: Raw<'a>,
    /// What was reported of its cost.
    total_cost: Option<CostView>,
    /// Its messages, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<MessageView>>,
}

/// What a conversation cost.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConversationCost)]
struct CostView {
    input_tokens: u64,
    output_tokens: u64,
    total_cost: Option<f64>,
}

/// A message, as it was sent, with its number and time.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConversationMessage)]
pub(super) struct MessageView {
    /// Its number in the conversation, from 0.
    sequence: u64,
    #[schema(value_type = String, format = "date-time")]
    timestamp: Millis,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    body: serde_json::Map<String, serde_json::Value>,
}

/// Characters that a token is taken to have where nobody reported.
const CHARACTERS_A_TOKEN: u64 = 4;

impl<'a> SummaryView<'a> {
    pub(super) fn of(conversation: &'a Conversation) -> Self {
        let reported = conversation.usage.as_ref();
        Self {
            id: conversation.id.to_string(),
            task_id: conversation.task.to_string(),
            session_id: conversation.session.to_string(),
            started_at: Millis(conversation.started_at),
            ended_at: conversation.ended_at.map(Millis),
            model_name: conversation.model_name.as_deref(),
            total_messages: conversation.messages,
            total_tokens: match reported {
                Some(usage) => usage.input_tokens.saturating_add(usage.output_tokens),
                None => conversation.characters / CHARACTERS_A_TOKEN,
            },
            tokens_estimated: reported.is_none(),
            success: conversation.success,
            attempt: conversation.attempt,
        }
    }
}

impl<'a> ConversationView<'a> {
    pub(super) fn of(conversation: &'a Conversation, messages: Option<&'a [Message]>) -> Self {
        Self {
            summary: SummaryView::of(conversation),
            llm_config: Raw(&conversation.config),
            metadata: Raw(&conversation.metadata),
            total_cost: conversation.usage.as_ref().map(|usage| CostView {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                total_cost: usage.cost,
            }),
            messages: messages.map(|all| all.iter().map(MessageView::of).collect()),
        }
    }
}

impl MessageView {
    pub(super) fn of(message: &Message) -> Self {
        let mut body = match message.body.value() {
            serde_json::Value::Object(body) => body,
            _ => serde_json::Map::new(),
        };
        // These two are told once, by the fields above.
        body.remove("sequence");
        body.remove("timestamp");
        Self {
            sequence: message.sequence,
            timestamp: Millis(message.at),
            body,
        }
    }
}

/// A document as it was given.
pub(super) struct Raw<'a>(pub(super) &'a Json);

impl Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(self.0.as_str()) {
            Ok(raw) => raw.serialize(serializer),
            // Only a store that somebody else wrote to holds what is not JSON.
            Err(_) => serializer.serialize_none(),
        }
    }
}
