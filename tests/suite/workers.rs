//! Workers that run tasks of the queue on this machine: those inside a daemon, and
//! `taskwright worker`.

mod elsewhere;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::queued::{self, task};
use taskwright_tests::{
    Client, Daemon, Home, Options, Request, SOON, binary, cli, eventually, eventually_some,
};

fn submit(client: &Client, problem: &str, parameters: &Value) -> String {
    let body = json!({"problem_id": problem, "parameters": parameters});
    queued::submit(client, &body)
}

fn ended(client: &Client, id: &str) -> Value {
    eventually_some(SOON, "the task ends", || {
        let task = task(client, id);
        let over = !matches!(task["status"].as_str(), Some("pending" | "running"));
        over.then_some(task)
    })
}

fn until_running(client: &Client, id: &str) {
    eventually(SOON, "the task runs", || {
        task(client, id)["status"] == "running"
    });
}

fn status(client: &Client) -> Value {
    let answer = client.get("/api/v1/workers/internal/status");
    answer.expect(200).json()
}

/// A daemon with templates, and so with workers of its own.
fn with_templates(text: &str, flags: &[&str]) -> Daemon {
    let options = flags
        .iter()
        .fold(Options::new(), |all, flag| all.flag(flag));
    with_template_options(text, options)
}

fn with_template_options(text: &str, options: Options) -> Daemon {
    let home = Home::new();
    let file = home.file("config.toml", text);
    let options = options.flag(&format!("--config={}", file.display()));
    options.start_in(home)
}

/// A command that appends a line to a file when it begins and when it ends, and waits in between
/// until it may end.
fn witness(home: &Home) -> String {
    let (seen, go) = (home.path().join("seen"), home.path().join("go"));
    format!(
        "echo begin $TASKWRIGHT_TASK_ID $TASKWRIGHT_ATTEMPT >> {seen}; \
         while [ ! -e {go} ]; do sleep 0.05; done; \
         echo end $TASKWRIGHT_TASK_ID $TASKWRIGHT_ATTEMPT >> {seen}",
        seen = seen.display(),
        go = go.display()
    )
}

fn seen(home: &Home, word: &str) -> usize {
    let text = std::fs::read_to_string(home.path().join("seen")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(word)).count()
}

