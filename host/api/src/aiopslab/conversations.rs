//! What was said between a model and the world: read, and written by workers that run
//! elsewhere.

use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use serde_json::{Map, Value};
use taskwright_queue::conversation::{
    ConversationQuery, ConversationUpdate, MessagesPart, NewMessage, Usage,
};
use taskwright_queue::{
    Conversation, ConversationId, Json, Message, NewConversation, Role, StoreError,
};

use super::read::{self, Words};
use super::tasks::{Counted, rate};
use super::view::{ConversationView, ErrorView, MessageView, SummaryView};
use crate::body::json;
use crate::native::Shared;
use crate::parts::{self, Part};
use crate::problem::{FieldProblem, Problem};
use crate::state::ApiState;

const LONGEST_MODEL: usize = 100;
/// Messages of one request.
const MOST_MESSAGES: usize = 1000;
/// Messages of one answer that tells a conversation whole.
const MOST_TOLD: u32 = 50_000;
/// The most tokens of one conversation. Sums over all of them stay what a store can count.
const MOST_TOKENS: u64 = 1_000_000_000_000;
/// Conversations of one task in one answer.
const MOST_OF_TASK: u32 = 1000;
const ROLES: &str = "system, user, assistant, function, tool";

/// The envelope of a list of conversations.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConversationPage)]
struct PageView<'a> {
    conversations: Vec<SummaryView<'a>>,
    total: u64,
    page: u64,
    page_size: u32,
}

/// List conversations, the newest first.
#[utoipa::path(
    get, path = "/api/v1/llm-conversations", tag = "conversations",
    params(
        ("task_id" = Option<String>, Query, description = "Of this task"),
        ("model_name" = Option<String>, Query, description = "With this model"),
        ("page" = Option<u64>, Query, description = "From 1"),
        ("page_size" = Option<u32>, Query, description = "1 to 100, by default 20"),
    ),
    responses(
        (status = 200, description = "Conversations without their messages", body = PageView<'static>),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
    )
)]
pub(super) async fn list(
    State(state): Shared,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let page = read::number(&words, "page", 1, 10_000_000)?.unwrap_or(1);
    let page_size = read::number(&words, "page_size", 1, 100)?.unwrap_or(20);
    let query = ConversationQuery {
        task: read::id_word(&words, "task_id")?,
        model_name: words
            .get("model_name")
            .filter(|name| !name.contains('\0'))
            .cloned(),
        offset: (page - 1_u64).saturating_mul(u64::from(page_size)),
        most: page_size,
    };
    let (found, total) = state.queue.store().conversations(query).await?;
    let conversations = found.iter().map(SummaryView::of).collect();
    Ok(json(
        StatusCode::OK,
        &PageView {
            conversations,
            total,
            page,
            page_size,
        },
    ))
}

/// List the conversations of a task, the newest first.
#[utoipa::path(
    get, path = "/api/v1/llm-conversations/task/{task_id}/conversations", tag = "conversations",
    params(("task_id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "Conversations without their messages", body = [SummaryView<'static>]),
        (status = 404, description = "No such task", body = ErrorView<'static>),
    )
)]
pub(super) async fn of_task(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    let id = read::id(&id, "task_id")?;
    let store = state.queue.store();
    store.task(id).await?.ok_or(StoreError::NoSuchTask(id))?;
    let query = ConversationQuery {
        task: Some(id),
        most: MOST_OF_TASK,
        ..ConversationQuery::default()
    };
    let (found, _) = store.conversations(query).await?;
    Ok(json(
        StatusCode::OK,
        &found.iter().map(SummaryView::of).collect::<Vec<_>>(),
    ))
}

/// Get a conversation with its messages.
#[utoipa::path(
    get, path = "/api/v1/llm-conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = String, Path, description = "The conversation's id")),
    responses(
        (status = 200, description = "The conversation", body = ConversationView<'static>),
        (status = 404, description = "No such conversation", body = ErrorView<'static>),
    )
)]
pub(super) async fn get_one(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
) -> Result<Response, Problem> {
    let id = read::id(&id, "conversation_id")?;
    let store = state.queue.store();
    let found = store
        .conversation(id)
        .await?
        .ok_or(StoreError::NoSuchConversation(id))?;
    let said = Said::begin(&state, id, None, 0, MOST_TOLD).await?;
    if !said.part.more {
        let told = ConversationView::of(&found, Some(&said.part.messages));
        return Ok(json(StatusCode::OK, &told));
    }
    let head = ConversationView::of(&found, None);
    let head = parts::open(&head, "messages");
    parts::answer(&state.room, head, said.parts(), |_| "]}\n".to_owned())
}

