//! From a body to a task: `machine` and `parameters`, and nothing else.
//!
//! The machine is the name of a runtime. What its parameters are is the runtime's word: the one
//! kind of work it takes, or the first of several unless the parameters name another
//! (`{"podTemplateSpec": {...}}`). Everything is checked here or by the runtime before anything is
//! stored; what is wrong is told in the form that the original has for it.

use serde_json::{Map, Value, json};
use taskwright_control::SubmitError;
use taskwright_model::{TaskName, TaskSpec};

use crate::native::field::Path;
use crate::native::parse::{self, CONTAINER, DOCUMENT, POD_TEMPLATE};
use crate::problem::Problem;

const MACHINE: &str = "machine";
const PARAMETERS: &str = "parameters";

/// A body that has the right form.
#[derive(Debug)]
pub(super) struct Request {
    machine: String,
    parameters: Value,
}

impl Request {
    /// Reads a body. Nothing may stand behind the JSON: the original takes nothing there.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))?;
        let mut told = Vec::new();
        let Value::Object(mut fields) = value else {
            told.push(format!(": {} is not of type 'object'", shown(&value)));
            return Err(invalid(&told));
        };
        let machine = fields.remove(MACHINE);
        if let Some(other) = machine.as_ref().filter(|value| !value.is_string()) {
            told.push(format!(
                "{MACHINE}: {} is not of type 'string'",
                shown(other)
            ));
        }
        let parameters = fields.remove(PARAMETERS);
        for (field, missing) in [
            (MACHINE, machine.is_none()),
            (PARAMETERS, parameters.is_none()),
        ] {
            if missing {
                told.push(format!(": '{field}' is a required property"));
            }
        }
        if !fields.is_empty() {
            told.push(unexpected(&fields));
        }
        match (machine, parameters) {
            (Some(Value::String(machine)), Some(parameters)) if told.is_empty() => Ok(Self {
                machine,
                parameters,
            }),
            _ => Err(invalid(&told)),
        }
    }

    /// The task, for the runtime that the machine is.
    pub(super) fn spec(
        &self,
        name: &TaskName,
        runtimes: &[(String, Vec<String>)],
    ) -> Result<TaskSpec, Problem> {
        let found = runtimes.iter().find(|(name, _)| *name == self.machine);
        let Some((_, kinds)) = found else {
            let machine = shown(&Value::from(self.machine.as_str()));
            let names: Vec<&str> = runtimes.iter().map(|(name, _)| name.as_str()).collect();
            let there_is = names.join(", ");
            let message = format!("{MACHINE}: there is no machine {machine}; there is {there_is}");
            return Err(invalid(&[message]));
        };
        let (kind, parameters) = self.work(kinds);
        let mut task = json!({ "name": name.as_str(), "runtime": self.machine });
        let (place, work) = match kind {
            "process" | POD_TEMPLATE => (kind, parameters.clone()),
            CONTAINER => ("spec", json!({ CONTAINER: parameters })),
            other => (
                "spec",
                json!({ DOCUMENT: { "kind": other, "content": parameters } }),
            ),
        };
        if let Some(fields) = task.as_object_mut() {
            fields.insert(place.to_owned(), work);
        }
        match parse::task(&task, &Path::ROOT) {
            Ok(wanted) => Ok(wanted.spec),
            Err(unreadable) => {
                let problems = unreadable.problems.iter();
                let told: Vec<String> = problems
                    .map(|problem| sentence(&problem.field, &problem.message))
                    .collect();
                Err(invalid(&told))
            }
        }
    }

    /// The kind of work, and what of the parameters describes it.
    fn work<'a>(&'a self, kinds: &'a [String]) -> (&'a str, &'a Value) {
        let named = self.parameters.as_object().filter(|map| map.len() == 1);
        let named = named.and_then(|map| map.iter().next());
        if let Some((key, value)) = named
            && kinds.len() > 1
            && kinds.contains(key)
        {
            return (key, value);
        }
        let first = kinds.first().map_or("process", String::as_str);
        (first, &self.parameters)
    }
}

/// Why a runtime or a policy does not take a task.
pub(super) fn refused(error: SubmitError) -> Problem {
    match error {
        SubmitError::Invalid(problems) => {
            let told: Vec<String> = problems
                .iter()
                .map(|problem| sentence(&problem.field, &problem.message))
                .collect();
            invalid(&told)
        }
        other => other.into(),
    }
}

