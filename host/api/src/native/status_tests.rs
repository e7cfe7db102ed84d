//! Every line of what the contract says about states.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::time::Duration;

use serde_json::{Value, json};
use taskwright_model::{
    Attempt, AttemptNumber, Confinement, ExitStatus, Fault, Limit, Namespace, Outcome, Part,
    PartState, ProcessSpec, Remarks, RetryPolicy, RuntimeName, StopReason, Task, TaskId, TaskKey,
    TaskName, TaskSpec, TaskState, TimeLimits, Timestamp, Work,
};

use super::dto::{EnvValues, write_task};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_765_965_600_000 + seconds * 1000 + 789)
}

fn task(state: TaskState) -> Task {
    let spec = TaskSpec {
        work: Work::Process(ProcessSpec {
            command: vec!["true".into()],
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
        }),
        runtime: None,
        labels: Default::default(),
        priority: 0,
        limits: TimeLimits {
            queue: Some(Duration::from_millis(1500)),
            run: Some(Duration::from_secs(5)),
            ..TimeLimits::default()
        },
        retry: RetryPolicy::default(),
        confinement: Confinement::default(),
        config: String::new(),
    };
    let key = TaskKey {
        namespace: Namespace::native(),
        name: TaskName::parse("x").unwrap(),
    };
    let runtime = RuntimeName::parse("process").unwrap();
    let mut task = Task::new(TaskId::from_u128(1), key, spec.into(), runtime, at(0));
    task.state = state;
    task
}

fn attempt(number: u32, started_at: Option<Timestamp>, outcome: Option<Outcome>) -> Attempt {
    Attempt {
        number: AttemptNumber(number),
        launched_at: at(1),
        started_at,
        ended_at: outcome.is_some().then(|| at(8)),
        outcome,
        process: None,
        strategy_state: [].into(),
        remarks: Remarks::default(),
    }
}

fn json_of(task: &Task) -> Value {
    let mut bytes = Vec::new();
    write_task(&mut bytes, task, EnvValues::Shown, None);
    serde_json::from_slice(&bytes).unwrap()
}

/// A task that ran from second 2 to second 9 ends with `outcome`.
#[track_caller]
fn ends(outcome: Outcome, expected: Value, words: &str) {
    let mut task = task(TaskState::Ended {
        at: at(9),
        outcome: outcome.clone(),
    });
    task.attempts = vec![attempt(1, Some(at(2)), Some(outcome))];
    let found = json_of(&task);
    let mut terminated = found["processStatus"]["terminated"].clone();
    let message = terminated["message"].take();
    terminated.as_object_mut().unwrap().remove("message");
    let mut expected = expected;
    expected["startedAt"] = json!("2025-12-17T10:00:02Z");
    expected["finishedAt"] = json!("2025-12-17T10:00:09Z");
    assert_eq!(terminated, expected);
    let message = message.as_str().unwrap();
    assert!(message.contains(words), "{message:?} lacks {words:?}");
    assert_eq!(found["status"]["state"], found["processStatus"]);
}

fn timed_out(limit: Limit, exit: Option<ExitStatus>) -> Outcome {
    Outcome::TimedOut { limit, exit }
}

#[test]
fn ends_are_told_in_the_words_of_the_contract() {
    let exited = |code, message: Option<&str>| Outcome::Exited {
        code,
        message: message.map(str::to_owned),
    };
    ends(
        exited(0, None),
        json!({"exitCode": 0, "reason": "Succeeded"}),
        "completed successfully",
    );
    ends(
        exited(3, None),
        json!({"exitCode": 3, "reason": "Failed"}),
        "exit code 3",
    );
    ends(
        exited(127, Some("no such program")),
        json!({"exitCode": 127, "reason": "Failed"}),
        "no such program",
    );
    let signaled = Outcome::Signaled { signal: 9 };
    ends(
        signaled,
        json!({"exitCode": 137, "signal": 9, "reason": "Failed"}),
        "signal 9",
    );
    let killed = Outcome::OutOfMemory {
        exit: Some(ExitStatus::Signal(9)),
    };
    ends(
        killed,
        json!({"exitCode": 137, "signal": 9, "reason": "OOMKilled"}),
        "memory",
    );
    ends(
        Outcome::OutOfMemory { exit: None },
        json!({"exitCode": 137, "reason": "OOMKilled"}),
        "memory",
    );
}