/// Messages of a conversation, read part by part.
struct Said {
    state: Arc<ApiState>,
    id: ConversationId,
    role: Option<Role>,
    /// What was read last.
    part: MessagesPart,
    /// How many more were asked for.
    left: u32,
}

impl Said {
    /// Reads the first part.
    async fn begin(
        state: &Arc<ApiState>,
        id: ConversationId,
        role: Option<Role>,
        from: u64,
        most: u32,
    ) -> Result<Self, Problem> {
        let mut said = Self {
            state: Arc::clone(state),
            id,
            role,
            part: MessagesPart::default(),
            left: most,
        };
        said.read(from).await?;
        Ok(said)
    }

    async fn read(&mut self, from: u64) -> Result<(), Problem> {
        let store = self.state.queue.store();
        self.part = store.messages(self.id, self.role, from, self.left).await?;
        let read = u32::try_from(self.part.messages.len()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_sub(read);
        Ok(())
    }

    /// What was read, and whatever comes behind it.
    fn parts(self) -> impl Stream<Item = Result<Part, Problem>> + Send {
        let first = Ok(Part::of(self.part.messages.iter().map(MessageView::of)));
        let rest = stream::try_unfold(self, async |mut said| {
            let last = said.part.messages.last();
            let from = match last {
                Some(last) if said.part.more && said.left > 0 => last.sequence.saturating_add(1),
                _ => return Ok(None),
            };
            said.read(from).await?;
            let part = Part::of(said.part.messages.iter().map(MessageView::of));
            Ok(Some((part, said)))
        });
        stream::once(std::future::ready(first)).chain(rest)
    }
}

/// A conversation to be begun, and its first messages.
#[derive(utoipa::ToSchema)]
#[schema(as = ConversationRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct ConversationRequest {
    /// Of which task.
    task_id: String,
    /// The client's own id, so that a request made twice begins one conversation.
    id: Option<String>,
    /// What the client groups conversations by; a new one by default.
    session_id: Option<String>,
    model_name: Option<String>,
    #[schema(value_type = Object)]
    llm_config: (),
    #[schema(value_type = Object)]
    metadata: (),
    /// Its first messages.
    #[schema(value_type = Vec<Object>)]
    messages: (),
    /// Who writes: it has to hold the task.
    worker_id: Option<String>,
    /// Under which attempt: the conversation's from then on.
    attempt: Option<u32>,
}

/// Begin a conversation.
#[utoipa::path(
    post, path = "/api/v1/llm-conversations", tag = "conversations",
    request_body = ConversationRequest,
    params(
        ("worker_id" = Option<String>, Query, description = "Who writes; also in the body"),
        ("attempt" = Option<u32>, Query, description = "Under which attempt; also in the body"),
    ),
    responses(
        (status = 201, description = "It is on record", body = ConversationView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 409, description = "The id is that of another task's, or the named writer does not hold the task", body = ErrorView<'static>),
        (status = 422, description = "Not a conversation", body = ErrorView<'static>),
    )
)]
pub(super) async fn begin(
    State(state): Shared,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let body = read::needed_object(&state, request).await?;
    let writer = read::writer(&state, &words, &body)?;
    let one = |problem| read::unprocessable(vec![problem]);
    let task = read::id_field(&body, "task_id").map_err(one)?;
    let task = task.ok_or_else(|| read::wrong("/task_id", "is required"))?;
    let messages = match read::field(&body, "messages") {
        None => Vec::new(),
        Some(list) => messages_of(list, "/messages").map_err(one)?,
    };
    let object = |name: &str| {
        let inner = Json::of(&Value::Object(read::inner_object(&body, name)?));
        let (bytes, most) = (inner.as_str().len(), Conversation::MOST_BESIDE);
        if bytes > most {
            let told = format!("has {bytes} bytes, {most} are allowed");
            return Err(FieldProblem::new(format!("/{name}"), told));
        }
        Ok(inner)
    };
    let started_at = read::time(&body, "started_at").map_err(one)?;
    let ended_at = read::time(&body, "ended_at").map_err(one)?;
    // By one clock; what is told later may be by another one.
    if ended_at.is_some_and(|ended| started_at.is_some_and(|started| ended < started)) {
        return Err(read::wrong("/ended_at", "must not be before started_at"));
    }
    let new = NewConversation {
        id: read::id_field(&body, "id")
            .map_err(one)?
            .unwrap_or_else(read::new_id),
        task,
        writer: writer.clone(),
        session: read::id_field(&body, "session_id")
            .map_err(one)?
            .unwrap_or_else(read::new_id),
        started_at,
        model_name: read::text(&body, "model_name", LONGEST_MODEL).map_err(one)?,
        config: object("llm_config").map_err(one)?,
        metadata: object("metadata").map_err(one)?,
    };
    let update = update_of(&body).map_err(one)?;
    let store = state.queue.store();
    let mut begun = store.begin_conversation(new).await?;
    if !messages.is_empty() {
        // Numbered from 0, so that the same request again keeps none of them twice.
        let numbered = (0..).zip(messages).map(|(number, message)| NewMessage {
            sequence: message.sequence.or(Some(number)),
            ..message
        });
        let numbered = numbered.collect();
        begun = store
            .append_messages(begun.id, writer.clone(), numbered)
            .await?;
    }
    if let Some(update) = update {
        begun = store.update_conversation(begun.id, writer, update).await?;
    }
    Ok(json(
        StatusCode::CREATED,
        &ConversationView::of(&begun, None),
    ))
}

