//! Streams, limits and web pages, over a real store in a file.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::{Value, json};
use taskwright_control::Config;

use super::{Cors, SubmissionLimit};
use crate::fake::{Api, api, api_of, queue_api};
use crate::{AuthConfig, Scope, Token};

async fn created(api: &Api) -> String {
    let answer = api.post("/api/v1/tasks", r#"{"problem_id": "p"}"#).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn cancel(api: &Api, id: &str) {
    let answer = api.post(&format!("/api/v1/tasks/{id}/cancel"), "").await;
    assert_eq!(answer.status, 200);
}

/// The kinds and ids of the events in a stream's text.
fn events(text: &str) -> Vec<(String, String)> {
    let field = |event: &str, name: &str| {
        let found = event.lines().find_map(|line| line.strip_prefix(name));
        found.map(|text| text.trim().to_owned())
    };
    text.split("\n\n")
        .filter_map(|event| Some((field(event, "event:")?, field(event, "id:")?)))
        .collect()
}

#[tokio::test]
async fn a_stream_of_an_ended_task_tells_its_lines_and_then_its_end() {
    let api = api().await;
    let id = created(&api).await;
    cancel(&api, &id).await;
    let path = format!("/api/v1/tasks/{id}/events");
    let answer = api.get(&path).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let all = events(&answer.text());
    let kinds: Vec<&str> = all.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["log", "log", "state"], "{}", answer.text());
    let (_, last) = all.last().unwrap();
    let again = api
        .with_headers("GET", &path, &[("last-event-id", last)], "")
        .await;
    assert_eq!(again.status, 204);
    let part = api.get(&format!("{path}?after=1")).await;
    assert_eq!(events(&part.text()).len(), 2);
    // A header counts more than the query that the address still holds.
    let both = format!("{path}?after=0");
    let both = api
        .with_headers("GET", &both, &[("last-event-id", last)], "")
        .await;
    assert_eq!(both.status, 204);
    let bad = api
        .with_headers("GET", &path, &[("last-event-id", "-1")], "")
        .await;
    assert_eq!(bad.status, 422);
}

#[tokio::test]
async fn a_stream_goes_on_through_pages_of_lines() {
    let api = api().await;
    let id = created(&api).await;
    let lines: Vec<Value> = (0..250)
        .map(|n| json!({"message": n.to_string()}))
        .collect();
    let path = format!("/api/v1/tasks/{id}/logs");
    let body = json!({"logs": lines}).to_string();
    assert_eq!(api.post(&path, &body).await.status, 201);
    cancel(&api, &id).await;
    let answer = api.get(&format!("/api/v1/tasks/{id}/events")).await;
    let all = events(&answer.text());
    assert_eq!(all.len(), 253);
    assert_eq!(all.last().unwrap().0, "state");
}

#[tokio::test]
async fn a_stream_is_woken_by_a_change() {
    let api = api().await;
    let id = created(&api).await;
    let path = format!("/api/v1/tasks/{id}/events");
    let reading = api.get(&path);
    let ending = async {
        api.until("/metrics", |_| true).await;
        cancel(&api, &id).await;
    };
    let (answer, ()) = tokio::join!(reading, ending);
    let all = events(&answer.text());
    assert_eq!(all.last().unwrap().0, "state", "{}", answer.text());
}

#[tokio::test]
async fn a_socket_is_asked_for_as_one() {
    let api = api().await;
    let id = created(&api).await;
    for path in [
        format!("/ws/tasks/{id}"),
        format!("/aiopslab/ws/tasks/{id}"),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["type"]),
            (400, &json!("bad_request"))
        );
    }
}

#[tokio::test]
async fn what_is_switched_off_is_not_there() {
    let mut options = queue_api();
    (options.docs, options.metrics) = (false, false);
    let api = api_of(Config::default(), AuthConfig::none(), options).await;
    for path in [
        "/docs",
        "/redoc",
        "/metrics",
        "/aiopslab/metrics",
        "/opensandbox/docs",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["type"], "not_found", "{path}");
    }
    assert_eq!(api.get("/openapi.json").await.status, 200);
}

#[tokio::test]
async fn a_client_that_submits_too_fast_is_told_when_to_come_back() {
    let mut options = queue_api();
    options.submissions = SubmissionLimit::new(0.5, 1);
    let api = api_of(Config::default(), AuthConfig::none(), options).await;
    created(&api).await;
    let refused = api.post("/api/v1/tasks", r#"{"problem_id": "p"}"#).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(refused.json()["type"], "too_many_requests");
}

const PAGE: (&str, &str) = ("origin", "https://pages.example.org");

#[tokio::test]
async fn pages_of_other_origins_read_and_change_nothing_unless_they_are_named() {
    let submit = r#"{"problem_id": "p"}"#;
    let unsaid = api().await;
    let read = unsaid
        .with_headers("GET", "/api/v1/tasks", &[PAGE], "")
        .await;
    assert_eq!(read.header("access-control-allow-origin"), "*");
    assert_eq!(read.header("access-control-allow-credentials"), "");
    let path = "/aiopslab/api/v1/tasks";
    let refused = unsaid.with_headers("POST", path, &[PAGE], submit).await;
    assert_eq!(refused.status, 403);

    let mut options = queue_api();
    options.cors = Cors::parse([PAGE.1]).unwrap();
    let named = api_of(Config::default(), AuthConfig::none(), options).await;
    let answer = named.with_headers("POST", path, &[PAGE], submit).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("access-control-allow-origin"), PAGE.1);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    // Errors too, or the page could not read them.
    let wrong = named.with_headers("POST", path, &[PAGE], "{}").await;
    assert_eq!(wrong.header("access-control-allow-origin"), PAGE.1);
    let evil = [("origin", "https://evil.example")];
    let read = named.with_headers("GET", path, &evil, "").await;
    assert_eq!(read.header("access-control-allow-origin"), "");
    assert_eq!(read.header("vary"), "origin");
    let other_dialect = named.with_headers("GET", "/tasks", &[PAGE], "").await;
    assert_eq!(other_dialect.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn where_a_token_is_asked_for_any_page_that_knows_it_may() {
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"; // "secret"
    let token = Token::new("ci", digest, Scope::Submit).unwrap();
    let auth = AuthConfig::with_tokens(vec![token]);
    let api = api_of(Config::default(), auth, queue_api()).await;
    let asked = [PAGE, ("access-control-request-method", "POST")];
    let answer = api
        .with_headers("OPTIONS", "/api/v1/tasks", &asked, "")
        .await;
    assert_eq!(
        answer.status, 204,
        "a browser that asks first sends no token"
    );
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let body = r#"{"problem_id": "p"}"#;
    let without = api
        .with_headers("POST", "/api/v1/tasks", &[PAGE], body)
        .await;
    assert_eq!(without.status, 401);
    let with = [PAGE, ("authorization", "Bearer secret")];
    let answer = api.with_headers("POST", "/api/v1/tasks", &with, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}
