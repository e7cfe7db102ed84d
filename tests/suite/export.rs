//! Everything that is kept of queued tasks, taken out: whole, once, in order, and with a word on
//! whose doing each end was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use taskwright_tests::queued::{claim, register, report, submit, until_claimed};
use taskwright_tests::{
    Client, Daemon, Options, Request, SOON, eventually, eventually_some, postgres,
};

const LONG: Duration = Duration::from_secs(120);

/// A task that `worker` holds, and its attempt.
fn held(client: &Client, worker: &str, body: &Value) -> (String, u64) {
    let id = submit(client, body);
    let claimed = until_claimed(client, worker);
    assert_eq!(claimed["id"], id.as_str());
    (id, claimed["attempt"].as_u64().unwrap())
}

/// A conversation of a task, as a worker that names itself writes it.
fn converse(client: &Client, worker: &str, task: &str, attempt: u64, messages: &Value) -> String {
    let body = json!({
        "task_id": task, "worker_id": worker, "attempt": attempt, "model_name": "gpt-5-mini",
        "llm_config": {"temperature": 0.7}, "metadata": {"cluster_name": "kind"},
        "messages": messages,
    });
    let begun = client.post("/api/v1/llm-conversations", &body);
    begun.expect(201).json()["id"].as_str().unwrap().to_owned()
}

fn turns(text: &str) -> Value {
    json!([
        {"role": "system", "content": "you are an engineer"},
        {"role": "user", "content": text},
        {"role": "assistant", "content": "exec_shell(\"ls\")", "tool_calls": [{"id": "t"}]},
    ])
}

/// Rows of an export in lines, and its last line.
fn rows(client: &Client, query: &str) -> (Vec<Value>, Value) {
    let answer = client.get(&format!("/api/v1/export?{query}")).expect(200);
    lines(&answer.text())
}

fn lines(text: &str) -> (Vec<Value>, Value) {
    assert!(text.ends_with('\n'));
    let mut rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = rows.pop().unwrap();
    assert_eq!(last["export"], "complete", "{last}");
    assert_eq!(last["rows"], rows.len());
    (rows, last)
}

fn on_both_stores(check: impl Fn(Options)) {
    check(Options::new());
    if let Some(address) = postgres::database() {
        check(Options::new().flag(&format!("--store={address}")));
    }
}

#[test]
fn the_calls_of_the_originals_export_script_work_in_their_order() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let worker = register(&client, 1, 100);
    let mut made = Vec::new();
    for number in 0..5 {
        let (id, attempt) = held(&client, &worker, &json!({"problem_id": "p"}));
        let line = json!({"message": format!("line {number}"), "level": "info"});
        client
            .post(&format!("/api/v1/tasks/{id}/logs"), &line)
            .expect(201);
        converse(&client, &worker, &id, attempt, &turns("hello"));
        report(&client, &worker, &id, "complete", &json!({"success": true})).expect(200);
        made.push(id);
    }
    // As the script asks: everything below the base, sequentially, with these words.
    let base = "/aiopslab/api/v1";
    let get = |path: String| client.get(&format!("{base}{path}")).expect(200).json();
    let mut exported = Vec::new();
    let mut page = 1;
    loop {
        let listed = get(format!("/tasks?page={page}&page_size=2&sort=created_at"));
        let tasks = listed["tasks"].as_array().unwrap().clone();
        for task in &tasks {
            let id = task["id"].as_str().unwrap();
            let logs = get(format!("/tasks/{id}/logs?limit=1000"))["logs"].clone();
            assert_eq!(logs[0]["message"], "Task created");
            let mut conversations = Vec::new();
            let mut part = 1;
            loop {
                let found = get(format!(
                    "/llm-conversations?task_id={id}&page={part}&page_size=50"
                ));
                let listed = found["conversations"].as_array().unwrap();
                for conversation in listed {
                    let id = conversation["id"].as_str().unwrap();
                    let told = get(format!("/llm-conversations/{id}/messages"));
                    assert_eq!(told["conversation_id"], id);
                    assert_eq!(told["total_messages"], 3);
                    assert_eq!(told["messages"][2]["content"], "exec_shell(\"ls\")");
                    conversations.push(told);
                }
                let seen = conversations.len();
                if listed.is_empty() || seen >= found["total"].as_u64().unwrap() as usize {
                    break;
                }
                part += 1;
            }
            assert_eq!(conversations.len(), 1);
            exported.push(id.to_owned());
        }
        if tasks.is_empty() || exported.len() >= listed["total"].as_u64().unwrap() as usize {
            break;
        }
        page += 1;
    }
    assert_eq!(exported, made);
    // The same document in one call, with what the script leaves out.
    let whole = client
        .get(&format!("{base}/export?format=aiopslab"))
        .expect(200);
    let whole = whole.json();
    assert_eq!(whole["task_count"], 5);
    assert!(whole["exported_at"].as_str().unwrap().ends_with('Z'));
    // As the client called it.
    assert_eq!(whole["base_url"], "http://localhost/aiopslab");
    for (task, id) in whole["tasks"].as_array().unwrap().iter().zip(&made) {
        assert_eq!(
            (&task["task"]["id"], &task["validity"]),
            (&json!(id), &json!("valid"))
        );
        let by_hand = get(format!("/tasks/{id}/logs?limit=1000"));
        assert_eq!(task["logs"], by_hand["logs"]);
        let conversation = &task["conversations"][0];
        let id = conversation["conversation_id"].as_str().unwrap();
        let by_hand = get(format!("/llm-conversations/{id}/messages"));
        assert_eq!(conversation["messages"], by_hand["messages"]);
        assert_eq!(conversation["total_messages"], 3);
        assert_eq!(conversation["summary"]["model_name"], "gpt-5-mini");
    }
}

