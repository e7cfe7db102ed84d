//! From a body to a task: both forms of the contract, and what we add to them.
//!
//! Everything is checked here before anything is stored, and every problem is
//! told at once. Unknown fields and `status` are ignored, `null` is the same as
//! nothing; what would silently mean something else than it says is refused:
//! contradictions between the two forms, `valueFrom`, `timeoutSeconds: 0`, and
//! fields that are almost ours ([`super::misspelt`]).
//!
//! What is ours (`labels`, `priority`, `runtime`, `limits`, `retry`, `config`, and what
//! [`super::confinement`] reads) stands at the top level beside `name`, and is also taken under
//! `spec`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use taskwright_model::{
    EnvVar, ProcessSpec, RetryPolicy, RuntimeName, TaskName, TaskSpec, TimeLimits, Work,
};

use super::confinement::confinement;
use super::field::{Object, Path, Problems};
use super::misspelt;
use crate::problem::FieldProblem;

/// The largest command: `command`, `args` and `env` together, in bytes.
pub(crate) const MOST_COMMAND_BYTES: usize = 1024 * 1024;
/// The longest single argument or variable the kernel takes (`MAX_ARG_STRLEN`), in bytes
/// without its NUL.
const MOST_ARGUMENT_BYTES: usize = 131_071;
/// The most labels of a task.
const MOST_LABELS: usize = 64;
/// The longest key and the longest value of a label, in bytes.
const MOST_LABEL_BYTES: (usize, usize) = (256, 1024);
/// The longest time limit, in seconds: ten years.
const MOST_SECONDS: i64 = 10 * 365 * 24 * 3600;
/// The longest word for a kind of work, in bytes.
const MOST_KIND_BYTES: usize = 63;
/// The longest `config`, in bytes.
const MOST_CONFIG_BYTES: usize = 64 * 1024;
/// The most attempts of a task; all of them stay on its record.
const MOST_ATTEMPTS: i64 = 100;

/// The kind of work in `spec.container`.
pub(crate) const CONTAINER: &str = "container";
/// The kind of work in `podTemplateSpec`.
pub(crate) const POD_TEMPLATE: &str = "podTemplateSpec";
/// Where work of any other kind stands in `spec`: `kind`, and `content` for its runtime.
pub(crate) const DOCUMENT: &str = "document";

/// A task as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: TaskName,
    pub(crate) spec: TaskSpec,
}

/// Why a body is no task.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Its name, if that much could be read.
    pub(crate) name: Option<TaskName>,
    /// What it says its name is.
    pub(crate) called: String,
    pub(crate) problems: Vec<FieldProblem>,
}

/// Reads a task found at `path`.
pub(crate) fn task(body: &Value, path: &Path<'_>) -> Result<Wanted, Unreadable> {
    let mut problems = Problems::default();
    let Some(top) = Object::of(body, path, &mut problems) else {
        return Err(Unreadable {
            name: None,
            called: String::new(),
            problems: problems.into_vec(),
        });
    };
    let called = top.get("name").and_then(Value::as_str).unwrap_or_default();
    let name = name(top, &mut problems);
    let spec = spec(top, &mut problems);
    match (name, spec) {
        (Some(name), Some(spec)) if problems.is_empty() => Ok(Wanted { name, spec }),
        (name, _) => Err(Unreadable {
            name,
            called: called.chars().take(200).collect(),
            problems: problems.into_vec(),
        }),
    }
}

fn name(top: Object<'_>, problems: &mut Problems) -> Option<TaskName> {
    let path = top.path.key("name");
    let Some(text) = top.text("name", problems) else {
        if top.get("name").is_none() {
            problems.add(&path, "a task needs a name");
        }
        return None;
    };
    TaskName::parse(text)
        .map_err(|error| problems.add(&path, error.to_string()))
        .ok()
}

