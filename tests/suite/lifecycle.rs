//! A task's life over HTTP: from its submission to its end, told truthfully.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::task::{self, exit_code, flat, message, nested, reason, shell, state};
use taskwright_tests::{Daemon, Options, SOON, eventually, processes};

#[test]
fn a_posted_task_runs_to_its_end_in_both_forms() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for body in [nested("guide", &["true"]), flat("flat", &["true"])] {
        let created = client.post("/tasks", &body).expect(201);
        assert_eq!(created.header("content-type"), Some("application/json"));
        assert!(created.body.ends_with(b"\n"), "answers end in a newline");
        let ended = client.until_ended(task::name(&body), SOON);
        assert_eq!(
            (exit_code(&ended), reason(&ended).as_str()),
            (0, "Succeeded")
        );
    }
}

#[test]
fn every_answer_is_the_union_of_both_forms() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let wanted = json!({
        "name": "union",
        "status": {"state": {}, "lastState": {}},
        "spec": {
            "process": {
                "command": ["sh", "-c"], "args": ["exit 3"],
                "env": [{"name": "A", "value": "b"}], "workingDir": "/",
            },
            "timeoutSeconds": 30,
        },
        "somethingNew": {"of": "a later version"},
    });
    client.submit(&wanted);
    let ended = client.until_ended("union", SOON);
    let listed = client.get("/getTasks").expect(200).json();
    assert_eq!(listed, json!([ended]), "both calls tell the same");

    let process = &ended["process"];
    assert_eq!(process["command"], json!(["sh", "-c"]));
    assert_eq!(process["args"], json!(["exit 3"]));
    assert_eq!(process["env"], json!([{"name": "A", "value": "b"}]));
    assert_eq!(process["workingDir"], "/");
    assert_eq!(process["timeoutSeconds"], 30);
    assert_eq!(ended["spec"]["timeoutSeconds"], 30);
    for field in ["command", "args", "env", "workingDir"] {
        assert_eq!(ended["spec"]["process"][field], process[field]);
    }
    assert_eq!(ended["processStatus"], ended["status"]["state"]);
    let terminated = &ended["processStatus"]["terminated"];
    assert_eq!(terminated["exitCode"], 3);
    assert_eq!(terminated["reason"], "Failed");
    for time in ["startedAt", "finishedAt"] {
        let text = terminated[time].as_str().unwrap();
        // 2026-01-02T03:04:05Z
        assert!(
            text.len() == 20 && text.ends_with('Z'),
            "whole seconds of UTC: {text}"
        );
    }
    assert_eq!(
        ended["somethingNew"],
        Value::Null,
        "what is unknown is kept out"
    );
    assert_eq!(ended["deletionTimestamp"], Value::Null);
    assert_eq!(ended["outcome"], json!({"cause": "exit", "exitCode": 3}));
}

#[test]
fn exit_codes_are_told_as_they_are() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let codes = [
        0, 1, 2, 3, 42, 99, 124, 125, 126, 127, 128, 137, 143, 254, 255,
    ];
    for code in codes {
        client.submit(&shell(&format!("exit-{code}"), &format!("exit {code}")));
    }
    for code in codes {
        let ended = client.until_ended(&format!("exit-{code}"), SOON);
        assert_eq!(exit_code(&ended), code);
        assert_eq!(
            reason(&ended),
            if code == 0 { "Succeeded" } else { "Failed" }
        );
        assert_eq!(ended["outcome"]["cause"], "exit");
    }
}

#[test]
fn a_death_by_signal_is_told_as_one() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for signal in [1, 2, 6, 9, 11, 15] {
        let name = format!("signal-{signal}");
        let ended = client.run(&shell(&name, &format!("kill -{signal} $$; sleep 60")));
        assert_eq!(exit_code(&ended), 128 + signal, "as a shell counts");
        assert_eq!(ended["processStatus"]["terminated"]["signal"], signal);
        assert_eq!(ended["outcome"]["cause"], "signal");
        assert_eq!(ended["outcome"]["signal"], signal);
    }
}

#[test]
fn a_program_that_cannot_be_started_fails_as_in_a_shell() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let plain = daemon.home().file("plain", "no program");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    let plain = plain.to_str().unwrap();

    let missing = client.run(&flat("missing", &["no-such-program-anywhere"]));
    assert_eq!(exit_code(&missing), 127);
    assert!(
        message(&missing).contains("no-such-program-anywhere"),
        "{missing:#}"
    );
    let nowhere = client.run(&flat("nowhere", &["/no/such/program"]));
    assert_eq!(exit_code(&nowhere), 127);
    for (name, program) in [("plain", plain), ("directory", "/")] {
        let ended = client.run(&flat(name, &[program]));
        assert_eq!(exit_code(&ended), 126, "{ended:#}");
        assert!(message(&ended).contains(program), "{ended:#}");
        assert_eq!(reason(&ended), "Failed");
    }
}

