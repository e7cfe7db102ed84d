//! What policies say, as clients see it, and what people answer.

use serde_json::{Value, json};
use taskwright_control::Config;

use super::is_problem;
use crate::fake::{Answer, Api, api, api_with};
use crate::{AuthConfig, Scope, Token};

/// Submits a task about which the policy says `word`.
async fn submit(api: &Api, name: &str, word: &str) -> Answer {
    let body = json!({
        "name": name,
        "labels": {"policy": word},
        "limits": {"runSeconds": 3600},
        "process": {"command": ["hang"]},
    });
    api.post("/tasks", &body.to_string()).await
}

#[tokio::test]
async fn a_denial_names_the_policy_and_the_field_and_stores_nothing() {
    let api = api().await;
    let answer = submit(&api, "no", "deny").await;
    assert_eq!(answer.status, 403);
    let body = answer.json();
    assert_eq!(
        body["message"],
        "policy by-label refuses the task: labels say no"
    );
    assert_eq!(
        body["details"],
        json!([{"field": "/labels/policy", "message": "labels say no"}])
    );
    assert_eq!(api.get("/tasks/no").await.status, 404);
    let body =
        r#"[{"name": "no", "labels": {"policy": "deny"}, "process": {"command": ["hang"]}}]"#;
    let set = api.post("/setTasks", body).await;
    assert_eq!(set.status, 200, "an element that is denied spoils nothing");
    let element = &set.json()[0];
    let message = element["problem"]["message"].as_str().unwrap();
    assert!(message.contains("by-label"), "{message}");
}

#[tokio::test]
async fn a_change_is_shown_with_what_was_submitted() {
    let api = api().await;
    let task = submit(&api, "capped", "cap").await.json();
    assert_eq!(task["limits"]["runSeconds"], 60.0);
    let review = &task["review"];
    assert_eq!(review["submitted"]["limits"]["runSeconds"], 3600.0);
    assert_eq!(review["effective"]["limits"]["runSeconds"], 60.0);
    let verdict = &review["verdicts"][0];
    assert_eq!(verdict["verdict"], "change");
    assert_eq!(verdict["patch"], json!({"limits": {"runSeconds": 60}}));
    assert_eq!(verdict["message"], "an hour is long");
    let plain = api.submit("plain", &["hang"]).await.json();
    assert_eq!(plain["review"], Value::Null);
}

#[tokio::test]
async fn a_question_is_answered_by_approve_and_deny() {
    let api = api().await;
    for (name, verb) in [("yes", "approve"), ("no", "deny")] {
        let task = submit(&api, name, "ask").await.json();
        assert_eq!(task["state"], "pending");
        let hold = &task["review"]["hold"];
        assert_eq!(hold["reason"], "asked");
        assert_eq!(hold["message"], "is that so?");
        assert_eq!(hold["otherwise"], "deny");
        let waiting = &task["status"]["state"]["waiting"];
        assert!(waiting["message"].as_str().unwrap().contains("is that so?"));
        let path = format!("/tasks/{name}/{verb}");
        let another = r#"{"id": "00000000-0000-7000-8000-00000000ffff"}"#;
        is_problem(&api.post(&path, another).await, 409, "is another one");
        let answer = api.post(&path, r#"{"reason": "because"}"#).await;
        assert_eq!(answer.status, 200);
        let answers = &answer.json()["review"]["answers"];
        assert_eq!(answers[0]["answer"], verb);
        assert_eq!(answers[0]["by"], "an unauthenticated client");
        is_problem(&api.post(&path, "").await, 409, "no policy asks");
    }
    api.until("/tasks/yes", |answer| answer.json()["state"] == "running")
        .await;
    let task = api.ended("no").await;
    assert_eq!(task["outcome"]["cause"], "denied");
    assert_eq!(task["processStatus"]["terminated"]["exitCode"], 125);
    let events = api.get("/events?limit=1000").await.json();
    let held = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["event"] == "held")
        .unwrap();
    assert_eq!(held["policies"], json!(["by-label"]));
    assert_eq!(held["why"], "is that so?");
}

#[tokio::test]
async fn a_policy_that_fails_holds_the_task() {
    let api = api().await;
    let answer = submit(&api, "held", "trap").await;
    assert_eq!(answer.status, 201, "the task is not to blame");
    let hold = &answer.json()["review"]["hold"];
    assert_eq!(hold["reason"], "policy-error");
    assert_eq!(hold["message"], "it trapped");
    is_problem(&api.post("/tasks/held/approve", "").await, 409, "asks");
}

#[tokio::test]
async fn bad_answers_are_told() {
    let api = api().await;
    submit(&api, "a", "ask").await;
    is_problem(&api.post("/tasks/none/approve", "").await, 404, "none");
    is_problem(&api.post("/tasks/a/approve", "[]").await, 400, "object");
    is_problem(
        &api.post("/tasks/a/approve", r#"{"reason": 1}"#).await,
        400,
        "/reason",
    );
    let long = json!({"reason": "x".repeat(5000)}).to_string();
    is_problem(&api.post("/tasks/a/approve", &long).await, 400, "4096");
    assert_eq!(api.get("/tasks/a").await.json()["state"], "pending");
}

#[tokio::test]
async fn who_submits_does_not_thereby_decide_and_readers_see_no_documents() {
    use sha2::{Digest, Sha256};
    let token =
        |name: &str, scope| Token::new(name, &hex::encode(Sha256::digest(name)), scope).unwrap();
    let tokens = vec![
        token("reader", Scope::Read),
        token("ci", Scope::Submit),
        token("ann", Scope::Admin),
    ];
    let api = api_with(Config::default(), AuthConfig::with_tokens(tokens)).await;
    let body = r#"{"name": "a", "labels": {"policy": "cap"}, "process": {"command": ["hang"]}}"#;
    let send = async |who: &str, method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {who}");
        let headers = [("authorization", bearer.as_str())];
        api.with_headers(method, path, &headers, body).await
    };
    let capped = send("ci", "POST", "/tasks", body).await;
    assert!(capped.json()["review"]["submitted"].is_object());
    let read = send("reader", "GET", "/tasks/a", "").await.json();
    assert_eq!(read["review"]["submitted"], Value::Null);
    assert_eq!(read["review"]["verdicts"][0]["patch"], Value::Null);
    let body = r#"{"name": "b", "labels": {"policy": "ask"}, "process": {"command": ["hang"]}}"#;
    assert_eq!(send("ci", "POST", "/tasks", body).await.status, 201);
    is_problem(
        &send("ci", "POST", "/tasks/b/approve", "").await,
        403,
        "admin",
    );
    let approved = send("ann", "POST", "/tasks/b/approve", "").await;
    assert_eq!(approved.json()["review"]["answers"][0]["by"], "ann");
}