#[test]
fn rows_tell_whose_doing_the_end_was() {
    on_both_stores(|options| {
        let daemon = options.flag("--worker-heartbeat-timeout=3s").start();
        let client = daemon.client();
        let worker = register(&client, 1, 100);
        let beat = || {
            let beat = json!({"status": "idle", "current_task_id": null});
            client
                .post(&format!("/api/v1/workers/{worker}/heartbeat"), &beat)
                .expect(200);
        };
        let task = |problem: &str| json!({"problem_id": problem, "parameters": {"max_steps": 2}});
        let begin = |problem: &str| {
            beat();
            let (id, attempt) = held(&client, &worker, &task(problem));
            converse(&client, &worker, &id, attempt, &turns(problem));
            id
        };
        let id = begin("done");
        report(&client, &worker, &id, "complete", &json!({})).expect(200);
        let id = begin("failed");
        report(&client, &worker, &id, "fail", &json!({"error": "boom"})).expect(200);
        let id = begin("cancelled");
        client
            .send(Request::new("POST", &format!("/api/v1/tasks/{id}/cancel")))
            .expect(200);
        let id = begin("cut-off");
        let steps = json!({"worker_id": worker, "attempt": 1, "steps": [
            {"step": 0, "observation": "o", "action": "a", "reward": 0.25, "token_logprobs": [-0.5]},
            {"step": 1, "observation": "o", "action": "b", "reward": 0.5},
        ]});
        client
            .post(&format!("/api/v1/tasks/{id}/steps"), &steps)
            .expect(201);
        report(&client, &worker, &id, "complete", &json!({})).expect(200);
        let id = begin("late");
        let lost = begin("lost");
        // Both lose their worker; the first is then done by another.
        let next = register(&client, 2, 100);
        let retaken: BTreeSet<String> = (0..2)
            .map(|_| {
                eventually_some(LONG, "it is claimed again", || claim(&client, &next))["id"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(retaken, BTreeSet::from([id.clone(), lost.clone()]));
        let stale = json!({"message": "late", "worker_id": worker, "attempt": 1});
        let refused = client.post(&format!("/api/v1/tasks/{id}/logs"), &stale);
        assert_eq!(refused.status, 409, "{}", refused.text());
        converse(&client, &next, &id, 2, &turns("second"));
        report(&client, &next, &id, "complete", &json!({})).expect(200);
        let failed = json!({"error": "disk", "cause": "infrastructure"});
        report(&client, &next, &lost, "fail", &failed).expect(200);
        let (chat, _) = rows(&client, "format=chat");
        let mut told: Vec<(String, String, Value)> = chat
            .iter()
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
                let turn = row["messages"][1]["content"].as_str().unwrap().to_owned();
                assert_eq!(row["messages"][2]["tool_calls"], json!([{"id": "t"}]));
                (turn, text("validity"), row["validity_reason"].clone())
            })
            .collect();
        told.sort_by(|one, other| one.0.cmp(&other.0));
        let row = |turn: &str, mark: &str, why: Value| (turn.to_owned(), mark.to_owned(), why);
        assert_eq!(
            told,
            [
                row("cancelled", "invalid", json!("cancelled")),
                row("cut-off", "truncated", json!("step-limit")),
                row("done", "valid", Value::Null),
                row("failed", "valid", Value::Null),
                // The first attempt, though the task was completed by the second.
                row("late", "invalid", json!("worker-lost")),
                row("second", "valid", Value::Null),
            ]
        );
        let cut = chat
            .iter()
            .find(|row| row["validity"] == "truncated")
            .unwrap();
        assert_eq!(cut["reward"], 0.75);
        let (tasks, _) = rows(&client, "format=tasks&problem=late");
        let attempts = tasks[0]["attempts"].as_array().unwrap();
        let marks: Vec<&Value> = attempts
            .iter()
            .map(|attempt| &attempt["validity"])
            .collect();
        assert_eq!(marks, ["invalid", "valid"]);
        assert_eq!(tasks[0]["validity"], "valid");
        let (tasks, _) = rows(&client, "format=tasks&validity=truncated");
        assert_eq!(tasks[0]["problem_id"], "cut-off");
        assert_eq!(tasks[0]["steps"][1]["data"], steps["steps"][1]);
        // One waits for its next attempt, and is told only if asked for.
        let (open, _) = rows(&client, "format=tasks&ended_only=false&problem=lost");
        assert_eq!(open[0]["validity_reason"], "not-ended");
        assert_eq!(rows(&client, "format=tasks&problem=lost").0.len(), 0);
    });
}

#[test]
fn what_ends_during_exports_is_neither_missed_nor_repeated() {
    on_both_stores(|options| {
        let daemon = options.start();
        let client = daemon.client();
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (1..=3)
            .map(|number| {
                let (client, over) = (daemon.client(), over.clone());
                thread::spawn(move || {
                    let worker = register(&client, number, 100);
                    for _ in 0..40 {
                        submit(&client, &json!({"problem_id": "p"}));
                        let Some(task) = claim(&client, &worker) else {
                            continue;
                        };
                        let id = task["id"].as_str().unwrap();
                        let attempt = task["attempt"].as_u64().unwrap();
                        converse(&client, &worker, id, attempt, &turns(id));
                        report(&client, &worker, id, "complete", &json!({})).expect(200);
                    }
                    over.store(true, Ordering::SeqCst);
                })
            })
            .collect();
        let mut seen: Vec<String> = Vec::new();
        let mut cursor = "0".to_owned();
        let mut rounds = 0;
        loop {
            let last_round = over.load(Ordering::SeqCst) && writers.iter().all(|w| w.is_finished());
            let (some, last) = rows(&client, &format!("format=chat&cursor={cursor}"));
            seen.extend(some.iter().map(|row| {
                assert_eq!(row["messages"][1]["content"], row["task_id"]);
                row["conversation_id"].as_str().unwrap().to_owned()
            }));
            cursor = last["cursor"].as_str().unwrap().to_owned();
            rounds += 1;
            if last_round {
                break;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        let all: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(all.len(), seen.len(), "no row comes twice");
        let ended = client.get("/queue/stats").json()["completed"]
            .as_u64()
            .unwrap();
        assert_eq!(seen.len() as u64, ended, "none is missed");
        assert!(rounds > 1, "some ended in between");
        let (again, _) = rows(&client, "format=chat");
        let again: Vec<&str> = again
            .iter()
            .map(|row| row["conversation_id"].as_str().unwrap())
            .collect();
        assert_eq!(again, seen, "the order is for ever");
    });
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

/// So many conversations of a megabyte.
fn fill(client: &Client, count: usize) {
    let worker = register(client, 1, 100);
    let large = "x".repeat(1 << 20);
    for number in 0..count {
        let (id, attempt) = held(client, &worker, &json!({"problem_id": "p"}));
        converse(
            client,
            &worker,
            &id,
            attempt,
            &turns(&format!("{number} {large}")),
        );
        report(client, &worker, &id, "complete", &json!({})).expect(200);
    }
}

/// Starts an export and holds it where a part of it is there, but not all.
fn begin(daemon: &Daemon, file: &Path, words: &[&str]) -> taskwright_tests::cli::Running {
    let path = file.display().to_string();
    let mut all = vec!["export", "-o", path.as_str()];
    all.extend(words);
    let mut export = daemon.running(&all);
    let partial = beside(file, ".partial");
    eventually(SOON, "a part of the export is there", || {
        fs::metadata(&partial).is_ok_and(|found| found.len() > 1 << 20)
    });
    export.process().signal(Signal::STOP);
    assert!(!file.exists(), "a file appears when it is whole");
    export
}

#[test]
fn an_export_goes_on_when_the_daemon_was_killed_or_the_export_was() {
    on_both_stores(|options| {
        let mut daemon = options.start();
        let count = 60;
        fill(&daemon.client(), count);
        for (format, name) in [("chat", "chat.jsonl"), ("aiopslab", "tasks.json")] {
            let file = daemon.home().path().join(name);
            let mut export = begin(&daemon, &file, &["--format", format]);
            daemon.kill();
            export.process().signal(Signal::CONT);
            eventually(SOON, "the export notices", || {
                export.stderr().contains("it goes on")
            });
            assert!(!file.exists());
            daemon.start_again();
            let ended = export.finish(LONG).expect(0);
            assert!(ended.stderr.contains("was cut off"), "{}", ended.stderr);
            whole(&file, format, count);

            // The same, of the export itself.
            fs::remove_file(&file).unwrap();
            let mut export = begin(&daemon, &file, &["--format", format]);
            export.process().signal(Signal::KILL);
            let _ = export.finish(SOON);
            let path = file.display().to_string();
            let other = ["export", "-o", &path, "--resume", "--format", "tasks"];
            let refused = daemon.taskwright(&other);
            assert_ne!(refused.code, 0);
            assert!(refused.stderr.contains("other words"), "{}", refused.stderr);
            let on = ["export", "-o", &path, "--resume", "--format", format];
            daemon.taskwright(&on).expect(0);
            whole(&file, format, count);
            let cursor = fs::read_to_string(beside(&file, ".cursor")).unwrap();
            assert_eq!(cursor, format!("{count}\n"));
            for left in [".partial", ".partial.query"] {
                assert!(!beside(&file, left).exists(), "{left}");
            }
            // Nothing is behind it.
            let on = ["export", "--cursor", cursor.trim()];
            assert_eq!(daemon.taskwright(&on).expect(0).stdout, "");
        }
    });
}

/// Each of them once, in order, each whole.
fn whole(file: &Path, format: &str, count: usize) {
    let text = fs::read_to_string(file).unwrap();
    let rows: Vec<Value> = if format == "chat" {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    } else {
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["task_count"], count);
        document["tasks"].as_array().unwrap().clone()
    };
    assert_eq!(rows.len(), count);
    for (number, row) in rows.iter().enumerate() {
        let messages = match format {
            "chat" => &row["messages"],
            _ => &row["conversations"][0]["messages"],
        };
        let said = messages[1]["content"].as_str().unwrap();
        assert!(said.starts_with(&format!("{number} ")), "row {number}");
        assert!(said.len() > 1 << 20);
    }
}

#[test]
fn a_parquet_file_is_whole_or_not_there() {
    let daemon = Daemon::start();
    fill(&daemon.client(), 30);
    let file = daemon.home().path().join("rows.parquet");
    let path = file.display().to_string();
    let mut export = begin(&daemon, &file, &["--format=parquet"]);
    export.process().signal(Signal::KILL);
    let _ = export.finish(SOON);
    assert!(!file.exists());
    let part = fs::read(beside(&file, ".partial")).unwrap();
    assert!(!part.ends_with(b"PAR1"), "it has no end");
    let words = ["export", "-o", &path, "--format=parquet", "--resume"];
    let done = daemon.taskwright(&words).expect(0);
    assert!(done.stderr.contains("begins anew"), "{}", done.stderr);
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let cursor = fs::read_to_string(beside(&file, ".cursor")).unwrap();
    assert_eq!(cursor, "30\n");
    let text = daemon.taskwright(&["export", "--format=parquet"]);
    assert_ne!(text.code, 0);
    assert!(text.stderr.contains("-o"), "{}", text.stderr);
}

#[test]
fn what_is_wrong_with_an_export_is_told() {
    let daemon = Daemon::start();
    let client = daemon.client();
    for query in [
        "format=csv",
        "cursor=x",
        "cursor=-1",
        "status=pending",
        "problem=a[",
        "since=soon",
        "validity=good",
        "worker=nobody",
        "continues=3",
        "ended_only=perhaps",
        "format=tasks&cursor=1.01920000-0000-7000-8000-000000000001",
    ] {
        let answer = client.get(&format!("/api/v1/export?{query}"));
        assert_eq!(answer.status, 422, "{query}: {}", answer.text());
        assert_eq!(answer.json()["type"], "validation_error", "{query}");
    }
    let refused = daemon.taskwright(&["export", "--problem", "a["]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("no pattern"), "{}", refused.stderr);
    let (none, last) = rows(&client, "format=chat");
    assert_eq!((none.len(), &last["cursor"]), (0, &json!("0")));
    let empty = client
        .get("/api/v1/export?format=aiopslab")
        .expect(200)
        .json();
    assert_eq!(
        (&empty["task_count"], &empty["tasks"]),
        (&json!(0), &json!([]))
    );
}