#[test]
fn a_timeout_stays_one_and_tells_the_limit_and_the_real_end() {
    let expected = json!({"exitCode": 137, "reason": "TaskTimeout"});
    let term = Some(ExitStatus::Signal(15));
    ends(
        timed_out(Limit::Run, term),
        expected.clone(),
        "run limit of 5 seconds, and was ended by signal 15",
    );
    let three = Some(ExitStatus::Code(3));
    ends(
        timed_out(Limit::Run, three),
        expected.clone(),
        "exit code 3",
    );
    ends(
        timed_out(Limit::Queue, None),
        expected.clone(),
        "queue limit of 1.5 seconds",
    );
    ends(timed_out(Limit::Idle, None), expected, "printed nothing");
}

#[test]
fn what_is_not_the_commands_doing_has_a_reason_of_its_own() {
    let canceled = |exit| Outcome::Canceled { exit };
    ends(
        canceled(Some(ExitStatus::Code(0))),
        json!({"exitCode": 0, "reason": "Canceled"}),
        "on request",
    );
    ends(
        canceled(Some(ExitStatus::Signal(15))),
        json!({"exitCode": 143, "signal": 15, "reason": "Canceled"}),
        "on request",
    );
    ends(
        canceled(None),
        json!({"exitCode": 143, "reason": "Canceled"}),
        "on request",
    );
    let message = || "why".to_owned();
    for (outcome, reason) in [
        (Outcome::Lost { message: message() }, "Lost"),
        (
            Outcome::Infrastructure {
                fault: Fault::Machine,
                message: message(),
            },
            "Infrastructure",
        ),
        (
            Outcome::PluginFault {
                runtime: "p".into(),
                message: message(),
            },
            "PluginFault",
        ),
        (
            Outcome::Denied {
                policy: "p".into(),
                reason: message(),
            },
            "Denied",
        ),
    ] {
        ends(outcome, json!({"exitCode": 125, "reason": reason}), "why");
    }
    ends(
        Outcome::Lost {
            message: String::new(),
        },
        json!({"exitCode": 125, "reason": "Lost"}),
        "alive",
    );
}

#[test]
fn a_task_that_never_began_has_no_beginning() {
    let found = json_of(&task(TaskState::Ended {
        at: at(9),
        outcome: timed_out(Limit::Queue, None),
    }));
    let terminated = &found["processStatus"]["terminated"];
    assert!(terminated.as_object().unwrap().contains_key("startedAt"));
    assert_eq!(terminated["startedAt"], Value::Null);
    assert_eq!(terminated["finishedAt"], "2025-12-17T10:00:09Z");
    assert_eq!(found["attempts"], json!([]));
    assert_eq!(
        found["outcome"],
        json!({"cause": "timeout", "limit": "queue"})
    );
}

#[test]
fn waiting_says_what_for() {
    let found = json_of(&task(TaskState::Pending { not_before: None }));
    assert_eq!(
        found["processStatus"],
        json!({"waiting": {"reason": "Initialized", "message": "it waits for its turn"}})
    );
    assert_eq!(
        found["status"],
        json!({"state": found["processStatus"], "lastState": {}})
    );
    let found = json_of(&task(TaskState::Starting { since: at(1) }));
    assert_eq!(
        found["processStatus"]["waiting"]["message"],
        "it is being started"
    );
}

#[test]
fn running_and_stopping_are_running() {
    let running = json!({"running": {"startedAt": "2025-12-17T10:00:02Z"}});
    let mut one = task(TaskState::Running { since: at(2) });
    one.attempts = vec![attempt(1, Some(at(2)), None)];
    assert_eq!(json_of(&one)["processStatus"], running);
    one.state = TaskState::Stopping {
        since: at(5),
        reason: StopReason::Canceled,
        grace: Duration::from_secs(1),
    };
    let found = json_of(&one);
    assert_eq!(found["processStatus"], running);
    assert_eq!(found["state"], "stopping");
}

