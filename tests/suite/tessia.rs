//! The Tessia dialect: its promise, its files, its machine, and its command line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::{
    Client, Daemon, Home, Options, Request, SOON, cli, eventually, eventually_some, skip,
};

/// The sample of the original's documents.
const SAMPLE: &str = r#"{
    "machine": "echo",
    "parameters": [
        "echo The task has stared and will now sleep",
        "sleep 0.25",
        "log warning Important message",
        "sleep 0.25",
        "log error Another important message",
        "log critical And done",
        "echo Task has now completed"
    ]
}"#;

fn create(client: &Client, parameters: Value) -> String {
    let body = json!({"machine": "echo", "parameters": parameters});
    let answer = client.post("/v1/tasks", &body).expect(201).json();
    assert_eq!(answer["state"], "running", "{answer}");
    answer["taskId"].as_str().unwrap().to_owned()
}

fn get(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/tasks/{id}")).expect(200).json()
}

fn until_state(client: &Client, id: &str, state: &str) -> Value {
    eventually_some(SOON, &format!("{id} is {state}"), || {
        Some(get(client, id)).filter(|task| task["state"] == state)
    })
}

fn output(client: &Client, id: &str, query: &str) -> String {
    let answer = client.get(&format!("/v1/tasks/{id}/output{query}"));
    answer.expect(200).text()
}

fn until_printed(client: &Client, id: &str, words: &str) {
    eventually(SOON, &format!("{id} prints {words}"), || {
        output(client, id, "").contains(words)
    });
}

/// Where the files of a task are, without a work root.
fn directory(daemon: &Daemon, id: &str) -> PathBuf {
    daemon
        .home()
        .data()
        .join(".taskwright/tasks/tessia")
        .join(id)
}

/// A result file once it says that the task finished.
fn finished(directory: &Path, id: &str) -> Value {
    let path = directory.join(format!("{id}.result"));
    eventually_some(SOON, "the result file says that it finished", || {
        // Replaced whole: whatever is read is a whole object.
        let text = std::fs::read_to_string(&path).ok()?;
        let result: Value = serde_json::from_str(&text).unwrap();
        result["finished_at"].is_string().then_some(result)
    })
}

fn log(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("output.log")).unwrap_or_default()
}

