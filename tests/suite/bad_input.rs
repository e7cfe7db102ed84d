//! Bad input: a clear answer that names the field and says what to do, and nothing stored.

use std::path::Path;

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, flat, names, shell};
use taskwright_tests::{Client, Daemon, Request, Response, SOON, processes};

const MIB: u64 = 1024 * 1024;

fn post_text(client: &Client, path: &str, body: impl Into<Vec<u8>>) -> Response {
    let request = Request::new("POST", path).header("content-type", "application/json");
    client.send(request.body(body))
}

/// The places that a refusal names.
fn fields(refused: &Value) -> Vec<&str> {
    let details = refused["details"].as_array().into_iter().flatten();
    details
        .map(|detail| detail["field"].as_str().unwrap())
        .collect()
}

#[test]
fn malformed_json_is_refused_with_its_place() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "{\"name\":",
        "nonsense",
        "\u{0}",
        "{'name': 'x'}",
        &deep,
    ] {
        let refused = post_text(&client, "/tasks", body).expect(400).json();
        assert_eq!(refused["code"], "Bad Request");
        assert!(!refused["message"].as_str().unwrap().is_empty());
    }
    post_text(&client, "/tasks", &b"{\"name\":\"\xff\xfe\"}"[..]).expect(400);
    for body in ["[]", "1", "null", "\"x\""] {
        post_text(&client, "/tasks", body).expect(400);
    }
    assert_eq!(
        client.get("/getTasks").json(),
        json!([]),
        "nothing was stored"
    );
}

#[test]
fn every_wrong_type_is_told_with_its_field() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let refused = client.post(
        "/tasks",
        &json!({
            "name": 1,
            "labels": {"a": 1},
            "priority": "high",
            "process": {
                "command": ["true", 2], "args": "x", "env": [{"name": "A", "value": 3}],
                "workingDir": [], "timeoutSeconds": "10",
            },
        }),
    );
    let refused = refused.expect(400).json();
    let found = fields(&refused);
    for field in [
        "/name",
        "/labels/a",
        "/priority",
        "/process/command/1",
        "/process/args",
        "/process/env/0/value",
        "/process/workingDir",
        "/process/timeoutSeconds",
    ] {
        assert!(found.contains(&field), "{field} is not told: {refused:#}");
    }
}

#[test]
fn unknown_fields_and_nulls_are_taken() {
    let daemon = Daemon::start();
    let body = json!({
        "name": "tolerant", "apiVersion": "v9", "deletionTimestamp": null, "podTemplateSpec": null,
        "status": {"state": {}, "lastState": {}}, "processStatus": null,
        "spec": {"process": {"command": ["true"], "args": null, "env": null, "workingDir": "", "tty": true},
                 "container": null, "volumes": []},
    });
    assert_eq!(exit_code(&daemon.client().run(&body)), 0);
}

#[test]
fn two_forms_that_contradict_each_other_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let both = json!({"name": "x", "process": {"command": ["true"]}, "spec": {"process": {"command": ["false"]}}});
    client.post("/tasks", &both).expect(400);
    let limits = json!({"name": "x", "process": {"command": ["true"], "timeoutSeconds": 5}, "spec": {"timeoutSeconds": 6}});
    client.post("/tasks", &limits).expect(400);
    let same = json!({"name": "x", "process": {"command": ["true"]}, "spec": {"process": {"command": ["true"]}}});
    client.post("/tasks", &same).expect(201);
}

#[test]
fn absurd_names_are_refused_and_leave_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let before = listing(&daemon.home().data());
    let long = "x".repeat(300);
    for name in [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "../x",
        "/etc/passwd",
        "a\0b",
        " ",
        "a b",
        "a\nb",
        "-flag",
        ".hidden",
        ".taskwright",
        "a\u{202e}b",
        "\u{feff}",
        "*",
        "a;b",
        &long,
    ] {
        let refused = client
            .post("/tasks", &flat(name, &["true"]))
            .expect(400)
            .json();
        assert_eq!(fields(&refused), ["/name"], "{name:?}: {refused:#}");
    }
    client
        .post("/tasks", &json!({"process": {"command": ["true"]}}))
        .expect(400);
    assert_eq!(listing(&daemon.home().data()), before);
    assert_eq!(client.get("/getTasks").json(), json!([]));
}

#[test]
fn names_of_every_script_work() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let long = "x".repeat(200);
    for (name, path) in [
        ("задача-1", "%D0%B7%D0%B0%D0%B4%D0%B0%D1%87%D0%B0-1"),
        ("任務", "%E4%BB%BB%E5%8B%99"),
        ("a.b_c@d:e+f=g~h", "a.b_c@d:e+f=g~h"),
        (&long, &long),
    ] {
        client.submit(&shell(name, "echo here"));
        assert_eq!(exit_code(&client.until_ended(path, SOON)), 0);
        assert_eq!(
            client
                .get(&format!("/tasks/{path}/logs"))
                .expect(200)
                .text(),
            "here\n"
        );
        assert!(daemon.task_file(name, "stdout.log").exists());
        client.delete(&format!("/tasks/{path}")).expect(204);
        client.until_gone(path, SOON);
    }
}

#[test]
fn a_path_cannot_leave_the_data_directory() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&flat("x", &["true"]));
    for path in [
        "/tasks/..%2F..%2Fetc%2Fpasswd/logs",
        "/tasks/%2e%2e/logs",
        "/tasks/.taskwright/logs",
        "/tasks/x%2F..%2F.taskwright/logs",
        "/tasks/x%00/logs",
        "/tasks/../../etc/passwd",
    ] {
        let answer = client.get(path);
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
    }
}

