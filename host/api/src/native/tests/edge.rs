//! What holds for every request: ids, repeats, access, panics.

use sha2::{Digest, Sha256};
use taskwright_control::Config;

use super::{is_contract_error, is_problem};
use crate::fake::{api, api_with};
use crate::{AuthConfig, Scope, Token};

#[tokio::test]
async fn a_repeat_with_the_same_key_answers_with_the_first() {
    let api = api().await;
    let body = r#"{"name": "one", "process": {"command": ["hang"]}}"#;
    let key = [("idempotency-key", "abc")];
    let first = api.with_headers("POST", "/tasks", &key, body).await;
    assert_eq!(
        (first.status.as_u16(), first.header("idempotency-replayed")),
        (201, "")
    );
    let second = api.with_headers("POST", "/tasks", &key, body).await;
    assert_eq!(
        (
            second.status.as_u16(),
            second.header("idempotency-replayed")
        ),
        (201, "true")
    );
    assert_eq!(first.json()["id"], second.json()["id"]);
    let other = body.replace("one", "two");
    let reused = api.with_headers("POST", "/tasks", &key, &other).await;
    is_contract_error(&reused, 422, "idempotency key");
    let long = "k".repeat(256);
    for bad in ["", long.as_str()] {
        let key = [("idempotency-key", bad)];
        let answer = api.with_headers("POST", "/tasks", &key, body).await;
        is_contract_error(&answer, 400, "Idempotency-Key");
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_daemon_goes_on() {
    let api = api().await;
    let body = r#"{"name": "one", "runtime": "broken", "process": {"command": ["hang"]}}"#;
    is_contract_error(&api.post("/tasks", body).await, 500, "fault of the daemon");
    assert_eq!(api.submit("one", &["hang"]).await.status, 201);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let api = api().await;
    let given = [("x-request-id", "mine-1")];
    let answer = api.with_headers("GET", "/livez", &given, "").await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert!(!api.get("/nowhere").await.header("x-request-id").is_empty());
    let missing = api.with_headers("GET", "/plugins/none", &given, "").await;
    assert_eq!(missing.json()["requestId"], "mine-1");
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let api = api().await;
    let body = r#"{"name": "one", "process": {"command": ["hang"]}}"#;
    let foreign = [
        ("origin", "http://evil.example"),
        ("host", "127.0.0.1:5758"),
    ];
    let answer = api.with_headers("POST", "/tasks", &foreign, body).await;
    is_contract_error(&answer, 403, "origin");
    let own = [
        ("origin", "http://127.0.0.1:5758"),
        ("host", "127.0.0.1:5758"),
    ];
    let answer = api.with_headers("POST", "/tasks", &own, body).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn tokens_are_asked_for_and_their_scope_holds() {
    let token =
        |name: &str, scope| Token::new(name, &hex::encode(Sha256::digest(name)), scope).unwrap();
    let tokens = vec![token("reader", Scope::Read), token("writer", Scope::Submit)];
    let api = api_with(Config::default(), AuthConfig::with_tokens(tokens)).await;
    let reader = [("authorization", "Bearer reader")];
    let writer = [("authorization", "Bearer writer")];
    let body = r#"{"name": "one", "process": {"command": ["hang"],
        "env": [{"name": "KEY", "value": "s3cret"}]}}"#;

    let nobody = api.post("/tasks", body).await;
    is_contract_error(&nobody, 401, "token");
    assert!(nobody.header("www-authenticate").starts_with("Bearer"));
    is_problem(&api.get("/plugins").await, 401, "token");
    let answer = api.with_headers("POST", "/tasks", &reader, body).await;
    is_contract_error(&answer, 403, "scope submit");
    let answer = api.with_headers("POST", "/tasks", &writer, body).await;
    assert_eq!(answer.status, 201);

    let seen = api.with_headers("GET", "/tasks/one", &writer, "").await;
    assert_eq!(seen.json()["process"]["env"][0]["value"], "s3cret");
    for path in [
        "/tasks/one",
        "/tasks",
        "/getTasks",
        "/tasks/one/wait?timeout=1ms",
    ] {
        let seen = api.with_headers("GET", path, &reader, "").await;
        assert!(!seen.text().contains("s3cret"), "{path}");
        assert!(seen.text().contains("***"), "{path}");
    }
    let pod = r#"{"name": "pod", "podTemplateSpec": {"spec": {"containers": [
        {"name": "main", "env": [{"name": "KEY", "value": "p0dsecret"}]}]}}}"#;
    let answer = api.with_headers("POST", "/tasks", &writer, pod).await;
    assert!(answer.text().contains("p0dsecret"));
    let seen = api.with_headers("GET", "/tasks/pod", &reader, "").await;
    assert!(!seen.text().contains("p0dsecret") && seen.text().contains("***"));
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
}
