//! From a body to a queued task. Defaults are merged into `parameters`, so that every
//! later reader sees what held (contracts/aiopslab.md, 1.2).

use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use taskwright_queue::task::{Idempotency, Tries};
use taskwright_queue::{Json, NewTask, ProblemId, QueueConfig};

use super::callback::CallbackCheck;
use super::read;
use crate::problem::{FieldProblem, Problem};

const MOST_STEPS: u64 = 1000;
/// A week. The older design had three hours, and its programs never checked.
const LONGEST_MINUTES: f64 = 7.0 * 24.0 * 60.0;
/// The largest priority, and the smallest below zero.
const MOST_PRIORITY: f64 = 1_000_000.0;
const LONGEST_BACKEND: usize = 100;
const LONGEST_MODEL: usize = 100;
const LONGEST_URL: usize = 2000;

/// Reads a submission.
pub(super) fn read(
    body: &Map<String, Value>,
    config: &QueueConfig,
    callbacks: &CallbackCheck,
    key: Option<&str>,
) -> Result<NewTask, Problem> {
    let mut problems = Vec::new();
    let problem_id = match read::field(body, "problem_id") {
        None => Err(FieldProblem::new("/problem_id", "is required")),
        Some(Value::String(text)) => {
            ProblemId::parse(text).map_err(|message| FieldProblem::new("/problem_id", message))
        }
        Some(_) => Err(FieldProblem::new("/problem_id", "must be a text")),
    };
    let parameters = match body.get("parameters") {
        None => Ok(Map::new()),
        Some(Value::Object(parameters)) => Ok(parameters.clone()),
        Some(_) => Err(FieldProblem::new("/parameters", "must be an object")),
    };
    let (problem_id, mut parameters) = match (problem_id, parameters) {
        (Ok(problem_id), Ok(parameters)) => (problem_id, parameters),
        (one, other) => {
            problems.extend(one.err());
            problems.extend(other.err());
            return Err(read::unprocessable(problems));
        }
    };
    let mut fields = Fields {
        parameters: &mut parameters,
        problems,
    };
    let callback = read::field(body, "callback_url").cloned();
    let priority = fields.priority(config.priority);
    let time_limit = fields.time_limit(config.time_limit);
    fields.max_steps(config.max_steps);
    let backend_type = fields.text("backend_type", LONGEST_BACKEND);
    let failures = fields.max_attempts();
    fields.agent(&config.default_model);
    let beside = callback.as_ref().and_then(Value::as_str).map(str::to_owned);
    let callback_url = fields.callback(callback, callbacks);
    let Fields { problems, .. } = fields;
    if !problems.is_empty() {
        return Err(read::unprocessable(problems));
    }
    let parameters = Json::of(&Value::Object(parameters));
    let idempotency = key.map(|key| Idempotency {
        key: key.to_owned(),
        fingerprint: fingerprint(&problem_id, &parameters, beside.as_deref()),
    });
    Ok(NewTask {
        id: read::new_id(),
        problem_id,
        parameters,
        priority,
        backend_type,
        time_limit,
        tries: Tries {
            failures: failures.unwrap_or(config.tries.failures),
            ..config.tries
        },
        callback_url,
        idempotency,
    })
}

/// By this a request is known again. `beside` is a `callback_url` that is no parameter.
fn fingerprint(problem: &ProblemId, parameters: &Json, beside: Option<&str>) -> String {
    let mut digest = Sha256::new();
    digest.update(problem.as_str());
    digest.update([0]);
    digest.update(parameters.as_str());
    if let Some(beside) = beside {
        digest.update([0]);
        digest.update(beside);
    }
    hex::encode(digest.finalize())
}

/// The parameters, and what is wrong with them.
struct Fields<'a> {
    parameters: &'a mut Map<String, Value>,
    problems: Vec<FieldProblem>,
}