#[test]
fn a_command_that_cannot_be_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (process, field) in [
        (json!({}), "/process/command"),
        (json!({"command": []}), "/process/command"),
        (json!({"command": [""]}), "/process/command/0"),
        (json!({"command": ["a\u{0}b"]}), "/process/command/0"),
        (
            json!({"command": ["true"], "args": ["a\u{0}b"]}),
            "/process/args/0",
        ),
        (
            json!({"command": ["true"], "workingDir": "/\u{0}"}),
            "/process/workingDir",
        ),
        (
            json!({"command": ["true"], "env": [{"name": "A=B", "value": ""}]}),
            "/process/env/0/name",
        ),
        (
            json!({"command": ["true"], "env": [{"name": "A", "value": "\u{0}"}]}),
            "/process/env/0/value",
        ),
    ] {
        let refused = client
            .post("/tasks", &json!({"name": "x", "process": process}))
            .expect(400)
            .json();
        assert_eq!(fields(&refused), [field], "{refused:#}");
    }
    let nothing = client
        .post("/tasks", &json!({"name": "x"}))
        .expect(400)
        .json();
    assert!(
        nothing["message"].as_str().unwrap().contains("process"),
        "it says what to send"
    );
}

#[test]
fn arguments_larger_than_the_kernel_takes_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let huge = "x".repeat(200_000);
    let refused = client
        .post("/tasks", &flat("x", &["echo", &huge]))
        .expect(400)
        .json();
    assert_eq!(fields(&refused), ["/process/command/1"]);
    let many: Vec<String> = (0..20).map(|_| "x".repeat(100_000)).collect();
    let body = json!({"name": "x", "process": {"command": ["true"], "args": many}});
    client.post("/tasks", &body).expect(400);
}

#[test]
fn time_limits_that_mean_nothing_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for seconds in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("10"),
        json!(1e30),
        json!(i64::MAX),
    ] {
        let body =
            json!({"name": "x", "process": {"command": ["true"], "timeoutSeconds": seconds}});
        let refused = client.post("/tasks", &body).expect(400).json();
        assert_eq!(fields(&refused), ["/process/timeoutSeconds"], "{seconds}");
        let body = json!({"name": "x", "spec": {"process": {"command": ["true"]}, "timeoutSeconds": seconds}});
        let refused = client.post("/tasks", &body).expect(400).json();
        assert_eq!(fields(&refused), ["/spec/timeoutSeconds"], "{seconds}");
    }
    for (limits, field) in [
        (json!({"runSeconds": 0}), "/limits/runSeconds"),
        (json!({"queueSeconds": -1}), "/limits/queueSeconds"),
        (json!({"graceSeconds": -1}), "/limits/graceSeconds"),
        (json!({"idleSeconds": "1"}), "/limits/idleSeconds"),
    ] {
        let body = json!({"name": "x", "process": {"command": ["true"]}, "limits": limits});
        let refused = client.post("/tasks", &body).expect(400).json();
        assert_eq!(fields(&refused), [field]);
    }
}

#[test]
fn work_that_no_runtime_takes_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for body in [
        json!({"name": "c", "spec": {"container": {"image": "ubuntu", "command": null}}}),
        json!({"name": "p", "podTemplateSpec": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}),
        json!({"name": "r", "runtime": "no-such-runtime", "process": {"command": ["true"]}}),
    ] {
        let refused = client.post("/tasks", &body).expect(400).json();
        assert!(
            refused["message"].as_str().unwrap().contains("runtime"),
            "{refused:#}"
        );
    }
    assert_eq!(client.get("/getTasks").json(), json!([]));
}

#[test]
fn a_body_of_100_mib_is_refused_and_not_kept_in_memory() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.run(&flat("before", &["true"]));
    let before = processes::resident(daemon.pid());
    let mut body = b"{\"name\":\"big\",\"process\":{\"command\":[\"".to_vec();
    body.resize(100 * 1024 * 1024, b'x');
    for path in ["/tasks", "/setTasks"] {
        let refused = post_text(&client, path, body.clone()).expect(413).json();
        assert_eq!(refused["code"], "Payload Too Large");
    }
    let grown = processes::resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 40 * MIB, "it grew by {} MiB", grown / MIB);
    assert_eq!(names(&client.get("/getTasks").json()), ["before"]);
}

#[test]
fn a_list_of_100_000_elements_is_refused_whole() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("safe", &["sleep", "60"]));
    let element = r#"{"name":"n","process":{"command":["true"]}}"#;
    let body = format!("[{}]", vec![element; 100_000].join(","));
    let refused = post_text(&client, "/setTasks", body).expect(413).json();
    assert!(
        refused["message"].as_str().unwrap().contains("elements"),
        "{refused:#}"
    );
    client.until_state("safe", "running", SOON);
    let nulls = format!("[{}]", vec!["null"; 100_000].join(","));
    post_text(&client, "/setTasks", nulls).expect(413);
    assert_eq!(names(&client.get("/getTasks").json()), ["safe"]);
}

/// Every name below a directory.
fn listing(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn more_words_than_a_component_could_be_given_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let words: Vec<&str> = vec!["x"; 200_000];
    let body = json!({"name": "wordy", "process": {"command": ["true"], "args": words}});
    let refused = client.post("/tasks", &body).expect(400);
    assert!(refused.text().contains("16 for each"), "{refused:?}");
    let words: Vec<&str> = vec!["x"; 50_000];
    let body = json!({"name": "many", "process": {"command": ["true"], "args": words}});
    assert_eq!(exit_code(&client.run(&body)), 0);
}
