//! The dialect over a loop of fakes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::{Value, json};
use taskwright_control::Config;
use taskwright_control::port::Stream;

use crate::auth::AuthConfig;
use crate::fake::{Answer, Api, api, api_with};

async fn create(api: &Api, command: &[&str]) -> (Answer, String) {
    let body = json!({"machine": "process", "parameters": {"command": command}});
    let answer = api.post("/v1/tasks", &body.to_string()).await;
    let id = answer.json()["taskId"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer, id)
}

fn is_detail(answer: &Answer, status: u16, detail: &str) {
    let wanted = json!({ "detail": detail }).to_string();
    assert_eq!((answer.status.as_u16(), answer.text()), (status, wanted));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn fixed_documents_are_the_originals() {
    let api = api().await;
    let root =
        r#"{"name":"task_runner","apis":[{"root":"/v1","version":"0.0.1","min_version":"0.0.0"}]}"#;
    for path in ["/tessia", "/tessia/"] {
        assert_eq!(api.get(path).await.text(), root, "{path}");
    }
    let union = api.get("/").await.json();
    assert_eq!(union["name"], "task_runner");
    assert_eq!(union["version"], "0.0.0-test");
    assert_eq!(
        (&union["docs"], &union["health"]),
        (&json!("/docs"), &json!("/health"))
    );
    for base in ["", "/tessia"] {
        let get = async |path: &str| api.get(&format!("{base}{path}")).await;
        assert_eq!(get("/v1/").await.text(), r#"{"success":true}"#);
        assert_eq!(get("/v1/schema").await.text(), r#"{"/":"api root"}"#);
        assert_eq!(get("/v1/tasks").await.text(), "[]");
        for (from, to) in [
            ("/v1", "/v1/"),
            ("/v1/tasks/", "/v1/tasks"),
            ("/v1/schema/?a=b", "/v1/schema?a=b"),
            ("/v1/tasks/x/", "/v1/tasks/x"),
        ] {
            let answer = get(from).await;
            assert_eq!(answer.status, 307, "{from}");
            assert_eq!(answer.header("location"), format!("{base}{to}"));
        }
    }
}

#[tokio::test]
async fn errors_are_a_detail_and_nothing_else() {
    let api = api().await;
    for base in ["", "/tessia"] {
        is_detail(
            &api.get(&format!("{base}/v1/tasks/12345678")).await,
            404,
            "",
        );
        is_detail(
            &api.get(&format!("{base}/v1/nothing")).await,
            404,
            "Not Found",
        );
        is_detail(
            &api.delete(&format!("{base}/v1/tasks")).await,
            405,
            "Method Not Allowed",
        );
    }
    is_detail(&api.get("/tessia/nothing").await, 404, "Not Found");
    is_detail(&api.get("/v1/tasks/..").await, 404, "");
    is_detail(
        &api.post(
            "/v1/tasks",
            r#"{"without-machine-parameters": "request-is-invalid"}"#,
        )
        .await,
        400,
        "Task validation failed: : 'machine' is a required property, : 'parameters' is a required \
         property, : Additional properties are not allowed ('without-machine-parameters' was unexpected)",
    );
    let answer = api.post("/v1/tasks", "{").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("no JSON")
    );
    assert_eq!(
        api.get("/v1/tasks").await.text(),
        "[]",
        "nothing was stored"
    );
    // Other routes keep their own form.
    assert!(api.get("/tasks/x").await.json()["code"].is_string());
}

#[tokio::test]
async fn a_task_is_created_watched_stopped_and_forgotten() {
    let api = api().await;
    let (first, one) = create(&api, &["hang"]).await;
    assert_eq!(first.status, 201);
    assert_eq!(
        first.text(),
        format!(r#"{{"taskId":"{one}","state":"running"}}"#)
    );
    assert!(
        one.len() == 8 && u32::from_str_radix(&one, 16).is_ok(),
        "{one}"
    );
    let (_, two) = create(&api, &["hang"]).await;
    let list = api.get("/v1/tasks").await.text();
    let entry = |id: &str| format!(r#"{{"taskId":"{id}","state":"running"}}"#);
    assert_eq!(list, format!("[{},{}]", entry(&one), entry(&two)));

    let stopped = api.post(&format!("/v1/tasks/{one}/stop"), "").await;
    assert_eq!(stopped.json(), json!({"taskId": one, "state": "exited"}));
    let told = api.get(&format!("/v1/tasks/{one}")).await.json();
    assert_eq!(
        (&told["state"], &told["exitCode"]),
        (&json!("exited"), &json!(-1))
    );
    assert_eq!(told["outcome"]["cause"], "canceled");
    assert!(
        told["finishedAt"].is_string() && told["startedAt"].is_string(),
        "{told}"
    );
    // Stopping what has ended changes nothing.
    let again = api.post(&format!("/v1/tasks/{one}/stop"), "").await;
    assert_eq!(
        (again.status.as_u16(), again.json()["state"].clone()),
        (200, json!("exited"))
    );

    for id in [&one, &two] {
        let path = format!("/v1/tasks/{id}");
        assert_eq!(api.delete(&path).await.text(), r#"{"success":true}"#);
        is_detail(&api.delete(&path).await, 404, "");
        is_detail(&api.get(&path).await, 404, "");
    }
    assert_eq!(api.get("/v1/tasks").await.text(), "[]");
}

#[tokio::test]
async fn an_empty_set_of_the_native_dialect_leaves_them_alone() {
    let api = api().await;
    let (_, id) = create(&api, &["hang"]).await;
    api.submit("native", &["hang"]).await;
    api.post("/setTasks", "[]").await;
    api.until("/getTasks", |answer| answer.text() == "[]\n")
        .await;
    let list = api.get("/v1/tasks").await.json();
    assert_eq!(list, json!([{"taskId": id, "state": "running"}]));
}

#[tokio::test]
async fn one_that_waits_for_its_turn_is_created() {
    let config = Config {
        max_active: 1,
        ..Config::default()
    };
    let api = api_with(config, AuthConfig::none()).await;
    let (_, _runs) = create(&api, &["hang"]).await;
    let (waits, _) = create(&api, &["hang"]).await;
    assert_eq!(waits.json()["state"], "created");
}

#[tokio::test]
async fn its_output_is_streamed_to_its_end() {
    let api = api().await;
    let (_, id) = create(&api, &["exit", "3"]).await;
    api.outputs.print(&id, Stream::Stdout, b"hello\n");
    api.outputs.print(&id, Stream::Stderr, b"log\n");
    let path = format!("/v1/tasks/{id}/output");
    assert_eq!(
        api.get(&format!("{path}?follow=true")).await.text(),
        "hello\nlog\n"
    );
    assert_eq!(
        api.get(&format!("{path}?stream=stderr")).await.text(),
        "log\n"
    );
    assert_eq!(api.get(&format!("{path}?stream=x")).await.status, 400);
    api.outputs.forget(&id, Stream::Stdout, 2);
    assert_eq!(
        api.get(&format!("{path}?stream=stdout")).await.text(),
        "[2 bytes were not kept]\nllo\n"
    );
    let events = [("accept", "text/event-stream")];
    let text = api.with_headers("GET", &path, &events, "").await.text();
    assert!(text.contains("event: end"), "{text}");
    is_detail(&api.get("/v1/tasks/00000000/output").await, 404, "");
    let ended: Value = api.get(&format!("/v1/tasks/{id}")).await.json();
    assert_eq!(ended["exitCode"], 3);
}

#[tokio::test]
async fn a_running_task_shows_what_is_there_without_follow() {
    let api = api().await;
    let (_, id) = create(&api, &["hang"]).await;
    api.outputs.print(&id, Stream::Stdout, b"so far\n");
    let answer = api.get(&format!("/v1/tasks/{id}/output")).await;
    assert_eq!(answer.text(), "so far\n");
}
