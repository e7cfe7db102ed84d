//! `setTasks` and `getTasks`: what controllers use, every second.
//!
//! An element that cannot be had never spoils the others and never fails the
//! request: it is told in the answer, after the real tasks, as a task of that
//! name that failed with `InvalidTask` and exit code 128. A real client takes
//! element 0 for its task, so live tasks come first.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use taskwright_control::{SetElement, SetProblem, Submission};
use taskwright_model::{Task, TaskName};

use super::dto::{self, ElementProblem, EnvValues, TaskView};
use super::field::Path;
use super::places::Places;
use super::schema::TaskRequest;
use super::{Shared, parse};
use crate::auth::Caller;
use crate::body;
use crate::problem::{ContractError, FieldProblem, Problem};
use crate::state::ApiState;

/// List all tasks.
///
/// Live tasks first, then ended ones, then those being deleted; in order of submission within
/// each.
#[utoipa::path(
    get, path = "/getTasks", tag = "tasks",
    responses((status = 200, description = "All tasks", body = Vec<TaskView<'static>>))
)]
pub(crate) async fn get_tasks(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
) -> Response {
    let tasks = state.control.all(&state.namespace);
    let mut answer = ListAnswer::new(EnvValues::for_caller(&caller));
    for task in &tasks {
        answer.task(task, None);
    }
    answer.finish()
}

/// Make the tasks be these.
///
/// What is missing is created, what is not wanted is deleted, what is there is left alone, also
/// if its spec differs. Elements with the same name: the last one counts. An element that
/// cannot be had is told as that task's failure with a `problem`, after the real tasks.
#[utoipa::path(
    post, path = "/setTasks", tag = "tasks",
    request_body = Vec<TaskRequest>,
    responses(
        (status = 200, description = "All tasks after it, those being deleted too", body = Vec<TaskView<'static>>),
        (status = 400, description = "Not a list; nothing was done", body = ContractError<'static>),
        (status = 413, description = "More elements or bytes than are taken; nothing was done", body = ContractError<'static>),
        (status = 503, description = "The store takes nothing; nothing was done", body = ContractError<'static>),
    )
)]
pub(crate) async fn set_tasks(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming, &head.headers, &state.limits, &state.room).await?;
    let elements = elements(&bytes, state.limits.set_elements)?;
    let Read { wanted, unreadable } = read_elements(&state, &elements);
    let answer = state.control.set(state.namespace.clone(), wanted).await?;
    let refused = placed(answer.problems, &elements);
    Ok(tell(
        &answer.tasks,
        &refused,
        &unreadable,
        EnvValues::for_caller(&caller),
    ))
}

/// The elements of the list, each still text, so that one at a time is unfolded.
fn elements(bytes: &[u8], most: usize) -> Result<Vec<&RawValue>, Problem> {
    let whole: &RawValue = body::first_value(bytes)?;
    let text = whole.get();
    let found = match text.as_bytes().first() {
        Some(b'[') => {
            let mut list = serde_json::Deserializer::from_str(text);
            let elements = list.deserialize_seq(Elements { most });
            let elements = elements.map_err(|error| Problem::bad_request(error.to_string()))?;
            return elements.ok_or_else(|| too_many(most));
        }
        Some(b'{') => "an object",
        Some(b'"') => "a text",
        Some(b'n') => "null",
        Some(b't' | b'f') => "true or false",
        _ => "a number",
    };
    let message = format!("the body must be a list of tasks, not {found}");
    Err(Problem::bad_request(message).hint("nothing was done; send [] to delete every task"))
}

fn too_many(most: usize) -> Problem {
    let message = format!("the list has more than {most} elements, which is the limit");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        .hint("nothing was done; raise the limit in the daemon's configuration if need be")
}

/// Collects elements; `None` when there are more than the limit, which are not collected.
struct Elements {
    most: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tasks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.most {
            match list.next_element()? {
                Some(element) => elements.push(element),
                None => return Ok(Some(elements)),
            }
        }
        let mut surplus = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            surplus = true;
        }
        Ok((!surplus).then_some(elements))
    }
}

/// What could be read of the elements.
struct Read {
    wanted: Vec<SetElement>,
    unreadable: Vec<NotATask>,
}

/// An element that is no task.
struct NotATask {
    /// Its name, if that much could be read.
    name: Option<TaskName>,
    called: String,
    message: String,
    details: Vec<FieldProblem>,
}

fn read_elements(state: &ApiState, raw: &[&RawValue]) -> Read {
    let mut elements: Vec<Result<Submission, NotATask>> = Vec::with_capacity(raw.len());
    let mut places: HashMap<TaskName, usize> = HashMap::new();
    for (index, raw) in raw.iter().enumerate() {
        let element = read_element(state, raw, index);
        let name = match &element {
            Ok(submission) => Some(submission.key.name.clone()),
            Err(unreadable) => unreadable.name.clone(),
        };
        let before = name.and_then(|name| places.insert(name, elements.len()));
        // Of several with one name the last counts.
        match before.and_then(|place| elements.get_mut(place)) {
            Some(earlier) => {
                let name = match std::mem::replace(earlier, element) {
                    Ok(submission) => Some(submission.key.name),
                    Err(unreadable) => unreadable.name,
                };
                if let (Some(name), Some(place)) = (name, before) {
                    places.insert(name, place);
                }
            }
            None => elements.push(element),
        }
    }
    let mut read = Read {
        wanted: Vec::with_capacity(elements.len()),
        unreadable: Vec::new(),
    };
    for element in elements {
        match element {
            Ok(submission) => read.wanted.push(SetElement::Wanted(submission)),
            Err(unreadable) => {
                // Whatever runs under that name is kept: it was wanted, if only badly.
                read.wanted
                    .extend(unreadable.name.clone().map(SetElement::Keep));
                read.unreadable.push(unreadable);
            }
        }
    }
    read
}

