//! Whoever waits for a task is told when policies hold it, why, and what to do about it.

use serde_json::json;
use taskwright_tests::task::{exit_code, flat};
use taskwright_tests::{SOON, eventually};

use crate::plugins::Folder;
use crate::scripts::holding;

/// Asks about each launch, so that the answer to a submission knows nothing of it yet.
const AT_LAUNCH: &str = "fn review(request) {\n    if request.stage == \"launch\" && \
    !request.approved { #{ ask: `may ${request.name} run?` } }\n}\n";

fn asking() -> Folder {
    let folder = holding(&[("careful.rhai", AT_LAUNCH.as_bytes())]);
    folder.until("careful", |plugin| plugin["healthy"] == true);
    folder
}

#[test]
fn wait_and_logs_tell_of_a_hold_while_they_wait() {
    let folder = asking();
    let client = folder.client();
    for command in [&["wait"][..], &["logs", "-f"]] {
        let name = command[0];
        client.post("/tasks", &flat(name, &["true"])).expect(201);
        let waits = folder.daemon.running(&[command, &[name]].concat());
        eventually(SOON, "the hold is told", || {
            let told = waits.stderr();
            told.contains("careful") && told.contains(&format!("taskwright approve {name}"))
        });
        folder.daemon.taskwright(&["approve", name]).expect(0);
        let ended = waits.finish(SOON).expect(0);
        let question = format!("may {name} run?");
        assert_eq!(ended.stderr.matches(&question).count(), 1, "told once");
    }
}

#[test]
fn a_time_that_is_over_is_told_with_the_policy_that_held_the_task() {
    let folder = asking();
    let words = [
        "run",
        "--name",
        "late",
        "--queue-timeout",
        "2s",
        "--",
        "true",
    ];
    let told = folder.daemon.taskwright(&words).expect(124).stderr;
    assert!(told.contains("taskwright approve late"), "{told}");
    let last = told.lines().last().unwrap();
    assert!(
        last.contains("timeout (queue)") && last.contains("careful") && last.contains("may late"),
        "{told}"
    );
    let client = folder.client();
    client.post("/tasks", &flat("held", &["true"])).expect(201);
    client.until_held("held");
    let words = ["wait", "--timeout", "200ms", "held"];
    let told = folder.daemon.taskwright(&words).expect(125).stderr;
    for part in [
        "the time to wait is over",
        "careful",
        "taskwright approve held",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn an_answer_is_told_with_whoever_gave_it_in_order_of_time() {
    let folder = asking();
    let client = folder.client();
    client.post("/tasks", &flat("a", &["true"])).expect(201);
    client.until_held("a");
    folder
        .daemon
        .taskwright(&["approve", "a", "--reason", "it is fine"])
        .expect(0);
    assert_eq!(exit_code(&client.until_ended("a", SOON)), 0);
    let told = folder.daemon.taskwright(&["explain", "a"]).expect(0).stdout;
    let stages: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|word| ["submit", "answer", "launch"].contains(word))
        .collect();
    assert_eq!(stages, ["submit", "answer", "launch"], "{told}");
    let by = "by an unauthenticated client on this machine: it is fine";
    assert!(told.contains(by), "{told}");
    let again = folder.daemon.taskwright(&["approve", "a"]);
    assert!(
        again.stderr.contains("taskwright explain a"),
        "{}",
        again.stderr
    );
}

#[test]
fn a_policy_that_answers_with_errors_is_told_as_one_in_trouble() {
    let folder = holding(&[
        (
            "broken.rhai",
            b"fn review(request) {\n    request.task.nothing.deeper\n}\n",
        ),
        ("broken.toml", b"[policy]\nlabels = [\"held\"]\n"),
    ]);
    folder.until("broken", |plugin| plugin["healthy"] == true);
    let client = folder.client();
    let mut task = flat("held", &["true"]);
    task["labels"] = json!({"held": ""});
    client.post("/tasks", &task).expect(201);
    folder.until("broken", |plugin| plugin["faults"].as_u64() > Some(0));
    let listed = folder
        .daemon
        .taskwright(&["policy", "list"])
        .expect(0)
        .stdout;
    assert!(listed.contains("trouble"), "{listed}");
    assert!(listed.contains("broken.rhai:2:"), "{listed}");
    let metrics = client.get("/metrics").text();
    let counted = "taskwright_plugin_errors_total{plugin=\"broken\",func=\"review\"}";
    assert!(metrics.contains(counted), "{metrics}");
}
