//! Who may write something down of a task.
//!
//! Whoever names itself has to hold the task under the attempt that it names, or to have ended
//! it by its own report: then what it still has to tell is as true as before. What a worker
//! tells that lost the task, was too slow, or was called off, is refused. Whoever names nobody
//! is taken at its word: the clients of the two documents know no other way.

use taskwright_model::TaskId;
use taskwright_queue::port::StoreError;
use taskwright_queue::{Cause, TaskStatus, Writer};

use super::locked;
use crate::queue::rows;
use crate::queue::sql::{OpError, Sql};

/// What is known of the attempt that something belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// The task's present attempt, or its last; 0 before the first.
    pub(super) present: u32,
    /// The attempt, where a writer told and was believed.
    pub(super) told: Option<u32>,
}

/// Refuses what is about a task that is not there, or whose writer does not hold it. As long as
/// the transaction lasts, a named writer goes on holding it.
pub(super) async fn check<S: Sql>(
    sql: &mut S,
    id: TaskId,
    writer: Option<&Writer>,
) -> Result<Written, OpError> {
    let statement = "SELECT attempt, status, worker_id, cause FROM queue_tasks WHERE id = ?1";
    let lock = if writer.is_some() { "FOR SHARE" } else { "" };
    let statement = locked::<S>(statement, lock);
    let row = sql.row(&statement, &[(&id.to_string()).into()]).await?;
    let mut row = row.ok_or(StoreError::NoSuchTask(id))?;
    let present = row.small(0)?;
    let Some(writer) = writer else {
        return Ok(Written {
            present,
            told: None,
        });
    };
    let status = rows::word(&mut row, 1, TaskStatus::of_word)?;
    let holder = row.opt_text(2)?;
    let cause = row.opt_text(3)?.as_deref().and_then(Cause::of_word);
    let ended_it = matches!(cause, Some(Cause::Reported | Cause::Infrastructure));
    let live = status == TaskStatus::Running || (status.is_ended() && ended_it);
    let his = holder.as_deref() == Some(writer.worker.as_str())
        && writer.attempt.is_none_or(|attempt| attempt == present);
    if live && his {
        return Ok(Written {
            present,
            told: Some(present),
        });
    }
    let under = match writer.attempt {
        Some(attempt) => format!(" under attempt {attempt}"),
        None => String::new(),
    };
    let now = match (&holder, status) {
        (Some(holder), TaskStatus::Running) => {
            format!("{holder} holds it under attempt {present}")
        }
        _ => format!("it is {}", status.word()),
    };
    let worker = &writer.worker;
    Err(StoreError::Conflict(format!(
        "task {id} is not held by {worker}{under}: {now}; nothing was written"
    ))
    .into())
}
