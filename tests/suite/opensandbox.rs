//! The clients that are out there: the guide's reader, the Go controller, the sandbox server.

use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::task::{self, exit_code, flat, names, nested, shell, state};
use taskwright_tests::{Client, Daemon, Options, Request, SOON, eventually, eventually_some};

/// Sends what `curl -X POST -H "Content-Type: application/json" -d BODY` sends.
fn curl(client: &Client, path: &str, body: &str) -> Value {
    let request = Request::new("POST", path)
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .body(body);
    let answer = client.send(request);
    assert!(answer.status < 300, "{answer:?}");
    answer.json()
}

#[test]
fn the_guides_first_example_works_as_written() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let created = curl(
        &client,
        "/tasks",
        r#"{
    "name": "my-first-task",
    "spec": {
      "process": {
        "command": ["sh", "-c"],
        "args": ["echo \"Hello from my task!\" && sleep 5 && echo \"Task finished.\""]
      }
    }
  }"#,
    );
    assert_eq!(created["name"], "my-first-task");
    assert_eq!(created["spec"]["process"]["command"], json!(["sh", "-c"]));
    let running = client.until_state("my-first-task", "running", SOON);
    assert!(running["status"]["state"]["running"]["startedAt"].is_string());
    let log = daemon.task_file("my-first-task", "stdout.log");
    let printed = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually(SOON, "the first line is readable while it runs", || {
        printed() == "Hello from my task!\n"
    });
    let ended = client.until_ended("my-first-task", SOON);
    assert_eq!(exit_code(&ended), 0);
    assert_eq!(
        ended["status"]["state"]["terminated"]["reason"],
        "Succeeded"
    );
    assert_eq!(printed(), "Hello from my task!\nTask finished.\n");
    client.delete("/tasks/my-first-task").expect(204);
    client.until_gone("my-first-task", SOON);
}

#[test]
fn the_guides_set_of_two_tasks_works_as_written() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let set = curl(
        &client,
        "/setTasks",
        r#"[
    {
      "name": "task-alpha",
      "spec": { "process": { "command": ["sleep", "10"] } }
    },
    {
      "name": "task-beta",
      "spec": { "process": { "command": ["ls", "-l", "/tmp"] } }
    }
  ]"#,
    );
    assert_eq!(names(&set), ["task-alpha", "task-beta"]);
    let beta = client.until_ended("task-beta", SOON);
    assert_eq!(exit_code(&beta), 0);
    assert_eq!(
        state(&client.task("task-alpha")),
        "running",
        "both ran at once"
    );
    assert_eq!(
        names(&client.get("/getTasks").expect(200).json()),
        ["task-alpha", "task-beta"]
    );
}

#[test]
fn health_is_told_as_in_the_guide() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let healthy = client.get("/opensandbox/health").expect(200);
    assert_eq!(healthy.json(), json!({"status": "healthy"}));
    // At the root clients of other systems look for more beside it.
    let healthy = client.get("/health").expect(200);
    assert_eq!(healthy.json()["status"], "healthy");
    assert_eq!(
        client.get("/getTasks").expect(200).body,
        b"[]\n",
        "an empty list is never null"
    );
}

#[test]
fn the_whole_dialect_is_served_under_its_prefix_too() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client
        .post("/opensandbox/tasks", &flat("prefixed", &["true"]))
        .expect(201);
    client.until_ended("prefixed", SOON);
    client.get("/opensandbox/tasks/prefixed").expect(200);
    let all = client.get("/opensandbox/getTasks").expect(200).json();
    assert_eq!(names(&all), ["prefixed"]);
    client.get("/opensandbox/health").expect(200);
    client.post("/opensandbox/setTasks", &json!([])).expect(200);
    client.until_gone("prefixed", SOON);
}

/// What the Go client does with an answer: the status is 200, the body a list.
fn list(answer: taskwright_tests::Response) -> Vec<Value> {
    let list = answer.expect(200).json();
    list.as_array().unwrap().clone()
}

/// What the Go client's decoder makes of a task: running, succeeded, failed or unknown.
fn controller_state(task: &Value) -> &'static str {
    let status = &task["processStatus"];
    if !status["running"].is_null() {
        "RUNNING"
    } else if status["terminated"].is_null() {
        "UNKNOWN"
    } else if status["terminated"]["exitCode"] == 0 {
        "SUCCEED"
    } else {
        "FAILED"
    }
}

/// The controller's loop for one pod: get, then the same set again, until the first task of
/// the list is done.
fn controller_loop(client: &Client, wanted: &Value) -> &'static str {
    let mut spawned_once = false;
    eventually_some(SOON, "the controller sees the task done", || {
        let seen = list(client.get("/getTasks"));
        let first = seen.first().cloned().unwrap_or_default();
        let seen_state = controller_state(&first);
        if matches!(seen_state, "SUCCEED" | "FAILED") {
            return Some(seen_state);
        }
        let set = list(client.post("/setTasks", &json!([wanted])));
        let mine = set
            .iter()
            .find(|one| one["name"] == wanted["name"])
            .unwrap();
        assert!(
            !mine["processStatus"].is_null(),
            "processStatus is always there"
        );
        spawned_once = true;
        None
    })
}

