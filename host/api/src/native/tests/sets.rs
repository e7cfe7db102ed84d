//! `setTasks` and `getTasks`.

use serde_json::json;

use super::{is_contract_error, names};
use crate::fake::api;

#[tokio::test]
async fn the_example_of_the_guide_works() {
    let api = api().await;
    let body = r#"[
        {"name": "task-alpha", "spec": {"process": {"command": ["sleep", "10"]}}},
        {"name": "task-beta", "spec": {"process": {"command": ["ls", "-l", "/tmp"]}}}]"#;
    let answer = api.post("/setTasks", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(names(&answer.json()), ["task-alpha", "task-beta"]);
    let again = api.post("/setTasks", body).await;
    assert_eq!(again.json()[0]["id"], answer.json()[0]["id"]);
    assert!(again.json()[0]["problem"].is_null());
    assert_eq!(
        names(&api.get("/getTasks").await.json()),
        ["task-alpha", "task-beta"]
    );
}

#[tokio::test]
async fn what_is_not_wanted_goes_and_says_so() {
    let api = api().await;
    api.submit("old", &["hang"]).await;
    let body = r#"[{"name": "new", "process": {"command": ["hang"]}}]"#;
    let answer = api.post("/setTasks", body).await.json();
    assert_eq!(names(&answer), ["new", "old"]);
    assert!(answer[0]["deletionTimestamp"].is_null());
    assert!(answer[1]["deletionTimestamp"].is_string());
    let clear = api.post("/setTasks", "[]").await;
    assert_eq!(clear.status, 200);
    api.until("/getTasks", |answer| answer.text() == "[]\n")
        .await;
}

#[tokio::test]
async fn bad_elements_are_told_last_and_spoil_nothing() {
    let api = api().await;
    let body = r#"[
        7,
        {"process": {"command": ["hang"]}},
        {"name": "a/b", "process": {"command": ["hang"]}},
        {"name": "empty", "process": {"command": []}},
        {"name": "none", "spec": {"container": {"image": "x"}}},
        {"name": "good", "process": {"command": ["hang"]}}]"#;
    let answer = api.post("/setTasks", body).await;
    assert_eq!(answer.status, 200);
    let list = answer.json();
    assert_eq!(list[0]["name"], "good");
    let mut told = names(&list)[1..].to_vec();
    told.sort_unstable();
    assert_eq!(told, ["", "", "a/b", "empty", "none"]);
    for bad in list.as_array().unwrap().iter().skip(1) {
        let terminated = &bad["processStatus"]["terminated"];
        assert_eq!(terminated["exitCode"], 128, "{bad}");
        assert_eq!(terminated["reason"], "InvalidTask", "{bad}");
        assert!(terminated["startedAt"].is_null() && terminated["finishedAt"].is_null());
        assert_eq!(bad["status"]["state"], bad["processStatus"]);
        assert!(bad["problem"]["message"].is_string(), "{bad}");
    }
    let empty = list
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "empty");
    assert_eq!(
        empty.unwrap()["problem"]["details"][0]["field"],
        "/3/process/command"
    );
    assert_eq!(names(&api.get("/getTasks").await.json()), ["good"]);
}

#[tokio::test]
async fn what_a_runtime_holds_against_an_element_is_told_by_field() {
    let api = api().await;
    let body = r#"[
        {"name": "none", "spec": {"container": {"image": "x"}}},
        {"name": "top", "runtime": "missing", "process": {"command": ["hang"]}},
        {"name": "under", "spec": {"runtime": "missing", "process": {"command": ["hang"]}}}]"#;
    let list = api.post("/setTasks", body).await.json();
    let mut told: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["problem"]["details"][0]["field"].as_str().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        ["/0/spec/container", "/1/runtime", "/2/spec/runtime"],
        "{list}"
    );
    let message = list[0]["problem"]["message"].as_str().unwrap();
    let field = list[0]["problem"]["details"][0]["field"].as_str().unwrap();
    assert!(message.starts_with(&format!("{field}: ")), "{message}");
}

#[tokio::test]
async fn another_spec_under_a_present_name_is_told_and_the_task_kept() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    let other = r#"[{"name": "one", "process": {"command": ["hang", "more"]}}]"#;
    let list = api.post("/setTasks", other).await.json();
    assert_eq!(names(&list), ["one"]);
    assert!(list[0]["problem"]["message"].is_string(), "{list}");
    assert_eq!(list[0]["process"]["command"], json!(["hang"]));
    assert!(list[0]["deletionTimestamp"].is_null());

    let bad = r#"[{"name": "one", "process": {"command": []}}]"#;
    let list = api.post("/setTasks", bad).await.json();
    assert_eq!(names(&list), ["one"]);
    let message = list[0]["problem"]["message"].as_str().unwrap();
    assert!(message.contains("kept as it is"), "{message}");
    assert!(list[0]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn of_the_same_name_the_last_counts() {
    let api = api().await;
    let body = r#"[
        {"name": "a", "process": {"command": ["first"]}},
        {"name": "b", "process": {"command": []}},
        {"name": "a", "process": {"command": ["last"]}},
        {"name": "b", "process": {"command": ["good"]}}]"#;
    let list = api.post("/setTasks", body).await.json();
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(list[0]["process"]["command"], json!(["last"]));
    assert!(list[1]["problem"].is_null(), "{list}");
}

#[tokio::test]
async fn what_is_no_list_does_nothing() {
    let api = api().await;
    api.submit("one", &["hang"]).await;
    for (body, words) in [
        ("null", "not null"),
        ("{}", "not an object"),
        ("7", "not a number"),
        ("\"x\"", "not a text"),
        ("true", "not true or false"),
        ("[1,", ""),
    ] {
        is_contract_error(&api.post("/setTasks", body).await, 400, words);
    }
    let many = format!("[{}1]", "1,".repeat(10));
    is_contract_error(&api.post("/setTasks", &many).await, 413, "10 elements");
    let task = api.get("/tasks/one").await.json();
    assert!(task["deletionTimestamp"].is_null());
}
