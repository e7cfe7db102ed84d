//! The native dialect over a running loop with fakes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod bodies;
mod edge;
mod events;
mod exec;
mod listing;
mod logs;
mod operation;
mod reviews;
mod sets;
mod tasks;

use serde_json::Value;

use crate::fake::Answer;

/// The error of a contract route: status, code, and words of its message.
#[track_caller]
fn is_contract_error(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(
        body["code"],
        answer.status.canonical_reason().unwrap(),
        "{body}"
    );
    let message = body["message"].as_str().unwrap();
    assert!(message.contains(words), "{message:?} lacks {words:?}");
    assert!(answer.text().ends_with("}\n"));
}

/// The error of a route of ours.
#[track_caller]
fn is_problem(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let body = answer.json();
    assert_eq!(body["status"], status, "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(words), "{detail:?} lacks {words:?}");
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().unwrap();
    items
        .iter()
        .map(|task| task["name"].as_str().unwrap())
        .collect()
}
