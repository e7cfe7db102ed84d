//! One task, from its creation to its end.

use serde_json::json;

use super::{is_contract_error, is_problem};
use crate::fake::api;

#[tokio::test]
async fn the_example_of_the_guide_works() {
    let api = api().await;
    let body = r#"{"name": "my-first-task", "spec": {"process": {"command": ["sh", "-c"],
        "args": ["echo 'Hello from my task!' && sleep 5"]}}}"#;
    let answer = api.post("/tasks", body).await;
    assert_eq!(answer.status, 201);
    assert!(answer.text().ends_with("}\n"));
    let task = answer.json();
    assert_eq!(task["name"], "my-first-task");
    assert_eq!(
        task["spec"]["process"],
        json!({"command": ["sh", "-c"], "args": ["echo 'Hello from my task!' && sleep 5"]})
    );
    assert_eq!(task["process"], task["spec"]["process"]);
    assert_eq!(task["processStatus"], task["status"]["state"]);
    assert_eq!(task["status"]["lastState"], json!({}));

    let again = api.get("/tasks/my-first-task").await;
    assert_eq!(again.status, 200);
    let prefixed = api.get("/opensandbox/tasks/my-first-task").await;
    assert_eq!(prefixed.status, 200);
    assert_eq!(prefixed.json()["id"], task["id"]);
}

#[tokio::test]
async fn an_end_is_told_in_both_forms_and_in_ours() {
    let api = api().await;
    api.submit("ok", &["exit", "0"]).await;
    let task = api.ended("ok").await;
    let terminated = &task["status"]["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 0);
    assert_eq!(terminated["reason"], "Succeeded");
    assert_eq!(terminated["message"], "Task completed successfully");
    assert_eq!(task["processStatus"]["terminated"], *terminated);
    assert_eq!(task["outcome"], json!({"cause": "exit", "exitCode": 0}));
    assert_eq!(task["attempts"][0]["number"], 1);
    let finished = terminated["finishedAt"].as_str().unwrap();
    assert_eq!(finished.len(), "2025-12-17T10:00:00Z".len(), "{finished}");

    api.submit("bad", &["exit", "3"]).await;
    let task = api.ended("bad").await;
    assert_eq!(task["processStatus"]["terminated"]["exitCode"], 3);
    assert_eq!(task["processStatus"]["terminated"]["reason"], "Failed");

    api.submit("ours", &["trap"]).await;
    let task = api.ended("ours").await;
    assert_eq!(task["processStatus"]["terminated"]["exitCode"], 125);
    assert_eq!(task["processStatus"]["terminated"]["reason"], "PluginFault");
}

#[tokio::test]
async fn waiting_while_posting_saves_a_round_trip() {
    let api = api().await;
    let body = r#"{"name": "quick", "process": {"command": ["exit", "7"]}}"#;
    let answer = api.post("/tasks?wait=15s", body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["processStatus"]["terminated"]["exitCode"], 7);
    let answer = api.post("/tasks?wait=soon", body).await;
    is_contract_error(&answer, 400, "wait is no time");
}

#[tokio::test]
async fn a_name_in_use_is_a_conflict() {
    let api = api().await;
    assert_eq!(api.submit("one", &["hang"]).await.status, 201);
    is_contract_error(&api.submit("one", &["hang"]).await, 409, "exists");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_gone_already() {
    let api = api().await;
    is_contract_error(&api.get("/tasks/none").await, 404, "none");
    is_contract_error(&api.get("/tasks/q%2Fr").await, 404, "q/r");
    is_contract_error(&api.get("/tasks/%2e%2e").await, 404, "..");
    let gone = api.delete("/tasks/none").await;
    assert_eq!((gone.status.as_u16(), gone.text()), (204, String::new()));
    assert_eq!(api.delete("/tasks/a%2Fb").await.status, 204);
    is_problem(&api.get("/tasks/none/wait").await, 404, "none");
    is_problem(&api.post("/tasks/none/stop", "").await, 404, "none");
    is_problem(&api.get("/tasks/none/logs").await, 404, "none");
    is_problem(&api.get("/tasks/none/events").await, 404, "none");
}

#[tokio::test]
async fn deleting_stops_and_removes() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    assert_eq!(api.delete("/tasks/one").await.status, 204);
    api.until("/tasks/one", |answer| answer.status == 404).await;
    assert_eq!(api.get("/getTasks").await.text(), "[]\n");
}

#[tokio::test]
async fn stopping_keeps_the_record() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    api.until("/tasks/one", |answer| answer.json()["state"] == "running")
        .await;
    let answer = api
        .post("/tasks/one/stop", r#"{"graceSeconds": 1.5}"#)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let task = api.ended("one").await;
    let terminated = &task["processStatus"]["terminated"];
    assert_eq!(terminated["reason"], "Canceled");
    assert_eq!(
        (&terminated["exitCode"], &terminated["signal"]),
        (&json!(143), &json!(15))
    );
    let again = api.post("/tasks/one/stop?grace=1s", "").await;
    assert_eq!(again.status, 200);
    for body in [r#"{"graceSeconds": -1}"#, r#"{"graceSeconds": "1"}"#, "[]"] {
        assert_eq!(
            api.post("/tasks/one/stop", body).await.status,
            400,
            "{body}"
        );
    }
}

#[tokio::test]
async fn waiting_for_what_goes_on_is_accepted() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    let answer = api.get("/tasks/one/wait?timeout=10ms").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["name"], "one");
}