#[test]
fn a_template_runs_what_is_submitted() {
    let daemon = with_templates(
        r#"
[[queue.templates]]
problems = ["sum-*"]
task.spec.process.command = ["sh", "-c", '''
echo plain
echo '{"level":"warn","msg":"careful","n":1}'
echo "[ERROR] broken" >&2
echo "{\"sum\": $((TASKWRIGHT_PARAM_A + TASKWRIGHT_PARAM_B)), \"problem\": \"$TASKWRIGHT_PROBLEM_ID\"}" > "$TASKWRIGHT_RESULT"
cat "$TASKWRIGHT_PARAMETERS" >&2
''']
[[queue.templates]]
problems = ["code"]
task.spec.process.command = ["sh", "-c", "exit $TASKWRIGHT_PARAM_CODE"]
"#,
        &[],
    );
    let client = daemon.client();
    let id = submit(
        &client,
        "sum-1",
        &json!({"a": 40, "b": 2, "deep": {"x": [1]}}),
    );
    let done = ended(&client, &id);
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["result"], json!({"sum": 42, "problem": "sum-1"}));
    assert_eq!(
        done["worker_id"].as_str().unwrap().len(),
        "worker-001-kind".len()
    );

    let logs = client.get(&format!("/api/v1/tasks/{id}/logs?limit=1000"));
    let logs = logs.expect(200).json();
    let level = |text: &str| {
        let all = logs.as_array().unwrap().iter();
        let mut found = all.filter(|line| line["message"].as_str().unwrap().contains(text));
        found
            .next()
            .map(|line| line["level"].as_str().unwrap().to_owned())
    };
    assert_eq!(level("plain").as_deref(), Some("info"), "{logs}");
    assert_eq!(level("careful").as_deref(), Some("warning"), "{logs}");
    assert_eq!(level("broken").as_deref(), Some("error"), "{logs}");
    // The file has everything, what is no plain value included.
    assert!(level(r#""deep":{"x":[1]}"#).is_some(), "{logs}");

    let id = submit(&client, "code", &json!({"code": 0}));
    assert_eq!(
        ended(&client, &id)["result"],
        json!({"success": true, "exit_code": 0})
    );
    let id = submit(&client, "code", &json!({"code": 7}));
    let failed = ended(&client, &id);
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error_details"], "the command ended with 7");

    // Nobody runs what no template is for.
    let other = submit(&client, "other", &json!({}));
    let id = submit(&client, "sum-2", &json!({"a": 1, "b": 1}));
    ended(&client, &id);
    assert_eq!(task(&client, &other)["status"], "pending");
    // What ran leaves nothing behind.
    let work = daemon.home().data().join(".taskwright-work");
    eventually(SOON, "the folders are removed", || {
        std::fs::read_dir(&work).map_or(0, Iterator::count) == 0
    });
}

#[test]
fn workers_of_a_daemon_are_started_scaled_and_stopped() {
    let home = Home::new();
    let text = format!(
        "[[queue.templates]]\ntask.spec.process.command = ['sh', '-c', '''{}''']\n",
        witness(&home)
    );
    let file = home.file("config.toml", text);
    let options = Options::new().variable("NUM_INTERNAL_WORKERS", "2");
    let daemon = options
        .flag(&format!("--config={}", file.display()))
        .start_in(home);
    let client = daemon.client();
    let workers = |count: usize| {
        eventually(SOON, "there are as many as are wanted", || {
            status(&client)["num_workers"] == count
        });
    };
    workers(2);
    let told = status(&client);
    assert_eq!(told["running"], true, "{told}");
    assert_eq!(told["workers"][0]["id"], "worker-001-kind");
    assert_eq!(told["workers"][0]["status"], "idle");

    // As the documents have it: the number in the body, or in the query.
    let scaled = client.post("/api/v1/workers/internal/scale", &json!({"num_workers": 3}));
    let scaled = scaled.expect(200).json();
    assert_eq!(
        (&scaled["previous_count"], &scaled["new_count"]),
        (&json!(2), &json!(3))
    );
    workers(3);
    let scale = |count: &str| {
        let path = format!("/api/v1/workers/internal/scale?num_workers={count}");
        client.send(Request::new("POST", &path)).status
    };
    for bad in ["51", "-1", "1.5", "x", ""] {
        assert_eq!(scale(bad), 422, "{bad}");
    }
    for body in [
        json!({"num_workers": 51}),
        json!({}),
        json!([]),
        json!({"num_workers": "3"}),
    ] {
        let refused = client.post("/api/v1/workers/internal/scale", &body);
        assert_eq!(refused.status, 422, "{body}");
        assert_eq!(refused.json()["type"], "validation_error", "{body}");
    }

    // Three tasks, three workers; then none is wanted, and all three are finished.
    let ids: Vec<String> = (0..3)
        .map(|n| submit(&client, &format!("p{n}"), &json!({})))
        .collect();
    ids.iter().for_each(|id| until_running(&client, id));
    eventually(SOON, "each of them runs", || {
        seen(daemon.home(), "begin") == 3
    });
    assert_eq!(scale("0"), 200);
    eventually(SOON, "they finish what they hold", || {
        status(&client)["workers"][2]["status"] == "draining"
    });
    let _go = daemon.home().file("go", "");
    for id in &ids {
        assert_eq!(ended(&client, id)["status"], "completed");
    }
    workers(0);

    // Stopped, scaled and started again, they are as many as were asked for last.
    let post = |path: &str| client.send(Request::new("POST", path)).expect(200).json();
    let stopped = post("/api/v1/workers/internal/stop");
    assert_eq!(stopped["status"], "stopped", "{stopped}");
    assert_eq!(scale("2"), 200);
    assert_eq!(status(&client)["running"], false);
    let waiting = submit(&client, "later", &json!({}));
    let started = post("/api/v1/workers/internal/start");
    assert_eq!(
        (&started["worker_count"], &started["status"]),
        (&json!(2), &json!("started"))
    );
    workers(2);
    assert_eq!(ended(&client, &waiting)["status"], "completed");
    post("/api/v1/workers/internal/start");
    workers(2);
}

#[test]
fn without_a_template_the_documents_calls_are_answered_and_no_task_is_taken() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let told = status(&client);
    assert_eq!(
        (&told["running"], &told["enabled"]),
        (&json!(false), &json!(false))
    );
    let body = json!({"num_workers": 5});
    client
        .post("/api/v1/workers/internal/scale", &body)
        .expect(200);
    let id = submit(&client, "p", &json!({}));
    client
        .send(Request::new("POST", "/api/v1/workers/internal/start"))
        .expect(200);
    eventually(SOON, "they are there", || {
        status(&client)["num_workers"] == 5
    });
    let workers = client.get("/api/v1/workers").expect(200).json();
    assert_eq!(workers.as_array().unwrap().len(), 5);
    assert_eq!(task(&client, &id)["status"], "pending");
    let keyed = client
        .get("/aiopslab/api/v1/workers/internal/status")
        .expect(200)
        .json();
    assert_eq!(keyed["workers"]["worker-001-internal"]["status"], "running");
}

