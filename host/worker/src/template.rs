//! From a problem to a task of this machine.
//!
//! A template is a task as the native API takes it, without a name, and the problems it
//! is for. The queue's task reaches it as environment: who it is, and each parameter
//! that is a plain value. Everything else is in a file beside it.

use serde_json::{Map, Value, json};
use taskwright_model::TaskId;
use taskwright_queue::worker::Problems;

use crate::folder::Inside;
use crate::port::Assignment;

/// The label that says which of the queue's tasks a task of this machine is for.
pub const TASK_LABEL: &str = "taskwright.dev/queue-task";
/// The label with the number of the attempt.
pub const ATTEMPT_LABEL: &str = "taskwright.dev/queue-attempt";
/// The label with the worker's id.
pub const WORKER_LABEL: &str = "taskwright.dev/queue-worker";

/// What a parameter's variable begins with.
const PARAMETER: &str = "TASKWRIGHT_PARAM_";
/// The most parameters that become variables; the file has all of them.
const MOST_VARIABLES: usize = 256;
/// The longest value of a variable: beyond it, the kernel starts no program
/// (`MAX_ARG_STRLEN`, execve(2)).
const LONGEST_VALUE: usize = 64 * 1024;

/// Problems, and the task that solves them.
#[derive(Clone, Debug)]
pub struct Template {
    patterns: Vec<String>,
    problems: Problems,
    task: Value,
    work_dir: Option<WorkDir>,
}

/// A directory that the work shares with the worker, where the runtime gives none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkDir {
    /// As the worker sees it.
    pub outside: std::path::PathBuf,
    /// As the work sees it.
    pub inside: String,
}

impl Template {
    /// Reads one. No pattern at all means every problem.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn new(
        patterns: Vec<String>,
        task: Value,
        work_dir: Option<WorkDir>,
    ) -> Result<Self, String> {
        let problems = Problems::parse(&patterns)?;
        let Some(object) = task.as_object() else {
            return Err("the task is no object".to_owned());
        };
        if object.contains_key("name") {
            return Err("the task has a name; each attempt is given its own".to_owned());
        }
        Ok(Self {
            patterns,
            problems,
            task,
            work_dir,
        })
    }

    /// How the work sees its files; `None`: it does not, and has its variables alone.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        if let Some(work_dir) = &self.work_dir {
            return Place::Shared(work_dir);
        }
        match self.kind() {
            Kind::Container | Kind::Pod => Place::Mounted,
            Kind::Process if self.runtime() == Some("sidecar") => Place::None,
            Kind::Process | Kind::Other => Place::Same,
        }
    }

    fn runtime(&self) -> Option<&str> {
        self.task.get("runtime").and_then(Value::as_str)
    }

    fn kind(&self) -> Kind {
        if self.task.get("podTemplateSpec").is_some() {
            return Kind::Pod;
        }
        let of = |field| self.task.pointer(field).is_some();
        if of("/spec/container") {
            Kind::Container
        } else if of("/spec/process") || of("/process") {
            Kind::Process
        } else {
            Kind::Other
        }
    }

    /// The task of this machine for an attempt, named `name`, whose files it sees at `inside`.
    #[must_use]
    pub fn task(
        &self,
        name: &str,
        assignment: &Assignment,
        worker: &str,
        inside: Option<&Inside>,
    ) -> Value {
        let mut task = self.task.clone();
        let Some(object) = task.as_object_mut() else {
            return task;
        };
        object.insert("name".to_owned(), name.into());
        let labels = object.entry("labels").or_insert_with(|| json!({}));
        for (label, value) in [
            (TASK_LABEL, assignment.task.to_string()),
            (ATTEMPT_LABEL, assignment.attempt.to_string()),
            (WORKER_LABEL, worker.to_owned()),
        ] {
            put(labels, label, value.into());
        }
        let limits = object.entry("limits").or_insert_with(|| json!({}));
        shorten(limits, assignment.time_limit.as_secs_f64());
        let variables = variables(assignment, worker, inside);
        match self.kind() {
            Kind::Process => {
                let process = if task.get("process").is_some() {
                    task.get_mut("process")
                } else {
                    task.pointer_mut("/spec/process")
                };
                process
                    .into_iter()
                    .for_each(|process| add_variables(process, &variables));
            }
            Kind::Container => {
                if let Some(container) = task.pointer_mut("/spec/container") {
                    add_variables(container, &variables);
                    if let Some(inside) = inside.filter(|inside| inside.mounted) {
                        push(container, "volumes", volume(inside));
                        push(container, "volumeMounts", mount(inside));
                    }
                }
            }
            Kind::Pod => pod(&mut task, &variables, inside),
            Kind::Other => {
                // A runtime that knows documents of its own has all of it there.
                if let Some(document) = task.pointer_mut("/spec/document") {
                    let parameters: Value =
                        serde_json::from_str(assignment.parameters.as_str()).unwrap_or_default();
                    put(
                        document,
                        "queue",
                        json!({
                            "taskId": assignment.task.to_string(),
                            "problemId": assignment.problem,
                            "attempt": assignment.attempt,
                            "parameters": parameters,
                        }),
                    );
                }
            }
        }
        task
    }
}

