//! `GET /tasks`: pages of tasks by label and state, in order of submission.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use taskwright_control::Selector;
use taskwright_control::request::LabelMatch;
use taskwright_model::TaskId;

use super::Shared;
use super::dto::{self, EnvValues, TaskView};
use crate::auth::Caller;
use crate::body;
use crate::problem::{Problem, ProblemDocument};
use crate::query;

const DEFAULT_LIMIT: usize = 100;
const MOST_PER_PAGE: usize = 500;
/// The most terms of a label selector.
const MOST_TERMS: usize = 64;
const STATES: [&str; 5] = ["pending", "starting", "running", "stopping", "ended"];

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Terms that must all hold, with commas between: `a=b`, `c!=d`, `e` (has it), `!f` (has it
    /// not).
    label_selector: Option<String>,
    /// Only in one of these states, with commas between: `pending`, `starting`, `running`,
    /// `stopping`, `ended`.
    state: Option<String>,
    /// Tasks in one answer: 1 to 500, 100 where nothing is said.
    #[param(value_type = Option<u64>)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page of tasks.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TaskPage)]
pub(crate) struct PageView<'a> {
    /// The tasks, oldest first.
    #[schema(value_type = Vec<TaskView<'static>>)]
    items: Vec<&'a serde_json::value::RawValue>,
    /// Where the next page begins; left out on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// List tasks by label and state, page by page.
#[utoipa::path(
    get, path = "/tasks", tag = "tasks",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of tasks, oldest first", body = PageView<'static>),
        (status = 400, description = "The query cannot be read", body = ProblemDocument<'static>),
    )
)]
pub(crate) async fn list_tasks(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let selector = Selector {
        namespace: Some(state.namespace.clone()),
        labels: query
            .label_selector
            .as_deref()
            .map_or(Ok(Vec::new()), labels)?,
        states: query.state.as_deref().map_or(Ok(Vec::new()), states)?,
    };
    let limit = query
        .limit
        .map_or(Ok(DEFAULT_LIMIT), |text| query::number("limit", &text))?;
    if !(1..=MOST_PER_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "the query's limit is between 1 and {MOST_PER_PAGE}"
        )));
    }
    let after = query.cursor.as_deref().map(cursor).transpose()?;
    let page = state.control.list(&selector, after, limit);

    let values = EnvValues::for_caller(&caller);
    let texts: Vec<Box<serde_json::value::RawValue>> = page
        .tasks
        .iter()
        .filter_map(|task| {
            dto::with_view(task, values, None, |view| {
                serde_json::value::to_raw_value(view).ok()
            })
        })
        .collect();
    let view = PageView {
        items: texts.iter().map(|text| &**text).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    };
    Ok(body::json(StatusCode::OK, &view))
}

fn cursor(text: &str) -> Result<TaskId, Problem> {
    TaskId::parse(text).map_err(|_| {
        Problem::bad_request("the query's cursor is none of ours")
            .hint("send nextCursor of the page before, as it is")
    })
}

fn states(text: &str) -> Result<Vec<String>, Problem> {
    let mut states = Vec::new();
    for state in text
        .split(',')
        .map(str::trim)
        .filter(|state| !state.is_empty())
    {
        if !STATES.contains(&state) {
            let shown: String = state.chars().take(40).collect();
            return Err(Problem::bad_request(format!("{shown:?} is no state"))
                .hint(format!("states are {}", STATES.join(", "))));
        }
        states.push(state.to_owned());
    }
    Ok(states)
}

/// Reads `a=b,c!=d,e,!f`; `==` is the same as `=`.
fn labels(text: &str) -> Result<Vec<LabelMatch>, Problem> {
    let mut terms = Vec::new();
    for term in text
        .split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty())
    {
        if terms.len() == MOST_TERMS {
            return Err(Problem::bad_request(format!(
                "a label selector has at most {MOST_TERMS} terms"
            )));
        }
        let read = if let Some((key, value)) = term.split_once("!=") {
            LabelMatch::Differs(key.trim().to_owned(), value.trim().to_owned())
        } else if let Some((key, value)) = term.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            LabelMatch::Equals(key.trim().to_owned(), value.trim().to_owned())
        } else if let Some(key) = term.strip_prefix('!') {
            LabelMatch::Missing(key.trim().to_owned())
        } else {
            LabelMatch::Exists(term.to_owned())
        };
        let (LabelMatch::Equals(key, _)
        | LabelMatch::Differs(key, _)
        | LabelMatch::Exists(key)
        | LabelMatch::Missing(key)) = &read;
        if key.is_empty() {
            let shown: String = term.chars().take(40).collect();
            return Err(Problem::bad_request(format!(
                "a term of the label selector has no key: {shown:?}"
            ))
            .hint("write it as a=b,c!=d,e,!f"));
        }
        // `in (...)` of other systems would be a key that no task has: an empty answer, not an error.
        if key.contains([' ', '(', ')']) {
            let shown: String = key.chars().take(40).collect();
            return Err(Problem::bad_request(format!(
                "a term of the label selector is not understood: {shown:?}"
            ))
            .hint("write it as a=b,c!=d,e,!f; sets (`in`, `notin`) are not known here"));
        }
        terms.push(read);
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn label_selectors_have_four_kinds_of_terms() {
        let text = |word: &str| word.to_owned();
        assert_eq!(
            labels(" a=b, c!=d ,e,!f,g==h,,i=").unwrap(),
            vec![
                LabelMatch::Equals(text("a"), text("b")),
                LabelMatch::Differs(text("c"), text("d")),
                LabelMatch::Exists(text("e")),
                LabelMatch::Missing(text("f")),
                LabelMatch::Equals(text("g"), text("h")),
                LabelMatch::Equals(text("i"), text("")),
            ]
        );
    }

    #[test]
    fn terms_without_a_key_are_refused() {
        for text in ["=b", "!=b", "!", "a=b,=c", "k in (v0)", "k notin (v)"] {
            assert!(labels(text).is_err(), "{text}");
        }
        assert!(labels(&"a,".repeat(65)).is_err());
    }

    #[test]
    fn only_states_that_exist_are_taken() {
        assert_eq!(states("running, ended").unwrap(), ["running", "ended"]);
        assert!(states("gone").is_err());
    }
}
