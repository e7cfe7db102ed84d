//! `GET /tasks`.

use serde_json::json;

use super::{is_problem, names};
use crate::fake::api;

#[tokio::test]
async fn tasks_are_found_by_label_and_state_page_by_page() {
    let api = api().await;
    for (name, labels) in [
        ("a", json!({"team": "red"})),
        ("b", json!({"team": "blue", "slow": "yes"})),
        ("c", json!({"team": "red"})),
    ] {
        let body = json!({"name": name, "labels": labels, "process": {"command": ["hang"]}});
        assert_eq!(api.post("/tasks", &body.to_string()).await.status, 201);
    }
    let list = |query: &'static str| {
        let api = &api;
        async move { api.get(&format!("/tasks?{query}")).await.json() }
    };
    assert_eq!(names(&list("").await["items"]), ["a", "b", "c"]);
    assert_eq!(
        names(&list("labelSelector=team%3Dred").await["items"]),
        ["a", "c"]
    );
    assert_eq!(names(&list("labelSelector=slow").await["items"]), ["b"]);
    assert_eq!(
        names(&list("labelSelector=!slow,team!=blue").await["items"]),
        ["a", "c"]
    );
    assert_eq!(
        names(&list("state=ended").await["items"]),
        Vec::<&str>::new()
    );

    let first = list("limit=2").await;
    assert_eq!(names(&first["items"]), ["a", "b"]);
    let cursor = first["nextCursor"].as_str().unwrap();
    let rest = api
        .get(&format!("/tasks?limit=2&cursor={cursor}"))
        .await
        .json();
    assert_eq!(names(&rest["items"]), ["c"]);
    assert!(rest["nextCursor"].is_null());
}

#[tokio::test]
async fn bad_queries_are_told() {
    let api = api().await;
    is_problem(&api.get("/tasks?limit=0").await, 400, "between 1 and 500");
    is_problem(&api.get("/tasks?limit=x").await, 400, "limit");
    is_problem(&api.get("/tasks?cursor=x").await, 400, "cursor");
    is_problem(&api.get("/tasks?state=lost").await, 400, "lost");
    is_problem(&api.get("/tasks?labelSelector=!").await, 400, "key");
}