/// Where the files of an attempt are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a folder of the worker's, which the work sees at the same path.
    Same,
    /// In such a folder, which is mounted.
    Mounted,
    /// Below a directory that both see.
    Shared(&'a WorkDir),
    /// The work sees none.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Process,
    Container,
    Pod,
    Other,
}

/// What a volume of ours is called.
const VOLUME: &str = "taskwright-queue";

fn volume(inside: &Inside) -> Value {
    json!({"name": VOLUME, "hostPath": {"path": inside.outside.display().to_string()}})
}

fn mount(inside: &Inside) -> Value {
    json!({"name": VOLUME, "mountPath": inside.directory})
}

fn pod(task: &mut Value, variables: &[(String, String)], inside: Option<&Inside>) {
    let Some(spec) = task.pointer_mut("/podTemplateSpec/spec") else {
        return;
    };
    let inside = inside.filter(|inside| inside.mounted);
    if let Some(inside) = inside {
        push(spec, "volumes", volume(inside));
    }
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        add_variables(container, variables);
        if let Some(inside) = inside {
            push(container, "volumeMounts", mount(inside));
        }
    }
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn push(object: &mut Value, key: &str, value: Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    let list = object.entry(key).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

/// The template's own variables come later, and so win.
fn add_variables(holder: &mut Value, variables: &[(String, String)]) {
    let Some(object) = holder.as_object_mut() else {
        return;
    };
    let ours = variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}));
    let own = match object.remove("env") {
        Some(Value::Array(own)) => own,
        _ => Vec::new(),
    };
    object.insert("env".to_owned(), ours.chain(own).collect());
}

/// No attempt runs here for longer than the queue gives it.
fn shorten(limits: &mut Value, most: f64) {
    let own = limits.get("runSeconds").and_then(Value::as_f64);
    if own.is_none_or(|own| own > most) {
        put(limits, "runSeconds", json!(most));
    }
}

/// What an attempt is told by its environment.
#[must_use]
pub fn variables(
    assignment: &Assignment,
    worker: &str,
    inside: Option<&Inside>,
) -> Vec<(String, String)> {
    let mut variables = vec![
        ("TASKWRIGHT_TASK_ID".to_owned(), assignment.task.to_string()),
        (
            "TASKWRIGHT_PROBLEM_ID".to_owned(),
            assignment.problem.clone(),
        ),
        (
            "TASKWRIGHT_ATTEMPT".to_owned(),
            assignment.attempt.to_string(),
        ),
        ("TASKWRIGHT_WORKER_ID".to_owned(), worker.to_owned()),
    ];
    if let Some(inside) = inside {
        variables.push((
            "TASKWRIGHT_PARAMETERS".to_owned(),
            format!("{}/{}", inside.directory, crate::folder::PARAMETERS),
        ));
        variables.push((
            "TASKWRIGHT_RESULT".to_owned(),
            format!("{}/{}", inside.directory, crate::folder::RESULT),
        ));
    } else if assignment.parameters.as_str().len() <= LONGEST_VALUE {
        variables.push((
            "TASKWRIGHT_PARAMETERS_JSON".to_owned(),
            assignment.parameters.as_str().to_owned(),
        ));
    }
    let parameters: Map<String, Value> =
        serde_json::from_str(assignment.parameters.as_str()).unwrap_or_default();
    let plain = parameters
        .iter()
        .filter_map(|(name, value)| Some((variable_name(name)?, plain_text(value)?)));
    for (name, value) in plain.take(MOST_VARIABLES) {
        // Two parameters may have names that differ in case alone: the first is told.
        if variables.iter().all(|(known, _)| *known != name) {
            variables.push((name, value));
        }
    }
    variables
}

