//! The steps of a queued task: written by whoever runs it, read by whoever learns from it.

use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use taskwright_queue::step::{StepPlace, StepQuery};
use taskwright_queue::{Json, NewStep, Step};

use super::read::{self, Words};
use super::view::{ErrorView, Raw};
use crate::body::json;
use crate::native::Shared;
use crate::native::status::Millis;
use crate::problem::{FieldProblem, Problem};

/// Steps of one request.
const MOST_STEPS: usize = 1000;
/// The largest step, in bytes of its JSON.
const LARGEST_STEP: usize = 4 * 1024 * 1024;
/// The most log-probabilities of one step.
const MOST_LOGPROBS: usize = 1_000_000;
/// The longest name of a model or of a version of it, in characters.
const LONGEST_NAME: usize = 255;

/// Steps to be kept: one, or several under `steps`.
#[derive(utoipa::ToSchema)]
#[schema(as = QueueStepsRequest)]
#[expect(dead_code, reason = "this type is only described, never built")]
pub(super) struct StepsRequest {
    /// `{step, observation, action, tool_call, tool_result, reward, terminated, truncated,
    /// token_logprobs, model, model_version, policy_version, timestamp}` each, of which `step`,
    /// the number in the attempt, is needed; whatever else belongs to it is kept verbatim.
    #[schema(value_type = Vec<Object>)]
    steps: (),
    /// Who writes: it has to hold the task.
    worker_id: Option<String>,
    /// Under which attempt.
    attempt: Option<u32>,
}

/// What was kept.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueStepsReceipt)]
struct ReceiptView {
    /// How many steps this request held.
    steps: usize,
    /// How many of them were new.
    new: u64,
    /// Of which attempt they are.
    attempt: u32,
}

/// Keep steps of a task's trajectory, for workers that run elsewhere.
///
/// All of them are kept, or none. A step is known by its number: sent again it is kept once, and
/// another one under the same number is refused. A writer that names itself has to hold the task,
/// or to have ended it by its own report; what others write is taken to be of the present attempt.
#[utoipa::path(
    post, path = "/api/v1/tasks/{task_id}/steps", tag = "queue", request_body = StepsRequest,
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("worker_id" = Option<String>, Query, description = "Who writes; also beside `steps`"),
        ("attempt" = Option<u32>, Query, description = "Under which attempt; also beside `steps`"),
    ),
    responses(
        (status = 201, description = "They are kept", body = ReceiptView),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 409, description = "Another step under a known number, or the named writer does not hold the task", body = ErrorView<'static>),
        (status = 413, description = "The body is too large", body = ErrorView<'static>),
        (status = 422, description = "Not steps", body = ErrorView<'static>),
    )
)]
pub(super) async fn append_steps(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Problem> {
    let task = read::id(&id, "task_id")?;
    let body = read::verbatim(&state, request).await?;
    let (steps, about) =
        steps_of(body.as_str()).map_err(|fault| read::unprocessable(vec![fault]))?;
    let writer = read::writer(&state, &words, &about)?;
    let count = steps.len();
    let kept = state
        .queue
        .store()
        .append_steps(task, writer, steps)
        .await?;
    Ok(json(
        StatusCode::CREATED,
        &ReceiptView {
            steps: count,
            new: kept.new,
            attempt: kept.attempt,
        },
    ))
}

/// The steps of a body, and what it says beside them. A step alone is kept whole, so nothing in it
/// is about who sent it.
fn steps_of(body: &str) -> Result<(Vec<NewStep>, Map<String, Value>), FieldProblem> {
    #[derive(Deserialize)]
    struct Several<'a> {
        #[serde(borrow)]
        steps: Option<&'a RawValue>,
        worker_id: Option<Value>,
        attempt: Option<Value>,
    }
    let fault = |error: serde_json::Error| FieldProblem::new("", error.to_string());
    let several: Several<'_> = serde_json::from_str(body).map_err(fault)?;
    let Some(list) = several.steps else {
        return Ok((vec![step_of(body, "")?], Map::new()));
    };
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
        return Err(FieldProblem::new("/steps", "must be an array"));
    };
    if list.is_empty() || list.len() > MOST_STEPS {
        let message = format!("must have 1 to {MOST_STEPS} steps: send more in parts");
        return Err(FieldProblem::new("/steps", message));
    }
    let steps = list
        .iter()
        .enumerate()
        .map(|(place, step)| step_of(step.get(), &format!("/steps/{place}")))
        .collect::<Result<Vec<_>, _>>()?;
    let mut about = Map::new();
    for (name, value) in [
        ("worker_id", several.worker_id),
        ("attempt", several.attempt),
    ] {
        if let Some(value) = value {
            about.insert(name.to_owned(), value);
        }
    }
    Ok((steps, about))
}