#[test]
fn the_documents_examples_work_as_written() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let doc = daemon.home().path().join("task_runner/doc");
    std::fs::create_dir_all(&doc).unwrap();
    std::fs::write(doc.join("sample_task.json"), SAMPLE).unwrap();
    let line = format!(
        "curl -s -X POST --url http://{}/v1/tasks  --data-binary \
         @task_runner/doc/sample_task.json -H 'Content-Type: application/json'",
        daemon.address()
    );
    let mut shell = daemon.home().command(Path::new("/bin/sh"));
    let answered = cli::finish(shell.args(["-c", &line]), b"", SOON);
    let answer = if answered.code == 127 {
        skip("there is no curl");
        let request = Request::new("POST", "/v1/tasks")
            .header("content-type", "application/json")
            .body(SAMPLE);
        client.send(request).expect(201).text()
    } else {
        answered.expect(0).stdout
    };
    let id = serde_json::from_str::<Value>(&answer).unwrap()["taskId"].clone();
    let id = id.as_str().unwrap();
    assert!(id.len() == 8 && u32::from_str_radix(id, 16).is_ok(), "{id}");
    assert_eq!(answer, format!(r#"{{"taskId":"{id}","state":"running"}}"#));
    let list = client.get("/v1/tasks/");
    assert_eq!(
        (list.status, list.header("location")),
        (307, Some("/v1/tasks"))
    );
    assert_eq!(client.get("/v1/tasks").text(), format!("[{answer}]"));

    let ended = until_state(&client, id, "exited");
    assert_eq!(ended["exitCode"], 0, "{ended}");
    assert_eq!(
        output(&client, id, "?stream=stdout"),
        "The task has stared and will now sleep\nTask has now completed\n"
    );
    let result = finished(&directory(&daemon, id), id);
    assert_eq!(
        (&result["task_id"], &result["exit_code"]),
        (&json!(id), &json!(0))
    );
    let text = log(&directory(&daemon, id));
    for words in [
        "] INFO [task_runner.run:0] Runner started\n",
        "The task has stared and will now sleep\n",
        "] WARNING [echo.script:3] Important message\n",
        "] CRITICAL [echo.script:6] And done\n",
        "Task has now completed\n",
        "] INFO [task_runner.run:0] Runner completed\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[test]
fn tasks_ids_and_states_survive_a_restart() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let done = create(&client, json!("echo done\nreturn 5"));
    until_state(&client, &done, "exited");
    let gate = daemon.home().path().join("gate");
    let script = format!(
        "echo up; while [ ! -e {} ]; do sleep 0.02; done; exit 9",
        gate.display()
    );
    let body = json!({"machine": "process", "parameters": {"command": ["sh", "-c", script]}});
    let gated = client.post("/v1/tasks", &body).expect(201).json()["taskId"].clone();
    let gated = gated.as_str().unwrap();
    let sleeps = create(&client, json!(["echo up", "sleep 600"]));
    for id in [gated, &sleeps] {
        until_printed(&client, id, "up\n");
    }
    for id in [gated, &sleeps] {
        eventually(SOON, "it is on record that it runs", || {
            get(&client, id)["startedAt"].is_string()
        });
    }
    let before = client.get("/v1/tasks").text();
    let told = [&done, gated, &sleeps].map(|id| get(&client, id));

    daemon.kill();
    daemon.start_again();
    assert_eq!(
        client.get("/v1/tasks").text(),
        before,
        "ids, order and states"
    );
    assert_eq!([&done, gated, &sleeps].map(|id| get(&client, id)), told);

    // What ends while nobody serves is told truthfully, in the file as well.
    daemon.kill();
    std::fs::write(&gate, "").unwrap();
    eventually(SOON, "it has ended", || {
        let processes = daemon.home().task_processes();
        !processes.iter().any(|process| {
            let words = std::fs::read(format!("/proc/{}/cmdline", process.pid));
            String::from_utf8_lossy(&words.unwrap_or_default()).contains("gate")
        })
    });
    daemon.start_again();
    assert_eq!(until_state(&client, gated, "exited")["exitCode"], 9);
    assert_eq!(finished(&directory(&daemon, gated), gated)["exit_code"], 9);
    assert!(log(&directory(&daemon, gated)).contains("up\n"));

    let stopped = client.post(&format!("/v1/tasks/{sleeps}/stop"), &json!({}));
    assert_eq!(stopped.expect(200).json()["taskId"], json!(sleeps));
    assert_eq!(until_state(&client, &sleeps, "exited")["exitCode"], -1);
    assert_eq!(
        finished(&directory(&daemon, &sleeps), &sleeps)["exit_code"],
        -1
    );
    assert!(log(&directory(&daemon, &sleeps)).contains("Runner cancelled"));
}

#[test]
fn echo_ends_as_its_script_says() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (script, code, printed) in [
        (
            json!("echo one\n# nothing\necho  two   words # and no more"),
            0,
            "one\ntwo words\n",
        ),
        (json!(["USE SHARED lpar", "RETURN 7", "echo never"]), 7, ""),
        (json!("raise\necho never"), -3, ""),
        (json!("return 253"), 253, ""),
        (
            json!("echo a\nreturn 3\ncleanup\necho clean"),
            3,
            "a\nclean\n",
        ),
        (json!("echo $HOME `id`; exit 1"), 0, "$HOME `id`; exit 1\n"),
        (json!([]), 0, ""),
    ] {
        let id = create(&client, script.clone());
        let ended = until_state(&client, &id, "exited");
        assert_eq!(ended["exitCode"], code, "{script}: {ended}");
        assert_eq!(
            output(&client, &id, "?follow=true&stream=stdout"),
            printed,
            "{script}"
        );
        assert_eq!(
            finished(&directory(&daemon, &id), &id)["exit_code"],
            code,
            "{script}"
        );
    }
}

#[test]
fn a_stop_runs_the_cleanup() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let id = create(
        &client,
        json!("echo up\nsleep 600\necho never\ncleanup\nsleep 0.1\necho clean"),
    );
    until_printed(&client, &id, "up\n");
    let stop = || {
        client
            .post(&format!("/v1/tasks/{id}/stop"), &json!({}))
            .expect(200)
            .json()
    };
    assert!(["stopping", "exited"].contains(&stop()["state"].as_str().unwrap()));
    let ended = until_state(&client, &id, "exited");
    assert_eq!(ended["exitCode"], -1, "{ended}");
    assert_eq!(output(&client, &id, ""), "up\nclean\n");
    assert_eq!(stop(), json!({"taskId": id, "state": "exited"}));
    eventually(SOON, "nothing is left", || {
        daemon.home().task_processes().is_empty()
    });
}

