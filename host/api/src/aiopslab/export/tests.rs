//! The forms over a real store in a file.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::Write as _;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::{Value, json};

use crate::fake::{Api, api};

const WORKER: &str = "worker-001-kind";

async fn post(api: &Api, path: &str, body: &Value) -> Value {
    let answer = api.post(path, &body.to_string()).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text());
    answer.json()
}

/// A task that was completed, with as many conversations as there are texts.
async fn ended(api: &Api, problem: &str, texts: &[&str]) -> String {
    let register = json!({"worker_id": WORKER, "backend_type": "kind"});
    post(api, "/api/v1/workers/register", &register).await;
    let parameters = json!({"agent_config": {"model": "of-the-task"}});
    let body = json!({"problem_id": problem, "parameters": parameters});
    let id = post(api, "/api/v1/tasks", &body).await["id"].clone();
    let id = id.as_str().unwrap().to_owned();
    post(api, &format!("/api/v1/workers/{WORKER}/claim"), &json!({})).await;
    for text in texts {
        let body = json!({
            "task_id": id, "worker_id": WORKER, "attempt": 1, "model_name": format!("m-{text}"),
            "messages": [
                {"role": "user", "content": text, "extra": {"kept": [1.5]}},
                {"role": "assistant", "content": null, "tool_calls": []},
            ],
        });
        post(api, "/api/v1/llm-conversations", &body).await;
    }
    let done = format!("/api/v1/workers/{WORKER}/tasks/{id}/complete");
    let answer = api.post(&done, "{\n \"a\": 1.0e2}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    id
}

async fn rows(api: &Api, query: &str) -> (Vec<Value>, Value) {
    let answer = api.get(&format!("/api/v1/export?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let text = answer.text();
    let mut rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = rows.pop().unwrap();
    assert_eq!(last["export"], "complete");
    (rows, last)
}

#[tokio::test]
async fn an_export_goes_on_behind_any_row() {
    let api = api().await;
    for problem in ["a", "b"] {
        ended(&api, problem, &["x", "y", "z"]).await;
    }
    let (all, last) = rows(&api, "").await;
    assert_eq!((all.len(), &last["cursor"]), (6, &json!("2")));
    for (place, row) in all.iter().enumerate() {
        let cursor = row["cursor"].as_str().unwrap();
        let (rest, _) = rows(&api, &format!("cursor={cursor}")).await;
        assert_eq!(rest, all[place + 1..], "{cursor}");
    }
    let (rest, last) = rows(&api, "cursor=2").await;
    assert_eq!((rest.len(), &last["cursor"]), (0, &json!("2")));
    let (tasks, _) = rows(&api, "format=tasks&cursor=1").await;
    assert_eq!(tasks[0]["problem_id"], "b");
}

#[tokio::test]
async fn a_chat_is_told_as_it_was_sent() {
    let api = api().await;
    let task = ended(&api, "a", &["x"]).await;
    let (all, _) = rows(&api, "format=chat").await;
    let row = &all[0];
    let messages = json!([
        {"role": "user", "content": "x", "extra": {"kept": [1.5]}},
        {"role": "assistant", "content": null, "tool_calls": []},
    ]);
    assert_eq!(row["messages"], messages);
    for (name, value) in [
        ("task_id", json!(task)),
        ("problem_id", json!("a")),
        ("worker_id", json!(WORKER)),
        ("attempt", json!(1)),
        ("model", json!("m-x")),
        ("status", json!("completed")),
        ("cause", json!("reported")),
        ("validity", json!("valid")),
        ("validity_reason", Value::Null),
        ("usage", Value::Null),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
    // A result with a line break in it is on one line, and otherwise as it was sent.
    let tasks = api.get("/api/v1/export?format=tasks").await.text();
    assert!(tasks.contains("\"result\":{  \"a\": 1.0e2}"), "{tasks}");
}

#[tokio::test]
async fn rows_are_asked_for_by_model() {
    let api = api().await;
    ended(&api, "a", &["x", "y"]).await;
    ended(&api, "b", &[]).await;
    for (query, count) in [
        ("model=m-x", 1),
        ("model=m-z", 0),
        ("model=of-the-task", 0),
        ("format=tasks&model=m-x", 1),
        ("format=tasks&model=of-the-task", 2),
        ("format=tasks&model=m-z", 0),
        ("format=tasks&worker=worker-001-kind&problem=[b-z]", 1),
    ] {
        assert_eq!(rows(&api, query).await.0.len(), count, "{query}");
    }
    let whole = api.get("/api/v1/export?format=aiopslab&model=m-y").await;
    assert_eq!(whole.json()["task_count"], 1);
}

#[tokio::test]
async fn the_rest_of_a_document_completes_it() {
    let api = api().await;
    for problem in ["a", "b", "c"] {
        ended(&api, problem, &["x"]).await;
    }
    let path = "/aiopslab/api/v1/export?format=aiopslab";
    let whole = api.get(path).await;
    assert_eq!(whole.header("content-type"), "application/json");
    let text = whole.text();
    for kept in 0..3 {
        let head: String = text.split_inclusive('\n').take(1 + kept).collect();
        let rest = api
            .get(&format!("{path}&cursor={kept}&continues={kept}"))
            .await;
        let both: Value = serde_json::from_str(&(head + &rest.text())).unwrap();
        assert_eq!(both["tasks"], whole.json()["tasks"], "{kept}");
        assert_eq!(both["task_count"], 3);
    }
}

#[tokio::test]
async fn columns_are_read_back() {
    let api = api().await;
    ended(&api, "a", &["x", "y"]).await;
    ended(&api, "b", &["z"]).await;
    let answer = api.get("/api/v1/export?format=parquet").await;
    assert_eq!(answer.status, 200);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&answer.bytes).unwrap();
    assert_eq!(super::cursor_of(file.try_clone().unwrap()).unwrap(), "2");
    let reader = SerializedFileReader::new(file).unwrap();
    let (chat, _) = rows(&api, "format=chat").await;
    let names: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    let place = |name: &str| names.iter().position(|known| known == name).unwrap();
    let mut count = 0;
    for (row, told) in reader.get_row_iter(None).unwrap().zip(&chat) {
        let row = row.unwrap();
        for name in [
            "conversation_id",
            "task_id",
            "problem_id",
            "model",
            "validity",
            "cause",
        ] {
            let value = row.get_string(place(name)).unwrap();
            assert_eq!(value, told[name].as_str().unwrap(), "{name}");
        }
        assert_eq!(row.get_int(place("attempt")).unwrap(), 1);
        assert!(row.get_string(place("validity_reason")).is_err(), "null");
        let messages = row.get_list(place("messages")).unwrap();
        assert_eq!(messages.len(), 2);
        let shown = row.to_string();
        let text = told["messages"][0]["content"].as_str().unwrap();
        assert!(shown.contains(&format!("content: \"{text}\"")), "{shown}");
        assert!(shown.contains("content: null"), "{shown}");
        count += 1;
    }
    assert_eq!(count, 3);
    let cut = answer.bytes.slice(..answer.bytes.len() - 1);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&cut).unwrap();
    super::cursor_of(file).unwrap_err();
}

#[tokio::test]
async fn steps_are_kept_verbatim_and_read_in_parts() {
    let api = api().await;
    let task = post(&api, "/api/v1/tasks", &json!({"problem_id": "p"})).await;
    let path = format!("/api/v1/tasks/{}/steps", task["id"].as_str().unwrap());
    let step = r#"{"step": 0, "reward": 1.0e-1, "z": "\u0000", "action": {"b": 1, "a": 2}}"#;
    let body = format!(r#"{{"steps": [{step}, {{"step_number": 1, "done": true}}]}}"#);
    for new in [2, 0] {
        let kept = api.post(&path, &body).await;
        assert_eq!(kept.status, 201, "{}", kept.text());
        assert_eq!(kept.json(), json!({"steps": 2, "new": new, "attempt": 0}));
    }
    let first = api.get(&format!("{path}?limit=1")).await;
    assert!(first.text().contains(step), "{}", first.text());
    let first = first.json();
    assert_eq!(
        (&first["steps"][0]["reward"], &first["next"]),
        (&json!(0.1), &json!("0-1"))
    );
    let rest = api.get(&format!("{path}?from=0-1")).await.json();
    assert_eq!(
        (&rest["steps"][0]["terminated"], &rest["next"]),
        (&json!(true), &Value::Null)
    );
    let other = api.post(&path, r#"{"step": 0}"#).await;
    assert_eq!(other.status, 409);
    let alone = api
        .post(&path, r#"{"step": 7, "worker_id": "its own"}"#)
        .await;
    assert_eq!(alone.status, 201, "{}", alone.text());
    let long = format!(
        r#"{{"steps": [{}]}}"#,
        vec![r#"{"step":1}"#; 1001].join(",")
    );
    for bad in [
        "{}",
        "[]",
        "not json",
        r#"{"steps": []}"#,
        r#"{"steps": 5}"#,
        r#"{"steps": [5]}"#,
        r#"{"step": -1}"#,
        r#"{"step": 100000}"#,
        r#"{"step": 1.5}"#,
        r#"{"step": 9, "reward": "high"}"#,
        r#"{"step": 9, "reward": 1e999}"#,
        r#"{"step": 9, "reward": 1e300}"#,
        r#"{"step": 9, "deep": [[1e999]]}"#,
        r#"{"step": 9, "terminated": 1}"#,
        r#"{"step": 9, "token_logprobs": 0.5}"#,
        r#"{"step": 9, "model": []}"#,
        r#"{"step": 9, "timestamp": "soon"}"#,
        r#"{"steps": [{"step": 9}], "attempt": 1}"#,
        r#"{"steps": [{"step": 9}], "worker_id": 5}"#,
        r#"{"steps": [{"step": 9}], "worker_id": "x"}"#,
        &long,
    ] {
        let refused = api.post(&path, bad).await;
        assert_eq!(refused.status, 422, "{bad}: {}", refused.text());
    }
    for bad in ["limit=0", "limit=1001", "from=x", "from=1", "attempt=-1"] {
        assert_eq!(api.get(&format!("{path}?{bad}")).await.status, 422, "{bad}");
    }
    let held = r#"{"steps": [{"step": 9}], "worker_id": "worker-001-kind", "attempt": 1}"#;
    let refused = api.post(&path, held).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let nobody = "/api/v1/tasks/00000000-0000-4000-8000-000000000000/steps";
    assert_eq!(api.get(nobody).await.status, 404);
    assert_eq!(api.post(nobody, r#"{"step": 0}"#).await.status, 404);
}

#[tokio::test]
async fn who_writes_may_stand_in_the_query_or_the_body() {
    let api = api().await;
    let task = ended(&api, "p", &["x"]).await;
    let logs = format!("/api/v1/tasks/{task}/logs");
    let line = r#"{"message": "m"}"#;
    for (query, status) in [
        ("", 201),
        ("?worker_id=worker-001-kind&attempt=1", 201),
        ("?worker_id=worker-001-kind", 201),
        ("?worker_id=worker-001-kind&attempt=2", 409),
        ("?worker_id=worker-002-kind", 409),
        ("?worker_id=x", 422),
        ("?attempt=1", 422),
        ("?worker_id=worker-001-kind&attempt=0", 422),
    ] {
        let answer = api.post(&format!("{logs}{query}"), line).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
    let body = r#"{"message": "m", "worker_id": "worker-002-kind", "attempt": 1}"#;
    assert_eq!(api.post(&logs, body).await.status, 409);
    let told = api.get(&logs).await.json();
    let attempts: Vec<&Value> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["attempt"])
        .collect();
    assert_eq!(attempts, [&Value::Null, &Value::Null, &json!(1), &json!(1)]);
}
