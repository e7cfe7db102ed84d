//! A task as it is answered. Fields are read one by one: a daemon of another version may
//! know more of them, or fewer.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::exit::Code;
use crate::output::style::tame;
use crate::units::human_duration;

/// A task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskView<'a>(pub(crate) &'a Value);

/// How a task ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Whose doing it was: the model's word.
    pub(crate) cause: String,
    /// The main process's exit code, where that is known.
    pub(crate) exit_code: Option<u8>,
    /// The signal that ended the main process, if one did.
    pub(crate) signal: Option<i32>,
    /// The time limit that fired.
    pub(crate) limit: Option<String>,
    /// For people.
    pub(crate) message: Option<String>,
}

impl<'a> TaskView<'a> {
    fn text(self, pointer: &str) -> Option<&'a str> {
        self.0.pointer(pointer).and_then(Value::as_str)
    }

    fn time(self, pointer: &str) -> Option<Timestamp> {
        self.text(pointer)?.parse().ok()
    }

    /// Its name.
    pub(crate) fn name(self) -> &'a str {
        self.text("/name").unwrap_or_default()
    }

    /// Its id, never used again.
    pub(crate) fn id(self) -> &'a str {
        self.text("/id").unwrap_or_default()
    }

    /// Its state; `deleting` while it is being removed, `held` while policies hold it back.
    pub(crate) fn state(self) -> &'a str {
        if self.text("/deletionTimestamp").is_some() {
            return "deleting";
        }
        if self.hold().is_some() {
            return "held";
        }
        self.text("/state").unwrap_or("unknown")
    }

    /// Why policies hold it back, in a sentence with the next step.
    pub(crate) fn hold(self) -> Option<String> {
        let hold = self.0.pointer("/review/hold")?;
        let message = tame(hold.pointer("/message").and_then(Value::as_str)?);
        let name = tame(self.name());
        let policy = hold.pointer("/policies/0").and_then(Value::as_str);
        let policy = tame(policy.unwrap_or("unknown"));
        Some(match hold.pointer("/reason").and_then(Value::as_str) {
            Some("asked") => format!(
                "task {name} is held until somebody approves or denies it, as policy {policy} asks: {message}\n  hint: \
                 `taskwright approve {name}` or `taskwright deny {name}`"
            ),
            _ => format!(
                "task {name} is held until policy {policy} gives a verdict: {message}\n  hint: \
                 `taskwright explain {name}` and `taskwright plugin list` say more"
            ),
        })
    }

    /// What tells one hold from another: the same question, or the same silence, is one hold
    /// however often the policy is asked.
    pub(crate) fn hold_id(self) -> Option<String> {
        let hold = self.0.pointer("/review/hold")?;
        let part = |key: &str| hold.get(key).map(Value::to_string).unwrap_or_default();
        Some(["reason", "policies", "since"].map(part).join(" "))
    }

    /// Whether it has ended.
    pub(crate) fn is_ended(self) -> bool {
        self.text("/state") == Some("ended")
    }

    /// Whether an attempt has begun to run.
    pub(crate) fn is_running(self) -> bool {
        self.text("/state") == Some("running")
    }

    /// The runtime that takes it.
    pub(crate) fn runtime(self) -> &'a str {
        self.text("/runtime").unwrap_or_default()
    }

    /// When it was accepted.
    pub(crate) fn created_at(self) -> Option<Timestamp> {
        self.time("/createdAt")
    }

    fn attempts(self) -> &'a [Value] {
        let list = self.0.pointer("/attempts").and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    }

    /// How many attempts were made.
    pub(crate) fn attempt_count(self) -> usize {
        self.attempts().len()
    }

    fn last_attempt(self) -> Option<TaskView<'a>> {
        self.attempts().last().map(TaskView)
    }

    /// How long its newest attempt ran, or has been running.
    pub(crate) fn ran_for(self, now: Timestamp) -> Option<Duration> {
        let attempt = self.last_attempt()?;
        let begun = attempt.time("/startedAt")?;
        let ended = attempt.time("/finishedAt").unwrap_or(now);
        Some(between(begun, ended))
    }

    /// The main process of its newest attempt.
    pub(crate) fn pid(self) -> Option<u64> {
        self.last_attempt()?
            .0
            .pointer("/pid")
            .and_then(Value::as_u64)
    }

    /// Its labels, as `key=value`.
    pub(crate) fn labels(self) -> Vec<String> {
        let map = self.0.pointer("/labels").and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect()
    }

    /// Its command line, or the kind of work it is.
    pub(crate) fn command(self) -> String {
        let words = |pointer| {
            let list = self.0.pointer(pointer).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str)
        };
        let line: Vec<&str> = words("/spec/process/command")
            .chain(words("/spec/process/args"))
            .collect();
        if !line.is_empty() {
            return line.join(" ");
        }
        let image = self.text("/spec/container/image");
        let image = image.map(|image| format!("image {image}"));
        let kind = self.text("/spec/document/kind").map(str::to_owned);
        image.or(kind).unwrap_or_default()
    }

    /// Why it is not as it was asked for, in the answer to a set.
    pub(crate) fn problem(self) -> Option<&'a str> {
        self.text("/problem/message")
    }

    /// How it ended, if it did.
    pub(crate) fn ending(self) -> Option<Ending> {
        let outcome = TaskView(
            self.0
                .pointer("/outcome")
                .filter(|value| value.is_object())?,
        );
        let number = |pointer| outcome.0.pointer(pointer).and_then(Value::as_i64);
        Some(Ending {
            cause: outcome.text("/cause").unwrap_or("unknown").to_owned(),
            exit_code: number("/exitCode").and_then(|code| u8::try_from(code).ok()),
            signal: number("/signal").and_then(|signal| i32::try_from(signal).ok()),
            limit: outcome.text("/limit").map(str::to_owned),
            message: outcome.text("/message").map(str::to_owned),
        })
    }
}

