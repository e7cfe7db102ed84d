//! `/tasks/{name}/logs`.

use taskwright_control::port::Stream;

use super::is_problem;
use crate::fake::api;

#[tokio::test]
async fn output_is_read_by_offset_and_from_the_end() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    api.outputs
        .print("one", Stream::Stdout, b"one\ntwo\nthree\n");
    api.outputs.print("one", Stream::Stderr, b"oops\n");
    for (query, text, offset) in [
        ("", "one\ntwo\nthree\n", "0"),
        ("?offset=4", "two\nthree\n", "4"),
        ("?offset=4&limit=3", "two", "4"),
        ("?offset=99", "", "14"),
        ("?tail=1", "three\n", "8"),
        ("?tail=2", "two\nthree\n", "4"),
        ("?tail=9", "one\ntwo\nthree\n", "0"),
        ("?tail=0", "", "14"),
        ("?tailBytes=6", "three\n", "8"),
        ("?stream=stderr", "oops\n", "0"),
    ] {
        let answer = api.get(&format!("/tasks/one/logs{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(answer.text(), text, "{query}");
        assert_eq!(answer.header("x-log-offset"), offset, "{query}");
        let next = offset.parse::<usize>().unwrap() + text.len();
        assert_eq!(
            answer.header("x-log-next-offset"),
            next.to_string(),
            "{query}"
        );
    }
    is_problem(
        &api.get("/tasks/one/logs?stream=both").await,
        400,
        "offsets",
    );
    is_problem(&api.get("/tasks/one/logs?stream=x").await, 400, "stream");
    is_problem(
        &api.get("/tasks/one/logs?tail=1&offset=2").await,
        400,
        "exclude",
    );
}

#[tokio::test]
async fn what_was_dropped_is_told() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    api.outputs.print("one", Stream::Stdout, b"0123456789");
    api.outputs.forget("one", Stream::Stdout, 6);
    let answer = api.get("/tasks/one/logs?offset=2").await;
    assert_eq!(answer.text(), "6789");
    assert_eq!(answer.header("x-log-dropped"), "4");
    assert_eq!(answer.header("x-log-end"), "10");
}

#[tokio::test]
async fn following_sends_everything_and_then_the_end() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    api.outputs
        .print("one", Stream::Stdout, "héllo\n".as_bytes());
    api.outputs.print("one", Stream::Stderr, b"\xff\xfe");
    let following = api.get("/tasks/one/logs?stream=both&follow=true");
    let stopping = async {
        api.until("/tasks/one", |answer| answer.json()["state"] == "running")
            .await;
        api.outputs.print("one", Stream::Stdout, b"late\n");
        api.post("/tasks/one/stop", "").await
    };
    let (stream, _) = tokio::join!(following, stopping);
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let text = stream.text();
    assert!(text.contains("retry: 1000"), "{text}");
    assert!(text.contains(r#""text":"héllo\n"#), "{text}");
    assert!(
        text.contains(r#""stream":"stderr","base64":"//4=""#),
        "{text}"
    );
    assert!(text.contains("late"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(
        last.contains("event: end") && last.contains("canceled"),
        "{last}"
    );
    assert!(last.contains("id: 12,2"), "{last}");
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was() {
    let api = api().await;
    api.submit("one", &["exit", "0"]).await;
    api.ended("one").await;
    api.outputs.print("one", Stream::Stdout, b"seen unseen");
    let headers = [("accept", "text/event-stream"), ("last-event-id", "5")];
    let stream = api
        .with_headers("GET", "/tasks/one/logs", &headers, "")
        .await;
    let text = stream.text();
    assert!(text.contains(r#""text":"unseen""#), "{text}");
    let bad = [("accept", "text/event-stream"), ("last-event-id", "x")];
    let answer = api.with_headers("GET", "/tasks/one/logs", &bad, "").await;
    is_problem(&answer, 400, "Last-Event-ID");
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_alive_and_ends_with_the_daemon() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    let text = api
        .stream_until("/tasks/one/logs?follow=1", &[], ": alive")
        .await;
    assert!(
        text.contains(": alive") && !text.contains("event: end"),
        "{text}"
    );
}
