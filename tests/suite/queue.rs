//! The queue of AIOpsLab's dialect: its documents' examples, workers that come and go, and
//! daemons that share a store.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskwright_tests::queued::{register, report, submit, task, until_claimed};
use taskwright_tests::{
    Daemon, Options, Request, SOON, cli, eventually, eventually_some, postgres, skip,
};

/// Runs a line of a document in a shell, with this daemon for its base URL.
fn shell(daemon: &Daemon, line: &str) -> Option<String> {
    let line = line.replace("localhost:8000", &daemon.address().to_string());
    let mut shell = daemon.home().command(Path::new("/bin/sh"));
    let answered = cli::finish(shell.args(["-c", &line]), b"", SOON);
    if answered.code == 127 {
        skip("there is no curl");
        return None;
    }
    Some(answered.expect(0).stdout)
}

#[test]
fn the_api_documents_examples_work_as_written() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let Some(created) = shell(
        &daemon,
        r#"curl -X POST http://localhost:8000/api/v1/tasks \
  -H "Content-Type: application/json" \
  -d '{
    "problem_id": "example-problem",
    "parameters": {
      "max_steps": 30,
      "timeout": 1800
    }
  }'"#,
    ) else {
        return;
    };
    let created: Value = serde_json::from_str(&created).unwrap();
    let id = created["id"].as_str().unwrap();
    let on = |line: &str| -> Value {
        let told = shell(&daemon, &format!("TASK_ID=\"{id}\"\n{line}")).unwrap();
        serde_json::from_str(&told).unwrap_or_else(|_| panic!("{line}: {told}"))
    };
    let read = on("curl http://localhost:8000/api/v1/tasks/$TASK_ID");
    assert_eq!(
        (&read["id"], &read["status"]),
        (&json!(id), &json!("pending"))
    );
    let logs = on("curl http://localhost:8000/api/v1/tasks/$TASK_ID/logs");
    assert_eq!(logs[0]["message"], "Task created");
    let cancelled = on("curl -X POST http://localhost:8000/api/v1/tasks/$TASK_ID/cancel");
    assert_eq!(
        (&cancelled["message"], &cancelled["task_id"]),
        (&json!("Task cancelled successfully"), &json!(id))
    );
    assert_eq!(on("curl http://localhost:8000/api/v1/workers"), json!([]));
    assert_eq!(
        on("curl http://localhost:8000/health")["queue"]["pending"],
        0
    );
    let scaled = on(
        r#"curl -X POST http://localhost:8000/api/v1/workers/internal/scale \
  -H "Content-Type: application/json" \
  -d '{"num_workers": 5}'"#,
    );
    assert_eq!(
        (&scaled["previous_count"], &scaled["new_count"]),
        (&json!(3), &json!(5))
    );
    // The readme's.
    let submitted = on(r#"curl -X POST http://localhost:8000/api/v1/tasks \
     -H "Content-Type: application/json" \
     -d '{
           "problem_id": "k8s_target_port-misconfig-detection-1",
           "parameters": {
             "backend_type": "orchestrator",
             "max_steps": 25,
             "agent_config": {"model": "gpt-5-mini"}
           }
         }'"#);
    assert_eq!(
        submitted["parameters"]["agent_config"]["model"],
        "gpt-5-mini"
    );
    let lines = on("curl \"http://localhost:8000/api/v1/tasks/$TASK_ID/logs?limit=50\"");
    assert_eq!(lines.as_array().unwrap().len(), 2);
    assert_eq!(
        on("curl http://localhost:8000/api/v1/tasks/stats")["pending_tasks"],
        1
    );
    let line = "curl \"http://localhost:8000/api/v1/llm-conversations?task_id=$TASK_ID\"";
    assert_eq!(on(line)["total"], 0);
    assert_eq!(on("curl http://localhost:8000/queue/stats")["cancelled"], 1);
    let metrics = client.get("/metrics").text();
    for line in [
        "task_queue_size{status=\"pending\"} 1",
        "worker_count{status=\"idle\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn a_claim_waits_until_there_is_work() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let path = format!("/api/v1/workers/{worker}/claim?wait=60s");
    let waiting = {
        let client = daemon.client();
        thread::spawn(move || client.send(Request::new("POST", &path)).expect(200).json())
    };
    let id = submit(&client, &json!({"problem_id": "p"}));
    let begun = Instant::now();
    let claimed = waiting.join().unwrap();
    assert_eq!(claimed["id"], id.as_str());
    assert!(begun.elapsed() < SOON);
    assert_eq!(
        report(&client, &worker, &id, "complete", &json!({"ok": true})).status,
        200
    );
    assert_eq!(task(&client, &id)["result"], json!({"ok": true}));
}

#[test]
fn what_is_queued_survives_a_kill() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let running = submit(
        &client,
        &json!({"problem_id": "p", "parameters": {"priority": 9}}),
    );
    let claimed = until_claimed(&client, &worker);
    assert_eq!(claimed["id"], running.as_str());
    let waiting = submit(&client, &json!({"problem_id": "q"}));
    daemon.kill();
    daemon.start_again();
    let client = daemon.client();
    assert_eq!(task(&client, &waiting)["status"], "pending");
    assert_eq!(task(&client, &running)["status"], "running");
    // The lease goes on: its worker may still report.
    assert_eq!(
        report(&client, &worker, &running, "complete", &json!({})).status,
        200
    );
    assert_eq!(until_claimed(&client, &worker)["id"], waiting.as_str());
}

