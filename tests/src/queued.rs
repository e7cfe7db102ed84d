//! The queue as its clients speak to it: tasks that wait, and workers that take them.

use serde_json::{Value, json};

use crate::{Client, Request, Response, SOON, eventually_some};

/// Queues a task; answers its id.
pub fn submit(client: &Client, body: &Value) -> String {
    let task = client.post("/api/v1/tasks", body).expect(201).json();
    assert_eq!(task["status"], "pending", "{task}");
    id_of(&task)
}

/// The id in an answer.
#[must_use]
pub fn id_of(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_default().to_owned()
}

/// Registers the worker with this number, which may hold so many tasks; answers its id.
pub fn register(client: &Client, number: u16, places: u32) -> String {
    let id = format!("worker-{number:03}-kind");
    let abilities = json!({"max_parallel_tasks": places});
    let body = json!({"worker_id": id, "backend_type": "kind", "capabilities": abilities});
    client.post("/api/v1/workers/register", &body).expect(201);
    id
}

/// Claims without waiting.
#[must_use]
pub fn claim(client: &Client, worker: &str) -> Option<Value> {
    let path = format!("/api/v1/workers/{worker}/claim");
    let answer = client.send(Request::new("POST", &path));
    match answer.status {
        204 => None,
        _ => Some(answer.expect(200).json()),
    }
}

/// Claims until there is a task.
pub fn until_claimed(client: &Client, worker: &str) -> Value {
    eventually_some(SOON, "a task is claimed", || claim(client, worker))
}

/// A task as it is now.
#[must_use]
pub fn task(client: &Client, id: &str) -> Value {
    let answer = client.get(&format!("/api/v1/tasks/{id}"));
    answer.expect(200).json()
}

/// Reports how an attempt went: `complete` or `fail`.
pub fn report(client: &Client, worker: &str, id: &str, how: &str, body: &Value) -> Response {
    let path = format!("/api/v1/workers/{worker}/tasks/{id}/{how}");
    client.post(&path, body)
}
