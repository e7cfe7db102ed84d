//! Errors, and the forms in which they leave.
//!
//! A handler returns a [`Problem`]: fact, cause, next step. The edge renders it,
//! because only the edge knows the route: the contract's `{code, message}` on
//! contract routes, another dialect's own form on its routes, an RFC 9457 problem
//! document on routes of our own.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use taskwright_control::port::SpecProblem;
use taskwright_control::{ControlError, SubmitError};

use crate::native::places::Places;
use crate::{aiopslab, tessia};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Fact and cause, for people.
    pub(crate) message: String,
    /// The next step, for people.
    pub(crate) hint: Option<String>,
    /// Each field that is wrong.
    pub(crate) details: Vec<FieldProblem>,
    /// Why, in a word for programs, where the status does not tell enough.
    pub(crate) cause: Option<&'static str>,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after: Option<u32>,
}

/// One field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct FieldProblem {
    /// Where, as a JSON pointer into the body; empty for the body itself.
    pub(crate) field: String,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            hint: None,
            details: Vec::new(),
            cause: None,
            retry_after: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn no_such_task(name: &str) -> Self {
        let shown: String = name.chars().take(200).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no task named {shown:?}"),
        )
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(1)
    }

    /// The body's fields are wrong; the message names the first, `details` all of them.
    pub(crate) fn invalid(details: Vec<FieldProblem>) -> Self {
        let message = match details.as_slice() {
            [] => "the task is not valid".to_owned(),
            [only] => only.sentence(),
            [first, rest @ ..] => format!("{} (and {} more)", first.sentence(), rest.len()),
        };
        Self {
            details,
            ..Self::bad_request(message)
        }
    }

    /// Why a task was not taken, with every field where its submitter wrote it.
    pub(crate) fn refused(error: SubmitError, places: &Places) -> Self {
        match error {
            SubmitError::Invalid(problems) => {
                Self::invalid(problems.iter().map(|one| places.told(one)).collect())
            }
            SubmitError::Denied {
                ref reason,
                ref field,
                ..
            } if !field.is_empty() => {
                let told = places.told(&SpecProblem {
                    field: field.clone(),
                    message: reason.clone(),
                });
                let mut problem = Self::from(error);
                problem.details.push(told);
                problem
            }
            other => other.into(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The response that carries this problem, in the form that the route asks for.
    pub(crate) fn render(&self, form: Form, request_id: &str) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let (media_type, body) = match form {
            Form::Contract => (
                "application/json",
                serde_json::to_vec(&ContractError {
                    code: title,
                    message: &self.message,
                    details: &self.details,
                    hint: self.hint.as_deref(),
                }),
            ),
            Form::Detail => (
                "application/json",
                serde_json::to_vec(&tessia::ErrorView {
                    detail: &self.in_one_sentence(),
                }),
            ),
            Form::Typed => (
                "application/json",
                serde_json::to_vec(&aiopslab::ErrorView::of(
                    self.status,
                    &self.in_one_sentence(),
                    request_id,
                    &self.details,
                )),
            ),
            Form::ProblemDocument => (
                "application/problem+json",
                serde_json::to_vec(&ProblemDocument {
                    kind: "about:blank",
                    title,
                    status: self.status.as_u16(),
                    detail: &self.message,
                    cause: self.cause,
                    hint: self.hint.as_deref(),
                    errors: &self.details,
                    request_id,
                }),
            ),
        };
        // Both are structs of texts and numbers: writing them to memory cannot fail.
        let mut body = body.unwrap_or_default();
        if form != Form::Detail {
            body.push(b'\n');
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"taskwright\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl Problem {
    /// The fact, and what to do about it.
    fn in_one_sentence(&self) -> Cow<'_, str> {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message).into(),
            None => self.message.as_str().into(),
        }
    }
}

impl FieldProblem {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    pub(crate) fn sentence(&self) -> String {
        if self.field.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.field, self.message)
        }
    }
}

/// How errors look on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{code, message}`, with `details` and `hint` beside them.
    Contract,
    /// RFC 9457.
    ProblemDocument,
    /// `{detail}`, as the Tessia task runner has it.
    Detail,
    /// `{detail, type, request_id}`, as AIOpsLab's task executor has it.
    Typed,
}

/// An error on a route of the contract. `code` is the status as words.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ContractError<'a> {
    /// The HTTP status as words, as `Not Found`.
    code: &'a str,
    /// What happened, for people.
    message: &'a str,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [FieldProblem],
    /// What to do about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// An error on a route of our own: a problem document of RFC 9457.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ProblemDocument<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'a str,
    /// The HTTP status as words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What happened, for people.
    detail: &'a str,
    /// Why, in a word for programs, where the status does not tell enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    /// What to do about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldProblem],
    /// The request's `X-Request-ID`, by which the log knows it.
    #[serde(rename = "requestId")]
    request_id: &'a str,
}

impl IntoResponse for Problem {
    /// The status and the problem itself; the edge renders the body.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::Store {
                disk_full: true, ..
            } => Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
                .hint("make room on the disk of the data directory; nothing was changed")
                .retry_after(10),
            ControlError::Store { .. } => {
                Self::unavailable(message).hint("nothing was changed; see the daemon's log")
            }
            ControlError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(1),
            ControlError::Closed => Self::unavailable(message),
            ControlError::OtherTask { .. } => Self::new(StatusCode::CONFLICT, message)
                .hint("look at the one that is there before you decide"),
            ControlError::NotAsked => Self::new(StatusCode::CONFLICT, message),
            ControlError::Strategy { .. } => Self::unavailable(message)
                .hint("the plugin that would run this task failed; see /plugins"),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Invalid(problems) => {
                let told = problems.iter().map(|one| Places::default().told(one));
                Self::invalid(told.collect())
            }
            SubmitError::Exists { deleting: true, .. } => Self::new(
                StatusCode::CONFLICT,
                format!("{message} and is being deleted"),
            )
            .hint("try again once it is gone")
            .retry_after(1),
            SubmitError::Exists { .. } => Self::new(StatusCode::CONFLICT, message)
                .hint("delete it first, or choose another name"),
            SubmitError::Denied { .. } => {
                let mut denied = Self::new(StatusCode::FORBIDDEN, message)
                    .hint("change the task, or ask the operator about the policy");
                denied.cause = Some("denied");
                denied
            }
            SubmitError::KeySpent => {
                Self::new(StatusCode::CONFLICT, message).hint("use another key to run it once more")
            }
            SubmitError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .hint("use a new Idempotency-Key for a request with another body"),
            SubmitError::TooMany { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, message)
                .hint("delete tasks that are no longer needed")
                .retry_after(5),
            SubmitError::Control(error) => error.into(),
        }
    }
}