fn step_of(text: &str, at: &str) -> Result<NewStep, FieldProblem> {
    let wrong = |name: &str, told: String| FieldProblem::new(format!("{at}/{name}"), told);
    let below = |problem: FieldProblem| {
        FieldProblem::new(format!("{at}{}", problem.field), problem.message)
    };
    let text = text.trim();
    if text.len() > LARGEST_STEP {
        let message = format!("has more than {LARGEST_STEP} bytes");
        return Err(FieldProblem::new(at, message));
    }
    // Numbers that no double holds are found here, however deep they are.
    let step = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(step)) => step,
        Ok(_) => return Err(FieldProblem::new(at, "must be an object")),
        Err(error) => return Err(FieldProblem::new(at, format!("cannot be kept: {error}"))),
    };
    let number = read::field(&step, "step").or_else(|| read::field(&step, "step_number"));
    let most = Step::LARGEST_NUMBER;
    let number = number
        .and_then(Value::as_u64)
        .filter(|number| *number <= most)
        .ok_or_else(|| wrong("step", format!("must be a whole number from 0 to {most}")))?;
    let reward = match read::field(&step, "reward") {
        None => None,
        Some(value) => {
            let most = Step::LARGEST_REWARD;
            let reward = value.as_f64().filter(|reward| reward.abs() <= most);
            Some(
                reward
                    .ok_or_else(|| wrong("reward", format!("must be a number up to {most:e}")))?,
            )
        }
    };
    let flag = |name: &str| match read::field(&step, name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(wrong(name, "must be true or false".to_owned())),
    };
    // The older word for an end of either kind.
    let done = flag("done")?;
    let truncated = flag("truncated")?.unwrap_or(false);
    let terminated = flag("terminated")?.unwrap_or(done == Some(true) && !truncated);
    for name in ["token_logprobs", "logprobs"] {
        match read::field(&step, name) {
            Some(Value::Array(list)) if list.len() > MOST_LOGPROBS => {
                return Err(wrong(
                    name,
                    format!("holds more than {MOST_LOGPROBS} numbers"),
                ));
            }
            Some(Value::Array(_) | Value::Object(_)) | None => {}
            Some(_) => return Err(wrong(name, "must be an array".to_owned())),
        }
    }
    for name in ["model", "model_version", "policy_version"] {
        match read::field(&step, name) {
            Some(Value::String(text)) => {
                read::check_text(text, LONGEST_NAME).map_err(|told| wrong(name, told))?;
            }
            Some(Value::Number(_)) | None => {}
            Some(_) => return Err(wrong(name, "must be a text or a number".to_owned())),
        }
    }
    Ok(NewStep {
        number,
        at: read::time(&step, "timestamp").map_err(below)?,
        reward,
        terminated,
        truncated,
        body: Json::parse(text).map_err(|error| FieldProblem::new(at, error.to_string()))?,
    })
}

/// A step.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueStep)]
pub(super) struct StepView<'a> {
    /// Of which attempt at the task.
    attempt: u32,
    /// Its number in the attempt.
    step: u64,
    #[schema(value_type = String, format = "date-time")]
    timestamp: Millis,
    reward: Option<f64>,
    /// Whether the episode came to its own end with it.
    terminated: bool,
    /// Whether the episode was cut off after it.
    truncated: bool,
    /// The whole step, as it was sent.
    #[schema(value_type = Object)]
    data: Raw<'a>,
}

impl<'a> StepView<'a> {
    fn of(step: &'a Step) -> Self {
        Self {
            attempt: step.attempt,
            step: step.number,
            timestamp: Millis(step.at),
            reward: step.reward,
            terminated: step.terminated,
            truncated: step.truncated,
            data: Raw(&step.body),
        }
    }
}

/// A part of a task's steps.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = QueueSteps)]
struct StepsView<'a> {
    #[schema(format = "uuid")]
    task_id: String,
    steps: Vec<StepView<'a>>,
    /// What `from` has to be for those that follow; null when there are none.
    next: Option<String>,
}

/// Read a task's steps, in the order of attempts and numbers.
#[utoipa::path(
    get, path = "/api/v1/tasks/{task_id}/steps", tag = "queue",
    params(
        ("task_id" = String, Path, description = "The task's id"),
        ("attempt" = Option<u32>, Query, description = "Only those of this attempt"),
        ("from" = Option<String>, Query, description = "Only those from `ATTEMPT-STEP` on, as `next` tells it"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, by default 100; large steps come in smaller parts"),
    ),
    responses(
        (status = 200, description = "Steps", body = StepsView<'static>),
        (status = 404, description = "No such task", body = ErrorView<'static>),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
    )
)]
pub(super) async fn read_steps(
    State(state): Shared,
    UrlPath(id): UrlPath<String>,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let task = read::id(&id, "task_id")?;
    let from = match words.get("from") {
        None => None,
        Some(text) => {
            let place = text.split_once('-').and_then(|(attempt, number)| {
                Some(StepPlace {
                    attempt: attempt.parse().ok()?,
                    number: number.parse().ok().filter(|n| *n < u64::MAX / 2)?,
                })
            });
            let told = "must be ATTEMPT-STEP, as `next` of the part before it";
            Some(place.ok_or_else(|| read::wrong("?from", told))?)
        }
    };
    let query = StepQuery {
        task,
        attempt: read::number(&words, "attempt", 0, u32::MAX)?,
        from,
        most: read::number(&words, "limit", 1, 1000)?.unwrap_or(100),
    };
    let found = state.queue.store().steps(query).await?;
    let next = found.next;
    Ok(json(
        StatusCode::OK,
        &StepsView {
            task_id: task.to_string(),
            steps: found.steps.iter().map(StepView::of).collect(),
            next: next.map(|place| format!("{}-{}", place.attempt, place.number)),
        },
    ))
}