#[test]
fn a_daemon_that_is_killed_goes_on_with_the_same_attempt() {
    let home = Home::new();
    let text = format!(
        "[[queue.templates]]\ntask.spec.process.command = ['sh', '-c', '''{}; echo done''']\n",
        witness(&home)
    );
    let file = home.file("config.toml", text);
    let mut daemon = Options::new()
        .flag(&format!("--config={}", file.display()))
        .start_in(home);
    let client = daemon.client();
    let id = submit(&client, "p", &json!({}));
    until_running(&client, &id);
    eventually(SOON, "it runs", || seen(daemon.home(), "begin") == 1);
    daemon.kill();
    daemon.start_again();
    assert_eq!(task(&client, &id)["status"], "running");
    let _go = daemon.home().file("go", "");
    let done = ended(&client, &id);
    assert_eq!(
        (&done["status"], &done["attempt"]),
        (&json!("completed"), &json!(1)),
        "{done}"
    );
    assert_eq!(
        (seen(daemon.home(), "begin"), seen(daemon.home(), "end")),
        (1, 1)
    );
    // Its end while the daemon is away is reported, too.
    std::fs::remove_file(daemon.home().path().join("go")).unwrap();
    let id = submit(&client, "p", &json!({}));
    eventually(SOON, "it runs", || seen(daemon.home(), "begin") == 2);
    daemon.kill();
    let _go = daemon.home().file("go", "");
    eventually(SOON, "it ends", || seen(daemon.home(), "end") == 2);
    daemon.start_again();
    let done = ended(&client, &id);
    assert_eq!(
        (&done["status"], &done["attempt"]),
        (&json!("completed"), &json!(1)),
        "{done}"
    );
    let logs = client
        .get(&format!("/api/v1/tasks/{id}/logs"))
        .expect(200)
        .text();
    assert_eq!(logs.matches("\"done\"").count(), 1, "{logs}");
}

#[test]
fn what_is_cancelled_is_stopped_where_it_runs() {
    let daemon = with_templates(
        "[[queue.templates]]\ntask.spec.process.command = ['sleep', '1000']\n",
        &["--worker-heartbeat-timeout=4s"],
    );
    let client = daemon.client();
    let id = submit(&client, "p", &json!({}));
    until_running(&client, &id);
    eventually(SOON, "it runs", || {
        !daemon.home().task_processes().is_empty()
    });
    let path = format!("/api/v1/tasks/{id}/cancel");
    client.send(Request::new("POST", &path)).expect(200);
    eventually(SOON, "it is stopped", || {
        daemon.home().task_processes().is_empty()
    });
    // And the worker takes the next one.
    let next = submit(&client, "p", &json!({}));
    until_running(&client, &next);
}

#[test]
fn an_id_that_somebody_else_takes_is_left_to_them() {
    let daemon = with_templates(
        "[[queue.templates]]\nproblems = ['mine']\ntask.spec.process.command = ['true']\n",
        &["--worker-heartbeat-timeout=2s", "--internal-workers=1"],
    );
    let client = daemon.client();
    eventually(SOON, "it is there", || {
        status(&client)["workers"][0]["id"] == "worker-001-kind"
    });
    let body = json!({"worker_id": "worker-001-kind", "backend_type": "kind"});
    client.post("/api/v1/workers/register", &body).expect(201);
    eventually(SOON, "it goes on under another id", || {
        status(&client)["workers"][0]["id"] == "worker-002-kind"
    });
    let worker = client
        .get("/api/v1/workers/worker-001-kind")
        .expect(200)
        .json();
    assert_eq!(worker["backend_type"], "kind");
    let id = submit(&client, "mine", &json!({}));
    assert_eq!(ended(&client, &id)["worker_id"], "worker-002-kind");
}

#[test]
fn an_id_can_be_asked_for_that_nobody_has() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let body = json!({"worker_id": "worker-007-kind", "backend_type": "kind"});
    let fresh = || {
        let request = Request::new("POST", "/api/v1/workers/register").json(&body);
        client.send(request.header("If-None-Match", "*"))
    };
    fresh().expect(201);
    let refused = fresh();
    assert_eq!(refused.status, 412);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("worker-007-kind")
    );
    // Whoever knows its tasks keeps them.
    let id = submit(&client, "p", &json!({}));
    let claim = Request::new("POST", "/api/v1/workers/worker-007-kind/claim");
    client.send(claim).expect(200);
    let resume = json!({"worker_id": "worker-007-kind", "backend_type": "kind", "resume": true});
    let kept = client
        .post("/api/v1/workers/register", &resume)
        .expect(201)
        .json();
    assert_eq!(kept["current_task_ids"], json!([id]));
    client.post("/api/v1/workers/register", &body).expect(201);
    assert_eq!(task(&client, &id)["status"], "pending");
}

