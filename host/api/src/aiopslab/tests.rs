//! The dialect over a real store in a file.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::{Value, json};

use crate::fake::{Answer, Api, api};

#[track_caller]
fn is_error(answer: &Answer, status: u16, kind: &str, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["type"], kind, "{body}");
    assert_eq!(body["request_id"], answer.header("x-request-id"), "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(words), "{detail:?} lacks {words:?}");
}

async fn create(api: &Api, body: &Value) -> Value {
    let answer = api.post("/api/v1/tasks", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn register(api: &Api, id: &str) -> Answer {
    let body = json!({"worker_id": id, "backend_type": "kind", "metadata": {"pid": 7}});
    api.post("/api/v1/workers/register", &body.to_string())
        .await
}

async fn claim(api: &Api, id: &str) -> Answer {
    api.post(&format!("/api/v1/workers/{id}/claim"), "").await
}

#[tokio::test]
async fn defaults_are_merged_into_the_parameters() {
    let api = api().await;
    let body = json!({
        "problem_id": "example-problem", "priority": "ignored here", "unknown": [1],
        "parameters": {"max_steps": 25, "timeout": 1800, "custom": {"deep": [null]}}
    });
    let task = create(&api, &body).await;
    assert_eq!(task["status"], "pending");
    let parameters = &task["parameters"];
    assert_eq!(
        (&parameters["max_steps"], &parameters["priority"]),
        (&json!(25), &json!(5))
    );
    assert_eq!(
        (&parameters["timeout"], &parameters["timeout_minutes"]),
        (&json!(1800), &json!(30))
    );
    assert_eq!(parameters["agent_config"]["model"], "gpt-4");
    assert_eq!(parameters["custom"], json!({"deep": [null]}));
    for field in [
        "worker_id",
        "result",
        "error_details",
        "started_at",
        "completed_at",
    ] {
        assert!(task[field].is_null(), "{field}");
    }
    assert!(task["created_at"].as_str().unwrap().ends_with('Z'));
    let id = task["id"].as_str().unwrap();
    let read = api.get(&format!("/api/v1/tasks/{id}")).await.json();
    assert_eq!((&read["id"], &read["attempts"]), (&task["id"], &json!([])));
}

#[tokio::test]
async fn what_is_wrong_with_a_task_is_told_field_by_field() {
    let api = api().await;
    let long = "x".repeat(256);
    for (body, place, words) in [
        (json!({}), "/problem_id", "is required"),
        (json!({"problem_id": 5}), "/problem_id", "must be a text"),
        (json!({"problem_id": "a b"}), "/problem_id", "begins with"),
        (json!({"problem_id": "a\n"}), "/problem_id", "begins with"),
        (json!({"problem_id": "a\0"}), "/problem_id", "begins with"),
        (json!({"problem_id": long}), "/problem_id", "1 to 255"),
        (
            json!({"problem_id": "a", "parameters": null}),
            "/parameters",
            "an object",
        ),
        (
            json!({"problem_id": "a", "parameters": []}),
            "/parameters",
            "an object",
        ),
        (
            parameter("max_steps", json!(0)),
            "/parameters/max_steps",
            "1 to 1000",
        ),
        (
            parameter("max_steps", json!(-1)),
            "/parameters/max_steps",
            "1 to 1000",
        ),
        (
            parameter("max_steps", json!("30")),
            "/parameters/max_steps",
            "1 to 1000",
        ),
        (
            parameter("timeout_minutes", json!("30")),
            "/parameters/timeout_minutes",
            "a number",
        ),
        (
            parameter("timeout_minutes", json!(0)),
            "/parameters/timeout_minutes",
            "more than 0",
        ),
        (
            parameter("timeout_minutes", json!(-5)),
            "/parameters/timeout_minutes",
            "more than 0",
        ),
        (
            parameter("timeout_minutes", json!(1e300)),
            "/parameters/timeout_minutes",
            "more than 0",
        ),
        (
            parameter("timeout", json!(true)),
            "/parameters/timeout",
            "a number",
        ),
        (
            parameter("priority", json!("high")),
            "/parameters/priority",
            "a number",
        ),
        (
            parameter("priority", json!(true)),
            "/parameters/priority",
            "a number",
        ),
        (
            parameter("priority", json!(1e9)),
            "/parameters/priority",
            "within",
        ),
        (
            parameter("backend_type", json!("a\0")),
            "/parameters/backend_type",
            "NUL",
        ),
        (
            parameter("backend_type", json!(7)),
            "/parameters/backend_type",
            "a text",
        ),
        (
            parameter("agent_config", json!("x")),
            "/parameters/agent_config",
            "an object",
        ),
        (
            parameter("max_attempts", json!(0)),
            "/parameters/max_attempts",
            "1 to 100",
        ),
        (
            json!({"problem_id": "a", "callback_url": "http://169.254.169.254/latest"}),
            "/callback_url",
            "is not allowed",
        ),
    ] {
        let answer = api.post("/api/v1/tasks", &body.to_string()).await;
        is_error(&answer, 422, "validation_error", words);
        let errors = answer.json()["errors"].clone();
        let loc: Vec<String> = errors[0]["loc"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w.as_str().unwrap().into())
            .collect();
        assert_eq!(format!("/{}", loc[1..].join("/")), place, "{errors}");
    }
    for text in [
        "",
        "[]",
        "nonsense",
        r#"{"problem_id": "a", "parameters": {"priority": NaN}}"#,
    ] {
        is_error(
            &api.post("/api/v1/tasks", text).await,
            422,
            "validation_error",
            "body",
        );
    }
    let deep = format!(
        r#"{{"problem_id":"a","parameters":{{"x":{}{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    is_error(
        &api.post("/api/v1/tasks", &deep).await,
        422,
        "validation_error",
        "recursion",
    );
    let large = json!({"problem_id": "a", "parameters": {"x": "y".repeat(70_000)}}).to_string();
    is_error(
        &api.post("/api/v1/tasks", &large).await,
        413,
        "payload_too_large",
        "larger",
    );
    assert_eq!(
        api.get("/api/v1/tasks/stats").await.json()["total_tasks"],
        0,
        "nothing was stored"
    );
}

fn parameter(name: &str, value: Value) -> Value {
    json!({"problem_id": "a", "parameters": {name: value}})
}

#[tokio::test]
async fn lists_are_arrays_or_envelopes() {
    let api = api().await;
    for number in 0..3 {
        create(&api, &json!({"problem_id": format!("p-{number}")})).await;
    }
    let array = api.get("/api/v1/tasks?limit=2&offset=1").await;
    assert_eq!(array.header("x-total-count"), "3");
    assert_eq!(array.json().as_array().unwrap().len(), 2);
    for path in [
        "/api/v1/tasks?page=2&page_size=2",
        "/aiopslab/api/v1/tasks?page=2&page_size=2",
    ] {
        let page = api.get(path).await.json();
        assert_eq!(page["tasks"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(
            (&page["total"], &page["page"], &page["page_size"]),
            (&json!(3), &json!(2), &json!(2))
        );
    }
    let oldest = api.get("/api/v1/tasks?sort=created_at").await.json();
    assert_eq!(oldest["tasks"][0]["problem_id"], "p-0");
    let all = api.get("/aiopslab/api/v1/tasks").await.json();
    assert_eq!((&all["total"], &all["page_size"]), (&json!(3), &json!(20)));
    let none = api.get("/api/v1/tasks?problem_id=a%20b").await;
    assert_eq!(
        (none.json(), none.header("x-total-count")),
        (json!([]), "0")
    );
    for bad in [
        "status=done",
        "limit=0",
        "limit=-1",
        "limit=x",
        "page=0",
        "page_size=101",
        "sort=name",
        "offset=-1",
        "page=99999999999999999999",
    ] {
        let answer = api.get(&format!("/api/v1/tasks?{bad}")).await;
        is_error(&answer, 422, "validation_error", "must be");
        assert_eq!(answer.json()["errors"][0]["loc"][0], "query", "{bad}");
    }
    assert_eq!(api.get("/api/v1/workers").await.json(), json!([]));
    let workers = api.get("/aiopslab/api/v1/workers").await.json();
    assert_eq!(workers, json!({"workers": [], "total": 0}));
}

#[tokio::test]
async fn a_worker_takes_a_task_to_its_end() {
    let api = api().await;
    let worker = register(&api, "worker-002-kind").await;
    assert_eq!(worker.status, 201);
    assert_eq!(
        (&worker.json()["status"], &worker.json()["id"]),
        (&json!("idle"), &json!("worker-002-kind"))
    );
    let none = claim(&api, "worker-002-kind").await;
    assert_eq!((none.status.as_u16(), none.text()), (204, String::new()));
    let task = create(&api, &json!({"problem_id": "p"})).await;
    let id = task["id"].as_str().unwrap();
    let claimed = claim(&api, "worker-002-kind").await.json();
    assert_eq!(
        (&claimed["id"], &claimed["status"]),
        (&task["id"], &json!("running"))
    );
    assert_eq!(claimed["lease"]["number"], 1);
    let beat = json!({"status": "idle", "current_task_id": null}).to_string();
    let heard = api
        .post("/api/v1/workers/worker-002-kind/heartbeat", &beat)
        .await
        .json();
    assert_eq!(
        (&heard["status"], &heard["message"]),
        (&json!("busy"), &json!("Heartbeat received"))
    );
    assert_eq!(heard["current_task_id"], task["id"]);
    let other = register(&api, "worker-003-kind").await;
    assert_eq!(other.status, 201);
    let stolen = api
        .post(
            &format!("/api/v1/workers/worker-003-kind/tasks/{id}/complete"),
            "{}",
        )
        .await;
    is_error(&stolen, 409, "conflict", "held by worker-002-kind");
    let path = format!("/api/v1/workers/worker-002-kind/tasks/{id}/complete");
    is_error(
        &api.post(&path, "").await,
        422,
        "validation_error",
        "object",
    );
    is_error(
        &api.post(&path, "[1]").await,
        422,
        "validation_error",
        "object",
    );
    let result = r#"{"success": false, "z": 1.0e2, "a": "\u0000"}"#;
    let done = api.post(&path, result).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.text().contains(result), "verbatim: {}", done.text());
    assert_eq!(api.post(&path, result).await.status, 200, "the same again");
    is_error(
        &api.post(&path, "{}").await,
        409,
        "conflict",
        "completed already",
    );
    let gone = json!({"status": "busy", "current_task_id": id}).to_string();
    let heard = api
        .post("/api/v1/workers/worker-002-kind/heartbeat", &gone)
        .await
        .json();
    assert_eq!(
        (&heard["cancelled"], &heard["status"]),
        (&json!(true), &json!("idle"))
    );
    let stats = api
        .get("/api/v1/workers/worker-002-kind/stats")
        .await
        .json();
    assert_eq!(
        (&stats["total_tasks"], &stats["success_rate"]),
        (&json!(1), &json!(1.0))
    );
    let stats = api.get("/queue/stats").await.json();
    assert_eq!(
        (&stats["completed"], &stats["success_rate"]),
        (&json!(1), &json!(1.0))
    );
    assert_eq!(
        api.delete("/api/v1/workers/worker-003-kind").await.status,
        204
    );
}

#[tokio::test]
async fn a_failure_is_kept_as_its_text() {
    let api = api().await;
    register(&api, "worker-001-kind").await;
    create(&api, &json!({"problem_id": "p"})).await;
    let id = claim(&api, "worker-001-kind").await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/workers/worker-001-kind/tasks/{id}/fail");
    let body = r#"{"error": "boom", "trace": ["a"]}"#;
    let failed = api.post(&path, body).await.json();
    assert_eq!(
        (&failed["status"], &failed["error_details"]),
        (&json!("failed"), &json!("boom"))
    );
    assert_eq!(
        (&failed["error_data"], &failed["cause"]),
        (&json!({"trace": ["a"]}), &json!("reported"))
    );
}

#[tokio::test]
async fn workers_and_ids_of_the_wrong_shape_are_refused() {
    let api = api().await;
    for body in [
        json!({}),
        json!({"worker_id": "worker-1-kind", "backend_type": "kind"}),
        json!({"worker_id": "worker-001-kind"}),
        json!({"worker_id": "worker-001-kind", "backend_type": ""}),
        json!({"worker_id": "worker-001-kind", "backend_type": "k", "capabilities": 1}),
        json!({"worker_id": "worker-001-kind", "backend_type": "k", "capabilities": {"max_parallel_tasks": 0}}),
        json!({"worker_id": "worker-001-kind", "backend_type": "k", "capabilities": {"supported_problems": "x"}}),
        json!({"worker_id": "worker-001-kind", "backend_type": "k", "capabilities": {"supported_problems": ["["]}}),
    ] {
        let answer = api
            .post("/api/v1/workers/register", &body.to_string())
            .await;
        is_error(&answer, 422, "validation_error", "");
    }
    is_error(
        &claim(&api, "worker-009-kind").await,
        404,
        "not_found",
        "has to register",
    );
    is_error(
        &claim(&api, "nonsense").await,
        404,
        "not_found",
        "no worker",
    );
    register(&api, "worker-001-kind").await;
    for (path, body) in [
        ("heartbeat", "{}"),
        ("heartbeat", r#"{"status": "asleep"}"#),
        ("heartbeat", r#"{"status": "busy", "current_task_id": "7"}"#),
        ("claim?wait=soon", ""),
        ("tasks/7/complete", "{}"),
        ("tasks/7/fail", "{}"),
    ] {
        let answer = api
            .post(&format!("/api/v1/workers/worker-001-kind/{path}"), body)
            .await;
        is_error(&answer, 422, "validation_error", "");
    }
    is_error(
        &api.get("/api/v1/tasks/7").await,
        422,
        "validation_error",
        "UUID",
    );
    let nobody = "00000000-0000-4000-8000-000000000000";
    is_error(
        &api.get(&format!("/api/v1/tasks/{nobody}")).await,
        404,
        "not_found",
        nobody,
    );
    is_error(
        &api.get(&format!("/api/v1/tasks/{nobody}/logs")).await,
        404,
        "not_found",
        nobody,
    );
    is_error(
        &api.get("/api/v1/nothing").await,
        404,
        "not_found",
        "Not Found",
    );
    is_error(
        &api.delete("/queue/stats").await,
        405,
        "method_not_allowed",
        "Not Allowed",
    );
    let busy = r#"{"status": "busy", "current_task_id": null}"#;
    let heard = api
        .post("/api/v1/workers/worker-001-kind/heartbeat", busy)
        .await;
    assert_eq!(
        (heard.status.as_u16(), &heard.json()["status"]),
        (200, &json!("idle"))
    );
}

#[tokio::test]
async fn cancelling_twice_is_a_conflict() {
    let api = api().await;
    let task = create(&api, &json!({"problem_id": "p"})).await;
    let path = format!("/api/v1/tasks/{}/cancel", task["id"].as_str().unwrap());
    let cancelled = api.post(&path, "").await.json();
    assert_eq!(
        (&cancelled["message"], &cancelled["task_id"]),
        (&json!("Task cancelled successfully"), &task["id"])
    );
    assert_eq!(cancelled["status"], "cancelled");
    is_error(
        &api.post(&path, "").await,
        409,
        "conflict",
        "cancelled already",
    );
}

#[tokio::test]
async fn lines_are_kept_and_read_on() {
    let api = api().await;
    let task = create(&api, &json!({"problem_id": "p"})).await;
    let path = format!("/api/v1/tasks/{}/logs", task["id"].as_str().unwrap());
    let lines = json!({"logs": [
        {"message": "one", "level": "WARN", "context": {"step": 1}},
        {"message": "two", "timestamp": "2025-01-14T10:30:05Z"},
    ]});
    let kept = api.post(&path, &lines.to_string()).await;
    assert_eq!(
        (kept.status.as_u16(), kept.json()),
        (201, json!({"appended": 2, "last_sequence": 3}))
    );
    let read = api.get(&path).await.json();
    let texts: Vec<&str> = read
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["message"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["Task created", "one", "two"]);
    assert_eq!(
        (&read[1]["level"], &read[1]["context"]),
        (&json!("warning"), &json!({"step": 1}))
    );
    assert_eq!(read[2]["timestamp"], "2025-01-14T10:30:05.000Z");
    let on = api.get(&format!("{path}?after=1&limit=1")).await.json();
    assert_eq!(on[0]["message"], "one");
    let envelope = api
        .get(&format!("/aiopslab{path}?level=warning"))
        .await
        .json();
    assert_eq!(
        (&envelope["total"], &envelope["logs"][0]["message"]),
        (&json!(1), &json!("one"))
    );
    for bad in [
        json!({}),
        json!({"message": 5}),
        json!({"message": "a\0"}),
        json!({"logs": [{"message": "a", "level": "loud"}]}),
        json!({"message": "a", "timestamp": "soon"}),
    ] {
        is_error(
            &api.post(&path, &bad.to_string()).await,
            422,
            "validation_error",
            "",
        );
    }
    is_error(
        &api.get(&format!("{path}?level=loud")).await,
        422,
        "validation_error",
        "critical",
    );
    is_error(
        &api.get(&format!("{path}?limit=1001")).await,
        422,
        "validation_error",
        "1000",
    );
}

#[tokio::test]
async fn conversations_are_kept_verbatim() {
    let api = api().await;
    let task = create(&api, &json!({"problem_id": "p"})).await;
    let begin = json!({
        "task_id": task["id"], "model_name": "gpt-4", "llm_config": {"temperature": 0.7},
        "messages": [{"role": "system", "content": "be good"}],
    });
    let begun = api
        .post("/api/v1/llm-conversations", &begin.to_string())
        .await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/llm-conversations/{id}");
    let more = json!({"messages": [
        {"sequence": 1, "role": "assistant", "content": "exec_shell(\"ls\")", "tool_calls": [{"id": "t"}], "logprobs": [-0.1]},
        {"sequence": 2, "role": "tool", "content": "a.txt", "function_name": "exec_shell", "metadata": {"step": 1}},
    ]});
    for _ in 0..2 {
        let said = api
            .post(&format!("{path}/messages"), &more.to_string())
            .await;
        assert_eq!(
            (said.status.as_u16(), &said.json()["total_messages"]),
            (201, &json!(3))
        );
    }
    let end = json!({"success": true, "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_cost": 0.01}});
    let ended = api
        .with_headers("PATCH", &path, &[], &end.to_string())
        .await
        .json();
    assert_eq!(
        (
            &ended["success"],
            &ended["total_tokens"],
            &ended["tokens_estimated"]
        ),
        (&json!(true), &json!(15), &json!(false))
    );
    let whole = api.get(&path).await.json();
    assert_eq!(whole["messages"][1]["content"], "exec_shell(\"ls\")");
    assert_eq!(whole["messages"][1]["logprobs"], json!([-0.1]));
    assert_eq!(whole["messages"][2]["metadata"], json!({"step": 1}));
    let tools = api.get(&format!("{path}/messages?role=tool")).await.json();
    assert_eq!(
        (&tools["total_messages"], &tools["conversation_id"]),
        (&json!(1), &json!(id))
    );
    let nobody = api
        .get(&format!("{path}/messages?role=nobody"))
        .await
        .json();
    assert_eq!(nobody["total_messages"], 0);
    let listed = api
        .get(&format!(
            "/api/v1/llm-conversations?task_id={}",
            task["id"].as_str().unwrap()
        ))
        .await
        .json();
    assert_eq!(
        (&listed["total"], &listed["conversations"][0]["id"]),
        (&json!(1), &json!(id))
    );
    let of_task = format!(
        "/api/v1/llm-conversations/task/{}/conversations",
        task["id"].as_str().unwrap()
    );
    assert_eq!(api.get(&of_task).await.json().as_array().unwrap().len(), 1);
    let stats = api
        .get("/api/v1/llm-conversations/stats/summary")
        .await
        .json();
    assert_eq!(
        (&stats["successful_conversations"], &stats["success_rate"]),
        (&json!(1), &json!(1.0))
    );
    let gap = json!({"messages": [{"sequence": 9, "role": "user", "content": "x"}]});
    is_error(
        &api.post(&format!("{path}/messages"), &gap.to_string())
            .await,
        409,
        "conflict",
        "gap",
    );
    for bad in [
        json!({"role": "boss", "content": "x"}),
        json!({"role": "user"}),
        json!({"messages": 5}),
        json!({"role": "user", "content": "x", "sequence": -1}),
    ] {
        is_error(
            &api.post(&format!("{path}/messages"), &bad.to_string())
                .await,
            422,
            "validation_error",
            "",
        );
    }
}

#[tokio::test]
async fn health_tells_of_the_queue_in_both_forms() {
    let api = api().await;
    let root = api.get("/health").await.json();
    assert_eq!(root["status"], "healthy");
    assert_eq!(root["queue"]["pending"], 0);
    let health = api.get("/aiopslab/health").await.json();
    assert_eq!(
        (&health["status"], &health["version"]),
        (&json!("degraded"), &json!("1.0.0"))
    );
    assert_eq!(health["database"]["connected"], true);
    register(&api, "worker-001-kind").await;
    let health = api.get("/aiopslab/health").await.json();
    assert_eq!(
        (&health["status"], &health["workers"]["idle"]),
        (&json!("healthy"), &json!(1))
    );
    assert_eq!(
        api.get("/ready").await.json(),
        json!({"ready": true, "database": true, "workers": true})
    );
    let root = api.get("/aiopslab/").await.json();
    assert_eq!(
        (&root["docs"], &root["health"]),
        (&json!("/docs"), &json!("/health"))
    );
}

#[tokio::test]
async fn an_idempotency_key_makes_one_task() {
    let api = api().await;
    let key = [("idempotency-key", "k1")];
    let body = json!({"problem_id": "p"}).to_string();
    let first = api.with_headers("POST", "/api/v1/tasks", &key, &body).await;
    let again = api.with_headers("POST", "/api/v1/tasks", &key, &body).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = json!({"problem_id": "q"}).to_string();
    let refused = api
        .with_headers("POST", "/api/v1/tasks", &key, &other)
        .await;
    is_error(&refused, 422, "validation_error", "Idempotency-Key");
}
