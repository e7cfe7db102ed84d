//! What policies and people said about a task, and the routes by which people say it.

use axum::Extension;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use taskwright_control::port::Documents as _;
use taskwright_control::request::ControlError;
use taskwright_model::{Answer, Answered, Hold, Review, Said, Task, TaskId, Verdict};

use super::document::TaskDocuments;
use super::dto::{EnvValues, TaskView};
use super::field::{Object, Path, Problems};
use super::schema::AnswerRequest;
use super::status::Millis;
use super::{Shared, key_of, tasks};
use crate::auth::{Caller, Scope};
use crate::body;
use crate::problem::{Problem, ProblemDocument};

/// The longest reason, in bytes.
const MOST_REASON_BYTES: usize = 4096;

/// What policies and people said about a task.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Review)]
pub(crate) struct ReviewView<'a> {
    /// What holds it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldView<'a>>,
    /// The newest verdict of each policy at each stage.
    verdicts: Vec<VerdictView<'a>>,
    /// What people decided, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    answers: Vec<AnsweredView<'a>>,
    /// The task's document as it was submitted, where policies changed it; not told to a token of
    /// scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    submitted: Option<Box<RawValue>>,
    /// The task's document as it is, where policies changed it; not told to a token of scope
    /// `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    effective: Option<Box<RawValue>>,
}

/// What holds a task back.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Hold)]
struct HoldView<'a> {
    /// `asked`: somebody is to approve or deny it; `policy-error`: a policy gives no verdict.
    reason: &'static str,
    /// The policies that hold it.
    policies: Vec<&'a str>,
    /// What they ask, or why there is no verdict.
    message: &'a str,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Millis,
    /// Until when somebody may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Millis>,
    /// The answer when nobody gives one: `approve` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    otherwise: Option<&'static str>,
    /// How often the policy was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
}

/// A policy's verdict.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Verdict)]
struct VerdictView<'a> {
    /// The policy's name.
    policy: &'a str,
    /// When it was asked: `submit` or `launch`.
    stage: &'static str,
    /// `enforce`, or `warn`: then it is only told.
    mode: &'static str,
    /// `allow`, `change`, `deny`, `ask` or `policy-error`.
    verdict: &'static str,
    /// When it was given.
    #[schema(value_type = String, format = DateTime)]
    at: Millis,
    /// The reason, the question, or why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// The field that it is about, as a JSON pointer into the task's document.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// The change, a JSON Merge Patch (RFC 7396); not told to a token of scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    patch: Option<&'a RawValue>,
}

/// What somebody decided.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Answered)]
struct AnsweredView<'a> {
    /// The policies that asked.
    policies: &'a [String],
    /// `approve` or `deny`.
    answer: &'static str,
    /// Who decided; empty when the time of the question was over.
    by: &'a str,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Millis,
}

impl<'a> ReviewView<'a> {
    /// What is told about `task`; `None` when nobody was asked.
    pub(super) fn of(task: &'a Task, values: EnvValues) -> Option<Self> {
        let review: &Review = task.review.as_deref()?;
        let shown = values == EnvValues::Shown;
        let document = |spec| {
            let text = TaskDocuments.write(&task.key, spec);
            RawValue::from_string(text).ok()
        };
        let submitted = review.submitted.as_ref().filter(|_| shown);
        Some(Self {
            hold: review.hold.as_ref().map(HoldView::of),
            verdicts: review
                .verdicts
                .iter()
                .map(|verdict| VerdictView::of(verdict, shown))
                .collect(),
            answers: review.answers.iter().map(AnsweredView::of).collect(),
            effective: submitted.and_then(|_| document(&task.spec)),
            submitted: submitted.and_then(|spec| document(spec)),
        })
    }
}

impl<'a> HoldView<'a> {
    fn of(hold: &'a Hold) -> Self {
        match hold {
            Hold::Asked {
                policies,
                question,
                since,
                until,
                otherwise,
            } => Self {
                reason: "asked",
                policies: policies.iter().map(String::as_str).collect(),
                message: question,
                since: Millis(*since),
                until: Some(Millis(*until)),
                otherwise: Some(otherwise.as_str()),
                tries: None,
            },
            Hold::Broken {
                policy,
                message,
                since,
                tries,
                ..
            } => Self {
                reason: "policy-error",
                policies: vec![policy],
                message,
                since: Millis(*since),
                until: None,
                otherwise: None,
                tries: Some(*tries),
            },
        }
    }
}