/// `taskwright worker` for this daemon, as a user starts it.
fn worker(daemon: &Daemon, name: &str, words: &[&str]) -> cli::Running {
    let url = format!("http://{}", daemon.address());
    let data = daemon.home().path().join(name);
    let mut command = daemon.home().command(binary::taskwright());
    command
        .args(["worker", "--api-url", &url, "--data-dir"])
        .arg(data)
        .args(["--heartbeat-interval", "500ms"])
        .args(words)
        .env("TASKWRIGHT_TASK_ENV", daemon.home().mark());
    cli::Running::start(&mut command, b"")
}

#[test]
fn two_worker_programs_empty_a_queue_and_one_may_die() {
    let daemon = Options::new().flag("--worker-heartbeat-timeout=2s").start();
    let client = daemon.client();
    let home = daemon.home();
    let script = format!(
        "echo begin >> {seen}; echo '{{\"answer\": 1}}' > $TASKWRIGHT_RESULT; sleep 0.$TASKWRIGHT_PARAM_TENTHS",
        seen = home.path().join("seen").display()
    );
    let words = ["--problem", "job-*", "--", "sh", "-c", script.as_str()];
    let ids: Vec<String> = (0..20)
        .map(|n| submit(&client, &format!("job-{n}"), &json!({"tenths": n % 3})))
        .collect();
    let mut first = worker(&daemon, "one", &words);
    let mut second = worker(&daemon, "two", &words);
    eventually(SOON, "they work", || seen(home, "begin") >= 4);
    first.process().kill();
    for id in &ids {
        let done = ended(&client, id);
        assert_eq!(done["status"], "completed", "{done}");
        assert_eq!(done["result"], json!({"answer": 1}));
    }
    // Told to end, the other one ends.
    second.process().signal(Signal::TERM);
    second.finish(SOON).expect(0);
    let workers = client.get("/api/v1/workers").expect(200).json();
    let ids = workers.as_array().unwrap().iter();
    let ids: Vec<&str> = ids.map(|worker| worker["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_worker_program_that_is_killed_goes_on_with_what_it_held() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let script = witness(daemon.home());
    let words = ["--id", "worker-042-kind", "--", "sh", "-c", script.as_str()];
    let id = submit(&client, "p", &json!({}));
    let mut program = worker(&daemon, "one", &words);
    eventually(SOON, "it runs", || seen(daemon.home(), "begin") == 1);
    program.process().kill();
    let mut again = worker(&daemon, "one", &words);
    let _go = daemon.home().file("go", "");
    let done = ended(&client, &id);
    assert_eq!(
        (&done["status"], &done["attempt"], &done["worker_id"]),
        (&json!("completed"), &json!(1), &json!("worker-042-kind"))
    );
    assert_eq!(seen(daemon.home(), "begin"), 1);
    again.process().signal(Signal::TERM);
    again.finish(SOON).expect(0);
}

#[test]
fn a_worker_program_waits_for_its_queue_and_survives_its_restart() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    daemon.kill();
    let mut program = worker(&daemon, "one", &["--", "true"]);
    daemon.start_again();
    let id = submit(&client, "p", &json!({}));
    assert_eq!(ended(&client, &id)["status"], "completed");
    daemon.kill();
    daemon.start_again();
    let id = submit(&client, "p", &json!({}));
    assert_eq!(ended(&client, &id)["status"], "completed");
    program.process().signal(Signal::TERM);
    program.finish(SOON).expect(0);
}

#[test]
fn a_worker_program_says_what_it_misses() {
    let home = Home::new();
    let worker = |words: &[&str]| {
        let mut command = home.command(Path::new(binary::taskwright()));
        command.arg("worker").args(words);
        cli::finish(&mut command, b"", Duration::from_secs(20))
    };
    let told = worker(&["--api-url", "http://127.0.0.1:1"]).expect(2);
    assert!(
        told.stderr.contains("[[queue.templates]]"),
        "{}",
        told.stderr
    );
    let told = worker(&[
        "--api-url",
        "http://127.0.0.1:1",
        "--id",
        "a b",
        "--",
        "true",
    ])
    .expect(2);
    assert!(told.stderr.contains("worker id"), "{}", told.stderr);
    let told = worker(&[
        "--api-url",
        "http://127.0.0.1:1",
        "--problem",
        "[",
        "--",
        "true",
    ])
    .expect(2);
    assert!(told.stderr.contains("pattern"), "{}", told.stderr);
    worker(&["--", "true"]).expect(2);
}