#[test]
fn what_is_forgotten_is_stopped_and_gone() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let id = create(&client, json!("echo up\nsleep 600"));
    let kept = create(&client, json!("echo up\nsleep 600"));
    for id in [&id, &kept] {
        until_printed(&client, id, "up\n");
    }
    let path = format!("/v1/tasks/{id}");
    assert_eq!(
        client.delete(&path).expect(200).text(),
        r#"{"success":true}"#
    );
    for answer in [client.delete(&path), client.get(&path)] {
        assert_eq!(answer.expect(404).text(), r#"{"detail":""}"#);
    }
    let list = client.get("/v1/tasks").json();
    assert_eq!(list, json!([{"taskId": kept, "state": "running"}]));
    eventually(SOON, "its directory is gone", || {
        !directory(&daemon, &id).exists()
    });
    // The native dialect clears its own tasks and nobody else's.
    client.post("/setTasks", &json!([])).expect(200);
    assert_eq!(client.get("/v1/tasks").json(), list);
}

#[test]
fn bad_tasks_are_refused_before_anything_is_stored() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for (body, words) in [
        (
            json!({"without-machine-parameters": "request-is-invalid"}),
            "'machine' is a required property",
        ),
        (
            json!({"machine": "powerman", "parameters": {}}),
            "there is no machine 'powerman'",
        ),
        (
            json!({"machine": "echo", "parameters": ["echo a", "shout"]}),
            "parameters/1: line 2: this is no command",
        ),
        (
            json!({"machine": "echo", "parameters": "sleep long"}),
            "parameters: line 1: SLEEP takes a number",
        ),
        (
            json!({"machine": "process", "parameters": {"command": []}}),
            "parameters/command: ",
        ),
    ] {
        let answer = client.post("/v1/tasks", &body).expect(400).json();
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.starts_with("Task validation failed: "), "{detail}");
        assert!(detail.contains(words), "{detail}");
        assert_eq!(answer.as_object().unwrap().len(), 1);
    }
    assert_eq!(client.get("/v1/tasks").text(), "[]");
    assert_eq!(client.get("/tessia/").text(), client.get("/tessia").text());
    assert_eq!(client.get("/").json()["name"], "task_runner");
}

#[test]
fn output_is_streamed_while_it_is_printed() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let id = create(&client, json!("echo first\nsleep 600\ncleanup\necho last"));
    let mut connection = client.connect().unwrap();
    write!(
        connection,
        "GET /v1/tasks/{id}/output?follow=true HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(connection).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked")));
    assert!(
        lines.any(|line| line == "first"),
        "it comes while the task runs"
    );
    assert_eq!(get(&client, &id)["state"], "running");
    client
        .post(&format!("/v1/tasks/{id}/stop"), &json!({}))
        .expect(200);
    assert!(lines.any(|line| line == "last"));
    assert_eq!(lines.last().as_deref(), Some(""), "and it ends in order");
}

