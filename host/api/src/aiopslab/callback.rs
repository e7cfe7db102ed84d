//! What is told to a `callback_url` when a task ended. Who tells it, and how, is the daemon's.

use serde::Serialize;
use taskwright_queue::QueuedTask;

use super::view::TaskView;

/// Whether a `callback_url` may be told, or why not, for whoever submits.
pub type CallbackCheck = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// What is sent.
#[derive(Serialize)]
struct CallbackView<'a> {
    /// `task.completed`, `task.failed`, `task.timeout` or `task.cancelled`.
    event: &'a str,
    /// The same however often it is sent: by this, a receiver knows a repeat.
    delivery_id: &'a str,
    /// How often it was sent, this one counted.
    attempt: u32,
    task: TaskView<'a>,
}

/// The end of a task, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackDocument {
    /// What happened.
    pub event: String,
    /// The same however often it is sent.
    pub delivery_id: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// Writes down how a task ended, for the `attempt`-th try to tell it.
///
/// # Errors
/// When it cannot be written as JSON, which a task on record always can.
pub fn callback_document(
    task: &QueuedTask,
    attempt: u32,
) -> Result<CallbackDocument, serde_json::Error> {
    let word = task.status.word();
    let event = format!("task.{word}");
    let delivery_id = format!("{}-{word}", task.id);
    let body = serde_json::to_vec(&CallbackView {
        event: &event,
        delivery_id: &delivery_id,
        attempt,
        task: TaskView::of(task),
    })?;
    Ok(CallbackDocument {
        event,
        delivery_id,
        body,
    })
}
