//! The feed.

use serde_json::json;

use super::is_problem;
use crate::fake::api;

#[tokio::test]
async fn the_feed_is_read_in_pages() {
    let api = api().await;
    api.submit("one", &["exit", "4"]).await;
    api.ended("one").await;
    let page = api.get("/tasks/one/events").await.json();
    let words: Vec<&str> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(words.first(), Some(&"submitted"));
    assert_eq!(words.last(), Some(&"ended"));
    let last = page["items"].as_array().unwrap().last().unwrap();
    assert_eq!(last["outcome"], json!({"cause": "exit", "exitCode": 4}));
    assert_eq!(last["name"], "one");

    let first = api.get("/events?limit=1").await.json();
    assert_eq!(first["nextAfter"], 1);
    let after = api.get("/events?after=latest").await.json();
    assert_eq!(after["items"], json!([]));
    assert_eq!(after["nextAfter"], last["sequence"]);
    is_problem(&api.get("/events?limit=1001").await, 400, "1000");
    is_problem(&api.get("/events?after=x").await, 400, "after");
}

#[tokio::test]
async fn a_long_poll_waits_for_the_first() {
    let api = api().await;
    let polling = api.get("/events?wait=15s");
    let (page, _) = tokio::join!(polling, api.submit("one", &["hang"]));
    assert_eq!(page.json()["items"][0]["event"], "submitted");
    let none = api.get("/events?after=99999&wait=10ms").await.json();
    assert_eq!(none["items"], json!([]));
    assert_eq!(none["nextAfter"], 99999);
}

#[tokio::test]
async fn a_stream_of_one_task_ends_when_it_is_gone() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    let headers = [("accept", "text/event-stream")];
    let streaming = api.with_headers("GET", "/tasks/one/events", &headers, "");
    let (stream, _) = tokio::join!(streaming, api.delete("/tasks/one"));
    let text = stream.text();
    assert!(text.contains("event: submitted"), "{text}");
    assert!(
        text.trim_end()
            .rsplit("\n\n")
            .next()
            .unwrap()
            .contains("event: removed")
    );

    let resumed = [("accept", "text/event-stream"), ("last-event-id", "2")];
    let text = api
        .stream_until("/events", &resumed, "event: removed")
        .await;
    assert!(
        text.contains("id: 3\n") && !text.contains("id: 2\n"),
        "{text}"
    );
}