#[test]
fn files_are_under_the_work_root_beside_those_of_another_runner() {
    let home = Home::new();
    let root = home.path().join("work");
    let left = |id: &str, rest: &str| {
        let directory = root.join(format!("task-{id}"));
        std::fs::create_dir_all(&directory).unwrap();
        let text = format!(
            r#"{{"task_id": "{id}", "process_id": 4194305, "updated_at": "2022-01-25T10:00:00.5+00:00",
                "started_at": "2022-01-25T09:00:00.25+00:00"{rest}}}"#
        );
        std::fs::write(directory.join(format!("{id}.result")), text).unwrap();
    };
    left(
        "0000aaaa",
        r#", "finished_at": "2022-01-25T10:00:00+00:00", "exit_code": -3"#,
    );
    left("0000bbbb", "");
    let flag = format!("--tessia-work-root={}", root.display());
    let mut daemon = Options::new().flag(&flag).start_in(home);
    let client = daemon.client();
    let one = |id: &str, state: &str| json!({"taskId": id, "state": state});
    let both = [one("0000aaaa", "exited"), one("0000bbbb", "lost")];
    assert_eq!(client.get("/v1/tasks").json(), json!(both));
    assert_eq!(get(&client, "0000aaaa")["exitCode"], -3);
    assert_eq!(
        get(&client, "0000bbbb")["updatedAt"],
        "2022-01-25T10:00:00.500Z"
    );
    client.delete("/v1/tasks/0000bbbb").expect(200);

    let id = create(&client, json!("echo hello"));
    let own = root.join(format!("task-{id}"));
    let result = finished(&own, &id);
    assert_eq!(result["exit_code"], 0);
    for key in ["started_at", "updated_at"] {
        assert!(result[key].as_str().unwrap().contains('T'), "{result}");
    }
    assert!(result["process_id"].is_u64());
    assert!(log(&own).contains("hello\n"));
    daemon.kill();
    daemon.start_again();
    // Our own files are no task of another runner, and what is there stays as it was.
    let list = client.get("/v1/tasks").json();
    assert_eq!(list[0], both[0]);
    assert_eq!(list[1], one(&id, "exited"), "what was forgotten stays so");
    assert!(root.join("task-0000bbbb/0000bbbb.result").exists());
    client.delete(&format!("/v1/tasks/{id}")).expect(200);
    eventually(SOON, "its files are gone", || !own.exists());
}

/// Runs a task file in a directory of its own.
fn run(home: &Home, name: &str, task: &Value, flags: &[&str]) -> (cli::Finished, PathBuf) {
    let directory = home.path().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("task.json"), task.to_string()).unwrap();
    let mut command: Command = home.command(taskwright_tests::binary::taskwright());
    command
        .current_dir(&directory)
        .arg("run")
        .args(flags)
        .arg("task.json");
    (
        cli::finish(&mut command, b"", Duration::from_secs(60)),
        directory,
    )
}

