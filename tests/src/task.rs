//! Bodies to send, and what to read in answers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::eventually_some;

/// A task that runs a shell script, in the flat form of released clients.
#[must_use]
pub fn shell(name: &str, script: &str) -> Value {
    flat(name, &["/bin/sh", "-c", script])
}

/// A task that runs a command, in the flat form of released clients.
#[must_use]
pub fn flat(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "process": {"command": command}})
}

/// A task that runs a command, in the form of the guide.
#[must_use]
pub fn nested(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "spec": {"process": {"command": command}}})
}

/// Which of the three states an answer shows.
#[must_use]
pub fn state(task: &Value) -> &'static str {
    let state = &task["status"]["state"];
    let shown: Vec<&'static str> = ["waiting", "running", "terminated"]
        .into_iter()
        .filter(|word| !state[*word].is_null())
        .collect();
    match shown.as_slice() {
        [only] => only,
        other => panic!("{} states are shown, not one: {task:#}", other.len()),
    }
}

/// The exit code of a task that has ended.
#[must_use]
pub fn exit_code(task: &Value) -> i64 {
    match task["status"]["state"]["terminated"]["exitCode"].as_i64() {
        Some(code) => code,
        None => panic!("no exit code: {task:#}"),
    }
}

/// The reason of the state that is shown.
#[must_use]
pub fn reason(task: &Value) -> String {
    let state = &task["status"]["state"][state(task)];
    state["reason"].as_str().unwrap_or_default().to_owned()
}

/// The message of the state that is shown.
#[must_use]
pub fn message(task: &Value) -> String {
    let state = &task["status"]["state"][state(task)];
    state["message"].as_str().unwrap_or_default().to_owned()
}

/// The name of a task.
#[must_use]
pub fn name(task: &Value) -> &str {
    task["name"].as_str().unwrap_or_default()
}

/// The names of a list of tasks, in its order.
#[must_use]
pub fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(name).collect()
}

impl Client {
    /// Submits a task, which must be accepted; answers with it.
    #[track_caller]
    pub fn submit(&self, task: &Value) -> Value {
        self.post("/tasks", task).expect(201).json()
    }

    /// The task as it is now.
    #[track_caller]
    pub fn task(&self, name: &str) -> Value {
        self.get(&format!("/tasks/{name}")).expect(200).json()
    }

    /// The task once it shows that state.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    #[track_caller]
    pub fn until_state(&self, name: &str, wanted: &str, deadline: Duration) -> Value {
        let mut last = Value::Null;
        let what = format!("{name} is {wanted}");
        eventually_some(deadline, &what, || {
            last = self.task(name);
            (state(&last) == wanted).then(|| last.clone())
        })
    }

    /// The task once it has ended.
    #[track_caller]
    pub fn until_ended(&self, name: &str, deadline: Duration) -> Value {
        self.until_state(name, "terminated", deadline)
    }

    /// The task once policies hold it back.
    #[track_caller]
    pub fn until_held(&self, name: &str) -> Value {
        let what = format!("{name} is held");
        crate::eventually_some(crate::SOON, &what, || {
            let task = self.get(&format!("/tasks/{name}")).json();
            task.pointer("/review/hold").is_some().then_some(task)
        })
    }

    /// Submits a task and waits for its end.
    #[track_caller]
    pub fn run(&self, task: &Value) -> Value {
        self.submit(task);
        self.until_ended(name(task), crate::SOON)
    }

    /// Waits until a task is neither on record nor listed.
    #[track_caller]
    pub fn until_gone(&self, name: &str, deadline: Duration) {
        let what = format!("{name} is gone");
        crate::eventually(deadline, &what, || {
            self.get(&format!("/tasks/{name}")).status == 404
        });
    }
}
