//! Time limits, queueing, priorities, retries.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat, message, reason, shell, state};
use taskwright_tests::{Daemon, Options, SOON, eventually, processes, reaper};

fn with(mut task: Value, field: &str, value: Value) -> Value {
    task[field] = value;
    task
}

fn outcome(task: &Value) -> (&str, &str) {
    let outcome = &task["outcome"];
    (
        outcome["cause"].as_str().unwrap_or_default(),
        outcome["limit"].as_str().unwrap_or_default(),
    )
}

#[test]
fn a_task_that_runs_too_long_is_stopped_and_says_so_for_ever() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    // Both places where the contract says it.
    let flat_form =
        json!({"name": "flat", "process": {"command": ["sleep", "60"], "timeoutSeconds": 1}});
    let nested_form = json!({"name": "nested", "spec": {"process": {"command": ["sleep", "60"]}, "timeoutSeconds": 1}});
    let begun = Instant::now();
    client.submit(&flat_form);
    client.submit(&nested_form);
    for name in ["flat", "nested"] {
        let ended = client.until_ended(name, SOON);
        assert!(begun.elapsed() >= Duration::from_millis(900));
        assert_eq!(outcome(&ended), ("timeout", "run"));
        assert_eq!(
            (exit_code(&ended), reason(&ended).as_str()),
            (137, "TaskTimeout")
        );
        assert!(message(&ended).contains("1 seconds"), "{}", message(&ended));
        assert_eq!(
            ended["outcome"]["signal"], 15,
            "how it really ended is told too"
        );
    }
    let before = client.get("/getTasks").json();
    daemon.kill();
    daemon.start_again();
    assert_eq!(
        client.get("/getTasks").json(),
        before,
        "the reason and its time stay"
    );
}

#[test]
fn a_task_in_time_is_left_alone() {
    let daemon = Daemon::start();
    let body = json!({"name": "quick", "process": {"command": ["sh", "-c", "exit 3"], "timeoutSeconds": 30}});
    assert_eq!(exit_code(&daemon.client().run(&body)), 3);
}

#[test]
fn a_silent_task_meets_its_idle_limit_and_a_talking_one_does_not() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let limits = json!({"idleSeconds": 1});
    client.submit(&with(
        shell("silent", "echo once; sleep 60"),
        "limits",
        limits.clone(),
    ));
    let talking = "for i in 1 2 3 4 5 6; do echo $i >&2; sleep 0.4; done; exit 5";
    client.submit(&with(shell("talking", talking), "limits", limits));
    let silent = client.until_ended("silent", SOON);
    assert_eq!(outcome(&silent), ("timeout", "idle"));
    assert_eq!(reason(&silent), "TaskTimeout");
    assert_eq!(exit_code(&client.until_ended("talking", SOON)), 5);
}

#[test]
fn a_task_that_waits_too_long_for_its_turn_never_runs() {
    let daemon = Options::new().flag("--max-running=1").start();
    let client = daemon.client();
    client.submit(&flat("first", &["sleep", "60"]));
    client.until_state("first", "running", SOON);
    let marker = daemon.home().path().join("ran");
    let body = shell("second", &format!("touch {}", marker.display()));
    client.submit(&with(body, "limits", json!({"queueSeconds": 0.5})));
    let ended = client.until_ended("second", SOON);
    assert_eq!(outcome(&ended), ("timeout", "queue"));
    assert_eq!(ended["attempts"], json!([]));
    client.delete("/tasks/first").expect(204);
    client.until_gone("first", SOON);
    assert!(!marker.exists());
}

#[test]
fn a_start_that_takes_too_long_is_ended_and_leaves_nothing_running() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&flat("before", &["true"]));
    // Whoever starts processes hears nothing: an overloaded machine, at its worst.
    let supervisor = daemon.supervisor();
    reaper::send(supervisor.pid, Signal::STOP);
    let body = shell("late", "echo $$ > pid; exec sleep 600");
    client.submit(&with(body, "limits", json!({"startSeconds": 0.5})));
    let ended = client.until_ended("late", SOON);
    reaper::send(supervisor.pid, Signal::CONT);
    assert_eq!(outcome(&ended), ("timeout", "start"));
    assert_eq!(reason(&ended), "TaskTimeout");
    // The order to start it was on its way: it is started, found out, and killed; or never.
    client.run(&flat("after", &["true"]));
    eventually(SOON, "nothing of it lives", || {
        let text = std::fs::read_to_string(daemon.task_file("late", "pid")).unwrap_or_default();
        text.trim()
            .parse()
            .map_or(true, |pid| !processes::is_alive(pid))
    });
    assert_eq!(client.task("late")["outcome"], ended["outcome"]);
}

#[test]
fn a_start_limit_does_not_touch_a_task_that_started() {
    let daemon = Daemon::start();
    let body = with(
        shell("started", "sleep 1; exit 4"),
        "limits",
        json!({"startSeconds": 0.5}),
    );
    let ended = daemon.client().run(&body);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 4}));
}