/// What is told of a conversation later.
#[derive(utoipa::ToSchema)]
#[schema(as = ConversationUpdate)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct UpdateRequest {
    ended_at: Option<String>,
    /// Whether it reached its end.
    success: Option<bool>,
    /// `{input_tokens, output_tokens, total_cost}`, in place of what was reported before.
    #[schema(value_type = Object)]
    usage: (),
    /// Fields of its metadata that are set.
    #[schema(value_type = Object)]
    metadata: (),
}

/// Tell more of a conversation: what it cost, how it ended.
#[utoipa::path(
    patch, path = "/api/v1/llm-conversations/{conversation_id}", tag = "conversations",
    request_body = UpdateRequest,
    params(
        ("conversation_id" = String, Path, description = "The conversation's id"),
        ("worker_id" = Option<String>, Query, description = "Who writes; also in the body"),
        ("attempt" = Option<u32>, Query, description = "Under which attempt; also in the body"),
    ),
    responses(
        (status = 200, description = "The conversation as it is now", body = ConversationView<'static>),
        (status = 404, description = "No such conversation", body = ErrorView<'static>),
        (status = 409, description = "The named writer does not hold the task", body = ErrorView<'static>),
        (status = 422, description = "Not an update", body = ErrorView<'static>),
    )
)]
pub(super) async fn update(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let id = read::id(&id, "conversation_id")?;
    let body = read::needed_object(&state, request).await?;
    let one = |problem| read::unprocessable(vec![problem]);
    let mut update = update_of(&body).map_err(one)?.unwrap_or_default();
    if read::field(&body, "metadata").is_some() {
        let metadata = read::inner_object(&body, "metadata").map_err(one)?;
        update.metadata = Some(Json::of(&Value::Object(metadata)));
    }
    let writer = read::writer(&state, &words, &body)?;
    let store = state.queue.store();
    let updated = store.update_conversation(id, writer, update).await?;
    Ok(json(StatusCode::OK, &ConversationView::of(&updated, None)))
}

/// What a body tells of an end and a cost, if anything.
fn update_of(body: &Map<String, Value>) -> Result<Option<ConversationUpdate>, FieldProblem> {
    let success = match read::field(body, "success") {
        None => None,
        Some(Value::Bool(success)) => Some(*success),
        Some(_) => return Err(FieldProblem::new("/success", "must be true or false")),
    };
    let ended_at = read::time(body, "ended_at")?;
    let usage = match read::field(body, "usage") {
        None => None,
        Some(Value::Object(usage)) => Some(usage_of(usage)?),
        Some(_) => return Err(FieldProblem::new("/usage", "must be an object")),
    };
    if success.is_none() && ended_at.is_none() && usage.is_none() {
        return Ok(None);
    }
    Ok(Some(ConversationUpdate {
        ended_at,
        success,
        usage,
        metadata: None,
    }))
}

fn usage_of(usage: &Map<String, Value>) -> Result<Usage, FieldProblem> {
    // In the words of the original, or of the models' makers.
    let tokens = |names: [&str; 2]| -> Result<u64, FieldProblem> {
        let found = names
            .into_iter()
            .find_map(|name| Some((name, read::field(usage, name)?)));
        let Some((name, value)) = found else {
            return Ok(0);
        };
        value
            .as_u64()
            .filter(|tokens| *tokens <= MOST_TOKENS)
            .ok_or_else(|| {
                FieldProblem::new(
                    format!("/usage/{name}"),
                    format!("must be a whole number from 0 to {MOST_TOKENS}"),
                )
            })
    };
    let cost = match read::field(usage, "total_cost") {
        None => None,
        Some(value) => {
            let cost = value
                .as_f64()
                .filter(|cost| cost.is_finite() && *cost >= 0.0);
            let wrong = || FieldProblem::new("/usage/total_cost", "must be a number from 0");
            Some(cost.ok_or_else(wrong)?)
        }
    };
    Ok(Usage {
        input_tokens: tokens(["input_tokens", "prompt_tokens"])?,
        output_tokens: tokens(["output_tokens", "completion_tokens"])?,
        cost,
    })
}

/// The messages of a conversation.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConversationMessages)]
struct MessagesView {
    #[schema(format = "uuid")]
    conversation_id: String,
    /// How many are told here.
    total_messages: usize,
    messages: Vec<MessageView>,
}

impl MessagesView {
    fn of(id: ConversationId, messages: &[Message]) -> Self {
        Self {
            conversation_id: id.to_string(),
            total_messages: messages.len(),
            messages: messages.iter().map(MessageView::of).collect(),
        }
    }
}

/// Read the messages of a conversation, the first ones first.
#[utoipa::path(
    get, path = "/api/v1/llm-conversations/{conversation_id}/messages", tag = "conversations",
    params(
        ("conversation_id" = String, Path, description = "The conversation's id"),
        ("role" = Option<String>, Query, description = "Only what this role said"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, by default 100"),
        ("from" = Option<u64>, Query, description = "Only messages with this number and larger ones"),
    ),
    responses(
        (status = 200, description = "Messages", body = MessagesView),
        (status = 404, description = "No such conversation", body = ErrorView<'static>),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
    )
)]
pub(super) async fn messages(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let id = read::id(&id, "conversation_id")?;
    let most = read::number(&words, "limit", 1, 1000)?.unwrap_or(100);
    let from = read::number(&words, "from", 0, u64::MAX / 2)?.unwrap_or(0);
    // Any text is a role to ask for; most of them said nothing.
    let role = match words.get("role").map(|text| Role::of_word(text)) {
        None => None,
        Some(Some(role)) => Some(role),
        Some(None) => {
            let store = state.queue.store();
            store
                .conversation(id)
                .await?
                .ok_or(StoreError::NoSuchConversation(id))?;
            return Ok(json(StatusCode::OK, &MessagesView::of(id, &[])));
        }
    };
    let said = Said::begin(&state, id, role, from, most).await?;
    if !said.part.more {
        let told = MessagesView::of(id, &said.part.messages);
        return Ok(json(StatusCode::OK, &told));
    }
    let head = format!("{{\"conversation_id\":\"{id}\",\"messages\":[");
    parts::answer(&state.room, head, said.parts(), |told| {
        format!("],\"total_messages\":{told}}}\n")
    })
}

/// Messages to be kept.
#[derive(utoipa::ToSchema)]
#[schema(as = ConversationMessagesRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct MessagesRequest {
    /// `{role, content, sequence, timestamp, function_name, function_args, function_result,
    /// metadata}` each, and whatever else belongs to it: it is kept verbatim.
    #[schema(value_type = Vec<Object>)]
    messages: (),
}

/// Keep messages of a conversation.
///
/// Those that tell their number are kept once, however often they are sent; one that leaves a gap
/// is refused.
#[utoipa::path(
    post, path = "/api/v1/llm-conversations/{conversation_id}/messages", tag = "conversations",
    request_body = MessagesRequest,
    params(
        ("conversation_id" = String, Path, description = "The conversation's id"),
        ("worker_id" = Option<String>, Query, description = "Who writes; also beside `messages`"),
        ("attempt" = Option<u32>, Query, description = "Under which attempt; also beside `messages`"),
    ),
    responses(
        (status = 201, description = "They are kept", body = ConversationView<'static>),
        (status = 404, description = "No such conversation", body = ErrorView<'static>),
        (status = 409, description = "A gap, another message under a known number, or the named writer does not hold the task", body = ErrorView<'static>),
        (status = 422, description = "Not messages", body = ErrorView<'static>),
        (status = 429, description = "The conversation has as many as may be", body = ErrorView<'static>),
    )
)]
pub(super) async fn say(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let id = read::id(&id, "conversation_id")?;
    let body = read::needed_object(&state, request).await?;
    // A message alone is kept whole, so nothing in it is about who sent it.
    let (said, writer) = match body.get("messages") {
        Some(list) => (
            messages_of(list, "/messages"),
            read::writer(&state, &words, &body)?,
        ),
        None => (
            message_of(&body, "").map(|message| vec![message]),
            read::writer(&state, &words, &Map::new())?,
        ),
    };
    let said = said.map_err(|problem| read::unprocessable(vec![problem]))?;
    let store = state.queue.store();
    let kept = store.append_messages(id, writer, said).await?;
    Ok(json(
        StatusCode::CREATED,
        &ConversationView::of(&kept, None),
    ))
}

fn messages_of(list: &Value, at: &str) -> Result<Vec<NewMessage>, FieldProblem> {
    let Value::Array(list) = list else {
        return Err(FieldProblem::new(at, "must be an array"));
    };
    if list.len() > MOST_MESSAGES {
        let message = format!("holds more than {MOST_MESSAGES} messages: send them in parts");
        return Err(FieldProblem::new(at, message));
    }
    let messages = list.iter().enumerate().map(|(place, message)| {
        let at = format!("{at}/{place}");
        match message {
            Value::Object(message) => message_of(message, &at),
            _ => Err(FieldProblem::new(at, "must be an object")),
        }
    });
    messages.collect()
}

fn message_of(message: &Map<String, Value>, at: &str) -> Result<NewMessage, FieldProblem> {
    let wrong = |name: &str, told: String| FieldProblem::new(format!("{at}/{name}"), told);
    let role = read::field(message, "role").and_then(Value::as_str);
    let role = role.and_then(Role::of_word);
    let role = role.ok_or_else(|| wrong("role", format!("must be one of {ROLES}")))?;
    // Makers of models also send parts, and null beside a call of a tool.
    let characters = match message.get("content") {
        Some(Value::String(text)) => text.chars().count() as u64,
        Some(Value::Array(_) | Value::Null) => 0,
        None if message.contains_key("tool_calls") => 0,
        _ => return Err(wrong("content", "must be a text".to_owned())),
    };
    let sequence = match read::field(message, "sequence") {
        None => None,
        Some(value) => {
            let told = || wrong("sequence", "must be a whole number from 0".to_owned());
            Some(
                value
                    .as_u64()
                    .filter(|n| *n < u64::MAX / 2)
                    .ok_or_else(told)?,
            )
        }
    };
    let below = |problem: FieldProblem| {
        FieldProblem::new(format!("{at}{}", problem.field), problem.message)
    };
    Ok(NewMessage {
        sequence,
        at: read::time(message, "timestamp").map_err(below)?,
        role,
        characters,
        body: Json::of(&Value::Object(message.clone())),
    })
}

/// Sums over all conversations.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ConversationStats)]
struct StatsView {
    total_conversations: u64,
    #[schema(value_type = Object)]
    conversations_by_model: Counted,
    avg_messages_per_conversation: f64,
    /// Reported, or estimated where nobody reported.
    total_tokens_consumed: u64,
    /// Successful ones of all; 0 when there are none.
    success_rate: f64,
    successful_conversations: u64,
}

/// Sums over all conversations.
#[utoipa::path(
    get, path = "/api/v1/llm-conversations/stats/summary", tag = "conversations",
    responses((status = 200, description = "Sums", body = StatsView))
)]
pub(super) async fn stats(State(state): Shared) -> Result<Response, Problem> {
    let stats = state.queue.store().conversation_stats().await?;
    Ok(json(
        StatusCode::OK,
        &StatsView {
            total_conversations: stats.conversations,
            conversations_by_model: Counted(stats.by_model),
            avg_messages_per_conversation: rate(stats.messages, stats.conversations).unwrap_or(0.0),
            total_tokens_consumed: stats.tokens,
            success_rate: rate(stats.successful, stats.conversations).unwrap_or(0.0),
            successful_conversations: stats.successful,
        },
    ))
}