#[tokio::test]
async fn a_retrying_task_waits_and_tells_its_last_end() {
    let api = api().await;
    let body = r#"{"name": "again", "process": {"command": ["exit", "9"]},
        "retry": {"maxAttempts": 2, "backoffSeconds": 3600}}"#;
    api.post("/tasks", body).await;
    let answer = api
        .until("/tasks/again", |answer| {
            answer.json()["status"]["lastState"] != json!({})
        })
        .await;
    let task = answer.json();
    assert_eq!(task["processStatus"]["waiting"]["reason"], "Initialized");
    assert_eq!(task["status"]["lastState"]["terminated"]["exitCode"], 9);
    assert_eq!(task["retry"]["maxAttempts"], 2);
}

#[tokio::test]
async fn a_pod_has_a_pod_status() {
    let api = api().await;
    let template = json!({"spec": {"containers": [{"name": "main", "image": "x",
        "env": [{"name": "TOKEN", "value": "s3cret"}]}]}});
    let body = json!({"name": "pod", "podTemplateSpec": template});
    assert_eq!(api.post("/tasks", &body.to_string()).await.status, 201);
    let answer = api
        .until("/tasks/pod", |answer| answer.json()["state"] == "running")
        .await;
    let task = answer.json();
    assert_eq!(task["podTemplateSpec"], template);
    assert_eq!(task["podStatus"]["phase"], "Running");
    assert_eq!(task["podStatus"]["conditions"][0]["status"], "True");
    assert_eq!(task["podStatus"]["containerStatuses"][0]["ready"], true);
    assert!(task["processStatus"]["running"]["startedAt"].is_string());
    assert!(task["process"].is_null());
}

#[tokio::test]
async fn a_kind_that_nobody_takes_is_refused_with_its_field() {
    let api = api().await;
    let body = r#"{"name": "c", "spec": {"container": {"image": "ubuntu", "command": null}}}"#;
    let answer = api.post("/tasks", body).await;
    is_contract_error(&answer, 400, "no runtime takes container");
    assert_eq!(answer.json()["details"][0]["field"], "/spec/container");
}

#[tokio::test]
async fn a_runtimes_problem_points_at_where_the_field_was_written() {
    let api = api().await;
    for (body, field) in [
        (
            r#"{"name": "a", "runtime": "missing", "process": {"command": ["a"]}}"#,
            "/runtime",
        ),
        (
            r#"{"name": "a", "spec": {"runtime": "missing", "process": {"command": ["a"]}}}"#,
            "/spec/runtime",
        ),
    ] {
        let answer = api.post("/tasks", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["details"][0]["field"], field);
    }
}
