//! Probes, documents, a full disk, a full queue, routes that do not exist.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use taskwright_control::Config;

use super::{is_contract_error, is_problem, names};
use crate::AuthConfig;
use crate::fake::{api, api_with};

#[tokio::test]
async fn probes_metrics_and_documents_answer() {
    let api = api().await;
    assert_eq!(
        api.get("/opensandbox/health").await.text(),
        "{\"status\":\"healthy\"}\n",
        "to the letter below the prefix"
    );
    assert_eq!(api.get("/health").await.json()["status"], "healthy");
    assert_eq!(api.get("/livez").await.status, 200);
    let ready = api.get("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["status"]),
        (200, &json!("ready"))
    );
    assert_eq!(api.get("/metrics").await.text(), "taskwright_up 1\n");
    assert_eq!(api.get("/version").await.json()["version"], "0.0.0-test");
    assert_eq!(
        api.get("/openapi.json").await.json()["info"]["title"],
        "Taskwright"
    );
    let page = api.get("/docs").await;
    assert!(page.text().starts_with("<!doctype html>"));
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
    let plugins = api.get("/plugins").await.json();
    assert_eq!(plugins["items"][0]["name"], "process");
    assert_eq!(plugins["items"][0]["configSchema"]["type"], "object");
    assert_eq!(api.get("/plugins/process").await.json()["healthy"], true);
    is_problem(&api.get("/plugins/none").await, 404, "none");
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let api = api().await;
    api.submit("before", &["hang"]).await;
    api.store_is_full.store(true, Ordering::SeqCst);
    let refused = api.submit("one", &["hang"]).await;
    is_contract_error(&refused, 507, "no space left");
    assert_eq!(refused.header("retry-after"), "10");
    is_contract_error(&api.delete("/tasks/before").await, 507, "no space left");
    let set = r#"[{"name": "x", "process": {"command": ["hang"]}}]"#;
    is_contract_error(&api.post("/setTasks", set).await, 507, "no space left");
    let health = api.get("/health").await;
    assert_eq!(
        (health.status.as_u16(), &health.json()["status"]),
        (503, &json!("unhealthy"))
    );
    assert_eq!(api.get("/readyz").await.status, 503);
    assert_eq!(api.get("/livez").await.status, 200);

    api.store_is_full.store(false, Ordering::SeqCst);
    assert_eq!(api.submit("one", &["hang"]).await.status, 201);
    assert_eq!(api.get("/health").await.status, 200);
    assert_eq!(names(&api.get("/getTasks").await.json()), ["before", "one"]);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let config = Config {
        max_tasks: 1,
        ..Config::default()
    };
    let api = api_with(config, AuthConfig::none()).await;
    api.submit("one", &["hang"]).await;
    let refused = api.submit("two", &["hang"]).await;
    is_contract_error(&refused, 429, "1 tasks are on record");
    assert_eq!(refused.header("retry-after"), "5");
}

#[tokio::test]
async fn what_is_not_served_is_told_as_json() {
    let api = api().await;
    is_contract_error(&api.get("/nowhere").await, 404, "/nowhere");
    let answer = api.with_headers("PUT", "/tasks/x", &[], "").await;
    is_contract_error(&answer, 405, "PUT");
    assert_eq!(answer.header("allow"), "GET,HEAD,DELETE");
    let answer = api.get("/setTasks").await;
    is_contract_error(&answer, 405, "GET");
    assert_eq!(answer.header("allow"), "POST");
    is_contract_error(&api.get("/opensandbox/nowhere").await, 404, "nowhere");
    let answer = api.get("/opensandbox/setTasks").await;
    is_contract_error(&answer, 405, "GET");
    is_contract_error(&api.get("/tasks/%ff").await, 400, "");
    is_problem(&api.get("/tasks?limit=1&limit=2").await, 400, "limit");
}

/// Every field of `value` is described by `schema`.
fn is_described(value: &Value, schema: &Value, document: &Value, place: &str) {
    let mut schema = schema;
    while let Some(target) = schema["$ref"].as_str() {
        schema = document.pointer(&target[1..]).unwrap();
    }
    for variant in ["oneOf", "anyOf"] {
        if let Some(variants) = schema[variant].as_array() {
            let fits = |one: &&Value| match (&one["properties"], value.as_object()) {
                (Value::Object(known), Some(map)) => map.keys().all(|key| known.contains_key(key)),
                _ => one["$ref"].is_string(),
            };
            let one = variants.iter().find(fits);
            return is_described(value, one.expect(place), document, place);
        }
    }
    match value {
        Value::Array(list) => {
            for one in list {
                is_described(one, &schema["items"], document, place);
            }
        }
        Value::Object(map) if schema["properties"].is_object() => {
            for (key, inner) in map {
                let known = &schema["properties"][key];
                let place = format!("{place}/{key}");
                assert!(known.is_object(), "{place} is not described");
                is_described(inner, known, document, &place);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_field_of_a_task_is_described() {
    let api = api().await;
    let body = json!({"name": "one", "labels": {"a": "b"}, "retry": {"maxAttempts": 2, "backoffSeconds": 0},
        "limits": {"queueSeconds": 60, "startSeconds": 60, "idleSeconds": 60, "runSeconds": 60},
        "process": {"command": ["exit", "1"], "args": [], "workingDir": "/", "env": [{"name": "A", "value": "1"}]}});
    api.post("/tasks?wait=15s", &body.to_string()).await;
    let task = api.ended("one").await;
    assert_eq!(task["attempts"].as_array().unwrap().len(), 2, "{task}");
    let document = api.get("/openapi.json").await.json();
    is_described(
        &task,
        &document["components"]["schemas"]["Task"],
        &document,
        "",
    );
    let events = api.get("/events").await.json();
    is_described(
        &events,
        &document["components"]["schemas"]["EventPage"],
        &document,
        "",
    );
    let plugins = api.get("/plugins").await.json();
    is_described(
        &plugins,
        &document["components"]["schemas"]["PluginList"],
        &document,
        "",
    );
}
