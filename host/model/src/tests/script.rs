//! A small language for tests: `running; stop; exit 7` gives `ended(canceled, exit 7); release 1, tell ended`.
//!
//! The first word is the state to begin in, the others are events. What comes
//! out is the state after the last event, and the effects of that event alone.

use std::sync::Arc;
use std::time::Duration;

use crate::deadline::Due;
use crate::id::{AttemptNumber, Namespace, RuntimeName, TaskId, TaskKey, TaskName};
use crate::state::apply;
use crate::{
    Answer, Decision, Effect, Event, ExitStatus, Happening, Hold, Limit, Outcome, ProcessSpec,
    RetryPolicy, Round, Stage, StopReason, Task, TaskSpec, TaskState, TimeLimits, Timestamp, Work,
};

/// Every word for an event, so that a test can try them all.
pub(super) const EVENTS: [&str; 24] = [
    "launch",
    "started",
    "progress",
    "exit 7",
    "lost",
    "other-exit",
    "stop",
    "stop 3",
    "delete",
    "due queue",
    "due start",
    "due idle",
    "due run",
    "due retry",
    "due idle-check",
    "due overdue",
    "other-started",
    "reviewed pass",
    "reviewed deny",
    "reviewed ask",
    "reviewed silent",
    "answer yes",
    "answer no",
    "due answer",
];

/// Every word for a state to begin in.
pub(super) const STATES: [&str; 9] = [
    "pending", "asked", "silent", "starting", "running", "stopping", "timed", "deleting", "ended",
];

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(super) fn spec(retry: RetryPolicy) -> TaskSpec {
    TaskSpec {
        work: Work::Process(ProcessSpec {
            command: vec!["true".into()],
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
        }),
        runtime: None,
        labels: [].into(),
        priority: 0,
        limits: TimeLimits::default(),
        retry,
        confinement: crate::Confinement::default(),
        config: String::new(),
    }
}

pub(super) fn attempts(most: u32) -> RetryPolicy {
    RetryPolicy {
        max_attempts: most,
        ..RetryPolicy::default()
    }
}

pub(super) fn task(spec: TaskSpec) -> Task {
    let key = TaskKey {
        namespace: Namespace::native(),
        name: TaskName::parse("build-7").unwrap(),
    };
    let runtime = RuntimeName::parse("process").unwrap();
    Task::new(TaskId::from_u128(7), key, Arc::new(spec), runtime, at(0))
}

/// Checks that `script`, said to a task that is tried once, comes out as `expected`.
pub(super) fn check(script: &str, expected: &str) {
    check_with(attempts(1), script, expected);
}

/// The same for a task with this retry policy.
pub(super) fn check_with(retry: RetryPolicy, script: &str, expected: &str) {
    assert_eq!(play(retry, script), expected, "after `{script}`");
}

/// Plays a script and says what came out of it.
pub(super) fn play(retry: RetryPolicy, script: &str) -> String {
    let mut words = script.split(';').map(str::trim);
    let before: &[&str] = match words.next().unwrap() {
        "pending" => &[],
        "asked" => &["reviewed ask"],
        "silent" => &["reviewed silent"],
        "starting" => &["launch"],
        "running" => &["launch", "started"],
        "stopping" => &["launch", "started", "stop"],
        "timed" => &["launch", "started", "due run"],
        "deleting" => &["launch", "started", "delete"],
        "ended" => &["launch", "started", "exit 0"],
        other => panic!("no such state to begin in: {other}"),
    };
    let mut task = task(spec(retry));
    let mut answer = String::new();
    for (second, word) in (1..).zip(before.iter().copied().chain(words)) {
        answer = match apply(&task, &event(&task, word), at(second)) {
            Ok((next, effects)) => {
                let unchanged = if next == task { "unchanged " } else { "" };
                task = next;
                let told: Vec<String> = effects.iter().map(say_effect).collect();
                let semicolon = if told.is_empty() { "" } else { "; " };
                format!(
                    "{unchanged}{}{semicolon}{}",
                    say_state(&task),
                    told.join(", ")
                )
            }
            Err(refusal) => format!("refused: {refusal:?}"),
        };
    }
    answer
}