/// The time from `begun` to `ended`; none when the clock went back.
pub(crate) fn between(begun: Timestamp, ended: Timestamp) -> Duration {
    ended.duration_since(begun).try_into().unwrap_or_default()
}

/// How long ago `then` was, for people.
pub(crate) fn ago(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map(|then| human_duration(between(then, now)))
        .unwrap_or_default()
}

impl Ending {
    /// Whether the command ended by itself with 0.
    pub(crate) fn is_success(&self) -> bool {
        self.cause == "exit" && self.exit_code == Some(0)
    }

    /// The code that `run` and `wait` end with. See [`crate::exit`].
    pub(crate) fn code(&self) -> Code {
        let own = match (self.exit_code, self.signal) {
            (Some(code), _) => Some(Code(code)),
            (None, Some(signal)) => Some(Code::signal(signal)),
            (None, None) => None,
        };
        match self.cause.as_str() {
            "exit" | "signal" => own.unwrap_or(Code::OURS),
            // What was starved need not be what ended: an end in success is none.
            "out-of-memory" => own
                .filter(|code| *code != Code::DONE)
                .unwrap_or(Code::signal(9)),
            "canceled" => own.unwrap_or(Code::CANCELED),
            "timeout" => Code::TIMEOUT,
            // denied, plugin-fault, infrastructure, lost, and what is not known yet.
            _ => Code::OURS,
        }
    }

    /// The cause in a few words, for people: `exit 3`, `signal 9`, `timeout (run)`.
    pub(crate) fn summary(&self) -> String {
        match (
            self.cause.as_str(),
            self.exit_code,
            self.signal,
            &self.limit,
        ) {
            ("exit", Some(code), ..) => format!("exit {code}"),
            ("signal", _, Some(signal), _) => format!("signal {signal}"),
            ("timeout", .., Some(limit)) => format!("timeout ({limit})"),
            (cause, ..) => cause.to_owned(),
        }
    }

    /// What to tell beside the exit code: whatever that code cannot say.
    pub(crate) fn remark(&self) -> Option<String> {
        match (self.cause.as_str(), &self.message) {
            ("exit", None) => None,
            ("exit", Some(message)) => Some(message.clone()),
            (_, Some(message)) => Some(format!("{}: {message}", self.summary())),
            (_, None) => Some(self.summary()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use serde_json::json;

    use super::*;

    fn check(outcome: Value, code: u8, summary: &str) {
        let task = json!({"name": "t", "state": "ended", "outcome": outcome});
        let ending = TaskView(&task).ending().unwrap();
        assert_eq!(
            (ending.code(), ending.summary().as_str()),
            (Code(code), summary),
            "{task}"
        );
    }

    #[test]
    fn a_task_that_ended_by_itself_gives_its_own_code() {
        check(json!({"cause": "exit", "exitCode": 0}), 0, "exit 0");
        check(json!({"cause": "exit", "exitCode": 3}), 3, "exit 3");
        check(
            json!({"cause": "out-of-memory", "exitCode": 0}),
            137,
            "out-of-memory",
        );
        check(
            json!({"cause": "exit", "exitCode": 127, "message": "no such program"}),
            127,
            "exit 127",
        );
        check(json!({"cause": "signal", "signal": 9}), 137, "signal 9");
    }

    #[test]
    fn limits_and_stops_are_told_apart() {
        check(
            json!({"cause": "timeout", "limit": "run", "signal": 15}),
            124,
            "timeout (run)",
        );
        check(json!({"cause": "canceled", "signal": 15}), 143, "canceled");
        check(json!({"cause": "canceled", "exitCode": 4}), 4, "canceled");
        check(json!({"cause": "canceled"}), 143, "canceled");
        check(json!({"cause": "out-of-memory"}), 137, "out-of-memory");
    }

    #[test]
    fn a_failure_of_ours_is_never_the_tasks() {
        for cause in [
            "denied",
            "plugin-fault",
            "infrastructure",
            "lost",
            "something-new",
        ] {
            check(json!({"cause": cause, "message": "why"}), 125, cause);
        }
    }
}