#[test]
fn one_at_a_time_runs_them_in_order() {
    let daemon = Options::new().flag("--max-running=1").start();
    let client = daemon.client();
    let log = daemon.home().path().join("log");
    let log = log.to_str().unwrap();
    for index in 0..6 {
        let script = format!("echo begin {index} >> {log}; sleep 0.1; echo end {index} >> {log}");
        client.submit(&shell(&format!("t-{index}"), &script));
    }
    assert_eq!(state(&client.task("t-5")), "waiting");
    let waiting = client.task("t-5");
    assert_eq!(reason(&waiting), "Initialized");
    client.until_ended("t-5", SOON);
    let expected: String = (0..6)
        .map(|index| format!("begin {index}\nend {index}\n"))
        .collect();
    assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
}

#[test]
fn the_number_running_at_once_is_kept() {
    let daemon = Options::new().flag("--max-running=3").start();
    let client = daemon.client();
    for index in 0..8 {
        client.submit(&flat(&format!("t-{index}"), &["sleep", "0.4"]));
    }
    let mut most = 0;
    eventually(SOON, "all have ended", || {
        let list = client.get("/getTasks").json();
        let states: Vec<&str> = list.as_array().unwrap().iter().map(state).collect();
        let running = daemon.home().task_processes().len();
        most = most.max(running);
        states.iter().all(|state| *state == "terminated")
    });
    assert!((1..=3).contains(&most), "{most} ran at once");
}

#[test]
fn higher_priorities_go_first() {
    let daemon = Options::new().flag("--max-running=1").start();
    let client = daemon.client();
    let log = daemon.home().path().join("log");
    client.submit(&flat("plug", &["sleep", "60"]));
    client.until_state("plug", "running", SOON);
    for (name, priority) in [("low", -5), ("normal", 0), ("high", 10), ("normal-2", 0)] {
        let body = shell(name, &format!("echo {name} >> {}", log.display()));
        client.submit(&with(body, "priority", json!(priority)));
    }
    client.delete("/tasks/plug").expect(204);
    client.until_ended("low", SOON);
    assert_eq!(
        std::fs::read_to_string(&log).unwrap(),
        "high\nnormal\nnormal-2\nlow\n"
    );
}

#[test]
fn a_failed_attempt_is_kept_and_followed_by_another() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let script = "echo attempt $TASKWRIGHT_ATTEMPT; [ $TASKWRIGHT_ATTEMPT = 3 ] && exit 0; exit 7";
    let retry = json!({"maxAttempts": 5, "backoffSeconds": 0.05});
    let ended = client.run(&with(shell("again", script), "retry", retry));
    assert_eq!(exit_code(&ended), 0);
    let attempts = ended["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    for (index, attempt) in attempts.iter().enumerate() {
        assert_eq!(attempt["number"], index + 1);
        assert_eq!(
            attempt["outcome"]["exitCode"],
            if index == 2 { 0 } else { 7 }
        );
    }
    assert_eq!(ended["status"]["lastState"]["terminated"]["exitCode"], 7);
    let printed = client.get("/tasks/again/logs").expect(200).text();
    assert_eq!(printed, "attempt 1\nattempt 2\nattempt 3\n");
}

#[test]
fn attempts_end_at_their_number_and_causes_decide() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let attempts = |task: &Value| task["attempts"].as_array().unwrap().len();
    let twice = with(
        shell("twice", "exit 9"),
        "retry",
        json!({"maxAttempts": 2, "backoffSeconds": 0}),
    );
    let ended = client.run(&twice);
    assert_eq!((exit_code(&ended), attempts(&ended)), (9, 2));

    let only_timeouts = json!({"maxAttempts": 3, "backoffSeconds": 0, "on": ["timeout"]});
    let ended = client.run(&with(shell("no", "exit 9"), "retry", only_timeouts.clone()));
    assert_eq!(attempts(&ended), 1);
    let slow = with(flat("yes", &["sleep", "60"]), "retry", only_timeouts);
    let ended = client.run(&with(slow, "limits", json!({"runSeconds": 0.2})));
    assert_eq!((outcome(&ended), attempts(&ended)), (("timeout", "run"), 3));
}

#[test]
fn a_stopped_task_is_not_tried_again() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let retry = json!({"maxAttempts": 5, "backoffSeconds": 0});
    client.submit(&with(
        flat("stopped", &["sleep", "60"]),
        "retry",
        retry.clone(),
    ));
    client.until_state("stopped", "running", SOON);
    client.post("/tasks/stopped/stop", &json!({})).expect(200);
    let ended = client.until_ended("stopped", SOON);
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
    // Between two attempts it is stopped too.
    let long = json!({"maxAttempts": 2, "backoffSeconds": 600, "maxBackoffSeconds": 600});
    client.submit(&with(shell("between", "exit 1"), "retry", long));
    eventually(SOON, "it waits for its second attempt", || {
        let task = client.task("between");
        state(&task) == "waiting" && task["attempts"].as_array().unwrap().len() == 1
    });
    client.post("/tasks/between/stop", &json!({})).expect(200);
    assert_eq!(outcome(&client.until_ended("between", SOON)).0, "canceled");
}

#[test]
fn more_tasks_than_are_kept_are_refused_until_there_is_room() {
    let daemon = Options::new().flag("--max-tasks=2").start();
    let client = daemon.client();
    client.run(&flat("one", &["true"]));
    client.run(&flat("two", &["true"]));
    let refused = client.post("/tasks", &flat("three", &["true"])).expect(429);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["code"], "Too Many Requests");
    client.delete("/tasks/one").expect(204);
    client.until_gone("one", SOON);
    assert_eq!(exit_code(&client.run(&flat("three", &["true"]))), 0);
}