#[test]
fn a_working_directory_that_cannot_be_entered_is_named() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let file = daemon.home().file("file", "");
    for (name, directory) in [
        ("missing", "/no/such/directory"),
        ("file", file.to_str().unwrap()),
    ] {
        let body = json!({"name": name, "process": {"command": ["true"], "workingDir": directory}});
        let ended = client.run(&body);
        assert_ne!(exit_code(&ended), 0);
        assert_ne!(exit_code(&ended), 127, "the program is not at fault");
        assert!(message(&ended).contains(directory), "{ended:#}");
    }
    let body = json!({"name": "there", "process": {"command": ["pwd"], "workingDir": "/usr"}});
    assert_eq!(exit_code(&client.run(&body)), 0);
    assert_eq!(read(&daemon, "there"), "/usr\n");
}

#[test]
fn a_task_starts_in_its_own_directory_where_nothing_is_said() {
    let daemon = Daemon::start();
    assert_eq!(
        exit_code(&daemon.client().run(&flat("where", &["pwd", "-P"]))),
        0
    );
    let own = daemon.home().data().join("where").canonicalize().unwrap();
    assert_eq!(read(&daemon, "where").trim_end(), own.to_str().unwrap());
}

#[test]
fn standard_input_is_empty() {
    let daemon = Daemon::start();
    assert_eq!(
        exit_code(&daemon.client().run(&shell("in", "cat; echo end"))),
        0
    );
    assert_eq!(read(&daemon, "in"), "end\n");
}

#[test]
fn a_task_has_its_variables_and_ours_and_none_of_the_daemon() {
    let daemon = Options::new()
        .variable("AWS_SECRET_ACCESS_KEY", "do-not-tell")
        .variable("TASKWRIGHT_LOG_FORMAT", "json")
        .variable("TZ", "UTC")
        .flag("--task-env=GIVEN=yes")
        .start();
    let client = daemon.client();
    let body = json!({"name": "env", "process": {"command": ["env"], "timeoutSeconds": 60, "env": [
        {"name": "TWICE", "value": "first"},
        {"name": "EMPTY", "value": ""},
        {"name": "", "value": "skipped"},
        {"name": "TWICE", "value": "last"},
        {"name": "ODD", "value": "a=b c\nd"},
    ]}});
    assert_eq!(exit_code(&client.run(&body)), 0);
    let printed = read(&daemon, "env");
    let has = |line: &str| printed.lines().any(|found| found == line);
    for line in [
        "TWICE=last",
        "EMPTY=",
        "ODD=a=b c",
        "d",
        "GIVEN=yes",
        "TZ=UTC",
        "TASKWRIGHT_TASK_NAME=env",
        "TASKWRIGHT_NAMESPACE=default",
        "TASKWRIGHT_ATTEMPT=1",
    ] {
        assert!(has(line), "{line:?} is missing in:\n{printed}");
    }
    for name in [
        "PATH",
        "TASKWRIGHT_TASK_ID",
        "TASKWRIGHT_OUTPUT_DIR",
        "TASKWRIGHT_DEADLINE",
    ] {
        let begin = format!("{name}=");
        assert!(
            printed.lines().any(|line| line.starts_with(&begin)),
            "{name} is missing in:\n{printed}"
        );
    }
    for word in [
        "do-not-tell",
        "TASKWRIGHT_LOG_FORMAT",
        "skipped",
        "TWICE=first",
    ] {
        assert!(!printed.contains(word), "{word} is in:\n{printed}");
    }
}

#[test]
fn a_value_from_elsewhere_is_refused_and_not_taken_as_empty() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let body = json!({"name": "from", "process": {"command": ["true"], "env": [
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]}});
    let refused = client.post("/tasks", &body).expect(400).json();
    assert_eq!(refused["code"], "Bad Request");
    assert_eq!(refused["details"][0]["field"], "/process/env/0/valueFrom");
    client.get("/tasks/from").expect(404);
}

#[test]
fn a_name_is_used_once_at_a_time() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("twice", &["sleep", "60"]));
    let refused = client
        .post("/tasks", &flat("twice", &["true"]))
        .expect(409)
        .json();
    assert_eq!(refused["code"], "Conflict");
    assert!(
        refused["message"].as_str().unwrap().contains("twice"),
        "{refused:#}"
    );
    client.delete("/tasks/twice").expect(204);
    client.until_gone("twice", SOON);
    assert_eq!(exit_code(&client.run(&flat("twice", &["true"]))), 0);
}