/// The controller's way to give a pod back: an empty set until nothing is listed.
fn controller_release(client: &Client) {
    eventually(
        Duration::from_secs(30),
        "nothing is listed any more",
        || {
            list(client.post("/setTasks", &json!([])));
            list(client.get("/getTasks")).is_empty()
        },
    );
}

#[test]
fn the_controllers_loop_runs_a_task_once_and_releases_the_pod() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let runs = daemon.home().path().join("runs");
    for (code, expected) in [(0, "SUCCEED"), (3, "FAILED")] {
        let script = format!("echo run >> {}; sleep 0.3; exit {code}", runs.display());
        let wanted = json!({"name": format!("batch-{code}"), "process": {
            "command": ["/bin/sh", "-c", script], "timeoutSeconds": 30,
        }});
        assert_eq!(controller_loop(&client, &wanted), expected);
        // Retained for a while: the repeats start nothing.
        for _ in 0..20 {
            list(client.post("/setTasks", &json!([wanted])));
        }
        let printed = std::fs::read_to_string(&runs).unwrap();
        assert_eq!(printed, "run\n", "it ran once");
        std::fs::remove_file(&runs).unwrap();
        controller_release(&client);
    }
}

#[test]
fn the_controllers_older_dialect_works_too() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let wanted = json!({
        "name": "old-0",
        "spec": {"process": {"command": ["/bin/sh", "-c", "exit 6"]}, "timeoutSeconds": 30},
        "status": {"state": {}, "lastState": {}},
    });
    let ended = eventually_some(SOON, "the task is done", || {
        let set = list(client.post("/setTasks", &json!([wanted])));
        let state = set[0]["status"]["state"]["terminated"].clone();
        (!state.is_null()).then_some(state)
    });
    assert_eq!(ended["exitCode"], 6);
    controller_release(&client);
}

#[test]
fn a_pod_is_released_while_its_task_still_runs_and_ignores_term() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let mut wanted = shell("deaf", "trap '' TERM; while :; do sleep 0.1; done");
    wanted["limits"] = json!({"graceSeconds": 1});
    list(client.post("/setTasks", &json!([wanted])));
    client.until_state("deaf", "running", SOON);
    let set = list(client.post("/setTasks", &json!([])));
    assert_eq!(set.len(), 1, "it is listed until it is dead");
    assert!(set[0]["deletionTimestamp"].is_string(), "{:#}", set[0]);
    controller_release(&client);
    eventually(SOON, "its processes are dead", || {
        daemon.home().task_processes().is_empty()
    });
}

#[test]
fn live_tasks_come_first_and_the_order_is_stable() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let mut wanted: Vec<Value> = Vec::new();
    for index in 0..4 {
        wanted.push(flat(&format!("ended-{index}"), &["true"]));
        wanted.push(flat(&format!("live-{index}"), &["sleep", "60"]));
    }
    client
        .post("/setTasks", &Value::from(wanted.clone()))
        .expect(200);
    for index in 0..4 {
        client.until_ended(&format!("ended-{index}"), SOON);
        client.until_state(&format!("live-{index}"), "running", SOON);
    }
    let expected = [
        "live-0", "live-1", "live-2", "live-3", "ended-0", "ended-1", "ended-2", "ended-3",
    ];
    for _ in 0..5 {
        assert_eq!(names(&client.get("/getTasks").json()), expected);
    }
    // The one that is taken away goes last, whatever state it is in.
    wanted.retain(|task| task::name(task) != "live-0");
    let set = client
        .post("/setTasks", &Value::from(wanted))
        .expect(200)
        .json();
    let listed = names(&set);
    assert_eq!(listed[0], "live-1");
    let last = set.as_array().unwrap().last().unwrap();
    if task::name(last) == "live-0" {
        assert!(last["deletionTimestamp"].is_string());
    }
}

#[test]
fn a_set_replaces_one_task_by_another() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client
        .post("/setTasks", &json!([flat("a", &["sleep", "60"])]))
        .expect(200);
    client.until_state("a", "running", SOON);
    client
        .post("/setTasks", &json!([nested("b", &["sleep", "60"])]))
        .expect(200);
    client.until_gone("a", SOON);
    client.until_state("b", "running", SOON);
    assert_eq!(names(&client.get("/getTasks").json()), ["b"]);
}

