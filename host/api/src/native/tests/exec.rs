//! Commands inside tasks.

use serde_json::json;

use super::is_problem;
use crate::fake::{Answer, api};

#[tokio::test]
async fn a_command_answers_with_what_it_printed_and_its_code() {
    let api = api().await;
    api.submit("a", &["sleep", "60"]).await;
    let running = |answer: &Answer| answer.json()["state"] == "running";
    api.until("/tasks/a", running).await;
    let answer = api
        .post("/tasks/a/exec", r#"{"command": ["ls", "/"]}"#)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"exitCode": 2, "stdout": {"text": "ls /"}, "stderr": {"base64": "/w=="}})
    );
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_in_words() {
    let api = api().await;
    api.submit("a", &["sleep", "60"]).await;
    let running = |answer: &Answer| answer.json()["state"] == "running";
    api.until("/tasks/a", running).await;
    for (body, field) in [
        ("{}", "/command"),
        (r#"{"command": []}"#, "/command"),
        (r#"{"command": [""]}"#, "/command"),
        (r#"{"command": ["a", 1]}"#, "/command/1"),
        (r#"{"command": ["a\u0000"]}"#, "/command"),
        (
            r#"{"command": ["a"], "timeoutSeconds": 0}"#,
            "/timeoutSeconds",
        ),
        (
            r#"{"command": ["a"], "timeoutSeconds": 4000}"#,
            "/timeoutSeconds",
        ),
        (r#"{"command": ["a"], "container": 7}"#, "/container"),
    ] {
        let answer = api.post("/tasks/a/exec", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(field), "{body}: {}", answer.text());
    }
    let nowhere = r#"{"command": ["a"], "container": "b"}"#;
    is_problem(
        &api.post("/tasks/a/exec", nowhere).await,
        400,
        "there is no b",
    );
    is_problem(
        &api.post("/tasks/none/exec", r#"{"command": ["a"]}"#).await,
        404,
        "none",
    );
    api.submit("ended", &["exit", "0"]).await;
    api.ended("ended").await;
    let answer = api.post("/tasks/ended/exec", r#"{"command": ["a"]}"#).await;
    is_problem(&answer, 409, "runs nothing");
}

#[tokio::test]
async fn why_a_command_has_no_end_is_told_in_a_word() {
    let api = api().await;
    api.submit("a", &["sleep", "60"]).await;
    let running = |answer: &Answer| answer.json()["state"] == "running";
    api.until("/tasks/a", running).await;
    for (program, status, cause) in [("nope", 400, "not-found"), ("slow", 504, "timeout")] {
        let body = json!({"command": [program]}).to_string();
        let answer = api.post("/tasks/a/exec", &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.json()["cause"], cause);
    }
}