impl Fields<'_> {
    fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.problems
            .push(FieldProblem::new(format!("/parameters/{name}"), message));
    }

    /// A number of a parameter; null is the same as nothing.
    fn number(&mut self, name: &str) -> Option<f64> {
        let value = read::field(self.parameters, name)?;
        let number = value.as_f64().filter(|number| number.is_finite());
        if number.is_none() {
            self.wrong(name, "must be a number");
        }
        number
    }

    fn priority(&mut self, default: f64) -> f64 {
        match self.number("priority") {
            Some(priority) if priority.abs() <= MOST_PRIORITY => priority,
            Some(_) => {
                self.wrong(
                    "priority",
                    format!("must lie within {MOST_PRIORITY} of zero"),
                );
                default
            }
            None => {
                self.parameters
                    .insert("priority".to_owned(), whole(default));
                default
            }
        }
    }

    /// `timeout_minutes`, or `timeout` in seconds, which the older document has.
    fn time_limit(&mut self, default: Duration) -> Duration {
        let given = match self.number("timeout_minutes") {
            Some(minutes) => Some(("timeout_minutes", minutes)),
            None if read::field(self.parameters, "timeout_minutes").is_some() => None,
            None => self
                .number("timeout")
                .map(|seconds| ("timeout", seconds / 60.0)),
        };
        let Some((name, minutes)) = given else {
            let minutes = default.as_secs_f64() / 60.0;
            if read::field(self.parameters, "timeout").is_none() {
                self.parameters
                    .insert("timeout_minutes".to_owned(), whole(minutes));
            }
            return default;
        };
        let limit = Duration::try_from_secs_f64(minutes * 60.0).ok();
        match limit.filter(|limit| !limit.is_zero() && minutes <= LONGEST_MINUTES) {
            Some(limit) => {
                if name == "timeout" {
                    self.parameters
                        .insert("timeout_minutes".to_owned(), whole(minutes));
                }
                limit
            }
            None => {
                let most = match name {
                    "timeout" => format!("{} seconds", LONGEST_MINUTES * 60.0),
                    _ => format!("{LONGEST_MINUTES} minutes"),
                };
                self.wrong(name, format!("must be more than 0 and no more than {most}"));
                default
            }
        }
    }

    fn max_steps(&mut self, default: u32) {
        match read::field(self.parameters, "max_steps").cloned() {
            None => {
                self.parameters
                    .insert("max_steps".to_owned(), json!(default));
            }
            Some(value) => match value.as_u64() {
                Some(steps) if (1..=MOST_STEPS).contains(&steps) => {}
                _ => {
                    let message = format!("must be a whole number from 1 to {MOST_STEPS}");
                    self.wrong("max_steps", message);
                }
            },
        }
    }

    fn max_attempts(&mut self) -> Option<u32> {
        let value = read::field(self.parameters, "max_attempts").cloned()?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (1..=Tries::MOST).contains(number));
        if number.is_none() {
            let message = format!("must be a whole number from 1 to {}", Tries::MOST);
            self.wrong("max_attempts", message);
        }
        number
    }

    fn text(&mut self, name: &str, most: usize) -> Option<String> {
        match read::text(self.parameters, name, most) {
            Ok(text) => text,
            Err(problem) => {
                self.wrong(name, problem.message);
                None
            }
        }
    }

    fn agent(&mut self, default_model: &str) {
        let agent = match self.parameters.get("agent_config") {
            None | Some(Value::Null) => Some(Map::new()),
            Some(Value::Object(agent)) => Some(agent.clone()),
            Some(_) => None,
        };
        let Some(mut agent) = agent else {
            self.wrong("agent_config", "must be an object");
            return;
        };
        match read::text(&agent, "model", LONGEST_MODEL) {
            Ok(Some(_)) => {}
            Ok(None) => {
                agent.insert("model".to_owned(), json!(default_model));
            }
            Err(problem) => self.wrong("agent_config/model", problem.message),
        }
        self.parameters
            .insert("agent_config".to_owned(), Value::Object(agent));
    }

    /// Beside the parameters, or among them.
    fn callback(&mut self, beside: Option<Value>, check: &CallbackCheck) -> Option<String> {
        let value = beside.or_else(|| read::field(self.parameters, "callback_url").cloned())?;
        let address = value.as_str().filter(|text| text.len() <= LONGEST_URL);
        let usable = match address {
            None => Err(format!("must be a text of at most {LONGEST_URL} bytes")),
            Some(address) => check(address).map(|()| address.to_owned()),
        };
        match usable {
            Ok(address) => Some(address),
            Err(message) => {
                self.problems
                    .push(FieldProblem::new("/callback_url", message));
                None
            }
        }
    }
}

/// A number as people write it: 30 and not 30.0.
fn whole(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only where it is exact")]
    let truncated = number as i64;
    #[expect(clippy::cast_precision_loss, reason = "compared for exactness")]
    if truncated as f64 == number {
        json!(truncated)
    } else {
        json!(number)
    }
}