/// `max-steps` is `TASKWRIGHT_PARAM_MAX_STEPS`.
fn variable_name(parameter: &str) -> Option<String> {
    let word: String = parameter
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        })
        .collect();
    (!word.is_empty() && word.len() <= 100).then(|| format!("{PARAMETER}{word}"))
}

fn plain_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(switch) => switch.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (text.len() <= LONGEST_VALUE && !text.contains('\0')).then_some(text)
}

/// The templates of a worker: the first that takes a problem is its.
#[derive(Clone, Debug, Default)]
pub struct Templates(Vec<Template>);

impl Templates {
    /// The most of one worker.
    pub const MOST: usize = 100;

    /// Those, in order.
    #[must_use]
    pub fn new(templates: Vec<Template>) -> Self {
        Self(templates)
    }

    /// Whether there is none: such a worker can do nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one for a problem.
    #[must_use]
    pub fn of(&self, problem: &str) -> Option<&Template> {
        self.0.iter().find(|one| one.problems.takes(problem))
    }

    /// The patterns of all; none where one of them takes every problem.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        if self.0.iter().any(|one| one.problems.takes_all()) {
            return Vec::new();
        }
        let all = self.0.iter().flat_map(|one| one.patterns.iter().cloned());
        let mut patterns: Vec<String> = all.collect();
        patterns.sort();
        patterns.dedup();
        patterns
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.0.iter()
    }
}

/// What the task of this machine for an attempt is called.
#[must_use]
pub fn run_name(task: TaskId, attempt: u32) -> String {
    format!("{task}.{attempt}")
}