#[test]
fn a_task_file_runs_by_itself_and_keeps_its_results_here() {
    let home = Home::new();
    let echo = |script: &str| json!({"machine": "echo", "parameters": script});
    let (finished, here) = run(
        &home,
        "good",
        &echo("echo hello\nlog info from the log\nreturn 7"),
        &[],
    );
    let finished = finished.expect(7);
    assert_eq!(finished.stdout, "hello\n");
    assert!(
        finished
            .stderr
            .ends_with("] INFO [echo.script:2] from the log\n"),
        "{finished:?}"
    );
    let read = |here: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(here.join("cli.result")).unwrap()).unwrap()
    };
    let result = read(&here);
    assert_eq!(
        (&result["task_id"], &result["exit_code"]),
        (&json!("cli"), &json!(7))
    );
    let text = log(&here);
    assert!(
        text.contains("hello\n") && text.contains("from the log\n"),
        "{text}"
    );
    assert!(text.ends_with("Runner completed\n"), "{text}");

    for (name, task, status, code) in [
        ("raise", echo("raise"), 253, -3),
        ("wrong", echo("shout"), 253, -3),
        (
            "unknown",
            json!({"machine": "powerman", "parameters": {}}),
            253,
            -3,
        ),
    ] {
        let (finished, here) = run(&home, name, &task, &[]);
        let finished = finished.expect(status);
        assert!(!finished.stderr.is_empty(), "{name} says why");
        assert_eq!(read(&here)["exit_code"], code, "{name}");
        assert!(log(&here).ends_with("Runner aborted\n"));
    }
    let (finished, here) = run(&home, "none", &json!({"machine": "echo"}), &[]);
    let finished = finished.expect(2);
    assert!(
        finished.stderr.contains("`machine` and `parameters`"),
        "{finished:?}"
    );
    assert!(!here.join("cli.result").exists());
    eventually(SOON, "no process is left", || {
        home.own_processes().is_empty()
    });
}

#[test]
fn a_signal_cancels_a_task_file_and_its_cleanup_runs() {
    let home = Home::new();
    let script = "echo up\nsleep 600\ncleanup\necho clean";
    let task = json!({"machine": "echo", "parameters": script});
    let file = home.file("task.json", task.to_string());
    let mut command = home.command(taskwright_tests::binary::taskwright());
    let mut running = cli::Running::start(command.arg("run").arg(&file), b"");
    eventually(Duration::from_secs(60), "it is up", || {
        running.stdout() == "up\n"
    });
    running.process().signal(rustix::process::Signal::INT);
    let finished = running.finish(SOON).expect(255);
    assert_eq!(finished.stdout, "up\nclean\n");
    let result = std::fs::read(home.path().join("cli.result")).unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(result["exit_code"], -1);
    assert!(log(home.path()).ends_with("Runner cancelled\n"));
    eventually(SOON, "no process is left", || {
        home.own_processes().is_empty() && home.task_processes().is_empty()
    });
}

#[test]
fn a_task_file_runs_at_a_daemon_that_is_named() {
    let daemon = Daemon::start();
    let server = format!("http://{}", daemon.address());
    let task =
        json!({"machine": "process", "parameters": {"command": ["sh", "-c", "echo hi; exit 4"]}});
    let (finished, here) = run(daemon.home(), "there", &task, &["--server", &server]);
    assert_eq!(finished.expect(4).stdout, "hi\n");
    assert!(log(&here).contains("hi\n"));
    let list = daemon.client().get("/v1/tasks").json();
    assert_eq!(list[0]["state"], "exited");
}

#[test]
fn policies_review_such_tasks_and_their_limits_count() {
    let cap = b"fn review(request) {\n    #{ change: #{ limits: #{ runSeconds: 1 } } }\n}\n";
    let folder = crate::scripts::holding(&[("cap.rhai", cap)]);
    folder.until("cap", |plugin| plugin["healthy"] == true);
    let client = folder.client();
    let id = create(&client, json!("echo up\nsleep 600\ncleanup\necho clean"));
    let ended = until_state(&client, &id, "exited");
    assert_eq!(ended["exitCode"], -2, "{ended}");
    assert_eq!(output(&client, &id, ""), "up\nclean\n");
    let directory = directory(&folder.daemon, &id);
    assert_eq!(finished(&directory, &id)["exit_code"], -2);
    assert!(log(&directory).ends_with("Runner timed out\n"));
}

#[test]
fn policies_see_such_tasks_as_documents() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let native = json!({"name": "native", "runtime": "echo",
        "spec": {"document": {"kind": "echo", "content": ["echo hello", "return 2"]}}});
    client.submit(&native);
    let ended = client.until_ended("native", SOON);
    assert_eq!(ended["spec"]["document"], native["spec"]["document"]);
    assert_eq!(ended["outcome"]["exitCode"], 2);
}
