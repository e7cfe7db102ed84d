//! A task described by flags, as `run` and `submit` take it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::Advise as _;
use crate::units::parse_duration;

/// What a task is to be.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskArgs {
    /// Its name; without one, a name is made from the program's
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A variable: NAME=VALUE, or NAME alone to pass on one's own; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A label: key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Where it starts; without one, in the task's own directory
    #[arg(short, long, value_name = "DIR", visible_alias = "workdir")]
    working_dir: Option<String>,
    /// How long it may run
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// How long it may wait for its turn
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    queue_timeout: Option<Duration>,
    /// How long it may take from launch to running
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    start_timeout: Option<Duration>,
    /// How long it may print nothing
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    idle_timeout: Option<Duration>,
    /// Time between TERM and KILL when it is stopped
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    /// Higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// How many attempts it has
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// The runtime to take it, instead of the one that takes commands
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

impl TaskArgs {
    /// A command and nothing else.
    pub(crate) fn of(command: &[&str]) -> Self {
        Self {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The task as the API takes it.
    ///
    /// # Errors
    /// When a word is malformed, or the command is missing.
    pub(crate) fn to_task(&self) -> anyhow::Result<Value> {
        let Some(program) = self.command.first() else {
            return Err(anyhow::anyhow!("there is no command"))
                .exit_with(crate::exit::Code::USAGE)
                .hint("write it after two dashes: taskwright run -- echo hello");
        };
        let name = self.name.clone().unwrap_or_else(|| made_name(program));
        let mut process = json!({ "command": self.command });
        insert(&mut process, "env", self.variables()?);
        insert(
            &mut process,
            "workingDir",
            self.working_dir.clone().map(Value::from),
        );
        let mut task = json!({ "name": name, "spec": { "process": process } });
        insert(&mut task, "labels", self.labels()?);
        insert(&mut task, "limits", self.limits());
        insert(&mut task, "priority", self.priority.map(Value::from));
        insert(&mut task, "runtime", self.runtime.clone().map(Value::from));
        insert(
            &mut task,
            "retry",
            self.attempts.map(|most| json!({ "maxAttempts": most })),
        );
        Ok(task)
    }

    fn variables(&self) -> anyhow::Result<Option<Value>> {
        let mut list = Vec::with_capacity(self.env.len());
        for word in &self.env {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => {
                    let own = std::env::var(word)
                        .with_context(|| format!("pass on the variable {word}"))
                        .exit_with(crate::exit::Code::USAGE)?;
                    (word.as_str(), own)
                }
            };
            list.push(json!({ "name": name, "value": value }));
        }
        Ok((!list.is_empty()).then_some(Value::Array(list)))
    }

    fn labels(&self) -> anyhow::Result<Option<Value>> {
        let mut labels = Map::new();
        for word in &self.label {
            let Some((key, value)) = word.split_once('=') else {
                return Err(anyhow::anyhow!("the label {word:?} is not key=value"))
                    .exit_with(crate::exit::Code::USAGE);
            };
            if labels.insert(key.to_owned(), value.into()).is_some() {
                bail!("the label {key:?} is given twice");
            }
        }
        Ok((!labels.is_empty()).then_some(Value::Object(labels)))
    }

    fn limits(&self) -> Option<Value> {
        let limits: Map<String, Value> = [
            ("queueSeconds", self.queue_timeout),
            ("startSeconds", self.start_timeout),
            ("idleSeconds", self.idle_timeout),
            ("runSeconds", self.timeout),
            ("graceSeconds", self.grace),
        ]
        .into_iter()
        .filter_map(|(key, limit)| Some((key.to_owned(), limit?.as_secs_f64().into())))
        .collect();
        (!limits.is_empty()).then_some(Value::Object(limits))
    }
}

fn insert(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(map), Some(value)) = (object.as_object_mut(), value) {
        map.insert(key.to_owned(), value);
    }
}

/// A name for a task that was given none: its program's, and enough to be the only one.
fn made_name(program: &str) -> String {
    let base = program.rsplit('/').next().unwrap_or_default();
    let plain: String = base
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(32)
        .collect();
    let plain = plain.trim_start_matches(['-', '_']);
    let stem = if plain.is_empty() { "task" } else { plain };
    let unique = uuid::Uuid::now_v7().as_u128() & 0xffff_ffff;
    format!("{stem}-{unique:08x}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn flags_become_a_task() {
        let args = TaskArgs {
            name: Some("a".into()),
            env: vec!["A=b=c".into()],
            label: vec!["team=x".into()],
            timeout: Some(Duration::from_millis(1500)),
            attempts: Some(3),
            command: vec!["sh".into(), "-c".into(), "true".into()],
            ..TaskArgs::default()
        };
        assert_eq!(
            args.to_task().unwrap(),
            json!({
                "name": "a",
                "labels": { "team": "x" },
                "limits": { "runSeconds": 1.5 },
                "retry": { "maxAttempts": 3 },
                "spec": { "process": {
                    "command": ["sh", "-c", "true"],
                    "env": [{ "name": "A", "value": "b=c" }],
                }},
            })
        );
    }

    #[test]
    fn made_names_are_names() {
        for program in ["/bin/sh", "./a b.sh", "--x", "日本", ""] {
            let name = made_name(program);
            assert!(taskwright_model::TaskName::parse(&name).is_ok(), "{name}");
        }
        assert_ne!(made_name("sh"), made_name("sh"));
    }

    #[test]
    fn a_task_without_a_command_is_refused() {
        assert!(TaskArgs::default().to_task().is_err());
    }
}