/// The queue's task and the attempt of a name made by [`run_name`].
#[must_use]
pub fn of_run_name(name: &str) -> Option<(TaskId, u32)> {
    let (task, attempt) = name.split_once('.')?;
    Some((TaskId::parse(task).ok()?, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    //! Templates of each kind, and what attempts are told.
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::time::Duration;

    use taskwright_queue::Json;

    use super::*;

    fn assignment(parameters: &Value) -> Assignment {
        Assignment {
            task: TaskId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000),
            attempt: 2,
            problem: "test-1".to_owned(),
            parameters: Json::of(parameters),
            time_limit: Duration::from_secs(60),
        }
    }

    fn inside(mounted: bool) -> Inside {
        Inside {
            outside: "/data/work/x".into(),
            directory: "/work".to_owned(),
            mounted,
        }
    }

    #[test]
    fn a_command_is_told_by_variables_and_its_own_win() {
        let task = json!({"spec": {"process": {"command": ["true"],
            "env": [{"name": "A", "value": "b"}]}}, "limits": {"runSeconds": 600}});
        let template = Template::new(vec!["test-*".to_owned()], task, None).unwrap();
        assert_eq!(template.place(), Place::Same);
        let made = template.task(
            "n",
            &assignment(&json!({"max_steps": 30, "deep": {"x": 1}, "on": true})),
            "worker-001-kind",
            Some(&inside(false)),
        );
        assert_eq!(made["name"], "n");
        assert_eq!(made["limits"]["runSeconds"], 60.0);
        assert_eq!(made["labels"][ATTEMPT_LABEL], "2");
        let env = made["spec"]["process"]["env"].as_array().unwrap();
        let value = |name: &str| {
            let found = env.iter().rfind(|one| one["name"] == name);
            found.map(|one| one["value"].as_str().unwrap().to_owned())
        };
        assert_eq!(value("TASKWRIGHT_PARAM_MAX_STEPS").as_deref(), Some("30"));
        assert_eq!(value("TASKWRIGHT_PARAM_ON").as_deref(), Some("true"));
        assert_eq!(value("TASKWRIGHT_PARAM_DEEP"), None);
        assert_eq!(
            value("TASKWRIGHT_RESULT").as_deref(),
            Some("/work/result.json")
        );
        assert_eq!(env.last().unwrap()["name"], "A");
    }

    #[test]
    fn containers_and_pods_get_a_mount() {
        let task = json!({"spec": {"container": {"image": "a", "volumes": null}}});
        let template = Template::new(Vec::new(), task, None).unwrap();
        assert_eq!(template.place(), Place::Mounted);
        let made = template.task("n", &assignment(&json!({})), "w", Some(&inside(true)));
        let container = &made["spec"]["container"];
        assert_eq!(container["volumes"][0]["hostPath"]["path"], "/data/work/x");
        assert_eq!(container["volumeMounts"][0]["mountPath"], "/work");

        let task =
            json!({"podTemplateSpec": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}});
        let template = Template::new(Vec::new(), task, None).unwrap();
        let made = template.task("n", &assignment(&json!({})), "w", Some(&inside(true)));
        let spec = &made["podTemplateSpec"]["spec"];
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
        for container in spec["containers"].as_array().unwrap() {
            assert_eq!(container["volumeMounts"][0]["name"], VOLUME);
            assert!(container["env"].as_array().unwrap().len() >= 4);
        }
    }

    #[test]
    fn where_no_file_can_be_seen_parameters_are_a_variable() {
        let task = json!({"runtime": "sidecar", "spec": {"process": {"command": ["true"]}}});
        let template = Template::new(Vec::new(), task, None).unwrap();
        assert_eq!(template.place(), Place::None);
        let told = variables(&assignment(&json!({"a": "x"})), "w", None);
        let told: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert!(told.contains(&"TASKWRIGHT_PARAMETERS_JSON"), "{told:?}");
        assert!(!told.contains(&"TASKWRIGHT_RESULT"), "{told:?}");
    }

    #[test]
    fn variables_are_bounded_and_clean() {
        let mut many = Map::new();
        for n in 0..1000 {
            many.insert(format!("p{n:04}"), json!(n));
        }
        many.insert("long".to_owned(), json!("x".repeat(LONGEST_VALUE + 1)));
        many.insert("nul".to_owned(), json!("a\u{0}b"));
        let told = variables(&assignment(&Value::Object(many)), "w", None);
        assert!(told.len() <= MOST_VARIABLES + 5, "{}", told.len());
        assert!(
            told.iter()
                .all(|(name, value)| !name.ends_with("_LONG") && !value.contains('\0'))
        );
    }

    #[test]
    fn the_first_template_that_takes_a_problem_is_its() {
        let one = |pattern: &str| {
            let patterns = vec![pattern.to_owned()];
            Template::new(patterns, json!({"spec": {"process": {}}}), None).unwrap()
        };
        let templates = Templates::new(vec![one("a-*"), one("b")]);
        assert!(templates.of("a-1").is_some());
        assert!(templates.of("xbx").is_some());
        assert!(templates.of("c").is_none());
        assert_eq!(templates.patterns(), ["a-*", "b"]);
        let all = Template::new(Vec::new(), json!({}), None).unwrap();
        assert!(Templates::new(vec![one("a"), all]).patterns().is_empty());
    }

    #[test]
    fn names_of_runs_are_read_again() {
        let task = TaskId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
        assert_eq!(of_run_name(&run_name(task, 7)), Some((task, 7)));
        assert_eq!(of_run_name("x.1"), None);
    }

    #[test]
    fn templates_that_can_be_no_task_are_refused() {
        assert!(Template::new(Vec::new(), json!([]), None).is_err());
        assert!(Template::new(Vec::new(), json!({"name": "x"}), None).is_err());
        assert!(Template::new(vec!["[".to_owned()], json!({}), None).is_err());
    }
}