#[test]
fn one_bad_element_never_spoils_the_others() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let set = client.post(
        "/setTasks",
        &json!([
            {"name": "no-command", "process": {"command": []}},
            flat("good", &["true"]),
            {"name": "../escape", "process": {"command": ["true"]}},
            {"name": "", "process": {"command": ["true"]}},
            "not an object",
            null,
            {"name": "nothing-to-run"},
            {"name": "wrong-type", "process": {"command": "true"}},
            nested("fine", &["true"]),
        ]),
    );
    let set = set.expect(200).json();
    let listed = names(&set);
    assert_eq!(listed[..2], ["good", "fine"], "real tasks come first");
    for name in ["no-command", "nothing-to-run", "wrong-type"] {
        let told = set
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name);
        let told = told.unwrap_or_else(|| panic!("{name} is not told: {set:#}"));
        assert_ne!(told["processStatus"]["terminated"]["exitCode"], 0);
        assert_eq!(controller_state(told), "FAILED");
        assert!(told["processStatus"]["terminated"]["message"].is_string());
    }
    assert_eq!(exit_code(&client.until_ended("good", SOON)), 0);
    assert_eq!(exit_code(&client.until_ended("fine", SOON)), 0);
    let present = client.get("/getTasks").json();
    assert_eq!(
        names(&present),
        ["good", "fine"],
        "what is no task is not on record"
    );
}

#[test]
fn of_two_elements_with_one_name_the_last_counts() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let body = json!([flat("same", &["false"]), shell("same", "exit 8")]);
    assert_eq!(
        names(&client.post("/setTasks", &body).expect(200).json()),
        ["same"]
    );
    assert_eq!(exit_code(&client.until_ended("same", SOON)), 8);
}

#[test]
fn a_present_task_is_left_alone_whatever_its_new_spec_says() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client
        .post("/setTasks", &json!([flat("kept", &["sleep", "60"])]))
        .expect(200);
    let before = client.until_state("kept", "running", SOON);
    let set = client
        .post("/setTasks", &json!([flat("kept", &["false"])]))
        .expect(200)
        .json();
    let process = &set[0]["process"];
    assert_eq!(
        process["command"],
        json!(["sleep", "60"]),
        "it is told as it is"
    );
    let after = client.task("kept");
    assert_eq!(after["attempts"], before["attempts"]);
    // An element that cannot be read keeps what runs under its name.
    let bad = json!([{"name": "kept", "process": {"command": []}}]);
    client.post("/setTasks", &bad).expect(200);
    assert_eq!(state(&client.task("kept")), "running");
}

#[test]
fn a_set_that_is_no_list_deletes_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("safe", &["sleep", "60"]));
    for body in ["null", "{}", "\"[]\"", "1", "[", ""] {
        let request = Request::new("POST", "/setTasks").body(body);
        let answer = client.send(request).expect(400).json();
        assert_eq!(answer["code"], "Bad Request", "{body:?}");
        assert_eq!(
            state(&client.until_state("safe", "running", SOON)),
            "running",
            "{body:?}"
        );
    }
}

/// What the sandbox server sends: a shell that starts the sandbox in the background and ends.
#[test]
fn a_sandbox_lives_on_after_its_shell_and_dies_with_its_task() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let script = "(/bin/sh -c 'echo up; exec sleep 300') &";
    let wanted = json!({"name": "sandbox-0", "process": {
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "OPENSANDBOX_ID", "value": "s-1"}],
    }});
    client.post("/setTasks", &json!([wanted])).expect(200);
    let ended = client.until_ended("sandbox-0", SOON);
    assert_eq!(exit_code(&ended), 0, "the shell ended by itself");
    let sandbox = eventually_some(SOON, "the sandbox lives", || {
        match daemon.home().task_processes().as_slice() {
            [only] if only.name == "sleep" => Some(only.clone()),
            _ => None,
        }
    });
    // Neither time, nor repeats, nor a restart of the daemon ends it.
    let mut daemon = daemon;
    for _ in 0..10 {
        client.post("/setTasks", &json!([wanted])).expect(200);
    }
    daemon.kill();
    daemon.start_again();
    client.post("/setTasks", &json!([wanted])).expect(200);
    assert_eq!(daemon.home().task_processes(), [sandbox]);
    assert_eq!(exit_code(&client.task("sandbox-0")), 0);

    client.post("/setTasks", &json!([])).expect(200);
    client.until_gone("sandbox-0", SOON);
    eventually(SOON, "the sandbox is dead", || {
        daemon.home().task_processes().is_empty()
    });
}

#[test]
fn the_reference_command_line_starts_it() {
    let home = taskwright_tests::Home::new();
    // Every flag of the reference executor, as its own parser takes them.
    let daemon = Options::new()
        .flag("-enable-sidecar-mode=false")
        .flag("-main-container-name=main")
        .flag("-enable-container-mode=false")
        .flag("-cri-socket")
        .flag("/var/run/containerd/containerd.sock")
        .flag("-reconcile-interval=500ms")
        .flag("-log-dir=logs")
        .flag("-log-max-size=100")
        .flag("-log-max-backups=10")
        .flag("-log-max-age=7")
        .start_in(home);
    assert_eq!(exit_code(&daemon.client().run(&flat("one", &["true"]))), 0);
}