#[test]
fn a_retry_waits_and_its_last_end_is_told() {
    let failed = Outcome::Exited {
        code: 9,
        message: None,
    };
    let mut one = task(TaskState::Pending {
        not_before: Some(at(20)),
    });
    one.attempts = vec![attempt(1, Some(at(2)), Some(failed.clone()))];
    let found = json_of(&one);
    let message = found["processStatus"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(
        message.starts_with("attempt 2 is made at 2025-12-17T10:00:20"),
        "{message}"
    );
    let last = &found["status"]["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["finishedAt"]),
        (&json!(9), &json!("2025-12-17T10:00:08Z"))
    );
    one.state = TaskState::Running { since: at(21) };
    one.attempts.push(attempt(2, Some(at(21)), None));
    assert_eq!(
        json_of(&one)["status"]["lastState"]["terminated"]["exitCode"],
        9
    );
}

/// The states of a pod's containers, once its attempt that ran from second 2 has this outcome.
fn containers_at_the_end(outcome: Outcome, parts: Vec<PartState>) -> Vec<Value> {
    let mut one = task(TaskState::Ended {
        at: at(9),
        outcome: outcome.clone(),
    });
    let mut spec = TaskSpec::clone(&one.spec);
    spec.work = Work::Document {
        kind: "podTemplateSpec".to_owned(),
        json: "{}".into(),
    };
    one.spec = spec.into();
    let mut last = attempt(1, None, Some(outcome));
    let parts = parts.into_iter().map(|state| Part {
        name: "c".to_owned(),
        state,
    });
    last.remarks.parts = parts.collect();
    one.attempts = vec![last];
    let found = json_of(&one);
    let statuses = found["podStatus"]["containerStatuses"].as_array().unwrap();
    assert!(statuses.iter().all(|status| status["ready"] == false));
    assert_eq!(found["podStatus"]["phase"], "Failed");
    statuses.iter().map(|one| one["state"].clone()).collect()
}

#[test]
fn a_container_that_never_ran_waits_and_was_not_started() {
    let parts = || {
        vec![
            PartState::Waiting("PodInitializing".to_owned()),
            PartState::Running(at(3)),
        ]
    };
    let failed = Outcome::Exited {
        code: 4,
        message: Some("init container setup ended with exit code 4".to_owned()),
    };
    let states = containers_at_the_end(failed, parts());
    let waiting = json!({"waiting": {"reason": "PodInitializing", "message": ""}});
    assert_eq!(states[0], waiting);
    assert_eq!(states[1]["terminated"]["exitCode"], 4);

    // Nobody told of the parts' own ends.
    let fault = Outcome::PluginFault {
        runtime: "container".to_owned(),
        message: "it trapped".to_owned(),
    };
    for state in containers_at_the_end(fault, parts()) {
        assert_eq!(state["terminated"]["reason"], "PluginFault");
    }
}

#[test]
fn our_own_fields_stand_beside() {
    let mut one = task(TaskState::Running { since: at(2) });
    one.deleting_since = Some(at(3));
    one.attempts = vec![attempt(1, Some(at(2)), None)];
    let found = json_of(&one);
    assert_eq!(found["id"], "00000000-0000-0000-0000-000000000001");
    assert_eq!(found["namespace"], "default");
    assert_eq!(found["runtime"], "process");
    assert_eq!(found["createdAt"], "2025-12-17T10:00:00.789Z");
    assert_eq!(found["deletionTimestamp"], "2025-12-17T10:00:03Z");
    assert_eq!(
        found["limits"],
        json!({"queueSeconds": 1.5, "runSeconds": 5, "graceSeconds": 10})
    );
    assert_eq!(
        found["attempts"][0]["startedAt"],
        "2025-12-17T10:00:02.789Z"
    );
    assert_eq!(
        found["spec"],
        json!({"process": {"command": ["true"]}, "timeoutSeconds": 5})
    );
    assert_eq!(
        found["process"],
        json!({"command": ["true"], "timeoutSeconds": 5})
    );
}

#[test]
fn absurd_times_are_still_times() {
    let one = task(TaskState::Running {
        since: Timestamp::from_millis(i64::MAX),
    });
    assert!(json_of(&one)["processStatus"]["running"]["startedAt"].is_string());
}