fn spec(top: Object<'_>, problems: &mut Problems) -> Option<TaskSpec> {
    let spec_path = top.path.key("spec");
    let under = top
        .get("spec")
        .and_then(|value| Object::of(value, &spec_path, problems));
    let both = Both { top, under };
    misspelt::check(top, &misspelt::TASK, problems);
    if let Some(under) = under {
        misspelt::check(under, &misspelt::SPEC, problems);
    }
    let work = work(both, problems);
    let mut limits = limits(both, problems);
    pod_limits(both, &mut limits, problems);
    limits.run = agreed_timeout(both, limits.run, problems);
    let labels = labels(both, problems);
    let priority = priority(both, problems);
    let runtime = runtime(both, problems);
    let retry = retry(both, problems);
    let confinement = confinement(both, problems);
    let config = config(both, problems);
    Some(TaskSpec {
        work: work?,
        runtime,
        labels,
        priority,
        limits,
        retry,
        confinement,
        config,
    })
}

/// The two places where a field may stand.
#[derive(Clone, Copy)]
pub(crate) struct Both<'a> {
    pub(crate) top: Object<'a>,
    under: Option<Object<'a>>,
}

impl<'a> Both<'a> {
    /// Where `key` is said: at the top, or under `spec`. Twice is fine, twice differently is not.
    pub(crate) fn holder(&self, key: &str, problems: &mut Problems) -> Option<Object<'a>> {
        let above = self.top.get(key);
        let below = self.under.and_then(|under| under.get(key));
        match (above, below) {
            (Some(above), Some(below)) if above != below => {
                let said = self.top.path.key(key);
                problems.add(
                    &said,
                    format!("contradicts {}: send one of them", below_name(self, key)),
                );
                Some(self.top)
            }
            (Some(_), _) => Some(self.top),
            (None, Some(_)) => self.under,
            (None, None) => None,
        }
    }
}

fn below_name(both: &Both<'_>, key: &str) -> String {
    let spec = both.top.path.key("spec");
    spec.key(key).pointer()
}

fn work(both: Both<'_>, problems: &mut Problems) -> Option<Work> {
    let process = process(both, problems);
    let container = both.under.filter(|under| under.get(CONTAINER).is_some());
    let pod = both.top.get(POD_TEMPLATE);
    let other = both.under.filter(|under| under.get(DOCUMENT).is_some());
    let given = [
        process.is_some(),
        container.is_some(),
        pod.is_some(),
        other.is_some(),
    ];
    match given.iter().filter(|one| **one).count() {
        0 => {
            nothing_to_run(both, problems);
            None
        }
        1 => match (process, container, pod, other) {
            (Some(process), ..) => process.map(Work::Process),
            (_, Some(under), ..) => container_document(under, problems),
            (_, _, Some(pod), _) => pod_document(both.top, pod, problems),
            (.., Some(under)) => other_document(under, problems),
            _ => None,
        },
        _ => {
            problems.add(
                both.top.path,
                "process, spec.container, spec.document and podTemplateSpec exclude each other: \
                 send one of them",
            );
            None
        }
    }
}

/// Says what is missing, or what stands where it is not read.
fn nothing_to_run(both: Both<'_>, problems: &mut Problems) {
    let (top, under) = (both.top, both.under);
    if top.get(CONTAINER).is_some() {
        let message =
            "nothing to run: a container belongs under spec, so send it as spec.container";
        return problems.add(&top.path.key(CONTAINER), message);
    }
    if let Some(under) = under.filter(|under| under.get(POD_TEMPLATE).is_some()) {
        let message = "nothing to run: podTemplateSpec belongs at the top level, beside name";
        return problems.add(&under.path.key(POD_TEMPLATE), message);
    }
    problems.add(
        top.path,
        "nothing to run: send spec.process (or process) with a command, spec.container, \
         spec.document, or podTemplateSpec",
    );
}

/// `None`: no process is given. `Some(None)`: one is, and it has problems.
fn process(both: Both<'_>, problems: &mut Problems) -> Option<Option<ProcessSpec>> {
    const KEY: &str = "process";
    let top_path = both.top.path.key(KEY);
    let top = both.top.get(KEY);
    let under_path = both.under.map(|under| under.path.key(KEY));
    let under = both.under.and_then(|under| under.get(KEY));
    let read = |value, path, problems: &mut Problems| process_spec(value, path, problems);
    match (top, under.zip(under_path.as_ref())) {
        (None, None) => None,
        (Some(value), None) => Some(read(value, &top_path, problems)),
        (None, Some((value, path))) => Some(read(value, path, problems)),
        (Some(above), Some((below, path))) => {
            let above = read(above, &top_path, problems);
            let below = read(below, path, problems);
            // A client that sends back what it was answered says the same thing twice.
            if above != below {
                let message = format!("contradicts {}: send one of them", path.pointer());
                problems.add(&top_path, message);
            }
            Some(above)
        }
    }
}