#[test]
fn a_deleted_task_leaves_no_record_no_file_and_no_process() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("gone", "echo here; sleep 300 & sleep 300"));
    eventually(SOON, "it has printed", || read(&daemon, "gone") == "here\n");
    let answer = client.delete("/tasks/gone").expect(204);
    assert_eq!(answer.body, b"");
    client.until_gone("gone", SOON);
    assert_eq!(client.get("/getTasks").expect(200).json(), json!([]));
    assert!(!daemon.home().data().join("gone").exists());
    eventually(SOON, "its processes are dead", || {
        daemon.home().task_processes().is_empty()
    });
}

#[test]
fn deleting_what_is_not_there_is_done_already() {
    let daemon = Daemon::start();
    for name in ["never", "a%2Fb", "%2e%2e"] {
        daemon
            .client()
            .delete(&format!("/tasks/{name}"))
            .expect(204);
    }
}

#[test]
fn an_ended_task_stays_until_it_is_deleted() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let ended = client.run(&shell("kept", "exit 7"));
    assert_eq!(client.task("kept"), ended, "an end never changes");
    client.delete("/tasks/kept").expect(204);
    client.until_gone("kept", SOON);
}

#[test]
fn a_stopped_task_keeps_its_record_and_its_output() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell(
        "stopped",
        "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    eventually(SOON, "it is ready", || {
        read(&daemon, "stopped") == "ready\n"
    });
    client.post("/tasks/stopped/stop", &json!({})).expect(200);
    let ended = client.until_ended("stopped", SOON);
    assert_eq!(
        ended["outcome"],
        json!({"cause": "canceled", "exitCode": 9})
    );
    assert_eq!(read(&daemon, "stopped"), "ready\nbye\n", "it had its grace");
    let again = client
        .post("/tasks/stopped/stop", &json!({}))
        .expect(200)
        .json();
    assert_eq!(again, ended, "stopping what has ended changes nothing");
    client.post("/tasks/never/stop", &json!({})).expect(404);
}

#[test]
fn a_stop_waits_for_the_real_end_of_the_command() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let ready = daemon.home().path().join("ready");
    let ready = ready.to_str().unwrap();
    client.submit(&crate::misbehave("slow", &["slow-exit", ready, "33"]));
    eventually(SOON, "it is ready", || std::path::Path::new(ready).exists());
    client.until_state("slow", "running", SOON);
    client.post("/tasks/slow/stop", &json!({})).expect(200);
    assert_eq!(state(&client.task("slow")), "running", "it still works");
    let ended = client.until_ended("slow", SOON);
    assert_eq!(
        ended["outcome"],
        json!({"cause": "canceled", "exitCode": 33})
    );
}

#[test]
fn many_tasks_run_at_once() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let gate = daemon.home().path().join("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.1; done; exit 5",
        gate.display()
    );
    let count = 60;
    for index in 0..count {
        client.submit(&shell(&format!("many-{index}"), &script));
    }
    for index in 0..count {
        client.until_state(&format!("many-{index}"), "running", SOON);
    }
    std::fs::write(&gate, "").unwrap();
    for index in 0..count {
        let ended = client.until_ended(&format!("many-{index}"), SOON);
        assert_eq!(exit_code(&ended), 5);
    }
}

#[test]
fn ten_thousand_arguments_arrive() {
    let daemon = Daemon::start();
    let words: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let body = json!({"name": "words", "process": {"command": ["sh", "-c", "echo $#", "sh"], "args": words}});
    assert_eq!(exit_code(&daemon.client().run(&body)), 0);
    assert_eq!(read(&daemon, "words"), "10000\n");
}

#[test]
fn an_end_is_known_within_moments_to_whoever_waits() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&shell("soon", "sleep 0.3; exit 4"));
    let begun = std::time::Instant::now();
    let answer = client
        .get("/tasks/soon/wait?timeout=30s")
        .expect(200)
        .json();
    assert_eq!(exit_code(&answer), 4);
    // Generous: nothing that polls twice a second or slower gets there every time.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn the_supervisor_is_the_parent_of_every_task() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("child", &["sleep", "60"]));
    client.until_state("child", "running", SOON);
    let supervisor = daemon.supervisor();
    let tasks = daemon.home().task_processes();
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    assert_eq!(tasks[0].parent, supervisor.pid);
    let pid = client.task("child")["attempts"][0]["pid"].as_u64().unwrap();
    assert_eq!(pid, u64::from(tasks[0].pid));
    assert!(processes::is_alive(tasks[0].pid));
}

fn read(daemon: &Daemon, name: &str) -> String {
    std::fs::read_to_string(daemon.task_file(name, "stdout.log")).unwrap_or_default()
}