fn event(task: &Task, word: &str) -> Event {
    let attempt = task
        .attempt()
        .map_or(AttemptNumber(1), |attempt| attempt.number);
    let other = AttemptNumber(attempt.0 + 1);
    let exited = |code| Outcome::Exited {
        code,
        message: None,
    };
    let (verb, number) = word.split_once(' ').unwrap_or((word, ""));
    match verb {
        "launch" => Event::Launched,
        "started" | "other-started" => Event::Started {
            attempt: if verb == "started" { attempt } else { other },
            process: None,
            strategy_state: b"kept".as_slice().into(),
            remarks: crate::Remarks::default(),
        },
        "progress" => Event::Progressed {
            attempt,
            strategy_state: b"more".as_slice().into(),
            remarks: crate::Remarks::default(),
        },
        "exit" => Event::AttemptEnded {
            remarks: crate::Remarks::default(),
            attempt,
            outcome: exited(number.parse().unwrap()),
        },
        "other-exit" => Event::AttemptEnded {
            remarks: crate::Remarks::default(),
            attempt: other,
            outcome: exited(0),
        },
        "lost" => Event::AttemptEnded {
            remarks: crate::Remarks::default(),
            attempt,
            outcome: Outcome::Lost {
                message: String::new(),
            },
        },
        "stop" => Event::StopRequested {
            grace: number.parse().ok().map(Duration::from_secs),
        },
        "delete" => Event::DeleteRequested,
        "due" => Event::Due(match number {
            "queue" => Due::Limit(Limit::Queue),
            "start" => Due::Limit(Limit::Start),
            "idle" => Due::Limit(Limit::Idle),
            "run" => Due::Limit(Limit::Run),
            "retry" => Due::Retry,
            "idle-check" => Due::IdleCheck,
            "overdue" => Due::StopOverdue,
            "answer" => Due::Answer,
            other => panic!("nothing is ever due as {other}"),
        }),
        "reviewed" => Event::Reviewed(Box::new(round(number))),
        "answer" => Event::Answered {
            answer: match number {
                "yes" => Answer::Approve,
                _ => Answer::Deny,
            },
            by: "ann".to_owned(),
            reason: String::new(),
        },
        other => panic!("no such event: {other}"),
    }
}

/// What a policy that is called strict makes of a task.
pub(super) fn round(word: &str) -> Round {
    let policy = "strict".to_owned();
    let decision = match word {
        "pass" => Decision::Pass,
        "deny" => Decision::Deny {
            policy,
            reason: String::new(),
            field: String::new(),
        },
        "ask" => Decision::Ask {
            policies: vec![policy],
            question: String::new(),
            within: Duration::from_secs(60),
            otherwise: Answer::Deny,
        },
        "silent" => Decision::Retry {
            policy,
            message: String::new(),
            stage: Stage::Launch,
        },
        other => panic!("no such decision: {other}"),
    };
    Round {
        verdicts: Vec::new(),
        changed: None,
        decision,
    }
}

fn say_state(task: &Task) -> String {
    let wish = if task.deleting_since.is_some() {
        "+delete"
    } else {
        ""
    };
    let state = match &task.state {
        TaskState::Pending { .. } if matches!(task.hold(), Some(Hold::Asked { .. })) => {
            "asked".to_owned()
        }
        TaskState::Pending { not_before } if task.hold().is_some() => match not_before {
            Some(_) => "silent".to_owned(),
            None => "silent, due".to_owned(),
        },
        TaskState::Pending { not_before: None } => "pending".to_owned(),
        TaskState::Pending {
            not_before: Some(_),
        } => "waiting".to_owned(),
        TaskState::Starting { .. } => "starting".to_owned(),
        TaskState::Running { .. } => "running".to_owned(),
        TaskState::Stopping { reason, grace, .. } => {
            let reason = match reason {
                StopReason::Canceled => "canceled",
                StopReason::TimedOut(limit) => limit.as_str(),
            };
            format!("stopping({reason}, {}s)", grace.as_secs())
        }
        TaskState::Ended { outcome, .. } => format!("ended({})", say_outcome(outcome)),
    };
    format!("{state}{wish}")
}

fn say_outcome(outcome: &Outcome) -> String {
    let exit = match outcome.exit() {
        Some(ExitStatus::Code(code)) => format!("exit {code}"),
        Some(ExitStatus::Signal(signal)) => format!("signal {signal}"),
        None => String::new(),
    };
    match outcome {
        Outcome::Exited { .. } | Outcome::Signaled { .. } => exit,
        Outcome::TimedOut { limit, .. } => {
            let words = [limit.as_str(), "timeout", &exit];
            words.join(" ").trim_end().to_owned()
        }
        other => format!("{} {exit}", other.cause()).trim_end().to_owned(),
    }
}

fn say_effect(effect: &Effect) -> String {
    match effect {
        Effect::Start(attempt) => format!("start {attempt}"),
        Effect::Stop { attempt, grace } => format!("stop {attempt} {}s", grace.as_secs()),
        Effect::Terminate(attempt) => format!("terminate {attempt}"),
        Effect::Release(attempt) => format!("release {attempt}"),
        Effect::Remove => "remove".to_owned(),
        Effect::Tell(Happening::Ended(_)) => "tell ended".to_owned(),
        Effect::Tell(happening) => format!("tell {}", happening.as_str()),
    }
}