fn process_spec(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<ProcessSpec> {
    let object = Object::of(value, path, problems)?;
    misspelt::check(object, &misspelt::PROCESS, problems);
    let command_path = path.key("command");
    let command = object.texts("command", problems);
    let given = object.get("command").is_some_and(Value::is_array);
    match command.first() {
        None if given || object.get("command").is_none() => problems.add(
            &command_path,
            "must name a program: [\"sh\", \"-c\", \"...\"] for example",
        ),
        Some(program) if program.is_empty() => {
            problems.add(&command_path.index(0), "the program must not be empty");
        }
        _ => {}
    }
    let args = object.texts("args", problems);
    let env = env(object, ValueFrom::Refused, problems);
    let working_dir = object.text("workingDir", problems);
    let working_dir = working_dir.filter(|text| !text.is_empty());
    if working_dir.is_some_and(|text| text.contains('\0')) {
        problems.add(&path.key("workingDir"), "must not hold NUL");
    }
    check_words(&command, &command_path, problems);
    check_words(&args, &path.key("args"), problems);
    // Each costs something by itself, in the kernel and on the way to a component.
    let words = command.iter().chain(&args).map(|word| word.len() + 16);
    let variables = env.iter().map(|one| one.name.len() + one.value.len() + 16);
    let total: usize = words.chain(variables).sum();
    if total >= MOST_COMMAND_BYTES {
        problems.add(
            path,
            format!(
                "command, args and env have {total} bytes, 16 for each of them included; fewer than {MOST_COMMAND_BYTES} are \
                 allowed: put large data into a file"
            ),
        );
    }
    Some(ProcessSpec {
        command,
        args,
        env,
        working_dir: working_dir.map(str::to_owned),
    })
}

fn check_words(words: &[String], path: &Path<'_>, problems: &mut Problems) {
    for (index, word) in words.iter().enumerate() {
        if word.contains('\0') {
            problems.add(&path.index(index), "must not hold NUL");
        }
        if word.len() > MOST_ARGUMENT_BYTES {
            problems.add(
                &path.index(index),
                format!(
                    "has {} bytes, the kernel takes {MOST_ARGUMENT_BYTES} in one argument",
                    word.len()
                ),
            );
        }
    }
}

/// Who answers for `valueFrom`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueFrom {
    /// Nobody can resolve it.
    Refused,
    /// The runtime that takes the document.
    Runtime,
}