#[test]
fn a_silent_worker_loses_its_task() {
    let daemon = Options::new().flag("--worker-heartbeat-timeout=1s").start();
    let client = daemon.client();
    let silent = register(&client, 1, 1);
    let id = submit(&client, &json!({"problem_id": "p"}));
    assert_eq!(until_claimed(&client, &silent)["attempt"], 1);
    eventually(SOON, "it is taken from its worker", || {
        task(&client, &id)["status"] == "pending"
    });
    let next = register(&client, 2, 1);
    let second = until_claimed(&client, &next);
    assert_eq!((&second["id"], &second["attempt"]), (&json!(id), &json!(2)));
    assert_eq!(
        report(&client, &silent, &id, "complete", &json!({"late": true})).status,
        409
    );
    assert_eq!(
        report(&client, &next, &id, "complete", &json!({"late": false})).status,
        200
    );
    let ended = task(&client, &id);
    assert_eq!(ended["result"], json!({"late": false}));
    let outcomes: Vec<&str> = ended["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["lost", "completed"]);
    let offline = client.get("/api/v1/workers?status=offline").json();
    assert_eq!(offline[0]["id"], silent.as_str());
}

#[test]
fn a_time_limit_fires_whatever_the_worker_does() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let limit = json!({"problem_id": "p", "parameters": {"timeout": 0.3}});
    let id = submit(&client, &limit);
    until_claimed(&client, &worker);
    // Its worker is alive and says so; it only takes too long.
    let ended = eventually_some(SOON, "it is out of time", || {
        let beat = json!({"status": "busy", "current_task_id": id});
        let heard = client.post(&format!("/api/v1/workers/{worker}/heartbeat"), &beat);
        let gone = heard.expect(200).json()["cancelled"] == true;
        gone.then(|| task(&client, &id))
    });
    assert_eq!(
        (&ended["status"], &ended["cause"]),
        (&json!("timeout"), &json!("time-limit"))
    );
    assert_eq!(
        report(&client, &worker, &id, "complete", &json!({})).status,
        409
    );
    submit(&client, &json!({"problem_id": "q"}));
    assert_eq!(
        until_claimed(&client, &worker)["problem_id"],
        "q",
        "its place is free"
    );
}

#[test]
fn bad_input_is_refused_before_anything_is_stored() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let worker = register(&client, 1, 1);
    let id = submit(&client, &json!({"problem_id": "p"}));
    until_claimed(&client, &worker);
    let large = json!({"result": "x".repeat(50 << 20)});
    assert_eq!(
        report(&client, &worker, &id, "complete", &large).status,
        413
    );
    assert_eq!(
        task(&client, &id)["status"],
        "running",
        "nothing of it was stored"
    );
    let turns: Vec<Value> = (0..100_000)
        .map(|_| json!({"role": "user", "content": "x"}))
        .collect();
    let begin = json!({"task_id": id, "messages": turns});
    let refused = client.post("/api/v1/llm-conversations", &begin);
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(client.get("/api/v1/llm-conversations").json()["total"], 0);
    for (method, path) in [
        ("GET", "/api/v1/tasks/not-an-id"),
        ("GET", "/api/v1/tasks?limit=-5"),
        ("POST", "/api/v1/tasks"),
        ("POST", "/api/v1/workers/register"),
        ("GET", "/api/v1/llm-conversations/7"),
    ] {
        let answer = client.send(Request::new(method, path));
        assert_eq!(answer.status, 422, "{method} {path}: {}", answer.text());
        let error = answer.json();
        assert_eq!(error["type"], "validation_error", "{error}");
        assert_eq!(error["request_id"], answer.header("x-request-id").unwrap());
    }
}

#[test]
fn daemons_share_a_queue_on_postgres() {
    let Some(address) = postgres::database() else {
        return;
    };
    let start = |lease: &str| {
        Options::new()
            .variable(
                "DATABASE_URL",
                &address.replace("postgres://", "postgresql+asyncpg://"),
            )
            .flag(lease)
            .start()
    };
    let mut one = start("--worker-heartbeat-timeout=2s");
    let other = start("--worker-heartbeat-timeout=2s");
    let (first, second) = (one.client(), other.client());
    let worker = register(&second, 1, 1);
    // A claim that waits at one daemon gets what the other is given. No wait is longer than most of
    // the lease, so it comes again.
    let path = format!("/api/v1/workers/{worker}/claim?wait=60s");
    let waiting = {
        let client = other.client();
        thread::spawn(move || {
            eventually_some(SOON, "a waiting claim is answered", || {
                let answer = client.send(Request::new("POST", &path));
                (answer.status == 200).then(|| answer.json())
            })
        })
    };
    let id = submit(&first, &json!({"problem_id": "p"}));
    assert_eq!(waiting.join().unwrap()["id"], id.as_str());
    assert_eq!(task(&first, &id)["worker_id"], worker.as_str());
    // One dies; the other takes its part over.
    one.kill();
    eventually(
        Duration::from_secs(30),
        "the lost worker's task waits again",
        || task(&second, &id)["status"] == "pending",
    );
    let next = register(&second, 2, 1);
    let again = until_claimed(&second, &next);
    assert_eq!(again["attempt"], 2);
    assert_eq!(
        report(&second, &next, &id, "complete", &json!({"n": 1})).status,
        200
    );
    one.start_again();
    assert_eq!(task(&one.client(), &id)["result"], json!({"n": 1}));
}