/// The form that the original has for it.
fn invalid(told: &[String]) -> Problem {
    Problem::bad_request(format!("Task validation failed: {}", told.join(", ")))
}

/// A problem at its place in what was sent.
fn sentence(pointer: &str, message: &str) -> String {
    let places = [
        "/spec/document/content",
        "/spec/container",
        "/spec/podTemplateSpec",
        "/spec/process",
        "/podTemplateSpec",
        "/process",
    ];
    let below = places.iter().find_map(|place| pointer.strip_prefix(place));
    match below {
        Some(below) => format!("{PARAMETERS}{below}: {message}"),
        None if pointer.ends_with("/runtime") => format!("{MACHINE}: {message}"),
        None => format!("{}: {message}", pointer.trim_start_matches('/')),
    }
}

fn unexpected(fields: &Map<String, Value>) -> String {
    const MOST_NAMED: usize = 10;
    let names: Vec<String> = fields
        .keys()
        .take(MOST_NAMED)
        .map(|name| format!("'{}'", cut(name)))
        .collect();
    let were = if names.len() == 1 { "was" } else { "were" };
    let names = names.join(", ");
    format!(": Additional properties are not allowed ({names} {were} unexpected)")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", cut(text)),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    const MOST: usize = 100;
    text.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use taskwright_model::Work;

    fn runtimes() -> Vec<(String, Vec<String>)> {
        let of = |name: &str, kinds: &[&str]| {
            let kinds = kinds.iter().map(|kind| (*kind).to_owned());
            (name.to_owned(), kinds.collect())
        };
        vec![
            of("container", &["container", "podTemplateSpec"]),
            of("echo", &["echo"]),
            of("process", &["process"]),
        ]
    }

    fn spec(body: &Value) -> Result<TaskSpec, String> {
        let request = Request::read(body.to_string().as_bytes());
        let name = TaskName::parse("0000aaaa").unwrap();
        let spec = request.and_then(|request| request.spec(&name, &runtimes()));
        spec.map_err(|problem| problem.message)
    }

    #[test]
    fn forms_are_refused_in_the_originals_words() {
        let check = |body: Value, told: &str| {
            let lead_in = "Task validation failed: ";
            assert_eq!(spec(&body).unwrap_err(), format!("{lead_in}{told}"));
        };
        check(json!([]), ": [] is not of type 'object'");
        check(
            json!({}),
            ": 'machine' is a required property, : 'parameters' is a required property",
        );
        check(
            json!({"machine": 7, "parameters": null}),
            "machine: 7 is not of type 'string'",
        );
        check(
            json!({"machine": "echo", "parameters": [], "x": 1, "y": 2}),
            ": Additional properties are not allowed ('x', 'y' were unexpected)",
        );
        check(
            json!({"machine": "powerman", "parameters": {}}),
            "machine: there is no machine 'powerman'; there is container, echo, process",
        );
        check(
            json!({"machine": "process", "parameters": {"command": [""]}}),
            "parameters/command/0: the program must not be empty",
        );
        for no_json in ["", "{", "{} {}", "hello"] {
            let problem = Request::read(no_json.as_bytes()).unwrap_err();
            assert_eq!(problem.status, 400, "{no_json}");
        }
    }

    #[test]
    fn a_machine_is_a_runtime_by_its_name() {
        let echo = spec(&json!({"machine": "echo", "parameters": "echo hi"})).unwrap();
        assert_eq!(echo.runtime.unwrap().as_str(), "echo");
        let document = |kind: &str, json: &str| Work::Document {
            kind: kind.to_owned(),
            json: json.to_owned(),
        };
        assert_eq!(echo.work, document("echo", "\"echo hi\""));

        let process = json!({"machine": "process", "parameters": {"command": ["true"]}});
        assert_eq!(spec(&process).unwrap().work.kind(), "process");
        let container = json!({"machine": "container", "parameters": {"image": "x"}});
        assert_eq!(
            spec(&container).unwrap().work,
            document("container", r#"{"image":"x"}"#)
        );
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        let pod = json!({"machine": "container", "parameters": {"podTemplateSpec": pod}});
        assert_eq!(spec(&pod).unwrap().work.kind(), "podTemplateSpec");
    }
}