fn env(object: Object<'_>, value_from: ValueFrom, problems: &mut Problems) -> Vec<EnvVar> {
    let list_path = object.path.key("env");
    let list = object.list("env", problems).unwrap_or_default();
    let mut variables = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let path = list_path.index(index);
        let Some(entry) = Object::of(value, &path, problems) else {
            continue;
        };
        let name = entry.text("name", problems).unwrap_or_default();
        let value = entry.text("value", problems).unwrap_or_default();
        if value_from == ValueFrom::Refused && entry.get("valueFrom").is_some() {
            problems.add(
                &path.key("valueFrom"),
                "cannot be resolved here, and is not silently taken as empty: send a value",
            );
        }
        // The contract skips entries without a name.
        if name.is_empty() {
            continue;
        }
        if name.contains(['=', '\0']) {
            problems.add(&path.key("name"), "must not hold = or NUL");
        }
        if value.contains('\0') {
            problems.add(&path.key("value"), "must not hold NUL");
        }
        if name.len() + value.len() >= MOST_ARGUMENT_BYTES {
            problems.add(
                &path,
                format!("is longer than the {MOST_ARGUMENT_BYTES} bytes the kernel takes in one variable"),
            );
        }
        variables.push(EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    variables
}

/// Checks the shape of a container and keeps it as it is: what it means is its runtime's business.
fn container_document(under: Object<'_>, problems: &mut Problems) -> Option<Work> {
    let path = under.path.key(CONTAINER);
    let value = under.get(CONTAINER)?;
    let container = Object::of(value, &path, problems)?;
    if container.text("image", problems).is_none_or(str::is_empty) {
        problems.add(&path.key("image"), "must name an image");
    }
    // Clients of the first form send null here.
    let command = container.texts("command", problems);
    let args = container.texts("args", problems);
    let words = command.iter().chain(&args).map(|word| word.len() + 16);
    let total: usize = words.sum();
    if total >= MOST_COMMAND_BYTES {
        let message = format!(
            "command and args have {total} bytes; fewer than {MOST_COMMAND_BYTES} are allowed"
        );
        problems.add(&path, message);
    }
    check_words(&command, &path.key("command"), problems);
    check_words(&args, &path.key("args"), problems);
    env(container, ValueFrom::Runtime, problems);
    container.text("workingDir", problems);
    Some(document(CONTAINER, value))
}

fn pod_document(top: Object<'_>, value: &Value, problems: &mut Problems) -> Option<Work> {
    let path = top.path.key(POD_TEMPLATE);
    let pod = Object::of(value, &path, problems)?;
    let spec_path = path.key("spec");
    let containers = pod
        .get("spec")
        .and_then(|spec| Object::of(spec, &spec_path, problems))
        .and_then(|spec| spec.list("containers", problems));
    if containers.is_none_or(<[_]>::is_empty) {
        problems.add(
            &spec_path.key("containers"),
            "must hold at least one container",
        );
    }
    Some(document(POD_TEMPLATE, value))
}

/// Work of a kind that only its runtime knows: nothing is read of it here but its size.
fn other_document(under: Object<'_>, problems: &mut Problems) -> Option<Work> {
    let path = under.path.key(DOCUMENT);
    let object = Object::of(under.get(DOCUMENT)?, &path, problems)?;
    let kind = object.text("kind", problems).unwrap_or_default();
    let fits = !kind.is_empty()
        && kind.len() <= MOST_KIND_BYTES
        && kind.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    if !fits {
        problems.add(
            &path.key("kind"),
            "must be the kind of work, as a runtime describes it: letters, digits and -",
        );
    } else if ["process", CONTAINER, POD_TEMPLATE].contains(&kind) {
        problems.add(
            &path.key("kind"),
            format!("work of kind {kind} has a place of its own in a task"),
        );
    }
    let content = object.get("content").cloned().unwrap_or_default();
    let work = document(kind, &content);
    if let Work::Document { json, .. } = &work
        && json.len() >= MOST_COMMAND_BYTES
    {
        let message = format!(
            "has {} bytes; fewer than {MOST_COMMAND_BYTES} are allowed",
            json.len()
        );
        problems.add(&path.key("content"), message);
    }
    Some(work)
}

fn document(kind: &str, value: &Value) -> Work {
    Work::Document {
        kind: kind.to_owned(),
        json: value.to_string(),
    }
}

/// The run limit is said in up to five places; all that say it must say the same.
fn agreed_timeout(
    both: Both<'_>,
    from_limits: Option<Duration>,
    problems: &mut Problems,
) -> Option<Duration> {
    let top_process = both.top.path.key("process");
    let spec = both.top.path.key("spec");
    let under_process = spec.key("process");
    let process_below = both.under.and_then(|under| under.get("process"));
    let top = both
        .top
        .integer("timeoutSeconds", problems)
        .and_then(|seconds| {
            let place = both.top.path.key("timeoutSeconds");
            let limit = checked_timeout(seconds, &place, problems)?;
            Some((limit, place.pointer()))
        });
    let said = [
        top,
        timeout_in(both.top.get("spec"), &spec, problems),
        timeout_in(both.top.get("process"), &top_process, problems),
        timeout_in(process_below, &under_process, problems),
        from_limits.map(|limit| (limit, "limits.runSeconds".to_owned())),
    ];
    let mut agreed: Option<(Duration, String)> = None;
    for (limit, place) in said.into_iter().flatten() {
        match &agreed {
            Some((first, first_place)) if *first != limit => problems.add(
                both.top.path,
                format!("{first_place} and {place} contradict each other: send one of them"),
            ),
            Some(_) => {}
            None => agreed = Some((limit, place)),
        }
    }
    agreed.map(|(limit, _)| limit)
}

/// `timeoutSeconds` in one of its places, and that place as text. What is no object is told
/// where its other fields are read.
fn timeout_in(
    holder: Option<&Value>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<(Duration, String)> {
    const KEY: &str = "timeoutSeconds";
    let map = holder?.as_object()?;
    let seconds = Object { map, path }.integer(KEY, problems)?;
    let place = path.key(KEY);
    let limit = checked_timeout(seconds, &place, problems)?;
    Some((limit, place.pointer()))
}

fn checked_timeout(seconds: i64, path: &Path<'_>, problems: &mut Problems) -> Option<Duration> {
    match u64::try_from(seconds) {
        Ok(1..) if seconds <= MOST_SECONDS => Some(Duration::from_secs(seconds.unsigned_abs())),
        Ok(1..) => {
            problems.add(
                path,
                format!("is more than ten years ({MOST_SECONDS} s): leave it out for no limit"),
            );
            None
        }
        Ok(0) | Err(_) => {
            problems.add(path, "must be 1 or more: leave it out for no limit");
            None
        }
    }
}

fn limits(both: Both<'_>, problems: &mut Problems) -> TimeLimits {
    const KEY: &str = "limits";
    let mut limits = TimeLimits::default();
    let Some(holder) = both.holder(KEY, problems) else {
        return limits;
    };
    let path = holder.path.key(KEY);
    let Some(object) = holder
        .get(KEY)
        .and_then(|value| Object::of(value, &path, problems))
    else {
        return limits;
    };
    misspelt::check(object, &misspelt::LIMITS, problems);
    let mut limit = |key: &str| seconds(object, key, Least::AboveZero, problems);
    limits.queue = limit("queueSeconds");
    limits.start = limit("startSeconds");
    limits.idle = limit("idleSeconds");
    limits.run = limit("runSeconds");
    if let Some(grace) = seconds(object, "graceSeconds", Least::Zero, problems) {
        limits.grace = grace;
    }
    limits
}

#[derive(Clone, Copy)]
enum Least {
    Zero,
    AboveZero,
}

/// A time in seconds, with fractions down to a millisecond.
fn seconds(
    object: Object<'_>,
    key: &str,
    least: Least,
    problems: &mut Problems,
) -> Option<Duration> {
    let number = object.number(key, problems)?;
    let millis = (number * 1000.0).round();
    let (too_small, wanted) = match least {
        Least::Zero => (millis < 0.0, "must not be negative"),
        Least::AboveZero => (millis < 1.0, "must be above 0: leave it out for no limit"),
    };
    if too_small {
        problems.add(&object.path.key(key), wanted);
        return None;
    }
    if millis > MOST_SECONDS as f64 * 1000.0 {
        let message = format!("is more than ten years ({MOST_SECONDS} s)");
        problems.add(&object.path.key(key), message);
        return None;
    }
    Some(Duration::from_millis(millis as u64))
}

/// A pod says its run limit and its grace in words of its own; what the task says itself wins.
fn pod_limits(both: Both<'_>, limits: &mut TimeLimits, problems: &mut Problems) {
    let path = both.top.path.key(POD_TEMPLATE);
    let spec_path = path.key("spec");
    let pod = both.top.get(POD_TEMPLATE).and_then(Value::as_object);
    let spec = pod.and_then(|pod| pod.get("spec")?.as_object());
    let Some(map) = spec else {
        return;
    };
    let spec = Object {
        map,
        path: &spec_path,
    };
    let run = seconds(spec, "activeDeadlineSeconds", Least::AboveZero, problems);
    limits.run = limits.run.or(run);
    let grace = seconds(spec, "terminationGracePeriodSeconds", Least::Zero, problems);
    let says_itself = both.holder("limits", problems).is_some_and(|holder| {
        let limits = holder.get("limits").and_then(Value::as_object);
        limits.is_some_and(|limits| limits.get("graceSeconds").is_some_and(|one| !one.is_null()))
    });
    if let Some(grace) = grace
        && !says_itself
    {
        limits.grace = grace;
    }
}

/// What only the runtime understands, kept as it is.
fn config(both: Both<'_>, problems: &mut Problems) -> String {
    const KEY: &str = "config";
    let Some(holder) = both.holder(KEY, problems) else {
        return String::new();
    };
    let path = holder.path.key(KEY);
    let Some(value) = holder.get(KEY) else {
        return String::new();
    };
    if Object::of(value, &path, problems).is_none() {
        return String::new();
    }
    let text = value.to_string();
    if text.len() > MOST_CONFIG_BYTES {
        let message = format!("has {} bytes, {MOST_CONFIG_BYTES} are allowed", text.len());
        problems.add(&path, message);
    }
    text
}

fn labels(both: Both<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    const KEY: &str = "labels";
    let mut labels = BTreeMap::new();
    let Some(holder) = both.holder(KEY, problems) else {
        return labels;
    };
    let path = holder.path.key(KEY);
    let Some(object) = holder
        .get(KEY)
        .and_then(|value| Object::of(value, &path, problems))
    else {
        return labels;
    };
    if object.map.len() > MOST_LABELS {
        let message = format!(
            "has {} entries, {MOST_LABELS} are allowed",
            object.map.len()
        );
        problems.add(&path, message);
        return labels;
    }
    let (most_key, most_value) = MOST_LABEL_BYTES;
    for key in object.map.keys() {
        let Some(value) = object.text(key, problems) else {
            continue;
        };
        let selectable = !key.is_empty() && !key.contains([',', '=', '!']);
        if !selectable || key.len() > most_key {
            problems.add(
                &path.key(key),
                format!("a label's key has 1 to {most_key} bytes and no comma, = or !"),
            );
        }
        if value.len() > most_value {
            let message = format!("a label's value has at most {most_value} bytes");
            problems.add(&path.key(key), message);
        }
        labels.insert(key.clone(), value.to_owned());
    }
    labels
}

fn priority(both: Both<'_>, problems: &mut Problems) -> i32 {
    const KEY: &str = "priority";
    let Some(holder) = both.holder(KEY, problems) else {
        return 0;
    };
    let Some(number) = holder.integer(KEY, problems) else {
        return 0;
    };
    i32::try_from(number).unwrap_or_else(|_| {
        let message = format!("must be between {} and {}", i32::MIN, i32::MAX);
        problems.add(&holder.path.key(KEY), message);
        0
    })
}

fn runtime(both: Both<'_>, problems: &mut Problems) -> Option<RuntimeName> {
    const KEY: &str = "runtime";
    let holder = both.holder(KEY, problems)?;
    let text = holder.text(KEY, problems)?;
    RuntimeName::parse(text)
        .map_err(|error| problems.add(&holder.path.key(KEY), error.to_string()))
        .ok()
}

fn retry(both: Both<'_>, problems: &mut Problems) -> RetryPolicy {
    const KEY: &str = "retry";
    let mut policy = RetryPolicy::default();
    let Some(holder) = both.holder(KEY, problems) else {
        return policy;
    };
    let path = holder.path.key(KEY);
    let Some(object) = holder
        .get(KEY)
        .and_then(|value| Object::of(value, &path, problems))
    else {
        return policy;
    };
    misspelt::check(object, &misspelt::RETRY, problems);
    if let Some(attempts) = object.integer("maxAttempts", problems) {
        match u32::try_from(attempts) {
            Ok(number @ 1..) if attempts <= MOST_ATTEMPTS => policy.max_attempts = number,
            _ => problems.add(
                &path.key("maxAttempts"),
                format!("must be between 1 and {MOST_ATTEMPTS}"),
            ),
        }
    }
    if let Some(backoff) = seconds(object, "backoffSeconds", Least::Zero, problems) {
        policy.backoff = backoff;
        policy.max_backoff = policy.max_backoff.max(backoff);
    }
    if let Some(most) = seconds(object, "maxBackoffSeconds", Least::Zero, problems) {
        policy.max_backoff = most;
    }
    if object.get("on").is_some() {
        policy.on = object.texts("on", problems);
        let known = RetryPolicy::DEFAULT_CAUSES;
        for (index, cause) in policy.on.iter().enumerate() {
            if !known.contains(&cause.as_str()) {
                let message = format!("{cause:?} cannot be retried: {} can", known.join(", "));
                problems.add(&path.key("on").index(index), message);
            }
        }
    }
    policy
}