fn read_element(state: &ApiState, raw: &RawValue, index: usize) -> Result<Submission, NotATask> {
    let unreadable = match serde_json::from_str::<Value>(raw.get()) {
        Ok(value) => match parse::task(&value, &Path::ROOT.index(index)) {
            Ok(wanted) => {
                return Ok(Submission {
                    key: state.key(wanted.name),
                    spec: wanted.spec.into(),
                    idempotency: None,
                });
            }
            Err(unreadable) => unreadable,
        },
        Err(error) => parse::Unreadable {
            name: None,
            called: String::new(),
            problems: vec![FieldProblem::new(format!("/{index}"), error.to_string())],
        },
    };
    Err(NotATask {
        name: unreadable.name,
        called: unreadable.called,
        message: told(&unreadable.problems),
        details: unreadable.problems,
    })
}

/// An element that was read and is not had all the same.
struct NotHad {
    name: TaskName,
    message: String,
    details: Vec<FieldProblem>,
}

/// What could not be had, with every field where it was written. The elements are looked at once
/// more for that, because hardly any request has such.
fn placed(problems: Vec<SetProblem>, raw: &[&RawValue]) -> Vec<NotHad> {
    let mut places: HashMap<String, Places> = HashMap::new();
    if problems.iter().any(|problem| !problem.details.is_empty()) {
        for (index, raw) in raw.iter().enumerate() {
            let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            if let Some(name) = value.get("name").and_then(Value::as_str) {
                let of_element = Places::of(&value, &Path::ROOT.index(index));
                places.insert(name.to_owned(), of_element);
            }
        }
    }
    let not_had = problems.into_iter().map(|problem| {
        let places = places.remove(problem.name.as_str()).unwrap_or_default();
        let details: Vec<FieldProblem> =
            problem.details.iter().map(|one| places.told(one)).collect();
        NotHad {
            name: problem.name,
            message: match details.as_slice() {
                [] => problem.message,
                details => told(details),
            },
            details,
        }
    });
    not_had.collect()
}

fn told(problems: &[FieldProblem]) -> String {
    let sentences: Vec<String> = problems.iter().map(FieldProblem::sentence).collect();
    sentences.join("; ")
}

/// The whole answer: real tasks in their order, then what is no task.
fn tell(
    tasks: &[Arc<Task>],
    problems: &[NotHad],
    unreadable: &[NotATask],
    values: EnvValues,
) -> Response {
    let mut of_name: HashMap<&str, ElementProblem<'_>> = HashMap::new();
    for problem in problems {
        let told = ElementProblem {
            message: problem.message.as_str().into(),
            details: &problem.details,
        };
        of_name.insert(problem.name.as_str(), told);
    }
    for one in unreadable {
        let told = ElementProblem {
            message: format!("the present task was kept as it is: {}", one.message).into(),
            details: &one.details,
        };
        of_name.insert(&one.called, told);
    }
    let mut answer = ListAnswer::new(values);
    let mut listed = HashSet::new();
    for task in tasks {
        let name = task.key.name.as_str();
        listed.insert(name);
        answer.task(task, of_name.remove(name));
    }
    for problem in problems {
        let name = problem.name.as_str();
        if !listed.contains(name) {
            let told = ElementProblem {
                message: problem.message.as_str().into(),
                details: &problem.details,
            };
            answer.no_task(name, told);
        }
    }
    for one in unreadable {
        if !listed.contains(one.called.as_str()) {
            let told = ElementProblem {
                message: one.message.as_str().into(),
                details: &one.details,
            };
            answer.no_task(&one.called, told);
        }
    }
    answer.finish()
}

/// A JSON list, written element by element.
struct ListAnswer {
    bytes: Vec<u8>,
    values: EnvValues,
}

impl ListAnswer {
    fn new(values: EnvValues) -> Self {
        Self {
            bytes: vec![b'['],
            values,
        }
    }

    fn comma(&mut self) {
        if self.bytes.len() > 1 {
            self.bytes.push(b',');
        }
    }

    fn task(&mut self, task: &Task, problem: Option<ElementProblem<'_>>) {
        self.comma();
        dto::write_task(&mut self.bytes, task, self.values, problem);
    }

    fn no_task(&mut self, name: &str, problem: ElementProblem<'_>) {
        self.comma();
        dto::write_no_task(&mut self.bytes, name, problem);
    }

    fn finish(mut self) -> Response {
        self.bytes.extend_from_slice(b"]\n");
        let mut response = Response::new(Body::from(self.bytes));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