impl<'a> VerdictView<'a> {
    fn of(verdict: &'a Verdict, shown: bool) -> Self {
        let (message, field, patch) = match &verdict.said {
            Said::Allow => ("", "", None),
            Said::Change { patch, reason } => (reason.as_str(), "", Some(patch)),
            Said::Deny { reason, field } => (reason.as_str(), field.as_str(), None),
            Said::Ask { question } => (question.as_str(), "", None),
            Said::Fault { message } => (message.as_str(), "", None),
        };
        Self {
            policy: &verdict.policy,
            stage: verdict.stage.as_str(),
            mode: verdict.mode.as_str(),
            verdict: verdict.said.as_str(),
            at: Millis(verdict.at),
            message: Some(message).filter(|text| !text.is_empty()),
            field: Some(field).filter(|text| !text.is_empty()),
            patch: patch
                .filter(|_| shown)
                .and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

impl<'a> AnsweredView<'a> {
    fn of(answered: &'a Answered) -> Self {
        Self {
            policies: &answered.policies,
            answer: answered.answer.as_str(),
            by: &answered.by,
            reason: &answered.reason,
            at: Millis(answered.at),
        }
    }
}

/// Approve a task that a policy asks about.
///
/// It goes on, and the policies that asked are told so when they are asked again.
#[utoipa::path(
    post, path = "/tasks/{name}/approve", tag = "tasks",
    params(("name" = String, Path, description = "The task's name")),
    request_body(content = Option<AnswerRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "The task", body = TaskView<'static>),
        (status = 403, description = "The token may not decide", body = ProblemDocument<'static>),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
        (status = 409, description = "No policy asks anything about it, or it is not the one that was meant", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn approve_task(
    state: Shared,
    caller: Extension<Caller>,
    name: UrlPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    decide(state, caller, name, request, Answer::Approve).await
}

/// Deny a task that a policy asks about.
///
/// It ends with the cause `denied`.
#[utoipa::path(
    post, path = "/tasks/{name}/deny", tag = "tasks",
    params(("name" = String, Path, description = "The task's name")),
    request_body(content = Option<AnswerRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "The task", body = TaskView<'static>),
        (status = 403, description = "The token may not decide", body = ProblemDocument<'static>),
        (status = 404, description = "No such task", body = ProblemDocument<'static>),
        (status = 409, description = "No policy asks anything about it, or it is not the one that was meant", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn deny_task(
    state: Shared,
    caller: Extension<Caller>,
    name: UrlPath<String>,
    request: Request,
) -> Result<Response, Problem> {
    decide(state, caller, name, request, Answer::Deny).await
}

async fn decide(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    UrlPath(name): UrlPath<String>,
    request: Request,
    answer: Answer,
) -> Result<Response, Problem> {
    // Whoever may submit must not thereby be able to approve.
    caller.require(Scope::Admin)?;
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let (reason, id) = answer_in(&bytes)?;
    let key = key_of(&state, &name)?;
    let by = caller.name.to_string();
    let answered = state.control.answer(key, id, answer, by, reason).await;
    let task = answered.map_err(|error| match error {
        ControlError::NotAsked => Problem::from(error).hint(format!(
            "`taskwright explain {name}` tells what was said about it"
        )),
        error => Problem::from(error),
    })?;
    let task = task.ok_or_else(|| Problem::no_such_task(&name))?;
    Ok(tasks::answer(StatusCode::OK, &task, &caller))
}

/// The reason, and which task is meant.
fn answer_in(bytes: &[u8]) -> Result<(String, Option<TaskId>), Problem> {
    const KEY: &str = "reason";
    if bytes.trim_ascii().is_empty() {
        return Ok((String::new(), None));
    }
    let value: Value = body::first_value(bytes)?;
    let mut problems = Problems::default();
    let object = Object::of(&value, &Path::ROOT, &mut problems);
    let reason = object.and_then(|object| object.text(KEY, &mut problems));
    let meant = object.and_then(|object| object.text("id", &mut problems));
    let id = meant.and_then(|text| {
        let read = TaskId::parse(text);
        read.map_err(|error| problems.add(&Path::ROOT.key("id"), error.to_string()))
            .ok()
    });
    let reason = reason.unwrap_or_default();
    if reason.len() > MOST_REASON_BYTES {
        problems.add(
            &Path::ROOT.key(KEY),
            format!(
                "has {} bytes, at most {MOST_REASON_BYTES} are kept",
                reason.len()
            ),
        );
    }
    if problems.is_empty() {
        Ok((reason.to_owned(), id))
    } else {
        Err(Problem::invalid(problems.into_vec()))
    }
}
